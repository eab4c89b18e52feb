//! The actions of a Delta commit that we write and read (Delta protocol, "Actions"), within the profile that every
//! reader we know reads rightly.

use std::collections::BTreeMap;

use arrow_schema::DataType;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;
use weir_model::TableSchema;

use super::partition::partition_names;
use super::record::CommitRecord;
use crate::format::Format;

/// One line of a commit; exactly one member is set.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Action {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit_info: Option<CommitInfo>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meta_data: Option<MetaData>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub txn: Option<Txn>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove: Option<Remove>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add: Option<Add>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommitInfo {
    /// Milliseconds since the epoch.
    #[serde(default)]
    pub timestamp: i64,
    #[serde(default)]
    pub operation: String,
    /// Nothing of ours; some readers of histories miss it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_parameters: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_info: Option<String>,
    /// Present in own commits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weir: Option<CommitRecord>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Protocol {
    pub min_reader_version: u32,
    pub min_writer_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reader_features: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer_features: Option<Vec<String>>,
}

const DELETION_VECTORS: &str = "deletionVectors";
const TIMESTAMP_NTZ: &str = "timestampNtz";
const READER_FEATURES: [&str; 2] = [DELETION_VECTORS, TIMESTAMP_NTZ];

impl Protocol {
    /// What a table of `schema` asks of readers. Undeclared, some readers return deleted rows in silence; any further
    /// reader feature is refused by others. A table that is copied on write is for readers of any age, unless a column
    /// is a timestamp without zone.
    pub fn of(schema: &TableSchema) -> Self {
        let with = |features: &[&str]| {
            let features = || Some(features.iter().copied().map(str::to_owned).collect());
            Self {
                min_reader_version: 3,
                min_writer_version: 7,
                reader_features: features(),
                writer_features: features(),
            }
        };
        if !schema.layout.copies_on_write() {
            return with(&READER_FEATURES);
        }
        if schema.columns.iter().any(|column| column.ty.delta() == "timestamp_ntz") {
            return with(&[TIMESTAMP_NTZ]);
        }
        Self { min_reader_version: 1, min_writer_version: 2, reader_features: None, writer_features: None }
    }

    /// Whether this is what we wrote for `schema`, in whatever order the features stand.
    pub fn is_of(&self, schema: &TableSchema) -> bool {
        let sorted = |features: &Option<Vec<String>>| {
            let mut features = features.clone().unwrap_or_default();
            features.sort_unstable();
            features
        };
        let ours = Self::of(schema);
        (self.min_reader_version, self.min_writer_version) == (ours.min_reader_version, ours.min_writer_version)
            && sorted(&self.reader_features) == sorted(&ours.reader_features)
            && sorted(&self.writer_features) == sorted(&ours.writer_features)
    }

