//! The CRDs: their files are what the types say, and the API server holds their rules.

use std::path::Path;

use kms_secret_operator::api::{ClusterKmsStore, KmsSecret, KmsStore, definitions};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::kubectl::kubectl;
use crate::world::World;

#[test]
fn the_files_are_what_the_types_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Helm takes no file from outside of its chart.
    let folders = ["crds", "charts/kms-secret-operator/files/crds"];
    #[expect(clippy::disallowed_methods, reason = "a test's own configuration")]
    let update = std::env::var("UPDATE_CRDS").is_ok();
    let mut printed = String::new();
    for crd in definitions() {
        let yaml = format!("---\n{}", serde_saphyr::to_string(&crd).unwrap());
        printed.push_str(&yaml);
        for folder in folders {
            let file = root
                .join(folder)
                .join(format!("{}.yaml", crd.spec.names.plural));
            if update {
                std::fs::write(&file, &yaml).unwrap();
            }
            let stored = std::fs::read_to_string(&file).unwrap_or_default();
            assert_eq!(stored, yaml, "{} is not current: make crds", file.display());
        }
    }
    assert_eq!(kms_secret_operator::crds_yaml().unwrap(), printed);
}

/// Every field of a schema, with its path.
fn fields<'a>(path: &str, schema: &'a Value, found: &mut Vec<(String, &'a Value)>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        fields(&path, field, found);
        found.push((path, field));
    }
    for inner in ["items", "additionalProperties"] {
        if schema[inner].is_object() {
            fields(path, &schema[inner], found);
        }
    }
}

#[test]
fn kubectl_explains_every_field_in_a_sentence() {
    for crd in definitions() {
        let kind = crd.spec.names.kind.clone();
        let crd = serde_json::to_value(crd).unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let mut found = vec![(kind.clone(), schema)];
        fields(&kind, schema, &mut found);
        assert!(found.len() > 20, "{kind}: {} fields", found.len());
        for (path, field) in found {
            let said = field["description"].as_str().unwrap_or_default();
            let begins = said.starts_with(|c: char| c.is_uppercase() || c == '`' || c.is_numeric());
            // The words of Kubernetes about its own type of a condition are not ours.
            let is_ours = !path.contains(".conditions.");
            let is_sentence = begins && said.trim_end().ends_with('.') || said.starts_with("http");
            assert!(
                !said.is_empty() && (is_sentence || !is_ours),
                "{path}: {said:?}"
            );
        }
    }
}

#[tokio::test]
async fn the_columns_tell_the_story() {
    let (world, _operator) = World::synced("x").await;
    let get = async |words: &[&str]| {
        let table = kubectl(&world, &[&["get"], words].concat(), "")
            .await
            .done();
        let lines: Vec<String> = table.lines().map(ToOwned::to_owned).collect();
        let cells = |line: &String| {
            let cells = line
                .split("   ")
                .map(str::trim)
                .filter(|cell| !cell.is_empty());
            cells.map(ToOwned::to_owned).collect::<Vec<_>>()
        };
        (cells(&lines[0]), cells(&lines[1]))
    };
    let plain = [
        "NAME",
        "READY",
        "REASON",
        "SECRET",
        "VERSION",
        "LAST SYNC",
        "NEXT SYNC",
        "AGE",
    ];
    let (heads, cells) = get(&["kmss"]).await;
    assert_eq!(heads, plain);
    assert_eq!(cells.len(), plain.len(), "{cells:?}");
    assert_eq!(cells[..4], ["text", "True", "Synced", "text"]);
    let status = world.object("text").await.status.unwrap();
    assert_eq!(cells[4], status.sources[0].version_id);
    assert_eq!(cells[6], status.next_sync_time.unwrap().0.to_string());
    let (heads, _) = get(&["kmssecrets", "-o", "wide"]).await;
    assert_eq!(heads, [&plain[..], &["NEXT ROTATION", "STORE"]].concat());
    world.settled().await;
    let (heads, cells) = get(&["kmsstore"]).await;
    assert_eq!(
        heads,
        ["NAME", "READY", "REASON", "REGION", "IDENTITY", "AGE"]
    );
    assert_eq!(cells[..4], ["prod", "True", "Authenticated", "cn-hangzhou"]);
    let (all, _) = get(&["alikms"]).await;
    assert!(
        all.contains(&"READY".to_owned()),
        "the category lists them: {all:?}"
    );
}

