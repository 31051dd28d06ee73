//! Streams of manifests, whole and damaged: each object comes out as the API server takes it, or is refused in words that
//! are safe to print and to paste.

use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value;

use crate::alibaba::fuzz::{Field, Text, any_json, damaged, list, odd_text, quoted, string, words};
use crate::api::{ClusterKmsStore, KmsSecret, KmsStore};
use crate::convert::{Converted, Level, Options, convert};

/// A value of a Secret in the stream.
const VALUE: &str = "value-of-a-secret";

/// An object with some of these fields, nearly always with what fits them.
fn object(fields: Vec<Field>) -> Text {
    let fields: Vec<_> = fields
        .into_iter()
        .map(|(name, fits)| {
            let json = prop_oneof![200 => fits, 1 => any_json()];
            weighted(
                0.93,
                json.prop_map(move |json| format!("{}:{json}", quoted(name))),
            )
        })
        .collect();
    fields
        .prop_map(|fields| {
            let fields: Vec<_> = fields.into_iter().flatten().collect();
            format!("{{{}}}", fields.join(","))
        })
        .boxed()
}

/// One of these, or rarely what somebody hopes is pasted into a shell.
fn name(good: &'static str) -> Text {
    let hostile = words(
        "x; reboot · $(reboot) · `id` · a'b · a\"b · a\nb · a|b · a>b · ../../x · A_B · -n · a b · \u{1b}[2J · \u{202e}",
    );
    string(prop_oneof![200 => words(good), 2 => hostile, 1 => odd_text(12)])
}

fn remote_ref() -> Text {
    object(vec![
        (
            "key",
            name("shop/db · shop/db · acs:kms:cn-hangzhou:1:secret/shop/db"),
        ),
        ("property", name("a · a.b · a\\.b · hosts.0 · password")),
        ("version", name("v1")),
        ("decodingStrategy", name("None · Base64 · Auto")),
        ("conversionStrategy", name("Default · Unicode")),
        ("metadataPolicy", name("None · None · Fetch")),
    ])
}

