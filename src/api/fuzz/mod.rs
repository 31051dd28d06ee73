//! Property tests of what the API server may hand over.
//!
//! `make fuzz` runs all tests of modules of this name for long, `cargo test` some hundreds of each.

use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::string::string_regex;
use regex::Regex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::*;
use crate::alibaba::fuzz::{date, odd_text};

/// Whatever a schema lets be.
fn fitting(schema: &JSONSchemaProps) -> BoxedStrategy<Value> {
    let one = match schema.type_.as_deref() {
        Some("object") => object(schema),
        Some("array") => {
            let Some(JSONSchemaPropsOrArray::Schema(item)) = &schema.items else {
                panic!("a list of what?");
            };
            let least = usize::try_from(schema.min_items.unwrap_or(0)).unwrap();
            vec(fitting(item), least..least + 3)
                .prop_map(Value::Array)
                .boxed()
        }
        Some("string") => text(schema),
        Some("integer") => {
            let is_long = schema.format.as_deref() == Some("int64");
            let all = if is_long {
                i64::MIN..=i64::MAX
            } else {
                i64::from(i32::MIN)..=i64::from(i32::MAX)
            };
            #[expect(clippy::cast_possible_truncation, reason = "bounds of whole numbers")]
            let bound = |bound: Option<f64>, else_: i64| bound.map_or(else_, |bound| bound as i64);
            let (least, most) = (
                bound(schema.minimum, *all.start()),
                bound(schema.maximum, *all.end()),
            );
            (least..=most).prop_map(Value::from).boxed()
        }
        Some("boolean") => any::<bool>().prop_map(Value::from).boxed(),
        other => panic!("a schema of type {other:?}"),
    };
    if schema.nullable == Some(true) {
        prop_oneof![9 => one, 1 => Just(Value::Null)].boxed()
    } else {
        one
    }
}

fn object(schema: &JSONSchemaProps) -> BoxedStrategy<Value> {
    let required = schema.required.clone().unwrap_or_default();
    let known = schema.properties.iter().flatten();
    let fields: Vec<_> = known
        .map(|(name, schema)| {
            let is_required = required.contains(name);
            let name = name.clone();
            let field = fitting(schema).prop_map(move |value| (name.clone(), value));
            if is_required {
                field.prop_map(Some).boxed()
            } else {
                weighted(0.4, field).boxed()
            }
        })
        .collect();
    let more = match &schema.additional_properties {
        Some(JSONSchemaPropsOrBool::Schema(schema)) => {
            vec((odd_text(6), fitting(schema)), 0..3).boxed()
        }
        _ => Just(Vec::new()).boxed(),
    };
    (fields, more)
        .prop_map(|(fields, more)| {
            let fields = fields.into_iter().flatten().chain(more);
            Value::Object(fields.collect::<Map<_, _>>())
        })
        .boxed()
}

fn text(schema: &JSONSchemaProps) -> BoxedStrategy<Value> {
    let any = match (&schema.enum_, &schema.pattern) {
        (Some(words), _) => {
            return select(words.iter().map(|word| word.0.clone()).collect::<Vec<_>>()).boxed();
        }
        (_, Some(pattern)) => {
            let inner = pattern.trim_start_matches('^').trim_end_matches('$');
            string_regex(inner).unwrap().boxed()
        }
        _ if schema.format.as_deref() == Some("date-time") => date()
            .prop_map(|date| {
                // The API server knows years of four digits only.
                let is_date = date.starts_with(|c: char| c.is_ascii_digit())
                    && date.parse::<jiff::Timestamp>().is_ok();
                if is_date {
                    date
                } else {
                    "2026-06-01T00:00:00Z".to_owned()
                }
            })
            .boxed(),
        _ => odd_text(12),
    };
    any.prop_map(Value::from).boxed()
}

/// Objects of the kind at this place of the definitions, as far as its schema tells.
fn objects(index: usize) -> BoxedStrategy<Value> {
    let definition = definitions().remove(index);
    let kind = definition.spec.names.kind;
    let schema = definition.spec.versions[0].schema.clone().unwrap();
    fitting(&schema.open_api_v3_schema.unwrap())
        .prop_map(move |mut object| {
            object["apiVersion"] = format!("{GROUP}/v1alpha1").into();
            object["kind"] = kind.clone().into();
            object["metadata"] = json!({"name": "a", "namespace": "b"});
            object
        })
        .boxed()
}

/// It is read, and what was read is what would be written.
fn check<K: DeserializeOwned + Serialize>(object: &Value) -> Result<(), TestCaseError> {
    let read = |object: &Value| serde_json::from_value::<K>(object.clone());
    let first = read(object);
    prop_assert!(first.is_ok(), "{:?}", first.err());
    let written = serde_json::to_value(first?).unwrap();
    let again = serde_json::to_value(read(&written)?).unwrap();
    prop_assert_eq!(written, again);
    Ok(())
}

static DURATION: LazyLock<Regex> = LazyLock::new(|| Regex::new(DURATION_PATTERN).unwrap());

proptest! {
    #[test]
    fn no_kms_secret_that_the_schema_admits_can_stop_a_watch(object in objects(0)) {
        check::<KmsSecret>(&object)?;
    }

    #[test]
    fn no_store_that_the_schema_admits_can_stop_a_watch(object in objects(1)) {
        check::<KmsStore>(&object)?;
    }

    #[test]
    fn no_store_of_the_cluster_that_the_schema_admits_can_stop_a_watch(object in objects(2)) {
        check::<ClusterKmsStore>(&object)?;
    }

    #[test]
    fn a_duration_is_the_sum_of_its_parts(hours in 0..1_000_000_i64, minutes in 0..1_000_000_i64, seconds in 0..1_000_000_i64) {
        let text = format!("{hours}h{minutes}m{seconds}s");
        let total = hours * 3600 + minutes * 60 + seconds;
        prop_assert!(DURATION.is_match(&text));
        prop_assert_eq!(parse_duration(&text).map_or(0, |read| read.as_secs()), total);
    }

    #[test]
    fn any_text_is_a_duration_or_none_and_those_of_the_schema_are(text in prop_oneof!["[0-9hms]{0,12}", ".{0,40}", odd_text(12)]) {
        let read = parse_duration(&text);
        prop_assert!(read.is_none_or(|read| read.is_positive()));
        if DURATION.is_match(&text) && text.contains(|c: char| c.is_ascii_digit() && c != '0') {
            prop_assert!(read.is_some());
        }
    }
}
