//! Signatures, stage by stage, against requests that official SDKs sent.
//!
//! Reads every file in `tests/vectors/`, and in the directory `EXTRA_VECTORS` if that is set.

use std::path::{Path, PathBuf};

use kms_secret_operator::alibaba::Class;
use kms_secret_operator::alibaba::secret_value::read_secret_value;
use kms_secret_operator::alibaba::sign::{
    canonical_query, hex_sha256, v1_signature, v1_string_to_sign, v3_canonical_request,
    v3_signature, v3_string_to_sign,
};
use serde_json::Value;

/// What an HTTP client adds after the request was signed.
const UNSIGNED: [&str; 4] = [
    "authorization",
    "accept-encoding",
    "content-length",
    "connection",
];

fn files() -> Vec<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    #[expect(clippy::disallowed_methods, reason = "a test's own configuration")]
    let extra = std::env::var("EXTRA_VECTORS").ok().map(PathBuf::from);
    let mut files = Vec::new();
    for dir in [Some(own), extra].into_iter().flatten() {
        let entries =
            std::fs::read_dir(&dir).unwrap_or_else(|err| panic!("{}: {err}", dir.display()));
        files.extend(
            entries
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.extension().is_some_and(|e| e == "json")),
        );
    }
    files
}

fn list(file: &Path, name: &str) -> Vec<Value> {
    let json: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    json[name].as_array().cloned().unwrap_or_default()
}

fn all(name: &str) -> Vec<Value> {
    files().iter().flat_map(|file| list(file, name)).collect()
}

fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value[name].as_str()
}

/// Query and form parameters as they were sent, without the signature.
fn parameters(request_line: &str, body: &str) -> Vec<(String, String)> {
    let target = request_line.split(' ').nth(1).unwrap();
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let decode = |text: &str| {
        url::form_urlencoded::parse(text.as_bytes())
            .into_owned()
            .collect::<Vec<_>>()
    };
    let mut parameters = decode(query);
    parameters.extend(decode(body));
    parameters.retain(|(name, _)| name != "Signature");
    parameters
}

fn pairs(parameters: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
    parameters
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
}

/// The request of a vector: a request line, and a body.
fn request(vector: &Value) -> (&str, &str) {
    let request = if vector["final"].is_object() {
        &vector["final"]
    } else {
        &vector["requests"][0]
    };
    (
        text(request, "request_line").unwrap(),
        text(request, "body").unwrap_or_default(),
    )
}

fn check_v1(vector: &Value) {
    let id = &vector["id"];
    let (line, body) = request(vector);
    let method = line.split(' ').next().unwrap();
    let parameters = parameters(line, body);
    let string_to_sign = v1_string_to_sign(method, &canonical_query(pairs(&parameters)));
    assert_eq!(
        string_to_sign,
        text(vector, "string_to_sign").unwrap(),
        "{id}"
    );
    let secret = text(&vector["inputs"], "access_key_secret").unwrap();
    assert_eq!(
        v1_signature(&string_to_sign, secret),
        text(vector, "signature").unwrap(),
        "{id}"
    );
}

fn check_v3(vector: &Value) {
    let id = &vector["id"];
    let (line, body) = request(vector);
    let method = line.split(' ').next().unwrap();
    let payload = hex_sha256(body.as_bytes());
    let headers: Vec<(String, String)> = vector["final"]["headers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pair| {
            (
                pair[0].as_str().unwrap().to_lowercase(),
                pair[1].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    let expected = text(vector, "canonical_request").unwrap();
    // Which headers are signed differs between the SDKs; the list stands in the last line but one.
    let signed: Vec<&str> = expected.lines().rev().nth(1).unwrap().split(';').collect();
    let headers: Vec<_> = pairs(&headers)
        .filter(|(name, _)| !UNSIGNED.contains(name) && signed.contains(name))
        .collect();
    let query = parameters(line, "");
    let (canonical, names) =
        v3_canonical_request(method, &canonical_query(pairs(&query)), &headers, &payload);
    assert_eq!(canonical, expected, "{id}");
    assert_eq!(names, signed.join(";"), "{id}");
    let string_to_sign = v3_string_to_sign(&canonical);
    assert_eq!(
        string_to_sign,
        text(vector, "string_to_sign").unwrap(),
        "{id}"
    );
    let secret = text(&vector["inputs"], "access_key_secret").unwrap();
    assert_eq!(
        v3_signature(&string_to_sign, secret),
        text(vector, "signature").unwrap(),
        "{id}"
    );
}

#[test]
fn every_vector_is_met_at_every_stage() {
    let (mut v1, mut v3) = (0, 0);
    for vector in all("vectors")
        .iter()
        .filter(|vector| vector["signature"].is_string())
    {
        if vector["canonical_request"].is_string() {
            check_v3(vector);
            v3 += 1;
        } else {
            check_v1(vector);
            v1 += 1;
        }
    }
    assert!(v1 >= 57 && v3 >= 38, "{v1} {v3}");
}

#[test]
fn answers_are_read_as_the_official_sdk_reads_them_or_better() {
    let cases = all("cases");
    assert!(cases.len() >= 23);
    for case in cases {
        let (id, body) = (text(&case, "id").unwrap(), text(&case, "body").unwrap());
        if case["status"] == 200 {
            let value = read_secret_value(body.as_bytes());
            // An empty value and a broken answer are errors; the array of JSON text, which the SDK cannot read, is not.
            let broken = [
                "ok_missing_optional_fields",
                "ok_200_truncated_json",
                "ok_200_empty_body",
            ];
            assert_eq!(value.is_err(), broken.contains(&id), "{id}");
            if let Ok(value) = value {
                assert_eq!(value.facts.version_stages[0], "ACSCurrent", "{id}");
            }
        } else {
            let status = case["status"].as_u64().unwrap().try_into().unwrap();
            let class = match id {
                "err_404_not_found" => Class::NotFound,
                "err_403_no_permission_with_detail" => Class::Denied,
                "err_400_signature_mismatch" => Class::Credential,
                "err_400_xml_body" | "err_404_dryrun" => Class::Rejected,
                _ if id.contains("throttling") => Class::Throttled,
                _ => Class::Unavailable,
            };
            assert_eq!(
                Class::of(status, text(&case["new_sdk"], "code")),
                class,
                "{id}"
            );
        }
    }
}
