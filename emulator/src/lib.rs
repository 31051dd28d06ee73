//! Alibaba Cloud KMS and STS on loopback.
//!
//! The emulator verifies signatures, times, nonces and tokens as the real gateway does, keeps secrets with their
//! versions, labels and rotation, and goes wrong on demand. It shares no code with the operator: it is the second,
//! independent reading of the protocol.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! use std::time::Duration;
//! use kms_emulator::{Emulator, Fault, Managed, Options};
//!
//! let kms = Emulator::start(Options::default()).await?;
//! kms.add_access_key("LTAIexample", "example-secret");
//! kms.put_generic("app/config", "one");
//! kms.put_managed("app/db", Managed::rds(Duration::from_secs(3600)).dual());
//! kms.fault(Fault::code("Rejected.Throttling").on_secret("app/db").times(2));
//! kms.advance(Duration::from_secs(3601));
//! assert_eq!(kms.history("app/db").len(), 2);
//! println!("{}", kms.origin());
//! # Ok(())
//! # }
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod actions;
mod admin;
mod admission;
mod answer;
mod batch;
mod calls;
mod clock;
mod contents;
mod controls;
mod emulator;
mod envelope;
mod errors;
mod fault;
mod gateway;
mod hold;
mod keys;
mod managed;
mod metadata;
mod oidc;
mod pattern;
mod policy;
mod request;
mod roles;
mod rotation;
mod secret;
mod secrets;
mod seed;
mod serve;
mod throttle;
mod tls;
mod tokens;
mod value;
mod verify;
mod version;
mod wire;

pub use batch::Batch;
pub use calls::{ABANDONED, Call, Count, PENDING, Read};
pub use contents::Current;
pub use controls::Controls;
pub use emulator::{Emulator, Options};
pub use errors::{ApiError, error, known_errors};
pub use fault::{Effect, Fault, FaultId};
pub use hold::{Hold, Reads};
pub use jiff;
pub use keys::StsKey;
pub use managed::{Automatic, Managed};
pub use metadata::MetadataMode;
pub use roles::Role;
pub use throttle::Throttle;
pub use tokens::TokenIssuer;
pub use value::{Accounts, Kind};
pub use verify::Signature;
pub use version::Readable;
