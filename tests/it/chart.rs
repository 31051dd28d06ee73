//! The Helm chart: what it makes of its values, and what the API server says to that.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use clap::Parser as _;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kms_secret_operator::api::definitions;
use kms_secret_operator::config::Cli;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::{self, Scope};
use kube::{Api, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::docs::{read, root};
use crate::helm::{
    CHART, documents, helm, of_kind, operator_args, operator_pod, profile, profiles, render,
};
use crate::world::World;

#[test]
fn helm_finds_nothing_wrong_with_any_profile() {
    for values in profiles() {
        let values = values.to_string_lossy();
        let checked = helm(&["lint", "--strict", CHART, "--values", &*values]);
        assert!(checked.is_ok(), "{values}: {checked:?}");
    }
}

#[test]
fn the_operator_understands_the_arguments_of_every_profile() {
    for values in profiles() {
        let args = operator_args(&render(&values, &[]).unwrap());
        let words = ["kms-secret-operator".to_owned()].into_iter().chain(args);
        let parsed = Cli::try_parse_from(words);
        assert!(parsed.is_ok(), "{}: {:?}", values.display(), parsed.err());
    }
}

#[test]
fn the_definitions_are_kept_upgraded_and_those_of_the_types() {
    let rendered = |more: &[&str]| -> Vec<CustomResourceDefinition> {
        let objects = render(&profile("default"), more).unwrap();
        let found = of_kind(&objects, "CustomResourceDefinition");
        let read = |object: &&Value| serde_json::from_value((*object).clone()).unwrap();
        found.iter().map(read).collect()
    };
    let kept = |crd: &CustomResourceDefinition| {
        crd.annotations()
            .get("helm.sh/resource-policy")
            .map(String::as_str)
            == Some("keep")
    };
    let crds = rendered(&[]);
    assert!(crds.iter().all(kept));
    let sorted = |mut crds: Vec<CustomResourceDefinition>| {
        for crd in &mut crds {
            crd.metadata.labels = None;
            crd.metadata.annotations = None;
        }
        crds.sort_by_key(kube::ResourceExt::name_any);
        crds
    };
    assert_eq!(sorted(crds), sorted(definitions()));
    assert!(!rendered(&["crds.keep=false"]).iter().any(kept));
    assert!(rendered(&["crds.install=false"]).is_empty());
}

/// Reads an object as its type in Kubernetes 1.33, the oldest release that the chart is for, and writes it again.
fn as_typed<T: DeserializeOwned + Serialize>(object: &Value) -> Value {
    let typed: T = serde_json::from_value(object.clone()).unwrap();
    serde_json::to_value(&typed).unwrap()
}

#[test]
fn the_oldest_kubernetes_knows_every_field_of_every_profile() {
    let mut kinds = BTreeSet::new();
    for values in profiles() {
        for object in render(&values, &[]).unwrap() {
            let kind = object["kind"].as_str().unwrap();
            let typed = match kind {
                "ClusterRole" => as_typed::<ClusterRole>(&object),
                "ClusterRoleBinding" => as_typed::<ClusterRoleBinding>(&object),
                "ConfigMap" => as_typed::<ConfigMap>(&object),
                "CustomResourceDefinition" => as_typed::<CustomResourceDefinition>(&object),
                "Deployment" => as_typed::<Deployment>(&object),
                "NetworkPolicy" => as_typed::<NetworkPolicy>(&object),
                "PodDisruptionBudget" => as_typed::<PodDisruptionBudget>(&object),
                "Role" => as_typed::<Role>(&object),
                "RoleBinding" => as_typed::<RoleBinding>(&object),
                "Secret" => as_typed::<Secret>(&object),
                "Service" => as_typed::<Service>(&object),
                "ServiceAccount" => as_typed::<ServiceAccount>(&object),
                "ValidatingAdmissionPolicy" => as_typed::<ValidatingAdmissionPolicy>(&object),
                "ValidatingAdmissionPolicyBinding" => {
                    as_typed::<ValidatingAdmissionPolicyBinding>(&object)
                }
                _ => {
                    assert!(is_foreign(&object), "{kind} is not looked at");
                    continue;
                }
            };
            lost(&object, &typed, kind);
            kinds.insert(kind.to_owned());
        }
    }
    assert!(kinds.len() >= 12, "{kinds:?}");
}

/// Fails where something is in `before` that is not in `after`.
fn lost(before: &Value, after: &Value, path: &str) {
    match (before, after) {
        (Value::Object(before), _) => {
            for (name, value) in before.iter().filter(|(_, value)| !is_nothing(value)) {
                let after = after.get(name).unwrap_or(&Value::Null);
                lost(value, after, &format!("{path}.{name}"));
            }
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            for (before, after) in before.iter().zip(after) {
                lost(before, after, &format!("{path}[]"));
            }
        }
        // As 0 and 0.0.
        (Value::Number(before), Value::Number(after)) => {
            assert_eq!(before.as_f64(), after.as_f64(), "{path}");
        }
        _ => assert_eq!(before, after, "{path}"),
    }
}

/// What Kubernetes takes for left out.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// A right: group, resource, verb.
type Right = (String, String, String);

fn rights<'a>(roles: impl IntoIterator<Item = &'a Value>) -> BTreeSet<Right> {
    let list = |value: &Value| -> Vec<String> {
        let words = value.as_array().unwrap().iter();
        words
            .map(|word| word.as_str().unwrap().to_owned())
            .collect()
    };
    let mut rights = BTreeSet::new();
    for rule in roles
        .into_iter()
        .flat_map(|role| role["rules"].as_array().unwrap())
    {
        assert!(rule.get("resourceNames").is_none());
        for group in list(&rule["apiGroups"]) {
            for resource in list(&rule["resources"]) {
                for verb in list(&rule["verbs"]) {
                    rights.insert((group.clone(), resource.clone(), verb));
                }
            }
        }
    }
    rights
}

