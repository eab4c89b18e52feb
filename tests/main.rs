//! The one integration-test binary.

mod failpoints;
mod layers;
mod support;
mod topics;
