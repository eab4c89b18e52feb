//! Branches as capture holds them, decided without I/O.

use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::path::Path;

use super::*;

const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

fn gtid(gno: u64) -> Gtid {
    Gtid::new(UUID, "", gno)
}

fn to(gno: u64) -> GtidSet {
    format!("{UUID}:1-{gno}").parse().unwrap()
}

fn xid(name: u8) -> Xid {
    Xid { format: 1, gtrid: vec![name], bqual: Vec::new() }
}

async fn open(objects: &Arc<InMemory>, position: &GtidSet) -> Prepared {
    Prepared::open(PreparedStore::new(objects.clone(), Path::from("_weir/shop")), position, 0).await.unwrap()
}

impl Prepared {
    fn hold(&mut self, name: u8, gno: u64) {
        let head = PreparedHead::new(gtid(gno), xid(name), 5);
        self.held.insert(xid(name), Held { head, tail: Bytes::from_static(b"rows"), durable: false });
    }

    fn end(&mut self, name: u8, by: u64) {
        let held = self.held.remove(&xid(name)).unwrap();
        self.settled.push(Settled { held, by: gtid(by) });
    }

    fn names(&self) -> Vec<u8> {
        self.held.keys().map(|xid| xid.gtrid[0]).collect()
    }
}

#[tokio::test]
async fn a_stream_that_is_read_again_finds_what_its_position_has_passed() {
    let mut prepared = open(&Arc::new(InMemory::new()), &to(3)).await;
    prepared.hold(b'a', 4);
    prepared.make_durable().await.unwrap();
    prepared.hold(b'b', 5);
    prepared.end(b'a', 6);
    // The name is used again once it is free.
    prepared.hold(b'a', 7);
    prepared.rewind(&to(4));
    assert_eq!(prepared.names(), b"a");
    assert_eq!(prepared.held[&xid(b'a')].head.gtid, gtid(4));
    // Read again, its end is published.
    prepared.end(b'a', 6);
    prepared.published(&to(6));
    prepared.rewind(&to(6));
    assert_eq!(prepared.names(), b"");
}

#[tokio::test]
async fn what_begins_and_ends_between_two_publishes_is_never_put() {
    let objects = Arc::new(InMemory::new());
    let mut prepared = open(&objects, &to(3)).await;
    prepared.hold(b'a', 4);
    prepared.end(b'a', 5);
    prepared.make_durable().await.unwrap();
    prepared.published(&to(5));
    assert_eq!(open(&objects, &to(4)).await.names(), b"");
    prepared.hold(b'b', 6);
    prepared.make_durable().await.unwrap();
    assert!(prepared.held[&xid(b'b')].tail.is_empty());
    assert_eq!(open(&objects, &to(6)).await.names(), b"b");
}

#[tokio::test]
async fn a_branch_read_again_after_a_restart_is_held_once() {
    let objects = Arc::new(InMemory::new());
    let mut first = open(&objects, &to(3)).await;
    first.hold(b'a', 4);
    first.make_durable().await.unwrap();
    let part = first.held[&xid(b'a')].head.parts[0].clone();
    let mut second = open(&objects, &to(3)).await;
    assert_eq!(second.names(), b"");
    second.hold(b'a', 4);
    second.make_durable().await.unwrap();
    assert_eq!(second.held[&xid(b'a')].head.parts, [part]);
}

/// A branch that is durable, not published, and read again, where it ends before the next publish.
async fn ends_before_it_is_put_again(objects: &Arc<InMemory>, again: &mut Prepared) {
    again.hold(b'a', 4);
    again.end(b'a', 5);
    again.make_durable().await.unwrap();
    again.published(&to(5));
    again.hold(b'a', 6);
    again.make_durable().await.unwrap();
    let next = open(objects, &to(6)).await;
    // Another branch has the name by now, and is not mistaken for the first.
    assert_eq!(next.held.values().map(|held| held.head.gtid.clone()).collect::<Vec<_>>(), [gtid(6)]);
    next.store.forget_ended(&to(6)).await.unwrap();
    assert_eq!(next.store.list_held().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_branch_that_a_killed_process_has_put_is_forgotten_if_it_ends_before_it_is_put_again() {
    let objects = Arc::new(InMemory::new());
    let mut first = open(&objects, &to(3)).await;
    first.hold(b'a', 4);
    first.make_durable().await.unwrap();
    let mut second = open(&objects, &to(3)).await;
    ends_before_it_is_put_again(&objects, &mut second).await;
}

#[tokio::test]
async fn a_branch_that_was_put_before_a_connection_broke_is_forgotten_if_it_ends_before_it_is_put_again() {
    let objects = Arc::new(InMemory::new());
    let mut prepared = open(&objects, &to(3)).await;
    prepared.hold(b'a', 4);
    prepared.make_durable().await.unwrap();
    prepared.rewind(&to(3));
    ends_before_it_is_put_again(&objects, &mut prepared).await;
}
