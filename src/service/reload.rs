//! Watches the configuration file of a running service: it is read when it has changed, or when SIGHUP asks for it.
//!
//! What is wrong with it is told and changes nothing; so is a setting that cannot change while the service runs, see
//! [`plan`]. Before settings are handed out, the source and the warehouse are asked whether they can be had with them. Going
//! on by them is the business of `term`.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::start::look_at_source;
use super::{Role, kafka_of};
use crate::config::reload::{ReloadPlan, plan};
use crate::config::{Config, ConfigFile, Configured, Contents};
use crate::error::{Error, Kind};
use crate::figures::standing;
use crate::limits::{CONFIG_LOOKED_AT_EVERY, CONFIG_PROBE_MAX, CONFIG_TRIED_AGAIN_AFTER};
use crate::table::Warehouse;

/// Settings to go on by.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) config: Arc<Config>,
    /// Names of those that differ from the ones before.
    pub(super) changed: Vec<String>,
}

/// Looks at the file, as long as it is asked for changes.
pub(super) struct ConfigWatch {
    configured: Configured,
    role: Role,
    /// Whether a change is taken; a run that ends by itself keeps what it began with.
    reloads: bool,
    /// None if the system has none to give.
    hangups: Option<Signal>,
    looks: Looks,
}

/// What the file comes to.
enum Verdict {
    Unchanged,
    Taken(Change),
    Refused(String),
    /// It can be taken once something else is there; says what is missing.
    Later(String),
}

impl ConfigWatch {
    /// From here on SIGHUP ends the process no more.
    pub(super) fn new(configured: &Configured, role: Role, reloads: bool) -> Self {
        let hangups = configured.file().and_then(|_| signal(SignalKind::hangup()).ok());
        Self { configured: configured.clone(), role, reloads, hangups, looks: Looks::default() }
    }

    /// The next settings to go on by. May be dropped at any point.
    pub(super) async fn next(&mut self) -> Change {
        let Some(file) = self.configured.file() else { return std::future::pending().await };
        let mut ticks = interval(CONFIG_LOOKED_AT_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let asked = tokio::select! {
                _ = ticks.tick() => false,
                () = hangup(&mut self.hangups) => true,
            };
            if !self.reloads {
                if asked {
                    tracing::info!("SIGHUP: this run ends by itself, and goes by the configuration that it began with");
                }
                continue;
            }
            if asked {
                tracing::info!(file = %file.path().display(), "SIGHUP: reading the configuration");
            }
            // Before the first incarnation nobody knows which tables there are; what changes till then is seen behind it.
            if self.role != Role::Apply && standing().epoch() == 0 {
                continue;
            }
            let running = self.configured.get();
            let Some(contents) = contents(&file, &running).await else { continue };
            if !self.looks.is_due(contents, asked, Instant::now()) {
                continue;
            }
            match self.judge(&file, &running).await {
                Verdict::Taken(change) => return change,
                Verdict::Unchanged => {
                    standing().config_is_taken();
                    if asked {
                        tracing::info!("the configuration says what it said before");
                    }
                }
                Verdict::Refused(why) => refuse(&why),
                Verdict::Later(why) => {
                    self.looks.again_at = Some(Instant::now() + CONFIG_TRIED_AGAIN_AFTER);
                    refuse(&format!("{why} (it is tried again)"));
                }
            }
        }
    }

    async fn judge(&self, file: &Arc<ConfigFile>, running: &Config) -> Verdict {
        let read = {
            let file = file.clone();
            tokio::task::spawn_blocking(move || file.load()).await
        };
        let config = match read {
            Ok(Ok(config)) => config,
            Ok(Err(error)) => return Verdict::Refused(said(&error)),
            Err(error) => return Verdict::Later(error.to_string()),
        };
        let followed = standing().tables();
        let plan = plan(running, &config, |table| self.role == Role::Apply || followed.contains_key(table));
        let changed = match plan {
            ReloadPlan::Unchanged => return Verdict::Unchanged,
            ReloadPlan::Refused(fixed) => return Verdict::Refused(cannot_change(&fixed)),
            ReloadPlan::Apply(changed) => changed,
        };
        let probe = tokio::time::timeout(CONFIG_PROBE_MAX, probe(running, &config, self.role));
        match probe.await {
            Ok(Ok(())) => {
                for warning in config.warnings() {
                    tracing::warn!("{warning}");
                }
                Verdict::Taken(Change { config: Arc::new(config), changed })
            }
            Ok(Err(error)) if error.kind() == Kind::Config => Verdict::Refused(said(&error)),
            Ok(Err(error)) => Verdict::Later(said(&error)),
            Err(_) => {
                Verdict::Later(format!("the source or the warehouse has not answered within {CONFIG_PROBE_MAX:?}"))
            }
        }
    }
}

