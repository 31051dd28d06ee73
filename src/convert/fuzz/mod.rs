//! Property tests of manifests that could have been meant, and of such that nobody means well.
//!
//! `make fuzz` runs all tests of modules of this name for long, `cargo test` some hundreds of each.

mod parts;
mod streams;
mod translated;
