//! Documents that were logged as differences: the document before, with some of its parts replaced, inserted or removed.
//!
//! A difference is a list of operations, each a byte that says which, a path as text behind its length, and but for a removal
//! a value, a document of its own behind its length; lengths are length-encoded integers (the server's sql-common/json_diff.h).
//! Only the containers on the way to a changed part are taken apart; everything else is written as it lies there, so what a
//! value is of (a decimal, a date, a type that JSON has not) stays as it was.

use super::container::Container;
use super::{DEPTH_MAX, JsonError, Size, Wholes, Writer, kind, scalar};
use crate::binlog::row::cursor::Cursor;

/// What became of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::binlog) enum Applied {
    Written,
    /// It is not one to this document: a path leads nowhere. Nothing was written.
    Elsewhere,
}

/// Appends the text of the document that `document`, as [`super::write_text`] takes it, becomes by `differences`.
///
/// What is in `text` after an error is of no use.
pub(in crate::binlog) fn write_changed(
    document: &[u8],
    differences: &[u8],
    text: &mut String,
) -> Result<Applied, JsonError> {
    let mut root = Node::of(document);
    let mut rest = Cursor::new(differences);
    while !rest.is_empty() {
        let operation = rest.u8()?;
        let path = path(rest.packed_bytes()?)?;
        let done = match operation {
            operation::REPLACE => root.replace(&path, Node::of(rest.packed_bytes()?))?,
            operation::INSERT => root.insert(&path, Node::of(rest.packed_bytes()?))?,
            operation::REMOVE => root.remove(&path)?,
            _ => return Err(JsonError("an unknown operation of a difference")),
        };
        if done.is_none() {
            return Ok(Applied::Elsewhere);
        }
    }
    root.write(&mut Writer { unread: document.len() + differences.len(), depth: 0, wholes: Wholes::Pointed, text })?;
    Ok(Applied::Written)
}

mod operation {
    pub(super) const REPLACE: u8 = 0;
    pub(super) const INSERT: u8 = 1;
    pub(super) const REMOVE: u8 = 2;
}

/// One step of a path.
#[derive(Debug, PartialEq, Eq)]
enum Leg {
    Member(String),
    Element(usize),
}

/// A path as the server writes it: `$`, then `.name`, `."any name"` or `[place]` any number of times.
fn path(text: &[u8]) -> Result<Vec<Leg>, JsonError> {
    const MALFORMED: JsonError = JsonError("a malformed path");
    let text = std::str::from_utf8(text).map_err(|_| MALFORMED)?;
    let mut rest = text.strip_prefix('$').ok_or(MALFORMED)?;
    let mut legs = Vec::new();
    while !rest.is_empty() {
        if let Some(place) = rest.strip_prefix('[') {
            let (place, behind) = place.split_once(']').ok_or(MALFORMED)?;
            legs.push(Leg::Element(place.parse().map_err(|_| MALFORMED)?));
            rest = behind;
            continue;
        }
        let name = rest.strip_prefix('.').ok_or(MALFORMED)?;
        let end = match name.starts_with('"') {
            true => quoted_end(name).ok_or(MALFORMED)?,
            false => name.find(['.', '[']).unwrap_or(name.len()),
        };
        let (name, behind) = name.split_at(end);
        legs.push(Leg::Member(match name.starts_with('"') {
            true => serde_json::from_str(name).map_err(|_| MALFORMED)?,
            false => name.to_owned(),
        }));
        rest = behind;
    }
    Ok(legs)
}

