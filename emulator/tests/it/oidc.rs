//! Roles for tokens.

use std::time::Duration;

use kms_emulator::jiff::{SignedDuration, Timestamp};
use kms_emulator::{Emulator, Role, TokenIssuer};
use serde_json::{Value, json};

use crate::client::{Answer, Session, ask, get, plain, query, start};

const ROLE: &str = "acs:ram::1234567890123456:role/kms-reader";
const PROVIDER: &str = "acs:ram::1234567890123456:oidc-provider/ack-rrsa-c1";
const SUBJECT: &str = "system:serviceaccount:shop:orders";
const FORM: [(&str, &str); 1] = [("content-type", "application/x-www-form-urlencoded")];

struct Setting {
    kms: Emulator,
    issuer: TokenIssuer,
}

impl Setting {
    fn new(issuer: TokenIssuer) -> Self {
        let kms = start();
        kms.put_generic("s", "x");
        kms.add_oidc_provider(PROVIDER, issuer.issuer(), &issuer.jwks())
            .unwrap();
        kms.add_oidc_role(ROLE, PROVIDER, SUBJECT);
        Self { kms, issuer }
    }

    fn fast() -> Self {
        Self::new(TokenIssuer::es256("https://oidc.test/c1").unwrap())
    }

    fn token(&self) -> String {
        let now = self.kms.now();
        self.issuer
            .token(SUBJECT, now, now + SignedDuration::from_secs(600))
    }

    fn ask(&self, changes: &[(&str, &str)]) -> Vec<(String, String)> {
        let token = self.token();
        let mut params: Vec<(String, String)> = [
            ("Action", "AssumeRoleWithOIDC"),
            ("Version", "2015-04-01"),
            ("Format", "JSON"),
            ("RoleArn", ROLE),
            ("OIDCProviderArn", PROVIDER),
            ("OIDCToken", &token),
            ("RoleSessionName", "shop.store"),
        ]
        .into_iter()
        .filter(|(name, _)| changes.iter().all(|(changed, _)| changed != name))
        .chain(changes.iter().copied())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
        params.retain(|(_, value)| !value.is_empty());
        params
    }

    fn send(&self, changes: &[(&str, &str)]) -> Answer {
        let form = query(&self.ask(changes));
        plain(&self.kms, "POST /", &FORM, &form)
    }

    fn code(&self, changes: &[(&str, &str)]) -> (u16, String) {
        let answer = self.send(changes);
        (answer.status, answer.code())
    }

    fn code_of_claims(&self, claims: &Value) -> String {
        self.code(&[("OIDCToken", &self.issuer.sign(claims))]).1
    }

