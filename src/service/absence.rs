//! What a running service does about a warehouse that is away: it waits, and begins again from what is durable.
//!
//! Short absences are none of this: the store's client repeats its requests. A warehouse that is away when a service is
//! started is an error at once, since the configuration may be wrong.

use std::error::Error as StdError;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::start::Incarnation;
use crate::config::Config;
use crate::error::Error;
use crate::figures::standing;
use crate::limits::{RECONNECT_DELAY_MAX, STORE_LOOKED_FOR_EVERY};
use crate::state::StateError;
use crate::table::{TableError, Warehouse};

/// Begins an incarnation by `start`; none if `stop` is asked for first. Once one `has_run`, a warehouse that is away is
/// waited for.
pub(super) async fn begin<F: Future<Output = Result<Incarnation, Error>>>(
    config: &Config,
    stop: &CancellationToken,
    has_run: bool,
    start: impl Fn() -> F,
) -> Result<Option<Incarnation>, Error> {
    loop {
        let begun = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(None),
            begun = start() => begun,
        };
        match begun {
            Err(error) if has_run && is_of_absence(&error) => {
                wait_for_warehouse(config, &error.in_a_line(), stop).await;
            }
            begun => return begun.map(Some),
        }
    }
}

/// Returns once the warehouse can be written again, or when `stop` is asked for.
pub(super) async fn wait_for_warehouse(config: &Config, why: &dyn std::fmt::Display, stop: &CancellationToken) {
    tracing::error!(%why, "the warehouse is away; beginning again from what is durable once it is back");
    standing().waits(&format!("the warehouse is away: {why}"));
    standing().note(None, format!("the warehouse is away: {why}"), WAY_OUT.into());
    let mut pause = STORE_LOOKED_FOR_EVERY;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let looked = tokio::select! {
            () = stop.cancelled() => return,
            looked = look(config) => looked,
        };
        match looked {
            Ok(()) => return,
            Err(error) => tracing::warn!(%error, "the warehouse is still away"),
        }
        pause = next(pause);
    }
}

const WAY_OUT: &str =
    "nothing is lost: once the warehouse can be written again, everything goes on from what is durable";

async fn look(config: &Config) -> Result<(), TableError> {
    Warehouse::open(&config.warehouse.url, &config.warehouse.options)?.probe_writable().await
}

fn next(pause: Duration) -> Duration {
    (pause * 2).min(RECONNECT_DELAY_MAX)
}

/// Whether a start failed because the warehouse was away.
fn is_of_absence(error: &Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.downcast_ref::<TableError>().is_some_and(TableError::is_away)
            || error.downcast_ref::<StateError>().is_some_and(StateError::is_away)
        {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_the_store_did_not_answer_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let wrong = Warehouse::open("s3://lake/x", &[("regoin".to_owned(), "x".to_owned())].into()).unwrap_err();
        assert!(!is_of_absence(&wrong.into()));
        let nobody = [
            ("endpoint", "http://127.0.0.1:1"),
            ("allow_http", "true"),
            ("access_key_id", "k"),
            ("secret_access_key", "s"),
        ];
        let options = nobody.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let away = Warehouse::open("s3://lake/x", &options).unwrap().probe_writable().await.unwrap_err();
        assert!(away.to_string().contains("127.0.0.1:1"), "{away}");
        assert!(is_of_absence(&away.into()));
        let url = format!("file://{}", folder.path().display());
        Warehouse::open(&url, &Default::default()).unwrap().probe_writable().await.unwrap();
    }

    #[test]
    fn looks_become_rarer_but_never_stop() {
        let pauses: Vec<u64> = std::iter::successors(Some(STORE_LOOKED_FOR_EVERY), |pause| Some(next(*pause)))
            .map(|p| p.as_secs())
            .take(6)
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 15, 15]);
    }
}
