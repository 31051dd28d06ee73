//! From what KMS answered to the data of the Secret: everything or nothing.

use std::collections::BTreeMap;

use jmespath::Variable;
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use serde_json::Value;

use crate::alibaba::secret_value::{Facts, SecretValue, decode_base64};
use crate::api::kms_secret::{DataItem, Decode, Document};
use crate::sync::{Failure, Reason};

/// The data of a Secret.
pub type Data = BTreeMap<String, SecretSlice<u8>>;

/// The key that holds the whole value where the spec names no keys.
const WHOLE_KEY: &str = "value";
/// The API server's limit on the data of a Secret.
const DATA_MAX: usize = 1 << 20;
/// A miss lists this many of the fields that are there.
const NAMES_MAX: usize = 20;

/// A source by its name, and its value; `None`: it is optional and does not exist.
#[derive(Clone, Copy, Debug)]
pub struct Sourced<'a> {
    /// Name of the source.
    pub name: &'a str,
    /// What KMS answered.
    pub value: Option<&'a SecretValue>,
}

/// Makes the data of the Secret: every item, or a failure that names the item and quotes no value. Only the items of
/// optional sources that do not exist are left out.
///
/// # Errors
/// `ValueInvalid`, `SpecInvalid`; `SecretNotFound` if nothing would be left.
pub fn shape(
    items: &[DataItem],
    target_type: &str,
    sources: &[Sourced<'_>],
) -> Result<Data, Failure> {
    let whole;
    let items = if items.is_empty() {
        whole = [DataItem {
            key: WHOLE_KEY.into(),
            source: None,
            from: None,
            path: None,
            decode: None,
        }];
        &whole[..]
    } else {
        items
    };
    let mut data = Data::new();
    for item in items {
        if let Some(value) = value_of(item, sources)? {
            data.insert(item.key.clone(), shape_item(item, value)?);
        }
    }
    if data.is_empty() {
        return Err(Failure::new(
            Reason::SecretNotFound,
            "none of the optional sources exists, so no key would be left",
            "create one of them in KMS; an empty Secret is never written",
        ));
    }
    check_required_keys(target_type, &data)?;
    let size: usize = data
        .iter()
        .map(|(key, bytes)| key.len() + bytes.expose_secret().len())
        .sum();
    if size > DATA_MAX {
        return Err(Failure::new(
            Reason::ValueInvalid,
            format!(
                "the data would have {size} bytes, more than the {DATA_MAX} that a Secret holds"
            ),
            "take fewer keys",
        ));
    }
    Ok(data)
}

/// The value that an item is taken from; `None` if its source is optional and does not exist.
fn value_of<'a>(
    item: &DataItem,
    sources: &[Sourced<'a>],
) -> Result<Option<&'a SecretValue>, Failure> {
    let found = match (&item.source, sources) {
        (None, [only]) => Some(only),
        (None, _) => None,
        (Some(name), _) => sources.iter().find(|source| source.name == name),
    };
    // The schema rules it out; an object from before the rule could still ask for it.
    found.map(|source| source.value).ok_or_else(|| {
        Failure::new(
            Reason::SpecInvalid,
            format!("key {:?} does not name one of spec.sources", item.key),
            "name it by data[].source",
        )
    })
}

fn shape_item(item: &DataItem, value: &SecretValue) -> Result<SecretSlice<u8>, Failure> {
    let document = document(item, value)?;
    let text = match &item.path {
        None => document,
        Some(path) => search(item, path, &document, &value.facts)?,
    };
    let is_whole_value = item.path.is_none() && item.from.unwrap_or_default() == Document::Value;
    let encoded = match item.decode.unwrap_or_default() {
        Decode::Base64 => true,
        Decode::None => false,
        Decode::Auto => is_whole_value && value.facts.is_binary(),
    };
    if !encoded {
        return Ok(text.expose_secret().as_bytes().to_vec().into());
    }
    decode_base64(text.expose_secret()).map_err(|_| {
        Failure::new(
            Reason::ValueInvalid,
            format!(
                "key {:?}: the text is not Base64 (standard alphabet, padded)",
                item.key
            ),
            "store Base64 in KMS, or set decode: None on the key to take the text as it is",
        )
    })
}

fn document(item: &DataItem, value: &SecretValue) -> Result<SecretString, Failure> {
    match item.from.unwrap_or_default() {
        Document::Value => Ok(value.data.clone()),
        Document::ExtendedConfig => value.extended_config.clone().ok_or_else(|| {
            Failure::new(
                Reason::ValueInvalid,
                format!("key {:?}: KMS answered no extended configuration", item.key),
                "set fetchExtendedConfig: true on the source; generic secrets have none",
            )
        }),
    }
}

