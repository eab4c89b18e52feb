//! The binlog read live, from files, and by an independent reader.

use super::{binlog_live, oracle};
use crate::support::mysql::{Mysql, block_on};

#[test]
fn the_live_stream_says_what_the_servers_files_say() {
    let mysql = Mysql::start(&[]);
    let (url, data) = (mysql.url.clone(), mysql.data());
    block_on(async move { binlog_live::live_and_files_agree(&url, &data).await });
}

#[test]
fn the_live_stream_resumes_waits_and_refuses_as_it_should() {
    let mysql = Mysql::start(&[]);
    let url = mysql.url.clone();
    block_on(async move {
        binlog_live::a_resumed_stream_sends_what_is_missing(&url).await;
        binlog_live::an_idle_stream_passes_the_end_of_the_binlog(&url).await;
        binlog_live::an_event_larger_than_a_packet_arrives_whole(&url).await;
        binlog_live::every_kind_of_login_works(&url).await;
        binlog_live::a_silent_server_is_given_up(&url).await;
        // Last: it purges binlogs.
        binlog_live::refusals_say_what_to_do(&url).await;
    });
}

#[test]
fn mysql_cdc_and_our_decoder_agree_on_the_recorded_binlogs() {
    for (fixture, refused_tables, rows_min) in
        [("oracle", &[][..], 250), ("basic", &["kinds"][..], 500), ("ddl", &[][..], 10), ("no_checksum", &[][..], 4)]
    {
        block_on(oracle::both_readers_agree(fixture, refused_tables, rows_min));
    }
}