async fn message<K>(world: &World, spec: Value) -> Option<String>
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let manifest = json!({"apiVersion": K::api_version(&()), "kind": K::kind(&()), "metadata": {"name": "probe"}, "spec": spec});
    let params = PatchParams::apply("user").dry_run();
    let applied = world
        .api::<K>()
        .patch("probe", &params, &Patch::Apply(&manifest))
        .await;
    match applied {
        Ok(_) => None,
        Err(kube::Error::Api(status)) => Some(status.message.clone()),
        Err(err) => panic!("{err}"),
    }
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn the_api_server_refuses_what_makes_no_sense_of_a_kms_secret() {
    let world = World::new().await;
    let good = json!({"storeRef": {"name": "prod"}, "source": {"secretName": "a"}});
    assert_eq!(message::<KmsSecret>(&world, good.clone()).await, None);
    let cases = [
        (
            "/source/secretName",
            json!("with space"),
            "secretName is a name of",
        ),
        (
            "/source/secretName",
            json!("acs:kms:cn-hangzhou:secret/a"),
            "or an ARN",
        ),
        (
            "/source/secretName",
            json!("x".repeat(193)),
            "secretName is a name of",
        ),
        ("/storeRef/kind", json!("SecretStore"), "Unsupported value"),
        ("/refresh", json!({"interval": "1d"}), "refresh.interval"),
        ("/rolloutRestart", json!([]), "rolloutRestart"),
        (
            "/rolloutRestart",
            json!([{"kind": "CronJob", "name": "a"}]),
            "Unsupported value",
        ),
        (
            "/rolloutRestart",
            json!([{"kind": "Deployment", "name": "Not_A_Name"}]),
            "rolloutRestart[0].name",
        ),
        (
            "/rolloutRestart",
            (0..17)
                .map(|n| json!({"kind": "Deployment", "name": format!("a{n}")}))
                .collect(),
            "at most 16 items",
        ),
        (
            "/refresh",
            json!({"policy": "Sometimes"}),
            "Unsupported value",
        ),
        ("/target", json!({"name": "Not_A_Name"}), "target.name"),
        (
            "/target",
            json!({"creationPolicy": "Merge", "type": "Opaque"}),
            "type, labels and annotations are not ours to set",
        ),
        (
            "/target",
            json!({"creationPolicy": "Merge", "labels": {"team": "a"}}),
            "type, labels and annotations are not ours to set",
        ),
        (
            "/target",
            json!({"creationPolicy": "Merge", "annotations": {"team": "a"}}),
            "type, labels and annotations are not ours to set",
        ),
        (
            "/target",
            json!({"creationPolicy": "Merge", "adopt": "IfUnowned"}),
            "takes nothing over",
        ),
        (
            "/target",
            json!({"creationPolicy": "Merge", "deletionPolicy": "Delete"}),
            "does not go with creationPolicy Merge",
        ),
        (
            "/target",
            json!({"type": "kubernetes.io/service-account-token"}),
            "never written",
        ),
        ("/data", json!([{"key": "a/b"}]), "data[0].key"),
        (
            "/data",
            json!([{"key": "a"}, {"key": "a"}]),
            "duplicate entries",
        ),
        ("/data", json!([]), "should have at least 1 items"),
        (
            "/data",
            json!([{"key": "a", "from": "ExtendedConfig"}]),
            "fetchExtendedConfig: true",
        ),
        (
            "/data",
            json!([{"key": "a", "decode": "Hex"}]),
            "Unsupported value",
        ),
        (
            "/data",
            json!([{"key": "a", "template": "x", "path": "x"}]),
            "a template, or a path or from",
        ),
        (
            "/data",
            json!([{"key": "a", "template": "x".repeat(16_385)}]),
            "16384",
        ),
        (
            "/extract",
            json!([{"from": "ExtendedConfig"}]),
            "fetchExtendedConfig: true",
        ),
        ("/extract", json!([{"prefix": "a/"}]), "prefix"),
        (
            "/extract",
            json!([{"rename": [{"pattern": "", "replacement": ""}]}]),
            "pattern",
        ),
    ];
    for (pointer, value, expected) in cases {
        let said = message::<KmsSecret>(&world, with(&good, pointer, &value)).await;
        assert!(
            said.as_ref().is_some_and(|said| said.contains(expected)),
            "{pointer} {value}: {said:?}"
        );
    }
    for value in [
        "acs:kms:cn-hangzhou:1234567890123456:secret/shop/db",
        "acs/ram/user/a",
        "a_/+=.@-Z",
    ] {
        let spec = with(&good, "/source/secretName", &json!(value));
        assert_eq!(message::<KmsSecret>(&world, spec).await, None, "{value}");
    }
}

