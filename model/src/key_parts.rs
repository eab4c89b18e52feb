//! Record keys taken apart again: the values in a canonical form, and bounds between keys that begin with whole numbers.

use arrow_schema::DataType;

use crate::key::{INTEGER_BYTES, KeyRef, integer_bytes};

/// One column's value of a record key, as its canonical form holds it.
#[derive(Debug, Clone, PartialEq)]
pub enum KeyPart {
    /// Whole numbers, and dates and times as the whole numbers that Arrow has for them.
    Integer(i128),
    Decimal {
        unscaled: i128,
        scale: u8,
    },
    /// Of either width; never -0.0.
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
}

/// The values of a key that [`crate::RecordKeys::of`] formed from columns of `types`.
///
/// # Panics
/// If it is of other columns.
pub fn key_parts(key: KeyRef<'_>, types: &[&DataType]) -> Vec<KeyPart> {
    let mut rest = match key {
        KeyRef::Int(value) => return vec![KeyPart::Integer(value.into())],
        KeyRef::Bytes(bytes) => bytes,
    };
    types.iter().map(|ty| decode(ty, &mut rest)).collect()
}

/// The beginning of the canonical bytes of keys whose first columns hold these whole numbers. Keys whose first columns hold
/// greater ones sort above it, those of lesser ones below.
pub fn integer_prefix(values: &[i64]) -> Vec<u8> {
    values.iter().flat_map(|value| integer_bytes((*value).into())).collect()
}

/// The first column's value of a key that begins with a whole number.
///
/// # Panics
/// If it begins with anything shorter.
pub fn leading_integer(key: KeyRef<'_>) -> i128 {
    match key {
        KeyRef::Int(value) => value.into(),
        KeyRef::Bytes(mut bytes) => integer(take(&mut bytes)),
    }
}

/// Takes one column's value off the front of a key.
fn decode(ty: &DataType, rest: &mut &[u8]) -> KeyPart {
    match ty {
        DataType::Boolean => KeyPart::Integer(take::<1>(rest)[0].into()),
        DataType::Float32 | DataType::Float64 => {
            let sorted = u64::from_be_bytes(take(rest));
            KeyPart::Float(f64::from_bits(if sorted >> 63 == 1 { sorted ^ (1 << 63) } else { !sorted }))
        }
        DataType::Decimal128(precision, scale) if (*precision, *scale) != (20, 0) => {
            let unscaled = (u128::from_be_bytes(take(rest)) ^ (1 << 127)) as i128;
            KeyPart::Decimal { unscaled, scale: *scale as u8 }
        }
        DataType::Utf8 => KeyPart::Text(String::from_utf8(take_bytes(rest)).expect("a key's text was text")),
        DataType::Binary => KeyPart::Bytes(take_bytes(rest)),
        _ => KeyPart::Integer(integer(take(rest))),
    }
}

/// Undoes [`integer_bytes`].
fn integer(bytes: [u8; INTEGER_BYTES]) -> i128 {
    let mut shifted = [0; 16];
    shifted[16 - INTEGER_BYTES..].copy_from_slice(&bytes);
    i128::from_be_bytes(shifted) - (1_i128 << 71)
}

fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (value, behind) = rest.split_first_chunk().expect("a key has all of its columns");
    *rest = behind;
    *value
}

/// A zero byte is escaped as `00 FF`, and `00 00` closes the value.
fn take_bytes(rest: &mut &[u8]) -> Vec<u8> {
    let mut value = Vec::new();
    loop {
        let [byte] = take(rest);
        if byte == 0 && take::<1>(rest) == [0] {
            return value;
        }
        value.push(byte);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{
        ArrayRef, BinaryArray, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    };
    use proptest::prelude::*;

    use super::*;
    use crate::RecordKeys;

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter(columns).unwrap()
    }

    #[test]
    fn a_prefix_of_integers_divides_the_keys_that_begin_with_them() {
        let rows = batch(vec![
            ("a", Arc::new(Int64Array::from(vec![-7, 3, 3, 4])) as ArrayRef),
            ("b", Arc::new(Int32Array::from(vec![9, -1, 5, 0])) as ArrayRef),
        ]);
        let keys = RecordKeys::of(&rows, &["a", "b"]).unwrap();
        let at_or_above = |bound: &[i64]| -> Vec<bool> {
            let bound = integer_prefix(bound);
            (0..4).map(|row| keys.get(row) >= KeyRef::Bytes(&bound)).collect()
        };
        assert_eq!([0, 1, 3].map(|row| leading_integer(keys.get(row))), [-7, 3, 4]);
        assert_eq!(at_or_above(&[3]), [false, true, true, true]);
        assert_eq!(at_or_above(&[3, 5]), [false, false, true, true]);
        assert_eq!(at_or_above(&[3, 6]), [false, false, false, true]);
    }

    proptest! {
        #[test]
        fn the_values_of_a_key_are_read_back(
            integer: i64,
            unsigned: u64,
            unscaled in -10_i128.pow(30)..10_i128.pow(30),
            float in any::<f64>().prop_filter("MySQL has no NaN", |float| !float.is_nan()),
            text in ".{0,6}",
            bytes in prop::collection::vec(0_u8..3, 0..6),
        ) {
            let decimal = |value: i128, precision, scale| -> ArrayRef {
                Arc::new(Decimal128Array::from(vec![value]).with_precision_and_scale(precision, scale).unwrap())
            };
            let rows = batch(vec![
                ("text", Arc::new(StringArray::from(vec![text.as_str()])) as ArrayRef),
                ("integer", Arc::new(Int64Array::from(vec![integer]))),
                ("unsigned", decimal(unsigned.into(), 20, 0)),
                ("bytes", Arc::new(BinaryArray::from(vec![&bytes[..]]))),
                ("decimal", decimal(unscaled, 31, 4)),
                ("float", Arc::new(Float64Array::from(vec![float]))),
            ]);
            let schema = rows.schema();
            let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            let types: Vec<&DataType> = schema.fields().iter().map(|field| field.data_type()).collect();
            let keys = RecordKeys::of(&rows, &names).unwrap();
            let expected = [
                KeyPart::Text(text),
                KeyPart::Integer(integer.into()),
                KeyPart::Integer(unsigned.into()),
                KeyPart::Bytes(bytes),
                KeyPart::Decimal { unscaled, scale: 4 },
                KeyPart::Float(float),
            ];
            prop_assert_eq!(key_parts(keys.get(0), &types), expected);
            let alone = RecordKeys::of(&rows, &["integer"]).unwrap();
            prop_assert_eq!(key_parts(alone.get(0), &[&DataType::Int64]), [KeyPart::Integer(integer.into())]);
        }
    }
}