fn rules(inner: [&'static str; 2]) -> Text {
    let one = object(vec![
        (inner[0], name("^(.*)$ · a+ · ( · [^a]")),
        (inner[1], name("DB_$1 · x · $2")),
    ]);
    list(&one, 2)
}

fn template() -> Text {
    let text = || {
        name(
            "{{ .user }} · postgres://{{ .user }}:{{ .password | toString }}@db · {{ .a | quote }} · plain · {% x",
        )
    };
    let data = object(vec![("dsn", text()), ("tls.crt", text()), ("a b", text())]);
    let labels = || {
        object(vec![
            ("team", name("shop · {{ .a }}")),
            ("kubernetes.io/x", name("y")),
        ])
    };
    object(vec![
        (
            "type",
            name("Opaque · kubernetes.io/tls · kubernetes.io/service-account-token"),
        ),
        ("engineVersion", name("v2 · v2 · v1")),
        ("mergePolicy", name("Merge · Replace")),
        (
            "metadata",
            object(vec![("labels", labels()), ("annotations", labels())]),
        ),
        ("data", data),
    ])
}

fn eso_spec() -> Text {
    let store = object(vec![
        ("name", name("prod · company")),
        ("kind", name("SecretStore · ClusterSecretStore")),
    ]);
    let item = object(vec![
        ("secretKey", name("user · password · user")),
        ("remoteRef", remote_ref()),
    ]);
    let step = object(vec![(
        "regexp",
        object(vec![("source", name("^a$")), ("target", name("b"))]),
    )]);
    let all = object(vec![("extract", remote_ref()), ("rewrite", list(&step, 2))]);
    let target = object(vec![
        ("name", name("db · db-2")),
        ("creationPolicy", name("Owner · Orphan · Merge")),
        ("deletionPolicy", name("Retain · Delete")),
        ("template", template()),
    ]);
    object(vec![
        ("secretStoreRef", store),
        ("data", list(&item, 3)),
        ("dataFrom", list(&all, 2)),
        ("target", target),
        (
            "refreshInterval",
            name("1h · 1h0m0s · 90s · 0 · 1.1h · soon"),
        ),
        (
            "refreshPolicy",
            name("Periodic · Periodic · CreatedOnce · OnChange"),
        ),
    ])
}

fn ack_spec() -> Text {
    let store = || object(vec![("name", name("prod")), ("namespace", name("shop"))]);
    let path = object(vec![
        ("path", name("AccountName · \"a-b\" · a[?")),
        ("objectAlias", name("user · password")),
    ]);
    let key = || name("shop/db · shop/token");
    let item = object(vec![
        ("key", key()),
        ("name", name("token · other")),
        ("versionStage", name("ACSPrevious")),
        ("secretStoreRef", store()),
        ("jmesPath", list(&path, 3)),
        (
            "kmsEndpoint",
            name("kms.cn-hangzhou.aliyuncs.com · kst-1.cryptoservice.kms.aliyuncs.com"),
        ),
    ]);
    let extract = object(vec![("key", key()), ("secretStoreRef", store())]);
    let process = object(vec![
        ("extract", extract),
        ("replaceRule", rules(["source", "target"])),
    ]);
    object(vec![
        ("provider", name("kms")),
        ("type", name("Opaque")),
        ("data", list(&item, 3)),
        ("dataProcess", list(&process, 2)),
        ("rotationInterval", name("1h · 6h")),
        (
            "target",
            object(vec![("name", name("db")), ("template", template())]),
        ),
    ])
}

fn key_ref() -> Text {
    object(vec![
        ("name", name("ak · ak")),
        ("namespace", name("shop")),
        ("key", name("id · secret")),
    ])
}

const ROLE: &str = "acs:ram::1234567890123456:role/reader";
const PROVIDER: &str = "acs:ram::1234567890123456:oidc-provider/ack-rrsa-c1";

fn eso_store() -> Text {
    let rrsa = object(vec![
        ("oidcProviderArn", name(PROVIDER)),
        ("roleArn", name(ROLE)),
        ("sessionName", name("eso")),
    ]);
    let pair = object(vec![
        ("accessKeyIDSecretRef", key_ref()),
        ("accessKeySecretSecretRef", key_ref()),
    ]);
    let auth = prop_oneof![
        object(vec![("rrsa", rrsa)]),
        object(vec![("secretRef", pair)])
    ];
    let alibaba = object(vec![
        ("regionID", name("cn-shanghai · oss-cn-hangzhou · x")),
        ("auth", auth.boxed()),
    ]);
    let condition = object(vec![("namespaces", list(&name("shop · billing"), 2))]);
    object(vec![
        ("provider", object(vec![("alibaba", alibaba)])),
        ("conditions", list(&condition, 2)),
    ])
}

fn ack_store() -> Text {
    let account = object(vec![
        ("name", name("reader")),
        ("namespace", name("shop")),
        ("audiences", list(&name("sts.aliyuncs.com"), 1)),
    ]);
    let by_key = object(vec![
        ("accessKey", key_ref()),
        ("accessKeySecret", key_ref()),
        ("ramRoleARN", name(ROLE)),
        ("ramRoleSessionName", name("shop")),
    ]);
    let by_token = object(vec![
        ("serviceAccountRef", account),
        ("oidcProviderARN", name(PROVIDER)),
        ("remoteRamRoleARN", name(ROLE)),
        ("remoteRamRoleSessionName", name("shop")),
    ]);
    let by_role = object(vec![
        ("oidcProviderARN", name(PROVIDER)),
        ("ramRoleARN", name(ROLE)),
    ]);
    let auth = prop_oneof![by_key, by_token, by_role].boxed();
    object(vec![("KMS", object(vec![("KMSAuth", auth)]))])
}

fn manifest((group, kind): (&'static str, &'static str), spec: &Text) -> Text {
    let metadata = object(vec![
        ("name", name("db · prod · company")),
        ("namespace", name("shop")),
        ("labels", object(vec![("team", name("shop"))])),
    ]);
    (metadata, spec.clone())
        .prop_map(move |(metadata, spec)| {
            format!(
                r#"{{"apiVersion":"{group}","kind":"{kind}","metadata":{metadata},"spec":{spec}}}"#
            )
        })
        .boxed()
}

/// One object, of any kind that is converted or left out.
fn document() -> Text {
    let (eso, ack) = ("external-secrets.io/v1", "alibabacloud.com/v1alpha1");
    let many = object(vec![
        ("externalSecretSpec", eso_spec()),
        ("externalSecretName", name("db")),
        ("namespaces", list(&name("shop · billing"), 3)),
    ]);
    let one = prop_oneof![
        4 => manifest((eso, "ExternalSecret"), &eso_spec()),
        1 => manifest((eso, "ClusterExternalSecret"), &many),
        4 => manifest((ack, "ExternalSecret"), &ack_spec()),
        1 => manifest((eso, "SecretStore"), &eso_store()),
        1 => manifest((eso, "ClusterSecretStore"), &eso_store()),
        1 => manifest((ack, "SecretStore"), &ack_store()),
        1 => manifest((ack, "ClusterSecretStore"), &ack_store()),
        1 => Just(format!(r#"{{"apiVersion":"v1","kind":"Secret","metadata":{{"name":"ak"}},"stringData":{{"id":"{VALUE}"}}}}"#)),
        1 => any_json(),
    ];
    let one = one.boxed();
    let all = list(&one, 3).prop_map(|items| format!(r#"{{"kind":"List","items":{items}}}"#));
    prop_oneof![9 => one, 1 => all].boxed()
}

fn samples() -> Vec<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/convert");
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let inputs = files.filter(|path| path.to_string_lossy().ends_with(".in.yaml"));
    let mut texts: Vec<_> = inputs
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    texts.sort();
    texts
}

/// A stream, whole most of the time.
fn streams() -> Text {
    let whole = vec(document(), 1..4)
        .prop_map(|all| all.join("\n---\n"))
        .boxed();
    let sample = select(samples()).boxed();
    let broken =
        |text: Text| damaged(text).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    prop_oneof![8 => whole.clone(), 1 => broken(whole), 2 => broken(sample)].boxed()
}

fn converted(input: &str) -> Result<Converted, String> {
    let options = Options {
        region: Some("cn-hangzhou".to_owned()),
        service_account: Some("kms-reader".to_owned()),
        namespace: Some("shop".to_owned()),
    };
    convert(input, &options)
}

/// Whether the types of the custom resources read it, and leave nothing of it out.
fn is_ours(document: &Value) -> bool {
    let read = match document["kind"].as_str() {
        Some("KmsSecret") => serde_json::from_value::<KmsSecret>(document.clone())
            .map(|read| serde_json::to_value(read).ok()),
        Some("KmsStore") => serde_json::from_value::<KmsStore>(document.clone())
            .map(|read| serde_json::to_value(read).ok()),
        Some("ClusterKmsStore") => serde_json::from_value::<ClusterKmsStore>(document.clone())
            .map(|read| serde_json::to_value(read).ok()),
        _ => return false,
    };
    read.is_ok_and(|read| read.as_ref() == Some(document))
}

proptest! {
    #[test]
    fn whatever_comes_in_comes_out_as_ours_or_is_refused_in_words_that_are_safe(input in streams()) {
        let converted = match converted(&input) {
            Ok(converted) => converted,
            Err(said) => {
                prop_assert!(said.len() < 300 && !said.contains(char::is_control), "{}", said);
                return Ok(());
            }
        };
        prop_assert!(!converted.manifests.contains(VALUE));
        let documents: Vec<Value> = serde_saphyr::from_multiple(&converted.manifests).unwrap();
        for document in &documents {
            prop_assert!(is_ours(document), "{}", document);
        }
        for line in &converted.report {
            let said = line.to_string();
            prop_assert!(!said.contains(VALUE) && !said.contains(char::is_control), "{}", said);
            if line.level == Level::Do && said.contains("kubectl") {
                prop_assert!(!said.contains(['`', '$', ';', '|', '<', '>', '\\', '(', ')']), "{}", said);
                prop_assert_eq!(said.matches('\'').count() % 2, 0, "{}", said);
            }
        }
    }
}

#[test]
fn many_of_the_streams_make_something() {
    let made =
        |input: &String| converted(input).is_ok_and(|converted| !converted.manifests.is_empty());
    let share = crate::alibaba::fuzz::share(&streams(), made);
    assert!(share >= 60, "{share} of 1000");
}

#[test]
fn bombs_end_in_words() {
    let laughs = (1..30).fold("a0: &a0 [x]\n".to_owned(), |text, n| {
        let before = n - 1;
        text + &format!(
            "a{n}: &a{n} [*a{before},*a{before},*a{before},*a{before},*a{before},*a{before}]\n"
        )
    });
    let sources: Vec<_> = (0..3_000)
        .map(|n| format!(r#"{{"secretKey":"k{n}","remoteRef":{{"key":"s{n}/a"}}}}"#))
        .collect();
    let object = |spec: &str| {
        format!(
            r#"{{"apiVersion":"external-secrets.io/v1","kind":"ExternalSecret","metadata":{{"name":"a"}},"spec":{spec}}}"#
        )
    };
    let many = object(&format!(
        r#"{{"secretStoreRef":{{"name":"p"}},"data":[{}]}}"#,
        sources.join(",")
    ));
    let nested = "{kind: List, items: [".repeat(400) + &"]}".repeat(400);
    for (what, input) in [
        ("laughs", laughs),
        ("open lists", "[".repeat(200_000)),
        ("deep lists", "[".repeat(100_000) + &"]".repeat(100_000)),
        ("deep objects", "{a: ".repeat(100_000)),
        (
            "deep blocks",
            (0..2000).map(|n| " ".repeat(n) + "a:\n").collect(),
        ),
        (
            "deep spec",
            object(&("{\"a\":".repeat(900) + "1" + &"}".repeat(900))),
        ),
        ("lists of lists", nested),
        ("documents", "---\n{}\n".repeat(100_000)),
        (
            "anchors",
            (0..60_000).fold(String::new(), |text, n| text + &format!("- &a{n} x\n")),
        ),
        (
            "a long name",
            object(r#"{"secretStoreRef":{"name":"p"}}"#)
                .replace(r#""a""#, &format!("\"{}\"", "a".repeat(1 << 20))),
        ),
        ("many sources", many),
    ] {
        let made = converted(&input).map_or(0, |converted| converted.manifests.len());
        assert_eq!(made, 0, "{what}");
    }
}
