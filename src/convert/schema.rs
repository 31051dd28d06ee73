//! What the API server would refuse of a manifest that was made, so that it is told here and with the object's name.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use regex::Regex;
use serde_json::Value;

use super::report::Report;

/// The schemas of our kinds, by kind.
static SCHEMAS: LazyLock<BTreeMap<String, JSONSchemaProps>> = LazyLock::new(|| {
    let definitions = crate::api::definitions().into_iter();
    let schemas = definitions.filter_map(|definition| {
        let version = definition.spec.versions.into_iter().next()?;
        let schema = version.schema?.open_api_v3_schema?;
        Some((definition.spec.names.kind, schema))
    });
    schemas.collect()
});

/// Refuses what is longer, more or otherwise written than the schema of its kind lets it be. Names are held to the rule
/// for all objects: they stand in the commands of the report too.
pub(super) fn check(document: &Value, report: &mut Report) {
    // What is refused already needs no second reason, and is not whole.
    if report.is_refused() {
        return;
    }
    for (field, most) in [("name", 253), ("namespace", 63)] {
        let name = document["metadata"].get(field).and_then(Value::as_str);
        if name.is_some_and(|name| name.len() > most || !is_name(name)) {
            report.refuse(
                &format!("metadata.{field}"),
                "it is no name of an object: lower-case letters, digits, '-' and '.'",
            );
        }
    }
    let schema = document["kind"].as_str().and_then(|kind| SCHEMAS.get(kind));
    for complaint in schema.map_or_else(Vec::new, |schema| complaints(schema, document)) {
        report.refuse("", complaint);
    }
}

/// A DNS subdomain.
fn is_name(text: &str) -> bool {
    let is_inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    text.split('.').all(|label| {
        let is_bare = label.starts_with('-') || label.ends_with('-');
        !label.is_empty() && !is_bare && label.bytes().all(is_inner)
    })
}

fn complaints(schema: &JSONSchemaProps, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    walk(schema, value, "", &mut found);
    found
}

fn walk(schema: &JSONSchemaProps, value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::String(text) => {
            check_count(
                text.chars().count(),
                (schema.min_length, schema.max_length),
                (path, "characters"),
                found,
            );
            let pattern = schema.pattern.as_deref();
            let unlike = pattern
                .filter(|pattern| !Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text)));
            if let Some(pattern) = unlike {
                found.push(format!("{path} would be {text:?}, which is not {pattern}"));
            }
        }
        Value::Array(items) => {
            check_count(
                items.len(),
                (schema.min_items, schema.max_items),
                (path, "items"),
                found,
            );
            if let Some(JSONSchemaPropsOrArray::Schema(schema)) = &schema.items {
                for (index, item) in items.iter().enumerate() {
                    walk(schema, item, &format!("{path}[{index}]"), found);
                }
            }
        }
        Value::Object(fields) => {
            check_count(
                fields.len(),
                (schema.min_properties, schema.max_properties),
                (path, "fields"),
                found,
            );
            for (name, field) in fields {
                let known = schema.properties.as_ref();
                let any = match &schema.additional_properties {
                    Some(JSONSchemaPropsOrBool::Schema(schema)) => Some(&**schema),
                    _ => None,
                };
                if let Some(schema) = known.and_then(|known| known.get(name)).or(any) {
                    let dot = if path.is_empty() { "" } else { "." };
                    walk(schema, field, &format!("{path}{dot}{name}"), found);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn check_count(
    count: usize,
    (least, most): (Option<i64>, Option<i64>),
    (path, what): (&str, &str),
    found: &mut Vec<String>,
) {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    if let Some(most) = most.filter(|most| count > *most) {
        found.push(format!(
            "{path} would have {count} {what}, and {most} are the most"
        ));
    }
    if let Some(least) = least.filter(|least| count < *least) {
        found.push(format!(
            "{path} would have {count} {what}, and {least} is the least"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(document: &Value) -> String {
        let mut report = Report::of("x");
        check(document, &mut report);
        let lines = report.into_lines();
        let lines = lines
            .iter()
            .map(|line| format!("{}{}", line.field, line.text));
        lines.collect::<Vec<_>>().join("; ")
    }

    fn kms_secret(name: &str, spec: &Value) -> Value {
        json!({"kind": "KmsSecret", "metadata": {"name": name, "namespace": "shop"}, "spec": spec})
    }

    #[test]
    fn what_the_api_server_refuses_is_refused_before_it() {
        let sources = |count: usize| {
            let source = |n| json!({"name": format!("s{n}"), "secretName": "a"});
            (0..count).map(source).collect::<Vec<_>>()
        };
        let target = |name: &str| json!({"target": {"name": name}});
        for (name, spec, word) in [
            ("orders-db.v1", json!({"storeRef": {"name": "prod"}}), ""),
            ("x; reboot", json!({}), "metadata.name"),
            ("", json!({}), "metadata.name"),
            ("a..b", json!({}), "metadata.name"),
            ("-a", json!({}), "metadata.name"),
            ("a", json!({"sources": sources(32)}), ""),
            (
                "a",
                json!({"sources": sources(33)}),
                "spec.sources would have 33 items, and 32",
            ),
            (
                "a",
                json!({"storeRef": {"name": ""}}),
                "spec.storeRef.name would have 0",
            ),
            (
                "a",
                target("b; reboot"),
                "spec.target.name would be \"b; reboot\"",
            ),
            (
                "a",
                json!({"data": [{"key": "k", "template": "x".repeat(16385)}]}),
                "spec.data[0].template",
            ),
            ("a", json!({"target": {"labels": {"team": "a"}}}), ""),
        ] {
            let said = refused(&kms_secret(name, &spec));
            assert!(
                said.contains(word) && said.is_empty() == word.is_empty(),
                "{name} {spec}: {said}"
            );
        }
    }
}
