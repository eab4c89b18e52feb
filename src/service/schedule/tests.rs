//! Schedules against a clock of the tests' own.

use std::path::Path as FilePath;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::path::Path;

use super::*;
use crate::table::faulty::{Fault, FaultyStore};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
/// A midnight.
const DAY: i64 = 20_000 * 24 * HOUR;

fn table() -> TableId {
    TableId::new("shop", "orders")
}

fn schedule(id: &str, cron: &str, added_ms: i64) -> Schedule {
    let id = ScheduleId::try_from(id.to_owned()).unwrap();
    Schedule { id, table: table(), cron: cron.parse().unwrap(), scope: Scope::All, added_ms }
}

struct Clocked {
    jobs: JobStore,
    schedules: ScheduleStore,
    scheduler: Scheduler,
}

impl Clocked {
    fn new(configured: Vec<Schedule>) -> Self {
        Self::on(Arc::new(InMemory::new()), configured)
    }

    fn on(store: Arc<dyn ObjectStore>, configured: Vec<Schedule>) -> Self {
        let state = Path::from("_weir/shop");
        let jobs = JobStore::new(store.clone(), state.clone());
        let schedules = ScheduleStore::new(store, state);
        let scheduler = Scheduler::new(jobs.clone(), schedules.clone(), configured);
        Self { jobs, schedules, scheduler }
    }

    /// A service that starts anew.
    fn restart(&mut self) {
        let configured = self.scheduler.configured.clone();
        self.scheduler = Scheduler::new(self.jobs.clone(), self.schedules.clone(), configured);
    }

    async fn tick(&mut self, now_ms: i64) -> Vec<String> {
        let requested = self.scheduler.tick(now_ms).await.unwrap();
        requested.iter().map(ToString::to_string).collect()
    }

    async fn finish(&self, id: &str) {
        let id = JobId::try_from(id.to_owned()).unwrap();
        self.jobs.end(&id, &JobOutcome::without_work(Ended::Done, None, 1)).await.unwrap();
    }

    async fn missed(&self, id: &str) -> Option<Missed> {
        let looked = self.schedules.looked().await.unwrap().unwrap();
        looked.schedules[&ScheduleId::try_from(id.to_owned()).unwrap()].missed
    }
}

#[tokio::test]
async fn a_run_is_asked_for_at_its_minute_once_whoever_looks() {
    let mut clocked = Clocked::new(vec![schedule("nightly", "0 3 * * *", 0)]);
    let three = DAY + 3 * HOUR;
    assert!(clocked.tick(three - 2 * MINUTE).await.is_empty());
    assert!(clocked.tick(three - 1_000).await.is_empty());
    assert_eq!(clocked.tick(three + 1_000).await, ["nightly-20241004T0300Z"]);
    assert!(clocked.tick(three + 5_000).await.is_empty());
    clocked.restart();
    assert!(clocked.tick(three + MINUTE).await.is_empty());
    let job = &clocked.jobs.list().await.unwrap()[0].job;
    assert_eq!((job.work.clone(), job.table.clone()), (Work::Backfill(Scope::All), table()));
    assert!(matches!(&job.origin, Origin::Schedule { id } if id.as_str() == "nightly"));
}

#[tokio::test]
async fn what_passed_while_no_service_ran_is_told_until_a_run_makes_up_for_it() {
    let mut clocked = Clocked::new(vec![schedule("nightly", "0 3 * * *", 0)]);
    let three = DAY + 3 * HOUR;
    clocked.tick(three - HOUR).await;
    clocked.restart();
    assert!(clocked.tick(three + 24 * HOUR + HOUR).await.is_empty());
    let last = Minute::of(three + 24 * HOUR);
    assert_eq!(clocked.missed("nightly").await, Some(Missed { count: 2, last }));
    clocked.restart();
    assert!(clocked.tick(three + 49 * HOUR).await.is_empty());
    assert_eq!(clocked.missed("nightly").await.map(|missed| missed.count), Some(3));
    assert_eq!(clocked.tick(three + 72 * HOUR).await.len(), 1);
    assert_eq!(clocked.missed("nightly").await, None);
}

