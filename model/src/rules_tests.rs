//! What of a table's columns comes out, as what, and which rules are refused.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef, Decimal128Array, Int32Array, Int64Array, RecordBatch, StringArray};

use super::{Kept, Masked, RowRules, RuleError, Salt, hashes};
use crate::change::{ChangeBatch, Op, Window};
use crate::image::{Images, PartialImage, Rest};
use crate::order::{EventId, Order};
use crate::schema::{Column, TableId, TableSchema};
use crate::value::ColumnType;

/// (id, name, email, age), with `id` for a key.
fn people() -> TableSchema {
    let column = |name: &str, ty| Column { name: name.into(), ty, nullable: name != "id" };
    let columns = vec![
        column("name", ColumnType::Text),
        column("id", ColumnType::Int32),
        column("email", ColumnType::Text),
        column("age", ColumnType::Int64),
    ];
    TableSchema { table: TableId::new("shop", "people"), columns, key: vec![1], layout: Default::default() }
}

fn rows() -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec![Some("Ann"), None])),
        Arc::new(Int32Array::from(vec![7, 8])),
        Arc::new(StringArray::from(vec![Some("abc"), None])),
        Arc::new(Int64Array::from(vec![Some(40), Some(41)])),
    ];
    RecordBatch::try_new(people().arrow(), columns).unwrap()
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn rules() -> RowRules {
    RowRules {
        kept: Kept::Without(names(&["NAME"])),
        hashed: names(&["email"]),
        masked: [("age".to_owned(), Masked::Null)].into(),
        salt: Salt::default(),
    }
}

/// SHA-256 of `abc` (FIPS 180-4, example of the National Institute of Standards and Technology).
const OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

#[test]
fn columns_are_left_out_hashed_and_masked_and_the_key_stays() {
    let bound = rules().bind(&people()).unwrap().unwrap();
    let schema = bound.schema();
    assert_eq!(schema.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>(), ["id", "email", "age"]);
    assert_eq!((schema.key_names(), &schema.columns[1].ty), (vec!["id"], &ColumnType::Text));
    let out = bound.rows(&rows());
    assert_eq!(out.column(0).as_primitive::<Int32Type>().values(), &[7, 8]);
    let email = out.column(1).as_string::<i32>();
    assert_eq!((email.value(0), email.is_null(1)), (OF_ABC, true));
    let age = out.column(2).as_primitive::<Int64Type>();
    assert_eq!(age.null_count(), 2);
}

#[test]
fn only_what_is_included_comes_out_and_the_key_besides() {
    let rules = RowRules { kept: Kept::Only(names(&["email", "gone"])), ..RowRules::default() };
    let schema = rules.bind(&people()).unwrap().unwrap().schema().clone();
    assert_eq!(schema.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>(), ["id", "email"]);
    assert_eq!(schema.key, [0]);
}

#[test]
fn a_mask_stands_in_every_row_whatever_type_it_covers() {
    let masked = [("age".to_owned(), Masked::Text("***".into()))].into();
    let rules = RowRules { masked, ..RowRules::default() };
    let bound = rules.bind(&people()).unwrap().unwrap();
    let age = bound.rows(&rows()).column(3).clone();
    assert_eq!(age.as_string::<i32>().iter().collect::<Vec<_>>(), [Some("***"), Some("***")]);
}

#[test]
fn a_hash_depends_on_the_value_and_the_salt_alone() {
    let of = |values: ArrayRef, salt: &str| hashes(&values, &Salt(salt.into())).as_string::<i32>().value(0).to_owned();
    let narrow = of(Arc::new(Int32Array::from(vec![42])), "");
    assert_eq!(narrow, of(Arc::new(Int64Array::from(vec![42])), ""));
    assert_eq!(narrow, of(Arc::new(StringArray::from(vec!["42"])), ""));
    let decimal = Decimal128Array::from(vec![1230]).with_precision_and_scale(6, 2).unwrap();
    assert_eq!(of(Arc::new(decimal), ""), of(Arc::new(StringArray::from(vec!["12.30"])), ""));
    assert_eq!(of(Arc::new(StringArray::from(vec!["bc"])), "a"), OF_ABC);
    assert_ne!(narrow, of(Arc::new(Int32Array::from(vec![42])), "pepper"));
}

