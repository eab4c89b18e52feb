//! Decoding of one row event of a common table: 12 columns, about 150 bytes a row.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use weir::binlog::table_map::{MapColumn, Signs, WireType, Writer};
use weir::binlog::{RowDecoder, RowsImage, RowsKind, TableMap};
use weir_model::{ChangeBuilder, ZeroDates};

const ROWS: u64 = 10_000;
const UTF8MB4: u32 = 45;

fn table_map() -> TableMap {
    let wires = [
        ("id", WireType::LongLong),
        ("customer", WireType::Long),
        ("status", WireType::Tiny),
        ("amount", WireType::Decimal { precision: 12, scale: 2 }),
        ("rate", WireType::Double),
        ("created", WireType::DateTime { fsp: 6 }),
        ("updated", WireType::Timestamp { fsp: 0 }),
        ("due", WireType::Date),
        ("name", WireType::VarChar { bytes_max: 200 }),
        ("note", WireType::VarChar { bytes_max: 1020 }),
        ("payload", WireType::Blob { length_bytes: 2 }),
        ("flags", WireType::Bit { bits: 1 }),
    ];
    let columns = wires.map(|(name, wire)| MapColumn {
        wire,
        nullable: true,
        unsigned: false,
        name: Some(name.into()),
        collation: matches!(wire, WireType::VarChar { .. } | WireType::Blob { .. }).then_some(UTF8MB4),
        members: Vec::new(),
        geometry_type: None,
        dimensions: None,
        visible: true,
    });
    TableMap {
        table_id: 1,
        database: "shop".into(),
        table: "orders".into(),
        columns: columns.into(),
        primary_key: vec![0],
        signs: Signs::Told,
        writer: Writer::Mysql,
    }
}

fn row(id: u64, out: &mut Vec<u8>) {
    out.extend([0, 0]);
    out.extend(id.to_le_bytes());
    out.extend((id as u32 % 1000).to_le_bytes());
    out.push(id as u8 % 5);
    out.extend([0x80, 0x00, 0x0D, 0xFB, 0x38, 0x22]);
    out.extend((id as f64 * 0.25).to_le_bytes());
    out.extend([0x99, 0xB2, 0xFE, 0xC8, 0xB5, 0x01, 0xE2, 0x40]);
    out.extend(1_700_000_000_u32.to_be_bytes());
    out.extend([0x5D, 0xD0, 0x0F]);
    out.push(24);
    out.extend(b"a customer's common name");
    out.extend(40_u16.to_le_bytes());
    out.extend(b"a note of forty bytes, all of them ASCII");
    out.extend(40_u16.to_le_bytes());
    out.extend("forty bytes of a text with é and ü in it".bytes().take(40));
    out.push(1);
}

fn image(kind: RowsKind) -> RowsImage {
    let mut rows = Vec::new();
    for id in 0..ROWS {
        row(id, &mut rows);
        if kind == RowsKind::Update {
            row(id, &mut rows);
        }
    }
    let present = Bytes::from_static(&[0xFF, 0x0F]);
    RowsImage {
        map: Arc::new(table_map()),
        kind,
        present: present.clone(),
        present_after: present,
        has_differences: false,
        rows: rows.into(),
        described: Bytes::new(),
    }
}

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("row_decode");
    group.throughput(Throughput::Elements(ROWS));
    for (name, kind) in [("insert", RowsKind::Insert), ("update", RowsKind::Update)] {
        let event = image(kind);
        let schema = Arc::new(event.map.schema(None).expect("a described table"));
        let decoder = RowDecoder::new(&event.map, schema.clone()).expect("a table that can be decoded");
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || ChangeBuilder::new(schema.clone(), ZeroDates::Null),
                |mut builder| {
                    black_box(decoder.decode(&event, 0, &mut builder).expect("well-formed rows"));
                    builder
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
