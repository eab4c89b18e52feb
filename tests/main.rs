//! The one integration-test binary.

mod layers;
mod support;
mod topics;