/// Rights, a resource a line: `group/resource verb verb`.
fn these(lines: &[&str]) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    for line in lines {
        let (what, verbs) = line.split_once(' ').unwrap();
        let (group, resource) = what.split_once('/').unwrap();
        for verb in verbs.split(' ') {
            rights.insert((group.to_owned(), resource.to_owned(), verb.to_owned()));
        }
    }
    rights
}

const IN_A_NAMESPACE: [&str; 7] = [
    "alikms.dev/kmssecrets get list watch",
    "alikms.dev/kmssecrets/status patch",
    "alikms.dev/kmsstores list watch",
    "alikms.dev/kmsstores/status patch",
    "/secrets get list watch create patch delete",
    "/configmaps list watch",
    "events.k8s.io/events create patch",
];
const FOR_TOKENS: [&str; 2] = ["/serviceaccounts get", "/serviceaccounts/token create"];
const FOR_RESTARTS: [&str; 3] = [
    "apps/deployments get patch",
    "apps/statefulsets get patch",
    "apps/daemonsets get patch",
];
const IN_THE_CLUSTER: [&str; 4] = [
    "alikms.dev/clusterkmsstores list watch",
    "alikms.dev/clusterkmsstores/status patch",
    "/namespaces list watch",
    "apiextensions.k8s.io/customresourcedefinitions list watch",
];
const FOR_REPLICAS: [&str; 1] = ["coordination.k8s.io/leases get list watch create update delete"];

/// Of a kind, those that are the operator's.
fn roles_of_operator<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    let aggregates = |object: &Value| {
        let labels = object["metadata"]["labels"].as_object().unwrap();
        labels.keys().any(|label| label.contains("aggregate-to-"))
    };
    let mut roles = of_kind(objects, kind);
    roles.retain(|role| !aggregates(role));
    roles
}

