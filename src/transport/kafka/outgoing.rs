//! A publish as the messages that it becomes: each batch split by bucket, each marker for every bucket. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::UInt32Array;
use arrow_select::take::take_record_batch;
use weir_model::{ChangeBatch, RecordKeys, TableId};

use super::topics::TopicInfo;
use super::wire::{ControlBody, Envelope, Kind, WireError, encode_changes, summary};
use crate::limits::KAFKA_BATCH_BYTES;
use crate::transport::{Item, Marker, Publish};

/// One message.
#[derive(Debug, Clone)]
pub struct Outgoing {
    pub table: TableId,
    pub topic: Arc<str>,
    pub partition: u32,
    pub headers: Vec<(&'static str, String)>,
    pub payload: Vec<u8>,
}

/// A message before it is known how many siblings it has.
struct Draft {
    partition: u32,
    kind: Kind,
    has_partial_images: bool,
    summary: Vec<(&'static str, String)>,
    payload: Vec<u8>,
}

/// The messages of `publish`, those of one table in order.
///
/// # Errors
/// With the table of an item that cannot travel: a single row that is larger than `message_bytes_max`.
pub fn messages(
    source: &str,
    publish: &Publish,
    topic_of: impl Fn(&TableId) -> Option<TopicInfo>,
    message_bytes_max: usize,
) -> Result<Vec<Outgoing>, (TableId, String)> {
    let mut by_table: BTreeMap<&TableId, Vec<&Item>> = BTreeMap::new();
    for (table, item) in &publish.items {
        by_table.entry(table).or_default().push(item);
    }
    let mut messages = Vec::new();
    for (table, items) in by_table {
        let refused = |why: String| (table.clone(), why);
        let topic = topic_of(table).ok_or_else(|| refused("its topic is not known".into()))?;
        let mut drafts = Vec::new();
        for item in items {
            let drawn = draft(item, topic.partitions).map_err(|error| refused(error.to_string()))?;
            if let Some(large) = drawn.iter().find(|draft| draft.payload.len() + HEADERS_BYTES > message_bytes_max) {
                return Err(refused(format!(
                    "a row makes a message of {} bytes, and topic {} takes {message_bytes_max}; raise `message.max.bytes` \
                     in [transport] options and the topic's `max.message.bytes`, then load the table again",
                    large.payload.len(),
                    topic.name
                )));
            }
            drafts.extend(drawn);
        }
        messages.extend(with_headers(source, table, &topic, publish, drafts));
    }
    Ok(messages)
}

/// Room that headers take, generously.
const HEADERS_BYTES: usize = 4 << 10;

fn with_headers(
    source: &str,
    table: &TableId,
    topic: &TopicInfo,
    publish: &Publish,
    drafts: Vec<Draft>,
) -> Vec<Outgoing> {
    let mut parts: BTreeMap<u32, u32> = BTreeMap::new();
    for draft in &drafts {
        *parts.entry(draft.partition).or_default() += 1;
    }
    let partitions: Arc<[u32]> = parts.keys().copied().collect();
    let mut sent: BTreeMap<u32, u32> = BTreeMap::new();
    let message = |draft: Draft| {
        let nth = sent.entry(draft.partition).or_default();
        *nth += 1;
        let envelope = Envelope {
            kind: draft.kind,
            has_partial_images: draft.has_partial_images,
            source: source.to_owned(),
            table: table.clone(),
            topic: topic.id.clone(),
            publish: publish.number,
            partitions: partitions.clone(),
            part: (*nth, parts[&draft.partition]),
            // A table that the transaction has not touched has nothing to hold back.
            partial: publish.boundary.partial.clone().filter(|_| publish.partial_rows.contains_key(table)),
        };
        let mut headers = envelope.headers();
        headers.extend(draft.summary);
        Outgoing {
            table: table.clone(),
            topic: topic.name.clone(),
            partition: draft.partition,
            headers,
            payload: draft.payload,
        }
    };
    drafts.into_iter().map(message).collect()
}

fn draft(item: &Item, partitions: u32) -> Result<Vec<Draft>, WireError> {
    let control = |marker: Option<&Marker>, kind: Kind| -> Result<Vec<Draft>, WireError> {
        let schema = match marker {
            Some(Marker::Schema(schema) | Marker::SeedBegin { schema, .. }) => Some(schema.clone()),
            _ => None,
        };
        let payload = serde_json::to_vec(&ControlBody { schema, marker: marker.cloned() })?;
        let has_partial_images = false;
        let to =
            |partition| Draft { partition, kind, has_partial_images, summary: Vec::new(), payload: payload.clone() };
        Ok((0..partitions).map(to).collect())
    };
    match item {
        Item::Marker(marker) => control(Some(marker), Kind::Marker),
        Item::TransactionEnd => control(None, Kind::End),
        // They only come out of a transport.
        Item::Nothing | Item::Unreadable(_) => Ok(Vec::new()),
        Item::Changes(changes) => {
            let mut drafts = Vec::new();
            for (partition, batch) in by_bucket(&changes.batch, partitions)? {
                for piece in pieces(batch) {
                    let (summary, payload) = (summary(&piece), encode_changes(&piece)?);
                    let (kind, has_partial_images) = (Kind::Changes, !piece.images.are_whole());
                    drafts.push(Draft { partition, kind, has_partial_images, summary, payload });
                }
            }
            Ok(drafts)
        }
    }
}

/// The batch by bucket of its record keys; changes of one key stay together and in order.
fn by_bucket(batch: &ChangeBatch, partitions: u32) -> Result<Vec<(u32, ChangeBatch)>, WireError> {
    if partitions == 1 {
        return Ok(vec![(0, batch.clone())]);
    }
    let keys = RecordKeys::of(&batch.rows, &batch.schema.key_names())
        .map_err(|error| WireError::Content(error.to_string()))?;
    keys.rows_by_bucket(partitions).map(|(partition, rows)| Ok((partition, pick(batch, rows)?))).collect()
}

fn pick(batch: &ChangeBatch, rows: Vec<u32>) -> Result<ChangeBatch, WireError> {
    let at = |row: &u32| *row as usize;
    Ok(ChangeBatch {
        schema: batch.schema.clone(),
        ops: rows.iter().map(|row| batch.ops[at(row)]).collect(),
        orders: rows.iter().map(|row| batch.orders[at(row)]).collect(),
        ids: rows.iter().map(|row| batch.ids[at(row)]).collect(),
        windows: rows.iter().map(|row| batch.windows[at(row)]).collect(),
        images: batch.images.pick(rows.iter().map(at)),
        rows: take_record_batch(&batch.rows, &UInt32Array::from(rows))?,
    })
}

/// The batch in pieces of about [`KAFKA_BATCH_BYTES`], down to single rows.
fn pieces(batch: ChangeBatch) -> Vec<ChangeBatch> {
    let bytes = batch.bytes();
    if bytes <= KAFKA_BATCH_BYTES || batch.len() < 2 {
        return vec![batch];
    }
    let count = bytes.div_ceil(KAFKA_BATCH_BYTES).min(batch.len());
    let length = batch.len().div_ceil(count);
    let starts = (0..batch.len()).step_by(length);
    let slice = |start: usize| {
        let end = (start + length).min(batch.len());
        ChangeBatch {
            schema: batch.schema.clone(),
            rows: batch.rows.slice(start, end - start),
            images: batch.images.pick(start..end),
            ops: batch.ops[start..end].to_vec(),
            orders: batch.orders[start..end].to_vec(),
            ids: batch.ids[start..end].to_vec(),
            windows: batch.windows[start..end].to_vec(),
        }
    };
    starts.map(slice).collect()
}

#[cfg(test)]
mod tests {
    use weir_model::change::Stamp;
    use weir_model::{ChangeBuilder, Column, ColumnType, EventId, Half, Op, Order, TableSchema, Window, ZeroDates};