/// Where the quoted text that `name` begins with ends.
fn quoted_end(name: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in name.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// A value of the document: as it lies there, or taken apart.
#[derive(Debug)]
enum Node<'a> {
    Raw(u8, &'a [u8]),
    /// In the order of keys: the shorter first, of the same length by bytes.
    Object(Vec<(Vec<u8>, Node<'a>)>),
    Array(Vec<Node<'a>>),
}

/// `None` if the path leads nowhere.
type Done = Result<Option<()>, JsonError>;

impl<'a> Node<'a> {
    /// No bytes at all are the JSON null.
    fn of(document: &'a [u8]) -> Self {
        match document.split_first() {
            Some((kind, value)) => Self::Raw(*kind, value),
            None => Self::Raw(kind::LITERAL, &[0]),
        }
    }

    fn replace(&mut self, path: &[Leg], value: Node<'a>) -> Done {
        let Some(place) = self.find(path)? else { return Ok(None) };
        *place = value;
        Ok(Some(()))
    }

    /// Into an object a member that it has not; into an array, in front of the element that is there, or at its end.
    fn insert(&mut self, path: &[Leg], value: Node<'a>) -> Done {
        let Some((last, way)) = path.split_last() else { return Ok(None) };
        Ok(match (self.find(way)?, last) {
            (Some(Self::Object(members)), Leg::Member(name)) => {
                match members.binary_search_by(|(key, _)| sort_key(key).cmp(&sort_key(name.as_bytes()))) {
                    Ok(_) => None,
                    Err(at) => {
                        members.insert(at, (name.as_bytes().to_vec(), value));
                        Some(())
                    }
                }
            }
            (Some(Self::Array(elements)), Leg::Element(at)) => {
                elements.insert((*at).min(elements.len()), value);
                Some(())
            }
            _ => None,
        })
    }

    fn remove(&mut self, path: &[Leg]) -> Done {
        let Some((last, way)) = path.split_last() else { return Ok(None) };
        Ok(match (self.find(way)?, last) {
            (Some(Self::Object(members)), Leg::Member(name)) => {
                let at = members.iter().position(|(key, _)| key == name.as_bytes());
                at.map(|at| drop(members.remove(at)))
            }
            (Some(Self::Array(elements)), Leg::Element(at)) => {
                (*at < elements.len()).then(|| drop(elements.remove(*at)))
            }
            _ => None,
        })
    }

    /// The value at the end of a path, taken apart by one step.
    fn find(&mut self, path: &[Leg]) -> Result<Option<&mut Node<'a>>, JsonError> {
        if path.len() > DEPTH_MAX {
            return Err(JsonError("a path is longer than a document is deep"));
        }
        let mut node = self;
        node.open()?;
        for leg in path {
            let next = match (node, leg) {
                (Self::Object(members), Leg::Member(name)) => {
                    members.iter_mut().find(|(key, _)| key == name.as_bytes()).map(|(_, value)| value)
                }
                (Self::Array(elements), Leg::Element(at)) => elements.get_mut(*at),
                _ => None,
            };
            let Some(next) = next else { return Ok(None) };
            next.open()?;
            node = next;
        }
        Ok(Some(node))
    }

    /// Takes a container apart by one step; everything else stays as it lies.
    fn open(&mut self) -> Result<(), JsonError> {
        let Self::Raw(kind, bytes) = *self else { return Ok(()) };
        let (size, is_object) = match kind {
            kind::SMALL_OBJECT => (Size::Small, true),
            kind::LARGE_OBJECT => (Size::Large, true),
            kind::SMALL_ARRAY => (Size::Small, false),
            kind::LARGE_ARRAY => (Size::Large, false),
            _ => return Ok(()),
        };
        let mut container = Container::open(bytes, size, is_object)?;
        if is_object {
            let mut members = Vec::with_capacity(container.count);
            for _ in 0..container.count {
                let (key, (kind, value, _)) = (container.next_key()?, container.next_value()?);
                members.push((key.to_vec(), Self::Raw(kind, value)));
            }
            *self = Self::Object(members);
        } else {
            let mut elements = Vec::with_capacity(container.count);
            for _ in 0..container.count {
                let (kind, value, _) = container.next_value()?;
                elements.push(Self::Raw(kind, value));
            }
            *self = Self::Array(elements);
        }
        Ok(())
    }

    fn write(&self, to: &mut Writer<'_>) -> Result<(), JsonError> {
        if let Self::Raw(kind, bytes) = self {
            return to.value(*kind, bytes);
        }
        if to.depth == DEPTH_MAX {
            return Err(JsonError("it is nested too deeply"));
        }
        to.depth += 1;
        match self {
            Self::Raw(..) => {}
            Self::Object(members) => {
                to.text.push('{');
                for (nth, (key, value)) in members.iter().enumerate() {
                    to.text.push_str(if nth > 0 { ", " } else { "" });
                    scalar::write_string(key, to.text)?;
                    to.text.push_str(": ");
                    value.write(to)?;
                }
                to.text.push('}');
            }
            Self::Array(elements) => {
                to.text.push('[');
                for (nth, value) in elements.iter().enumerate() {
                    to.text.push_str(if nth > 0 { ", " } else { "" });
                    value.write(to)?;
                }
                to.text.push(']');
            }
        }
        to.depth -= 1;
        Ok(())
    }
}

/// Objects are sorted by the length of their keys, then by the bytes.
fn sort_key(key: &[u8]) -> (usize, &[u8]) {
    (key.len(), key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn string(value: &str) -> Vec<u8> {
        [&[kind::STRING, value.len() as u8][..], value.as_bytes()].concat()
    }

    fn small(value: i16) -> Vec<u8> {
        [&[kind::INT16][..], &value.to_le_bytes()].concat()
    }

    /// A small container of documents; an object if they have keys.
    fn container(members: &[(Option<&str>, Vec<u8>)]) -> Vec<u8> {
        let keyed = members.iter().any(|(key, _)| key.is_some());
        let head = 4 + members.len() * (if keyed { 4 } else { 0 } + 3);
        let (mut key_entries, mut values, mut behind) = (Vec::new(), Vec::new(), Vec::new());
        for key in members.iter().filter_map(|(key, _)| *key) {
            key_entries.extend(((head + behind.len()) as u16).to_le_bytes());
            key_entries.extend((key.len() as u16).to_le_bytes());
            behind.extend(key.as_bytes());
        }
        for (_, value) in members {
            values.push(value[0]);
            if Size::Small.holds_inline(value[0]) {
                values.extend(&value[1..]);
                values.resize(values.len() + 3 - value.len(), 0);
            } else {
                values.extend(((head + behind.len()) as u16).to_le_bytes());
                behind.extend(&value[1..]);
            }
        }
        let mut bytes = vec![if keyed { kind::SMALL_OBJECT } else { kind::SMALL_ARRAY }];
        bytes.extend((members.len() as u16).to_le_bytes());
        bytes.extend(((head + behind.len()) as u16).to_le_bytes());
        [bytes, key_entries, values, behind].concat()
    }

    fn difference(operation: u8, path: &str, value: Option<Vec<u8>>) -> Vec<u8> {
        let mut bytes = vec![operation, path.len() as u8];
        bytes.extend(path.as_bytes());
        if let Some(value) = value {
            bytes.push(value.len() as u8);
            bytes.extend(value);
        }
        bytes
    }

    /// `{"a": [1, 2, "x"], "bb": {"c\"d": 5}}`
    fn document() -> Vec<u8> {
        let array = container(&[(None, small(1)), (None, small(2)), (None, string("x"))]);
        let inner = container(&[(Some("c\"d"), small(5))]);
        container(&[(Some("a"), array), (Some("bb"), inner)])
    }

    fn changed(differences: &[Vec<u8>]) -> Result<Option<String>, JsonError> {
        let mut text = String::new();
        let applied = write_changed(&document(), &differences.concat(), &mut text)?;
        Ok((applied == Applied::Written).then_some(text))
    }

    #[test]
    fn parts_are_replaced_inserted_and_removed_where_their_paths_lead() {
        use operation::{INSERT, REMOVE, REPLACE};
        assert_eq!(changed(&[]).unwrap().unwrap(), r#"{"a": [1, 2, "x"], "bb": {"c\"d": 5}}"#);
        let decimal = vec![kind::OPAQUE, 246, 4, 3, 2, 0x80, 0x01];
        let steps = [
            difference(REPLACE, "$.a[1]", Some(decimal)),
            difference(INSERT, "$.a[0]", Some(string("first"))),
            difference(INSERT, "$.a[4]", Some(small(9))),
            difference(INSERT, "$.b", Some(container(&[]))),
            difference(INSERT, "$.bb.\"c\\\\ d\"", Some(small(6))),
            difference(REMOVE, "$.bb.\"c\\\"d\"", None),
        ];
        let expected = r#"{"a": ["first", 1, 0.01, "x", 9], "b": [], "bb": {"c\\ d": 6}}"#;
        assert_eq!(changed(&steps).unwrap().unwrap(), expected);
        assert_eq!(changed(&[difference(REPLACE, "$", Some(small(7)))]).unwrap().unwrap(), "7");
    }

    #[test]
    fn a_difference_to_another_document_is_told_from_one_that_cannot_be_read() {
        use operation::{INSERT, REMOVE, REPLACE};
        for elsewhere in [
            difference(REPLACE, "$.nosuch", Some(small(1))),
            difference(REPLACE, "$.a[3]", Some(small(1))),
            difference(INSERT, "$.a", Some(small(1))),
            difference(INSERT, "$.a[0][0]", Some(small(1))),
            difference(REMOVE, "$.bb[0]", None),
            difference(REMOVE, "$", None),
        ] {
            assert_eq!(changed(&[elsewhere]), Ok(None));
        }
        for malformed in ["", "a", "$a", "$[x]", "$[1", "$.\"open", "$[last]"] {
            assert!(changed(&[difference(REMOVE, malformed, None)]).is_err(), "{malformed}");
        }
        assert!(changed(&[difference(7, "$", None)]).is_err());
        assert!(changed(&[vec![REPLACE, 200, b'$']]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_applied_or_fail(document in prop::collection::vec(0_u8..20, 0..80), rest in prop::collection::vec(any::<u8>(), 0..40), path in "[$.a\\[\\]0-2\"]{0,6}") {
            let differences = [difference(0, &path, Some(vec![kind::LITERAL, 1])), rest].concat();
            let _ = write_changed(&document, &differences, &mut String::new());
        }
    }
}