/// Waits for the next SIGHUP, for ever if none can be heard.
async fn hangup(hangups: &mut Option<Signal>) {
    match hangups {
        Some(hangups) => drop(hangups.recv().await),
        None => std::future::pending().await,
    }
}

/// Read on a thread of its own: the file may lie on a disk that hangs.
async fn contents(file: &Arc<ConfigFile>, running: &Arc<Config>) -> Option<Contents> {
    let (file, running) = (file.clone(), running.clone());
    tokio::task::spawn_blocking(move || file.contents(&running)).await.ok()
}

/// Asks whoever settings name whether they can be had with them: an incarnation that could not begin would undo all.
async fn probe(running: &Config, config: &Config, role: Role) -> Result<(), Error> {
    kafka_of(config)?;
    if running.warehouse.options != config.warehouse.options {
        Warehouse::open(&config.warehouse.url, &config.warehouse.options)?.probe_writable().await?;
    }
    if role != Role::Apply {
        look_at_source(config, &config.source_options()?).await?;
    }
    Ok(())
}

/// Tells that the file is not taken; once for each reason.
pub(super) fn refuse(why: &str) {
    if standing().config_is_refused(why) {
        tracing::error!(%why, "the configuration file is not taken; the service goes on by the one before it");
    }
}

fn said(error: &Error) -> String {
    match error.place() {
        Some(place) => format!("{place}: {}", error.in_a_line()),
        None => error.in_a_line(),
    }
}

fn cannot_change(fixed: &[String]) -> String {
    format!(
        "{} cannot change while the service runs, so nothing else in the file does; undo that, or start the service anew",
        fixed.join(", ")
    )
}

/// What has been seen of the file. Pure.
#[derive(Default)]
struct Looks {
    /// What was judged last; none before the first time.
    judged: Option<Contents>,
    /// Something else, seen once: it is judged when it is seen again, since editors write in pieces.
    settling: Option<Contents>,
    /// What was judged last is to be judged again then.
    again_at: Option<Instant>,
}

impl Looks {
    /// Whether `contents` are to be judged, which they are then.
    fn is_due(&mut self, contents: Contents, asked: bool, now: Instant) -> bool {
        let has_settled = self.settling.as_ref() == Some(&contents);
        let is_known = self.judged.as_ref() == Some(&contents);
        let is_due = asked || has_settled || (is_known && self.again_at.is_some_and(|at| now >= at));
        if is_due {
            *self = Self { judged: Some(contents), ..Self::default() };
        } else {
            self.settling = (!is_known).then_some(contents);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_is_still_being_written_is_waited_for_and_nothing_is_judged_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weir.toml");
        let file = ConfigFile::new(&path, false, BTreeMap::new());
        let now = Instant::now();
        let mut looks = Looks::default();
        let mut holds = |text: &str, asked: bool, now: Instant| {
            std::fs::write(&path, text).unwrap();
            looks.is_due(file.contents(&Config::default()), asked, now)
        };
        assert_eq!([holds("a", false, now), holds("a", false, now), holds("a", false, now)], [false, true, false]);
        // In pieces.
        assert_eq!([holds("", false, now), holds("ab", false, now), holds("abc", false, now)], [false; 3]);
        assert_eq!([holds("abc", false, now), holds("abc", false, now)], [true, false]);
        // Written, and undone before it had settled.
        assert_eq!([holds("x", false, now), holds("abc", false, now), holds("x", false, now)], [false; 3]);
        assert!(holds("y", true, now), "whoever asks is not made to wait");
        assert!(holds("y", true, now), "nor told that nothing has changed before it was looked at");
    }

    #[test]
    fn what_could_not_be_taken_yet_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weir.toml");
        std::fs::write(&path, "a").unwrap();
        let file = ConfigFile::new(&path, false, BTreeMap::new());
        let (now, mut looks) = (Instant::now(), Looks::default());
        let contents = || file.contents(&Config::default());
        assert!(looks.is_due(contents(), true, now));
        looks.again_at = Some(now + CONFIG_TRIED_AGAIN_AFTER);
        assert!(!looks.is_due(contents(), false, now));
        assert!(looks.is_due(contents(), false, now + CONFIG_TRIED_AGAIN_AFTER));
        assert!(!looks.is_due(contents(), false, now + CONFIG_TRIED_AGAIN_AFTER), "it has to be asked for anew");
    }

    #[test]
    fn a_setting_that_cannot_change_is_named_with_the_way_out() {
        let said = cannot_change(&["warehouse.url".into(), "http.listen".into()]);
        assert!(
            said.starts_with("warehouse.url, http.listen cannot change") && said.contains("start the service anew")
        );
    }
}
