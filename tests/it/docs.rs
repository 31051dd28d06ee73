//! The documents and examples are true as far as a test can tell.

use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use kms_secret_operator::api::definitions;
use kms_secret_operator::config::Cli;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::{self, Scope};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use crate::reference::reference;
use crate::world::World;

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// Everything that people read.
fn pages() -> Vec<PathBuf> {
    let others = [
        "README.md",
        "README.zh-CN.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "emulator/README.md",
        "dev/README.md",
    ];
    let mut pages = with_extension("docs", "md");
    pages.extend(others.map(|page| root().join(page)));
    pages
}

fn with_extension(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut files = files(folder);
    files.retain(|file| file.extension().is_some_and(|is| is == extension));
    files
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
fn every_flag_is_described() {
    let command = Cli::command();
    let flags = |name: &str| {
        let command = command.find_subcommand(name).unwrap();
        let flags = command.get_arguments().filter_map(|flag| flag.get_long());
        flags.filter(|flag| *flag != "help").collect::<Vec<_>>()
    };
    let text = read("docs/operating.md");
    for flag in flags("run") {
        let is_described = [' ', '`'].map(|end| text.contains(&format!("`--{flag}{end}")));
        assert!(is_described.contains(&true), "--{flag}");
    }
    let page = read("docs/plugin.md");
    let short = [
        ("all-namespaces", "-A"),
        ("namespace", "-n"),
        ("output", "-o"),
        ("selector", "-l"),
    ];
    for flag in [flags("status"), flags("sync")].concat() {
        let short = short.iter().find(|(long, _)| *long == flag);
        let written = short.map_or(format!("`--{flag}`"), |(_, short)| (*short).to_owned());
        assert!(page.contains(&written), "{written}");
    }
}

#[tokio::test]
async fn every_example_is_accepted_by_the_api_server() {
    let world = World::new().await;
    let mut examples = Vec::new();
    for path in with_extension("examples", "yaml") {
        // The demo puts its emulator there.
        let yaml = read(&path).replace("EMULATOR-ORIGIN", "http://127.0.0.1:8900");
        examples.push((path, yaml));
    }
    assert!(examples.len() > 5, "{} files", examples.len());
    for page in pages() {
        let blocks = blocks(&read(&page), "yaml").into_iter();
        let ours = blocks.filter(|block| block.contains("apiVersion: alikms.dev/"));
        examples.extend(ours.map(|block| (page.clone(), block)));
    }
    for (path, yaml) in &examples {
        for document in yaml.split("\n---\n") {
            let said = try_out(&world, document).await;
            assert!(said.is_ok(), "{}: {said:?}\n{document}", path.display());
        }
    }
}

/// Applies a manifest without storing it; what is of a namespace, in that of the test.
pub(crate) async fn try_out(world: &World, manifest: &str) -> kube::Result<DynamicObject> {
    let mut object: DynamicObject = serde_saphyr::from_str(manifest).unwrap();
    let types = object.types.clone().unwrap();
    let kind = GroupVersionKind::try_from(&types).unwrap();
    let (resource, capabilities) = discovery::pinned_kind(&world.client, &kind).await?;
    let api: Api<DynamicObject> = if capabilities.scope == Scope::Namespaced {
        object.metadata.namespace = None;
        Api::namespaced_with(world.client.clone(), &world.namespace, &resource)
    } else {
        Api::all_with(world.client.clone(), &resource)
    };
    let params = PatchParams::apply("user").dry_run();
    let patch = Patch::Apply(&object);
    api.patch(&object.name_any(), &params, &patch).await
}

#[test]
fn every_json_can_be_pasted() {
    for page in pages() {
        for block in blocks(&read(&page), "json") {
            let read: Result<Value, _> = serde_json::from_str(&block);
            assert!(read.is_ok(), "{}: {read:?}\n{block}", page.display());
        }
    }
}

/// The fenced blocks of a language, without the indentation of their fences.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some((indentation, name)) = line.split_once("```") else {
            continue;
        };
        let block = lines.by_ref().take_while(|line| line.trim() != "```");
        let block = block.map(|line| line.strip_prefix(indentation).unwrap_or(line));
        let block = block.collect::<Vec<_>>().join("\n");
        if name == language {
            blocks.push(block);
        }
    }
    blocks
}
#[test]
fn every_link_leads_somewhere() {
    let mut seen = 0;
    for page in pages() {
        // What stands in backticks is no link.
        let text: String = read(&page).split('`').step_by(2).collect();
        for link in text.split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let leads = page.parent().unwrap().join(target).exists();
            assert!(leads, "{}: {target} is not there", page.display());
            seen += 1;
        }
    }
    assert!(seen > 40, "{seen} links");
}

#[test]
fn the_dockerfile_builds_this_version_with_its_oldest_rust() {
    let manifest = read("Cargo.toml");
    let field = |name: &str| {
        let start = format!("{name} = \"");
        let value = |line: &str| Some(line.strip_prefix(&start)?.strip_suffix('"')?.to_owned());
        manifest.lines().find_map(value).unwrap()
    };
    let dockerfile = read("Dockerfile");
    let rust = format!("FROM rust:{}-", field("rust-version"));
    assert!(dockerfile.contains(&rust), "not {rust}");
    let version = format!("ARG VERSION={}\n", field("version"));
    assert_eq!(dockerfile.matches(&version).count(), 2, "not {version}");
}
