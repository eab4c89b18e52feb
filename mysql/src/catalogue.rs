//! The source's tables from its catalogue: which there are, their columns, keys and sizes.

use mysql_async::{Conn, Row};
use serde::{Deserialize, Serialize};
use weir_model::{Column, ColumnType, TableId, TableSchema};

use crate::column_type::parse_column_type;
use crate::error::{MysqlError, codes};
use crate::index::{IndexFacts, IndexPart, key_of};
use crate::patterns::TablePatterns;
use crate::query;

/// Where a table's record key comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeySource {
    Primary,
    /// The unique key of this name.
    Unique(String),
    /// `key = […]` in the configuration.
    Configured,
    None,
}

/// What the catalogue knows of a column beyond its type.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ColumnFacts {
    /// Character set and collation of a text, ENUM or SET column.
    pub charset: Option<String>,
    pub collation: Option<String>,
    pub generated: bool,
    pub invisible: bool,
    /// Rows that exist when the column is added get a value other than NULL, without an event in the binlog.
    pub fills_existing_rows: bool,
}

/// A table of the source as its catalogue describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableDescription {
    /// Every column in table order, generated and invisible ones and a generated invisible primary key included.
    pub schema: TableSchema,
    /// As long as `schema.columns`.
    pub columns: Vec<ColumnFacts>,
    pub key_source: KeySource,
    pub indexes: Vec<IndexFacts>,
    pub engine: String,
    /// The storage engine's estimates; 0 if it has none yet.
    pub approx_rows: u64,
    pub avg_row_bytes: u64,
    /// A foreign key of this table changes its rows when the parent's change (ON DELETE or UPDATE CASCADE, SET NULL).
    pub has_cascades: bool,
}

impl TableDescription {
    /// A plain InnoDB table with the primary key of `schema` and nothing else to tell of it; for tests without a server.
    #[doc(hidden)]
    pub fn plain(schema: TableSchema) -> Self {
        Self {
            columns: vec![ColumnFacts::default(); schema.columns.len()],
            schema,
            key_source: KeySource::Primary,
            indexes: Vec::new(),
            engine: "InnoDB".into(),
            approx_rows: 0,
            avg_row_bytes: 0,
            has_cascades: false,
        }
    }

    pub fn table(&self) -> &TableId {
        &self.schema.table
    }

    /// The same table with the record key `names`.
    ///
    /// # Errors
    /// [`MysqlError::Key`] if a column does not exist or may be NULL, or `names` is empty.
    pub fn with_key(&self, names: &[String]) -> Result<Self, MysqlError> {
        let error = |why: String| MysqlError::Key { table: self.table().clone(), why };
        let mut key = Vec::with_capacity(names.len());
        for name in names {
            let index = self.schema.column_index(name).ok_or_else(|| error(format!("there is no column {name}")))?;
            if self.schema.columns[index].nullable {
                return Err(error(format!("column {name} may be NULL; ALTER TABLE … MODIFY {name} … NOT NULL")));
            }
            if key.contains(&index) {
                return Err(error(format!("column {name} is named twice")));
            }
            key.push(index);
        }
        if key.is_empty() {
            return Err(error("it names no column".into()));
        }
        let mut described = self.clone();
        described.schema.key = key;
        described.key_source = KeySource::Configured;
        Ok(described)
    }

    /// The index to read ranges of the record key by; without one the table is read as a whole.
    pub fn key_index(&self) -> Option<&str> {
        let ordering = |index: &&IndexFacts| index.orders_by(&self.schema.key);
        let primary = self.indexes.iter().find(|i| i.is_primary()).filter(ordering);
        primary.or_else(|| self.indexes.iter().find(ordering)).map(|i| i.name.as_str())
    }

    /// The same table without the columns that are not of its key, which are in key order then.
    #[must_use]
    pub fn of_key_alone(&self) -> Self {
        let key = &self.schema.key;
        let mut described = self.clone();
        described.schema.columns = key.iter().map(|&at| self.schema.columns[at].clone()).collect();
        described.columns = key.iter().map(|&at| self.columns[at].clone()).collect();
        described.schema.key = (0..key.len()).collect();
        for index in &mut described.indexes {
            index.keep_columns(key);
        }
        described
    }

    /// Whether MySQL sorts the record key as the canonical key bytes sort. Not so for text whose collation knows more
    /// than bytes, nor for ENUM and SET, which sort by number.
    pub fn key_sorts_bytewise(&self) -> bool {
        self.schema.key.iter().all(|&i| match &self.schema.columns[i].ty {
            ColumnType::Text => self.columns[i].collation.as_deref() == Some("utf8mb4_0900_bin"),
            ColumnType::Enum(_) | ColumnType::Set(_) | ColumnType::Json => false,
            ColumnType::Decimal { precision, .. } => *precision <= weir_model::value::DECIMAL_PRECISION_MAX,
            _ => true,
        })
    }

    /// Whether the engine takes part in transactions; rows of other engines cannot be rolled back.
    pub fn is_transactional(&self) -> bool {
        ["innodb", "ndbcluster", "rocksdb", "tokudb"].contains(&self.engine.to_ascii_lowercase().as_str())
    }
}

