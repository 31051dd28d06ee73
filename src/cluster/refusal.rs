//! What a refusal of the API server means. Pure.

use kube::core::response::Status;

use crate::sync::{Failure, Reason};

/// Why a write was not made.
#[derive(Clone, Debug, PartialEq)]
pub enum WriteError {
    /// The object is not as it was seen: look again.
    Stale,
    /// It would make no sense any more: the namespace is going away.
    Gone,
    /// Anything else.
    Failed(Failure),
}

/// A call that failed, without any foreign text that could quote a body.
pub(super) enum CallError {
    Api(Box<Status>),
    Timeout,
    Other,
}

pub(super) fn unavailable(err: &CallError, deed: &str) -> Failure {
    let (what, action) = match err {
        CallError::Api(status) if status.is_forbidden() => (
            format!("the API server does not let the operator {deed}"),
            "cluster administrator: see whether the operator's ServiceAccount has its roles, and whether an admission policy refuses it",
        ),
        CallError::Api(status) => (
            format!(
                "the API server answered {} when the operator wanted to {deed}",
                status.code
            ),
            "no action needed: it is tried again",
        ),
        CallError::Timeout | CallError::Other => (
            format!("the API server did not answer when the operator wanted to {deed}"),
            "no action needed: it is tried again",
        ),
    };
    Failure::new(Reason::KubernetesUnavailable, what, action)
}

/// What a refused write of the status of an object means.
pub(super) fn status_error(err: &CallError, kind: &str, name: &str) -> WriteError {
    match err {
        CallError::Api(status) if status.is_conflict() => WriteError::Stale,
        CallError::Api(status) if status.is_not_found() => WriteError::Gone,
        _ => WriteError::Failed(unavailable(
            err,
            &format!("write the status of {kind} {name:?}"),
        )),
    }
}

/// An apply that was refused for what other field managers own; any other conflict is about the version.
pub(super) fn is_of_managers(err: &CallError) -> bool {
    let CallError::Api(status) = err else {
        return false;
    };
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    status.is_conflict() && causes.any(|cause| cause.reason == "FieldManagerConflict")
}

/// What a refused write of a target means. Foreign messages decide between cases but are never shown: they can quote the object.
pub(super) fn write_error(err: &CallError, name: &str) -> WriteError {
    let CallError::Api(status) = err else {
        return WriteError::Failed(unavailable(err, &format!("write Secret {name:?}")));
    };
    if status.is_conflict() || status.is_already_exists() {
        return WriteError::Stale;
    }
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let fields: Vec<&str> = causes.clone().map(|cause| cause.field.as_str()).collect();
    let is_terminating = causes
        .clone()
        .any(|cause| cause.reason == "NamespaceTerminating");
    if is_terminating || status.is_not_found() {
        return WriteError::Gone;
    }
    if status.is_forbidden() && status.message.contains("exceeded quota") {
        return WriteError::Failed(Failure::new(
            Reason::QuotaExceeded,
            format!("the quota of the namespace leaves no room for Secret {name:?}"),
            "raise the quota, or remove Secrets",
        ));
    }
    if !status.is_invalid() {
        return WriteError::Failed(unavailable(err, &format!("write Secret {name:?}")));
    }
    let failure = if fields.contains(&"type") {
        Failure::new(
            Reason::TargetTypeImmutable,
            format!(
                "Secret {name:?} has another type, and Kubernetes does not let the type of a Secret change"
            ),
            "give spec.target.name another name: a Secret is never deleted and made anew",
        )
    } else if causes
        .clone()
        .any(|cause| cause.reason == "FieldValueForbidden" && cause.field == "data")
    {
        Failure::new(
            Reason::TargetImmutable,
            format!("Secret {name:?} is immutable"),
            "give spec.target.name another name: a Secret is never deleted and made anew",
        )
    } else {
        let fields: Vec<_> = fields
            .into_iter()
            .filter(|field| is_field_path(field))
            .collect();
        Failure::new(
            Reason::TargetInvalid,
            format!("the API server refuses Secret {name:?}{}", because(&fields)),
            "check spec.target and the keys of spec.data",
        )
    };
    WriteError::Failed(failure)
}

fn because(fields: &[&str]) -> String {
    if fields.is_empty() {
        String::new()
    } else {
        format!(" because of {}", fields.join(", "))
    }
}

fn is_field_path(field: &str) -> bool {
    field.len() <= 128
        && field
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-[]/".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_that_could_not_be_written_is_told_of_its_own_object() {
        for kind in ["KmsSecret", "ClusterKmsStore"] {
            let WriteError::Failed(failure) = status_error(&CallError::Timeout, kind, "prod")
            else {
                panic!("a deadline is no conflict");
            };
            let message = failure.message();
            assert!(message.contains(&format!("{kind} \"prod\"")), "{message}");
        }
    }
}