    fn claims(&self) -> Value {
        let now = self.kms.now().as_second();
        json!({
            "iss": "https://oidc.test/c1", "sub": SUBJECT, "aud": "sts.aliyuncs.com",
            "iat": now, "nbf": now, "exp": now + 600,
        })
    }
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[test]
fn a_token_becomes_a_session_that_reads_until_it_expires() {
    for issuer in [TokenIssuer::rs256, TokenIssuer::es256] {
        let set = Setting::new(issuer("https://oidc.test/c1").unwrap());
        let kms = &set.kms;
        let answer = set.send(&[("DurationSeconds", "900")]);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let answer = answer.json();
        let user = &answer["AssumedRoleUser"];
        assert_eq!(
            user["Arn"],
            "acs:ram::1234567890123456:assumed-role/kms-reader/shop.store"
        );
        assert_eq!(answer["OIDCTokenInfo"]["Subject"], SUBJECT);
        assert_eq!(answer["OIDCTokenInfo"]["Issuer"], "https://oidc.test/c1");
        let session = Session::in_answer(&answer["Credentials"]);
        assert!(session.id.starts_with("STS."));
        let expires: Timestamp = session.expires.parse().unwrap();
        let left = expires.duration_since(kms.now());
        assert!(left <= SignedDuration::from_secs(900) && left > SignedDuration::from_secs(890));
        let read = || session.sign(get(kms, "s")).send(kms);
        assert_eq!(read().data(), "x");
        kms.advance(Duration::from_secs(901));
        assert_eq!(read().code(), "InvalidSecurityToken.Expired");
        let call = kms.calls().remove(0);
        assert_eq!(
            (call.action.as_str(), call.access_key),
            ("AssumeRoleWithOIDC", None)
        );
    }
}

#[test]
fn the_token_may_come_in_the_url() {
    let set = Setting::fast();
    let head = format!("GET /?{}", query(&set.ask(&[])));
    assert_eq!(plain(&set.kms, &head, &[], "").status, 200);
}

#[test]
fn tokens_that_are_old_early_or_for_others_are_refused() {
    let set = Setting::fast();
    assert_eq!(set.code_of_claims(&set.claims()), "");
    let changed = |name: &str, value: Value| {
        let mut claims = set.claims();
        claims[name] = value;
        set.code_of_claims(&claims)
    };
    let now = set.kms.now().as_second();
    let invalid = "AuthenticationFail.OIDCToken.Invalid";
    assert_eq!(
        changed("exp", json!(now - 1)),
        "AuthenticationFail.OIDCToken.Expired"
    );
    assert_eq!(changed("nbf", json!(now + 60)), invalid);
    assert_eq!(changed("exp", Value::Null), invalid);
    assert_eq!(changed("aud", json!(["https://kubernetes"])), invalid);
    assert_eq!(changed("aud", json!(["other", "sts.aliyuncs.com"])), "");
    assert_eq!(changed("iss", json!("https://oidc.test/c2")), invalid);
    assert_eq!(
        changed("sub", json!("system:serviceaccount:shop:other")),
        "AuthenticationFail.NoPermission"
    );
    let token = set.token();
    set.kms.advance(Duration::from_secs(601));
    let late = set.code(&[("OIDCToken", &token)]);
    assert_eq!(late, refused(400, "AuthenticationFail.OIDCToken.Expired"));
}

#[test]
fn tokens_that_the_provider_did_not_sign_are_refused() {
    let set = Setting::fast();
    let invalid = refused(400, "AuthenticationFail.OIDCToken.Invalid");
    let stranger = TokenIssuer::es256("https://oidc.test/c1").unwrap();
    assert_eq!(
        set.code(&[("OIDCToken", &stranger.sign(&set.claims()))]),
        invalid
    );
    let (head, rest) = set
        .token()
        .split_once('.')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    let (_, signature) = rest.split_once('.').unwrap();
    let other = "eyJpc3MiOiJ4In0";
    assert_eq!(
        set.code(&[("OIDCToken", &format!("{head}.{other}.{signature}"))]),
        invalid
    );
    // {"alg":"none"} and {"alg":"HS256"}
    for head in ["eyJhbGciOiJub25lIn0", "eyJhbGciOiJIUzI1NiJ9"] {
        let token = format!("{head}.{}.", rest.split_once('.').unwrap().0);
        assert_eq!(set.code(&[("OIDCToken", &token)]), invalid);
    }
    assert_eq!(set.code(&[("OIDCToken", "junk")]), invalid);
    set.kms
        .add_oidc_provider(PROVIDER, stranger.issuer(), &stranger.jwks())
        .unwrap();
    assert_eq!(set.code(&[]), invalid);
    assert!(set.kms.add_oidc_provider(PROVIDER, "i", "no jwks").is_err());
}

#[test]
fn wrong_parameters_have_their_codes() {
    let set = Setting::fast();
    let other_role = "acs:ram::1234567890123456:role/other";
    let other_provider = "acs:ram::1234567890123456:oidc-provider/other";
    let cases = [
        ("RoleArn", "", 400, "MissingParameter"),
        (
            "RoleArn",
            "role/kms-reader",
            400,
            "InvalidParameter.RoleArn",
        ),
        ("RoleArn", other_role, 404, "EntityNotExist.Role"),
        ("OIDCProviderArn", "", 400, "MissingParameter"),
        (
            "OIDCProviderArn",
            "acs:ram::9:oidc-provider/x",
            400,
            "InvalidParameter.OIDCProviderArn",
        ),
        (
            "OIDCProviderArn",
            other_provider,
            404,
            "EntityNotExist.OIDCProvider",
        ),
        ("OIDCToken", "", 400, "MissingParameter"),
        ("OIDCToken", "abc", 400, "InvalidParameter.OIDCToken"),
        (
            "RoleSessionName",
            "a b",
            400,
            "InvalidParameter.RoleSessionName",
        ),
        (
            "DurationSeconds",
            "899",
            400,
            "InvalidParameter.DurationSeconds",
        ),
        (
            "DurationSeconds",
            "3601",
            400,
            "InvalidParameter.DurationSeconds",
        ),
        ("Policy", "{", 400, "InvalidParameter.PolicyGrammar"),
    ];
    for (name, value, status, code) in cases {
        assert_eq!(
            set.code(&[(name, value)]),
            refused(status, code),
            "{name}={value}"
        );
    }
    let longer = Role::new(ROLE)
        .trusting_oidc(PROVIDER, "system:serviceaccount:shop:*")
        .max_session(Duration::from_secs(7200));
    set.kms.put_role(longer);
    assert_eq!(set.send(&[("DurationSeconds", "7200")]).status, 200);
    set.kms
        .add_oidc_provider(other_provider, set.issuer.issuer(), &set.issuer.jwks())
        .unwrap();
    assert_eq!(
        set.code(&[("OIDCProviderArn", other_provider)]),
        refused(403, "AuthenticationFail.NoPermission")
    );
}

#[test]
fn a_role_for_tokens_is_not_for_keys_and_leads_to_the_next_role() {
    let set = Setting::fast();
    let kms = &set.kms;
    let next = "acs:ram::9876543210987654:role/remote";
    kms.put_role(Role::new(next).trusting(ROLE));
    kms.put_generic("acs:kms:cn-hangzhou:9876543210987654:secret/s", "theirs");
    let assume = |arn: &str| {
        let params = [("RoleArn", arn), ("RoleSessionName", "shop.store")];
        ask(kms, "AssumeRole", &params)
    };
    assert_eq!(assume(ROLE).send(kms).code(), "NoPermission");
    assert_eq!(assume(next).send(kms).code(), "NoPermission");
    let first = Session::in_answer(&set.send(&[]).json()["Credentials"]);
    let second = first.sign(assume(next)).send(kms).json();
    let second = Session::in_answer(&second["Credentials"]);
    assert_eq!(second.sign(get(kms, "s")).send(kms).data(), "theirs");
    assert_eq!(first.sign(get(kms, "s")).send(kms).data(), "x");
}