/// The base tables that `patterns` mean, sorted.
pub async fn list_tables(conn: &mut Conn, patterns: &TablePatterns) -> Result<Vec<TableId>, MysqlError> {
    let doing = "listing tables";
    let sql = "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES \
               WHERE TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED')";
    let mut tables = Vec::new();
    for row in query::rows(conn, sql, doing).await? {
        let (database, table): (String, String) = (query::required(&row, 0, doing)?, query::required(&row, 1, doing)?);
        let table = TableId::new(&database, &table);
        if patterns.matches(&table) {
            tables.push(table);
        }
    }
    tables.sort();
    Ok(tables)
}

/// Everything the catalogue says about `table`; `None` if there is no such base table.
pub async fn describe(conn: &mut Conn, table: &TableId) -> Result<Option<TableDescription>, MysqlError> {
    let doing = format!("describing {table}");
    let names = (&*table.database, &*table.table);
    let sql = "SELECT ENGINE, TABLE_ROWS, AVG_ROW_LENGTH, TABLE_TYPE FROM information_schema.TABLES \
               WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? AND TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED')";
    let Some(facts) = query::rows_with(conn, sql, names, &doing).await?.into_iter().next() else {
        return Ok(None);
    };
    if query::cell::<String>(&facts, 3).is_some_and(|kind| kind == "SYSTEM VERSIONED") {
        let why = "is system-versioned: its binlog holds rows of the past among those of the present";
        return Err(MysqlError::UnsupportedTable { table: table.clone(), why });
    }
    let (columns, column_facts) = columns(conn, table, &doing).await?;
    let Some(indexes) = indexes(conn, table, &columns, &doing).await? else {
        return Ok(None);
    };
    if columns.is_empty() {
        return Ok(None);
    }
    let (key_source, key) = match key_of(&indexes) {
        Some((index, key)) if index.is_primary() => (KeySource::Primary, key),
        Some((index, key)) => (KeySource::Unique(index.name.clone()), key),
        None => (KeySource::None, Vec::new()),
    };
    Ok(Some(TableDescription {
        schema: TableSchema { table: table.clone(), columns, key, layout: weir_model::Layout::default() },
        columns: column_facts,
        key_source,
        indexes,
        engine: query::cell(&facts, 0).unwrap_or_default(),
        approx_rows: query::cell(&facts, 1).unwrap_or_default(),
        avg_row_bytes: query::cell(&facts, 2).unwrap_or_default(),
        has_cascades: has_cascades(conn, table, &doing).await?,
    }))
}

async fn columns(conn: &mut Conn, table: &TableId, doing: &str) -> Result<(Vec<Column>, Vec<ColumnFacts>), MysqlError> {
    let sql = "SELECT COLUMN_NAME, COLUMN_TYPE, CHARACTER_SET_NAME, COLLATION_NAME, IS_NULLABLE, COLUMN_DEFAULT, EXTRA \
               FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION";
    let rows = query::rows_with(conn, sql, (&*table.database, &*table.table), doing).await?;
    let mut columns = Vec::with_capacity(rows.len());
    let mut facts = Vec::with_capacity(rows.len());
    for row in rows {
        let name: String = query::required(&row, 0, doing)?;
        let column_type: String = query::required(&row, 1, doing)?;
        let charset: Option<String> = query::cell(&row, 2);
        let ty = parse_column_type(&column_type, charset.as_deref()).map_err(|_| MysqlError::UnsupportedColumn {
            table: table.clone(),
            column: name.clone(),
            column_type,
        })?;
        let nullable = query::cell::<String>(&row, 4).is_some_and(|n| n.eq_ignore_ascii_case("YES"));
        let default: Option<String> = query::cell(&row, 5);
        let extra = query::cell::<String>(&row, 6).unwrap_or_default().to_ascii_uppercase();
        facts.push(column_facts(charset, query::cell(&row, 3), nullable, default.as_deref(), &extra));
        columns.push(Column { name, ty, nullable });
    }
    Ok((columns, facts))
}

/// `extra` in upper case.
fn column_facts(
    charset: Option<String>,
    collation: Option<String>,
    nullable: bool,
    default: Option<&str>,
    extra: &str,
) -> ColumnFacts {
    // `DEFAULT_GENERATED` marks a default that is an expression, not a generated column.
    let generated = ["VIRTUAL GENERATED", "STORED GENERATED", "PERSISTENT"].iter().any(|g| extra.contains(g));
    // MariaDB spells no default as the text NULL.
    let has_default = default.is_some_and(|d| d != "NULL") || extra.contains("DEFAULT_GENERATED");
    ColumnFacts {
        charset,
        collation,
        generated,
        invisible: extra.contains("INVISIBLE"),
        fills_existing_rows: !nullable || has_default || generated,
    }
}

