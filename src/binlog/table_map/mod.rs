//! TABLE_MAP_EVENT: the table that the row events behind it are about.
//!
//! In: the event's body, without header and checksum. Out: a [`TableMap`], and from it the [`TableSchema`] that its rows
//! have. Character sets and values are the row decoder's.
//!
//! The layout is in the server's documentation of the class `Table_map_event` (libs/mysql/binlog/event/rows_event.h).

use weir_model::{TableId, TableSchema};

use crate::binlog::row::RowError;
use crate::binlog::row::cursor::{Cursor, Truncated};

mod complete;
mod metadata;
mod schema;
mod wire;

pub use wire::WireType;

/// A table as the binlog describes it just before its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableMap {
    /// Number that the row events refer to; another one whenever the server has opened the table anew.
    pub table_id: u64,
    pub database: String,
    pub table: String,
    pub columns: Vec<MapColumn>,
    /// Indexes into `columns` of the primary key, in key order; empty without one, and unless the metadata is FULL.
    pub primary_key: Vec<usize>,
    /// Whether it says which columns are unsigned.
    pub signs: Signs,
    pub writer: Writer,
}

/// Who wrote a table map: the families differ in what they count, and in what their images leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    Mysql,
    /// MySQL before 8.0, which shows documents otherwise.
    Mysql57,
    Mariadb,
}

/// What a table map says of which columns are unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signs {
    Told,
    /// It has no such metadata.
    Untold,
    /// It has, and whether YEAR columns are counted in it depends on the server's version.
    Unreliable,
}

/// A column of a table map. What only the optional metadata says is empty where the source does not write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapColumn {
    pub wire: WireType,
    pub nullable: bool,
    /// Of numeric columns.
    pub unsigned: bool,
    pub name: Option<String>,
    /// Of character columns, ENUM and SET: the collation's id. A caller that knows it from the catalogue may fill it in.
    pub collation: Option<u32>,
    /// Of ENUM and SET: the members in order, in the column's character set.
    pub members: Vec<Vec<u8>>,
    /// Of spatial columns: the subtype's code.
    pub geometry_type: Option<u64>,
    /// Of VECTOR: the number of elements a value may have.
    pub dimensions: Option<u64>,
    pub visible: bool,
}

/// Columns a table can have at most (`MAX_FIELDS` of the server).
const COLUMNS_MAX: u64 = 4096;

impl TableMap {
    /// Reads the body of a TABLE_MAP_EVENT of MySQL: from the table id on, without the checksum.
    pub fn parse(body: &[u8]) -> Result<Self, RowError> {
        Self::parse_of(Writer::Mysql, body)
    }

    /// The same of either.
    pub fn parse_of(writer: Writer, body: &[u8]) -> Result<Self, RowError> {
        let mut reader = Reader::new(body);
        let table_id = reader.step("table id", |cursor| cursor.uint_le(6))?;
        reader.step("flags", |cursor| cursor.uint_le(2))?;
        let database = reader.name("database name")?;
        let table = reader.name("table name")?;
        let column_count = reader.step("column count", Cursor::packed)?;
        if column_count > COLUMNS_MAX {
            return Err(reader.malformed("column count"));
        }
        let column_count = column_count as usize;
        let codes = reader.step("column types", |cursor| cursor.take(column_count))?;
        let mut details = Cursor::new(reader.step("column metadata", Cursor::packed_bytes)?);
        let id = TableId::new(&database, &table);
        let mut columns = Vec::with_capacity(column_count);
        for (index, &code) in codes.iter().enumerate() {
            let wire = WireType::read(code, &mut details)
                .map_err(|_| reader.malformed("column metadata"))?
                .ok_or_else(|| RowError::UnknownType { table: id.clone(), number: index + 1, code })?;
            columns.push(MapColumn::new(wire));
        }
        let nullable = reader.step("null bitmap", |cursor| cursor.take(column_count.div_ceil(8)))?;
        for (index, column) in columns.iter_mut().enumerate() {
            column.nullable = nullable[index / 8] >> (index % 8) & 1 == 1;
        }
        let mut map =
            Self { table_id, database, table, columns, primary_key: Vec::new(), signs: Signs::Untold, writer };
        while !reader.cursor.is_empty() {
            let kind = reader.step("type of optional metadata", Cursor::u8)?;
            let field = reader.step("length of optional metadata", Cursor::packed_bytes)?;
            map.read_metadata(kind, field, writer).map_err(|metadata::Malformed(what)| reader.malformed(what))?;
        }
        Ok(map)
    }

    /// The map as of a server of which it is not known whether it counts YEAR columns among those that have a sign: 8.0.15 does
    /// not, later ones do.
    #[must_use]
    pub fn with_doubtful_years(mut self) -> Self {
        if self.signs == Signs::Told && self.columns.iter().any(|column| column.wire == WireType::Year) {
            self.signs = Signs::Unreliable;
            for column in &mut self.columns {
                column.unsigned = false;
            }
        }
        self
    }

    pub fn id(&self) -> TableId {
        TableId::new(&self.database, &self.table)
    }

    /// The columns as this map alone describes them, which takes `binlog_row_metadata=FULL`.
    ///
    /// `key_names` are the columns of the record key in key order; without them it is the primary key.
    pub fn schema(&self, key_names: Option<&[String]>) -> Result<TableSchema, RowError> {
        schema::described(self, key_names)
    }

    /// The columns as `catalogue` describes them, for maps without names; what the map does say must agree.
    pub fn schema_with(&self, catalogue: &TableSchema) -> Result<TableSchema, RowError> {
        schema::from_catalogue(self, catalogue)
    }

    /// The column's name, or its number where the map has no names.
    pub(crate) fn column_label(&self, index: usize) -> String {
        match self.columns.get(index).and_then(|column| column.name.as_ref()) {
            Some(name) => name.clone(),
            None => format!("number {}", index + 1),
        }
    }
}

impl MapColumn {
    fn new(wire: WireType) -> Self {
        Self {
            wire,
            nullable: false,
            unsigned: false,
            name: None,
            collation: None,
            members: Vec::new(),
            geometry_type: None,
            dimensions: None,
            visible: true,
        }
    }
}

/// A cursor over the body that knows where it stands, for errors.
struct Reader<'a> {
    cursor: Cursor<'a>,
    length: usize,
}

impl<'a> Reader<'a> {
    fn new(body: &'a [u8]) -> Self {
        Self { cursor: Cursor::new(body), length: body.len() }
    }

    fn step<T>(
        &mut self,
        what: &'static str,
        read: impl FnOnce(&mut Cursor<'a>) -> Result<T, Truncated>,
    ) -> Result<T, RowError> {
        read(&mut self.cursor).map_err(|Truncated| self.malformed(what))
    }

    /// A name behind its length and before a zero byte.
    fn name(&mut self, what: &'static str) -> Result<String, RowError> {
        let bytes = self.step(what, Cursor::packed_bytes)?;
        self.step(what, Cursor::u8)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| self.malformed(what))
    }

    fn malformed(&self, what: &'static str) -> RowError {
        RowError::Map { what, offset: self.length - self.cursor.remaining() }
    }
}
