//! Everything that can only be seen from outside: on a real API server, with KMS emulated.
//!
//! One binary, so that it links once and starts one cluster; a namespace, an emulator and an operator for each test.

mod cluster;
mod crds;
mod failure;
mod floors;
mod ownership;
mod rotation;
mod secrecy;
mod sync;
mod vectors;
mod world;
