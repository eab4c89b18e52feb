//! Services that the system stops for longer than every timeout (SIGSTOP), and lets go on (SIGCONT).

use std::time::Duration;

use super::repeats;
use super::results::{Verdict, note};
use super::scene::Scene;
use crate::support::weir::eventually;

/// Longer than a source may be silent (10 s), and than a service may be before it is not taken for a running one (15 s).
const PAUSE: Duration = Duration::from_secs(18);
const BACK_WITHIN: Duration = Duration::from_secs(120);

#[test]
fn a_service_that_was_stopped_for_long_goes_on() {
    let mut scene = Scene::direct("paused", 9_005);
    // The server gives up a reader that takes nothing any more.
    scene.mysql.run("SET GLOBAL net_write_timeout = 5");
    scene.weir.catch_up();
    for _ in 0..repeats() {
        let service = scene.weir.run_until_it_is_seen();
        let writers = scene.write();
        std::thread::sleep(Duration::from_millis(500 + scene.random.below(1_000)));
        service.signal("STOP");
        std::thread::sleep(PAUSE);
        service.signal("CONT");
        assert!(writers.stop(), "the writers failed");
        scene.mysql.run("INSERT INTO paused.x (v) VALUES (3)");
        let rows = scene.mysql.value("SELECT COUNT(*) FROM paused.x").parse().expect("a number");
        eventually("the stream goes on", BACK_WITHIN, || scene.weir.has_rows("paused.x", rows));
        scene.outlived(service, "SIGSTOP for 18 s, then SIGCONT", "went on by itself");
    }
}

#[test]
fn a_service_that_slept_through_a_takeover_writes_nothing_and_exits_4() {
    let mut scene = Scene::direct("takeover", 9_006);
    scene.weir.catch_up();
    for _ in 0..repeats() {
        let writers = scene.write();
        let mut sleeping = scene.weir.run_until_it_is_seen();
        std::thread::sleep(Duration::from_millis(scene.random.below(1_000)));
        sleeping.signal("STOP");
        let newer = scene.weir.start(&["run"], "newer.log");
        scene.mysql.run("INSERT INTO takeover.x (v) VALUES (3)");
        let rows = scene.mysql.value("SELECT COUNT(*) FROM takeover.x").parse().expect("a number");
        eventually("the newer one is at work", BACK_WITHIN, || scene.weir.has_rows("takeover.x", rows));
        sleeping.signal("CONT");
        let ended = sleeping.wait_within(BACK_WITHIN).and_then(|status| status.code());
        assert_eq!(ended, Some(4), "{}", sleeping.log());
        assert!(writers.stop(), "the writers failed");
        assert_eq!(newer.terminate().0, Some(0));
        let verdict = scene.settle();
        note("SIGSTOP, another service takes over, SIGCONT", "the older one exits 4 and says who took over", verdict);
        assert_eq!(verdict, Verdict::default());
    }
}
