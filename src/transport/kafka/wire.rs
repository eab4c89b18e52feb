//! What a Kafka message looks like: headers that say what it is, and an Arrow IPC stream or a JSON object.
//!
//! The format is for others to read, too: docs/batch-messages.md describes it.

use std::collections::{BTreeMap, HashMap};
use std::io::Cursor;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int8Type, Int64Type};
use arrow_array::{Array, ArrayRef, BinaryArray, FixedSizeBinaryArray, Int8Array, Int64Array, RecordBatch};
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema};
use serde::{Deserialize, Serialize};
use weir_model::image::Rest;
use weir_model::{
    ChangeBatch, Digest, EventId, Gtid, GtidSet, Images, Op, Order, PartialImage, TableId, TableSchema, Window,
};

use crate::transport::{Marker, PublishNumber};

/// Version of the format of messages whose rows are whole; a greater one than the next is refused.
const FORMAT: &str = "1";
/// The version of batches with rows that leave columns out, which whoever knows the other alone would take for NULL.
const FORMAT_OF_PARTIAL: &str = "2";

/// Key of the schema's metadata that holds table, columns with their MySQL types, and key.
const SCHEMA_KEY: &str = "weir.schema";

/// Columns behind the source's own.
const META_COLUMNS: [(&str, DataType); 5] = [
    ("_weir_op", DataType::Int8),
    ("_weir_ts_ms", DataType::Int64),
    ("_weir_seq", DataType::Int64),
    ("_weir_id", DataType::FixedSizeBinary(16)),
    ("_weir_window_ms", DataType::Int64),
];

/// Behind those, of a batch with rows that leave columns out, what is known of each row: NULL if it is whole; else a byte, 0 if
/// the columns that are left out are those of the row before and 1 if only the source knows them, and a bit for each of the
/// source's columns, the least significant first, set if its value is here.
const IMAGE_COLUMN: &str = "_weir_image";
const UNCHANGED: u8 = 0;
const AT_SOURCE: u8 = 1;

/// Key of the schema's metadata that holds the GTIDs of the rows that leave columns out.
const TRANSACTIONS_KEY: &str = "weir.partial";

