//! A version of a secret, and when one was current.

use std::fmt;
use std::time::Instant;

use jiff::Timestamp;

/// A `SecretData` with its type; binary data is Base64 text, as on the wire.
#[derive(Clone, PartialEq)]
pub(crate) struct Data {
    pub(crate) text: String,
    pub(crate) binary: bool,
}

#[derive(Clone)]
pub(crate) struct Version {
    pub(crate) id: String,
    pub(crate) data: Data,
    pub(crate) created: Timestamp,
    pub(crate) stages: Vec<String>,
}

/// A value that became readable as `ACSCurrent`.
#[derive(Clone, PartialEq)]
pub struct Readable {
    /// The version that holds it.
    pub version_id: String,
    /// Its `SecretData`.
    pub value: String,
    /// Since when, by the emulator's clock.
    pub since: Timestamp,
    /// Since when, by the monotonic clock: the earliest instant at which a read could answer it.
    pub at: Instant,
}

/// Says everything but the value.
impl fmt::Debug for Readable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readable")
            .field("version_id", &self.version_id)
            .field("since", &self.since)
            .finish_non_exhaustive()
    }
}
