//! The documents and examples are true as far as a test can tell.

use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use kms_secret_operator::api::definitions;
use kms_secret_operator::config::Cli;
use kms_secret_operator::metrics::Metrics;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::reference::reference;
use crate::world::World;

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// Every file below a folder.
pub(crate) fn files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                &mut folders
            } else {
                &mut found
            }
            .push(path);
        }
    }
    found
}

#[test]
fn the_reference_is_what_the_types_say() {
    #[expect(clippy::disallowed_methods, reason = "a test's own configuration")]
    let update = std::env::var("UPDATE_DOCS").is_ok();
    let (file, page) = (root().join("docs/reference.md"), reference(&definitions()));
    if update {
        std::fs::write(&file, &page).unwrap();
    }
    let stored = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        stored == page,
        "docs/reference.md is not current: make docs"
    );
}

#[test]
fn the_reference_tells_of_lists_maps_and_enums_however_deep() {
    let schema = json!({"type": "object", "properties": {"spec": {
        "type": "object", "required": ["rows"],
        "properties": {
            "any": {"type": "object", "additionalProperties": {"type": "object", "properties": {
                "word": {"type": "string", "enum": ["A", "B"], "description": "One\nof <two>."},
            }}},
            "rows": {"type": "array", "maxItems": 4, "x-kubernetes-list-type": "atomic", "items": {
                "type": "array", "items": {"type": "integer", "minimum": 1.0,
                    "x-kubernetes-validations": [{"rule": "self != 7", "message": "not seven"}]},
            }},
        },
    }}});
    let page = reference(&[serde_json::from_value(json!({"metadata": {"name": "x"}, "spec": {
        "group": "g", "scope": "Cluster", "names": {"kind": "Thing", "plural": "things"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
    }}))
    .unwrap()]);
    let rows = [
        "| `spec.rows` | list of list of integer | yes | at most 4 items; applied as a whole; each each at least 1 |  |",
        "| `spec.any` | map of object |  |  |  |",
        r"| `spec.any.*.word` | string |  | `A`, `B` | One of \<two>. |",
    ];
    assert!(page.contains(&rows.join("\n")), "{page}");
    assert!(
        page.contains("- `spec.rows[][]`: not seven\\\n  `self != 7`\n"),
        "{page}"
    );
}

#[test]
fn every_flag_and_every_metric_is_described() {
    let text = read("docs/operating.md");
    let command = Cli::command();
    let run = command.find_subcommand("run").unwrap();
    for flag in run
        .get_arguments()
        .filter_map(|flag| flag.get_long())
        .filter(|flag| *flag != "help")
    {
        assert!(text.contains(&format!("`--{flag} ")), "--{flag}");
    }
    let metrics = Metrics::default().render();
    for name in metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE kms_secret_operator_"))
    {
        let name = name.split(' ').next().unwrap();
        assert!(text.contains(&format!("`{name}")), "{name}");
    }
}

#[tokio::test]
async fn every_example_is_accepted_by_the_api_server() {
    let world = World::new().await;
    let mut seen = 0;
    for entry in std::fs::read_dir(root().join("examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        for document in read(&path).split("\n---\n") {
            let object: DynamicObject = serde_saphyr::from_str(document).unwrap();
            let types = object.types.clone().unwrap();
            let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(&types).unwrap());
            let is_ours = types.api_version.starts_with("alikms.dev/");
            let api: Api<DynamicObject> = match types.kind.as_str() {
                "Secret" | "KmsSecret" | "KmsStore" => {
                    Api::namespaced_with(world.client.clone(), &world.namespace, &resource)
                }
                _ => Api::all_with(world.client.clone(), &resource),
            };
            let mut object = object;
            if is_ours || types.kind == "Secret" {
                object.metadata.namespace = None;
            }
            // Its namespace is not there.
            if types.kind == "ServiceAccount" {
                continue;
            }
            let params = PatchParams::apply("user").dry_run();
            let applied = api
                .patch(&object.name_any(), &params, &Patch::Apply(&object))
                .await;
            assert!(applied.is_ok(), "{}: {:?}", path.display(), applied.err());
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen} objects");
}
