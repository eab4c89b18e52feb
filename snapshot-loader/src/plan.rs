//! Dividing a table into chunks of about equal size, without reading its rows.
//!
//! Two ways. A table whose key begins with an integer, and whose size the engine knows, is bisected by the optimizer's
//! estimates: milliseconds, whatever its size. Any other is walked along its key's index, a jump of one chunk at a time,
//! which reads the index once. Both give boundaries only; that the ranges between them cover every row exactly once does not depend on how good they are.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row, Value};
use weir_model::ColumnType;
use weir_model::schema::quote_identifier;
use weir_mysql::{MysqlError, TableDescription, query};

use crate::error::LoadError;
use crate::key_value::KeyValue;
use crate::lookup::key_of_row;
use crate::range::{ChunkRange, Side, compare};

/// What a chunk aims at; whichever is reached first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanTarget {
    pub rows: u64,
    /// Of source data, by the engine's average row length.
    pub bytes: u64,
}

impl Default for PlanTarget {
    fn default() -> Self {
        Self { rows: 200_000, bytes: 64 << 20 }
    }
}

/// Rows of wide tables share a chunk down to this number, lest a wrong estimate make a chunk of every row.
const CHUNK_ROWS_MIN: u64 = 500;
/// The optimizer never estimates a range above half the table, so bisection needs a table a few chunks long.
const BISECT_FROM_CHUNKS: u64 = 4;

impl PlanTarget {
    fn rows_per_chunk(self, table: &TableDescription) -> u64 {
        let by_bytes = self.bytes.checked_div(table.avg_row_bytes).unwrap_or(u64::MAX).max(CHUNK_ROWS_MIN);
        self.rows.min(by_bytes).max(1)
    }
}

/// Divides `within` (the whole table, or the range of a backfill) into consecutive chunks of about `target`.
///
/// A table that no index orders by its record key is one chunk.
pub async fn plan_chunks(
    conn: &mut Conn,
    table: &TableDescription,
    within: &ChunkRange,
    target: PlanTarget,
) -> Result<Vec<ChunkRange>, LoadError> {
    let Some(index) = dividing_index(table) else {
        return Ok(vec![within.clone()]);
    };
    let rows = target.rows_per_chunk(table);
    let planner = Planner { table, index, within, rows };
    let mut boundaries =
        if planner.can_bisect() { planner.bisect(conn).await? } else { planner.walk(conn, &ChunkRange::all()).await? };
    // A table of one chunk is read at once, and one of many takes its time: keys that come in behind the greatest one
    // meanwhile must not make its last chunk a huge one, so they are a chunk by themselves.
    if within.to.is_none()
        && !boundaries.is_empty()
        && let Some(tail) = planner.tail(conn).await?
        && boundaries.last() != Some(&tail)
    {
        boundaries.push(tail);
    }
    Ok(within.divide(boundaries))
}

/// The index that chunks are ranges of. ENUM and SET sort by number, and MySQL makes no index range of a number.
fn dividing_index(table: &TableDescription) -> Option<&str> {
    let divides = |ty: &ColumnType| {
        !matches!(
            ty,
            ColumnType::Enum(_) | ColumnType::Set(_) | ColumnType::Json | ColumnType::Geometry | ColumnType::Vector
        )
    };
    let key = &table.schema.key;
    table.key_index().filter(|_| key.iter().all(|&i| divides(&table.schema.columns[i].ty)))
}

struct Planner<'a> {
    table: &'a TableDescription,
    index: &'a str,
    within: &'a ChunkRange,
    /// Rows that a chunk aims at.
    rows: u64,
}