#[test]
fn what_would_leak_or_break_the_key_is_refused() {
    let refused = |change: &dyn Fn(&mut RowRules)| {
        let mut rules = RowRules::default();
        change(&mut rules);
        rules.bind(&people()).unwrap_err()
    };
    assert!(matches!(refused(&|rules| rules.hashed = names(&["mail"])), RuleError::NoColumn("hash_columns", _)));
    assert!(matches!(refused(&|rules| rules.hashed = names(&["ID"])), RuleError::Key("hash_columns", _)));
    let without = |name: &str| Kept::Without(names(&[name]));
    assert!(matches!(refused(&|rules| rules.kept = without("id")), RuleError::Key("exclude_columns", _)));
    assert!(matches!(refused(&|rules| rules.kept = without("mail")), RuleError::NoColumn("exclude_columns", _)));
    let twice = refused(&|rules| {
        rules.hashed = names(&["email"]);
        rules.masked = [("Email".to_owned(), Masked::Null)].into();
    });
    assert!(matches!(twice, RuleError::Twice(_)));
    let mut by_age = people();
    by_age.layout.partitions = vec!["age".to_owned().try_into().unwrap()];
    let of_age = RowRules { hashed: names(&["age"]), ..RowRules::default() };
    assert!(matches!(of_age.bind(&by_age), Err(RuleError::Partition("hash_columns", _))));
    let without_age = RowRules { kept: Kept::Only(names(&["email"])), ..RowRules::default() };
    assert!(matches!(without_age.bind(&by_age), Err(RuleError::Partition("include_columns", _))));
    let keyless = TableSchema { key: Vec::new(), ..people() };
    let nothing = RowRules { kept: Kept::Only(Vec::new()), ..RowRules::default() };
    assert_eq!(nothing.bind(&keyless), Err(RuleError::Nothing));
    assert_eq!(RowRules::default().bind(&people()), Ok(None));
}

#[test]
fn images_say_of_the_columns_that_come_out_which_are_known() {
    // The first row knows id and age, the second id alone, of which nothing else comes out but what is masked.
    let image = |known: &[usize]| {
        let mut image = PartialImage::unknown(4, Rest::Unchanged);
        known.iter().for_each(|column| image.set_known(*column));
        image
    };
    let mut images = Images::default();
    images.note(0, image(&[1, 3]));
    images.note(1, image(&[1, 2]));
    let batch = ChangeBatch {
        schema: Arc::new(people()),
        rows: rows(),
        images,
        ops: vec![Op::Update; 2],
        orders: vec![Order::new(1, 1), Order::new(1, 2)],
        ids: vec![EventId(1), EventId(2)],
        windows: vec![Window(0); 2],
    };
    let out = rules().bind(&people()).unwrap().unwrap().changes(batch);
    let first = out.images.get(0).expect("the hash of an email that is not known is not, either");
    assert_eq!([first.knows(0), first.knows(1), first.knows(2)], [true, false, true]);
    assert_eq!((out.images.get(1), out.images.partial(), out.len()), (None, 1, 2));
    assert_eq!(out.rows.num_columns(), out.schema.columns.len());
}

#[test]
fn a_fingerprint_is_of_what_rows_become_and_tells_no_salt() {
    assert_eq!(RowRules::default().fingerprint(), "");
    let salted = RowRules { salt: Salt("pepper".into()), ..rules() };
    assert_ne!(salted.fingerprint(), rules().fingerprint());
    assert!(!format!("{salted:?} {}", salted.fingerprint()).contains("pepper"));
    let same = RowRules { kept: Kept::Without(names(&["name"])), hashed: names(&["EMAIL"]), ..rules() };
    assert_eq!(same.fingerprint(), rules().fingerprint());
    let unused = RowRules { hashed: Vec::new(), ..salted };
    assert_eq!(unused.fingerprint(), RowRules { hashed: Vec::new(), ..rules() }.fingerprint());
    let other = RowRules { masked: [("age".to_owned(), Masked::Text("NULL".into()))].into(), ..rules() };
    assert_ne!(other.fingerprint(), rules().fingerprint());
}
