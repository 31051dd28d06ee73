//! From what KMS answered to the data of the Secret: everything or nothing.

mod document;
mod explain;
mod extract;
mod filters;
mod grammar;
mod path;
mod template;

use std::collections::BTreeMap;
use std::thread;

use secrecy::{ExposeSecret as _, SecretSlice, SecretString};

use super::{Failure, Reason};
use crate::alibaba::secret_value::decode_base64;
use crate::api::kms_secret::{DataItem, Decode, Document, Extract};
use document::{DATA_MAX, Documents, Sources, choose, sources};
use extract::extract;
use path::search;
use template::Templates;

pub use document::Sourced;

/// The data of a Secret.
pub type Data = BTreeMap<String, SecretSlice<u8>>;

/// The key that holds the whole value where the spec names no keys.
const WHOLE_KEY: &str = "value";
/// Expressions that are longer may nest deeper than the stack of a worker is.
const PATH_SHALLOW: usize = 128;
/// A stack for the deepest nesting that the schema's lengths leave room for. Only what is used takes memory.
const ROOM: usize = 64 << 20;

/// What is to be made.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Keys, one by one.
    pub data: &'a [DataItem],
    /// Objects whose fields become keys.
    pub extract: &'a [Extract],
    /// Type of the Secret.
    pub target_type: &'a str,
    /// The uid of the object that wants it: hashes are salted with it.
    pub uid: &'a str,
}

