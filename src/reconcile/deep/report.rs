//! What a comparison found, as programs read it.

use serde::Serialize;

use super::compare::Finding;
use super::confirm::{Judgement, Suspect};
use super::key_text::ShownKey;
use super::lake_side::Flaws;
use super::mend::RepairReport;
use super::parts::found_with_95_percent;
use crate::limits::DEEP_KEYS_SHOWN_MAX;
use crate::reconcile::report::Verdict;
use crate::state::jobs::Bound;

/// One table, compared row by row. Lists of keys are cut, counts are not.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct DeepReport {
    /// Rows that were read of the source.
    pub rows_source: u64,
    /// Rows that the lake has in their place.
    pub rows_table: u64,
    pub missing: Vec<ShownKey>,
    pub missing_count: u64,
    pub extra: Vec<ShownKey>,
    pub extra_count: u64,
    pub different: Vec<ShownKey>,
    pub different_count: u64,
    /// Keys that kept changing, or that the lake has not got yet.
    pub in_flight_count: u64,
    /// Those of them that change faster than they can be looked at, while the lake takes their changes in.
    #[serde(skip)]
    pub moving_count: u64,
    /// Keys that differed at first and were looked at again.
    pub rechecked: u64,
    /// Keys that differed at first and were too many to be looked at again.
    pub unconfirmed_count: u64,
    /// Ranges of keys that the table was divided into, and how many of them were compared.
    pub ranges: u64,
    pub ranges_compared: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<Sample>,
    /// Why the table was not compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_compared: Option<String>,
    /// Whether that was for a failure.
    #[serde(skip)]
    pub has_failed: bool,
    /// Whether it was for a stop of the table.
    #[serde(skip)]
    pub has_stopped: bool,
    /// What was done about it, or would be, if that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repair: Option<RepairReport>,
    /// Every key that differs, with itself as jobs are told it; none for one that the source cannot have.
    #[serde(skip)]
    pub confirmed: Vec<(Suspect, Option<Bound>)>,
    #[serde(skip)]
    pub flaws: Flaws,
    #[serde(skip)]
    pub notices: Vec<String>,
}

/// How much a sample says.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Sample {
    /// Of 100 ranges, as asked for.
    pub percent: f64,
    /// Were so many of 100 ranges, or more, to hold a difference, one of them would have been compared with 95 %; none if the
    /// sample is too small to say.
    pub differing_percent_found: Option<f64>,
}

impl DeepReport {
    pub fn not_compared(why: String) -> Self {
        Self { not_compared: Some(why), ..Self::default() }
    }

    pub fn failed(why: String) -> Self {
        Self { has_failed: true, ..Self::not_compared(why) }
    }

    pub fn note(&mut self, judgement: Judgement, key: impl FnOnce() -> ShownKey) {
        let (list, count) = match judgement {
            Judgement::Equal => return,
            Judgement::InFlight | Judgement::Moving => {
                self.in_flight_count += 1;
                self.moving_count += u64::from(judgement == Judgement::Moving);
                return;
            }
            Judgement::Confirmed(Finding::Missing) => (&mut self.missing, &mut self.missing_count),
            Judgement::Confirmed(Finding::Extra) => (&mut self.extra, &mut self.extra_count),
            Judgement::Confirmed(Finding::Different) => (&mut self.different, &mut self.different_count),
        };
        *count += 1;
        if list.len() < DEEP_KEYS_SHOWN_MAX {
            list.push(key());
        }
    }

    /// Takes in what is wrong with the lake's table beside its rows.
    pub fn note_flaws(&mut self, flaws: Flaws) {
        self.extra_count += flaws.rows_without_key;
        self.flaws.rows_without_key += flaws.rows_without_key;
        for file in flaws.lost_files {
            if !self.flaws.lost_files.contains(&file) {
                self.flaws.lost_files.push(file);
            }
        }
    }

    /// Says how much the ranges that were compared tell of all.
    pub fn note_sample(&mut self, percent: f64) {
        let found = found_with_95_percent(self.ranges as usize, self.ranges_compared as usize);
        let share = |parts: usize| parts as f64 * 100.0 / self.ranges as f64;
        self.sample = Some(Sample { percent, differing_percent_found: found.map(share) });
    }