#[tokio::test]
async fn a_schedule_has_missed_nothing_before_it_was_there() {
    let mut clocked = Clocked::new(vec![schedule("config", "0 * * * *", 0)]);
    clocked.schedules.add(&schedule("added", "0 * * * *", DAY + 30 * MINUTE)).await.unwrap();
    // The first look of all: hours have passed since one was added.
    assert!(clocked.tick(DAY + 3 * HOUR + 30 * MINUTE).await.is_empty());
    assert_eq!(clocked.missed("config").await, None);
    assert_eq!(clocked.missed("added").await.map(|missed| missed.count), Some(3));
    // One that changes is another.
    clocked.scheduler.configured = vec![schedule("config", "15 * * * *", 0)];
    clocked.restart();
    clocked.tick(DAY + 10 * HOUR).await;
    assert_eq!(clocked.missed("config").await, None);
    // One that is removed is forgotten.
    clocked.schedules.remove(&ScheduleId::try_from("added".to_owned()).unwrap()).await.unwrap();
    clocked.tick(DAY + 11 * HOUR + MINUTE / 2).await;
    assert_eq!(clocked.schedules.looked().await.unwrap().unwrap().schedules.len(), 1);
}

#[tokio::test]
async fn a_run_beside_its_unfinished_predecessor_is_refused_and_listed() {
    let mut clocked = Clocked::new(vec![schedule("each", "* * * * *", 0)]);
    clocked.tick(DAY).await;
    assert_eq!(clocked.tick(DAY + MINUTE).await, ["each-20241004T0001Z"]);
    assert!(clocked.tick(DAY + 2 * MINUTE).await.is_empty());
    let listed = clocked.jobs.list().await.unwrap();
    let refused = listed[1].outcome.as_ref().unwrap();
    assert_eq!(refused.ended, Ended::Refused);
    assert!(refused.error.as_ref().is_some_and(|why| why.contains("each-20241004T0001Z")), "{refused:?}");
    clocked.finish("each-20241004T0001Z").await;
    assert_eq!(clocked.tick(DAY + 3 * MINUTE).await, ["each-20241004T0003Z"]);
}

#[tokio::test]
async fn whatever_the_store_does_a_run_is_asked_for_once_and_none_is_lost() {
    for (object, fault) in [
        ("T0300Z.json", Fault::Lost),
        ("T0300Z.json", Fault::AnswerLost),
        ("looked.json", Fault::Lost),
        ("looked.json", Fault::AnswerLost),
    ] {
        let store = Arc::new(FaultyStore::default());
        let mut clocked = Clocked::on(store.clone(), vec![schedule("nightly", "0 3 * * *", 0)]);
        let three = DAY + 3 * HOUR;
        clocked.tick(three - MINUTE).await;
        store.plan(object, fault.clone());
        assert!(clocked.scheduler.tick(three).await.is_err(), "{object} {fault:?}");
        clocked.tick(three + 5_000).await;
        clocked.tick(three + MINUTE).await;
        let listed = clocked.jobs.unfinished().await.unwrap();
        assert_eq!(listed.len(), 1, "{object} {fault:?}");
        assert_eq!(listed[0].job.id.as_str(), "nightly-20241004T0300Z");
    }
}

