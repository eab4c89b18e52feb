//! Rows by their record keys: the SELECT that looks single keys up, many at a time.
//!
//! A server finds keys by its own rules: under a collation that knows no case, `école` also finds `École`. Whoever asks has
//! to look at the keys of the rows that come, and knows by the rest which keys are not there.

use weir_model::schema::quote_identifier;
use weir_model::{Column, ColumnType};
use weir_mysql::{ColumnFacts, TableDescription};

use crate::error::LoadError;
use crate::key_value::{KeyValue, text_literal};
use crate::read::select_columns;

/// The SELECT of the rows with any of `keys`, each a value for every column of the record key. At least one.
pub fn select_keys(table: &TableDescription, keys: &[Vec<KeyValue>]) -> Result<String, LoadError> {
    let error = |why: String| LoadError::Bound { table: table.table().clone(), why };
    let columns = &table.schema.key;
    if keys.is_empty() || keys.iter().any(|key| key.len() != columns.len()) {
        return Err(error(format!("keys to look up do not have the {} columns of the record key", columns.len())));
    }
    let names: Vec<String> = columns.iter().map(|&i| quote_identifier(&table.schema.columns[i].name)).collect();
    let mut rows: Vec<Vec<String>> = Vec::with_capacity(keys.len());
    for key in keys {
        let values = key.iter().zip(columns).map(|(value, &i)| {
            let column = &table.schema.columns[i];
            equal_literal(value, column, &table.columns[i])
                .map_err(|why| error(format!("column {}: {why}", column.name)))
        });
        rows.push(values.collect::<Result<_, _>>()?);
    }
    let condition = match &names[..] {
        [name] => format!("{name} IN ({})", rows.concat().join(", ")),
        // Written out: MySQL makes index ranges of these, and not of row constructors with literals of other types.
        _ => {
            let equal = |row: &Vec<String>| {
                let terms: Vec<String> =
                    names.iter().zip(row).map(|(name, value)| format!("{name} = {value}")).collect();
                format!("({})", terms.join(" AND "))
            };
            rows.iter().map(equal).collect::<Vec<_>>().join(" OR ")
        }
    };
    let index = table.key_index().map(|index| format!(" FORCE INDEX ({})", quote_identifier(index)));
    Ok(format!("{}{} WHERE {condition}", select_columns(table), index.unwrap_or_default()))
}

/// What a value of the key is compared with. ENUM and SET are compared as the text that the lake has of them; they have no
/// bounds, since they sort by number.
fn equal_literal(value: &KeyValue, column: &Column, facts: &ColumnFacts) -> Result<String, String> {
    match (value, &column.ty) {
        (KeyValue::Text(text), ColumnType::Enum(_) | ColumnType::Set(_)) => text_literal(text, facts),
        _ => value.literal(column, facts),
    }
}

#[cfg(test)]
mod tests {
    use weir_model::{Layout, TableId, TableSchema};
    use weir_mysql::KeySource;

    use super::*;

    fn table(columns: &[&str]) -> TableDescription {
        let column = |name: &&str| Column { name: (*name).into(), ty: ColumnType::Int32, nullable: false };
        TableDescription {
            schema: TableSchema {
                table: TableId::new("shop", "orders"),
                columns: columns.iter().map(column).collect(),
                key: (0..columns.len()).collect(),
                layout: Layout::default(),
            },
            columns: vec![ColumnFacts::default(); columns.len()],
            key_source: KeySource::Primary,
            indexes: Vec::new(),
            engine: "InnoDB".into(),
            approx_rows: 0,
            avg_row_bytes: 0,
            has_cascades: false,
        }
    }

    #[test]
    fn keys_of_one_column_are_listed_and_others_written_out() {
        let ints = |values: &[i64]| values.iter().map(|v| KeyValue::Int(*v)).collect::<Vec<_>>();
        assert_eq!(
            select_keys(&table(&["a"]), &[ints(&[1]), ints(&[-2])]).unwrap(),
            "SELECT `a` FROM `shop`.`orders` WHERE `a` IN (1, -2)"
        );
        assert_eq!(
            select_keys(&table(&["a", "b"]), &[ints(&[1, 2]), ints(&[3, 4])]).unwrap(),
            "SELECT `a`, `b` FROM `shop`.`orders` WHERE (`a` = 1 AND `b` = 2) OR (`a` = 3 AND `b` = 4)"
        );
        assert!(select_keys(&table(&["a", "b"]), &[ints(&[1])]).is_err());
        assert!(select_keys(&table(&["a"]), &[]).is_err());
    }

    #[test]
    fn an_enum_is_looked_up_by_its_text() {
        let mut described = table(&["a"]);
        described.schema.columns[0].ty = ColumnType::Enum(vec!["new".into()]);
        let (charset, collation) = (Some("utf8mb4".into()), Some("utf8mb4_bin".into()));
        described.columns[0] = ColumnFacts { charset, collation, ..ColumnFacts::default() };
        let sql = select_keys(&described, &[vec![KeyValue::Text("new".into())]]).unwrap();
        assert!(sql.ends_with("WHERE `a` IN (_utf8mb4 X'6E6577' COLLATE utf8mb4_bin)"), "{sql}");
    }
}
