//! Row addresses in five bytes: every data file has a range of its own in one space of rows.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::RowAddress;
use crate::limits::INDEX_ROWS_MAX;

/// Bytes of a place.
pub const PLACE_BYTES: usize = 5;

/// All places are given away: the files of the table have to be numbered from the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key index has no room for the rows of another file; the table has to be opened anew")]
pub struct RowSpaceFull;

/// A file's range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileRange {
    pub base: u64,
    pub file: u32,
    pub rows: u32,
}

/// Which file has which places. A place is never given to a second row, so that one that was forgotten in the index
/// shows instead of meaning another row.
#[derive(Debug, Clone, Default)]
pub struct RowSpace {
    /// Ascending.
    ranges: Vec<FileRange>,
    by_file: HashMap<u32, FileRange, RandomState>,
    next: u64,
}

impl RowSpace {
    /// The space in which `ranges` are taken and `next` is free; `None` if they do not lie beside each other.
    pub fn of(ranges: Vec<FileRange>, next: u64) -> Option<Self> {
        let ends = ranges.iter().map(|range| range.base.checked_add(u64::from(range.rows)));
        let bases = ranges.iter().skip(1).map(|range| range.base).chain([next]);
        let apart = ends.zip(bases).all(|(end, base)| end.is_some_and(|end| end <= base));
        let by_file: HashMap<_, _, _> = ranges.iter().map(|range| (range.file, *range)).collect();
        let sound = apart && next <= INDEX_ROWS_MAX && by_file.len() == ranges.len();
        sound.then_some(Self { ranges, by_file, next })
    }

    pub fn ranges(&self) -> &[FileRange] {
        &self.ranges
    }

    /// The first place that no file has had.
    pub fn next(&self) -> u64 {
        self.next
    }

    pub fn add(&mut self, file: u32, rows: u32) -> Result<(), RowSpaceFull> {
        let end = self.next + u64::from(rows);
        if end > INDEX_ROWS_MAX {
            return Err(RowSpaceFull);
        }
        self.remove(file);
        let range = FileRange { base: self.next, file, rows };
        self.ranges.push(range);
        self.by_file.insert(file, range);
        self.next = end;
        Ok(())
    }

    pub fn remove(&mut self, file: u32) {
        let Some(range) = self.by_file.remove(&file) else { return };
        // A file without rows shares its base with the one behind it.
        let at = self.ranges.partition_point(|other| other.base < range.base);
        if let Some(at) = (at..self.ranges.len()).find(|at| self.ranges[*at].file == file) {
            self.ranges.remove(at);
        }
    }

    /// `None` for a row of no file.
    #[inline]
    pub fn place_of(&self, address: RowAddress) -> Option<u64> {
        let range = self.by_file.get(&address.file)?;
        (address.row < range.rows).then(|| range.base + u64::from(address.row))
    }

    /// `None` for a place of no file.
    #[inline]
    pub fn address_of(&self, place: u64) -> Option<RowAddress> {
        let at = self.ranges.partition_point(|range| range.base <= place);
        let range = self.ranges.get(at.checked_sub(1)?)?;
        let row = place - range.base;
        (row < u64::from(range.rows)).then_some(RowAddress { file: range.file, row: row as u32 })
    }

    pub fn bytes(&self) -> usize {
        self.ranges.capacity() * size_of::<FileRange>() + self.by_file.capacity() * (size_of::<FileRange>() + 9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_of_one_row_and_are_not_given_twice() {
        let mut space = RowSpace::default();
        for (file, rows) in [(7, 10), (8, 0), (3, 5)] {
            space.add(file, rows).unwrap();
        }
        let address = RowAddress { file: 3, row: 4 };
        let place = space.place_of(address).unwrap();
        assert_eq!(space.address_of(place), Some(address));
        assert_eq!(space.address_of(9), Some(RowAddress { file: 7, row: 9 }));
        assert_eq!((space.place_of(RowAddress { file: 3, row: 5 }), space.address_of(place + 1)), (None, None));
        space.remove(8);
        space.remove(7);
        assert_eq!((space.address_of(9), space.address_of(place)), (None, Some(address)));
        space.add(7, 1).unwrap();
        assert_eq!(space.place_of(RowAddress { file: 7, row: 0 }), Some(15));
    }

    #[test]
    fn a_full_space_says_so() {
        let mut space = RowSpace::of(Vec::new(), INDEX_ROWS_MAX - 10).unwrap();
        assert_eq!(space.add(0, 11), Err(RowSpaceFull));
        space.add(0, 10).unwrap();
        assert_eq!(space.add(1, 1), Err(RowSpaceFull));
    }

    #[test]
    fn ranges_that_overlap_are_not_taken() {
        let range = |base, file, rows| FileRange { base, file, rows };
        assert!(RowSpace::of(vec![range(0, 0, 5), range(5, 1, 5)], 10).is_some());
        assert!(RowSpace::of(vec![range(0, 0, 6), range(5, 1, 5)], 10).is_none());
        assert!(RowSpace::of(vec![range(0, 0, 5), range(5, 0, 5)], 10).is_none());
        assert!(RowSpace::of(vec![range(0, 0, 5)], 4).is_none());
    }
}
