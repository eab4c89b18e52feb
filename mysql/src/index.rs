//! Indexes of a table, and what they are good for: naming rows, and reading a table in ranges.

use serde::{Deserialize, Serialize};

/// One index as SHOW INDEX describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexFacts {
    /// `PRIMARY` for the primary key.
    pub name: String,
    pub unique: bool,
    /// The optimizer uses it; an invisible (MariaDB: ignored) index cannot be named in a hint.
    pub visible: bool,
    pub parts: Vec<IndexPart>,
}

/// One part of an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexPart {
    /// Position of the column in the table; `None` for an expression.
    pub column: Option<usize>,
    /// Only the first bytes or characters of the column are indexed.
    pub prefix: bool,
    pub descending: bool,
    pub nullable: bool,
}

pub const PRIMARY: &str = "PRIMARY";

impl IndexFacts {
    pub fn is_primary(&self) -> bool {
        self.name == PRIMARY
    }

    /// The columns of an index that names rows by itself: unique, none NULL, whole columns only. The primary key names
    /// rows even where it holds a prefix, since no two rows share that.
    pub fn as_key(&self) -> Option<Vec<usize>> {
        let whole = |p: &IndexPart| !p.nullable && !p.prefix;
        (self.unique && self.parts.iter().all(|p| self.is_primary() || whole(p)))
            .then(|| self.parts.iter().map(|p| p.column).collect::<Option<Vec<_>>>())
            .flatten()
    }

    /// Parts name columns by their place in `columns` from now on; those of other columns name none.
    pub(crate) fn keep_columns(&mut self, columns: &[usize]) {
        for part in &mut self.parts {
            part.column = part.column.and_then(|column| columns.iter().position(|kept| *kept == column));
        }
    }

    /// Whether reading this index gives the rows in the order of `key`, so that ranges of `key` are ranges of the index.
    pub fn orders_by(&self, key: &[usize]) -> bool {
        let Some(parts) = self.parts.get(..key.len()).filter(|p| !p.is_empty()) else {
            return false;
        };
        self.visible
            && parts
                .iter()
                .zip(key)
                .all(|(part, column)| part.column == Some(*column) && !part.prefix && !part.nullable)
            && parts.iter().all(|p| p.descending == parts[0].descending)
    }
}

/// The index that names the rows: the primary key, else the first unique one that can.
pub fn key_of(indexes: &[IndexFacts]) -> Option<(&IndexFacts, Vec<usize>)> {
    let primary = indexes.iter().find(|i| i.is_primary());
    primary.into_iter().chain(indexes).find_map(|index| index.as_key().map(|key| (index, key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(name: &str, unique: bool, parts: &[(Option<usize>, bool, bool, bool)]) -> IndexFacts {
        let parts = parts
            .iter()
            .map(|&(column, prefix, descending, nullable)| IndexPart { column, prefix, descending, nullable })
            .collect();
        IndexFacts { name: name.into(), unique, visible: true, parts }
    }

    const PLAIN: (Option<usize>, bool, bool, bool) = (Some(0), false, false, false);

    #[test]
    fn the_primary_key_comes_before_any_unique_key() {
        let indexes = [index("u", true, &[PLAIN]), index(PRIMARY, true, &[(Some(1), true, false, false)])];
        let (found, key) = key_of(&indexes).unwrap();
        assert_eq!((found.name.as_str(), key.clone()), (PRIMARY, vec![1]));
        assert!(!found.orders_by(&key), "a prefix does not order whole values");
    }

    #[test]
    fn a_unique_key_with_a_null_a_prefix_or_an_expression_names_no_rows() {
        for part in [(Some(0), false, false, true), (Some(0), true, false, false), (None, false, false, false)] {
            assert_eq!(index("u", true, &[PLAIN, part]).as_key(), None);
        }
        assert_eq!(index("i", false, &[PLAIN]).as_key(), None);
        assert_eq!(index("u", true, &[PLAIN]).as_key(), Some(vec![0]));
    }

    #[test]
    fn mixed_directions_do_not_order() {
        let (up, down) = ((Some(1), false, false, false), (Some(1), false, true, false));
        assert!(index(PRIMARY, true, &[PLAIN, up]).orders_by(&[0, 1]));
        assert!(index(PRIMARY, true, &[PLAIN, up]).orders_by(&[0]));
        assert!(!index(PRIMARY, true, &[PLAIN, down]).orders_by(&[0, 1]));
        assert!(index(PRIMARY, true, &[(Some(0), false, true, false), down]).orders_by(&[0, 1]));
        assert!(!index(PRIMARY, true, &[PLAIN, up]).orders_by(&[1]));
        assert!(!index(PRIMARY, true, &[PLAIN]).orders_by(&[]));
    }
}