impl Planner<'_> {
    fn can_bisect(&self) -> bool {
        self.table.schema.columns[self.table.schema.key[0]].ty.is_integer()
            && self.table.approx_rows >= BISECT_FROM_CHUNKS.saturating_mul(self.rows)
    }

    fn doing(&self) -> String {
        format!("planning chunks of {}", self.table.table())
    }

    fn key_list(&self) -> String {
        self.table.schema.key_names().into_iter().map(quote_identifier).collect::<Vec<_>>().join(", ")
    }

    /// `FROM table FORCE INDEX (…) [WHERE …]`: the index alone holds all that is asked for.
    fn tail_of_query(&self, conditions: &[String]) -> String {
        let conditions =
            if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
        format!("FROM {} FORCE INDEX ({}){conditions}", self.table.table().quoted(), quote_identifier(self.index))
    }

    /// Boundaries found by jumping along the index, `rows` entries at a time, through the keys in `span`.
    async fn walk(&self, conn: &mut Conn, span: &ChunkRange) -> Result<Vec<Vec<KeyValue>>, LoadError> {
        let mut boundaries: Vec<Vec<KeyValue>> = Vec::new();
        while let Some(boundary) = self.jump(conn, span, boundaries.last().map(Vec::as_slice)).await? {
            boundaries.push(boundary);
        }
        Ok(boundaries)
    }

    /// The key that `rows` keys from `last` lead to. Asks for keys strictly above `last`, so every jump gets on, also
    /// where several rows share a key.
    async fn jump(
        &self,
        conn: &mut Conn,
        span: &ChunkRange,
        last: Option<&[KeyValue]>,
    ) -> Result<Option<Vec<KeyValue>>, LoadError> {
        let mut conditions: Vec<String> = Vec::new();
        for range in [self.within, span] {
            // What lies above `last` lies above every lower bound.
            let from = range.from.clone().filter(|_| last.is_none());
            conditions.extend(ChunkRange { from, to: range.to.clone() }.condition(self.table)?);
        }
        conditions.extend(last.map(|last| compare(self.table, Side::Above, last)).transpose()?);
        let skip = self.rows - u64::from(last.is_some());
        let keys = self.key_list();
        let sql = format!("SELECT {keys} {} ORDER BY {keys} LIMIT 1 OFFSET {skip}", self.tail_of_query(&conditions));
        // The binary protocol, since text would round a FLOAT.
        let row: Option<Row> = conn.exec_first(sql, ()).await.map_err(|e| MysqlError::from_driver(self.doing(), &e))?;
        row.map(|row| key_of_row(self.table, &row)).transpose()
    }

    /// Boundaries found by halving the range of the key's first number until the optimizer estimates each part at a chunk
    /// or less. A single number that holds more rows than that is walked.
    async fn bisect(&self, conn: &mut Conn) -> Result<Vec<Vec<KeyValue>>, LoadError> {
        let Some(whole) = self.extent(conn).await? else {
            return Ok(Vec::new());
        };
        let too_many = self.rows + self.rows / 2;
        let mut parts = Vec::new();
        let mut open = vec![whole];
        // The lower half is pushed last, so parts come out in ascending order.
        while let Some(span) = open.pop() {
            let rows = self.estimate(conn, span).await?;
            if rows > too_many && span.first < span.last {
                let (lower, upper) = span.halves();
                open.extend([upper, lower]);
            } else {
                parts.push((span, rows));
            }
        }
        let starts = join_small(&parts, self.rows);
        let mut boundaries = Vec::new();
        for (span, rows) in parts {
            if starts.binary_search(&span.first).is_ok() {
                boundaries.push(vec![key_value(span.first)]);
            }
            if rows > too_many && self.table.schema.key.len() > 1 {
                boundaries.extend(self.walk(conn, &span.range()).await?);
            }
        }
        Ok(boundaries)
    }

    /// The key's first column.
    fn leading(&self) -> String {
        quote_identifier(&self.table.schema.columns[self.table.schema.key[0]].name)
    }

    /// The least and the greatest value of the key's first column inside the range.
    async fn extent(&self, conn: &mut Conn) -> Result<Option<Span>, LoadError> {
        let first = self.end(conn, "ASC").await?.as_ref().and_then(leading_number);
        let last = self.end(conn, "DESC").await?.as_ref().and_then(leading_number);
        Ok(first.zip(last).map(|(first, last)| Span { first, last }))
    }

    /// Where the keys begin that are greater than all that are there: behind the greatest one, or at it where nothing can be
    /// counted on.
    async fn tail(&self, conn: &mut Conn) -> Result<Option<Vec<KeyValue>>, LoadError> {
        let Some(row) = self.end(conn, "DESC").await? else { return Ok(None) };
        match &self.table.schema.key[..] {
            &[only] if self.table.schema.columns[only].ty.is_integer() => {
                let next = leading_number(&row).map(|greatest| greatest + 1);
                Ok(next.filter(|next| *next <= i128::from(u64::MAX)).map(|next| vec![key_value(next)]))
            }
            _ => key_of_row(self.table, &row).map(Some),
        }
    }

    /// The first row in key order, or the last one: one entry read off the index, where MIN under a condition may scan.
    async fn end(&self, conn: &mut Conn, direction: &str) -> Result<Option<Row>, LoadError> {
        let conditions: Vec<String> = self.within.condition(self.table)?.into_iter().collect();
        let order: Vec<String> =
            self.table.schema.key_names().into_iter().map(|n| format!("{} {direction}", quote_identifier(n))).collect();
        let source = self.tail_of_query(&conditions);
        let sql = format!("SELECT {} {source} ORDER BY {} LIMIT 1", self.key_list(), order.join(", "));
        // The binary protocol, since text would round a FLOAT.
        conn.exec_first(sql, ()).await.map_err(|e| MysqlError::from_driver(self.doing(), &e).into())
    }

    /// Rows in `span` by the optimizer's dive into the index: two descents, no scan.
    async fn estimate(&self, conn: &mut Conn, span: Span) -> Result<u64, LoadError> {
        let key = self.leading();
        let conditions = [format!("{key} >= {}", span.first), format!("{key} <= {}", span.last)];
        // 9.x explains as a tree unless told otherwise. FORCE INDEX would make the optimizer skip the dive and answer 1.
        let sql = format!(
            "EXPLAIN FORMAT=TRADITIONAL SELECT {key} FROM {} USE INDEX ({}) WHERE {}",
            self.table.table().quoted(),
            quote_identifier(self.index),
            conditions.join(" AND ")
        );
        let row = query::first_row(conn, &sql, &self.doing()).await?;
        Ok(row.as_ref().and_then(|row| query::named::<u64>(row, "rows")).unwrap_or(0))
    }
}

