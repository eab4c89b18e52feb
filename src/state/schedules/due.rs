//! Which minutes of a schedule have come since somebody last looked. Pure.

use weir_model::{Cron, Minute};

use crate::limits::{SCHEDULE_LATE_MAX, SCHEDULE_MISSED_MAX};

/// What is to be done about a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Due {
    /// The run to be asked for.
    pub fire: Option<Minute>,
    /// Runs that passed while nobody looked, ascending: the newest [`SCHEDULE_MISSED_MAX`] of them. They are told, not made up for.
    pub missed: Vec<Minute>,
}

/// The minutes of `cron` above `last_looked_ms`, and up to `now_ms`.
///
/// The newest is to be run if it passed no longer than [`SCHEDULE_LATE_MAX`] ago; whatever else passed is missed, and several
/// minutes at once are one run, since each would do the same. Nothing is due of a clock that stepped back until it is where
/// it was: minutes up to there have been dealt with.
pub fn due(cron: &Cron, last_looked_ms: i64, now_ms: i64) -> Due {
    let mut missed = Vec::new();
    let mut until = Some(Minute::of(now_ms));
    while let Some(minute) = until.and_then(|until| cron.last_until(until)) {
        if minute.ms() <= last_looked_ms || missed.len() > SCHEDULE_MISSED_MAX {
            break;
        }
        missed.push(minute);
        until = Some(Minute::of(minute.ms() - 1));
    }
    let late_ms = i64::try_from(SCHEDULE_LATE_MAX.as_millis()).unwrap_or(i64::MAX);
    let is_in_time = missed.first().is_some_and(|newest| now_ms - newest.ms() <= late_ms);
    let fire = is_in_time.then(|| missed.remove(0));
    missed.truncate(SCHEDULE_MISSED_MAX);
    missed.reverse();
    Due { fire, missed }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: i64 = 60_000;
    const HOUR: i64 = 60 * MINUTE;
    /// A midnight.
    const DAY: i64 = 20_000 * 24 * HOUR;

    fn cron(text: &str) -> Cron {
        text.parse().unwrap()
    }

    fn fires(minute: i64) -> Due {
        Due { fire: Some(Minute::of(minute)), missed: Vec::new() }
    }

    #[test]
    fn a_run_is_due_once_its_minute_has_begun_and_only_once() {
        let at_three = cron("0 3 * * *");
        let three = DAY + 3 * HOUR;
        assert_eq!(due(&at_three, three - 5_000, three - 1), Due::default());
        assert_eq!(due(&at_three, three - 5_000, three), fires(three));
        assert_eq!(due(&at_three, three - 5_000, three + 4_000), fires(three));
        assert_eq!(due(&at_three, three, three + 5_000), Due::default());
        assert_eq!(due(&at_three, three + 5_000, three + 9_000), Due::default());
    }

    #[test]
    fn a_run_whose_minute_passed_while_nobody_looked_is_missed() {
        let at_three = cron("0 3 * * *");
        let three = DAY + 3 * HOUR;
        assert_eq!(due(&at_three, three - HOUR, three + HOUR), Due { fire: None, missed: vec![Minute::of(three)] });
        // A service that was being restarted is in time.
        assert_eq!(due(&at_three, three - 5_000, three + MINUTE), fires(three));
        let next = three + 24 * HOUR;
        let both = Due { fire: Some(Minute::of(next)), missed: vec![Minute::of(three)] };
        assert_eq!(due(&at_three, three - HOUR, next + 1_000), both);
    }

    #[test]
    fn of_many_minutes_the_newest_is_run_and_the_newest_few_are_told() {
        let each = cron("* * * * *");
        let found = due(&each, DAY, DAY + 4 * MINUTE + 1_000);
        assert_eq!(found.fire, Some(Minute::of(DAY + 4 * MINUTE)));
        assert_eq!(found.missed, [1, 2, 3].map(|n| Minute::of(DAY + n * MINUTE)));
        let found = due(&each, DAY, DAY + 365 * 24 * HOUR);
        assert_eq!(found.missed.len(), SCHEDULE_MISSED_MAX);
        assert_eq!(found.missed.last(), Some(&Minute::of(DAY + 365 * 24 * HOUR - MINUTE)));
    }

    #[test]
    fn a_clock_that_steps_back_fires_nothing_twice() {
        let each = cron("* * * * *");
        assert_eq!(due(&each, DAY, DAY - HOUR), Due::default());
        assert_eq!(due(&each, DAY, DAY - 1), Due::default());
        assert_eq!(due(&each, DAY, DAY), Due::default());
        assert_eq!(due(&each, DAY, DAY + MINUTE), fires(DAY + MINUTE));
    }

    #[test]
    fn a_clock_that_jumps_ahead_misses_what_it_jumped_over() {
        let daily = cron("0 3 * * *");
        let found = due(&daily, DAY, DAY + 10 * 24 * HOUR);
        assert_eq!((found.fire, found.missed.len()), (None, 10));
    }

    proptest! {
        /// However the clock goes while somebody looks, no minute is fired twice, and none both fired and missed.
        #[test]
        fn no_minute_is_dealt_with_twice(steps in proptest::collection::vec(-10 * MINUTE..30 * MINUTE, 1..60), every in 1u8..20) {
            let cron = cron(&format!("*/{every} * * * *"));
            let (mut now, mut looked) = (DAY, DAY);
            let mut dealt_with = std::collections::BTreeSet::new();
            for step in steps {
                now += step;
                let found = due(&cron, looked, now);
                for minute in found.fire.iter().chain(&found.missed) {
                    prop_assert!(minute.ms() <= now && minute.ms() > looked);
                    prop_assert!(dealt_with.insert(*minute), "{} twice", minute);
                }
                looked = looked.max(now);
            }
            // And none is left out.
            let mut expected = cron.next_after(Minute::of(DAY));
            while let Some(minute) = expected.filter(|minute| minute.ms() <= looked) {
                prop_assert!(dealt_with.contains(&minute), "{} was passed over", minute);
                expected = cron.next_after(minute);
            }
        }
    }
}
