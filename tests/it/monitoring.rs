//! Metrics are what is the case, and nobody speaks of others.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kms_emulator::{Automatic, Managed};
use kms_secret_operator::api::KmsSecret;
use serde_json::json;

use crate::alerts::{queries, rules_file};
use crate::docs::read;
use crate::events::told_operator;
use crate::world::{Operator, World, condition, eventually};

const PREFIX: &str = "kms_secret_operator_";

/// The metrics that a text mentions.
fn mentioned(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_part(c));
    let is_metric = |word: &&str| word.starts_with(PREFIX) || word.starts_with("process_");
    words.filter(is_metric).map(ToOwned::to_owned).collect()
}

/// Of what is scraped: the name of each series, without its labels.
fn series(metrics: &str) -> BTreeSet<String> {
    let samples = metrics.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| line.split(['{', ' ']).next().unwrap().to_owned())
        .collect()
}

/// Of what is scraped: the name of each metric, as people know it.
fn names(metrics: &str) -> BTreeSet<String> {
    let types = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .map(|line| match line.split_once(' ').unwrap() {
            (name, "counter") => format!("{name}_total"),
            (name, "info") => format!("{name}_info"),
            (name, _) => name.to_owned(),
        })
        .collect()
}

/// What the tables of metrics describe in their first column.
fn described(page: &str) -> BTreeSet<String> {
    let (_, part) = page.split_once("\n## Metrics\n").unwrap();
    let (part, _) = part.split_once("\n## ").unwrap();
    let rows = part.lines().filter_map(|line| line.strip_prefix("| `"));
    let names = rows.map(|row| row.split('`').next().unwrap());
    names
        .map(|name| match name {
            name if name.starts_with("process_") => name.to_owned(),
            name => format!("{PREFIX}{name}"),
        })
        .collect()
}

#[tokio::test]
async fn alerts_dashboard_and_documents_tell_of_the_metrics_that_are_served() {
    let world = World::new().await;
    for secret in ["app/db", "app/stuck"] {
        world.kms.put_managed(secret, Managed::rds(DAY));
    }
    world
        .kms
        .set_rotation_status("app/stuck", Automatic::Invalid)
        .unwrap();
    let flags = ["--namespace", &world.namespace, "--object-metrics"];
    let (operator, _files) = told_operator(&world, &flags).await;
    for (name, secret) in [("db", "app/db"), ("stuck", "app/stuck")] {
        world.kms_secret(name, secret, json!({})).await;
        world.until_synced(name).await;
    }
    let metrics = operator.get("metrics").await;
    assert!(metrics.ends_with("# EOF\n"));

    let served = series(&metrics);
    let alerts = read(rules_file());
    for (what, text) in [("alerts", alerts), ("the dashboard", queries().join("\n"))] {
        let missing: Vec<_> = mentioned(&text).difference(&served).cloned().collect();
        assert!(missing.is_empty(), "{what}: {missing:?} are not served");
    }
    assert_eq!(described(&read("docs/monitoring.md")), names(&metrics));
}

const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);

/// The values of a metric's series, by their labels.
fn values(metrics: &str, name: &str) -> BTreeMap<String, f64> {
    let lines = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(PREFIX)?.strip_prefix(name)?;
        let (labels, value) = rest.rsplit_once(' ')?;
        let is_it = labels.is_empty() || labels.starts_with('{');
        is_it.then(|| (labels.to_owned(), value.parse().unwrap()))
    });
    lines.collect()
}

/// Waits until the series of a metric are these and no others.
async fn until_values(operator: &Operator, name: &str, expected: &[(&str, f64)]) {
    let expected: BTreeMap<String, f64> = expected
        .iter()
        .map(|(labels, value)| ((*labels).to_owned(), *value))
        .collect();
    eventually(&format!("{name} is {expected:?}"), async || {
        (values(&operator.get("metrics").await, name) == expected).then_some(())
    })
    .await;
}

/// The label set of an object.
fn labels(world: &World, name: &str) -> String {
    format!("{{namespace=\"{}\",name=\"{name}\"}}", world.namespace)
}

/// The KmsSecrets of [`several`].
const EACH: [&str; 5] = ["text", "db", "once", "suspended", "missing"];

/// A world with KmsSecrets in each state.
async fn several() -> (World, Operator) {
    let world = World::new().await;
    let operator = world.operator_with(&["--object-metrics"]).await;
    until_values(&operator, "objects", &[]).await;
    world.kms.put_generic("app/text", "one");
    world.kms.put_managed("app/db", Managed::rds(DAY));
    for (name, secret, more) in [
        ("text", "app/text", json!({})),
        ("db", "app/db", json!({})),
        ("once", "app/text", json!({"refresh": {"policy": "Once"}})),
    ] {
        world.kms_secret(name, secret, more).await;
        world.until_synced(name).await;
    }
    let suspended = json!({"suspend": true});
    world.kms_secret("suspended", "app/text", suspended).await;
    world.until_ready("suspended", "Unknown", "Suspended").await;
    world.kms_secret("missing", "app/none", json!({})).await;
    world
        .until_ready("missing", "False", "SecretNotFound")
        .await;
    (world, operator)
}

