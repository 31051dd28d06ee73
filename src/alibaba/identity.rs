//! Why there are no credentials, and at which step of getting them that showed. Pure.

use std::fmt;

use super::{Class, Error};

/// No credentials could be had.
#[derive(Clone, Debug)]
pub struct NoIdentity {
    /// The step that failed.
    pub step: Step,
    /// Why it failed.
    pub cause: Cause,
}

/// A step on the way to credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Getting the token that proves who asks.
    Proof,
    /// `AssumeRoleWithOIDC`, for the role of this ARN.
    Federated(String),
    /// The credentials of the instance's role.
    Instance,
    /// `AssumeRole`: its place in the chain, and the role's ARN.
    Hop(usize, String),
}

/// Why a step failed.
#[derive(Clone, Debug)]
pub enum Cause {
    /// STS or the metadata service refused, or did not answer.
    Call(Error),
    /// There is no token, in the words of the one that was to bring it.
    Proof(NoProof),
}

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoProof {
    /// `Denied`: it may not be used. `NotFound`: there is none. Anything else passes by itself.
    pub class: Class,
    /// What happened.
    pub what: String,
    /// What to do, and who can do it.
    pub action: String,
}

impl NoIdentity {
    /// The failed call to STS or the metadata service.
    #[must_use]
    pub fn call(&self) -> Option<&Error> {
        match &self.cause {
            Cause::Call(error) => Some(error),
            Cause::Proof(_) => None,
        }
    }

    /// What it means for a read that needs the credentials: `Unavailable` if it passes by itself, else `Credential`.
    /// Never `Throttled`: that STS asks for fewer calls says nothing of how fast KMS may be read.
    #[must_use]
    pub fn class(&self) -> Class {
        let class = match &self.cause {
            Cause::Call(error) => error.class(),
            Cause::Proof(no) => no.class,
        };
        match class {
            Class::Unavailable | Class::Throttled | Class::Clock | Class::Nonce => {
                Class::Unavailable
            }
            _ => Class::Credential,
        }
    }

    /// Who was to bring the proof says that it may not be used, or not any more.
    #[must_use]
    pub fn is_withdrawn(&self) -> bool {
        matches!(&self.cause, Cause::Proof(no) if matches!(no.class, Class::Denied | Class::NotFound))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proof => write!(f, "the token"),
            Self::Federated(role) => write!(f, "AssumeRoleWithOIDC {role}"),
            Self::Instance => write!(f, "the instance's role"),
            Self::Hop(place, role) => write!(f, "assumeRole[{place}] {role}"),
        }
    }
}

impl fmt::Display for NoIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::Call(error) => write!(f, "{}: {error}", self.step),
            Cause::Proof(no) => write!(f, "{}", no.what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alibaba::Refusal;

    #[test]
    fn a_refusal_of_sts_is_one_of_the_identity_and_its_outage_is_not() {
        let class = |status, code: &str| {
            let refusal = Refusal::of_code(status, Some(code));
            let no = NoIdentity {
                step: Step::Hop(0, "acs:ram::1:role/a".into()),
                cause: Cause::Call(Error::Refused(Box::new(refusal))),
            };
            no.class()
        };
        assert_eq!(class(403, "NoPermission"), Class::Credential);
        assert_eq!(class(404, "EntityNotExist.Role"), Class::Credential);
        assert_eq!(
            class(400, "InvalidParameter.PolicyGrammar"),
            Class::Credential
        );
        assert_eq!(class(500, "InternalError"), Class::Unavailable);
        assert_eq!(class(429, "Throttling.User"), Class::Unavailable);
    }
}
