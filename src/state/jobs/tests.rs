//! Jobs in a store: what stands, what is passed over, what is forgotten.

use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::{ObjectStoreExt, PutPayload};
use serde_json::json;
use weir_model::TableId;

use super::*;

/// A local folder and memory, each with the jobs in it. The folder goes away with the guard.
fn stores() -> (tempfile::TempDir, [Place; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let local: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
    let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    (folder, [local, memory].map(|store| (store.clone(), JobStore::new(store, Path::from("_weir/shop")))))
}

type Place = (Arc<dyn ObjectStore>, JobStore);

fn job(id: &str, requested_ms: i64) -> Job {
    let id = JobId::try_from(id.to_owned()).unwrap();
    let scope = Scope::Range { from: Some(Bound(vec![json!(5)])), to: None };
    Job {
        id,
        table: TableId::new("shop", "or/ders"),
        work: Work::Backfill(scope),
        origin: Origin::Command,
        requested_ms,
    }
}

fn ids(entries: &[JobEntry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.job.id.as_str()).collect()
}

fn progress(chunks_done: u64) -> JobProgress {
    JobProgress { state: JobState::Running, plan: 7, chunks: 3, chunks_done, rows: 10, updated_ms: 2 }
}

#[tokio::test]
async fn a_job_goes_its_way_and_its_first_outcome_stands() {
    let (_folder, stores) = stores();
    for (_, jobs) in stores {
        assert_eq!(jobs.list().await.unwrap(), []);
        let job = job("b", 1);
        assert_eq!(jobs.request(&job).await.unwrap(), Put::Done);
        let state = async || jobs.find(&job.id).await.unwrap().unwrap().state_name();
        assert_eq!(state().await, "waiting");
        jobs.note_progress(&job.id, &progress(1)).await.unwrap();
        jobs.note_progress(&job.id, &progress(2)).await.unwrap();
        assert_eq!(state().await, "running");
        jobs.cancel(&job.id).await.unwrap();
        jobs.cancel(&job.id).await.unwrap();
        assert_eq!(state().await, "cancelling");
        let cancelled = JobOutcome::without_work(Ended::Cancelled, None, 3);
        assert_eq!(jobs.end(&job.id, &cancelled).await.unwrap(), Put::Done);
        assert_eq!(jobs.end(&job.id, &cancelled).await.unwrap(), Put::Done);
        let failed = JobOutcome::without_work(Ended::Failed, Some("late".into()), 4);
        assert_eq!(jobs.end(&job.id, &failed).await.unwrap(), Put::Taken);
        assert_eq!(state().await, "cancelled");
        let expected = JobEntry { job, progress: Some(progress(2)), outcome: Some(cancelled), cancelled: true };
        assert_eq!(jobs.list().await.unwrap(), [expected]);
        assert_eq!(jobs.unfinished().await.unwrap(), []);
        assert_eq!(jobs.find(&JobId::new(0)).await.unwrap(), None);
    }
}

#[tokio::test]
async fn the_same_id_is_asked_for_once() {
    let (_folder, stores) = stores();
    for (_, jobs) in stores {
        assert_eq!(jobs.request(&job("nightly-20261121T0300Z", 1)).await.unwrap(), Put::Done);
        assert_eq!(jobs.request(&job("nightly-20261121T0300Z", 1)).await.unwrap(), Put::Done);
        assert_eq!(jobs.request(&job("nightly-20261121T0300Z", 2)).await.unwrap(), Put::Taken);
        assert_eq!(jobs.list().await.unwrap()[0].job.requested_ms, 1);
    }
}

#[tokio::test]
async fn the_oldest_comes_first_and_what_is_no_job_is_passed_over() {
    let (_folder, stores) = stores();
    for (store, jobs) in stores {
        for (id, requested_ms) in [("c", 2), ("a", 3), ("b", 2)] {
            jobs.request(&job(id, requested_ms)).await.unwrap();
        }
        for name in ["jobs/foreign.json", "jobs/notes.txt", "jobs/a.outcome.json.old", "jobs/x.outcome.json"] {
            let object = Path::from(format!("_weir/shop/{name}"));
            store.put(&object, PutPayload::from("not ours")).await.unwrap();
        }
        assert_eq!(ids(&jobs.list().await.unwrap()), ["b", "c", "a"]);
        assert_eq!(ids(&jobs.unfinished().await.unwrap()), ["b", "c", "a"]);
    }
}

#[tokio::test]
async fn a_job_of_a_newer_version_is_listed() {
    let (_folder, stores) = stores();
    for (store, jobs) in stores {
        let newer = json!({
            "id": "n", "table": "shop.t", "work": {"repair": {"deep": true}}, "origin": "reconcile", "requested_ms": 1,
            "urgency": 5
        });
        store.put(&Path::from("_weir/shop/jobs/n.json"), newer.to_string().into()).await.unwrap();
        let listed = jobs.unfinished().await.unwrap();
        assert_eq!(ids(&listed), ["n"]);
        assert!(listed[0].job.work.why_not().is_some());
    }
}

#[tokio::test]
async fn a_job_whose_outcome_cannot_be_read_has_ended() {
    let (_folder, stores) = stores();
    for (store, jobs) in stores {
        let job = job("a", 1);
        jobs.request(&job).await.unwrap();
        let newer = json!({"ended": "postponed", "ended_ms": 5});
        store.put(&Path::from("_weir/shop/jobs/a.outcome.json"), newer.to_string().into()).await.unwrap();
        store.put(&Path::from("_weir/shop/jobs/a.progress.json"), PutPayload::from("{}")).await.unwrap();
        assert_eq!(jobs.unfinished().await.unwrap(), []);
        let found = jobs.find(&job.id).await.unwrap().unwrap();
        assert_eq!((found.state_name(), &found.progress), ("failed", &None));
        assert_eq!(jobs.list().await.unwrap(), [found]);
    }
}

#[tokio::test]
async fn old_outcomes_are_forgotten_but_for_the_newest_few() {
    let (_folder, stores) = stores();
    for (_, jobs) in stores {
        for n in 1..=4 {
            let job = job(&format!("job-{n}"), n);
            jobs.request(&job).await.unwrap();
            jobs.note_progress(&job.id, &progress(0)).await.unwrap();
            jobs.end(&job.id, &JobOutcome::without_work(Ended::Done, None, 100 * n)).await.unwrap();
        }
        jobs.request(&job("waits", 0)).await.unwrap();
        // What a removal that was broken off left.
        let orphan = JobId::try_from("orphan".to_owned()).unwrap();
        jobs.end(&orphan, &JobOutcome::without_work(Ended::Done, None, 1)).await.unwrap();
        assert_eq!(jobs.forget_old(1, 300).await.unwrap(), 2);
        assert_eq!(ids(&jobs.list().await.unwrap()), ["waits", "job-3", "job-4"]);
        assert_eq!(jobs.objects.names().await.unwrap().len(), 7);
        assert_eq!(jobs.forget_old(1, 1_000).await.unwrap(), 1);
        assert_eq!(ids(&jobs.list().await.unwrap()), ["waits", "job-4"]);
    }
}
