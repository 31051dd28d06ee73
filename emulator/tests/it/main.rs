//! The emulator as its clients see it, over raw sockets and with signatures of the tests' own.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod admin;
mod client;
mod clock;
mod faults;
mod secrets;
mod signing;
mod sts;
mod transport;
mod vectors;
