//! A recorded binlog with images of every kind, and documents logged as differences.

use std::path::Path;

use super::*;
use crate::binlog::{EventBody, FileSource, Source};

/// The half-events of the file, each as `op key=… column=…`; what is left out is not shown, but for ` +source` if only that knows
/// it.
async fn changes() -> Vec<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/binlog/images.000001");
    let mut source = FileSource::open(vec![file]).unwrap();
    let mut changes = Vec::new();
    while let Some(event) = source.next().await.unwrap() {
        let EventBody::Rows(image) = event.body else { continue };
        let schema = image.map.schema(None).unwrap();
        let (batch, _) = decode(&image, schema, 0).unwrap();
        // What is skipped is walked over in the same steps.
        assert!(decode(&image, image.map.schema(None).unwrap(), u64::MAX).unwrap().0.is_empty());
        changes.extend((0..batch.len()).map(|row| shown_change(&batch, row)));
    }
    changes
}

fn shown_change(batch: &ChangeBatch, row: usize) -> String {
    let image = batch.images.get(row);
    let cell = |(index, column): (usize, &weir_model::Column)| {
        let values = batch.rows.column(index);
        if image.is_some_and(|image| !image.knows(index)) {
            assert!(values.is_null(row));
            return None;
        }
        let text = match values {
            nulls if nulls.is_null(row) => "NULL".to_owned(),
            text if text.data_type().is_string() => text.as_string::<i32>().value(row).to_owned(),
            ints => ints.as_primitive::<Int32Type>().value(row).to_string(),
        };
        // Thousands of letters say no more than their number.
        let long = text.replace(&"y".repeat(70_000), "70000y").replace(&"x".repeat(200), "200x");
        Some(format!("{}={long}", column.name))
    };
    let cells: Vec<String> = batch.schema.columns.iter().enumerate().filter_map(cell).collect();
    let rest = if image.is_some_and(|image| image.rest == Rest::AtSource) { " +source" } else { "" };
    format!("{} {}{rest}", batch.ops[row], cells.join(" "))
}

#[tokio::test]
async fn images_of_every_kind_say_what_they_know() {
    let one = |body: &str| format!("u a=1 n=7 b=one body={body} other=NULL");
    let expected = [
        r#"c a=1 n=7 b=one body={"k": 1, "dec": 1.500, "pad": "200x", "list": [1, "two", null]} other=NULL"#.to_owned(),
        r#"c a=2 n=7 b=two body={"at": "2026-11-28 01:02:03.000000", "big": 18446744073709551615, "pad": "70000y"} other=NULL"#.to_owned(),
        "c a=3 n=7 b=three body=NULL other=NULL".to_owned(),
        // FULL, with differences to the image before, which is here.
        one(r#"{"k": -0.25, "dec": 1.500, "pad": "200x", "list": [1, "two", null], "a key": "2026-11-28"}"#),
        one(r#"{"k": -0.25, "dec": 1.500, "pad": "200x", "list": [1, {"deep": "base64:type15:AP8="}, "two", null], "a key": "2026-11-28"}"#),
        one(r#"{"k": -0.25, "dec": 1.500, "list": [{"deep": "base64:type15:AP8="}, "two", null], "a key": "2026-11-28"}"#),
        r#"u a=2 n=7 b=two body={"at": "2026-11-28 01:02:03.000000", "big": 1.5, "pad": "70000y"} other=NULL"#.to_owned(),
        r#"u a=2 n=NULL b=two body={"at": "2026-11-28 01:02:03.000000", "big": 1.5} other=NULL"#.to_owned(),
        r#"u a=3 n=7 b=three body={"new": true} other=NULL"#.to_owned(),
        r#"u a=1 n=8 b=one body={"k": -0.25, "dec": 1.500, "list": [{"deep": "base64:type15:AP8="}, "two", null], "a key": "2026-11-28"} other=NULL"#.to_owned(),
        r#"u a=2 n=8 b=two body={"at": "2026-11-28 01:02:03.000000", "big": 1.5} other=NULL"#.to_owned(),
        // NOBLOB: no texts that have not changed; documents are there.
        r#"u a=3 n=9 body={"new": true} other=NULL"#.to_owned(),
        r#"u a=3 n=9 body={"new": false} other=NULL"#.to_owned(),
        r#"d a=3 n=9 body={"new": false} other=NULL"#.to_owned(),
        r#"c a=4 n=9 body={"new": false} other=NULL +source"#.to_owned(),
        "c a=5 n=7 body=NULL other=NULL +source".to_owned(),
        // MINIMAL: of an insert what was given, of an update the key and what has changed.
        "c a=6 +source".to_owned(),
        "u a=6 b=six".to_owned(),
        r#"u a=6 body={"pad": "200x", "whole": 1}"#.to_owned(),
        // A difference to what is not here.
        "u a=6 +source".to_owned(),
        "d a=6".to_owned(),
        "c a=7 n=1 +source".to_owned(),
        "d a=7".to_owned(),
    ];
    assert_eq!(changes().await, expected);
}