#[tokio::test]
async fn what_is_too_large_goes_no_further_than_the_api_server() {
    let world = World::new().await;
    let long = "x".repeat(1 << 20);
    let many = |item: fn(usize) -> Value| (0..10_000).map(item).collect::<Value>();
    let labels: serde_json::Map<_, _> =
        (0..10_000).map(|n| (format!("l{n}"), json!("v"))).collect();
    let source = json!({"secretName": "a"});
    let cases = [
        (
            json!({"sources": many(|n| json!({"name": format!("s{n}"), "secretName": "a"}))}),
            "must have at most 32 items",
        ),
        (
            json!({"source": source, "data": many(|n| json!({"key": format!("k{n}")}))}),
            "must have at most 256 items",
        ),
        (
            json!({"source": source, "data": [{"key": "k", "template": long}]}),
            "more than 16384 bytes",
        ),
        (
            json!({"source": source, "data": [{"key": "k", "path": long}]}),
            "more than 1024 bytes",
        ),
        (
            json!({"source": source, "extract": [{"rename": [{"pattern": long, "replacement": ""}]}]}),
            "more than 256 bytes",
        ),
        (
            json!({"source": {"secretName": long}}),
            "more than 320 bytes",
        ),
        (
            json!({"source": source, "target": {"labels": labels}}),
            "must have at most 64",
        ),
    ];
    for (mut spec, words) in cases {
        spec["storeRef"] = json!({"name": "prod"});
        let said = message::<KmsSecret>(&world, spec).await;
        let said = said.expect(words);
        assert!(said.contains(words), "{said:.300}");
    }
}

#[tokio::test]
async fn the_api_server_holds_keys_and_sources_together() {
    let world = World::new().await;
    let good = json!({"storeRef": {"name": "prod"}, "source": {"secretName": "a"}});
    let two = json!([{"name": "a", "secretName": "a"}, {"name": "b", "secretName": "b"}]);
    let named = |sources: Value, data: Value| json!({"storeRef": {"name": "prod"}, "sources": sources, "data": data});
    let keys = json!([{"key": "a", "source": "a"}, {"key": "b", "source": "b"}]);
    let several = named(two.clone(), keys.clone());
    assert_eq!(message::<KmsSecret>(&world, several).await, None);
    let free = named(
        two.clone(),
        json!([{"key": "a", "template": "{{ sources.a.value }}"}]),
    );
    assert_eq!(message::<KmsSecret>(&world, free).await, None);
    let extract = json!([{"source": "a"}, {"source": "b", "prefix": "", "rename": [{"pattern": "a", "replacement": ""}]}]);
    let fields = json!({"storeRef": {"name": "prod"}, "sources": two, "extract": extract});
    assert_eq!(message::<KmsSecret>(&world, fields).await, None);
    for (spec, expected) in [
        (
            json!({"storeRef": {"name": "prod"}}),
            "exactly one of source and sources",
        ),
        (
            with(&good, "/sources", &two),
            "exactly one of source and sources",
        ),
        (
            json!({"storeRef": {"name": "prod"}, "sources": two}),
            "several sources need data",
        ),
        (
            named(two.clone(), json!([{"key": "a"}])),
            "names one of them",
        ),
        (
            named(two.clone(), json!([{"key": "a", "source": "c"}])),
            "names one of them",
        ),
        (with(&good, "/data", &keys), "with spec.source none does"),
        (
            with(&good, "/extract", &json!([{"source": "a"}])),
            "with spec.source none does",
        ),
        (
            json!({"storeRef": {"name": "prod"}, "sources": two, "extract": [{}]}),
            "each extract names one of them",
        ),
        (
            named(
                two.clone(),
                json!([{"key": "a", "source": "c", "template": "x"}]),
            ),
            "names one of them",
        ),
        (
            named(
                json!([{"name": "a", "secretName": "a"}, {"name": "a", "secretName": "b"}]),
                keys,
            ),
            "duplicate entries",
        ),
        (
            named(
                json!([{"name": "A b", "secretName": "a"}]),
                json!([{"key": "a"}]),
            ),
            "sources[0].name",
        ),
    ] {
        let said = message::<KmsSecret>(&world, spec.clone()).await;
        assert!(
            said.as_ref().is_some_and(|said| said.contains(expected)),
            "{spec}: {said:?}"
        );
    }
}

