//! Everything that can only be seen from outside: on a real API server, with KMS emulated.
//!
//! One binary, so that it links once and starts one cluster; a namespace, an emulator and an operator for each test.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends where it fails"
)]

mod alerts;
mod bypass;
mod chart;
mod check;
mod cluster;
mod convert;
mod crashes;
mod crds;
mod credentials;
mod docs;
mod economy;
mod events;
mod failure;
mod floors;
mod gate;
mod gitops;
mod health;
mod helm;
mod hostile;
mod knife;
mod kstatus;
mod kubectl;
mod lives;
mod matrix;
mod members;
mod merge;
mod migration;
mod moments;
mod monitoring;
mod outages;
mod ownership;
mod plugin;
mod policies;
mod private_ca;
mod reasons;
mod reference;
mod rollout;
mod rotation;
mod rotation_types;
mod secrecy;
mod shaping;
mod sources;
mod stores;
mod storms;
mod sync;
mod targets;
mod tenancy;
mod timetable;
mod vectors;
mod walk;
mod watching;
mod witness;
mod world;
