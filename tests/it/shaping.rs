//! What becomes of values: the examples of docs/shaping.md, and templates and extracts on a real API server.

use std::path::Path;

use kms_secret_operator::alibaba::secret_value::{Facts, SecretValue};
use kms_secret_operator::api::KmsSecret;
use kms_secret_operator::api::kms_secret::{DataItem, Extract};
use kms_secret_operator::sync::Failure;
use kms_secret_operator::sync::shape::{Data, Sourced, Wanted, shape};
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde_json::json;

use crate::world::{World, condition, eventually};

/// The part of a spec that shapes.
#[derive(Deserialize)]
struct Spec {
    #[serde(default)]
    data: Vec<DataItem>,
    #[serde(default)]
    extract: Vec<Extract>,
}

/// The fenced blocks of the page: the words after the fence, and the text.
fn blocks(page: &str) -> Vec<(&str, &str)> {
    let fences = page.split("\n```").skip(1).step_by(2);
    fences.filter_map(|block| block.split_once('\n')).collect()
}

fn block<'a>(blocks: &[(&'a str, &'a str)], wanted: &str) -> &'a str {
    let found = blocks.iter().find(|(words, _)| *words == wanted);
    found
        .unwrap_or_else(|| panic!("the page has no {wanted}"))
        .1
}

fn make(spec: &Spec, page: &[(&str, &str)]) -> Result<Data, Failure> {
    let value = SecretValue {
        secret_name: "shop/orders-db".into(),
        facts: Facts::default(),
        data: block(page, "json value").into(),
        extended_config: Some(block(page, "json extended").into()),
    };
    let wanted = Wanted {
        data: &spec.data,
        extract: &spec.extract,
        target_type: "Opaque",
        uid: "uid-1",
    };
    let only = Sourced {
        name: "source",
        value: Some(&value),
    };
    shape(&wanted, &[only])
}

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/shaping.md");
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn every_spec_of_the_page_makes_the_keys_that_it_says() {
    let page = page();
    let blocks = blocks(&page);
    let mut seen = 0;
    for pair in blocks.windows(2) {
        let [("yaml spec", spec), ("json keys", keys)] = pair else {
            continue;
        };
        let made = make(&serde_saphyr::from_str(spec).unwrap(), &blocks).unwrap();
        let keys: serde_json::Map<String, serde_json::Value> = serde_json::from_str(keys).unwrap();
        for (key, text) in keys {
            let bytes = made[&key].expose_secret();
            assert_eq!(std::str::from_utf8(bytes).unwrap(), text, "{key}");
        }
        seen += 1;
    }
    assert_eq!(seen, 4);
}

#[test]
fn every_template_of_the_page_gives_what_it_says() {
    let page = page();
    let blocks = blocks(&page);
    let mut seen = 0;
    for line in page.lines().filter(|line| line.starts_with("| `{")) {
        let line = line.replace("\\|", "\u{0}");
        let cells: Vec<_> = line.split(" | ").collect();
        let code = |cell: &str| -> String {
            let code = cell.trim_start_matches("| ").trim_end_matches(" |");
            code.trim_matches('`').replace('\u{0}', "|")
        };
        let made = make(&spec_of("k", &code(cells[0])), &blocks).unwrap();
        let text = std::str::from_utf8(made["k"].expose_secret()).unwrap();
        assert_eq!(text, code(cells[1]), "{line}");
        seen += 1;
    }
    assert_eq!(seen, 25);
}

#[test]
fn the_failure_that_the_page_shows_is_the_one_that_is_told() {
    let page = page();
    let spec = spec_of("dsn", "{{ json.AccountPasswort }}");
    let failure = make(&spec, &blocks(&page)).unwrap_err();
    assert!(page.contains(&failure.message()), "{}", failure.message());
}

fn spec_of(key: &str, template: &str) -> Spec {
    let item = DataItem {
        key: key.into(),
        template: Some(template.into()),
        ..DataItem::default()
    };
    Spec {
        data: vec![item],
        extract: Vec::new(),
    }
}