#[tokio::test]
async fn the_api_server_refuses_what_makes_no_sense_of_a_store() {
    let world = World::new().await;
    let good =
        json!({"region": "cn-hangzhou", "auth": {"accessKey": {"secretRef": {"name": "c"}}}});
    assert_eq!(message::<KmsStore>(&world, good.clone()).await, None);
    for (pointer, value, expected) in [
        ("/region", json!("cn.hangzhou"), "region"),
        ("/region", json!("oss-cn-hangzhou"), "region id"),
        (
            "/endpoint",
            json!("kms.oss-cn-hangzhou.aliyuncs.com"),
            "endpoint is",
        ),
        ("/auth", json!({}), "exactly one of"),
        ("/network", json!("Internet"), "Unsupported value"),
        ("/signature", json!("V4"), "Unsupported value"),
        (
            "/endpoint",
            json!("my-bucket.oss-cn-hangzhou.aliyuncs.com"),
            "endpoint is",
        ),
        (
            "/endpoint",
            json!("kms.cn-hangzhou.aliyuncs.com."),
            "endpoint is",
        ),
        (
            "/endpoint",
            json!("kms.cn-hangzhou.aliyuncs.com:443"),
            "endpoint is",
        ),
        (
            "/endpoint",
            json!("https://user@kms.cn-hangzhou.aliyuncs.com"),
            "endpoint is",
        ),
        ("/endpoint", json!("http://127.0.0.1:1/path"), "endpoint is"),
    ] {
        let said = message::<KmsStore>(&world, with(&good, pointer, &value)).await;
        assert!(
            said.as_ref().is_some_and(|said| said.contains(expected)),
            "{pointer} {value}: {said:?}"
        );
    }
    for endpoint in [
        "kms.cn-hangzhou.aliyuncs.com",
        "kms-vpc.ap-southeast-1.aliyuncs.com",
        "kst-hzz65f176a0ogplgq.cryptoservice.kms.aliyuncs.com",
        "http://127.0.0.1:8900",
        "http://[::1]:8900",
        "https://kms.internal:8443",
    ] {
        let spec = with(&good, "/endpoint", &json!(endpoint));
        assert_eq!(message::<KmsStore>(&world, spec).await, None, "{endpoint}");
    }
}

const ROLE: &str = "acs:ram::1234567890123456:role/shop";

fn service_account() -> Value {
    let provider = "acs:ram::1234567890123456:oidc-provider/ack-rrsa-c1";
    json!({"name": "orders", "oidcProviderArn": provider})
}

