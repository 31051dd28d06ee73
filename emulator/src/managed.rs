//! A managed secret as a test asks for it.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::value::{Accounts, Kind};

/// The `AutomaticRotation` of a managed secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Automatic {
    /// KMS rotates by itself.
    #[default]
    Enabled,
    /// KMS rotates on command only.
    Disabled,
    /// KMS cannot rotate; the announced dates stay where they are.
    Invalid,
}

impl Automatic {
    pub(crate) fn wire(self) -> &'static str {
        match self {
            Self::Enabled => "Enabled",
            Self::Disabled => "Disabled",
            Self::Invalid => "Invalid",
        }
    }
}

/// A managed secret to be made.
#[derive(Clone, Serialize, Deserialize)]
pub struct Managed {
    /// Its type.
    pub kind: Kind,
    /// Time between rotations, in whole seconds; KMS itself takes 6 hours at least.
    #[serde(with = "seconds")]
    pub interval: Duration,
    /// One account or two.
    #[serde(default)]
    pub accounts: Accounts,
    /// The account or user name.
    #[serde(default = "default_account")]
    pub account: String,
    /// How long after the announced `NextRotationDate` the rotation comes.
    #[serde(default, with = "seconds")]
    pub lateness: Duration,
    /// The state of automatic rotation.
    #[serde(default)]
    pub automatic: Automatic,
    /// Whether a rotation moves the announced `NextRotationDate`.
    #[serde(default = "yes")]
    pub moves_next_date: bool,
    /// When the first rotation is announced for; otherwise one interval from now.
    #[serde(default)]
    pub first: Option<Timestamp>,
    /// The first value; otherwise made up.
    #[serde(default)]
    pub value: Option<String>,
    /// The `ExtendedConfig`; otherwise made up.
    #[serde(default)]
    pub extended_config: Option<String>,
}

fn default_account() -> String {
    "app".to_owned()
}

fn yes() -> bool {
    true
}

impl Managed {
    /// A managed secret of that type, with one account, rotated by KMS on time.
    #[must_use]
    pub fn new(kind: Kind, interval: Duration) -> Self {
        Self {
            kind,
            interval,
            accounts: Accounts::Single,
            account: default_account(),
            lateness: Duration::ZERO,
            automatic: Automatic::Enabled,
            moves_next_date: true,
            first: None,
            value: None,
            extended_config: None,
        }
    }

    /// An RDS secret with one account.
    #[must_use]
    pub fn rds(interval: Duration) -> Self {
        Self::new(Kind::Rds, interval)
    }

    /// With two accounts that take turns.
    #[must_use]
    pub fn dual(mut self) -> Self {
        self.accounts = Accounts::Dual;
        self
    }

    /// Rotated so much later than announced.
    #[must_use]
    pub fn late(mut self, by: Duration) -> Self {
        self.lateness = by;
        self
    }

    /// In that state of automatic rotation.
    #[must_use]
    pub fn automatic(mut self, automatic: Automatic) -> Self {
        self.automatic = automatic;
        self
    }

    /// With that account or user name.
    #[must_use]
    pub fn account(mut self, name: &str) -> Self {
        name.clone_into(&mut self.account);
        self
    }

    /// With that first value.
    #[must_use]
    pub fn value(mut self, value: &str) -> Self {
        self.value = Some(value.to_owned());
        self
    }

    /// With the first rotation announced for then.
    #[must_use]
    pub fn first(mut self, at: Timestamp) -> Self {
        self.first = Some(at);
        self
    }

    /// With a `NextRotationDate` that no rotation moves.
    #[must_use]
    pub fn unmoved(mut self) -> Self {
        self.moves_next_date = false;
        self
    }
}

/// Durations as whole or broken seconds in JSON.
pub(crate) mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(value.as_secs_f64())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(from)?;
        Duration::try_from_secs_f64(seconds).map_err(D::Error::custom)
    }
}
