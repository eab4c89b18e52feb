//! Images of rows that leave columns out: which of a half-event's columns are known, and where the others are to be found.
//!
//! A column that is left out is not NULL. MySQL leaves columns out with `binlog_row_image` MINIMAL or NOBLOB, and what a
//! document is with `binlog_row_value_options` = PARTIAL_JSON (Reference Manual, "Binary Logging Options and Variables").

use std::collections::HashMap;

use crate::position::{Gtid, GtidSet};

/// Where the columns are that an image leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rest {
    /// They are what they were in the row of the same key before the change.
    Unchanged,
    /// Only the source knows them: defaults of a row that was inserted, the old values of one that has changed its key, or a
    /// document of which a difference was logged without what it is the difference to.
    AtSource,
}

/// An image that leaves columns out.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PartialImage {
    /// A bit a column, the least significant bit of each byte first; set if the column is known.
    pub known: Vec<u8>,
    pub rest: Rest,
}

impl PartialImage {
    /// An image that knows no column yet, of a table of `columns`.
    pub fn unknown(columns: usize, rest: Rest) -> Self {
        Self { known: vec![0; columns.div_ceil(8)], rest }
    }

    pub fn set_known(&mut self, column: usize) {
        self.known[column / 8] |= 1 << (column % 8);
    }

    /// Whether the value of a column is in the row. One beyond the end is not.
    pub fn knows(&self, column: usize) -> bool {
        self.known.get(column / 8).is_some_and(|byte| byte >> (column % 8) & 1 == 1)
    }
}

/// What is known of the rows of a batch. Costs nothing while every row is whole.
#[derive(Debug, Clone, Default)]
pub struct Images(Option<Box<Noted>>);

/// Rows of which some leave columns out.
#[derive(Debug, Clone, Default)]
struct Noted {
    kinds: Vec<PartialImage>,
    numbers: HashMap<PartialImage, u32>,
    /// Of each row 0 if it is whole, else the number of its kind from 1. Rows behind the end are whole.
    of_rows: Vec<u32>,
    partial: usize,
    transactions: GtidSet,
}

impl Images {
    /// Whether no row leaves anything out.
    pub fn are_whole(&self) -> bool {
        self.0.is_none()
    }

    /// Rows that leave something out.
    pub fn partial(&self) -> usize {
        self.0.as_ref().map_or(0, |noted| noted.partial)
    }

    /// What is known of a row; `None` if it is whole.
    pub fn get(&self, row: usize) -> Option<&PartialImage> {
        let noted = self.0.as_ref()?;
        let number = noted.of_rows.get(row)?.checked_sub(1)?;
        noted.kinds.get(number as usize)
    }

    /// Row `row`, which must be behind every row that was noted before, leaves columns out.
    pub fn note(&mut self, row: usize, image: PartialImage) {
        let noted = self.0.get_or_insert_default();
        let number = match noted.numbers.get(&image) {
            Some(number) => *number,
            None => {
                noted.kinds.push(image.clone());
                let number = noted.kinds.len() as u32;
                noted.numbers.insert(image, number);
                number
            }
        };
        noted.of_rows.resize(row, 0);
        noted.of_rows.push(number);
        noted.partial += 1;
    }

    /// The transactions of the rows that leave something out: whoever reads such a row at the source waits until it shows them.
    pub fn transactions(&self) -> GtidSet {
        self.0.as_ref().map(|noted| noted.transactions.clone()).unwrap_or_default()
    }

    /// Rows of `gtids` leave something out; some must have been noted.
    pub fn note_transactions(&mut self, gtids: &GtidSet) {
        if let Some(noted) = &mut self.0 {
            noted.transactions = noted.transactions.union(gtids);
        }
    }

    /// The same of one transaction.
    pub fn note_transaction(&mut self, gtid: &Gtid) {
        if let Some(noted) = &mut self.0 {
            noted.transactions.insert(gtid);
        }
    }

    /// Those of some rows, in their order.
    #[must_use]
    pub fn pick(&self, rows: impl Iterator<Item = usize>) -> Self {
        let mut picked = Self::default();
        if self.are_whole() {
            return picked;
        }
        for (place, row) in rows.enumerate() {
            if let Some(image) = self.get(row) {
                picked.note(place, image.clone());
            }
        }
        picked.note_transactions(&self.transactions());
        picked
    }
}

/// The same of every row, and of the same transactions.
impl PartialEq for Images {
    fn eq(&self, other: &Self) -> bool {
        let rows = |images: &Self| images.0.as_ref().map_or(0, |noted| noted.of_rows.len());
        let rows = rows(self).max(rows(other));
        self.transactions() == other.transactions() && (0..rows).all(|row| self.get(row) == other.get(row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knowing(columns: &[usize], rest: Rest) -> PartialImage {
        let mut image = PartialImage::unknown(11, rest);
        columns.iter().for_each(|column| image.set_known(*column));
        image
    }

    #[test]
    fn rows_that_are_not_noted_are_whole_and_picks_keep_their_images() {
        let (few, more) = (knowing(&[0, 9], Rest::Unchanged), knowing(&[0, 10], Rest::AtSource));
        let mut images = Images::default();
        assert!(images.are_whole() && images.get(7).is_none());
        images.note(2, few.clone());
        images.note(3, more.clone());
        images.note(6, few.clone());
        let seen: Vec<Option<&PartialImage>> = (0..8).map(|row| images.get(row)).collect();
        let (few, more) = (Some(&few), Some(&more));
        assert_eq!(seen, [None, None, few, more, None, None, few, None]);
        assert_eq!((images.partial(), images.0.as_ref().unwrap().kinds.len()), (3, 2));
        let picked = images.pick([6, 0, 3].into_iter());
        assert_eq!([0, 1, 2].map(|row| picked.get(row)), [few, None, more]);
        assert!(few.is_some_and(|few| few.knows(9) && !few.knows(8) && !few.knows(200)));
        assert!(images.pick([0, 1].into_iter()).are_whole());
    }
}