#[tokio::test]
async fn a_template_joins_two_sources_and_extract_takes_every_field() {
    let world = World::new().await;
    world.kms.put_generic(
        "app/db",
        r#"{"user":"or ders","password":"p@ss/1","port":5432,"note":null}"#,
    );
    world.kms.put_generic("app/host", "db.example.com");
    let _operator = world.operator().await;
    let spec = json!({
        "storeRef": {"name": "prod"},
        "sources": [
            {"name": "db", "secretName": "app/db"},
            {"name": "my-host", "secretName": "app/host"},
            {"name": "none", "secretName": "app/none", "optional": true},
        ],
        "data": [
            {"key": "dsn", "template": "postgres://{{ sources.db.json.user | urlencode }}:{{ sources.db.json.password | urlencode }}@{{ sources['my-host'].value }}:{{ sources.db.json.port }}/orders"},
            {"key": "own", "source": "db", "template": "{{ json.user }}{% if sources.none is defined %}!{% endif %}"},
            {"key": "gone", "source": "none", "template": "{{ value }}"},
            {"key": "hash", "source": "db", "template": "{{ json.password | htpasswd('ann') }}"},
        ],
        "extract": [{"source": "db", "prefix": "DB_", "rename": [{"pattern": "^DB_(pass)word$", "replacement": "DB_${1}"}]}],
    });
    world.apply::<KmsSecret>("app", json!({"spec": spec})).await;
    world.until_synced("app").await;
    let data = world.data("app").await;
    let text = |key: &str| String::from_utf8(data[key].clone()).unwrap();
    assert_eq!(
        data.keys().collect::<Vec<_>>(),
        ["DB_pass", "DB_port", "DB_user", "dsn", "hash", "own"]
    );
    assert_eq!(
        text("dsn"),
        "postgres://or%20ders:p%40ss%2F1@db.example.com:5432/orders"
    );
    assert_eq!(
        (text("own"), text("DB_pass")),
        ("or ders".into(), "p@ss/1".into())
    );
    assert!(text("hash").starts_with("ann:$2y$10$"));

    let before = world.secret("app").await.unwrap().metadata.resource_version;
    world.force("app").await;
    world.until_synced("app").await;
    let after = world.secret("app").await.unwrap().metadata.resource_version;
    assert_eq!(
        before, after,
        "the same values make the same hash, and no write"
    );
}

#[tokio::test]
async fn a_pull_secret_is_made_by_a_template() {
    let world = World::new().await;
    world
        .kms
        .put_generic("app/registry", r#"{"user":"robot","password":"a\"b"}"#);
    let _operator = world.operator().await;
    let template = r#"{"auths":{"r.example.com":{"auth":{{ (json.user ~ ":" ~ json.password) | b64encode | quote }}}}}"#;
    let spec = json!({
        "target": {"type": "kubernetes.io/dockerconfigjson"},
        "data": [{"key": ".dockerconfigjson", "template": template}],
    });
    world.kms_secret("pull", "app/registry", spec).await;
    world.until_synced("pull").await;
    let config: serde_json::Value =
        serde_json::from_slice(&world.data("pull").await[".dockerconfigjson"]).unwrap();
    assert_eq!(config["auths"]["r.example.com"]["auth"], "cm9ib3Q6YSJi");
}

#[tokio::test]
async fn a_miss_leaves_the_secret_as_it_is_and_tells_the_names() {
    let world = World::new().await;
    world
        .kms
        .put_generic("app/db", r#"{"user":"a","password":"planted-1"}"#);
    let _operator = world.operator().await;
    let spec = json!({
        "data": [{"key": "dsn", "template": "{{ json.user }}:{{ json.password }}"}],
        "extract": [{}],
    });
    world.kms_secret("db", "app/db", spec).await;
    world.until_synced("db").await;
    world
        .kms
        .put_generic("app/db", r#"{"user":"b","passwort":"planted-2"}"#);
    world.force("db").await;
    let object = world.until_ready("db", "False", "ValueInvalid").await;
    let message = condition(&object, "Ready").unwrap().2.to_owned();
    for word in ["\"dsn\"", "json.password", "\"passwort\"", "line 1"] {
        assert!(message.contains(word), "{message}");
    }
    assert!(!message.contains("planted"), "{message}");
    let data = world.data("db").await;
    assert_eq!(data["dsn"], b"a:planted-1");
    assert_eq!(data["user"], b"a", "all or nothing");

    world
        .kms
        .put_generic("app/db", r#"{"user":"c","password":"3","dsn":"x"}"#);
    world.force("db").await;
    eventually("the clash of two keys is told", async || {
        let object = world.object("db").await;
        let message = condition(&object, "Ready")?.2;
        message
            .contains("\"dsn\" would be made twice")
            .then_some(())
    })
    .await;
    assert_eq!(world.data("db").await, data);
}

#[tokio::test]
async fn a_hostile_template_is_refused_and_its_neighbour_syncs_on() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "one");
    let _operator = world.operator().await;
    for (name, text) in [
        (
            "grows",
            "{% set x = [1] %}".to_owned() + &"{%set x=[x,x]%}".repeat(900) + "{{ x }}",
        ),
        ("deep", format!("{{{{ {}1 }}}}", "1+".repeat(8000))),
        (
            "loops",
            "{% for a in ['x','x','x'] %}{{ value | indent(1000000000) }}{% endfor %}".into(),
        ),
    ] {
        let spec = json!({"data": [{"key": "k", "template": text}]});
        world.kms_secret(name, "app/text", spec).await;
        let object = world.until_ready(name, "False", "SpecInvalid").await;
        let message = condition(&object, "Ready").unwrap().2;
        assert!(message.contains("line 1"), "{message}");
        assert!(world.secret(name).await.is_none());
    }
    world.kms_secret("neighbour", "app/text", json!({})).await;
    world.until_synced("neighbour").await;
    world.kms.put_generic("app/text", "two");
    world.force("neighbour").await;
    world.until_text("neighbour", "value", "two").await;
}