    use super::super::wire::{SchemaCache, decode_changes};
    use super::*;
    use crate::trace::Tally;
    use crate::transport::{Boundary, Changes, PublishNumber};

    fn batch(keys: &[i64], bytes: usize) -> ChangeBatch {
        let column = |name: &str, ty| Column { name: name.into(), ty, nullable: true };
        let columns = vec![column("id", ColumnType::Int64), column("v", ColumnType::Binary)];
        let schema = Arc::new(TableSchema {
            table: TableId::new("shop", "orders"),
            columns,
            key: vec![0],
            layout: weir_model::Layout::default(),
        });
        let mut builder = ChangeBuilder::new(schema, ZeroDates::Null);
        for key in keys {
            builder.columns_mut()[0].push_int(*key).unwrap();
            builder.columns_mut()[1].push_binary(&vec![7; bytes]).unwrap();
            builder.end_row(Op::Update, Half::First);
        }
        let mut seq = 0;
        builder.stamp(|_, _| {
            seq += 1;
            Stamp { order: Order::new(1, seq), id: EventId(seq as u128), window: Window(0) }
        });
        builder.finish()
    }

    fn publish(items: Vec<Item>) -> Publish {
        let table = TableId::new("shop", "orders");
        Publish {
            number: PublishNumber(7),
            boundary: Arc::new(Boundary::default()),
            items: items.into_iter().map(|item| (table.clone(), item)).collect(),
            order: Default::default(),
            partial_rows: BTreeMap::new(),
            standings: Vec::new(),
        }
    }

