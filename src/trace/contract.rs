//! What every trace sink must do, run against each of them.

use weir_model::{Digest, EventId, Op, TableId, Window};

use super::{Hop, StageCount, Tally, TraceSink};

pub(crate) fn table() -> TableId {
    TableId::new("shop", "orders")
}

/// `count` creates that passed from capture into the table, with digests that wrap around.
pub(crate) fn accounts(window_ms: i64, count: u64) -> Vec<StageCount> {
    let mut tally = Tally::default();
    for hop in [Hop::Captured, Hop::Consumed, Hop::Published, Hop::Upserted] {
        for n in 0..count {
            tally.event(hop, Op::Create, Window(window_ms), EventId(u128::MAX - u128::from(n)));
        }
    }
    tally.counts()
}

/// `sink` is empty.
pub(crate) async fn upheld_by(sink: &impl TraceSink) {
    an_empty_sink_knows_nothing(sink).await;
    a_commit_shipped_twice_counts_once(sink).await;
    sums_cover_commits_and_wrap_as_digests_do(sink).await;
    windows_before_since_are_left_out(sink).await;
    sources_and_tables_are_kept_apart(sink).await;
    the_mark_never_falls_and_moves_without_counts(sink).await;
    a_forgotten_table_begins_anew(sink).await;
}

async fn an_empty_sink_knows_nothing(sink: &impl TraceSink) {
    assert_eq!(sink.shipped_version("shop", &table()).await.unwrap(), None);
    assert_eq!(sink.totals("shop", &table(), None).await.unwrap(), []);
}

async fn a_commit_shipped_twice_counts_once(sink: &impl TraceSink) {
    for at_ms in [10, 20] {
        sink.ship("shop", &table(), 1, at_ms, &accounts(60_000, 3)).await.unwrap();
    }
    assert_eq!(sink.shipped_version("shop", &table()).await.unwrap(), Some(1));
    assert_eq!(sink.totals("shop", &table(), None).await.unwrap(), accounts(60_000, 3));
}

async fn sums_cover_commits_and_wrap_as_digests_do(sink: &impl TraceSink) {
    sink.ship("shop", &table(), 2, 30, &accounts(60_000, 2)).await.unwrap();
    let sums = sink.totals("shop", &table(), None).await.unwrap();
    let (first, second) = (accounts(60_000, 3), accounts(60_000, 2));
    for (sum, (a, b)) in sums.iter().zip(first.iter().zip(&second)) {
        assert_eq!((sum.count, sum.digest), (5, a.digest + b.digest));
    }
    assert_eq!(sums.len(), 4);
}

async fn windows_before_since_are_left_out(sink: &impl TraceSink) {
    sink.ship("shop", &table(), 3, 40, &accounts(120_000, 1)).await.unwrap();
    assert_eq!(sink.totals("shop", &table(), Some(Window(120_000))).await.unwrap(), accounts(120_000, 1));
    assert_eq!(sink.totals("shop", &table(), None).await.unwrap().len(), 8);
}

async fn sources_and_tables_are_kept_apart(sink: &impl TraceSink) {
    let other = TableId::new("shop", "customers");
    sink.ship("shop", &other, 7, 50, &accounts(0, 9)).await.unwrap();
    sink.ship("crm", &table(), 8, 50, &accounts(0, 8)).await.unwrap();
    assert_eq!(sink.shipped_version("shop", &table()).await.unwrap(), Some(3));
    assert_eq!(sink.totals("shop", &other, None).await.unwrap(), accounts(0, 9));
    assert_eq!(sink.totals("crm", &table(), None).await.unwrap(), accounts(0, 8));
}

async fn the_mark_never_falls_and_moves_without_counts(sink: &impl TraceSink) {
    sink.ship("shop", &table(), 5, 60, &[]).await.unwrap();
    sink.ship("shop", &table(), 3, 60, &accounts(120_000, 1)).await.unwrap();
    assert_eq!(sink.shipped_version("shop", &table()).await.unwrap(), Some(5));
}

async fn a_forgotten_table_begins_anew(sink: &impl TraceSink) {
    sink.forget("shop", &table()).await.unwrap();
    an_empty_sink_knows_nothing(sink).await;
    let counts = [StageCount {
        hop: Hop::ChunkRead,
        op: Op::Read,
        window: Window(-60_000),
        count: 4,
        digest: Digest::default(),
    }];
    sink.ship("shop", &table(), 0, 70, &counts).await.unwrap();
    assert_eq!(sink.totals("shop", &table(), None).await.unwrap(), counts);
    assert_eq!(sink.shipped_version("crm", &table()).await.unwrap(), Some(8));
}
