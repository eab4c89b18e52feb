//! Faults of every kind, at chosen boundaries and at random: nothing is lost, nothing doubled, and the service comes back by
//! itself or says what to do. `make chaos` repeats all of this for as long as it is told, and writes docs/chaos.md.
//!
//! What a store does wrong is injected in `src/table/tests` and in `topics::s3_faults`.

mod campaign;
mod disk;
mod large;
mod network;
mod pauses;
mod points;
mod results;
mod scene;
mod servers;

/// How often each fault is made: once in `make test`, as often as `make chaos` says.
fn repeats() -> u64 {
    std::env::var("WEIR_CHAOS_REPEATS").map_or(1, |text| text.parse().expect("a whole number"))
}