/// A message that cannot be understood. Nothing of it is applied.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("the message has no header {0}")]
    Missing(&'static str),
    #[error("header {name} is `{value}`, which makes no sense")]
    Header { name: &'static str, value: String },
    #[error("the message has format {0}; this version of weir knows {FORMAT} and {FORMAT_OF_PARTIAL}")]
    Format(String),
    #[error("the Arrow stream cannot be read: {0}")]
    Arrow(#[from] ArrowError),
    #[error("the JSON cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    Content(String),
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Changes,
    Marker,
    /// A transaction that was sent in parts has ended.
    End,
}

impl Kind {
    const ALL: [(Self, &'static str); 3] = [(Self::Changes, "changes"), (Self::Marker, "marker"), (Self::End, "end")];

    fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// The headers of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    pub kind: Kind,
    /// Whether rows of it leave columns out.
    pub has_partial_images: bool,
    pub source: String,
    pub table: TableId,
    /// Incarnation of the topic.
    pub topic: Arc<str>,
    pub publish: PublishNumber,
    /// Partitions of the topic that the publish wrote to, ascending.
    pub partitions: Arc<[u32]>,
    /// Number of the message among those of the publish in this partition, from 1, and how many there are.
    pub part: (u32, u32),
    /// The publish ends inside this transaction.
    pub partial: Option<Gtid>,
}

/// Names of the headers.
mod name {
    pub const FORMAT: &str = "weir-format";
    pub const KIND: &str = "weir-kind";
    pub const SOURCE: &str = "weir-source";
    pub const TABLE: &str = "weir-table";
    pub const TOPIC: &str = "weir-topic";
    pub const PUBLISH: &str = "weir-publish";
    pub const PARTITIONS: &str = "weir-partitions";
    pub const PART: &str = "weir-part";
    pub const PARTIAL: &str = "weir-partial";
    pub const ROWS: &str = "weir-rows";
    pub const DIGEST: &str = "weir-digest";
    pub const ORDER_FIRST: &str = "weir-order-first";
    pub const ORDER_LAST: &str = "weir-order-last";
}

impl Envelope {
    /// The headers as they travel.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let partitions: Vec<String> = self.partitions.iter().map(ToString::to_string).collect();
        let mut headers = vec![
            (name::FORMAT, if self.has_partial_images { FORMAT_OF_PARTIAL } else { FORMAT }.to_owned()),
            (name::KIND, self.kind.name().to_owned()),
            (name::SOURCE, self.source.clone()),
            (name::TABLE, self.table.to_string()),
            (name::TOPIC, self.topic.to_string()),
            (name::PUBLISH, self.publish.0.to_string()),
            (name::PARTITIONS, partitions.join(",")),
            (name::PART, format!("{}/{}", self.part.0, self.part.1)),
        ];
        headers.extend(self.partial.as_ref().map(|gtid| (name::PARTIAL, gtid.to_string())));
        headers
    }

    /// Reads the headers of a message.
    ///
    /// # Errors
    /// Names the header that is missing or makes no sense.
    pub fn of(headers: &BTreeMap<&str, &str>) -> Result<Self, WireError> {
        let text = |name| headers.get(name).copied().ok_or(WireError::Missing(name));
        let wrong = |name, value: &str| WireError::Header { name, value: value.to_owned() };
        let format = text(name::FORMAT)?;
        if ![FORMAT, FORMAT_OF_PARTIAL].contains(&format) {
            return Err(WireError::Format(format.to_owned()));
        }
        let kind = text(name::KIND)?;
        let known = Kind::ALL.iter().find(|(_, name)| *name == kind).ok_or_else(|| wrong(name::KIND, kind))?;
        let table = text(name::TABLE)?;
        let publish = text(name::PUBLISH)?;
        let partitions = text(name::PARTITIONS)?;
        let numbers: Result<Arc<[u32]>, _> = partitions.split(',').map(str::parse).collect();
        let part = text(name::PART)?;
        let (nth, of) = part.split_once('/').ok_or_else(|| wrong(name::PART, part))?;
        let part = nth.parse().ok().zip(of.parse().ok()).ok_or_else(|| wrong(name::PART, part))?;
        let partial = headers.get(name::PARTIAL).copied();
        Ok(Self {
            kind: known.0,
            has_partial_images: format == FORMAT_OF_PARTIAL,
            source: text(name::SOURCE)?.to_owned(),
            table: TableId::try_from(table.to_owned()).map_err(|_| wrong(name::TABLE, table))?,
            topic: text(name::TOPIC)?.into(),
            publish: PublishNumber(publish.parse().map_err(|_| wrong(name::PUBLISH, publish))?),
            partitions: numbers.map_err(|_| wrong(name::PARTITIONS, partitions))?,
            part,
            partial: partial.map(|gtid| gtid.parse().map_err(|_| wrong(name::PARTIAL, gtid))).transpose()?,
        })
    }
}

/// The headers that a batch has beside those of its [`Envelope`]; for people and for checks, nothing here reads them.
pub fn summary(batch: &ChangeBatch) -> Vec<(&'static str, String)> {
    let mut digest = Digest::default();
    for id in &batch.ids {
        digest += *id;
    }
    let mut headers = vec![(name::ROWS, batch.len().to_string()), (name::DIGEST, digest.to_string())];
    if let (Some(first), Some(last)) = (batch.orders.iter().min(), batch.orders.iter().max()) {
        headers.push((name::ORDER_FIRST, first.to_string()));
        headers.push((name::ORDER_LAST, last.to_string()));
    }
    headers
}

/// A batch as an Arrow IPC stream: the source's columns, then operation, order, id and window, then what is known of the rows
/// if not all are whole.
pub fn encode_changes(batch: &ChangeBatch) -> Result<Vec<u8>, WireError> {
    let mut fields: Vec<Field> = batch.rows.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    fields.extend(META_COLUMNS.iter().map(|(name, ty)| Field::new(*name, ty.clone(), false)));
    let described = serde_json::to_string(batch.schema.as_ref())?;
    let mut metadata = HashMap::from([(SCHEMA_KEY.to_owned(), described)]);
    if !batch.images.are_whole() {
        fields.push(Field::new(IMAGE_COLUMN, DataType::Binary, true));
        metadata.insert(TRANSACTIONS_KEY.to_owned(), batch.images.transactions().to_string());
    }
    let schema = Arc::new(Schema::new(fields).with_metadata(metadata));
    let mut columns: Vec<ArrayRef> = batch.rows.columns().to_vec();
    columns.push(Arc::new(batch.ops.iter().map(|op| code_of(*op)).collect::<Int8Array>()));
    columns.push(Arc::new(batch.orders.iter().map(|order| order.ts_ms).collect::<Int64Array>()));
    columns.push(Arc::new(batch.orders.iter().map(|order| order.seq).collect::<Int64Array>()));
    let ids: Vec<u8> = batch.ids.iter().flat_map(|id| id.0.to_be_bytes()).collect();
    columns.push(Arc::new(FixedSizeBinaryArray::try_new(16, ids.into(), None)?));
    columns.push(Arc::new(batch.windows.iter().map(|window| window.0).collect::<Int64Array>()));
    if !batch.images.are_whole() {
        let images = (0..batch.len()).map(|row| batch.images.get(row).map(image_bytes));
        columns.push(Arc::new(images.collect::<BinaryArray>()));
    }
    let mut bytes = Vec::with_capacity(batch.bytes() + 1024);
    let mut writer = StreamWriter::try_new(&mut bytes, &schema)?;
    writer.write(&RecordBatch::try_new(schema.clone(), columns)?)?;
    writer.finish()?;
    drop(writer);
    Ok(bytes)
}

/// Schemas that were read before, so that thousands of batches share one.
#[derive(Debug, Default)]
pub struct SchemaCache {
    last: Option<(String, Arc<TableSchema>)>,
}

impl SchemaCache {
    fn get(&mut self, text: &str) -> Result<Arc<TableSchema>, WireError> {
        match &self.last {
            Some((known, schema)) if known == text => Ok(schema.clone()),
            _ => {
                let schema: Arc<TableSchema> = Arc::new(serde_json::from_str(text)?);
                self.last = Some((text.to_owned(), schema.clone()));
                Ok(schema)
            }
        }
    }
}

/// What [`encode_changes`] made.
///
/// # Errors
/// When the bytes are not such a stream, or its columns are not those that its schema tells. Arrow's reader panics at
/// some bytes that nobody sound would write; that is an error here as well.
pub fn decode_changes(bytes: &[u8], schemas: &mut SchemaCache) -> Result<ChangeBatch, WireError> {
    let read = std::panic::AssertUnwindSafe(|| decode_stream(bytes, schemas));
    std::panic::catch_unwind(read).unwrap_or_else(|_| Err(WireError::Content("the Arrow stream is damaged".into())))
}

/// Whether every message of an Arrow stream lies within `bytes` (Arrow columnar format, "IPC Streaming Format"), and none is
/// compressed: a reader makes room for what a message says of itself before it sees that it is not there.
fn is_framed(mut bytes: &[u8]) -> bool {
    const CONTINUATION: [u8; 4] = [0xff; 4];
    loop {
        let Some((head, rest)) = bytes.split_at_checked(8) else { return bytes.is_empty() };
        let (mark, length) = head.split_at(4);
        let Ok(length) = <[u8; 4]>::try_from(length).map(i32::from_le_bytes) else { return false };
        if mark != CONTINUATION || length < 0 {
            return false;
        }
        if length == 0 {
            return rest.is_empty();
        }
        let Some((meta, rest)) = rest.split_at_checked(length as usize) else { return false };
        let Ok(message) = arrow_ipc::root_as_message(meta) else { return false };
        if message.header_as_record_batch().is_some_and(|batch| batch.compression().is_some()) {
            return false;
        }
        let body = usize::try_from(message.bodyLength()).ok();
        let Some((_, rest)) = body.and_then(|body| rest.split_at_checked(body)) else { return false };
        bytes = rest;
    }
}

fn decode_stream(bytes: &[u8], schemas: &mut SchemaCache) -> Result<ChangeBatch, WireError> {
    if !is_framed(bytes) {
        return Err(WireError::Content("the Arrow stream is damaged".into()));
    }
    let mut reader = StreamReader::try_new(Cursor::new(bytes), None)?;
    let arrow = reader.schema();
    let described = arrow.metadata().get(SCHEMA_KEY);
    let described = described.ok_or_else(|| WireError::Content(format!("the schema lacks {SCHEMA_KEY}")))?;
    let schema = schemas.get(described)?;
    let all = reader.next().ok_or_else(|| WireError::Content("the stream holds no batch".into()))??;
    if reader.next().is_some() {
        return Err(WireError::Content("the stream holds more than one batch".into()));
    }
    let width = schema.columns.len();
    let images = images_of(&all, width + META_COLUMNS.len(), arrow.metadata().get(TRANSACTIONS_KEY))?;
    if all.num_columns() - usize::from(!images.are_whole()) != width + META_COLUMNS.len() {
        return Err(WireError::Content(format!("{} columns where {width} and ours are told", all.num_columns())));
    }
    for (column, (name, ty)) in all.columns()[width..].iter().zip(&META_COLUMNS) {
        if column.data_type() != ty || column.null_count() > 0 {
            return Err(WireError::Content(format!("column {name} is not a {ty} without nulls")));
        }
    }
    let rows = RecordBatch::try_new(schema.arrow(), all.columns()[..width].to_vec())?;
    let ints = |at: usize| all.column(width + at).as_primitive::<Int64Type>().values().to_vec();
    let ops = all.column(width).as_primitive::<Int8Type>().values().iter().map(|code| op_of(*code));
    let (ts, seqs) = (ints(1), ints(2));
    let ids = all.column(width + 3).as_fixed_size_binary();
    let id = |row| u128::from_be_bytes(ids.value(row).try_into().expect("16 bytes by its type"));
    Ok(ChangeBatch {
        ops: ops.collect::<Result<_, _>>()?,
        orders: ts.into_iter().zip(seqs).map(|(ts_ms, seq)| Order::new(ts_ms, seq)).collect(),
        ids: (0..all.num_rows()).map(|row| EventId(id(row))).collect(),
        windows: ints(4).into_iter().map(Window).collect(),
        schema,
        rows,
        images,
    })
}

fn image_bytes(image: &PartialImage) -> Vec<u8> {
    let rest = match image.rest {
        Rest::Unchanged => UNCHANGED,
        Rest::AtSource => AT_SOURCE,
    };
    [&[rest][..], &image.known].concat()
}

/// What is known of the rows of a batch whose columns before the one that says so are `before`.
fn images_of(all: &RecordBatch, before: usize, transactions: Option<&String>) -> Result<Images, WireError> {
    let content = |why: &str| WireError::Content(why.to_owned());
    let mut images = Images::default();
    let Some(told) = all.columns().get(before) else { return Ok(images) };
    if all.schema_ref().field(before).name() != IMAGE_COLUMN || told.data_type() != &DataType::Binary {
        return Err(content("a column behind ours that is not known"));
    }
    let told = told.as_binary::<i32>();
    for row in (0..told.len()).filter(|row| told.is_valid(*row)) {
        let rest = match told.value(row).first() {
            Some(&UNCHANGED) => Rest::Unchanged,
            Some(&AT_SOURCE) => Rest::AtSource,
            _ => return Err(content("an image that makes no sense")),
        };
        images.note(row, PartialImage { known: told.value(row)[1..].to_vec(), rest });
    }
    let transactions = transactions.ok_or_else(|| content("rows leave columns out, and no transactions are told"))?;
    let gtids: GtidSet =
        transactions.parse().map_err(|_| content("the transactions of partial images are no GTIDs"))?;
    images.note_transactions(&gtids);
    Ok(images)
}

fn code_of(op: Op) -> i8 {
    match op {
        Op::Read => 0,
        Op::Create => 1,
        Op::Update => 2,
        Op::Delete => 3,
    }
}

fn op_of(code: i8) -> Result<Op, WireError> {
    match code {
        0 => Ok(Op::Read),
        1 => Ok(Op::Create),
        2 => Ok(Op::Update),
        3 => Ok(Op::Delete),
        other => Err(WireError::Content(format!("{other} is not an operation"))),
    }
}

/// The JSON of a marker, or of a transaction's end, which has none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ControlBody {
    /// The source's columns as the sender knows them; whoever sees the table for the first time makes it with these.
    pub schema: Option<Arc<TableSchema>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marker: Option<Marker>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weir_model::{ChangeBuilder, Column, ColumnType, Half, ZeroDates, change::Stamp};

    use super::*;

    /// Rows of a key, a text, an operation, and whether the text is left out, and where it is then.
    type Row = (i64, Option<String>, u8, Option<bool>);

    fn batch(values: &[Row]) -> ChangeBatch {
        let column = |name: &str, ty| Column { name: name.into(), ty, nullable: true };
        let columns = vec![column("id", ColumnType::Int64), column("text", ColumnType::Binary)];
        let schema = Arc::new(TableSchema {
            table: TableId::new("shop", "orders"),
            columns,
            key: vec![0],
            layout: weir_model::Layout::default(),
        });
        let mut builder = ChangeBuilder::new(schema, ZeroDates::Null);
        for (id, text, op, left_out) in values {
            builder.columns_mut()[0].push_int(*id).unwrap();
            match text {
                Some(text) => builder.columns_mut()[1].push_binary(text.as_bytes()).unwrap(),
                None => builder.columns_mut()[1].push_null(),
            }
            let op = Op::STREAM[usize::from(*op)];
            let Some(at_source) = left_out else {
                builder.end_row(op, Half::First);
                continue;
            };
            let mut image = PartialImage::unknown(2, if *at_source { Rest::AtSource } else { Rest::Unchanged });
            image.set_known(0);
            builder.end_partial_row(op, Half::First, image);
            builder.note_partial_transaction(&"3e11fa47-71ca-11e1-9e33-c80aa9429562:23".parse().unwrap());
        }
        let mut seq = 0;
        builder.stamp(|_, _| {
            seq += 1;
            Stamp {
                order: Order::new(seq / 3, seq),
                id: EventId(u128::MAX / seq as u128),
                window: Window(seq * 60_000),
            }
        });
        builder.finish()
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_what_is_decoded(values in prop::collection::vec((any::<i64>(), prop::option::of(".{0,8}"), 0_u8..3, prop::option::weighted(0.3, any::<bool>())), 0..40)) {
            let sent = batch(&values);
            let received = decode_changes(&encode_changes(&sent).unwrap(), &mut SchemaCache::default()).unwrap();
            prop_assert_eq!(&received.rows, &sent.rows);
            prop_assert_eq!(&received.schema, &sent.schema);
            prop_assert_eq!(&received.images, &sent.images);
            prop_assert_eq!((&received.ops, &received.orders, &received.ids, &received.windows), (&sent.ops, &sent.orders, &sent.ids, &sent.windows));
        }

        /// A damaged message is an error or says something else; it neither panics nor asks for memory without bound.
        #[test]
        fn damaged_bytes_are_refused_not_followed(at in any::<prop::sample::Index>(), flip in 1_u8.., cut in any::<prop::sample::Index>()) {
            let mut bytes = encode_changes(&batch(&[(1, Some("a".into()), 0, None), (2, None, 2, Some(true))])).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            bytes.truncate(cut.index(bytes.len() * 2).min(bytes.len()));
            if let Ok(read) = decode_changes(&bytes, &mut SchemaCache::default()) {
                prop_assert_eq!(read.len(), read.rows.num_rows());
            }
        }

        #[test]
        fn headers_travel(publish: u64, partitions in prop::collection::vec(0_u32..64, 1..5), part in (1_u32..9, 1_u32..9), partial: bool, has_partial_images: bool) {
            let envelope = Envelope {
                kind: Kind::Marker,
                has_partial_images,
                source: "shop".into(),
                table: TableId::new("shop", "o.r,d/ers"),
                topic: "5a".into(),
                publish: PublishNumber(publish),
                partitions: partitions.into(),
                part,
                partial: partial.then(|| "3e11fa47-71ca-11e1-9e33-c80aa9429562:23".parse().unwrap()),
            };
            let headers = envelope.headers();
            let read: BTreeMap<&str, &str> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            prop_assert_eq!(Envelope::of(&read).unwrap(), envelope);
        }
    }

    #[test]
    fn a_later_format_is_refused_by_its_number() {
        let headers = BTreeMap::from([("weir-format", "3")]);
        assert!(matches!(Envelope::of(&headers), Err(WireError::Format(format)) if format == "3"));
    }
}
