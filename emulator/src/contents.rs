//! The operations on secrets and their rotation.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use crate::clock::{Clock, lock};
use crate::controls::Controls;
use crate::errors::{ApiError, error};
use crate::managed::{Automatic, Managed};
use crate::rotation::Rotation;
use crate::secret::{CURRENT, Secret};
use crate::secrets::Secrets;
use crate::value::Kind;
use crate::version::{Data, Readable};

/// The current version of a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Current {
    /// Its id.
    pub version_id: String,
    /// Its `SecretData`.
    pub value: String,
}

/// Says everything but the value.
impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Current")
            .field("version_id", &self.version_id)
            .finish_non_exhaustive()
    }
}

impl Controls {
    // === secrets

    /// Gives a generic secret a new current version, making the secret if need be. Answers the version's id.
    pub fn put_generic(&self, name: &str, text: &str) -> String {
        self.put_next(
            name,
            Data {
                text: text.to_owned(),
                binary: false,
            },
        )
    }

    /// The same with bytes, which KMS holds as Base64.
    pub fn put_binary(&self, name: &str, bytes: &[u8]) -> String {
        self.put_next(
            name,
            Data {
                text: STANDARD.encode(bytes),
                binary: true,
            },
        )
    }

    /// The same with a `SecretData` of type binary taken as it is, Base64 or not.
    pub fn put_binary_text(&self, name: &str, text: &str) -> String {
        self.put_next(
            name,
            Data {
                text: text.to_owned(),
                binary: true,
            },
        )
    }

    fn put_next(&self, name: &str, data: Data) -> String {
        let mut secrets = lock(&self.secrets);
        let secret = self.generic(&mut secrets, name);
        let mut number = secret.versions.len() + 1;
        while secret.version(&format!("v{number}")).is_some() {
            number += 1;
        }
        let id = format!("v{number}");
        // A free id is never refused.
        let _ = secret.put(&id, data, &[CURRENT], self.clock.now(), &self.clock);
        id
    }

