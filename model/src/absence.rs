//! What a lake table knows of columns that its source has not always had: a name that is dropped and used again must not
//! show the values that it had before.
//!
//! Everything is told by orders, since the buckets of a table come to a change of its columns at different times: rows of
//! an order at which, or above which, the source was without a column hold nothing of what the column is by now.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::order::Order;

/// What is known of one column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Absence {
    /// Greatest order at which the source is known to have been without the column.
    pub until: Order,
    /// No row of an order up to this one holds a value: data files were written again without, or never had any.
    pub emptied: Order,
    /// Least order of a row, above `emptied`, that may hold one; none if no row does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Order>,
}

impl Absence {
    /// Of a column that is not in the lake yet.
    const UNUSED: Self = Self { until: Order::MIN, emptied: Order::MIN, used: None };

    /// Whether rows of a time before the source was without the column hold values.
    fn has_former_values(&self) -> bool {
        self.used.is_some_and(|used| used <= self.until)
    }

    /// What two writers know, put together.
    fn joined(&self, other: &Self) -> Self {
        let emptied = self.emptied.max(other.emptied);
        let stays = |used: &Order| *used > emptied || emptied == Order::MIN;
        let used = [self.used, other.used].into_iter().flatten().filter(stays).min();
        Self { until: self.until.max(other.until), emptied, used }
    }
}

/// [`Absence`]s by the lake's names of the columns. A column without one has been there since the table was made, as far as
/// is known.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Absences(BTreeMap<String, Absence>);

impl Absences {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn get(&self, name: &str) -> Option<&Absence> {
        self.0.get(name)
    }

    /// The source was without the lake's column `name` at `at`.
    pub fn note_absent(&mut self, name: &str, at: Order) {
        // It was there before anybody took note of it, and has been used.
        let known = self.0.entry(name.to_owned()).or_insert(Absence { used: Some(Order::MIN), ..Absence::UNUSED });
        known.until = known.until.max(at);
    }

    /// A row of order `at` may hold a value of the column.
    pub fn note_used(&mut self, name: &str, at: Order) {
        if let Some(known) = self.0.get_mut(name).filter(|known| at > known.emptied) {
            known.used = Some(known.used.map_or(at, |used| used.min(at)));
        }
    }

    /// The lake gets the column; until `absent` the source was without it, if that is known.
    pub fn begin(&mut self, name: &str, absent: Option<Order>) {
        let until = absent.unwrap_or(Order::MIN);
        self.0.insert(name.to_owned(), Absence { until, emptied: until, used: None });
    }

    /// Data files hold nothing any more of what the column was up to its last absence.
    pub fn note_emptied(&mut self, name: &str) {
        if let Some(known) = self.0.get_mut(name) {
            known.emptied = known.until;
            known.used = known.used.filter(|used| *used > known.emptied);
        }
    }

    /// Whether the value of a row of order `at` is kept: not if the column has been emptied since.
    pub fn keeps(&self, name: &str, at: Order) -> bool {
        self.0.get(name).is_none_or(|known| at > known.emptied)
    }

    /// Whether a row of order `at` is of a time before the source was without the column.
    pub fn is_former(&self, name: &str, at: Order) -> bool {
        self.0.get(name).is_some_and(|known| at <= known.until)
    }

    /// Whether the column holds values from before the source was without it, which must go before its name is used again.
    pub fn has_former_values(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(Absence::has_former_values)
    }

    /// Whether no row can hold a value of the column.
    pub fn is_unused(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|known| known.used.is_none())
    }

    /// Columns that hold such values, each with the greatest order of a row that may.
    pub fn former(&self) -> impl Iterator<Item = (&str, Order)> {
        self.0.iter().filter(|(_, known)| known.has_former_values()).map(|(name, known)| (name.as_str(), known.until))
    }

    /// Forgets all but the columns that `which` picks.
    pub fn retain(&mut self, which: impl Fn(&str) -> bool) {
        self.0.retain(|name, _| which(name));
    }

    /// What two writers of a table know, put together.
    #[must_use]
    pub fn joined(mut self, other: &Self) -> Self {
        for (name, theirs) in &other.0 {
            self.0.entry(name.clone()).and_modify(|ours| *ours = ours.joined(theirs)).or_insert(*theirs);
        }
        self
    }

    /// The order up to which rows hold no value of the column.
    pub fn emptied(&self, name: &str) -> Order {
        self.0.get(name).map_or(Order::MIN, |known| known.emptied)
    }

    /// Whether `other` says of every column up to which order it was emptied as this does.
    pub fn are_emptied_like(&self, other: &Self) -> bool {
        self.0.keys().chain(other.0.keys()).all(|name| self.emptied(name) == other.emptied(name))
    }

    /// Whether this says no less of each column than `before`; a column of which it says nothing is gone from the lake.
    pub fn may_follow(&self, before: &Self) -> bool {
        let grown = |ours: &Absence, theirs: &Absence| ours.until >= theirs.until && ours.emptied >= theirs.emptied;
        self.0.iter().all(|(name, ours)| before.0.get(name).is_none_or(|theirs| grown(ours, theirs)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seq: i64) -> Order {
        Order::new(1, seq)
    }

    #[test]
    fn a_column_that_was_dropped_and_comes_back_has_values_that_must_go() {
        let mut absences = Absences::default();
        assert!(absences.keeps("c", at(5)) && !absences.has_former_values("c"));
        absences.note_absent("c", at(8));
        assert!(absences.has_former_values("c") && absences.is_former("c", at(5)) && !absences.is_former("c", at(9)));
        assert!(absences.keeps("c", at(5)), "nothing has been emptied");
        absences.note_emptied("c");
        absences.note_used("c", at(10));
        assert!(!absences.has_former_values("c") && !absences.keeps("c", at(5)) && absences.keeps("c", at(10)));
        // Of another bucket, which comes to the same time later.
        absences.note_absent("c", at(9));
        absences.note_used("c", at(5));
        assert!(!absences.has_former_values("c"));
        // Dropped once more.
        absences.note_absent("c", at(12));
        assert_eq!(absences.former().collect::<Vec<_>>(), [("c", at(12))]);
    }

    #[test]
    fn a_column_that_is_added_has_no_former_values_whoever_comes_to_it_first() {
        let mut absences = Absences::default();
        absences.begin("c", None);
        absences.note_absent("c", at(9));
        assert!(!absences.has_former_values("c") && absences.is_unused("c"));
        absences.note_used("c", at(10));
        absences.note_absent("c", at(9));
        assert!(!absences.has_former_values("c") && !absences.is_unused("c"));
        absences.note_absent("c", at(11));
        assert!(absences.has_former_values("c"));
    }

    #[test]
    fn what_two_writers_know_is_joined_in_either_order() {
        let (mut ours, mut theirs) = (Absences::default(), Absences::default());
        ours.note_absent("c", at(8));
        ours.note_emptied("c");
        ours.note_used("c", at(10));
        theirs.note_absent("c", at(9));
        theirs.note_absent("d", at(3));
        ours.note_absent("d", at(2));
        let both = ours.clone().joined(&theirs);
        assert_eq!(both, theirs.clone().joined(&ours));
        assert_eq!(both.get("c"), Some(&Absence { until: at(9), emptied: at(8), used: Some(at(10)) }));
        assert!(both.has_former_values("d") && !both.has_former_values("c"));
        assert!(both.may_follow(&ours) && both.may_follow(&theirs) && !theirs.may_follow(&ours));
        assert!(ours.are_emptied_like(&both) && !theirs.are_emptied_like(&both));
    }
}