/// Evaluates a path: text stays text, anything else becomes compact JSON, and nothing is a failure.
fn search(
    item: &DataItem,
    path: &str,
    document: &SecretString,
    facts: &Facts,
) -> Result<SecretString, Failure> {
    let key = &item.key;
    let expression = jmespath::compile(path).map_err(|err| {
        Failure::new(
            Reason::SpecInvalid,
            format!(
                "key {key:?}: the path is not a JMESPath expression (column {})",
                err.column + 1
            ),
            "mend the path; see jmespath.org",
        )
    })?;
    let json = parse(item, document, facts)?;
    let found = expression.search(&json).map_err(|_| {
        Failure::new(
            Reason::ValueInvalid,
            format!(
                "key {key:?}: the path does not fit the value: a function got what it cannot take"
            ),
            "mend the path, or the value in KMS",
        )
    })?;
    // A projection or a filter that selects nothing answers an empty list, where a field that is not there answers null.
    let selects_nothing =
        path.contains(['[', '*']) && matches!(&*found, Variable::Array(items) if items.is_empty());
    match &*found {
        _ if selects_nothing => Err(nothing(item, path, &json)),
        Variable::Number(number) if loses_digits(number) => Err(Failure::new(
            Reason::ValueInvalid,
            format!(
                "key {key:?}: the number at the path is larger than what a JSON number keeps exactly"
            ),
            "store it as text in KMS",
        )),
        Variable::Null => Err(nothing(item, path, &json)),
        Variable::String(text) => Ok(text.clone().into()),
        other => Ok(other.to_string().into()),
    }
}

fn nothing(item: &DataItem, path: &str, json: &Value) -> Failure {
    Failure::new(
        Reason::ValueInvalid,
        format!(
            "key {:?}: the path {path:?} finds nothing{}",
            item.key,
            field_names(json)
        ),
        "mend the path, or the value in KMS",
    )
}

/// Beyond 2^53 a floating-point number no longer holds every whole one.
fn loses_digits(number: &serde_json::Number) -> bool {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    number.is_f64() && number.as_f64().is_some_and(|number| number.abs() >= EXACT)
}

fn parse(item: &DataItem, document: &SecretString, facts: &Facts) -> Result<Value, Failure> {
    let invalid = |what: &str| {
        Failure::new(
            Reason::ValueInvalid,
            format!("key {:?}: a path needs JSON, but {what}", item.key),
            "store JSON in KMS, or leave the path out to take the whole value",
        )
    };
    let text = document.expose_secret();
    if item.from.unwrap_or_default() == Document::ExtendedConfig {
        return parse_twice_escaped(text)
            .ok_or_else(|| invalid("the extended configuration is none"));
    }
    if facts.is_binary() {
        let bytes = decode_base64(text).map_err(|_| invalid("the binary value is not Base64"))?;
        return serde_json::from_slice(bytes.expose_secret())
            .map_err(|_| invalid("the binary value is none"));
    }
    serde_json::from_str(text).map_err(|err| {
        invalid(&format!(
            "the value is none (line {} column {})",
            err.line(),
            err.column()
        ))
    })
}

/// `ExtendedConfig` is a string that holds JSON; in the newest document's example it is escaped once more.
fn parse_twice_escaped(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok().or_else(|| {
        let unescaped: String = serde_json::from_str(&format!("\"{text}\"")).ok()?;
        serde_json::from_str(&unescaped).ok()
    })
}

/// The names of the fields that are there, never their values.
fn field_names(json: &Value) -> String {
    let Value::Object(fields) = json else {
        return " (the value is JSON, but not an object)".into();
    };
    let names: Vec<_> = fields
        .keys()
        .take(NAMES_MAX)
        .map(|name| format!("{:?}", name.chars().take(64).collect::<String>()))
        .collect();
    let more = if fields.len() > NAMES_MAX {
        ", …"
    } else {
        ""
    };
    format!(" (the fields are {}{more})", names.join(", "))
}

