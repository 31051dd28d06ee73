//! Sessions as STS of 2015-04-01 and the metadata service of an instance give them: how they are asked for, and what is
//! read of the answers. Pure.

use std::time::Duration;

use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::{lenient, read_json};
use super::{AccessKey, Error, Operation, Refusal};

const VERSION: &str = "2015-04-01";
/// The longest `RoleSessionName` that every page of the documents allows.
const SESSION_NAME_MAX: usize = 32;

/// What a session should be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The name of the session: what the audit log shows.
    pub session_name: String,
    /// How long it should last; STS gives an hour when left out.
    pub duration_seconds: Option<u32>,
    /// A policy that narrows what the session may do.
    pub policy: Option<String>,
}

/// A role to assume by the credentials in hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// ARN of the role.
    pub role_arn: String,
    /// What the role's owner asks to be told.
    pub external_id: Option<String>,
    /// The session.
    pub wish: Wish,
}

/// Credentials that end.
#[derive(Clone, Debug)]
pub struct Session {
    /// The key.
    pub key: AccessKey,
    /// How long it is good for, counted from the answer; `None`: for ever.
    pub lifetime: Option<Duration>,
    /// ARN of the session, where it was told.
    pub arn: Option<String>,
}

/// A name for sessions that fits: `name` itself, or its beginning and a hash of all of it.
#[must_use]
pub fn session_name(name: &str, hash: u64) -> String {
    if name.len() <= SESSION_NAME_MAX {
        return name.to_owned();
    }
    let hash = format!("{hash:016x}");
    // The names of Kubernetes are ASCII.
    let head: String = name.chars().take(SESSION_NAME_MAX - 9).collect();
    format!("{head}-{}", &hash[..8])
}

/// `AssumeRole`, to be signed by the credentials in hand.
#[must_use]
pub fn assume_role(hop: &Hop) -> Operation {
    let mut form = role_form(&hop.role_arn, &hop.wish);
    form.extend(
        hop.external_id
            .iter()
            .map(|id| ("ExternalId", id.as_str().into())),
    );
    operation("AssumeRole", form)
}

/// `AssumeRoleWithOIDC`, which is not signed: the token is the proof.
#[must_use]
pub fn assume_role_with_oidc(
    provider_arn: &str,
    role_arn: &str,
    token: &SecretString,
    wish: &Wish,
) -> Operation {
    let mut form = role_form(role_arn, wish);
    form.push(("OIDCProviderArn", provider_arn.into()));
    form.push(("OIDCToken", token.clone()));
    operation("AssumeRoleWithOIDC", form)
}

/// `GetCallerIdentity`: who the credentials in hand are.
#[must_use]
pub fn get_caller_identity() -> Operation {
    operation("GetCallerIdentity", Vec::new())
}

fn operation(action: &'static str, form: Vec<(&'static str, SecretString)>) -> Operation {
    Operation {
        action,
        version: VERSION,
        parameters: Vec::new(),
        form,
    }
}

fn role_form(role_arn: &str, wish: &Wish) -> Vec<(&'static str, SecretString)> {
    let mut form = vec![
        ("RoleArn", role_arn.into()),
        ("RoleSessionName", wish.session_name.as_str().into()),
    ];
    form.extend(
        wish.duration_seconds
            .map(|seconds| ("DurationSeconds", seconds.to_string().into())),
    );
    form.extend(
        wish.policy
            .iter()
            .map(|policy| ("Policy", policy.as_str().into())),
    );
    form
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireCredentials {
    access_key_id: SecretString,
    access_key_secret: SecretString,
    security_token: SecretString,
    expiration: String,
}

/// The session that either call gives; `given` is when, by the clock of STS.
///
/// # Errors
/// `Malformed`, with the place and nothing of the text.
pub fn read_session(body: &[u8], given: Timestamp) -> Result<Session, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Wire<'a> {
        #[serde(borrow)]
        credentials: &'a RawValue,
        #[serde(default)]
        assumed_role_user: User,
    }
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "PascalCase")]
    struct User {
        #[serde(default, deserialize_with = "lenient")]
        arn: Option<String>,
    }
    let wire: Wire<'_> = read_json(body)?;
    let credentials: WireCredentials = read_json(wire.credentials.get().as_bytes())?;
    let arn = wire.assumed_role_user.arn.filter(|arn| is_arn(arn));
    Ok(Session {
        arn,
        ..credentials.session(given)?
    })
}

/// The session of an instance's role, as the metadata service tells it.
///
/// # Errors
/// A refusal, if its `Code` is another than `Success`; `Malformed`, with the place and nothing of the text.
pub fn read_instance_session(body: &[u8], given: Timestamp) -> Result<Session, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Wire {
        #[serde(default, deserialize_with = "lenient")]
        code: Option<String>,
    }
    let wire: Wire = read_json(body)?;
    if wire.code.as_deref() != Some("Success") {
        let refusal = Refusal::of_code(200, wire.code.as_deref());
        return Err(Error::Refused(Box::new(refusal)));
    }
    read_json::<WireCredentials>(body)?.session(given)
}

/// Who called: the ARN out of the answer of `GetCallerIdentity`.
///
/// # Errors
/// `Malformed`, with the place and nothing of the text.
pub fn read_caller(body: &[u8]) -> Result<String, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Wire {
        arn: String,
    }
    let Wire { arn } = read_json(body)?;
    if is_arn(&arn) {
        Ok(arn)
    } else {
        Err(Error::Malformed("Arn is none".into()))
    }
}

