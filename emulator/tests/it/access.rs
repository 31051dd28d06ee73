//! Trust, policies, accounts and their limits.

use std::time::Duration;

use kms_emulator::{Emulator, Role, Throttle};
use serde_json::json;

use crate::client::{Answer, ID, SECRET, Session, ask, get, start};

const ROLE: &str = "acs:ram::1234567890123456:role/reader";
const OTHER: &str = "9876543210987654";

fn assume(kms: &Emulator, arn: &str, more: &[(&str, &str)]) -> Answer {
    let mut params = vec![("RoleArn", arn), ("RoleSessionName", "ns.store")];
    params.extend(more);
    ask(kms, "AssumeRole", &params).send_v1(kms)
}

fn session(kms: &Emulator, arn: &str, more: &[(&str, &str)]) -> Session {
    let answer = assume(kms, arn, more);
    assert_eq!(answer.status, 200, "{}", answer.text());
    Session::in_answer(&answer.json()["Credentials"])
}

#[test]
fn a_role_is_assumed_by_whom_it_trusts() {
    let kms = start();
    kms.add_access_key("LTAIother", "other");
    let user = format!("acs:ram::1234567890123456:user/{ID}");
    for trusted in [ID, &user, "acs:ram::1234567890123456:root", "*"] {
        kms.put_role(Role::new(ROLE).trusting(trusted));
        assert_eq!(assume(&kms, ROLE, &[]).status, 200, "{trusted}");
    }
    kms.put_role(Role::new(ROLE).trusting("LTAIother"));
    assert_eq!(assume(&kms, ROLE, &[]).code(), "NoPermission");
    assert_eq!(assume(&kms, ROLE, &[]).status, 403);
    assert!(kms.remove_role(ROLE));
    kms.add_role("acs:ram::1234567890123456:role/unrelated");
    assert_eq!(assume(&kms, ROLE, &[]).code(), "EntityNotExist.Role");
}

#[test]
fn external_id_and_duration_are_what_the_role_says() {
    let kms = start();
    let role = Role::new(ROLE).trusting(ID).external_id("ext-1");
    kms.put_role(role.max_session(Duration::from_secs(1800)));
    let code = |more: &[(&str, &str)]| assume(&kms, ROLE, more).code();
    let (right, short) = (("ExternalId", "ext-1"), ("DurationSeconds", "1800"));
    assert_eq!(code(&[right, short]), "");
    assert_eq!(code(&[short]), "NoPermission");
    assert_eq!(code(&[("ExternalId", "ext-2"), short]), "NoPermission");
    assert_eq!(
        code(&[("ExternalId", "a b"), short]),
        "InvalidParameter.ExternalId"
    );
    assert_eq!(code(&[right]), "InvalidParameter.DurationSeconds");
}

#[test]
fn a_session_lasts_by_the_clock_that_the_answers_show() {
    let kms = start();
    kms.put_generic("s", "x");
    kms.set_skew(kms_emulator::jiff::SignedDuration::from_mins(10));
    let mut asked = ask(
        &kms,
        "AssumeRole",
        &[("RoleArn", ROLE), ("RoleSessionName", "ns")],
    );
    asked = asked.with("DurationSeconds", "900");
    let answer = asked.send(&kms);
    let session = Session::in_answer(&answer.json()["Credentials"]);
    let expires: kms_emulator::jiff::Timestamp = session.expires.parse().unwrap();
    let left = expires.duration_since(kms.now()).as_secs();
    assert!((1495..=1500).contains(&left), "{left}");
    assert_eq!(session.sign(get(&kms, "s")).send(&kms).status, 200);
    kms.advance(Duration::from_secs(902));
    let late = session.sign(get(&kms, "s")).send(&kms);
    assert_eq!(late.code(), "InvalidSecurityToken.Expired");
}

