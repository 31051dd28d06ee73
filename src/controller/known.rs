//! The status of an object: as the cache shows it, which costs no room, or as this process knows it better.

use std::ops::Deref;
use std::sync::{Arc, LazyLock};

use crate::api::KmsSecret;
use crate::api::kms_secret::KmsSecretStatus;

static NONE: LazyLock<KmsSecretStatus> = LazyLock::new(KmsSecretStatus::default);

/// A status.
#[derive(Clone, Debug)]
pub(super) enum Known {
    /// That of an object in the cache.
    Shown(Arc<KmsSecret>),
    /// One that was made here.
    Made(Arc<KmsSecretStatus>),
}

impl Known {
    /// Changes it.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut KmsSecretStatus)) {
        let mut status = (**self).clone();
        change(&mut status);
        *self = status.into();
    }
}

impl Default for Known {
    fn default() -> Self {
        KmsSecretStatus::default().into()
    }
}

impl From<KmsSecretStatus> for Known {
    fn from(status: KmsSecretStatus) -> Self {
        Self::Made(status.into())
    }
}

impl Deref for Known {
    type Target = KmsSecretStatus;

    fn deref(&self) -> &KmsSecretStatus {
        match self {
            Self::Shown(object) => object.status.as_ref().unwrap_or(&NONE),
            Self::Made(made) => made,
        }
    }
}

impl PartialEq for Known {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}