/// The key's first column, where it is an integer.
fn leading_number(row: &Row) -> Option<i128> {
    match row.as_ref(0) {
        Some(Value::Int(v)) => Some(i128::from(*v)),
        Some(Value::UInt(v)) => Some(i128::from(*v)),
        _ => None,
    }
}

fn key_value(number: i128) -> KeyValue {
    // Every integer type of MySQL fits one of the two.
    i64::try_from(number).map_or_else(|_| KeyValue::UInt(u64::try_from(number).unwrap_or(u64::MAX)), KeyValue::Int)
}

/// Whole numbers, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    first: i128,
    last: i128,
}

impl Span {
    /// The keys whose first column lies in the span. No number follows u64's greatest, so that end stays open.
    fn range(self) -> ChunkRange {
        let to = (self.last < i128::from(u64::MAX)).then(|| vec![key_value(self.last + 1)]);
        ChunkRange { from: Some(vec![key_value(self.first)]), to }
    }

    fn halves(self) -> (Self, Self) {
        let middle = self.first + (self.last - self.first) / 2;
        (Self { last: middle, ..self }, Self { first: middle + 1, ..self })
    }
}

/// Where chunks begin, the first aside, when neighbours that hold no more than `rows` together become one.
fn join_small(parts: &[(Span, u64)], rows: u64) -> Vec<i128> {
    let mut starts = Vec::new();
    let mut held = 0;
    for (at, (span, estimate)) in parts.iter().enumerate() {
        if at > 0 && held + estimate > rows {
            starts.push(span.first);
            held = 0;
        }
        held += estimate;
    }
    starts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn halves_meet_and_cover_the_extremes() {
        for (first, last) in [(i128::from(i64::MIN), i128::from(i64::MAX)), (0, i128::from(u64::MAX)), (-3, -2), (0, 1)]
        {
            let (lower, upper) = Span { first, last }.halves();
            assert_eq!((lower.first, upper.last, lower.last + 1), (first, last, upper.first));
        }
    }

    #[test]
    fn small_neighbours_share_a_chunk() {
        let span = |first, last| Span { first, last };
        let parts = [(span(0, 9), 40), (span(10, 19), 50), (span(20, 29), 90), (span(30, 39), 5), (span(40, 49), 150)];
        assert_eq!(join_small(&parts, 100), [20, 40]);
        assert_eq!(join_small(&parts[..1], 100), []);
    }

    proptest! {
        #[test]
        fn starts_ascend_and_begin_a_part(estimates in prop::collection::vec(0_u64..300, 1..40)) {
            let parts: Vec<_> = estimates
                .iter()
                .enumerate()
                .map(|(i, e)| (Span { first: i as i128 * 10, last: i as i128 * 10 + 9 }, *e))
                .collect();
            let starts = join_small(&parts, 100);
            prop_assert!(starts.windows(2).all(|w| w[0] < w[1]));
            prop_assert!(starts.iter().all(|s| parts[1..].iter().any(|(span, _)| span.first == *s)));
        }
    }
}