#[test]
fn the_operator_has_exactly_the_rights_that_it_uses() {
    let objects = render(&profile("default"), &[]).unwrap();
    let whole = [&IN_A_NAMESPACE[..], &FOR_TOKENS, &IN_THE_CLUSTER].concat();
    let roles = roles_of_operator(&objects, "ClusterRole");
    assert_eq!(roles.len(), 1);
    assert_eq!(rights(roles), these(&whole));
    let leases = of_kind(&objects, "Role");
    assert_eq!(leases.len(), 1);
    assert_eq!(leases[0]["metadata"]["namespace"], "kso");
    assert_eq!(rights(leases), these(&FOR_REPLICAS));

    let example = documents(&read("examples/rbac.yaml"));
    assert_eq!(rights(of_kind(&example, "ClusterRole")), these(&whole));
    assert_eq!(rights(of_kind(&example, "Role")), these(&FOR_REPLICAS));

    let more = ["tokenRequests.enabled=false", "rolloutRestart.enabled=true"];
    let objects = render(&profile("default"), &more).unwrap();
    let other = [&IN_A_NAMESPACE[..], &FOR_RESTARTS, &IN_THE_CLUSTER].concat();
    assert_eq!(
        rights(roles_of_operator(&objects, "ClusterRole")),
        these(&other)
    );
}

#[test]
fn in_namespaced_mode_it_has_them_in_these_namespaces_and_nothing_of_the_cluster() {
    let objects = render(&profile("namespaced"), &[]).unwrap();
    let of_cluster = |object: &&Value| object["metadata"].get("namespace").is_none();
    assert_eq!(objects.iter().find(of_cluster), None);
    let roles = of_kind(&objects, "Role");
    let within = |namespace: &str| {
        let within = |role: &&&Value| role["metadata"]["namespace"] == namespace;
        rights(roles.iter().filter(within).copied())
    };
    let each = these(&[&IN_A_NAMESPACE[..], &FOR_TOKENS].concat());
    assert_eq!(within("shop"), each);
    assert_eq!(within("billing"), each);
    assert_eq!(within("kso"), these(&FOR_REPLICAS));
    for binding in of_kind(&objects, "RoleBinding") {
        assert_eq!(
            binding["subjects"],
            json!([{"kind": "ServiceAccount", "name": "kms-secret-operator", "namespace": "kso"}])
        );
        assert_eq!(binding["roleRef"]["kind"], "Role");
    }
}

#[test]
fn people_get_kms_secrets_to_edit_and_stores_to_administer_and_no_status() {
    let objects = render(&profile("default"), &[]).unwrap();
    let given = |label: &str| {
        let label = format!("rbac.authorization.k8s.io/aggregate-to-{label}");
        let is_it = |role: &&Value| role["metadata"]["labels"][&label] == "true";
        rights(of_kind(&objects, "ClusterRole").into_iter().filter(is_it))
    };
    let change = "create update patch delete deletecollection";
    assert_eq!(
        given("view"),
        these(&["alikms.dev/kmssecrets get list watch"])
    );
    assert_eq!(
        given("edit"),
        these(&[&*format!("alikms.dev/kmssecrets {change}")])
    );
    assert_eq!(
        given("admin"),
        these(&[&*format!("alikms.dev/kmsstores get list watch {change}")])
    );
    let objects = render(&profile("default"), &["rbac.aggregate=false"]).unwrap();
    assert_eq!(of_kind(&objects, "ClusterRole").len(), 1);
}