    fn changes(batch: ChangeBatch) -> Item {
        Item::Changes(Changes { batch, sent: Tally::default(), partial_rows: 0 })
    }

    fn topic(partitions: u32) -> impl Fn(&TableId) -> Option<TopicInfo> {
        move |_| Some(TopicInfo { name: "weir.shop.shop.orders".into(), id: "a".into(), partitions })
    }

    fn envelope(message: &Outgoing) -> Envelope {
        Envelope::of(&message.headers.iter().map(|(name, value)| (*name, value.as_str())).collect()).unwrap()
    }

    #[test]
    fn every_change_goes_to_its_keys_bucket_in_order_and_none_is_lost() {
        let keys: Vec<i64> = (0..1_000).map(|n| n % 37).collect();
        let sent = messages("shop", &publish(vec![changes(batch(&keys, 8))]), topic(4), 1 << 20).unwrap();
        let mut seen = 0;
        for message in &sent {
            let read = decode_changes(&message.payload, &mut SchemaCache::default()).unwrap();
            let keys = RecordKeys::of(&read.rows, &["id"]).unwrap();
            assert!((0..read.len()).all(|row| keys.get(row).bucket(4) == message.partition));
            assert!(read.orders.is_sorted());
            seen += read.len();
        }
        assert_eq!((seen, sent.len()), (1_000, 4));
        assert_eq!(&*envelope(&sent[0]).partitions, [0, 1, 2, 3]);
    }

    #[test]
    fn a_marker_goes_to_every_bucket_and_large_batches_in_numbered_parts() {
        let sent =
            messages("shop", &publish(vec![Item::Marker(Marker::SeedEnd { plan: 1 })]), topic(3), 1 << 20).unwrap();
        assert_eq!(sent.iter().map(|message| message.partition).collect::<Vec<_>>(), [0, 1, 2]);
        let large = changes(batch(&[1, 2, 3], KAFKA_BATCH_BYTES / 2));
        let sent = messages("shop", &publish(vec![large]), topic(1), 64 << 20).unwrap();
        let parts: Vec<(u32, u32)> = sent.iter().map(|message| envelope(message).part).collect();
        let count = parts.len() as u32;
        assert!(count > 1);
        assert_eq!(parts, (1..=count).map(|nth| (nth, count)).collect::<Vec<_>>());
    }

    #[test]
    fn a_row_that_no_message_can_hold_is_refused_by_its_table() {
        let (table, why) =
            messages("shop", &publish(vec![changes(batch(&[1], 100_000))]), topic(1), 65_536).unwrap_err();
        assert_eq!(table, TableId::new("shop", "orders"));
        assert!(why.contains("message.max.bytes"), "{why}");
    }

    #[test]
    fn only_a_table_that_the_partial_transaction_touched_holds_back_for_its_end() {
        let mut part = publish(vec![changes(batch(&[1], 8))]);
        part.boundary = Arc::new(Boundary {
            partial: Some("3e11fa47-71ca-11e1-9e33-c80aa9429562:7".parse().unwrap()),
            ..Boundary::default()
        });
        let partial = |publish: &Publish| envelope(&messages("shop", publish, topic(1), 1 << 20).unwrap()[0]).partial;
        assert_eq!(partial(&part), None);
        part.partial_rows = BTreeMap::from([(TableId::new("shop", "orders"), 1)]);
        assert_eq!(partial(&part), part.boundary.partial);
    }
}
