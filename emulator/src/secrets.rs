//! All secrets of the account, and those of other accounts that are reachable by ARN.

use std::collections::HashMap;

use crate::clock::Clock;
use crate::errors::{ApiError, error};
use crate::secret::Secret;
use crate::value::Kind;
use crate::version::Readable;

pub(crate) struct Secrets {
    /// `acs:kms:<region>:<account>:secret/`
    own_prefix: String,
    region: String,
    account: String,
    by_key: HashMap<String, Secret>,
    /// Histories of deleted secrets.
    past: HashMap<String, Vec<Readable>>,
}

impl Secrets {
    pub(crate) fn new(region: &str, account: &str) -> Self {
        Self {
            own_prefix: format!("acs:kms:{region}:{account}:secret/"),
            region: region.to_owned(),
            account: account.to_owned(),
            by_key: HashMap::new(),
            past: HashMap::new(),
        }
    }

    pub(crate) fn arn(&self, key: &str) -> String {
        if key.starts_with("acs:") {
            key.to_owned()
        } else {
            format!("{}{key}", self.own_prefix)
        }
    }

    /// The key of a secret: its plain name, or its whole ARN if it is another account's or region's.
    pub(crate) fn key<'a>(&self, name: &'a str) -> &'a str {
        name.strip_prefix(self.own_prefix.as_str()).unwrap_or(name)
    }

    /// The key of what a caller of that account calls so: a plain name means a secret of the caller's own account.
    pub(crate) fn key_for(&self, name: &str, account: &str) -> String {
        if account == self.account || name.starts_with("acs:") {
            return self.key(name).to_owned();
        }
        let region = &self.region;
        format!("acs:kms:{region}:{account}:secret/{name}")
    }

    /// The secret as of now, with due rotations played.
    pub(crate) fn get(&mut self, name: &str, clock: &Clock) -> Result<&mut Secret, ApiError> {
        let key = self.key(name);
        let secret = self
            .by_key
            .get_mut(key)
            .ok_or_else(|| error("Forbidden.ResourceNotFound"))?;
        secret.settle(clock);
        Ok(secret)
    }

    /// The same, as a generic secret without versions if there is none.
    pub(crate) fn get_or_insert(&mut self, name: &str, clock: &Clock) -> &mut Secret {
        let key = self.key(name).to_owned();
        let new = || Secret::new(plain_name(&key), Kind::Generic, clock.now());
        self.by_key.entry(key.clone()).or_insert_with(new)
    }

    /// Adds a secret in place of one of that name.
    pub(crate) fn insert(&mut self, name: &str, mut secret: Secret) {
        let key = self.key(name).to_owned();
        self.remove(&key);
        if let Some(mut past) = self.past.remove(&key) {
            past.append(&mut secret.history);
            secret.history = past;
        }
        plain_name(&key).clone_into(&mut secret.name);
        self.by_key.insert(key, secret);
    }

    /// Whether there was such a secret.
    pub(crate) fn remove(&mut self, name: &str) -> bool {
        let key = self.key(name);
        let removed = self.by_key.remove(key);
        let was_there = removed.is_some();
        if let Some(secret) = removed {
            self.past.insert(key.to_owned(), secret.history);
        }
        was_there
    }

    pub(crate) fn history(&mut self, name: &str, clock: &Clock) -> Vec<Readable> {
        if let Ok(secret) = self.get(name, clock) {
            return secret.history.clone();
        }
        self.past.get(self.key(name)).cloned().unwrap_or_default()
    }

    pub(crate) fn settle(&mut self, clock: &Clock) {
        for secret in self.by_key.values_mut() {
            secret.settle(clock);
        }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.by_key.keys().cloned().collect();
        names.sort();
        names
    }
}

/// The name without the account and region before it.
pub(crate) fn plain_name(key: &str) -> &str {
    let foreign = key.starts_with("acs:");
    key.split_once(":secret/")
        .filter(|_| foreign)
        .map_or(key, |(_, name)| name)
}

/// Whether KMS takes that as a name or an ARN.
pub(crate) fn is_name(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || "_/+=.@-".contains(c);
    let plain = plain_name(name);
    !plain.is_empty() && plain.len() <= 192 && plain.chars().all(legal)
}