/// In the order of their definition, the primary key first; `None` if the table has gone.
async fn indexes(
    conn: &mut Conn,
    table: &TableId,
    columns: &[Column],
    doing: &str,
) -> Result<Option<Vec<IndexFacts>>, MysqlError> {
    let rows = match query::rows(conn, &format!("SHOW INDEX FROM {}", table.quoted()), doing).await {
        Ok(rows) => rows,
        Err(e) if e.code() == Some(codes::NO_SUCH_TABLE) => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut indexes: Vec<IndexFacts> = Vec::new();
    for row in rows {
        let name: String = query::named(&row, "Key_name").unwrap_or_default();
        let part = index_part(&row, columns);
        match indexes.last_mut() {
            Some(index) if index.name == name => index.parts.push(part),
            _ => indexes.push(IndexFacts {
                name,
                unique: query::named::<u8>(&row, "Non_unique") == Some(0),
                visible: is_visible(&row),
                parts: vec![part],
            }),
        }
    }
    Ok(Some(indexes))
}

fn index_part(row: &Row, columns: &[Column]) -> IndexPart {
    let name: Option<String> = query::named(row, "Column_name");
    IndexPart {
        column: name.and_then(|name| columns.iter().position(|c| c.name.eq_ignore_ascii_case(&name))),
        prefix: query::named::<u64>(row, "Sub_part").is_some(),
        descending: query::named::<String>(row, "Collation").is_some_and(|c| c == "D"),
        nullable: query::named::<String>(row, "Null").is_some_and(|n| n.eq_ignore_ascii_case("YES")),
    }
}

fn is_visible(row: &Row) -> bool {
    let is = |name: &str, value: &str| query::named::<String>(row, name).is_some_and(|v| v.eq_ignore_ascii_case(value));
    // Only a B-tree gives ranges and order.
    !is("Visible", "NO") && !is("Ignored", "YES") && is("Index_type", "BTREE")
}

async fn has_cascades(conn: &mut Conn, table: &TableId, doing: &str) -> Result<bool, MysqlError> {
    let sql = "SELECT COUNT(*) FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = ? \
               AND TABLE_NAME = ? AND (DELETE_RULE IN ('CASCADE', 'SET NULL') OR UPDATE_RULE IN ('CASCADE', 'SET NULL'))";
    let rows = query::rows_with(conn, sql, (&*table.database, &*table.table), doing).await?;
    Ok(rows.first().and_then(|row| query::cell::<u64>(row, 0)).unwrap_or_default() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::PRIMARY;

    fn described() -> TableDescription {
        let column = |name: &str, ty: ColumnType, nullable| Column { name: name.into(), ty, nullable };
        let part = |column| IndexPart { column: Some(column), prefix: false, descending: false, nullable: false };
        let index = |name: &str, parts| IndexFacts { name: name.into(), unique: true, visible: true, parts };
        let schema = TableSchema {
            table: TableId::new("shop", "orders"),
            columns: vec![
                column("id", ColumnType::Int32, false),
                column("code", ColumnType::Text, false),
                column("note", ColumnType::Text, true),
            ],
            key: vec![0],
            layout: weir_model::Layout::default(),
        };
        let indexes = vec![index(PRIMARY, vec![part(0)]), index("u", vec![part(1)])];
        TableDescription { indexes, ..TableDescription::plain(schema) }
    }

    #[test]
    fn a_configured_key_takes_the_index_that_orders_it() {
        let table = described();
        assert_eq!(table.key_index(), Some(PRIMARY));
        let by_code = table.with_key(&["CODE".into()]).unwrap();
        assert_eq!((by_code.schema.key.clone(), by_code.key_index()), (vec![1], Some("u")));
        assert_eq!(table.with_key(&["code".into(), "id".into()]).unwrap().key_index(), None);
    }

    #[test]
    fn a_key_that_cannot_name_rows_is_refused() {
        for bad in [&["note"][..], &["nope"], &[], &["id", "ID"]] {
            let names: Vec<String> = bad.iter().map(|n| (*n).to_owned()).collect();
            assert!(described().with_key(&names).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_byte_ordered_keys_say_so() {
        let mut table = described();
        assert!(table.key_sorts_bytewise());
        table = table.with_key(&["code".into()]).unwrap();
        table.columns[1].collation = Some("utf8mb4_0900_ai_ci".into());
        assert!(!table.key_sorts_bytewise());
        table.columns[1].collation = Some("utf8mb4_0900_bin".into());
        assert!(table.key_sorts_bytewise());
    }

    #[test]
    fn columns_that_fill_existing_rows_are_told_apart() {
        let fills = |nullable, default, extra| column_facts(None, None, nullable, default, extra).fills_existing_rows;
        assert!(!fills(true, None, ""));
        assert!(!fills(true, Some("NULL"), ""));
        assert!(fills(true, Some("5"), ""));
        assert!(fills(false, None, ""));
        assert!(fills(true, Some("uuid()"), "DEFAULT_GENERATED"));
        assert!(fills(true, None, "VIRTUAL GENERATED"));
        assert!(column_facts(None, None, false, None, "AUTO_INCREMENT INVISIBLE").invisible);
        assert!(!column_facts(None, None, true, Some("now()"), "DEFAULT_GENERATED").generated);
    }
}
