//! What a chunk may be, what it may come with, and what is told of it.

use super::*;
use crate::limits::CHUNK_HELD_BYTES_MAX;

/// A chunk whose rows were read with other columns than the table's.
async fn chunk_of(table: &Table, schema: TableSchema, rows: &[(i64, &str)], order0: Order) -> Vec<StagedChunk> {
    let rows = source_rows(&schema, rows);
    let mut writer = ChunkWriter::create(table.files(), Arc::new(schema), order0, Window(0), 1).unwrap();
    writer.write(&rows).await.unwrap();
    writer.finish().await.unwrap()
}

/// Whether a rule about chunks refuses it.
async fn refused(table: &mut Table, change: TableChange) -> bool {
    matches!(table.commit(change).await, Err(TableError::Rule { rule, .. }) if rule.contains("chunk"))
}

#[tokio::test]
async fn a_chunk_comes_with_no_other_change_of_rows() {
    let warehouse = in_memory();
    let mut table = seeding(&warehouse).await;
    upsert(&mut table, &[(9, at(2), "stays")]).await;
    let with_stream = stream_change(&table, &[(1, at(4), "stream")], &[]);
    let with_delete = TableChange { rows: Vec::new(), ..stream_change(&table, &[], &[(9, at(4))]) };
    let with_clear = TableChange { clear: Some(clear(at(4))), ..stream_change(&table, &[], &[]) };
    let with_end = TableChange { remove_below: Some(below(at(1))), ..TableChange::to(table.state().clone()) };
    for change in [with_stream, with_delete, with_clear, with_end] {
        let staged = chunk(&table, &[(1, "chunk")], at(3)).await;
        assert!(refused(&mut table, TableChange { staged, ..change }).await);
    }
    assert_eq!(scan(&warehouse, None).await, Rows::from([(9, row(at(2), "stays"))]));
}

#[tokio::test]
async fn a_chunk_with_a_column_that_the_table_lacks_is_refused_unless_it_is_added() {
    let warehouse = in_memory();
    let mut table = seeding(&warehouse).await;
    let mut wider = schema();
    wider.columns.push(column("n", ColumnType::Int64));
    let staged = chunk_of(&table, wider.clone(), &[(1, "a")], at(2)).await;
    let state = table.state().clone();
    assert!(refused(&mut table, TableChange { staged, ..TableChange::to(state.clone()) }).await);
    assert_eq!(scan(&warehouse, None).await, Rows::new());

    let staged = chunk_of(&table, wider.clone(), &[(1, "a")], at(2)).await;
    committed(&mut table, TableChange { staged, evolve: Some(wider.clone()), ..TableChange::to(state) }).await;
    assert_eq!(scan(&warehouse, None).await, Rows::from([(1, row(at(2), "a"))]));
    assert_eq!(open(&warehouse, 1).await.schema().as_ref(), &wider);
}

#[tokio::test]
async fn a_chunk_whose_columns_stand_in_another_order_is_read_by_their_names() {
    let warehouse = in_memory();
    let table = Table::create(&warehouse, &composite_schema(), writer(1), TableState::default(), Buckets::whole())
        .await
        .unwrap();
    let mut table = begin_seed(table).await;
    upsert(&mut table, &[(1, at(2), "old"), (4, at(3), "old")]).await;
    // code, text, id; the key stays (code, id). Once as the table spells it, once written again under its names.
    let mut reversed = composite_schema();
    reversed.columns.reverse();
    reversed.key = vec![0, 2];
    let staged = chunk_of(&table, reversed.clone(), &[(1, "a"), (2, "b")], at(4)).await;
    merge(&mut table, staged).await;
    reversed.columns[1].name = "TEXT".into();
    let rows = source_rows(&composite_schema(), &[(4, "c"), (5, "d")]);
    let columns = rows.columns().iter().rev().cloned().collect();
    let mut writer = ChunkWriter::create(table.files(), Arc::new(reversed.clone()), at(5), Window(0), 1).unwrap();
    writer.write(&RecordBatch::try_new(reversed.arrow(), columns).unwrap()).await.unwrap();
    let staged = writer.finish().await.unwrap();
    merge(&mut table, staged).await;

    let chunk_rows = [(1, row(at(4), "a")), (2, row(at(4), "b")), (4, row(at(5), "c")), (5, row(at(5), "d"))];
    assert_eq!(scan(&warehouse, None).await, Rows::from(chunk_rows));
    let reopened = open(&warehouse, 1).await;
    assert_eq!((reopened.figures(), reopened.index_figures().0), (table.figures(), 4));
}

