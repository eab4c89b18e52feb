//! What a map without metadata leaves out, from the source's catalogue: names, signs, character sets, members, the primary key.
//! MySQL 5.7 has no such metadata, MariaDB writes none unless it is asked to, and `binlog_row_metadata=MINIMAL` is a part of it.

use weir_model::ColumnType;
use weir_mysql::TableDescription;

use super::{MapColumn, Signs, TableMap, WireType};
use crate::binlog::charset::{BINARY_COLLATION, UTF8MB4_COLLATION, default_collation};
use crate::binlog::row::{RowError, plan};

impl TableMap {
    /// Whether the map says by itself all that its rows need to be read.
    pub fn is_complete(&self) -> bool {
        self.signs != Signs::Unreliable && self.columns.iter().all(|column| column.name.is_some())
    }

    /// The same map with what `catalogue` says of the table's columns. What the map does say must agree.
    ///
    /// # Errors
    /// When the columns are not those of the catalogue, as far as the map tells: their number, types, and signs if it has them.
    pub fn completed(&self, catalogue: &TableDescription) -> Result<Self, RowError> {
        let table = self.id();
        let disagree = |source: RowError| RowError::Catalogue { table: table.clone(), source: Box::new(source) };
        plan::check_count(self, &catalogue.schema).map_err(disagree)?;
        let mut map = self.clone();
        map.signs = Signs::Told;
        for (index, column) in map.columns.iter_mut().enumerate() {
            let (described, facts) = (&catalogue.schema.columns[index], &catalogue.columns[index]);
            if column.name.is_none() {
                column.name = Some(described.name.clone());
            }
            if self.signs != Signs::Told {
                column.unsigned = described.ty.is_unsigned();
            }
            fill_characters(column, &described.ty, facts.charset.as_deref()).map_err(|charset| {
                RowError::CatalogueCharset { table: table.clone(), column: described.name.clone(), charset }
            })?;
        }
        if map.primary_key.is_empty() {
            map.primary_key = catalogue.schema.key.clone();
        }
        // With names it is compared in everything that a schema says.
        plan::check(&map, &catalogue.schema).map_err(disagree)?;
        Ok(map)
    }
}

