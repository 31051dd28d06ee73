//! Sessions, as STS and the metadata service of an instance give them, and whose they are.

use jiff::Timestamp;
use proptest::prelude::*;
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::*;
use crate::alibaba::Error;
use crate::alibaba::assume_role::{Session, read_caller, read_instance_session, read_session};
use crate::alibaba::endpoint::is_instance_role;

fn given() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn credentials(more: Vec<Field>) -> Text {
    let key = || string(prop_oneof![9 => Just(PLANTED.to_owned()), 1 => odd_text(20)]);
    let ends = prop_oneof![2 => Just("2026-01-01T01:00:00Z".to_owned()), 1 => date()];
    let mut fields = vec![
        ("AccessKeyId", key()),
        ("AccessKeySecret", key()),
        ("SecurityToken", key()),
        ("Expiration", string(ends)),
    ];
    fields.extend(more);
    object(fields)
}

fn sts_sessions() -> BoxedStrategy<Body> {
    let user = object(vec![
        ("Arn", string(name())),
        ("AssumedRoleId", string(odd_text(9))),
    ]);
    let made = object(vec![
        ("RequestId", string(odd_text(8))),
        ("AssumedRoleUser", user),
        ("Credentials", credentials(Vec::new())),
    ]);
    let sample = json!({
        "RequestId": "6894B13B-6D71-4EF5-88FA-F32781734A7F",
        "AssumedRoleUser": {"Arn": "acs:ram::1:assumed-role/shop/shop.prod", "AssumedRoleId": "3447:shop.prod"},
        "Credentials": {"AccessKeyId": "STS.x", "AccessKeySecret": PLANTED, "SecurityToken": PLANTED,
            "Expiration": "2026-01-01T01:00:00Z"},
    });
    bodies(&made, vec![sample.to_string()])
}

fn instance_sessions() -> BoxedStrategy<Body> {
    let made = credentials(vec![
        (
            "Code",
            string(word(&["Success", "Success", "Success", "Failed"])),
        ),
        ("LastUpdated", string(date())),
    ]);
    let sample = json!({
        "AccessKeyId": "STS.x", "AccessKeySecret": PLANTED, "SecurityToken": PLANTED,
        "Expiration": "2026-01-01T06:00:00Z", "LastUpdated": "2026-01-01T00:00:00Z", "Code": "Success",
    });
    bodies(&made, vec![sample.to_string()])
}

fn callers() -> BoxedStrategy<Body> {
    let made = object(vec![
        ("IdentityType", string(word(&["AssumedRoleUser"]))),
        ("AccountId", string(word(&["1"]))),
        ("Arn", string(name())),
    ]);
    let sample = json!({"AccountId": "1", "Arn": "acs:sts::1:assumed-role/shop/shop.prod", "RequestId": "r"});
    bodies(&made, vec![sample.to_string()])
}

fn is_clean_arn(arn: &str) -> bool {
    arn.len() <= 256
        && arn.starts_with("acs:")
        && arn.bytes().all(|b| b.is_ascii_graphic() && b != b'"')
}

fn check_session(read: Result<Session, Error>, given: Timestamp) -> Result<(), TestCaseError> {
    match read {
        Ok(session) => {
            let lifetime = session.lifetime.unwrap();
            let longest = Timestamp::MAX.duration_since(given).unsigned_abs();
            prop_assert!(!lifetime.is_zero() && lifetime <= longest, "{lifetime:?}");
            let key = &session.key;
            for part in [&key.id, &key.secret, key.security_token.as_ref().unwrap()] {
                let part = part.expose_secret();
                prop_assert!(!part.is_empty() && !part.contains(char::is_control));
            }
            prop_assert!(session.arn.as_deref().is_none_or(is_clean_arn));
            let shown = format!("{session:?}");
            prop_assert!(!reveals(&shown), "{shown}");
        }
        Err(Error::Refused(refusal)) => {
            let said = format!("{refusal} {refusal:?}");
            prop_assert!(!reveals(&said), "{said}");
        }
        Err(error) => check_malformed(&error)?,
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_session_of_sts_is_whole_and_lasts_or_is_none(Body(body) in sts_sessions(), now in -377_705_023_201..=253_402_207_200_i64) {
        check_session(read_session(&body, given()), given())?;
        let now = Timestamp::from_second(now).unwrap();
        check_session(read_session(&body, now), now)?;
    }

    #[test]
    fn a_session_of_an_instance_is_whole_and_lasts_or_is_none(Body(body) in instance_sessions()) {
        check_session(read_instance_session(&body, given()), given())?;
    }

    #[test]
    fn a_caller_is_named_by_a_clean_arn_or_not_at_all(Body(body) in callers()) {
        match read_caller(&body) {
            Ok(arn) => prop_assert!(is_clean_arn(&arn), "{}", arn),
            Err(error) => check_malformed(&error)?,
        }
    }

    #[test]
    fn the_name_of_a_role_stays_one_part_of_a_path(name in prop_oneof![odd_text(12), name(), "[.a-]{0,4}"]) {
        if is_instance_role(&name) {
            let url = url::Url::parse(&format!("http://100.100.100.200/roles/{name}")).unwrap();
            prop_assert_eq!(url.path(), format!("/roles/{name}"));
            prop_assert!(url.query().is_none() && url.fragment().is_none());
        }
    }
}

#[test]
fn many_of_the_sessions_are_read() {
    let is_session = |Body(body): &Body| read_session(body, given()).is_ok();
    let is_of_instance = |Body(body): &Body| read_instance_session(body, given()).is_ok();
    let is_caller = |Body(body): &Body| read_caller(body).is_ok();
    for (read, least) in [
        (share(&sts_sessions(), is_session), 80),
        (share(&instance_sessions(), is_of_instance), 80),
        (share(&callers(), is_caller), 100),
    ] {
        assert!(read >= least, "{read} of 1000, where {least} were expected");
    }
}
