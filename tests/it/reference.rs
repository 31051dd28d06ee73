//! `docs/reference.md`, made of the schemas of the CRDs. Pure.

use std::fmt::Write as _;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Map, Value};

const HEAD: &str = "\
# Reference

Every field of `KmsSecret`, `KmsStore` and `ClusterKmsStore`, made of the CustomResourceDefinitions by `make docs`; do not edit
it by hand. `kubectl explain kmssecret.spec` shows the same on a cluster.

`[]` stands for each item of a list, `.*` for each value of a map. *Required* holds where the object around the field is given.
What an absent field means stands in its description; a default that the API server fills in stands among the limits.
";

/// The keywords of a schema that the page tells of, or that say nothing to a reader. Another one is a gap in the page.
const KEYWORDS: &str = "additionalProperties allOf anyOf default description enum example exclusiveMaximum \
    exclusiveMinimum format items maxItems maxLength maxProperties maximum minItems minLength minProperties minimum \
    multipleOf not nullable oneOf pattern properties required title type x-kubernetes-int-or-string \
    x-kubernetes-list-map-keys x-kubernetes-list-type x-kubernetes-map-type x-kubernetes-preserve-unknown-fields \
    x-kubernetes-validations";

/// The page.
pub(crate) fn reference(crds: &[CustomResourceDefinition]) -> String {
    let mut page = HEAD.to_owned();
    for crd in crds {
        let crd = serde_json::to_value(crd).unwrap();
        let (spec, names) = (&crd["spec"], &crd["spec"]["names"]);
        let (kind, scope) = (text(&names["kind"]), &spec["scope"]);
        let scope = if scope == "Cluster" {
            "of the cluster"
        } else {
            "namespaced"
        };
        let short = match names["shortNames"].as_array() {
            Some(all) => format!(", short name {}", words(all, " or ")),
            None => String::new(),
        };
        for version in spec["versions"].as_array().unwrap() {
            let schema = &version["schema"]["openAPIV3Schema"];
            let group = format!("{}/{}", text(&spec["group"]), text(&version["name"]));
            let about = prose(schema);
            let line = format!("`apiVersion: {group}`, {scope}{short}.");
            write!(page, "\n## {kind}\n\n{about}\n\n{line}\n").unwrap();
            for (name, part) in properties(schema) {
                if !["apiVersion", "kind", "metadata"].contains(&name) {
                    section(&mut page, kind, name, part, &rules(schema, kind));
                }
            }
        }
    }
    page
}

/// The table of one part of an object, and its rules; `above` are those of the whole object.
fn section(page: &mut String, kind: &str, name: &str, part: &Value, above: &str) {
    write!(page, "\n### {kind} {name}\n\n{}\n", prose(part)).unwrap();
    let limits = limits(part);
    if !limits.is_empty() {
        write!(page, "\nLimits: {limits}.\n").unwrap();
    }
    page.push_str(
        "\n| field | type | required | limits | description |\n| --- | --- | --- | --- | --- |\n",
    );
    let mut told = rules(part, name);
    rows(page, &mut told, name, part);
    if name == "spec" {
        told.insert_str(0, above);
    }
    if !told.is_empty() {
        let intro =
            "The API server refuses an object against one of these rules, with its message:";
        write!(page, "\n{intro}\n\n{told}").unwrap();
    }
}

/// The rows of everything below `schema`, required fields first; their rules are added to `told`.
fn rows(page: &mut String, told: &mut String, path: &str, schema: &Value) {
    let mut fields = properties(schema);
    fields.sort_by_key(|(name, _)| !is_required(schema, name));
    for (name, field) in fields {
        let path = format!("{path}.{name}");
        let required = if is_required(schema, name) { "yes" } else { "" };
        let cells = [
            code(&path),
            kind_of(field),
            required.into(),
            limits(field),
            prose(field),
        ];
        let cells = cells.map(|cell| cell.replace('|', "\\|"));
        writeln!(page, "| {} |", cells.join(" | ")).unwrap();
        told.push_str(&rules(field, &path));
        rows(page, told, &path, field);
    }
    for (keyword, suffix) in [("items", "[]"), ("additionalProperties", ".*")] {
        let inner = &schema[keyword];
        if inner.is_object() {
            let path = format!("{path}{suffix}");
            told.push_str(&rules(inner, &path));
            rows(page, told, &path, inner);
        }
    }
}

/// The rules of CEL over one field, as a list.
fn rules(schema: &Value, path: &str) -> String {
    let all = schema["x-kubernetes-validations"].as_array();
    let lines = all.into_iter().flatten().map(|rule| {
        let said = match (&rule["message"], &rule["messageExpression"]) {
            (Value::String(message), _) => plain(message),
            (_, Value::String(expression)) => code(expression),
            _ => "(no message)".into(),
        };
        let rule = code(text(&rule["rule"]));
        format!("- {}: {said}\\\n  {rule}\n", code(path))
    });
    lines.collect()
}

