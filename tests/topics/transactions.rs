//! Transactions that take back a part of what they did, and tables whose engine cannot.

use std::time::Duration;

use crate::support::lake::assert_equal;
use crate::support::mysql::Mysql;
use crate::support::weir::{Weir, eventually};

#[test]
fn what_is_rolled_back_is_not_there_and_what_an_engine_kept_is() {
    // Of its own: what others write would be on its way when the accounts are asked for.
    let mysql = &Mysql::start(&[]);
    mysql.run(
        "CREATE DATABASE parts; USE parts;
         CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(40)); INSERT INTO t VALUES (1, 'one'), (2, 'two');
         CREATE TABLE m (id INT PRIMARY KEY, v INT) ENGINE=MyISAM; INSERT INTO m VALUES (1, 1);
         CREATE PROCEDURE fails() BEGIN
            DECLARE CONTINUE HANDLER FOR SQLEXCEPTION BEGIN END;
            INSERT INTO t VALUES (100, 'half'), (101, 'half'), (100, 'again');
            INSERT INTO m VALUES (100, 1), (101, 1), (100, 2), (102, 3);
            UPDATE m SET id = id + 1 ORDER BY id;
         END",
    );
    let weir = Weir::new(&mysql.url, &["parts.*"], "");
    weir.catch_up();
    let service = weir.run();
    mysql.run(
        "USE parts;
         BEGIN; INSERT INTO t VALUES (3, 'kept'); SAVEPOINT a; INSERT INTO t VALUES (4, 'gone'); UPDATE t SET v = 'gone' WHERE id = 1;
         SAVEPOINT b; DELETE FROM t; ROLLBACK TO b; ROLLBACK TO a; UPDATE t SET v = 'kept' WHERE id = 2; RELEASE SAVEPOINT a; COMMIT;
         BEGIN; INSERT INTO t VALUES (5, 'gone'); ROLLBACK;
         BEGIN; SAVEPOINT a; INSERT INTO t VALUES (6, 'gone'); ROLLBACK TO a; COMMIT;
         BEGIN; INSERT INTO m VALUES (7, 7); ROLLBACK;
         CALL fails();
         CREATE TEMPORARY TABLE scratch (id INT PRIMARY KEY, v VARCHAR(40)); INSERT INTO scratch VALUES (8, 'of a temporary table');
         BEGIN; INSERT INTO t SELECT * FROM scratch; UPDATE scratch SET v = 'x'; INSERT INTO t VALUES (9, 'kept'); COMMIT; DROP TEMPORARY TABLE scratch;
         CREATE TABLE copied (id INT PRIMARY KEY) AS SELECT id, v FROM t WHERE id < 9;
         REPLACE INTO copied VALUES (2, 'replaced'), (77, 'made')",
    );
    eventually("the copies are there", Duration::from_secs(60), || {
        let rows = mysql.value("SELECT CAST(COUNT(*) AS CHAR) FROM parts.copied");
        weir.has_rows("parts.copied", rows.parse().expect("a number"))
    });
    assert_eq!(service.terminate().0, Some(0));
    weir.catch_up();
    assert!(
        mysql.value("SELECT CAST(COUNT(*) AS CHAR) FROM parts.m").parse::<u32>().unwrap() > 3,
        "MyISAM kept what it could"
    );
    assert_equal(mysql, &weir, "parts");
    weir.balanced();
}
