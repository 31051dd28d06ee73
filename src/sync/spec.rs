//! What a spec may ask for: what the operator was told to allow, and what no flag allows.

use jiff::SignedDuration;

use super::{Failure, Reason};
use crate::api::{GROUP, KmsSecret, parse_duration};

/// What the operator was told to allow.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The shortest `spec.refresh.interval`.
    pub interval_min: SignedDuration,
    /// Types of Secret that may be written.
    pub target_types: Vec<String>,
    /// Domains whose labels and annotations no Secret gets, besides those of Kubernetes and our own.
    pub denied_metadata: Vec<String>,
    /// A secret must be missing in KMS for so long before a Secret is deleted for it.
    pub gone_after: SignedDuration,
}

/// Checks what the schema cannot: it does not know how this operator was started.
///
/// # Errors
/// `SpecInvalid`.
pub(super) fn check(object: &KmsSecret, limits: &Limits) -> Result<(), Failure> {
    check_interval(object, limits)?;
    check_type(object, limits)?;
    check_metadata(object, limits)
}

fn check_interval(object: &KmsSecret, limits: &Limits) -> Result<(), Failure> {
    let Some(text) = object.refresh_interval() else {
        return Ok(());
    };
    let least = limits.interval_min;
    match parse_duration(text) {
        None => Err(Failure::new(
            Reason::SpecInvalid,
            format!("spec.refresh.interval {text:?} is not a duration above zero"),
            "write it as 1h, 10m or 90s",
        )),
        Some(interval) if interval < least => Err(Failure::new(
            Reason::SpecInvalid,
            format!(
                "spec.refresh.interval {text} is shorter than the {least:#} that this operator allows"
            ),
            "make it longer; the operator's administrator can allow less (--min-refresh-interval)",
        )),
        Some(_) => Ok(()),
    }
}

fn check_type(object: &KmsSecret, limits: &Limits) -> Result<(), Failure> {
    let target_type = object.target_type();
    if limits
        .target_types
        .iter()
        .any(|allowed| allowed == target_type)
    {
        return Ok(());
    }
    Err(Failure::new(
        Reason::SpecInvalid,
        format!("Secrets of type {target_type:?} are not written by this operator"),
        "use another spec.target.type; the operator's administrator can allow more (--allow-secret-type)",
    ))
}

/// Labels and annotations in these domains mean something to Kubernetes, or to us.
const RESERVED: [&str; 3] = ["kubernetes.io", "k8s.io", GROUP];

fn check_metadata(object: &KmsSecret, limits: &Limits) -> Result<(), Failure> {
    let target = object.spec.target.iter();
    let mut keys = target.flat_map(|target| target.labels.keys().chain(target.annotations.keys()));
    let is_denied = |key: &&String| {
        let domain = key.split_once('/').map_or("", |(domain, _)| domain);
        let denied = limits.denied_metadata.iter().map(String::as_str);
        RESERVED.into_iter().chain(denied).any(|denied| {
            let rest = domain.strip_suffix(denied);
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
    };
    match keys.find(is_denied) {
        None => Ok(()),
        Some(key) => Err(Failure::new(
            Reason::SpecInvalid,
            format!(
                "spec.target asks for the label or annotation {key:?}, whose domain is not for KmsSecrets to use"
            ),
            "leave it out; the operator's administrator can change the list (--deny-target-metadata), but for the domains of Kubernetes and alikms.dev",
        )),
    }
}
