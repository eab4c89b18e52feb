//! Connections to the source that are cut, and that go silent without being cut.

use std::time::Duration;

use super::repeats;
use super::scene::Scene;
use crate::support::weir::eventually;
use crate::support::wire::Wire;

/// Longer than a source may be silent before it is given up (10 s).
const SILENCE: Duration = Duration::from_secs(13);
const BACK_WITHIN: Duration = Duration::from_secs(120);

/// A scene whose service reaches its source over a wire.
fn over_a_wire(database: &'static str, seed: u64) -> (Scene, Wire) {
    let scene = Scene::direct(database, seed);
    let port = scene.mysql.url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a url with a port");
    let wire = Wire::before(port);
    scene.weir.replace_in_config(&format!("127.0.0.1:{port}"), &format!("127.0.0.1:{}", wire.port));
    (scene, wire)
}

#[test]
fn connections_that_are_cut_are_made_anew() {
    let (mut scene, wire) = over_a_wire("cut", 9_003);
    for _ in 0..repeats() {
        let service = scene.weir.run();
        // One that cannot reach its source when it starts says so and ends.
        scene.goes_on();
        let writers = scene.write();
        for _ in 0..10 {
            std::thread::sleep(Duration::from_millis(100 + scene.random.below(500)));
            wire.cut();
        }
        assert!(writers.stop(), "the writers failed");
        scene.outlived(service, "ten cuts of every connection to MySQL", "went on by itself");
    }
}

#[test]
fn a_network_that_drops_everything_is_waited_for() {
    let (mut scene, wire) = over_a_wire("frozen", 9_004);
    scene.weir.catch_up();
    for round in 0..repeats() {
        let service = scene.weir.run_until_it_is_seen();
        let writers = scene.write();
        std::thread::sleep(Duration::from_millis(500 + scene.random.below(1_000)));
        wire.freeze();
        std::thread::sleep(SILENCE);
        // Of what was held back some is late, and some never comes.
        if round % 2 == 1 {
            wire.cut();
        }
        wire.thaw();
        assert!(writers.stop(), "the writers failed");
        scene.mysql.run("INSERT INTO frozen.x (v) VALUES (3)");
        let rows = scene.mysql.value("SELECT COUNT(*) FROM frozen.x").parse().expect("a number");
        eventually("the stream goes on", BACK_WITHIN, || scene.weir.has_rows("frozen.x", rows));
        scene.outlived(service, "half-open connections to MySQL for 13 s", "went on by itself");
    }
}
