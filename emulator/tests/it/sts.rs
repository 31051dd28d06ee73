//! Identities and sessions.

use std::time::Duration;

use crate::client::{ID, ask, get, start};

const ROLE: &str = "acs:ram::1234567890123456:role/reader";

#[test]
fn a_key_learns_who_it_is() {
    let kms = start();
    let me = ask(&kms, "GetCallerIdentity", &[]).send(&kms).json();
    assert_eq!(me["AccountId"], "1234567890123456");
    assert_eq!(me["Arn"], format!("acs:ram::1234567890123456:user/{ID}"));
    assert!(me["UserId"].is_string());
}

#[test]
fn an_assumed_role_reads_secrets_until_it_expires() {
    let kms = start();
    kms.put_generic("s", "x");
    let params = [("RoleArn", ROLE), ("RoleSessionName", "ns.store")];
    let answer = ask(&kms, "AssumeRole", &params).send_v1(&kms).json();
    let part = |name: &str| answer["Credentials"][name].as_str().unwrap().to_owned();
    let (id, secret, token) = (
        part("AccessKeyId"),
        part("AccessKeySecret"),
        part("SecurityToken"),
    );
    assert!(id.starts_with("STS."));
    assert_eq!(
        get(&kms, "s")
            .key(&id, &secret, Some(&token))
            .send(&kms)
            .data(),
        "x"
    );
    let me = ask(&kms, "GetCallerIdentity", &[])
        .key(&id, &secret, Some(&token))
        .send(&kms)
        .json();
    assert_eq!(
        me["Arn"],
        "acs:ram::1234567890123456:assumed-role/reader/ns.store"
    );
    kms.advance(Duration::from_secs(3601));
    let late = get(&kms, "s").key(&id, &secret, Some(&token)).send(&kms);
    assert_eq!(late.code(), "InvalidSecurityToken.Expired");
}

#[test]
fn wrong_parameters_of_assume_role_have_their_codes() {
    let kms = start();
    let code = |arn: &str, session: &str, seconds: &str| {
        let params = [
            ("RoleArn", arn),
            ("RoleSessionName", session),
            ("DurationSeconds", seconds),
        ];
        ask(&kms, "AssumeRole", &params).send(&kms).code()
    };
    assert_eq!(code("role", "ns.store", "900"), "InvalidParameter.RoleArn");
    assert_eq!(
        code(ROLE, "no spaces", "900"),
        "InvalidParameter.RoleSessionName"
    );
    assert_eq!(
        code(ROLE, "ns.store", "60"),
        "InvalidParameter.DurationSeconds"
    );
    kms.add_role("acs:ram::1234567890123456:role/other");
    assert_eq!(code(ROLE, "ns.store", "900"), "EntityNotExist.Role");
}
