//! The emulator as its clients see it, over raw sockets and with signatures of the tests' own.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod access;
mod admin;
mod admin_access;
mod batch;
mod client;
mod clock;
mod faults;
mod metadata;
mod oidc;
mod secrets;
mod signing;
mod sts;
mod transport;
mod vectors;