    /// Keys that differ.
    pub fn difference_count(&self) -> u64 {
        self.missing_count + self.extra_count + self.different_count
    }

    /// Whether every row was compared, and whatever differs is known.
    pub fn has_seen_all(&self) -> bool {
        self.not_compared.is_none()
            && self.sample.is_none()
            && self.in_flight_count + self.unconfirmed_count == 0
            && self.flaws.lost_files.is_empty()
    }

    /// What it says of the table. One that by its nature cannot be compared says nothing.
    pub fn verdict(&self) -> Verdict {
        let is_mended = self.repair.as_ref().is_some_and(RepairReport::has_mended);
        if !is_mended && (self.difference_count() > 0 || !self.flaws.lost_files.is_empty()) {
            Verdict::Different
        } else if self.in_flight_count > 0 || !is_mended && self.unconfirmed_count > 0 || self.has_failed {
            Verdict::InFlight
        } else {
            Verdict::Balanced
        }
    }

    /// What people should know beside the figures.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = self.notices.clone();
        if let Some(why) = &self.not_compared {
            remarks.push(format!("its rows were not compared: {why}"));
        }
        for file in &self.flaws.lost_files {
            remarks.push(format!("data file {file} or its deletion vector is gone; its rows are missing"));
        }
        if self.flaws.rows_without_key > 0 {
            let rows = self.flaws.rows_without_key;
            remarks.push(format!("{rows} row(s) in the lake have no key, and count as extra"));
        }
        if self.unconfirmed_count > 0 {
            let keys = self.unconfirmed_count;
            remarks.push(format!("{keys} more key(s) differed, and were too many to be looked at again"));
        }
        remarks.extend(self.repair.as_ref().map(RepairReport::remark));
        if let Some(sample) = &self.sample {
            remarks.push(match sample.differing_percent_found {
                Some(percent) => format!(
                    "{} of {} ranges were compared; had {percent:.1} % of all held a difference, it would have been found with 95 %",
                    self.ranges_compared, self.ranges
                ),
                None => format!("{} of {} ranges were compared", self.ranges_compared, self.ranges),
            });
        }
        remarks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_cut_and_counts_are_not() {
        let mut report = DeepReport::default();
        for n in 0..DEEP_KEYS_SHOWN_MAX as u64 + 5 {
            report.note(Judgement::Confirmed(Finding::Missing), || ShownKey(vec![("id".into(), n.into())]));
        }
        report.note(Judgement::Equal, || unreachable!("nobody is shown what is equal"));
        assert_eq!((report.missing.len(), report.missing_count), (DEEP_KEYS_SHOWN_MAX, DEEP_KEYS_SHOWN_MAX as u64 + 5));
        assert_eq!(report.verdict(), Verdict::Different);
    }

    #[test]
    fn what_was_not_settled_is_in_flight_and_what_cannot_be_compared_is_nothing() {
        let in_flight = DeepReport { in_flight_count: 1, ..DeepReport::default() };
        assert_eq!(in_flight.verdict(), Verdict::InFlight);
        assert_eq!(DeepReport::failed("away".into()).verdict(), Verdict::InFlight);
        assert_eq!(DeepReport::not_compared("no key".into()).verdict(), Verdict::Balanced);
        let lost = Flaws { lost_files: vec!["part-1.parquet".into()], ..Flaws::default() };
        assert!(DeepReport::default().has_seen_all());
        for partly in [in_flight, DeepReport::failed("away".into())] {
            assert!(!partly.has_seen_all());
        }
        let mut report = DeepReport::default();
        report.note_flaws(lost.clone());
        report.note_flaws(lost);
        assert_eq!((report.verdict(), report.remarks().len()), (Verdict::Different, 1));
    }

    #[test]
    fn a_sample_tells_its_confidence() {
        let mut report = DeepReport { ranges: 1_000, ranges_compared: 100, ..DeepReport::default() };
        report.note_sample(10.0);
        assert_eq!(
            report.remarks(),
            [
                "100 of 1000 ranges were compared; had 2.9 % of all held a difference, it would have been found with 95 %"
            ]
        );
    }
}