fn kind_of(schema: &Value) -> String {
    let values = &schema["additionalProperties"];
    match text(&schema["type"]) {
        "array" => format!("list of {}", kind_of(&schema["items"])),
        "object" if values.is_object() => format!("map of {}", kind_of(values)),
        "string" if schema["format"] == "date-time" => "time".into(),
        "" if schema["x-kubernetes-int-or-string"] == true => "integer or string".into(),
        "" => "any".into(),
        plain => plain.into(),
    }
}

/// What a value must be like, besides its type.
fn limits(schema: &Value) -> String {
    for keyword in schema.as_object().into_iter().flat_map(Map::keys) {
        let is_known = KEYWORDS.split_whitespace().any(|known| known == keyword);
        assert!(
            is_known,
            "{keyword}: teach tests/it/reference.rs to tell of it"
        );
    }
    let get = |keyword: &str| schema.get(keyword).filter(|value| !value.is_null());
    let bound = |keyword: &str, exclusive: &str, words: [&str; 2]| {
        let word = words[usize::from(schema[exclusive] == true)];
        get(keyword).map(|bound| format!("{word} {}", number(bound)))
    };
    let count = |least: &str, most: &str, unit: &str| {
        let least = schema[least].as_u64().filter(|least| *least > 0);
        match (least, schema[most].as_u64()) {
            (Some(least), Some(most)) => Some(format!("{least} to {most} {unit}")),
            (Some(least), None) => Some(format!("at least {least} {unit}")),
            (None, Some(most)) => Some(format!("at most {most} {unit}")),
            (None, None) => None,
        }
    };
    let merged = match (
        &schema["x-kubernetes-list-type"],
        &schema["x-kubernetes-map-type"],
    ) {
        (Value::String(kind), _) if kind == "set" => Some("no item twice".to_owned()),
        (Value::String(kind), _) | (_, Value::String(kind)) if kind == "atomic" => {
            Some("applied as a whole".to_owned())
        }
        _ => None,
    };
    let each = |keyword: &str| {
        let limits = get(keyword).filter(|inner| inner.is_object()).map(limits);
        limits
            .filter(|limits| !limits.is_empty())
            .map(|limits| format!("each {limits}"))
    };
    let keys = get("x-kubernetes-list-map-keys").and_then(Value::as_array);
    let mut told = vec![
        get("enum")
            .and_then(Value::as_array)
            .map(|all| words(all, ", ")),
        get("pattern").map(|pattern| code(text(pattern))),
        bound("minimum", "exclusiveMinimum", ["at least", "more than"]),
        bound("maximum", "exclusiveMaximum", ["at most", "less than"]),
        get("multipleOf").map(|of| format!("a multiple of {}", number(of))),
        count("minLength", "maxLength", "characters"),
        count("minItems", "maxItems", "items"),
        count("minProperties", "maxProperties", "keys"),
        keys.map(|keys| format!("no two items with the same {}", words(keys, " and "))),
        merged,
        (schema["x-kubernetes-preserve-unknown-fields"] == true).then(|| "any content".into()),
        get("default").map(|value| format!("default {}", code(&value.to_string()))),
        each("items"),
        each("additionalProperties"),
    ];
    for keyword in ["allOf", "anyOf", "oneOf", "not"] {
        told.push(get(keyword).map(|value| format!("{keyword} {}", code(&value.to_string()))));
    }
    told.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

fn properties(schema: &Value) -> Vec<(&str, &Value)> {
    let all = schema["properties"].as_object().into_iter().flatten();
    all.map(|(name, field)| (name.as_str(), field)).collect()
}

fn is_required(schema: &Value, name: &str) -> bool {
    let mut required = schema["required"].as_array().into_iter().flatten();
    required.any(|required| required == name)
}

/// A description on one line.
fn prose(schema: &Value) -> String {
    let words: Vec<_> = text(&schema["description"]).split_whitespace().collect();
    plain(&words.join(" "))
}

/// Text in which nothing but what stands in backticks is Markdown, and nothing is HTML.
fn plain(text: &str) -> String {
    let parts = text.split('`').enumerate();
    let parts = parts.map(|(i, part)| match i % 2 {
        0 => part
            .replace('<', "\\<")
            .replace('*', "\\*")
            .replace('_', "\\_"),
        _ => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join("`")
}

/// Bounds are floats in a schema, whatever they bound.
fn number(value: &Value) -> String {
    let shown = value.to_string();
    shown.strip_suffix(".0").unwrap_or(&shown).to_owned()
}

fn words(all: &[Value], between: &str) -> String {
    all.iter()
        .map(|word| code(text(word)))
        .collect::<Vec<_>>()
        .join(between)
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
