//! What people ask of KmsSecrets at a command line, as `kubectl kmssecret` too: how they stand, and a sync now. Only
//! KmsSecrets are read, never Secrets.

pub mod access;
pub mod force;
pub mod standing;
pub mod status;
mod table;

pub use access::Access;
pub use force::{Asked, Force};
pub use status::{Report, Status};

use kube::CustomResourceExt as _;

use crate::api::KmsSecret;

/// Why nothing can be told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// RBAC.
    #[error(
        "you may not {verb} the KmsSecrets of {place}: ask for {verb} on {resource}, which the chart gives to the role {role} (the API server says: {said})"
    )]
    Forbidden {
        /// What was tried.
        verb: &'static str,
        /// Of which namespace.
        place: String,
        /// The resource, as roles name it.
        resource: &'static str,
        /// The role of Kubernetes that the chart gives the right to.
        role: &'static str,
        /// What the API server said.
        said: String,
    },
    /// The CRDs are missing.
    #[error(
        "the API server knows no KmsSecrets: its administrator runs `kms-secret-operator crds | kubectl apply -f -`"
    )]
    NoDefinition,
    /// Anything else.
    #[error("cannot {verb} the KmsSecrets of {place}: {said}")]
    Refused {
        /// What was tried.
        verb: &'static str,
        /// Of which namespace.
        place: String,
        /// Why not.
        said: String,
    },
}

impl Error {
    fn of(err: &kube::Error, verb: &'static str, namespace: Option<&str>) -> Self {
        let place = namespace.map_or_else(
            || "all namespaces".to_owned(),
            |name| format!("namespace {name:?}"),
        );
        match err {
            kube::Error::Api(status) if status.is_forbidden() => Self::Forbidden {
                verb,
                place,
                resource: KmsSecret::crd_name(),
                role: if verb == "patch" { "edit" } else { "view" },
                said: status.message.clone(),
            },
            kube::Error::Api(status) if status.is_not_found() => Self::NoDefinition,
            kube::Error::Api(status) => Self::Refused {
                verb,
                place,
                said: status.message.clone(),
            },
            _ => Self::Refused {
                verb,
                place,
                said: err.to_string(),
            },
        }
    }
}

/// Whether it is this object that is not there, and not its whole kind.
fn is_missing(err: &kube::Error, name: &str) -> bool {
    let is_about = |status: &kube::core::Status| {
        let details = status.details.as_ref();
        status.is_not_found() && details.is_some_and(|details| details.name == name)
    };
    matches!(err, kube::Error::Api(status) if is_about(status))
}

/// The first line of a text, without what a terminal would take for a command.
fn line(text: &str) -> String {
    let first = text.lines().next().unwrap_or_default();
    first.replace(char::is_control, " ")
}
