//! A chunk: a half-open range of the record key in MySQL's own order, and the conditions that select it.

use serde::{Deserialize, Serialize};
use weir_model::schema::quote_identifier;
use weir_mysql::TableDescription;

use crate::error::LoadError;
use crate::key_value::KeyValue;

/// Rows whose key is at or above `from` and below `to`, by the order of the server (the columns' collations). `None` is
/// unbounded. A bound may hold fewer values than the key has columns; it then compares the first ones only.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChunkRange {
    pub from: Option<Vec<KeyValue>>,
    pub to: Option<Vec<KeyValue>>,
}

/// What a chunk reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection<'a> {
    Range(&'a ChunkRange),
    /// The rows of these record keys, as far as there are any; each has a value for every column of the key.
    Keys(&'a [Vec<KeyValue>]),
}

impl<'a> From<&'a ChunkRange> for Selection<'a> {
    fn from(range: &'a ChunkRange) -> Self {
        Self::Range(range)
    }
}

impl<'a> From<&'a [Vec<KeyValue>]> for Selection<'a> {
    fn from(keys: &'a [Vec<KeyValue>]) -> Self {
        Self::Keys(keys)
    }
}

impl Selection<'_> {
    /// As an SQL condition; `None` for the whole table.
    pub fn condition(&self, table: &TableDescription) -> Result<Option<String>, LoadError> {
        match self {
            Self::Range(range) => range.condition(table),
            Self::Keys(keys) => one_of(table, keys).map(Some),
        }
    }
}

/// How a key relates to a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    AtOrAbove,
    Above,
    Below,
}

impl ChunkRange {
    /// The whole table.
    pub fn all() -> Self {
        Self::default()
    }

    pub fn is_all(&self) -> bool {
        self.from.is_none() && self.to.is_none()
    }

    /// Consecutive ranges that together are this one, divided at `boundaries` (ascending, inside this range).
    pub(crate) fn divide(&self, boundaries: Vec<Vec<KeyValue>>) -> Vec<Self> {
        let mut ranges = Vec::with_capacity(boundaries.len() + 1);
        let mut from = self.from.clone();
        for boundary in boundaries {
            ranges.push(Self { from: from.replace(boundary.clone()), to: Some(boundary) });
        }
        ranges.push(Self { from, to: self.to.clone() });
        ranges
    }

    /// The range as an SQL condition; `None` for the whole table.
    pub fn condition(&self, table: &TableDescription) -> Result<Option<String>, LoadError> {
        let mut conditions = Vec::new();
        if let Some(from) = &self.from {
            conditions.push(compare(table, Side::AtOrAbove, from)?);
        }
        if let Some(to) = &self.to {
            conditions.push(compare(table, Side::Below, to)?);
        }
        Ok((!conditions.is_empty()).then(|| conditions.join(" AND ")))
    }
}

/// A condition that holds for each of some keys; MySQL looks them up in the key's index. No key at all is no row.
///
/// A server finds keys by its own rules: under a collation that knows no case, `école` also finds `École`. Whoever asks has
/// to look at the keys of the rows that come.
fn one_of(table: &TableDescription, keys: &[Vec<KeyValue>]) -> Result<String, LoadError> {
    let key = &table.schema.key;
    let error = |why: String| LoadError::Bound { table: table.table().clone(), why };
    let mut tuples = Vec::with_capacity(keys.len());
    for values in keys {
        if values.len() != key.len() {
            return Err(error(format!("{} values for a key of {} columns", values.len(), key.len())));
        }
        let literals = values.iter().zip(key).map(|(value, &index)| {
            let column = &table.schema.columns[index];
            let literal = value.literal(column, &table.columns[index]);
            literal.map_err(|why| error(format!("column {}: {why}", column.name)))
        });
        tuples.push(literals.collect::<Result<Vec<_>, _>>()?);
    }
    if tuples.is_empty() {
        return Ok("FALSE".into());
    }
    let names: Vec<String> = table.schema.key_names().into_iter().map(quote_identifier).collect();
    if let [name] = &names[..] {
        return Ok(format!("{name} IN ({})", tuples.concat().join(", ")));
    }
    // Written out: MySQL makes index ranges of these, and not of row constructors with literals of other types.
    let equal = |tuple: &Vec<String>| {
        let terms: Vec<String> = names.iter().zip(tuple).map(|(name, value)| format!("{name} = {value}")).collect();
        format!("({})", terms.join(" AND "))
    };
    Ok(format!("({})", tuples.iter().map(equal).collect::<Vec<_>>().join(" OR ")))
}

