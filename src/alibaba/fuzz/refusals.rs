//! Answers of any other status: JSON in the spellings of several gateways, XML, and what stands between.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value;

use super::*;
use crate::alibaba::answer::read_refusal;
use crate::alibaba::{Class, Error, Refusal, label};

const CODES: &[&str] = &[
    "Forbidden.NoPermission",
    "Forbidden.ResourceNotFound",
    "SignatureDoesNotMatch",
    "Throttling.User",
    "InvalidSecurityToken.Expired",
    "Made.Up",
];
const DENIED: &[&str] = &["kms:GetSecretValue", "role:shop.prod", "ImplicitDeny"];

/// As KMS echoes what it would have signed.
const MESSAGE: &str = "server string to sign is:POST&%2F&SecurityToken%3DS +e =c ~r ?e !t";

fn in_json() -> Text {
    let message = || Just(quoted(MESSAGE)).boxed();
    let denied = object(vec![
        ("AuthAction", string(word(DENIED))),
        ("AuthPrincipalDisplayName", string(word(DENIED))),
        ("NoPermissionType", string(word(DENIED))),
        (
            "PolicyType",
            prop_oneof![Just(quoted(PLANTED)), any_json()].boxed(),
        ),
        ("EncodedDiagnosticMessage", message()),
    ]);
    let capital = object(vec![
        ("Code", string(word(CODES))),
        ("RequestId", string(word(&["6894B13B-6D71"]))),
        ("Message", message()),
        ("AccessDeniedDetail", denied.clone()),
        ("HttpStatus", any_json()),
    ]);
    let small = object(vec![
        ("code", string(word(CODES))),
        ("requestId", string(word(&["6894B13B-6D71"]))),
        ("message", message()),
        ("accessDeniedDetail", denied),
    ]);
    prop_oneof![2 => capital, 1 => small].boxed()
}

/// XML that holds the fields, and much that no gateway of today sends.
fn in_xml() -> Text {
    let escaped = |text: &str| quick_xml::escape::escape(text).into_owned();
    let texts = prop_oneof![
        8 => select(CODES).prop_map(str::to_owned),
        2 => Just(MESSAGE.to_owned()),
        2 => odd_text(12).prop_map(move |text| escaped(&text)),
        1 => odd_text(12),
        1 => select(CODES).prop_map(|code| format!("<![CDATA[{code}]]>")),
        1 => select(CODES).prop_map(|code| format!("<!-- {code} -->{code}<?x y?>")),
        1 => Just("&lt;&#65;&#x10ffff;&#0;&none;&x".to_owned()),
        1 => (1..2000_usize).prop_map(|depth| format!("{}1{}", "<a>".repeat(depth), "</a>".repeat(depth))),
    ]
    .boxed();
    let element = |names: Vec<&'static str>| {
        (select(names), texts.clone(), any::<u8>()).prop_map(|(name, text, form)| match form {
            0..4 => format!("<{name}/>"),
            4..8 => format!("<{name}>{text}"),
            8..16 => format!("<{name} a=\"{text}\">{text}</{name} >"),
            16..24 => format!("{text}<{name}>{text}</{name}>"),
            _ => format!("<{name}>{text}</{name}>"),
        })
    };
    let more = element(vec![
        "RequestId",
        "Message",
        "HostId",
        "Code",
        "code",
        "Error",
        "x:Code",
    ]);
    let head = select(vec![
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>",
        "<?xml version=\"1.0\"?><!DOCTYPE Error [<!ENTITY none \"S +e =c ~r ?e !t\">]>",
        "\u{feff}",
        "",
    ]);
    (head, element(vec!["Code"]), vec(more, 0..3))
        .prop_map(|(head, code, more)| format!("{head}<Error>{code}{}</Error>", more.concat()))
        .boxed()
}

/// Answers that refuse.
pub(crate) fn refusals() -> BoxedStrategy<Body> {
    let made = prop_oneof![3 => in_json(), 2 => in_xml()].boxed();
    bodies(&made, samples(false))
}

fn is_clean(word: &str) -> bool {
    (1..=128).contains(&word.len())
        && word
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._:/@-".contains(&b))
}

fn check(refusal: &Refusal, status: u16) -> Result<(), TestCaseError> {
    let code = refusal.code.as_deref();
    prop_assert!(code.is_none_or(|code| Refusal::clean_code(code).is_some()));
    prop_assert_eq!(refusal.class, Class::of(status, code));
    prop_assert!(code.is_none_or(|code| label(code).len() <= 64));
    prop_assert!(refusal.request_id.as_deref().is_none_or(is_clean));
    let denied = refusal.denied.clone().unwrap_or_default();
    let words = [denied.action, denied.principal, denied.kind, denied.policy];
    prop_assert!(words.iter().flatten().all(|word| is_clean(word)));
    let wait = refusal.retry_after;
    prop_assert!(wait.is_none_or(|wait| !wait.is_zero() && wait <= Duration::from_secs(600)));
    let error = Error::Refused(Box::new(refusal.clone()));
    let said = format!("{error} {error:?}");
    prop_assert!(!reveals(&said), "{said}");
    prop_assert!(error.to_string().len() <= 80, "{error}");
    Ok(())
}

/// The code that a body of JSON tells in one of its spellings, if it is one.
fn told(body: &[u8]) -> Option<String> {
    let json: Value = serde_json::from_slice(body).ok()?;
    let mut codes = ["Code", "code"]
        .into_iter()
        .filter_map(|name| json.get(name));
    Refusal::clean_code(codes.find(|code| !code.is_null())?.as_str()?)
}

proptest! {
    #[test]
    fn a_refusal_keeps_its_code_and_clean_words(
        Body(body) in refusals(),
        status in 201..600_u16,
        retry_after in proptest::option::of(prop_oneof![
            any::<i64>().prop_map(|ms| ms.to_string()), (0..2000).prop_map(|ms| format!(" {ms} ")), odd_text(9)
        ]),
    ) {
        let refusal = read_refusal(status, &body, retry_after.as_deref());
        check(&refusal, status)?;
        if let Some(code) = told(&body) {
            prop_assert_eq!(refusal.code, Some(code));
        }
    }
}

#[test]
fn many_of_the_refusals_are_read() {
    let has_code = |Body(body): &Body| read_refusal(400, body, None).code.is_some();
    let all = share(&refusals(), has_code);
    let xml = in_xml().prop_map(|xml| Body(xml.into_bytes())).boxed();
    let xml = share(&xml, has_code);
    assert!(all >= 300 && xml >= 300, "{all} and {xml} of 1000");
}
