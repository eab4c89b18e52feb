//! Kills of the service, one after another, in one warehouse that goes on: at each failpoint, and at any moment.

use std::time::Duration;

use super::points::{OF_DIRECT, OF_KAFKA, Way};
use super::results::kills;
use super::scene::{Kill, Scene};
use crate::support::clickhouse::Clickhouse;
use crate::support::kafka::Kafka;

/// Kills between two looks at the tables.
const ROUND: usize = 14;
/// A service is killed at any moment of its first second and a half: of its start, of loads, and of its stream.
const MOMENT_MS: u64 = 1_500;
/// Kills in `make test` that are at any moment.
const AT_RANDOM: usize = 6;

/// How many kills a campaign is to come to, with those of processes before; none in `make test`.
fn goal(share: usize) -> Option<usize> {
    let kills = std::env::var("WEIR_CHAOS_KILLS").ok()?;
    Some(kills.parse::<usize>().expect("a whole number") * share / 100)
}

/// A process that goes on with a campaign draws others than the one before it.
fn seed(default: u64, transport: &str) -> u64 {
    let begun = std::env::var("WEIR_CHAOS_SEED").map_or(default, |text| text.parse().expect("a whole number"));
    begun + kills(transport) as u64
}

fn at_random(scene: &mut Scene) -> Kill {
    Kill::After(Duration::from_millis(30 + scene.random.below(MOMENT_MS)))
}

/// Every one of `points` once, in rounds, with some kills at any moment between them.
fn every_point(scene: &mut Scene, points: &[&'static str]) {
    let mut kills: Vec<Kill> = points.iter().map(|point| Kill::At(point)).collect();
    for _ in 0..AT_RANDOM {
        let place = scene.random.below(kills.len() as u64) as usize;
        kills.insert(place, at_random(scene));
    }
    kills.chunks(kills.len().div_ceil(3)).for_each(|round| scene.round(round));
    let missed: Vec<&str> = points.iter().filter(|point| !scene.reached.contains(point)).copied().collect();
    assert!(missed.is_empty(), "never come to: {missed:?}");
}

/// Rounds of kills by chance until so many of `transport` have been noted.
fn go_on(scene: &mut Scene, transport: &str, points: &[&'static str], goal: usize) {
    while kills(transport) < goal {
        let kills: Vec<Kill> = (0..ROUND).map(|_| by_chance(scene, points)).collect();
        scene.round(&kills);
    }
}

/// Two of three kills at any moment. A point of the stream is passed some times before.
fn by_chance(scene: &mut Scene, points: &[&'static str]) -> Kill {
    if scene.random.below(3) > 0 {
        return at_random(scene);
    }
    let point = points[scene.random.below(points.len() as u64) as usize];
    let passed = if Way::to(point) == Way::Stream { scene.random.below(4) } else { 0 };
    Kill::Behind(point, passed)
}

#[test]
fn kills_at_every_point_and_at_any_moment_lose_and_double_nothing() {
    let mut scene = Scene::direct("chaos", seed(9_001, "direct"));
    every_point(&mut scene, &OF_DIRECT);
    if let Some(goal) = goal(80) {
        go_on(&mut scene, "direct", &OF_DIRECT, goal);
    }
}

#[test]
fn kills_at_every_point_lose_and_double_nothing_over_kafka() {
    let mut scene = Scene::over_kafka("kchaos", seed(9_002, "kafka"), Kafka::shared(), Clickhouse::shared());
    every_point(&mut scene, &OF_KAFKA);
    if let Some(goal) = goal(20) {
        go_on(&mut scene, "kafka", &OF_KAFKA, goal);
    }
}