#[test]
fn values_that_make_no_sense_are_refused() {
    for (value, told) in [
        ("replica=1", "replica"),
        ("replicas=0", "replicas"),
        (r#"image.pullPolicy="Sometimes""#, "pullPolicy"),
        (r#"image.digest="sha256:abc""#, "digest"),
        (r#"watchNamespaces=["Shop"]"#, "watchNamespaces"),
        (r#"watchNamespaces="shop""#, "watchNamespaces"),
        (r#"watchNamespaces=["shop","shop"]"#, "watchNamespaces"),
        (
            r#"allowEndpoints=["http://kms.example.com"]"#,
            "allowEndpoints",
        ),
        (
            r#"allowEndpoints=["https://kms.example.com/path"]"#,
            "allowEndpoints",
        ),
        (r#"minRefreshInterval="1d""#, "minRefreshInterval"),
        (
            r#"allowSecretTypes=["kubernetes.io/service-account-token"]"#,
            "allowSecretTypes",
        ),
        (r#"log.level="loud""#, "level"),
        (r#"extraArgs=["check"]"#, "extraArgs"),
        (
            r#"operatorIdentity.roleArn="acs:ram::1:role/reader""#,
            "oidcProviderArn",
        ),
        ("events.enabled=true", "events"),
        (
            r#"events={"enabled":true,"clientCaSecret":{"name":"ca"}}"#,
            "tlsSecret",
        ),
        ("events.port=80", "port"),
        ("serviceAccount.create=false", "serviceAccount"),
        (
            r#"metrics={"service":{"enabled":false},"serviceMonitor":{"enabled":true}}"#,
            "service",
        ),
        ("networkPolicy.egress.enabled=true", "rules"),
        (
            "terminationGracePeriodSeconds=5",
            "terminationGracePeriodSeconds",
        ),
        (
            r#"emulator.secrets=[{"name":"with space","text":"x"}]"#,
            "emulator",
        ),
        (
            r#"topologySpreadConstraints=[{"maxSkew":1}]"#,
            "topologySpreadConstraints",
        ),
    ] {
        let refused = render(&profile("default"), &[value])
            .map(|_| ())
            .unwrap_err();
        assert!(
            refused.contains("values don't meet the specifications"),
            "{value}: {refused}"
        );
        assert!(refused.contains(told), "{value}: {refused}");
    }
}

#[test]
fn the_schema_knows_every_value_and_no_other() {
    let values: Value = serde_saphyr::from_str(&read(format!("{CHART}/values.yaml"))).unwrap();
    let schema: Value = serde_json::from_str(&read(format!("{CHART}/values.schema.json"))).unwrap();
    compare(&values, &schema, "");
}

fn compare(values: &Value, schema: &Value, path: &str) {
    let Some(known) = schema["properties"].as_object() else {
        return;
    };
    let values = values.as_object().unwrap();
    assert_eq!(schema["additionalProperties"], false, "{path}");
    for name in known.keys().filter(|name| !is_optional(path, name)) {
        assert!(values.contains_key(name), "{path}.{name} has no default");
    }
    for (name, value) in values {
        let schema = known.get(name);
        assert!(schema.is_some(), "{path}.{name} is not in the schema");
        compare(value, schema.unwrap(), &format!("{path}.{name}"));
    }
}

/// What has no default: what Helm gives to every chart, and the rest of a container's resources.
fn is_optional(path: &str, name: &str) -> bool {
    (path.is_empty() && name == "global") || (path == ".resources" && name == "claims")
}

#[test]
fn nothing_reaches_the_pod_but_by_its_ports_and_it_may_do_nothing_on_its_node() {
    let objects = render(&profile("full"), &[]).unwrap();
    let pod = &operator_pod(&objects)["spec"];
    let container = &pod["containers"][0];
    let ports: BTreeSet<i64> = container["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|port| port["containerPort"].as_i64().unwrap())
        .collect();
    let policies = of_kind(&objects, "NetworkPolicy");
    let policy = policies
        .iter()
        .find(|policy| policy["metadata"]["name"] == "kms-secret-operator")
        .unwrap();
    let rules = policy["spec"]["ingress"].as_array().unwrap();
    let open: BTreeSet<i64> = rules
        .iter()
        .flat_map(|rule| rule["ports"].as_array().unwrap())
        .map(|port| port["port"].as_i64().unwrap())
        .collect();
    assert_eq!(ports, open);
    assert!(rules.iter().all(|rule| rule["from"].is_array()));
    assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    for deployment in of_kind(&objects, "Deployment") {
        let spec = &deployment["spec"]["template"]["spec"];
        assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
        assert_eq!(
            spec["containers"][0]["securityContext"]["capabilities"]["drop"],
            json!(["ALL"])
        );
        assert!(spec["containers"][0]["resources"]["limits"]["memory"].is_string());
    }
    let budgets = |replicas: &str| {
        let objects = render(&profile("default"), &[replicas]).unwrap();
        of_kind(&objects, "PodDisruptionBudget").len()
    };
    assert_eq!((budgets("replicas=2"), budgets("replicas=1")), (1, 0));
}

/// Kinds of the Prometheus operator, which the cluster of the tests does not have.
fn is_foreign(object: &Value) -> bool {
    object["apiVersion"] == "monitoring.coreos.com/v1"
}

#[tokio::test]
async fn the_api_server_takes_every_object_of_every_profile() {
    let world = World::new().await;
    for values in profiles() {
        let more = [format!("watchNamespaces={}", json!([world.namespace]))];
        let is_namespaced = values.ends_with("namespaced.yaml");
        let more: Vec<&str> = more
            .iter()
            .map(String::as_str)
            .filter(|_| is_namespaced)
            .collect();
        for mut object in render(&values, &more).unwrap() {
            if is_foreign(&object) {
                continue;
            }
            let metadata = object["metadata"].as_object_mut().unwrap();
            if let Some(namespace) = metadata.get_mut("namespace") {
                *namespace = world.namespace.clone().into();
            }
            let object: DynamicObject = serde_json::from_value(object).unwrap();
            let types = object.types.clone().unwrap();
            let kind = GroupVersionKind::try_from(&types).unwrap();
            let (resource, capabilities) =
                discovery::pinned_kind(&world.client, &kind).await.unwrap();
            let api: Api<DynamicObject> = match capabilities.scope {
                Scope::Cluster => Api::all_with(world.client.clone(), &resource),
                Scope::Namespaced => {
                    Api::namespaced_with(world.client.clone(), &world.namespace, &resource)
                }
            };
            assert_eq!(
                capabilities.scope == Scope::Namespaced,
                object.namespace().is_some()
            );
            let params = PatchParams {
                field_validation: Some(kube::api::ValidationDirective::Strict),
                ..PatchParams::apply("helm").force().dry_run()
            };
            let name = object.name_any();
            let taken = api.patch(&name, &params, &Patch::Apply(&object)).await;
            assert!(
                taken.is_ok(),
                "{}: {} {name}: {taken:?}",
                values.display(),
                types.kind
            );
        }
    }
}

#[tokio::test]
async fn its_pods_are_admitted_where_the_standard_restricted_is_enforced() {
    let world = World::new().await;
    let standard =
        json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    Api::<Namespace>::all(world.client.clone())
        .patch(
            &world.namespace,
            &PatchParams::default(),
            &Patch::Merge(standard),
        )
        .await
        .unwrap();
    for name in ["kms-secret-operator", "default"] {
        world.apply::<ServiceAccount>(name, json!({})).await;
    }
    let create = async |template: &Value| {
        let mut pod = template.clone();
        pod["metadata"]["name"] = "probe".into();
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let params = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        world.api::<Pod>().create(&params, &pod).await
    };
    for values in ["default", "namespaced", "full", "emulator"] {
        let objects = render(&profile(values), &[]).unwrap();
        for deployment in of_kind(&objects, "Deployment") {
            let created = create(&deployment["spec"]["template"]).await;
            assert!(created.is_ok(), "{values}: {created:?}");
        }
    }
    let objects = render(&profile("node"), &[]).unwrap();
    let refused = create(operator_pod(&objects)).await.unwrap_err();
    assert!(refused.to_string().contains("hostNetwork"), "{refused}");
}

#[test]
fn the_emulator_has_an_image_of_its_own() {
    let image = |more: &[&str]| {
        let objects = render(&profile("emulator"), more).unwrap();
        let deployments = of_kind(&objects, "Deployment").into_iter();
        let containers =
            deployments.map(|deployment| &deployment["spec"]["template"]["spec"]["containers"][0]);
        let emulator = containers
            .filter(|container| container["name"] == "emulator")
            .map(|container| container["image"].as_str().unwrap().to_owned());
        emulator.collect::<Vec<_>>()
    };
    let tagged = |tag| [format!("ghcr.io/kms-secret-operator/kms-emulator:{tag}")];
    assert_eq!(image(&[]), tagged(env!("CARGO_PKG_VERSION")));
    assert_eq!(image(&[r#"image.tag="1.2.3""#]), tagged("1.2.3"));
    let both = [r#"image.tag="1.2.3""#, r#"emulator.image.tag="1.2.4""#];
    assert_eq!(image(&both), tagged("1.2.4"));
}

#[test]
fn the_table_of_values_is_current() {
    let file = "docs/installing.md";
    let (begin, end) = (
        "<!-- values: made by `make docs` -->\n",
        "<!-- end of values -->",
    );
    let page = read(file);
    let (before, rest) = page.split_once(begin).unwrap();
    let (_, after) = rest.split_once(end).unwrap();
    let table = table(&read(format!("{CHART}/values.yaml")));
    let current = format!("{before}{begin}{table}{end}{after}");
    #[expect(clippy::disallowed_methods, reason = "a test's own configuration")]
    let update = std::env::var("UPDATE_DOCS").is_ok();
    if update {
        std::fs::write(root().join(file), &current).unwrap();
    }
    assert!(read(file) == current, "{file} is not current: make docs");
}

/// A row for each value that has a description (`# -- `), with its default.
fn table(yaml: &str) -> String {
    let defaults: Value = serde_saphyr::from_str(yaml).unwrap();
    let mut table = "| value | default | meaning |\n| --- | --- | --- |\n".to_owned();
    let mut described: Option<String> = None;
    let mut path: Vec<&str> = Vec::new();
    for line in yaml.lines() {
        let text = line.trim_start();
        if let Some(comment) = text.strip_prefix('#') {
            described = match (comment.strip_prefix(" -- "), described) {
                (Some(begun), _) => Some(begun.to_owned()),
                (None, Some(so_far)) => Some(format!("{so_far} {}", comment.trim())),
                (None, None) => None,
            };
            continue;
        }
        let Some((name, _)) = text
            .split_once(':')
            .filter(|(name, _)| !name.starts_with('-'))
        else {
            continue;
        };
        path.truncate((line.len() - text.len()) / 2);
        path.push(name);
        if let Some(meaning) = described.take() {
            let default = &defaults.pointer(&format!("/{}", path.join("/"))).unwrap();
            let meaning = meaning.replace('|', r"\|");
            writeln!(
                table,
                "| `{}` | {} | {meaning} |",
                path.join("."),
                shown(default)
            )
            .unwrap();
        }
    }
    table
}

fn shown(default: &Value) -> String {
    match default {
        Value::String(text) if text.is_empty() => String::new(),
        Value::String(text) => format!("`{text}`"),
        Value::Array(list) if list.is_empty() => String::new(),
        Value::Object(map) if map.is_empty() => String::new(),
        Value::Array(list) if list.iter().any(|item| item.get("maxSkew").is_some()) => {
            "over nodes and zones".to_owned()
        }
        Value::Array(list) if list.iter().all(Value::is_object) => "one greeting".to_owned(),
        other => format!("`{other}`"),
    }
}