/// The name of a character set that is not known is the error.
fn fill_characters(column: &mut MapColumn, ty: &ColumnType, charset: Option<&str>) -> Result<(), String> {
    match ty {
        // The catalogue shows members as text, whatever the column's own character set.
        ColumnType::Enum(members) | ColumnType::Set(members) if column.members.is_empty() => {
            column.collation = Some(UTF8MB4_COLLATION);
            column.members = members.iter().map(|member| member.clone().into_bytes()).collect();
        }
        ColumnType::Text if column.collation.is_none() => {
            let name = charset.unwrap_or("binary");
            column.collation = Some(default_collation(name).ok_or_else(|| name.to_owned())?);
        }
        ColumnType::Binary if column.collation.is_none() && !matches!(column.wire, WireType::Geometry { .. }) => {
            column.collation = Some(BINARY_COLLATION);
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use weir_model::{Column, Layout, TableId, TableSchema};

    use super::super::Writer;
    use super::*;

    fn map(signs: &[(u8, &[u8])]) -> TableMap {
        let mut body = vec![1, 0, 0, 0, 0, 0, 1, 0, 1, b'd', 0, 1, b't', 0];
        // INT, VARCHAR(20), an ENUM of one byte as a CHAR tells it.
        body.extend_from_slice(&[3, 3, 15, 254, 4, 20, 0, 247, 1, 0b110]);
        for (kind, value) in signs {
            body.extend_from_slice(&[*kind, value.len() as u8]);
            body.extend_from_slice(value);
        }
        TableMap::parse(&body).unwrap()
    }

    fn catalogue() -> TableDescription {
        let column = |name: &str, ty, nullable| Column { name: name.into(), ty, nullable };
        let columns = vec![
            column("id", ColumnType::UInt32, false),
            column("name", ColumnType::Text, true),
            column("state", ColumnType::Enum(vec!["new".into(), "größer".into()]), true),
        ];
        let schema = TableSchema { table: TableId::new("d", "t"), columns, key: vec![0], layout: Layout::default() };
        let mut description = TableDescription::plain(schema);
        description.columns[1].charset = Some("latin1".into());
        description
    }

    #[test]
    fn a_map_without_metadata_becomes_what_the_catalogue_describes() {
        let nameless = map(&[]);
        assert!(!nameless.is_complete());
        let complete = nameless.completed(&catalogue()).unwrap();
        assert!(complete.is_complete());
        assert_eq!(complete.schema(None).unwrap().columns[0].ty, ColumnType::UInt32);
        assert_eq!(
            (complete.columns[1].collation, complete.primary_key.clone()),
            (default_collation("latin1"), vec![0])
        );
        assert_eq!(complete.schema(None).unwrap().columns[2], catalogue().schema.columns[2]);
    }

    #[test]
    fn what_the_map_says_must_agree() {
        // The sign bit of the only numeric column: it is signed.
        let error = map(&[(1, &[0])]).completed(&catalogue()).unwrap_err();
        assert!(error.to_string().contains("weir snapshot --table d.t"), "{error}");
        assert!(map(&[(1, &[0x80])]).completed(&catalogue()).is_ok());
        let mut fewer = catalogue();
        fewer.schema.columns.pop();
        fewer.columns.pop();
        assert!(matches!(map(&[]).completed(&fewer), Err(RowError::Catalogue { .. })));
        let mut other = catalogue();
        other.schema.columns[0].ty = ColumnType::UInt64;
        assert!(matches!(map(&[]).completed(&other), Err(RowError::Catalogue { .. })));
        let mut unknown = catalogue();
        unknown.columns[1].charset = Some("klingon".into());
        assert!(map(&[]).completed(&unknown).unwrap_err().to_string().contains("klingon"));
    }

    #[test]
    fn signs_beside_a_year_are_the_catalogues_where_versions_count_differently() {
        // YEAR and INT with full metadata: the bit is that of the INT where years are not counted.
        let mut body = vec![1, 0, 0, 0, 0, 0, 1, 0, 1, b'd', 0, 1, b't', 0, 2, 13, 3, 0, 0];
        body.extend_from_slice(&[1, 1, 0x80, 4, 4, 1, b'y', 1, b'n']);
        let map = TableMap::parse(&body).unwrap();
        assert!(map.is_complete());
        let doubtful = map.with_doubtful_years();
        assert!(!doubtful.is_complete());
        assert!(matches!(doubtful.schema(None), Err(RowError::UnreliableSigns(_))));
        let column = |name: &str, ty| Column { name: name.into(), ty, nullable: false };
        let columns = vec![column("y", ColumnType::Year), column("n", ColumnType::UInt32)];
        let schema = TableSchema { table: TableId::new("d", "t"), columns, key: vec![1], layout: Layout::default() };
        let complete = doubtful.completed(&TableDescription::plain(schema.clone())).unwrap();
        assert_eq!(complete.schema(None).unwrap(), schema);
        let mut renamed = schema;
        renamed.columns[1].name = "m".into();
        assert!(doubtful.completed(&TableDescription::plain(renamed)).is_err());
    }

    #[test]
    fn mariadb_counts_geometry_among_the_columns_that_have_a_character_set() {
        // GEOMETRY and VARCHAR with a collation for each of them: binary, utf8mb4_general_ci.
        let mut body = vec![1, 0, 0, 0, 0, 0, 1, 0, 1, b'd', 0, 1, b't', 0, 2, 255, 15, 3, 4, 20, 0, 3];
        body.extend_from_slice(&[3, 2, 63, 45]);
        let collation = |map: &TableMap| map.columns[1].collation;
        let map = TableMap::parse_of(Writer::Mariadb, &body).unwrap();
        assert_eq!((collation(&map), map.columns[0].collation), (Some(45), Some(63)));
        assert_eq!(collation(&TableMap::parse(&body).unwrap()), Some(63));
    }

    #[test]
    fn a_character_set_that_the_map_tells_wins() {
        // DEFAULT_CHARSET of the only character column: gbk_chinese_ci.
        let complete = map(&[(1, &[0x80]), (2, &[28])]).completed(&catalogue()).unwrap();
        assert_eq!(complete.columns[1].collation, Some(28));
    }
}
