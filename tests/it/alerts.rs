//! Alerts fire when they should and say what to do, and every query of the dashboard can be asked.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::docs::{files, read, root};
use crate::helm::{CHART, of_kind, profile, render};

/// What `promtool` printed; what it complained of, if it failed.
fn promtool(args: &[&str]) -> Result<String, String> {
    let called = Command::new(root().join("dev/promtool"))
        .current_dir(root())
        .args(args)
        .output()
        .expect("dev/promtool can be run");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(called.stdout), text(called.stderr));
    if called.status.success() {
        Ok(out)
    } else {
        Err(out + &err)
    }
}

/// The rules, which Prometheus reads as they are.
pub(crate) fn rules_file() -> String {
    format!("{CHART}/files/alerts.yaml")
}

/// Every alert.
fn alerts() -> Vec<Value> {
    let rules: Value = serde_saphyr::from_str(&read(rules_file())).unwrap();
    let groups = rules["groups"].as_array().unwrap().iter();
    groups
        .flat_map(|group| group["rules"].as_array().unwrap().clone())
        .collect()
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).unwrap().as_str().unwrap()
}

/// Every query of the dashboard.
pub(crate) fn queries() -> Vec<String> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                found.extend(
                    map.get("expr")
                        .map(|expr| expr.as_str().unwrap().to_owned()),
                );
                map.values().for_each(|value| collect(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| collect(value, found)),
            _ => {}
        }
    }
    let dashboard: Value =
        serde_json::from_str(&read(format!("{CHART}/files/dashboard.json"))).unwrap();
    let mut found = Vec::new();
    collect(&dashboard, &mut found);
    found
}

#[test]
fn every_alert_fires_when_it_should_and_only_then() {
    let checked = promtool(&["check", "rules", "--lint-fatal", &rules_file()]);
    assert!(checked.is_ok(), "{}", checked.unwrap_err());
    let cases = files("tests/alerts");
    let mut args = vec!["test", "rules"];
    args.extend(cases.iter().map(|path| path.to_str().unwrap()));
    let tested = promtool(&args);
    assert!(tested.is_ok(), "{}", tested.unwrap_err());

    let names: BTreeSet<String> = alerts()
        .iter()
        .map(|alert| text(alert, "/alert").to_owned())
        .collect();
    let name = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let tested: BTreeSet<String> = cases.iter().map(|path| name(path)).collect();
    assert_eq!(names, tested, "each alert has tests of its own");
    for path in &cases {
        let tests: Value = serde_saphyr::from_str(&read(path)).unwrap();
        let expr = format!(
            "ALERTS{{alertname=\"{}\", alertstate=\"firing\"}}",
            name(path)
        );
        let (mut fires, mut keeps_quiet) = (false, false);
        for test in tests["tests"].as_array().unwrap() {
            for case in test["promql_expr_test"].as_array().unwrap() {
                assert_eq!(case["expr"], expr, "{}", path.display());
                let is_quiet = case["exp_samples"].as_array().unwrap().is_empty();
                keeps_quiet |= is_quiet;
                fires |= !is_quiet;
            }
        }
        assert!(fires && keeps_quiet, "{}", path.display());
    }
}

#[test]
fn every_alert_says_what_to_do_and_is_in_the_documents() {
    let page = read("docs/monitoring.md");
    for alert in alerts() {
        let name = text(&alert, "/alert");
        for annotation in ["summary", "description", "action"] {
            let said = text(&alert, &format!("/annotations/{annotation}"));
            assert!(!said.is_empty(), "{name}: {annotation}");
        }
        let severity = text(&alert, "/labels/severity");
        let row = format!("| `{name}` | {severity} |");
        assert!(page.contains(&row), "docs/monitoring.md has no row {row}");
    }
}

#[test]
fn every_query_of_the_dashboard_can_be_asked() {
    let queries = queries();
    assert!(queries.len() > 30, "{} queries", queries.len());
    let rules: Vec<Value> = queries
        .iter()
        .enumerate()
        .map(|(number, query)| {
            let expr = query
                .replace("$__rate_interval", "5m")
                .replace("$job", ".+");
            assert!(!expr.contains('$'), "{query}");
            assert!(query.contains("$job"), "{query}: of one installation");
            json!({"record": format!("query:{number}"), "expr": expr})
        })
        .collect();
    let file = std::env::temp_dir().join(format!("{}-queries.yaml", uuid::Uuid::new_v4()));
    let groups = json!({"groups": [{"name": "queries", "rules": rules}]});
    std::fs::write(&file, groups.to_string()).unwrap();
    let checked = promtool(&["check", "rules", file.to_str().unwrap()]);
    std::fs::remove_file(file).unwrap();
    assert!(checked.is_ok(), "{}", checked.unwrap_err());
}

#[test]
fn the_chart_brings_the_alerts_and_the_dashboard_as_they_are() {
    let objects = render(&profile("full"), &[]).unwrap();
    let rules: Value = serde_saphyr::from_str(&read(rules_file())).unwrap();
    assert_eq!(of_kind(&objects, "PrometheusRule")[0]["spec"], rules);
    let maps = of_kind(&objects, "ConfigMap").into_iter();
    let shown = maps.filter_map(|map| map["data"].get("kms-secret-operator.json"));
    let shown: Vec<Value> = shown
        .map(|text| serde_json::from_str(text.as_str().unwrap()).unwrap())
        .collect();
    let dashboard: Value =
        serde_json::from_str(&read(format!("{CHART}/files/dashboard.json"))).unwrap();
    assert_eq!(shown, [dashboard]);
}