    /// Whether a reader that knows our features and no more reads the table rightly.
    pub fn is_readable(&self) -> bool {
        let known = |feature: &String| READER_FEATURES.contains(&feature.as_str());
        self.min_reader_version == 1 || self.min_reader_version == 3 && self.reader_features.iter().flatten().all(known)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetaData {
    pub id: String,
    pub format: Value,
    pub schema_string: String,
    pub partition_columns: Vec<String>,
    pub configuration: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_time: Option<i64>,
}

impl MetaData {
    /// Whether its columns, and those that it is partitioned by, are those of a table of `schema`, whatever else someone has set.
    pub fn has_columns_of(&self, schema: &TableSchema) -> bool {
        let columns = |text: &str| -> Option<Vec<(Value, Value)>> {
            let schema: Value = serde_json::from_str(text).ok()?;
            let fields = schema.get("fields")?.as_array()?;
            Some(fields.iter().map(|field| (field["name"].clone(), field["type"].clone())).collect())
        };
        self.partition_columns == partition_names(&schema.layout)
            && columns(&self.schema_string) == columns(&schema_string(schema))
    }

    /// The format of a table of ours; those of the first versions do not say it.
    pub fn weir_format(&self) -> Format {
        let named = self.configuration.get(FORMAT_PROPERTY);
        named.map_or(Format::FIRST, |text| text.parse().map_or(Format(u32::MAX), Format))
    }

    /// A table of `schema`; `id` stays the same for the table's life.
    pub fn of(schema: &TableSchema, id: String, created_ms: i64) -> Self {
        let vectors = (!schema.layout.copies_on_write()).then_some(("delta.enableDeletionVectors", "true"));
        let format = CommitRecord::FORMAT.to_string();
        let configuration = [
            (FORMAT_PROPERTY, &*format),
            // Our records are in the log: nobody else's cleanup may remove them before they are shipped.
            ("delta.enableExpiredLogCleanup", "false"),
            // Every replaced deletion vector is a tombstone in each checkpoint until then.
            ("delta.deletedFileRetentionDuration", "interval 24 hours"),
        ];
        Self {
            id,
            format: json!({"provider": "parquet", "options": {}}),
            schema_string: schema_string(schema),
            partition_columns: partition_names(&schema.layout),
            configuration: vectors
                .into_iter()
                .chain(configuration)
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect(),
            created_time: Some(created_ms),
        }
    }
}

/// The table property that names the format, for whoever reads no commit of ours.
const FORMAT_PROPERTY: &str = "weir.format";

/// Delta's JSON of the lake table's columns, all nullable.
fn schema_string(schema: &TableSchema) -> String {
    let field = |name: &str, ty: &str| json!({"name": name, "type": ty, "nullable": true, "metadata": {}});
    let mut fields: Vec<Value> = schema.columns.iter().map(|c| field(&c.name, &c.ty.delta())).collect();
    fields.extend(schema.added_fields().iter().map(|added| field(added.name(), delta_type(added.data_type()))));
    json!({"type": "struct", "fields": fields}).to_string()
}

/// Delta's name of the type of a column that is not the source's.
fn delta_type(arrow: &DataType) -> &'static str {
    match arrow {
        DataType::Boolean => "boolean",
        DataType::Int32 => "integer",
        DataType::Int64 => "long",
        DataType::Date32 => "date",
        _ => "string",
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Txn {
    pub app_id: String,
    pub version: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<i64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Add {
    pub path: String,
    #[serde(default)]
    pub partition_values: BTreeMap<String, Option<String>>,
    pub size: i64,
    pub modification_time: i64,
    pub data_change: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, Option<String>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_vector: Option<DeletionVector>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Remove {
    pub path: String,
    #[serde(default)]
    pub deletion_timestamp: Option<i64>,
    pub data_change: bool,
    #[serde(default)]
    pub extended_file_metadata: Option<bool>,
    #[serde(default)]
    pub partition_values: Option<BTreeMap<String, Option<String>>>,
    #[serde(default)]
    pub size: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_vector: Option<DeletionVector>,
}

/// Where a deletion vector lies (Delta protocol, "Deletion Vectors").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeletionVector {
    /// `u`: a file named by a uuid in the table's folder.
    pub storage_type: String,
    pub path_or_inline_dv: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<i32>,
    pub size_in_bytes: i32,
    pub cardinality: i64,
}

impl DeletionVector {
    /// Name of the file in the table's folder, and the offset of the vector in it; none if it lies elsewhere, or nowhere, by numbers
    /// that make no sense.
    pub fn file(&self) -> Option<(String, usize)> {
        let offset = usize::try_from(self.offset.unwrap_or(0)).ok()?;
        usize::try_from(self.size_in_bytes).ok()?;
        let encoded = self.path_or_inline_dv.get(self.path_or_inline_dv.len().checked_sub(20)?..)?;
        let prefix = &self.path_or_inline_dv[..self.path_or_inline_dv.len() - 20];
        let uuid = Uuid::from_slice(&z85::decode(encoded).ok()?).ok()?;
        let folder = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        (self.storage_type == "u").then(|| (format!("{folder}{}", vector_file_name(uuid)), offset))
    }
}

/// The file name that a descriptor's uuid stands for.
pub fn vector_file_name(uuid: Uuid) -> String {
    format!("deletion_vector_{uuid}.bin")
}

#[cfg(test)]
mod tests {
    use weir_model::layout::Storage;
    use weir_model::{Column, ColumnType, Layout, TableId};

    use super::*;

    fn schema(ty: ColumnType, storage: Storage) -> TableSchema {
        TableSchema {
            table: TableId::new("shop", "orders"),
            columns: vec![Column { name: "at".into(), ty, nullable: true }],
            key: vec![0],
            layout: Layout { storage, ..Layout::default() },
        }
    }

    #[test]
    fn a_protocol_with_a_further_reader_feature_is_neither_ours_nor_readable() {
        let schema = schema(ColumnType::Date, Storage::MergeOnRead);
        let mut protocol = Protocol::of(&schema);
        protocol.writer_features.as_mut().unwrap().reverse();
        assert!(protocol.is_of(&schema) && protocol.is_readable());
        protocol.reader_features.as_mut().unwrap().push("columnMapping".into());
        assert!(!protocol.is_of(&schema) && !protocol.is_readable());
    }

    #[test]
    fn a_table_that_is_copied_on_write_asks_for_no_more_than_its_columns_do() {
        let plain = Protocol::of(&schema(ColumnType::Date, Storage::CopyOnWrite));
        assert_eq!((plain.min_reader_version, plain.min_writer_version), (1, 2));
        assert!(plain.is_readable());
        let without_zone = Protocol::of(&schema(ColumnType::DateTime { fsp: 0 }, Storage::CopyOnWrite));
        assert_eq!(without_zone.reader_features, Some(vec![TIMESTAMP_NTZ.to_owned()]));
    }

    #[test]
    fn a_descriptor_names_the_file_of_its_uuid() {
        let uuid = Uuid::parse_str("61d16c75-6994-46b7-a15b-8b538852e50e").unwrap();
        let vector = DeletionVector {
            storage_type: "u".into(),
            path_or_inline_dv: z85::encode(uuid.as_bytes()),
            offset: Some(1),
            size_in_bytes: 40,
            cardinality: 2,
        };
        // The encoded form of this uuid is the protocol's own example.
        assert_eq!(vector.path_or_inline_dv, "vBn[lx{q8@P<9BNH/isA");
        let name = "deletion_vector_61d16c75-6994-46b7-a15b-8b538852e50e.bin".to_owned();
        assert_eq!(vector.file(), Some((name, 1)));
        assert_eq!(DeletionVector { offset: Some(-1), ..vector.clone() }.file(), None);
        assert_eq!(DeletionVector { size_in_bytes: -40, ..vector }.file(), None);
    }
}