#[tokio::test]
async fn two_schedules_of_one_table_at_one_minute_are_one_load() {
    let both = vec![schedule("a", "0 * * * *", 0), schedule("b", "0 * * * *", 0)];
    let mut clocked = Clocked::new(both);
    clocked.tick(DAY - MINUTE).await;
    assert_eq!(clocked.tick(DAY).await, ["a-20241004T0000Z"]);
    assert_eq!(clocked.jobs.unfinished().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_clock_that_steps_back_asks_for_nothing_twice() {
    let mut clocked = Clocked::new(vec![schedule("each", "*/5 * * * *", 0)]);
    clocked.tick(DAY - MINUTE).await;
    assert_eq!(clocked.tick(DAY).await.len(), 1);
    clocked.finish("each-20241004T0000Z").await;
    for now in [DAY - 10 * MINUTE, DAY - MINUTE, DAY, DAY + MINUTE] {
        assert!(clocked.tick(now).await.is_empty());
    }
    // One that was wrong by far is believed, and the ids of the runs keep them from being asked for again.
    let wrong = DAY + 365 * 24 * HOUR;
    clocked.tick(wrong).await;
    clocked.finish("each-20251004T0000Z").await;
    assert!(clocked.tick(DAY).await.is_empty());
    assert_eq!(clocked.tick(DAY + 5 * MINUTE).await, ["each-20241004T0005Z"]);
}

#[tokio::test]
async fn nothing_is_written_where_there_are_no_schedules_and_one_added_later_is_due() {
    let mut clocked = Clocked::new(Vec::new());
    clocked.tick(DAY).await;
    clocked.tick(DAY + HOUR).await;
    assert_eq!(clocked.schedules.looked().await.unwrap(), None);
    clocked.schedules.add(&schedule("added", "*/10 * * * *", DAY + HOUR + 5 * MINUTE)).await.unwrap();
    assert_eq!(clocked.tick(DAY + HOUR + 10 * MINUTE).await, ["added-20241004T0110Z"]);
    clocked.schedules.remove(&ScheduleId::try_from("added".to_owned()).unwrap()).await.unwrap();
    clocked.tick(DAY + HOUR + 11 * MINUTE).await;
    assert_eq!(clocked.schedules.looked().await.unwrap().unwrap().schedules, BTreeMap::new());
}

#[tokio::test]
async fn jobs_that_ended_long_ago_are_forgotten() {
    let mut clocked = Clocked::new(vec![schedule("each", "* * * * *", 0)]);
    clocked.tick(DAY).await;
    let runs = JOBS_KEPT_MIN as i64 + 5;
    for n in 1..=runs {
        for id in clocked.tick(DAY + n * MINUTE).await {
            clocked.finish(&id).await;
        }
    }
    // They are said to have ended at the epoch.
    assert!(clocked.jobs.list().await.unwrap().len() >= JOBS_KEPT_MIN);
    clocked.tick(DAY + runs * MINUTE + 2 * HOUR).await;
    let listed = clocked.jobs.list().await.unwrap();
    assert_eq!(listed.iter().filter(|entry| entry.outcome.is_some()).count(), JOBS_KEPT_MIN);
}

#[test]
fn backfills_of_the_configuration_are_schedules() {
    let text = "[source]\nname = \"shop\"\nurl = \"mysql://weir@db\"\ntables = [\"shop.*\"]\n\
                [[backfill]]\ntable = \"shop.orders\"\ncron = \"0 3 * * *\"\n\
                [[backfill]]\ntable = \"shop.orders\"\ncron = \"0 4 * * *\"\nfrom = 5\nto = [\"9\", 1]\n\
                [[backfill]]\ntable = \"crm.people\"\ncron = \"0 4 * * *\"\n";
    let config = Config::parse("weir.toml", text, FilePath::new("/etc/weir"), &BTreeMap::new()).unwrap();
    let schedules = configured(&config).unwrap();
    assert_eq!(schedules[0], schedule("config-shop-orders-1", "0 3 * * *", 0));
    assert_eq!(schedules.len(), 2);
    let bound = |values: &[Value]| Some(Bound(values.to_vec()));
    let range = Scope::Range { from: bound(&[json!(5)]), to: bound(&[json!("9"), json!(1)]) };
    assert_eq!(schedules[1].scope, range);
}