#[tokio::test]
async fn the_objects_of_a_scrape_are_those_of_the_cluster() {
    let (world, operator) = several().await;
    let counts = [
        (r#"{ready="True",reason="Synced"}"#, 3.0),
        (r#"{ready="False",reason="SecretNotFound"}"#, 1.0),
        (r#"{ready="Unknown",reason="Suspended"}"#, 1.0),
    ];
    until_values(&operator, "objects", &counts).await;
    until_values(&operator, "objects_late", &[("", 0.0)]).await;
    until_values(&operator, "objects_rotation_overdue", &[]).await;
    let idle = [(r#"{of="objects"}"#, 0.0), (r#"{of="stores"}"#, 0.0)];
    until_values(&operator, "reconciles_waiting", &idle).await;
    until_values(&operator, "reconciles_under_way", &idle).await;

    // What changes and what goes shows at once.
    world
        .kms
        .set_rotation_status("app/db", Automatic::Invalid)
        .unwrap();
    world.force("db").await;
    let overdue = [(r#"{reason="Invalid"}"#, 1.0)];
    until_values(&operator, "objects_rotation_overdue", &overdue).await;
    for name in EACH {
        world.delete::<KmsSecret>(name).await;
    }
    for metric in [
        "objects",
        "objects_rotation_overdue",
        "objects_next_sync_timestamp_seconds",
        "object_ready",
        "object_last_sync_timestamp_seconds",
    ] {
        until_values(&operator, metric, &[]).await;
    }
}

#[tokio::test]
async fn the_metrics_of_each_object_say_what_its_status_says() {
    let (world, operator) = several().await;
    let metrics = operator.get("metrics").await;
    let mut expected = BTreeMap::<&str, BTreeMap<String, f64>>::new();
    for name in EACH {
        let object = world.object(name).await;
        let status = object.status.as_ref().unwrap();
        let is_ready = condition(&object, "Ready").unwrap().0 == "True";
        let seconds = |time: Option<&Time>| time.map(|time| time.0.as_duration().as_secs_f64());
        let source = status.sources.first();
        for (metric, value) in [
            ("object_ready", Some(f64::from(u8::from(is_ready)))),
            (LAST, seconds(status.last_sync_time.as_ref())),
            (NEXT, seconds(status.next_sync_time.as_ref())),
            (
                ROTATION,
                seconds(source.and_then(|source| source.next_rotation_date.as_ref())),
            ),
        ] {
            let series = expected.entry(metric).or_default();
            series.extend(value.map(|value| (labels(&world, name), value)));
        }
    }
    for (metric, series) in &expected {
        assert_eq!(values(&metrics, metric), *series, "{metric}");
    }
    assert_eq!(expected[ROTATION].len(), 1, "KMS announces one");
    let soonest = |metric: &str, names: &[&str]| {
        let all = names
            .iter()
            .map(|name| expected[metric][&labels(&world, name)]);
        BTreeMap::from([(String::new(), all.fold(f64::INFINITY, f64::min))])
    };
    let is = |metric| values(&metrics, metric);
    assert_eq!(
        is("objects_oldest_sync_timestamp_seconds"),
        soonest(LAST, &["text", "db"])
    );
    assert_eq!(
        is("objects_next_sync_timestamp_seconds"),
        soonest(NEXT, &["text", "db", "missing"])
    );
}

const LAST: &str = "object_last_sync_timestamp_seconds";
const NEXT: &str = "object_next_sync_timestamp_seconds";
const ROTATION: &str = "object_next_rotation_timestamp_seconds";

#[tokio::test]
async fn each_replica_shows_the_objects_of_its_own_share() {
    let world = World::new().await;
    let replicas = [
        world.operator_with(&["--object-metrics"]).await,
        world.operator_with(&["--object-metrics"]).await,
    ];
    for replica in &replicas {
        replica.until_members(2).await;
    }
    world.kms.put_generic("app/text", "one");
    let all: Vec<String> = (0..12).map(|number| format!("o{number}")).collect();
    for name in &all {
        world.kms_secret(name, "app/text", json!({})).await;
    }
    for name in &all {
        world.until_synced(name).await;
    }
    let all: BTreeSet<String> = all.iter().map(|name| labels(&world, name)).collect();
    let shown = async |replica: &Operator| -> BTreeSet<String> {
        let metrics = replica.get("metrics").await;
        values(&metrics, "object_ready").into_keys().collect()
    };
    let (first, second) = (shown(&replicas[0]).await, shown(&replicas[1]).await);
    assert!(!first.is_empty() && first.is_disjoint(&second));
    assert_eq!(&first | &second, all);
    let [stops, stays] = replicas;
    stops.stop().await;
    eventually("the other shows all of them", async || {
        (shown(&stays).await == all).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_sync_that_is_not_worth_a_write_shows_in_the_times() {
    let (world, operator) = World::synced("one").await;
    let every_second = json!({"refresh": {"policy": "Interval", "interval": "1s"}});
    world.kms_secret("text", "app/text", every_second).await;
    let written = world.until_synced("text").await.status.unwrap();
    let before = written.last_sync_time.as_ref().unwrap().0;
    let before = before.as_duration().as_secs_f64();
    eventually("a later sync shows", async || {
        let metrics = operator.get("metrics").await;
        let shown = values(&metrics, "objects_oldest_sync_timestamp_seconds");
        shown
            .values()
            .any(|shown| *shown > before + 1.0)
            .then_some(())
    })
    .await;
    let status = world.object("text").await.status.unwrap();
    assert_eq!(status, written, "and nothing was written");
}

#[tokio::test]
async fn without_the_flag_no_label_names_an_object() {
    let (world, operator) = World::synced("one").await;
    let metrics = operator.get("metrics").await;
    assert!(!metrics.contains("kms_secret_operator_object_"));
    assert!(!metrics.contains("name=\"text\""), "{metrics}");
    assert!(
        values(&metrics, "store_rate")
            .keys()
            .all(|labels| labels.contains(&world.namespace))
    );
}