    fn generic<'a>(&self, secrets: &'a mut Secrets, name: &str) -> &'a mut Secret {
        let is_generic = secrets
            .get(name, &self.clock)
            .is_ok_and(|secret| secret.rotation.is_none());
        if !is_generic {
            let secret = Secret::new(name, Kind::Generic, self.clock.now());
            secrets.insert(name, secret);
        }
        secrets.get_or_insert(name, &self.clock)
    }

    /// Puts a current version with that id; the same id with the same text changes nothing.
    pub fn put_generic_version(
        &self,
        name: &str,
        version_id: &str,
        text: &str,
    ) -> Result<(), ApiError> {
        self.put_labelled(name, version_id, text, &[CURRENT])
    }

    /// Puts a version with those labels.
    pub fn put_labelled(
        &self,
        name: &str,
        version_id: &str,
        text: &str,
        stages: &[&str],
    ) -> Result<(), ApiError> {
        let mut secrets = lock(&self.secrets);
        let secret = self.generic(&mut secrets, name);
        let data = Data {
            text: text.to_owned(),
            binary: false,
        };
        secret.put(version_id, data, stages, self.clock.now(), &self.clock)
    }

    /// Makes a managed secret, in place of one of that name. Answers its first version's id.
    pub fn put_managed(&self, name: &str, managed: Managed) -> String {
        let secret = Secret::managed(name, managed, &self.clock);
        let id = secret.labelled(CURRENT).map(|version| version.id.clone());
        lock(&self.secrets).insert(name, secret);
        id.unwrap_or_default()
    }

    /// Gives a secret, of whatever kind, another `SecretType`.
    pub fn set_type(&self, name: &str, kind: Kind) -> Result<(), ApiError> {
        let mut secrets = lock(&self.secrets);
        secrets.get(name, &self.clock)?.kind = kind;
        Ok(())
    }

    /// Deletes a secret; false if there is none. Its history stays.
    pub fn delete(&self, name: &str) -> bool {
        let mut secrets = lock(&self.secrets);
        let _ = secrets.get(name, &self.clock);
        secrets.remove(name)
    }

    /// Moves a label to a version; only that label moves.
    pub fn move_stage(&self, name: &str, stage: &str, version_id: &str) -> Result<(), ApiError> {
        let mut secrets = lock(&self.secrets);
        let secret = secrets.get(name, &self.clock)?;
        secret.move_stage(stage, Some(version_id), None, &self.clock)
    }

    /// The names of all secrets.
    pub fn secrets(&self) -> Vec<String> {
        lock(&self.secrets).names()
    }

    /// What is current now.
    pub fn current(&self, name: &str) -> Option<Current> {
        let mut secrets = lock(&self.secrets);
        let secret = secrets.get(name, &self.clock).ok()?;
        secret.labelled(CURRENT).map(|version| Current {
            version_id: version.id.clone(),
            value: version.data.text.clone(),
        })
    }

    /// Everything that was ever current, oldest first.
    pub fn history(&self, name: &str) -> Vec<Readable> {
        lock(&self.secrets).history(name, &self.clock)
    }

    // === rotation

    /// Rotates a managed secret now. Answers the new version's id.
    pub fn rotate(&self, name: &str) -> Result<String, ApiError> {
        self.rotate_into(name, None)
    }

    /// Rotates a managed secret now, into that value.
    pub fn rotate_to(&self, name: &str, value: &str) -> Result<String, ApiError> {
        self.rotate_into(name, Some(value.to_owned()))
    }

    fn rotate_into(&self, name: &str, value: Option<String>) -> Result<String, ApiError> {
        self.with_managed(name, |secret, clock| {
            secret.rotate(value, clock.now(), clock)
        })
    }

    /// Sets the state of automatic rotation.
    pub fn set_rotation_status(&self, name: &str, status: Automatic) -> Result<(), ApiError> {
        self.with_managed(name, |secret, clock| secret.set_automatic(status, clock))
    }

    /// Sets how long after the announced date rotations come.
    pub fn set_lateness(&self, name: &str, lateness: Duration) -> Result<(), ApiError> {
        self.with_rotation(name, |rotation| rotation.plan.lateness = lateness)
    }

    /// Sets the interval, from the next rotation on.
    pub fn set_interval(&self, name: &str, interval: Duration) -> Result<(), ApiError> {
        self.with_rotation(name, |rotation| rotation.plan.interval = interval)
    }

    /// Announces the next rotation for then.
    pub fn set_next_rotation(&self, name: &str, at: Timestamp) -> Result<(), ApiError> {
        self.with_rotation(name, |rotation| rotation.announce(at))
    }

    /// Whether rotations move the announced date.
    pub fn set_moves_next_date(&self, name: &str, moves: bool) -> Result<(), ApiError> {
        self.with_rotation(name, |rotation| rotation.plan.moves_next_date = moves)
    }

    /// The announced date of a managed secret.
    pub fn next_rotation(&self, name: &str) -> Option<Timestamp> {
        let mut secrets = lock(&self.secrets);
        let secret = secrets.get(name, &self.clock).ok()?;
        secret.rotation.as_ref().map(|rotation| rotation.announced)
    }

    fn with_managed<T>(
        &self,
        name: &str,
        change: impl FnOnce(&mut Secret, &Clock) -> T,
    ) -> Result<T, ApiError> {
        let mut secrets = lock(&self.secrets);
        let secret = secrets.get(name, &self.clock)?;
        if secret.rotation.is_none() {
            return Err(error("UnsupportedOperation").message("Generic secrets are not rotated."));
        }
        Ok(change(secret, &self.clock))
    }

    fn with_rotation(
        &self,
        name: &str,
        change: impl FnOnce(&mut Rotation),
    ) -> Result<(), ApiError> {
        self.with_managed(name, |secret, _| {
            if let Some(rotation) = &mut secret.rotation {
                change(rotation);
            }
        })
    }
}