impl WireCredentials {
    fn session(self, given: Timestamp) -> Result<Session, Error> {
        for (name, value) in [
            ("AccessKeyId", &self.access_key_id),
            ("AccessKeySecret", &self.access_key_secret),
            ("SecurityToken", &self.security_token),
        ] {
            // They go into headers.
            let value = value.expose_secret();
            if value.is_empty() || value.chars().any(char::is_control) {
                return Err(Error::Malformed(format!("{name} is none")));
            }
        }
        let expires: Timestamp = self
            .expiration
            .parse()
            .map_err(|_| Error::Malformed("Expiration is no time".into()))?;
        let lifetime = Duration::try_from(expires.duration_since(given))
            .ok()
            .filter(|lifetime| !lifetime.is_zero())
            .ok_or_else(|| Error::Malformed("the credentials have expired already".into()))?;
        Ok(Session {
            key: AccessKey {
                id: self.access_key_id,
                secret: self.access_key_secret,
                security_token: Some(self.security_token),
            },
            lifetime: Some(lifetime),
            arn: None,
        })
    }
}

/// An ARN that may be shown.
fn is_arn(text: &str) -> bool {
    text.len() <= 256
        && text.starts_with("acs:")
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._:/@-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const ROLE: &str = "acs:ram::1234567890123456:role/shop";

    fn wish() -> Wish {
        Wish {
            session_name: "shop.prod".into(),
            duration_seconds: None,
            policy: None,
        }
    }

    fn names(operation: &Operation) -> Vec<&'static str> {
        operation.form.iter().map(|(name, _)| *name).collect()
    }

    fn given() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn credentials() -> Value {
        json!({
            "AccessKeyId": "STS.N", "AccessKeySecret": "planted-secret", "SecurityToken": "planted-token",
            "Expiration": "2026-01-01T01:00:00Z",
        })
    }

    fn session(credentials: &Value) -> Result<Session, Error> {
        let user = json!({"Arn": "acs:ram::1234567890123456:assumed-role/shop/shop.prod"});
        let answer = json!({"RequestId": "r", "AssumedRoleUser": user, "Credentials": credentials});
        read_session(answer.to_string().as_bytes(), given())
    }

    #[test]
    fn only_what_was_given_is_asked_for_and_all_of_it_in_the_body() {
        let hop = Hop {
            role_arn: ROLE.into(),
            external_id: None,
            wish: wish(),
        };
        assert_eq!(names(&assume_role(&hop)), ["RoleArn", "RoleSessionName"]);
        let hop = Hop {
            external_id: Some("x-1".into()),
            wish: Wish {
                duration_seconds: Some(900),
                policy: Some("{}".into()),
                ..wish()
            },
            ..hop
        };
        let operation = assume_role(&hop);
        assert!(names(&operation).contains(&"ExternalId"));
        assert!(names(&operation).contains(&"DurationSeconds"));
        assert!(names(&operation).contains(&"Policy"));
        let operation = assume_role_with_oidc("acs:p", ROLE, &"token".into(), &wish());
        assert!(names(&operation).contains(&"OIDCToken"));
        assert!(operation.parameters.is_empty());
    }

    #[test]
    fn a_session_lasts_from_the_answer_to_its_expiration() {
        let session = session(&credentials()).unwrap();
        assert_eq!(session.lifetime, Some(Duration::from_secs(3600)));
        assert!(
            session
                .arn
                .unwrap()
                .ends_with("assumed-role/shop/shop.prod")
        );
        let shown = format!("{:?}", session.key);
        assert!(!shown.contains("planted"), "{shown}");
    }

    #[test]
    fn what_is_missing_empty_or_over_is_no_session() {
        for (field, value) in [
            ("AccessKeyId", json!(null)),
            ("AccessKeySecret", json!("")),
            ("SecurityToken", json!("a\r\nb")),
            ("Expiration", json!("soon")),
            ("Expiration", json!("2026-01-01T00:00:00Z")),
            ("Expiration", json!("1999-01-01T00:00:00Z")),
        ] {
            let mut broken = credentials();
            broken[field] = value;
            let error = session(&broken).unwrap_err();
            assert!(matches!(error, Error::Malformed(_)), "{field}");
            assert!(!error.to_string().contains("planted"));
        }
    }

    #[test]
    fn a_list_is_no_session() {
        let list = r#"["STS.N", "planted-secret", "planted-token", "2026-01-01T01:00:00Z"]"#;
        for body in [format!("[{list}]"), format!(r#"{{"Credentials":{list}}}"#)] {
            assert!(read_session(body.as_bytes(), given()).is_err(), "{body}");
        }
        assert!(read_instance_session(br#"["Success"]"#, given()).is_err());
        assert!(read_caller(br#"["acs:ram::1:role/shop"]"#).is_err());
    }

    #[test]
    fn an_instance_answers_success_or_nothing_counts() {
        let mut answer = credentials();
        answer["Code"] = "Success".into();
        let read = |answer: &Value| read_instance_session(answer.to_string().as_bytes(), given());
        assert!(read(&answer).is_ok());
        answer["Code"] = "Failed".into();
        assert_eq!(read(&answer).unwrap_err().code(), Some("Failed"));
        assert!(read(&credentials()).is_err());
    }

    #[test]
    fn a_long_session_name_keeps_its_beginning_and_stays_unique() {
        assert_eq!(session_name("shop.prod", 7), "shop.prod");
        let name = "a-namespace-of-a-rather-long-name.prod";
        let (one, other) = (session_name(name, 1 << 40), session_name(name, 2 << 40));
        assert_eq!(one.len(), SESSION_NAME_MAX);
        assert!(one.starts_with("a-namespace-of-a-rather"));
        assert_ne!(one, other);
    }

    proptest! {
        #[test]
        fn session_names_are_legal(name in "[a-z0-9.@-]{2,300}", hash in any::<u64>()) {
            let name = session_name(&name, hash);
            prop_assert!((2..=32).contains(&name.len()));
            prop_assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b".@_-".contains(&b)));
        }
    }
}
