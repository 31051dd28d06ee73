//! The admin API: batches, roles, providers, policies, the instance and accounts.

use kms_emulator::TokenIssuer;
use serde_json::{Value, json};

use crate::admin::{look, post, send};
use crate::client::{ID, ask, get, plain, query, start};

const ROLE: &str = "acs:ram::1234567890123456:role/reader";
const PROVIDER: &str = "acs:ram::1234567890123456:oidc-provider/p";

#[test]
fn batches_are_switched_and_reads_are_told() {
    let kms = start();
    kms.put_generic("a", "x");
    let list = [("SecretsList", r#"[{"SecretName":"a"},{"SecretName":"b"}]"#)];
    let read = || ask(&kms, "BatchGetSecretValue", &list).send(&kms);
    assert_eq!(read().status, 200);
    let reads = look(&kms, "reads");
    assert_eq!(reads[0]["secret"], "a");
    assert_eq!(reads[1]["outcome"], "Forbidden.ResourceNotFound");
    assert_eq!(look(&kms, "calls")[0]["items"].as_array().unwrap().len(), 2);
    let counts = look(&kms, "counts");
    assert_eq!(counts["counts"].as_array().unwrap().len(), 1);
    assert_eq!(counts["reads"].as_array().unwrap().len(), 2);
    post(&kms, "batch", &json!({ "support": "Unsupported" }));
    assert_eq!(read().code(), "UnsupportedOperation");
    let twice = [("SecretsList", r#"[{"SecretName":"a"},{"SecretName":"a"}]"#)];
    post(
        &kms,
        "batch",
        &json!({ "support": "Present", "refuses_repeats": true }),
    );
    let repeated = ask(&kms, "BatchGetSecretValue", &twice).send(&kms);
    assert_eq!(repeated.status, 400);
    let ways =
        json!({ "support": "Present", "shuffled": true, "plain_names": true, "costs_one": true });
    post(&kms, "batch", &ways);
    post(&kms, "throttle", &json!({ "rate": 0.001, "burst": 2 }));
    assert_eq!(
        (read().status, read().status, read().status),
        (200, 200, 429)
    );
}

#[test]
fn roles_and_providers_are_added() {
    let kms = start();
    let assume = |id: &str| {
        let params = [
            ("RoleArn", ROLE),
            ("RoleSessionName", "ns"),
            ("ExternalId", id),
        ];
        ask(&kms, "AssumeRole", &params).send(&kms).code()
    };
    let role = json!({ "arn": ROLE, "trusts": [ID], "external_id": "e1", "max_session": 3600 });
    post(&kms, "roles/put", &role);
    assert_eq!(
        (assume("e1"), assume("e2")),
        (String::new(), "NoPermission".to_owned())
    );
    let issuer = TokenIssuer::es256("https://i.test").unwrap();
    let jwks: Value = serde_json::from_str(&issuer.jwks()).unwrap();
    let provider = json!({ "arn": PROVIDER, "issuer": issuer.issuer(), "jwks": jwks });
    post(&kms, "oidc/provider", &provider);
    let trust = json!({ "role": ROLE, "provider": PROVIDER, "subject": "me" });
    post(&kms, "oidc/role", &trust);
    post(&kms, "sessions", &json!({ "lifetime": 60 }));
    let token = issuer.token("me", kms.now(), "2100-01-01T00:00:00Z".parse().unwrap());
    let params = [
        ("Action", "AssumeRoleWithOIDC"),
        ("Version", "2015-04-01"),
        ("Format", "JSON"),
        ("RoleArn", ROLE),
        ("OIDCProviderArn", PROVIDER),
        ("OIDCToken", &token),
        ("RoleSessionName", "ns"),
    ];
    let params = params.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let answer = plain(&kms, &format!("GET /?{}", query(&params)), &[], "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    post(&kms, "roles/remove", &json!({ "arn": ROLE }));
    let odd = json!({ "arn": PROVIDER, "issuer": "i", "jwks": [] });
    assert_eq!(
        send(&kms, "POST", "oidc/provider", &odd.to_string()).status,
        400
    );
}

#[test]
fn policies_are_laid_down_and_cleared() {
    let kms = start();
    kms.put_generic("a", "x");
    let read = || get(&kms, "a").send(&kms).status;
    for (verb, body) in [
        ("deny", json!({ "who": ID, "secret": "*" })),
        ("allow-only", json!({ "who": ID, "secrets": ["b"] })),
        ("deny-decrypt", json!({ "who": ID })),
    ] {
        post(&kms, &format!("policies/{verb}"), &body);
        assert_eq!(read(), 403, "{verb}");
        post(&kms, "policies/clear", &json!({}));
        assert_eq!(read(), 200, "{verb}");
    }
}

#[test]
fn the_instance_has_a_role_and_accounts_have_keys() {
    let kms = start();
    let instance = json!({ "role": "worker", "mode": "V1Only", "lifetime": 60 });
    post(&kms, "metadata", &instance);
    let roles = || {
        plain(
            &kms,
            "GET /latest/meta-data/ram/security-credentials/",
            &[],
            "",
        )
    };
    assert_eq!(roles().text(), "worker");
    post(&kms, "metadata", &json!({ "role": "" }));
    assert_eq!(roles().status, 404);
    let key = json!({ "id": "LTAI2", "secret": "two", "account": "42" });
    post(&kms, "keys/add", &key);
    let me = || {
        ask(&kms, "GetCallerIdentity", &[])
            .key("LTAI2", "two", None)
            .send(&kms)
    };
    assert_eq!(me().json()["AccountId"], "42");
    post(
        &kms,
        "throttle",
        &json!({ "account": "42", "rate": 0.001, "burst": 1 }),
    );
    assert_eq!((me().status, me().status), (200, 429));
    post(&kms, "throttle", &json!({ "account": "42" }));
    assert_eq!(me().status, 200);
    assert_eq!(send(&kms, "POST", "throttle", r#"{"rate":1}"#).status, 400);
}
