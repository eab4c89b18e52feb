//! Changes by day, or by month where the days are many, as a picture within a page: SVG that needs nothing else. Pure.

use std::collections::BTreeMap;
use std::fmt::Write;

use weir_model::Op;

use crate::trace::{Hop, StageCount};

/// Changes that were captured by day (UTC, days since 1970) and operation: inserts, updates, deletes.
pub type Days = BTreeMap<i64, [u64; 3]>;

/// With more days than this between the first and the last, a bar is a month.
const DAYS_SHOWN_MAX: i64 = 62;
const DAY_MS: i64 = 86_400_000;

/// Pixels of the picture: its bars, and the line of text below.
const WIDTH: f64 = 760.0;
const BARS_HEIGHT: f64 = 120.0;
const TEXT_HEIGHT: f64 = 18.0;
/// A bar is no wider than this, lest a single day be a wall.
const BAR_WIDTH_MAX: f64 = 40.0;

/// How the picture's parts look, for the page's style.
pub const STYLE: &str = "svg{max-width:100%;margin:.5em 0}svg text{font:12px system-ui,sans-serif;fill:currentColor}\
.c{fill:#2e7d32}.u{fill:#1565c0}.d{fill:#6d4c41}.lost{fill:#c62828}";

pub fn days_of(counts: &[StageCount]) -> Days {
    let mut days = Days::new();
    for count in counts.iter().filter(|count| count.hop == Hop::Captured) {
        let Some(op) = Op::STREAM.iter().position(|op| *op == count.op) else { continue };
        days.entry(count.window.0.div_euclid(DAY_MS)).or_default()[op] += count.count;
    }
    days
}

/// What happened on any of several tables.
pub fn together<'a>(tables: impl Iterator<Item = &'a Days>) -> Days {
    let mut all = Days::new();
    for (day, counts) in tables.flatten() {
        let sums = all.entry(*day).or_default();
        for (sum, count) in sums.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    all
}

/// The bars; `unbalanced` has the times (RFC 3339) of windows in which accounts do not add up, which get a red mark below
/// their bar. Nothing if nothing happened.
pub fn svg(days: &Days, unbalanced: &[&str]) -> String {
    let bars = bars(days);
    let greatest = bars.iter().map(|(_, counts)| counts.iter().sum::<u64>()).max().unwrap_or(0);
    let (Some((first, _)), Some((last, _))) = (bars.first(), bars.last()) else { return String::new() };
    let step = (WIDTH / bars.len() as f64).min(BAR_WIDTH_MAX);
    let mut text = format!(
        "<svg viewBox=\"0 0 {WIDTH} {}\" width=\"{WIDTH}\" role=\"img\"><title>changes from {first} to {last}, up to {greatest}</title>\n",
        BARS_HEIGHT + TEXT_HEIGHT
    );
    for (n, (name, counts)) in bars.iter().enumerate() {
        let [inserts, updates, deletes] = counts;
        let _ = write!(text, "<g><title>{name}: {inserts} inserts, {updates} updates, {deletes} deletes</title>");
        let (x, width) = (n as f64 * step, step * 0.8);
        let mut bottom = BARS_HEIGHT;
        for (class, count) in ["c", "u", "d"].iter().zip(counts).filter(|(_, count)| **count > 0) {
            let height = *count as f64 / greatest.max(1) as f64 * BARS_HEIGHT;
            bottom -= height;
            let _ = write!(
                text,
                "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{bottom:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"
            );
        }
        if unbalanced.iter().any(|window| window.starts_with(name.as_str())) {
            let _ = write!(
                text,
                "<rect class=\"lost\" x=\"{x:.1}\" y=\"{BARS_HEIGHT}\" width=\"{width:.1}\" height=\"3\"/>"
            );
        }
        text.push_str("</g>\n");
    }
    let y = BARS_HEIGHT + TEXT_HEIGHT - 3.0;
    let _ = write!(text, "<text x=\"0\" y=\"{y}\">{first}</text>");
    if bars.len() > 1 {
        let _ = write!(text, "<text x=\"{WIDTH}\" y=\"{y}\" text-anchor=\"end\">… {last}</text>");
    }
    text.push_str("</svg>\n");
    text
}

/// Days without a gap, or months, by name, which is how the times in them begin.
fn bars(days: &Days) -> Vec<(String, [u64; 3])> {
    let (Some((first, _)), Some((last, _))) = (days.first_key_value(), days.last_key_value()) else {
        return Vec::new();
    };
    let by_month = last - first >= DAYS_SHOWN_MAX;
    let mut bars: Vec<(String, [u64; 3])> = Vec::new();
    for day in *first..=*last {
        let mut name = date(day);
        if by_month {
            name.truncate("2026-11".len());
        }
        if bars.last().is_none_or(|(last, _)| *last != name) {
            bars.push((name, [0; 3]));
        }
        if let (Some(counts), Some((_, sums))) = (days.get(&day), bars.last_mut()) {
            for (sum, count) in sums.iter_mut().zip(counts) {
                *sum += count;
            }
        }
    }
    bars
}

fn date(day: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(day.saturating_mul(DAY_MS)).unwrap_or_default();
    at.to_zoned(jiff::tz::TimeZone::UTC).date().to_string()
}

#[cfg(test)]
mod tests {
    use weir_model::{EventId, Window};

    use super::*;
    use crate::trace::Tally;

    fn days(of: &[(i64, Op)]) -> Days {
        let mut tally = Tally::default();
        for (n, (day, op)) in of.iter().enumerate() {
            tally.event(Hop::Captured, *op, Window(day * DAY_MS + 60_000), EventId(n as u128));
            tally.event(Hop::Published, *op, Window(day * DAY_MS + 60_000), EventId(n as u128));
        }
        days_of(&tally.counts())
    }

    #[test]
    fn a_bar_is_a_day_and_of_many_days_a_month() {
        let few = days(&[(20_600, Op::Create), (20_602, Op::Update), (20_602, Op::Delete)]);
        let expected = [("2026-05-27", [1, 0, 0]), ("2026-05-28", [0, 0, 0]), ("2026-05-29", [0, 1, 1])];
        assert_eq!(bars(&few), expected.map(|(name, counts)| (name.to_owned(), counts)));
        let many = days(&[(20_600, Op::Create), (20_680, Op::Update)]);
        assert_eq!(
            bars(&many).iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            ["2026-05", "2026-06", "2026-07", "2026-08"]
        );
        assert_eq!(together([&few, &many].into_iter())[&20_600], [2, 0, 0]);
    }

    #[test]
    fn a_picture_marks_days_whose_accounts_do_not_add_up() {
        let days = days(&[(20_600, Op::Create), (20_601, Op::Update)]);
        let whole = svg(&days, &[]);
        assert!(whole.starts_with("<svg") && whole.ends_with("</svg>\n") && !whole.contains("lost"), "{whole}");
        assert!(whole.contains("<title>2026-05-27: 1 inserts, 0 updates, 0 deletes</title>"), "{whole}");
        assert_eq!(svg(&days, &["2026-05-28T02:00:00Z"]).matches("lost").count(), 1);
        assert_eq!(svg(&Days::new(), &[]), "");
    }
}
