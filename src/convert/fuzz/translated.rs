//! What External Secrets would have written, and what our KmsSecret makes in its place.

use std::collections::BTreeMap;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::alibaba::fuzz::{Text, odd_text, words};
use crate::alibaba::secret_value::{Facts, SecretValue};
use crate::api::KmsSecret;
use crate::convert::{Options, convert};
use crate::sync::shape::{Sourced, Wanted, shape};

/// Keys of the old Secret, the paths that they were taken by, and where that leads to.
const KEYS: [(&str, &str, &str); 4] = [
    ("user", "a", "/a"),
    ("pass_word", "o.x", "/o/x"),
    ("x1", r"b\.c", "/b.c"),
    ("encoded", "e-1", "/e-1"),
];

/// The value in KMS: some texts, of which one is Base64.
fn values() -> impl Strategy<Value = Value> {
    let text = || prop_oneof![3 => odd_text(12), 1 => words("plain ·  a  · \n · {{ .user }} · {% x %} · Grüße")];
    (text(), text(), text(), text()).prop_map(
        |(a, x, bc, e)| json!({"a": a, "o": {"x": x}, "b.c": bc, "e-1": BASE64_STANDARD.encode(e)}),
    )
}

/// An action of a template of Go, as it can be written in several ways.
#[derive(Clone, Debug)]
struct Action {
    key: usize,
    filter: &'static str,
    space: &'static str,
}

impl Action {
    fn write(&self) -> String {
        let Self { filter, space, .. } = self;
        let key = KEYS[self.key].0;
        let pipe = if filter.is_empty() { "" } else { "|" };
        format!("{{{{{space}.{key}{space}{pipe}{space}{filter}{space}}}}}")
    }

    /// What Go makes of it.
    fn evaluate(&self, value: &Value) -> String {
        let text = value.pointer(KEYS[self.key].2).and_then(Value::as_str);
        let text = text.unwrap().to_owned();
        match self.filter {
            "b64enc" => BASE64_STANDARD.encode(text),
            "b64dec" => String::from_utf8(BASE64_STANDARD.decode(text).unwrap()).unwrap(),
            "upper" => text.to_uppercase(),
            "lower" => text.to_lowercase(),
            "trim" => text.trim().to_owned(),
            _ => text,
        }
    }
}

fn action() -> impl Strategy<Value = Action> {
    let filters = select(vec![
        "", "", "toString", "b64enc", "b64dec", "upper", "lower", "trim",
    ]);
    let space = select(vec!["", " ", " ", "\n ", "\t"]);
    (0..KEYS.len(), filters, space).prop_map(|(key, filter, space)| Action {
        // Go prints the error in the place of what is no Base64, and we fail.
        key: if filter == "b64dec" { 3 } else { key },
        filter,
        space,
    })
}

/// Text between actions, which never begins one.
fn text() -> Text {
    let odd = words("{ · } · }} · % · %} · {% · {# · #} · \n · \r\n · - · é · \u{85} · {-");
    let plain = words("postgres:// · : · @db:5432/ · a b ·   ·  = · \n");
    prop_oneof![12 => plain, 1 => odd, 2 => odd_text(5), 4 => Just(String::new())]
        .prop_map(|mut text| {
            while text.contains("{{") {
                text = text.replace("{{", "{");
            }
            text
        })
        .boxed()
}

/// An `ExternalSecret` with this template.
fn manifest(template: &str) -> String {
    let data = KEYS.map(
        |(key, path, _)| json!({"secretKey": key, "remoteRef": {"key": "shop/db", "property": path}}),
    );
    let object = json!({
        "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret",
        "metadata": {"name": "db", "namespace": "shop"},
        "spec": {
            "secretStoreRef": {"name": "prod"},
            "target": {"template": {"mergePolicy": "Merge", "data": {"made": template}}},
            "data": data,
        }
    });
    serde_saphyr::to_string(&object).unwrap()
}

/// The Secret that the KmsSecret makes of the value.
fn made(manifests: &str, value: &Value) -> BTreeMap<String, String> {
    let object: KmsSecret = serde_saphyr::from_str(manifests).unwrap();
    let value = SecretValue {
        secret_name: "shop/db".into(),
        facts: Facts::default(),
        data: value.to_string().into(),
        extended_config: None,
    };
    let wanted = Wanted {
        data: &object.spec.data,
        extract: &object.spec.extract,
        target_type: "Opaque",
        uid: "uid-1",
    };
    let only = Sourced {
        name: "source",
        value: Some(&value),
    };
    let data = shape(&wanted, &[only]).unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let texts = data.iter();
    texts
        .map(|(key, bytes)| (key.clone(), text(bytes.expose_secret())))
        .collect()
}

proptest! {
    #[test]
    fn the_secret_holds_what_it_held_before_or_the_template_is_refused(
        pieces in vec((text(), action()), 0..5), end in text(), value in values()
    ) {
        let mut template: String = pieces.iter().map(|(text, action)| text.clone() + &action.write()).collect();
        template.push_str(&end);
        let converted = convert(&manifest(&template), &Options::default()).unwrap();
        let texts = || pieces.iter().map(|(text, _)| text).chain([&end]);
        // They mean something to our templates, and Go takes the first braces of three for an action.
        let is_other = texts().any(|text| text.contains("{%") || text.contains("{#") || text.ends_with('{'));
        prop_assert_eq!(converted.manifests.is_empty(), is_other || template.is_empty(), "{:?}", converted.report);
        if !converted.manifests.is_empty() {
            let made = made(&converted.manifests, &value);
            let mut expected: String = pieces.iter().map(|(text, action)| text.clone() + &action.evaluate(&value)).collect();
            expected.push_str(&end);
            prop_assert_eq!(made.get("made"), Some(&expected), "{}", template);
            for (key, _, pointer) in KEYS {
                let held = value.pointer(pointer).and_then(Value::as_str);
                prop_assert_eq!(made.get(key).map(String::as_str), held);
            }
        }
    }
}