#[test]
fn a_policy_of_the_session_takes_away() {
    let kms = start();
    kms.put_generic("app/a", "x");
    kms.put_generic("app/b", "x");
    let policy = json!({
        "Version": "1",
        "Statement": [
            { "Effect": "Allow", "Action": "kms:Get*", "Resource": "acs:kms:*:*:secret/app/*" },
            { "Effect": "Deny", "Action": ["*"], "Resource": ["acs:kms:*:*:secret/app/b"] },
        ],
    });
    let session = session(&kms, ROLE, &[("Policy", &policy.to_string())]);
    let read = |name: &str| session.sign(get(&kms, name)).send(&kms);
    assert_eq!((read("app/a").status, read("app/b").status), (200, 403));
    let detail = &read("app/b").json()["AccessDeniedDetail"];
    assert_eq!(detail["PolicyType"], "SessionPolicy");
    let described = session.sign(ask(&kms, "DescribeSecret", &[("SecretName", "app/a")]));
    assert_eq!(described.send(&kms).status, 403);
    let odd = assume(&kms, ROLE, &[("Policy", r#"{"Version":"1"}"#)]);
    assert_eq!(odd.code(), "InvalidParameter.PolicyGrammar");
    let long = " ".repeat(2049);
    let long = assume(&kms, ROLE, &[("Policy", &long)]);
    assert_eq!(long.code(), "InvalidParameter.PolicySize");
}

#[test]
fn a_denied_secret_is_denied_in_every_way() {
    let kms = start();
    kms.put_generic("app/a", "x");
    kms.put_generic("other", "x");
    kms.deny(ID, "app/*");
    let denied = get(&kms, "app/a").send(&kms);
    assert_eq!(
        (denied.status, denied.code().as_str()),
        (403, "Forbidden.NoPermission")
    );
    let detail = &denied.json()["AccessDeniedDetail"];
    assert_eq!(detail["AuthAction"], "kms:GetSecretValue");
    assert_eq!(detail["AuthPrincipalType"], "SubUser");
    assert_eq!(detail["AuthPrincipalOwnerId"], "1234567890123456");
    assert!(
        !detail["AuthPrincipalDisplayName"]
            .as_str()
            .unwrap()
            .is_empty()
    );
    assert_eq!(detail["NoPermissionType"], "ExplicitDeny");
    assert_eq!(detail["PolicyType"], "AccountLevelIdentityBasedPolicy");
    assert_eq!(get(&kms, "app/missing").send(&kms).status, 403);
    assert_eq!(get(&kms, "other").send(&kms).status, 200);
    let described = ask(&kms, "DescribeSecret", &[("SecretName", "app/a")]).send(&kms);
    assert_eq!(
        described.json()["AccessDeniedDetail"]["AuthAction"],
        "kms:DescribeSecret"
    );
    let list = r#"[{"SecretName":"app/a"},{"SecretName":"other"}]"#;
    let batch = ask(&kms, "BatchGetSecretValue", &[("SecretsList", list)]).send(&kms);
    assert_eq!(batch.json()["Errors"][0]["Code"], "Forbidden.NoPermission");
    assert_eq!(batch.json()["SecretValues"][0]["SecretName"], "other");
    let dry = |name: &str| get(&kms, name).with("DryRun", "true").send(&kms);
    assert_eq!(dry("app/a").code(), "AccessDeniedError");
    assert!(dry("app/a").json()["AccessDeniedDetail"].is_object());
    assert_eq!(dry("other").code(), "DryRunOperationError");
    kms.clear_policies();
    assert_eq!(get(&kms, "app/a").send(&kms).status, 200);
}

#[test]
fn only_what_is_allowed_is_readable_and_decrypt_is_apart() {
    let kms = start();
    kms.put_generic("app/a", "x");
    kms.put_generic("app/b", "x");
    kms.allow_only(ROLE, &["acs:kms:*:*:secret/app/a"]);
    let session = session(&kms, ROLE, &[]);
    let read = |name: &str| session.sign(get(&kms, name)).send(&kms);
    assert_eq!((read("app/a").status, read("app/b").status), (200, 403));
    let detail = &read("app/b").json()["AccessDeniedDetail"];
    assert_eq!(detail["NoPermissionType"], "ImplicitDeny");
    assert_eq!(detail["AuthPrincipalType"], "AssumedRoleUser");
    assert_eq!(detail["AuthPrincipalDisplayName"], "reader:ns.store");
    kms.allow_only(ROLE, &["app/b"]);
    assert_eq!(read("app/b").status, 200);
    assert_eq!(get(&kms, "app/b").send(&kms).status, 200);
    kms.deny_decrypt(ROLE);
    let denied = read("app/a");
    assert_eq!(
        denied.json()["AccessDeniedDetail"]["AuthAction"],
        "kms:Decrypt"
    );
    let described = session.sign(ask(&kms, "DescribeSecret", &[("SecretName", "app/a")]));
    assert_eq!(described.send(&kms).status, 200);
    assert_eq!(get(&kms, "app/a").send(&kms).status, 200);
}

#[test]
fn each_account_has_its_own_names_and_its_own_limit() {
    let kms = start();
    kms.add_access_key_of(OTHER, "LTAIother", "other");
    let theirs = format!("acs:kms:cn-hangzhou:{OTHER}:secret/s");
    kms.put_generic("s", "ours");
    kms.put_generic(&theirs, "theirs");
    let read = |name: &str| get(&kms, name).key("LTAIother", "other", None).send(&kms);
    assert_eq!(
        (read("s").data(), read(&theirs).data()),
        ("theirs".to_owned(), "theirs".to_owned())
    );
    let ours = "acs:kms:cn-hangzhou:1234567890123456:secret/s";
    assert_eq!(read(ours).data(), "ours");
    assert_eq!(get(&kms, "s").send(&kms).data(), "ours");
    assert_eq!(kms.count_reads(&theirs), 2);
    let me = ask(&kms, "GetCallerIdentity", &[]).key("LTAIother", "other", None);
    assert_eq!(me.send(&kms).json()["AccountId"], OTHER);
    kms.throttle(Some(Throttle::new(0.001, 1.0)));
    assert_eq!((read("s").status, read("s").status), (200, 429));
    assert_eq!(get(&kms, "s").key(ID, SECRET, None).send(&kms).status, 200);
    kms.throttle_account(OTHER, None);
    assert_eq!((read("s").status, read("s").status), (200, 200));
    assert_eq!(get(&kms, "s").send(&kms).status, 429);
}