/// The keys that the API server asks of a type, said before it is asked to write.
fn check_required_keys(target_type: &str, data: &Data) -> Result<(), Failure> {
    let required: &[&str] = match target_type {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/basic-auth" => {
            let either = ["username", "password"];
            if either.iter().any(|key| data.contains_key(*key)) {
                return Ok(());
            }
            &["username", "password"]
        }
        _ => &[],
    };
    let missing: Vec<_> = required
        .iter()
        .filter(|key| !data.contains_key(**key))
        .copied()
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        Reason::SpecInvalid,
        format!(
            "a Secret of type {target_type} needs the keys {}",
            missing.join(", ")
        ),
        "add them to spec.data",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(data: &str) -> SecretValue {
        SecretValue {
            secret_name: "a".into(),
            facts: Facts::default(),
            data: data.into(),
            extended_config: None,
        }
    }

    fn item(key: &str, path: Option<&str>, decode: Option<Decode>) -> DataItem {
        DataItem {
            key: key.into(),
            source: None,
            from: None,
            path: path.map(Into::into),
            decode,
        }
    }

    /// Shapes one source.
    fn shape(items: &[DataItem], target_type: &str, value: &SecretValue) -> Result<Data, Failure> {
        let only = Sourced {
            name: "source",
            value: Some(value),
        };
        super::shape(items, target_type, &[only])
    }

    fn one(
        path: Option<&str>,
        decode: Option<Decode>,
        value: &SecretValue,
    ) -> Result<Vec<u8>, Failure> {
        let data = shape(&[item("k", path, decode)], "Opaque", value)?;
        Ok(data["k"].expose_secret().to_vec())
    }

    #[test]
    fn without_items_the_whole_value_is_under_the_key_value() {
        let data = shape(&[], "Opaque", &value("pa ss\n")).unwrap();
        assert_eq!(data.keys().collect::<Vec<_>>(), ["value"]);
        assert_eq!(data["value"].expose_secret(), b"pa ss\n");
    }

    #[test]
    fn a_path_takes_text_as_it_is_and_the_rest_as_json() {
        let json = value(
            r#"{"a":"x\ny","n":5432,"big":12345678901234567890,"o":{"b":[1,true,null]},"e":"","密":"码"}"#,
        );
        for (path, expected) in [
            ("a", "x\ny"),
            ("n", "5432"),
            ("big", "12345678901234567890"),
            ("o", r#"{"b":[1,true,null]}"#),
            ("o.b[0]", "1"),
            ("e", ""),
            ("\"密\"", "码"),
            ("join('-', ['p', a])", "p-x\ny"),
        ] {
            assert_eq!(
                one(Some(path), None, &json).unwrap(),
                expected.as_bytes(),
                "{path}"
            );
        }
    }

    #[test]
    fn a_miss_names_the_fields_and_no_value() {
        let json = value(r#"{"AccountName":"top","AccountPassword":"secret-value"}"#);
        let failure = one(Some("Password"), None, &json).unwrap_err();
        let message = failure.message();
        assert_eq!(failure.reason, Reason::ValueInvalid);
        assert!(
            message.contains("AccountName") && message.contains("AccountPassword"),
            "{message}"
        );
        assert!(!message.contains("secret-value"), "{message}");
    }

    #[test]
    fn what_cannot_be_shaped_is_a_failure_without_the_value() {
        let text = value("secret-value");
        let json = value(
            r#"{"a":"secret-value","list":[{"n":"x","p":1}],"huge":12345678901234567890123}"#,
        );
        for (path, decode, value, reason) in [
            (Some("a"), None, &text, Reason::ValueInvalid),
            (Some("a["), None, &json, Reason::SpecInvalid),
            (Some("abs(a)"), None, &json, Reason::ValueInvalid),
            (Some("nope(a)"), None, &json, Reason::ValueInvalid),
            (
                Some("list[?n=='nobody'].p"),
                None,
                &json,
                Reason::ValueInvalid,
            ),
            (Some("huge"), None, &json, Reason::ValueInvalid),
            (Some("a"), Some(Decode::Base64), &json, Reason::ValueInvalid),
            (None, Some(Decode::Base64), &text, Reason::ValueInvalid),
        ] {
            let failure = one(path, decode, value).unwrap_err();
            assert_eq!(failure.reason, reason, "{path:?}");
            assert!(
                !format!("{failure:?}").contains("secret-value"),
                "{failure:?}"
            );
        }
    }

    #[test]
    fn binary_is_decoded_or_it_is_an_error() {
        let mut binary = value("AAEC/w==");
        binary.facts.secret_data_type = Some("binary".into());
        assert_eq!(one(None, None, &binary).unwrap(), [0, 1, 2, 255]);
        assert_eq!(one(None, Some(Decode::None), &binary).unwrap(), b"AAEC/w==");
        binary.data = "testdata1".into();
        let failure = one(None, None, &binary).unwrap_err();
        assert!(failure.message().contains("decode: None"));
        binary.data = "eyJhIjoiYiJ9".into();
        assert_eq!(one(Some("a"), None, &binary).unwrap(), b"b");
    }

    #[test]
    fn one_bad_item_spoils_everything() {
        let items = [item("a", Some("a"), None), item("b", Some("b"), None)];
        assert!(shape(&items, "Opaque", &value(r#"{"a":"1"}"#)).is_err());
    }

    #[test]
    fn each_key_is_taken_from_its_source_and_left_out_with_it() {
        let (new, old) = (value("new"), value("old"));
        let mut items = [item("now", None, None), item("before", None, None)];
        items[0].source = Some("current".into());
        items[1].source = Some("previous".into());
        let shaped = |current: bool, previous: bool| {
            let sources = [
                ("current", current.then_some(&new)),
                ("previous", previous.then_some(&old)),
            ];
            let sources = sources.map(|(name, value)| Sourced { name, value });
            let data = super::shape(&items, "Opaque", &sources)?;
            let texts = data.into_iter().map(|(key, bytes)| {
                let text = String::from_utf8_lossy(bytes.expose_secret()).into_owned();
                format!("{key}={text}")
            });
            Ok::<_, Failure>(texts.collect::<Vec<_>>())
        };
        assert_eq!(shaped(true, true).unwrap(), ["before=old", "now=new"]);
        assert_eq!(shaped(true, false).unwrap(), ["now=new"]);
        let nothing = shaped(false, false).unwrap_err();
        assert_eq!(nothing.reason, Reason::SecretNotFound);
        items[1].source = None;
        let sources = [("a", &new), ("b", &old)].map(|(name, value)| Sourced {
            name,
            value: Some(value),
        });
        let unnamed = super::shape(&items[1..], "Opaque", &sources).unwrap_err();
        assert_eq!(unnamed.reason, Reason::SpecInvalid);
    }

    #[test]
    fn extended_config_is_read_plain_and_escaped_and_matters_only_where_used() {
        let mut managed = value(r#"{"AccountName":"a"}"#);
        let mut wanted = item("k", Some("SecretSubType"), None);
        wanted.from = Some(Document::ExtendedConfig);
        for config in [
            r#"{"SecretSubType":"SingleUser","CustomData":{}}"#,
            r#"{\"SecretSubType\":\"SingleUser\",  \"CustomData\":{} }"#,
            r#"{\"SecretSubType\":\"SingleUser\", \"CustomData\":{\"a\":\"x\\\\y\\nz\"} }"#,
        ] {
            managed.extended_config = Some(config.into());
            let data = shape(std::slice::from_ref(&wanted), "Opaque", &managed).unwrap();
            assert_eq!(data["k"].expose_secret(), b"SingleUser");
        }
        managed.extended_config = Some("not json".into());
        assert!(shape(&[wanted], "Opaque", &managed).is_err());
        assert!(shape(&[item("k", Some("AccountName"), None)], "Opaque", &managed).is_ok());
    }

    #[test]
    fn types_ask_for_their_keys_before_the_api_server_does() {
        let failure = shape(
            &[item("tls.crt", None, None)],
            "kubernetes.io/tls",
            &value("x"),
        )
        .unwrap_err();
        assert!(failure.message().contains("tls.key"));
        assert!(
            shape(
                &[item("password", None, None)],
                "kubernetes.io/basic-auth",
                &value("x")
            )
            .is_ok()
        );
    }

    #[test]
    fn too_much_is_said_before_the_api_server_does() {
        let items: Vec<_> = (0..40)
            .map(|n| item(&format!("k{n}"), None, None))
            .collect();
        assert!(shape(&items, "Opaque", &value(&"x".repeat(30 * 1024))).is_err());
    }

    proptest! {
        #[test]
        fn no_path_and_no_value_make_shape_panic(path in ".{0,40}", data in ".{0,80}") {
            let _ = one(Some(&path), None, &value(&data));
        }

        #[test]
        fn text_arrives_byte_for_byte(data in ".{1,200}") {
            prop_assert_eq!(one(None, None, &value(&data)).unwrap(), data.as_bytes());
            let json = serde_json::json!({"k": data}).to_string();
            prop_assert_eq!(one(Some("k"), None, &value(&json)).unwrap(), data.as_bytes());
        }
    }
}
