//! Whether the service lives, and whether it streams. Pure.

use std::time::Duration;

use crate::figures::{Life, Standing};
use crate::limits::SUPERVISOR_SILENCE_MAX;
use crate::state::Phase;

/// Says why the service does not live, if so: its supervisor has not turned for long. While one is begun, or waits for
/// something that is away, the process does what can be done.
pub(super) fn ails(life: &Life, silent: Option<Duration>) -> Option<String> {
    match (life, silent) {
        (Life::Running, Some(silent)) if silent > SUPERVISOR_SILENCE_MAX => {
            Some(format!("the supervisor has not turned for {} s", silent.as_secs()))
        }
        _ => None,
    }
}

/// Says why the service does not stream yet, or any more. A table that is loaded anew once all have streamed, or appears
/// later, makes no difference: `has_streamed`.
pub(super) fn not_ready<'a>(
    life: &Life,
    source_lost: Option<&str>,
    phases: impl Iterator<Item = (String, &'a Phase)>,
    has_streamed: bool,
) -> Option<String> {
    match life {
        Life::Beginning => return Some("the service is being begun".into()),
        Life::Waiting(why) => return Some(why.clone()),
        Life::Ending => return Some("the service is ending".into()),
        Life::Running => {}
    }
    if let Some(why) = source_lost {
        return Some(format!("the source is lost: {why}"));
    }
    if has_streamed {
        return None;
    }
    let filling: Vec<String> =
        phases.filter(|(_, phase)| matches!(phase, Phase::Filling { .. })).map(|(table, _)| table).collect();
    filling.first().map(|first| format!("{} table(s) are being loaded, such as {first}", filling.len()))
}

/// [`ails`] of this process.
pub(super) fn ails_now(standing: &Standing) -> Option<String> {
    ails(&standing.life(), standing.turned().map(|turned| turned.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_supervisor_that_hangs_ails_and_one_that_waits_does_not() {
        let long = SUPERVISOR_SILENCE_MAX + Duration::from_secs(1);
        assert!(ails(&Life::Running, Some(long)).is_some());
        for (life, silent) in [
            (Life::Running, Some(Duration::from_secs(5))),
            // Who applies only has none.
            (Life::Running, None),
            (Life::Waiting("the warehouse is away".into()), None),
            (Life::Beginning, None),
        ] {
            assert_eq!(ails(&life, silent), None);
        }
    }

    #[test]
    fn ready_is_whoever_streams_every_table_that_has_not_stopped() {
        let (filling, streaming, stopped) = (Phase::Filling { restart: true }, Phase::Streaming, Phase::Stopped);
        let why = |phases: &[&Phase], has_streamed| {
            let phases = phases.iter().map(|phase| ("shop.t".to_owned(), *phase));
            not_ready(&Life::Running, None, phases, has_streamed)
        };
        assert_eq!(why(&[], false), None);
        assert_eq!(why(&[&streaming, &stopped], false), None);
        assert!(why(&[&streaming, &filling], false).unwrap().contains("1 table(s) are being loaded"));
        assert_eq!(why(&[&streaming, &filling], true), None);
        let none = || std::iter::empty::<(String, &Phase)>();
        assert!(not_ready(&Life::Beginning, None, none(), true).is_some());
        assert!(not_ready(&Life::Running, Some("refused"), none(), true).unwrap().contains("refused"));
        assert_eq!(not_ready(&Life::Waiting("no disk".into()), None, none(), true).as_deref(), Some("no disk"));
    }
}
