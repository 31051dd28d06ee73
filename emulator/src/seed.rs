//! What a fresh emulator holds, from a JSON file.

use std::path::Path;
use std::{fs, io};

use serde::Deserialize;

use crate::admin::{AddKey, AddProvider, Instance, Put, TrustTokens};
use crate::controls::Controls;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Seed {
    #[serde(default)]
    keys: Vec<AddKey>,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    secrets: Vec<Put>,
    #[serde(default)]
    oidc_providers: Vec<AddProvider>,
    #[serde(default)]
    oidc_roles: Vec<TrustTokens>,
    instance: Option<Instance>,
}

impl Controls {
    /// Adds keys, roles and secrets of a JSON file, in the words of the admin API.
    pub fn seed(&self, file: &Path) -> io::Result<()> {
        let seed: Seed = serde_json::from_slice(&fs::read(file)?)?;
        for key in seed.keys {
            key.apply(self);
        }
        for role in seed.roles {
            self.add_role(&role);
        }
        for provider in seed.oidc_providers {
            provider.apply(self).map_err(io::Error::other)?;
        }
        for trust in seed.oidc_roles {
            trust.apply(self);
        }
        if let Some(instance) = seed.instance {
            instance.apply(self);
        }
        for secret in seed.secrets {
            secret.apply(self).map_err(io::Error::other)?;
        }
        Ok(())
    }
}