/// Makes the data of the Secret: every item, or a failure that names the item and quotes no value. Only what is taken of
/// optional sources that do not exist is left out.
///
/// # Errors
/// `ValueInvalid`, `SpecInvalid`; `SecretNotFound` if nothing would be left.
pub fn shape(wanted: &Wanted<'_>, sources: &[Sourced<'_>]) -> Result<Data, Failure> {
    if !needs_room(wanted) {
        return make(wanted, sources);
    }
    // Parsers of templates and paths call themselves for each level of what they read.
    thread::scope(|scope| {
        let room = thread::Builder::new().stack_size(ROOM);
        let made = room.spawn_scoped(scope, || make(wanted, sources));
        let made = made.map_err(|_| {
            Failure::new(
                Reason::SpecInvalid,
                "the operator has no memory left to evaluate templates and long paths in",
                "cluster administrator: give the operator more memory; it is tried again",
            )
        })?;
        made.join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn needs_room(wanted: &Wanted<'_>) -> bool {
    let is_long = |path: &String| path.len() > PATH_SHALLOW;
    let mut items = wanted.data.iter();
    items.any(|item| item.template.is_some() || item.path.as_ref().is_some_and(is_long))
}

/// Whether [`shape`] may take longer than a worker should be held up: it is bounded, but by seconds.
#[must_use]
pub fn is_costly(wanted: &Wanted<'_>) -> bool {
    needs_room(wanted) || !wanted.extract.is_empty()
}

fn make(wanted: &Wanted<'_>, all: &[Sourced<'_>]) -> Result<Data, Failure> {
    let whole;
    let items = if wanted.data.is_empty() && wanted.extract.is_empty() {
        whole = [DataItem {
            key: WHOLE_KEY.into(),
            ..DataItem::default()
        }];
        &whole[..]
    } else {
        wanted.data
    };
    let sources = sources(all);
    let mut made = Made::default();
    for (index, object) in wanted.extract.iter().enumerate() {
        let place = format_args!("extract[{index}]");
        let fields = fields(object, &sources).map_err(|failure| failure.at(place))?;
        for (key, text) in fields {
            made.insert(key, bytes(&text))?;
        }
    }
    let mut templates = None;
    for item in items {
        let bytes = make_item(item, &sources, &mut templates, wanted.uid);
        if let Some(bytes) =
            bytes.map_err(|failure| failure.at(format_args!("key {:?}", item.key)))?
        {
            made.insert(item.key.clone(), bytes)?;
        }
    }
    if made.data.is_empty() {
        return Err(Failure::new(
            Reason::SecretNotFound,
            "none of the optional sources exists, so no key would be left",
            "create one of them in KMS; an empty Secret is never written",
        ));
    }
    check_required_keys(wanted.target_type, &made.data)?;
    Ok(made.data)
}

/// What was made so far, within what a Secret can be.
#[derive(Default)]
struct Made {
    data: Data,
    size: usize,
}

impl Made {
    fn insert(&mut self, key: String, bytes: SecretSlice<u8>) -> Result<(), Failure> {
        self.size += key.len() + bytes.expose_secret().len();
        if self.size > DATA_MAX {
            return Err(Failure::new(
                Reason::ValueInvalid,
                format!("the data would be larger than the {DATA_MAX} bytes that a Secret holds"),
                "take fewer keys",
            ));
        }
        if self.data.contains_key(&key) {
            return Err(Failure::new(
                Reason::ValueInvalid,
                format!("key {key:?} would be made twice"),
                "rename one of the two by extract[].rename or prefix, or leave it out of spec.data",
            ));
        }
        self.data.insert(key, bytes);
        Ok(())
    }
}

fn bytes(text: &SecretString) -> SecretSlice<u8> {
    text.expose_secret().as_bytes().to_vec().into()
}

/// The keys of an object; none if its source is optional and does not exist.
fn fields(object: &Extract, sources: &Sources<'_>) -> Result<Vec<(String, SecretString)>, Failure> {
    let Some(documents) = choose(sources, object.source.as_deref())? else {
        return Ok(Vec::new());
    };
    extract(object, documents.json(object.from.unwrap_or_default())?)
}

/// The bytes of a key; `None` if its source is optional and does not exist.
fn make_item<'a>(
    item: &'a DataItem,
    sources: &Sources<'a>,
    templates: &mut Option<Templates<'a>>,
    uid: &str,
) -> Result<Option<SecretSlice<u8>>, Failure> {
    let name = item.source.as_deref();
    let is_free = item.template.is_some() && name.is_none() && sources.len() != 1;
    let bound = if is_free {
        None
    } else {
        choose(sources, name)?
    };
    if bound.is_none() && !is_free {
        return Ok(None);
    }
    let text = match (&item.template, bound) {
        (Some(template), _) => {
            let templates = templates.get_or_insert_with(|| Templates::new(sources, uid));
            templates.render(&item.key, template, bound)?
        }
        (None, Some(documents)) => take(item, documents)?,
        (None, None) => return Ok(None),
    };
    let is_encoded = match item.decode.unwrap_or_default() {
        Decode::Base64 => true,
        Decode::None => false,
        Decode::Auto => is_whole_value(item) && bound.is_some_and(Documents::is_binary),
    };
    if !is_encoded {
        return Ok(Some(bytes(&text)));
    }
    decode_base64(text.expose_secret()).map(Some).map_err(|_| {
        Failure::new(
            Reason::ValueInvalid,
            "the text is not Base64 (standard alphabet, padded)",
            "store Base64 in KMS, or set decode: None on the key to take the text as it is",
        )
    })
}

fn is_whole_value(item: &DataItem) -> bool {
    let is_value = item.from.unwrap_or_default() == Document::Value;
    item.path.is_none() && item.template.is_none() && is_value
}

fn take(item: &DataItem, documents: &Documents<'_>) -> Result<SecretString, Failure> {
    let document = item.from.unwrap_or_default();
    match &item.path {
        None => documents.raw(document).cloned(),
        Some(path) => search(path, documents.json(document)?),
    }
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
    use crate::alibaba::secret_value::{Facts, SecretValue};
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
            path: path.map(Into::into),
            decode,
            ..DataItem::default()
        }
    }

    fn template(key: &str, template: &str) -> DataItem {
        DataItem {
            key: key.into(),
            template: Some(template.into()),
            ..DataItem::default()
        }
    }

    fn wanted<'a>(data: &'a [DataItem], extract: &'a [Extract]) -> Wanted<'a> {
        Wanted {
            data,
            extract,
            target_type: "Opaque",
            uid: "uid-1",
        }
    }

    /// Shapes one source.
    fn shape_one(wanted: &Wanted<'_>, value: &SecretValue) -> Result<Data, Failure> {
        let only = Sourced {
            name: "source",
            value: Some(value),
        };
        shape(wanted, &[only])
    }

    fn one(
        path: Option<&str>,
        decode: Option<Decode>,
        value: &SecretValue,
    ) -> Result<Vec<u8>, Failure> {
        let data = shape_one(&wanted(&[item("k", path, decode)], &[]), value)?;
        Ok(data["k"].expose_secret().to_vec())
    }

    fn texts(data: &Data) -> Vec<(&str, &str)> {
        let shown = data.iter().map(|(key, bytes)| {
            let text = std::str::from_utf8(bytes.expose_secret()).unwrap();
            (key.as_str(), text)
        });
        shown.collect()
    }

    #[test]
    fn without_items_the_whole_value_is_under_the_key_value() {
        let data = shape_one(&wanted(&[], &[]), &value("pa ss\n")).unwrap();
        assert_eq!(texts(&data), [("value", "pa ss\n")]);
    }

    #[test]
    fn what_cannot_be_shaped_is_a_failure_without_the_value() {
        let text = value("secret-value");
        let json = value(r#"{"a":"secret-value"}"#);
        for (path, decode, value, reason) in [
            (Some("a"), None, &text, Reason::ValueInvalid),
            (Some("a["), None, &json, Reason::SpecInvalid),
            (Some("a"), Some(Decode::Base64), &json, Reason::ValueInvalid),
            (None, Some(Decode::Base64), &text, Reason::ValueInvalid),
        ] {
            let failure = one(path, decode, value).unwrap_err();
            assert_eq!(failure.reason, reason, "{path:?}");
            assert!(failure.what.starts_with("key \"k\": "), "{failure:?}");
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
        assert!(shape_one(&wanted(&items, &[]), &value(r#"{"a":"1"}"#)).is_err());
    }

    #[test]
    fn extended_config_is_read_plain_and_escaped_and_matters_only_where_used() {
        let mut managed = value(r#"{"AccountName":"a"}"#);
        let mut extended = item("k", Some("SecretSubType"), None);
        extended.from = Some(Document::ExtendedConfig);
        let extended = [extended];
        for config in [
            r#"{"SecretSubType":"SingleUser","CustomData":{}}"#,
            r#"{\"SecretSubType\":\"SingleUser\",  \"CustomData\":{} }"#,
            r#"{\"SecretSubType\":\"SingleUser\", \"CustomData\":{\"a\":\"x\\\\y\\nz\"} }"#,
        ] {
            managed.extended_config = Some(config.into());
            let data = shape_one(&wanted(&extended, &[]), &managed).unwrap();
            assert_eq!(texts(&data), [("k", "SingleUser")]);
        }
        managed.extended_config = Some("not json".into());
        assert!(shape_one(&wanted(&extended, &[]), &managed).is_err());
        assert!(one(Some("AccountName"), None, &managed).is_ok());
    }

    #[test]
    fn types_ask_for_their_keys_before_the_api_server_does() {
        for (key, target_type, missing) in [
            ("tls.crt", "kubernetes.io/tls", Some("tls.key")),
            ("password", "kubernetes.io/basic-auth", None),
        ] {
            let items = [item(key, None, None)];
            let wanted = Wanted {
                target_type,
                ..wanted(&items, &[])
            };
            let said = shape_one(&wanted, &value("x")).err();
            match missing {
                Some(missing) => assert!(said.unwrap().message().contains(missing)),
                None => assert_eq!(said, None),
            }
        }
    }

    #[test]
    fn too_much_is_said_before_the_api_server_does() {
        let items: Vec<_> = (0..40)
            .map(|n| item(&format!("k{n}"), None, None))
            .collect();
        let value = value(&"x".repeat(30 * 1024));
        assert!(shape_one(&wanted(&items, &[]), &value).is_err());
    }

    #[test]
    fn items_and_extracts_make_one_secret_and_no_key_twice() {
        let json = value(r#"{"user":"a","password":"b"}"#);
        let dsn = template("dsn", "{{ json.user }}:{{ json.password }}");
        let upper = Extract {
            prefix: Some("DB_".into()),
            ..Extract::default()
        };
        let both = std::slice::from_ref(&upper);
        let data = shape_one(&wanted(std::slice::from_ref(&dsn), both), &json).unwrap();
        let expected = [("DB_password", "b"), ("DB_user", "a"), ("dsn", "a:b")];
        assert_eq!(texts(&data), expected);
        let data = shape_one(&wanted(&[], both), &json).unwrap();
        assert_eq!(texts(&data), expected[..2]);

        let clash = [item("DB_user", Some("user"), None)];
        let twice = [upper.clone(), upper.clone()];
        for wanted in [wanted(&clash, both), wanted(&[], &twice)] {
            let failure = shape_one(&wanted, &json).unwrap_err();
            assert!(failure.what.contains("twice"), "{failure:?}");
        }
        let failure = shape_one(&wanted(&[], both), &value("x")).unwrap_err();
        assert!(failure.what.starts_with("extract[0]: "), "{failure:?}");
    }

    #[test]
    fn what_is_taken_of_an_optional_source_goes_with_it() {
        let (current, previous) = (value(r#"{"p":"new"}"#), value(r#"{"p":"old"}"#));
        let named = |key: &str, source: &str| DataItem {
            source: Some(source.into()),
            ..template(key, "{{ json.p }}")
        };
        let free = template(
            "both",
            "{{ sources.current.json.p }}{% if sources.previous is defined %},{{ sources.previous.json.p }}{% endif %}",
        );
        let items = [named("a", "current"), named("b", "previous"), free];
        let old = Extract {
            source: Some("previous".into()),
            prefix: Some("old-".into()),
            ..Extract::default()
        };
        let wanted = wanted(&items, std::slice::from_ref(&old));
        let sourced = |previous| {
            let previous = Sourced {
                name: "previous",
                value: previous,
            };
            let current = Sourced {
                name: "current",
                value: Some(&current),
            };
            shape(&wanted, &[current, previous])
        };
        let data = sourced(Some(&previous)).unwrap();
        let expected = [
            ("a", "new"),
            ("b", "old"),
            ("both", "new,old"),
            ("old-p", "old"),
        ];
        assert_eq!(texts(&data), expected);
        assert_eq!(
            texts(&sourced(None).unwrap()),
            [("a", "new"), ("both", "new")]
        );
    }

    #[test]
    fn a_template_of_no_source_says_how_to_name_one() {
        let items = [template("k", "{{ json.a }}")];
        let value = value("{}");
        let named = ["a", "b"].map(|name| Sourced {
            name,
            value: Some(&value),
        });
        let failure = shape(&wanted(&items, &[]), &named).unwrap_err();
        assert!(failure.what.contains("sources.<name>"), "{failure:?}");
        let failure = shape(&wanted(&[item("k", Some("a"), None)], &[]), &named).unwrap_err();
        assert_eq!(failure.reason, Reason::SpecInvalid);
    }

    #[test]
    fn the_output_of_a_template_may_be_decoded() {
        let mut encoded = template("k", "{{ json.key }}");
        encoded.decode = Some(Decode::Base64);
        let data = shape_one(&wanted(&[encoded], &[]), &value(r#"{"key":"AAEC/w=="}"#)).unwrap();
        assert_eq!(data["k"].expose_secret(), [0, 1, 2, 255]);
    }

    #[test]
    fn all_templates_of_an_object_share_what_they_may_do() {
        let busy = "{% for a in json.list %}{{ a }}{% endfor %}";
        let items: Vec<_> = (0..256).map(|n| template(&format!("k{n}"), busy)).collect();
        let json = serde_json::json!({"list": vec![1; 500]}).to_string();
        assert!(shape_one(&wanted(&items[..2], &[]), &value(&json)).is_ok());
        let failure = shape_one(&wanted(&items, &[]), &value(&json)).unwrap_err();
        assert!(failure.what.contains("more work"), "{failure:?}");
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
            let items = [template("k", "{{ json.k }}")];
            let made = shape_one(&wanted(&items, &[]), &value(&json)).unwrap();
            prop_assert_eq!(made["k"].expose_secret(), data.as_bytes());
        }
    }
}