#[tokio::test]
async fn every_row_of_a_chunk_is_told_as_one_of_three() {
    let warehouse = in_memory();
    let mut table = seeding(&warehouse).await;
    let change = stream_change(&table, &[(1, at(9), "new")], &[(2, at(8))]);
    committed(&mut table, change).await;
    let staged = chunk(&table, &[(3, "first")], at(5)).await;
    merge(&mut table, staged).await;
    // Read again under the same order, as after a lost answer.
    let staged = chunk(&table, &[(1, "x"), (2, "x"), (3, "x"), (4, "x")], at(5)).await;
    let accounts = merge(&mut table, staged).await;
    let hops = [Hop::ChunkRead, Hop::ChunkUpserted, Hop::ChunkStale, Hop::ChunkDuplicate];
    assert_eq!(hops.map(|hop| total(&accounts, hop)), [4, 1, 2, 1]);
    let expected = Rows::from([(1, row(at(9), "new")), (3, row(at(5), "first")), (4, row(at(5), "x"))]);
    assert_eq!(scan(&warehouse, None).await, expected);
}

#[tokio::test]
async fn a_load_goes_on_behind_a_restart_with_chunks_above_the_floor() {
    let warehouse = in_memory();
    let mut table = seeding(&warehouse).await;
    let change = stream_change(&table, &[(1, at(5), "a")], &[(2, at(6))]);
    committed(&mut table, change).await;
    let mut table = open(&warehouse, 2).await;
    assert!(table.state().seed.is_some() && !table.may_merge(0, at(6)));
    let staged = chunk(&table, &[(1, "chunk"), (2, "chunk"), (3, "chunk")], at(7)).await;
    let change = stream_change(&table, &[], &[(1, at(8))]);
    committed(&mut table, change).await;
    merge(&mut table, staged).await;
    assert_eq!(scan(&warehouse, None).await, Rows::from([(2, row(at(7), "chunk")), (3, row(at(7), "chunk"))]));
}

#[tokio::test]
async fn orders_that_were_read_are_dropped_when_the_load_ends() {
    let warehouse = in_memory();
    let mut table = seeding(&warehouse).await;
    upsert(&mut table, &[(1, at(2), "a"), (2, at(9), "b")]).await;
    let staged = chunk(&table, &[(1, "chunk"), (2, "chunk")], at(5)).await;
    merge(&mut table, staged).await;
    assert_ne!(format!("{:?}", table.order_cache), format!("{:?}", OrderCache::default()));
    let mut state = table.state().clone();
    let start = state.seed.take().unwrap().start;
    committed(&mut table, TableChange { remove_below: Some(below(start)), ..TableChange::to(state) }).await;
    assert_eq!(format!("{:?}", table.order_cache), format!("{:?}", OrderCache::default()));
}

#[tokio::test]
async fn a_chunk_that_grows_beyond_memory_is_several_files_of_a_bucket() {
    // Texts that no compression makes small.
    let text = |seed: u64| -> String {
        let mut state = seed;
        let mut letter = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(33 + (state >> 33) as u8 % 90)
        };
        (0..1 << 20).map(|_| letter()).collect()
    };
    let warehouse = in_memory();
    let mut table = seeding(&warehouse).await;
    let mut writer = ChunkWriter::create(table.files(), table.schema().clone(), at(5), Window(0), 1).unwrap();
    for n in 0..150 {
        writer.write(&source_rows(table.schema(), &[(n, &text(n as u64))])).await.unwrap();
    }
    let staged = writer.finish().await.unwrap();
    assert_eq!(staged.len(), 2, "{:?}", staged.iter().map(StagedChunk::bytes).collect::<Vec<_>>());
    assert_eq!(staged.iter().map(StagedChunk::rows).sum::<u64>(), 150);
    let largest = staged.iter().map(StagedChunk::bytes).max().unwrap();
    assert!(largest < CHUNK_HELD_BYTES_MAX as u64 + (4 << 20), "{largest}");
    let state = table.state().clone();
    table.commit(TableChange { staged, ..TableChange::to(state) }).await.unwrap();
    assert_eq!(scan(&warehouse, None).await.len(), 150);

    // A key that is in two of them is refused.
    let mut staged = chunk(&table, &[(200, "a"), (201, "b")], at(5)).await;
    staged.extend(chunk(&table, &[(201, "c")], at(5)).await);
    let state = table.state().clone();
    assert!(refused(&mut table, TableChange { staged, ..TableChange::to(state) }).await);
}