#[tokio::test]
async fn the_api_server_refuses_an_identity_that_makes_no_sense() {
    let world = World::new().await;
    let good = json!({"region": "cn-hangzhou", "auth": {"serviceAccount": service_account()}, "assumeRole": [{"roleArn": ROLE}]});
    assert_eq!(message::<KmsStore>(&world, good.clone()).await, None);
    let access_key = json!({"secretRef": {"name": "c"}});
    for (pointer, value, expected) in [
        ("/auth/accessKey", access_key, "exactly one of"),
        ("/auth", json!({"operator": {}}), "operator"),
        ("/auth", json!({"ecsRamRole": {}}), "ecsRamRole"),
        ("/auth/serviceAccount/name", json!("a/b"), "name"),
        (
            "/auth/serviceAccount/sessionName",
            json!("x1"),
            "sessionName",
        ),
        ("/auth/serviceAccount/namespace", json!("x"), "namespace"),
        ("/auth/serviceAccount/roleArn", json!("shop"), "roleArn"),
        (
            "/auth/serviceAccount/oidcProviderArn",
            json!(ROLE),
            "oidcProviderArn",
        ),
        ("/auth/serviceAccount/durationSeconds", json!(899), "900"),
        (
            "/auth/serviceAccount/durationSeconds",
            json!(43_201),
            "43200",
        ),
        (
            "/auth/serviceAccount/policy",
            json!("x".repeat(2049)),
            "2048",
        ),
        ("/assumeRole", json!([]), "at least 1"),
        (
            "/assumeRole",
            json!(vec![json!({"roleArn": ROLE}); 5]),
            "at most 4",
        ),
        ("/assumeRole/0/externalId", json!("a b"), "externalId"),
        ("/assumeRole/0/sessionName", json!("x1"), "sessionName"),
    ] {
        let said = message::<KmsStore>(&world, with(&good, pointer, &value)).await;
        assert!(
            said.as_ref().is_some_and(|said| said.contains(expected)),
            "{pointer} {value}: {said:?}"
        );
    }
}

#[tokio::test]
async fn a_cluster_store_may_take_every_identity_but_only_one() {
    let world = World::new().await;
    let mut account = service_account();
    account["namespace"] = "shop".into();
    account["sessionName"] = "platform@kms".into();
    let ways = [
        json!({"accessKey": {"secretRef": {"namespace": "shop", "name": "c"}}}),
        json!({"serviceAccount": account}),
        json!({"operator": {}}),
        json!({"ecsRamRole": {}}),
        json!({"ecsRamRole": {"roleName": "KubernetesWorkerRole-1"}}),
    ];
    let said = async |auth: &Value| {
        let manifest = json!({
            "apiVersion": "alikms.dev/v1alpha1", "kind": "ClusterKmsStore", "metadata": {"name": "probe"},
            "spec": {
                "region": "cn-hangzhou", "auth": auth, "namespaces": {"names": ["shop"]},
                "assumeRole": [{"roleArn": ROLE, "sessionName": "platform"}],
            },
        });
        let params = PatchParams::apply("user").dry_run();
        let api = Api::<ClusterKmsStore>::all(world.client.clone());
        let applied = api.patch("probe", &params, &Patch::Apply(&manifest)).await;
        applied.map_err(|err| err.to_string()).err()
    };
    for way in &ways {
        assert_eq!(said(way).await, None, "{way}");
        let other = if way.get("operator").is_some() {
            &ways[0]
        } else {
            &ways[2]
        };
        let mut both = way.clone();
        both.as_object_mut()
            .unwrap()
            .extend(other.as_object().unwrap().clone());
        let said = said(&both).await;
        assert!(
            said.is_some_and(|said| said.contains("exactly one of")),
            "{both}"
        );
    }
    for (auth, expected) in [
        (json!({}), "exactly one of"),
        (json!({"ecsRamRole": {"roleName": "a/b"}}), "roleName"),
        (json!({"serviceAccount": service_account()}), "namespace"),
    ] {
        let said = said(&auth).await;
        assert!(said.is_some_and(|said| said.contains(expected)), "{auth}");
    }
}

fn with(spec: &Value, pointer: &str, value: &Value) -> Value {
    let mut spec = spec.clone();
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    spec.pointer_mut(parent).unwrap()[field] = value.clone();
    spec
}