/// `key side bound`, written out column by column: MySQL makes index ranges of such a chain, not of row constructors.
///
/// For a bound (1, 2) of the key (a, b): `a >= 1 AND (a > 1 OR (a = 1 AND b >= 2))`; the first comparison repeats what
/// the rest implies, so that the leading column bounds the index range in any case.
pub(crate) fn compare(table: &TableDescription, side: Side, bound: &[KeyValue]) -> Result<String, LoadError> {
    let key = &table.schema.key;
    let error = |why: String| LoadError::Bound { table: table.table().clone(), why };
    if bound.is_empty() || bound.len() > key.len() {
        return Err(error(format!("{} values for a key of {} columns", bound.len(), key.len())));
    }
    let mut columns = Vec::with_capacity(bound.len());
    for (value, &index) in bound.iter().zip(key) {
        let column = &table.schema.columns[index];
        let literal = value.literal(column, &table.columns[index]);
        let literal = literal.map_err(|why| error(format!("column {}: {why}", column.name)))?;
        columns.push((quote_identifier(&column.name), literal));
    }
    let (strict, last) = match side {
        Side::AtOrAbove => (">", ">="),
        Side::Above => (">", ">"),
        Side::Below => ("<", "<"),
    };
    let (name, literal) = &columns[0];
    if columns.len() == 1 {
        return Ok(format!("{name} {last} {literal}"));
    }
    let mut choices = Vec::with_capacity(columns.len());
    for depth in 0..columns.len() {
        let mut terms: Vec<String> =
            columns[..depth].iter().map(|(name, literal)| format!("{name} = {literal}")).collect();
        let operator = if depth + 1 == columns.len() { last } else { strict };
        terms.push(format!("{} {operator} {}", columns[depth].0, columns[depth].1));
        choices.push(if terms.len() == 1 { terms.remove(0) } else { format!("({})", terms.join(" AND ")) });
    }
    Ok(format!("{name} {strict}= {literal} AND ({})", choices.join(" OR ")))
}

#[cfg(test)]
mod tests {
    use weir_model::{Column, ColumnType, TableId, TableSchema};
    use weir_mysql::ColumnFacts;

    use super::*;

    pub(crate) fn table(columns: &[&str]) -> TableDescription {
        let column = |name: &&str| Column { name: (*name).into(), ty: ColumnType::Int32, nullable: false };
        TableDescription::plain(TableSchema {
            table: TableId::new("shop", "orders"),
            columns: columns.iter().map(column).collect(),
            key: (0..columns.len()).collect(),
            layout: weir_model::Layout::default(),
        })
    }

    fn ints(values: &[i64]) -> Vec<KeyValue> {
        values.iter().map(|v| KeyValue::Int(*v)).collect()
    }

    #[test]
    fn a_composite_bound_is_written_out_column_by_column() {
        let abc = table(&["a", "b", "c"]);
        assert_eq!(
            compare(&abc, Side::AtOrAbove, &ints(&[1, 2, 3])).unwrap(),
            "`a` >= 1 AND (`a` > 1 OR (`a` = 1 AND `b` > 2) OR (`a` = 1 AND `b` = 2 AND `c` >= 3))"
        );
        assert_eq!(
            compare(&abc, Side::Below, &ints(&[1, 2])).unwrap(),
            "`a` <= 1 AND (`a` < 1 OR (`a` = 1 AND `b` < 2))"
        );
        assert_eq!(compare(&table(&["a"]), Side::Above, &ints(&[1])).unwrap(), "`a` > 1");
        assert!(compare(&table(&["a"]), Side::Above, &ints(&[1, 2])).is_err());
        assert!(compare(&table(&["a"]), Side::Above, &[]).is_err());
    }

    #[test]
    fn keys_are_looked_up_one_by_one() {
        let keys = [ints(&[1, 2]), ints(&[3, 4])];
        assert_eq!(one_of(&table(&["a", "b"]), &keys).unwrap(), "((`a` = 1 AND `b` = 2) OR (`a` = 3 AND `b` = 4))");
        assert_eq!(one_of(&table(&["a"]), &[ints(&[7])]).unwrap(), "`a` IN (7)");
        assert_eq!(one_of(&table(&["a"]), &[]).unwrap(), "FALSE");
        assert!(one_of(&table(&["a", "b"]), &[ints(&[1])]).is_err());
        let mut by_enum = table(&["a"]);
        by_enum.schema.columns[0].ty = ColumnType::Enum(vec!["new".into()]);
        let (charset, collation) = (Some("utf8mb4".into()), Some("utf8mb4_bin".into()));
        by_enum.columns[0] = ColumnFacts { charset, collation, ..ColumnFacts::default() };
        let condition = one_of(&by_enum, &[vec![KeyValue::Text("new".into())]]).unwrap();
        assert_eq!(condition, "`a` IN (_utf8mb4 X'6E6577' COLLATE utf8mb4_bin)");
    }

    #[test]
    fn divided_ranges_follow_each_other_without_a_gap() {
        let whole = ChunkRange { from: None, to: Some(ints(&[90])) };
        let parts = whole.divide(vec![ints(&[10]), ints(&[50])]);
        assert_eq!(parts.len(), 3);
        assert_eq!((&parts[0].from, &parts[2].to), (&whole.from, &whole.to));
        assert!(parts.windows(2).all(|pair| pair[0].to == pair[1].from && pair[0].to.is_some()));
        assert_eq!(ChunkRange::all().divide(Vec::new()), [ChunkRange::all()]);
    }
}
