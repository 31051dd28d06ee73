//! The architecture, held by reading the source: imports go down only, and the pure floor stays pure.

use std::path::{Path, PathBuf};

/// The floors, from the bottom; a file may import from floors below its own, and from the `mod.rs` of its own folder.
const FLOORS: &[(&str, u8)] = &[
    ("alibaba/mod", 0),
    ("alibaba/error", 0),
    ("alibaba/sign", 1),
    ("alibaba/endpoint", 1),
    ("alibaba/answer", 1),
    ("alibaba/breaker", 1),
    ("alibaba/limiter", 1),
    ("alibaba/turns", 1),
    ("alibaba/identity", 1),
    ("alibaba/assume_role", 2),
    ("alibaba/environment", 2),
    ("alibaba/secret_name", 1),
    ("alibaba/notice", 2),
    ("alibaba/secret_value", 2),
    ("api/", 2),
    ("alibaba/batch", 3),
    ("alibaba/queue", 3),
    ("sync/mod", 3),
    ("sync/failure", 3),
    ("sync/hash", 3),
    ("sync/conditions", 4),
    ("sync/reason", 3),
    ("sync/bucket", 3),
    ("sync/identity", 4),
    ("sync/tenancy", 4),
    ("sync/schedule", 4),
    ("sync/backoff", 4),
    ("sync/absence", 5),
    ("sync/hint", 4),
    ("sync/share", 4),
    ("sync/bulletin", 4),
    ("sync/refusal", 4),
    ("sync/spec", 4),
    ("sync/uses", 4),
    ("sync/shape/document", 4),
    ("sync/shape/extract", 5),
    ("sync/shape/filters", 5),
    ("sync/shape/grammar", 5),
    ("sync/shape/path", 5),
    ("sync/shape/explain", 6),
    ("sync/shape/template", 6),
    ("sync/shape/mod", 6),
    ("sync/plan", 5),
    ("sync/rollout", 5),
    ("sync/status", 5),
    ("sync/sources", 5),
    ("sync/store_status", 5),
    ("sync/standing", 6),
    ("convert/", 3),
    ("plugin/standing", 6),
    ("plugin/table", 6),
    // Below: pure, all of it. From here on: I/O.
    ("alibaba/client", 7),
    ("alibaba/credentials", 8),
    ("alibaba/kms", 8),
    ("alibaba/metadata", 8),
    ("alibaba/sts", 8),
    ("alibaba/chain", 9),
    ("alibaba/reader", 9),
    ("cluster/", 9),
    ("health", 10),
    ("metrics/", 10),
    ("members/", 11),
    ("plugin/mod", 11),
    ("plugin/access", 12),
    ("plugin/status", 12),
    ("plugin/force", 12),
    ("controller/", 12),
    ("config", 13),
    ("telemetry", 14),
    ("admin", 14),
    ("events/", 14),
    ("lib", 15),
];

/// The first floor that may do anything.
const IO: u8 = 7;

/// Imports within a folder, besides those of its `mod.rs`: who may build on whom.
const WITHIN: &[(&str, &str)] = &[
    ("alibaba/error", "alibaba/identity"),
    ("alibaba/secret_name", "alibaba/endpoint"),
    ("api/mod", "api/kms_secret"),
    ("api/mod", "api/kms_store"),
    ("api/kms_store", "api/auth"),
    ("sync/shape/mod", "sync/shape/"),
    ("sync/shape/template", "sync/shape/explain"),
    ("cluster/mod", "cluster/"),
    ("metrics/mod", "metrics/"),
    ("metrics/loops", "metrics/"),
    ("metrics/objects", "metrics/series"),
    ("metrics/process", "metrics/series"),
    ("metrics/stores", "metrics/series"),
    ("members/mod", "members/"),
    ("plugin/mod", "plugin/"),
    ("plugin/table", "plugin/standing"),
    ("members/observe", "members/lease"),
    ("cluster/account", "cluster/refusal"),
    ("cluster/workload", "cluster/refusal"),
    ("cluster/secret", "cluster/shared"),
    ("cluster/merge", "cluster/"),
    ("controller/mod", "controller/"),
    ("controller/kms_secret", "controller/"),
    ("controller/store", "controller/ca_bundle"),
    ("controller/store", "controller/caches"),
    ("controller/ca_bundle", "controller/caches"),
    ("controller/store", "controller/identity"),
    ("controller/identity", "controller/access_key"),
    ("controller/watches", "controller/caches"),
    ("controller/read", "controller/gather"),
    ("controller/read", "controller/readers"),
    ("controller/readers", "controller/store"),
    ("controller/store_status", "controller/readers"),
    ("controller/store_status", "controller/memory"),
    ("controller/remove", "controller/memory"),
    ("controller/work", "controller/queue"),
    ("controller/memory", "controller/known"),
    ("controller/record", "controller/known"),
    ("controller/record", "controller/queue"),
    ("controller/store_status", "controller/queue"),
    ("controller/shown", "controller/work"),
    ("controller/check", "controller/"),
    ("controller/store_status", "controller/store"),
    ("controller/readers", "controller/caches"),
    ("controller/readers", "controller/identity"),
    ("controller/watches", "controller/hints"),
    ("controller/record", "controller/memory"),
    ("controller/remove", "controller/target_meta"),
    ("controller/watches", "controller/target_meta"),
    ("controller/caches", "controller/target_meta"),
    ("controller/remove", "controller/gather"),
    ("controller/rollout", "controller/gather"),
    ("controller/hints", "controller/memory"),
    ("controller/shown", "controller/places"),
    ("controller/hints", "controller/store"),
    ("controller/record", "controller/gather"),
    ("convert/mod", "convert/"),
    ("convert/many", "convert/"),
    ("convert/ack", "convert/"),
    ("convert/eso", "convert/"),
    ("convert/stores", "convert/"),
    ("convert/target", "convert/"),
    ("convert/identity", "convert/node"),
    ("convert/identity", "convert/report"),
    ("convert/draft", "convert/gjson"),
    ("convert/draft", "convert/gotemplate"),
    ("convert/draft", "convert/report"),
    ("convert/takeover", "convert/report"),
    ("convert/schema", "convert/report"),
    ("events/mod", "events/"),
    ("events/answers", "events/duplicates"),
    ("events/answers", "events/keys"),
    ("events/connections", "events/keys"),
    ("controller/gather", "controller/store"),
    ("controller/gather", "controller/memory"),
];

fn sources() -> Vec<(String, String)> {
    fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            // Tests alone, which may look at everything.
            if path.ends_with("fuzz") {
                continue;
            }
            if path.is_dir() {
                walk(&path, files);
            } else {
                files.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    files
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text
                .split("#[cfg(test)]\nmod tests")
                .next()
                .unwrap()
                .to_owned();
            let name = path.strip_prefix(&root).unwrap().with_extension("");
            (name.to_string_lossy().replace('\\', "/"), code)
        })
        .collect()
}

fn floor(module: &str) -> u8 {
    let found = FLOORS.iter().find(|(prefix, _)| {
        module == *prefix || (prefix.ends_with('/') && module.starts_with(prefix))
    });
    found
        .unwrap_or_else(|| panic!("{module} has no floor: give it one"))
        .1
}

/// The modules that a file names by `crate::` or `super::`.
fn imports(module: &str, code: &str, modules: &[String]) -> Vec<String> {
    let parent = |path: &str| path.rsplit_once('/').map(|(folder, _)| folder.to_owned());
    let folder = parent(module).unwrap_or_default();
    let above = if module.ends_with("/mod") {
        parent(&folder).unwrap_or_default()
    } else {
        folder
    };
    let mut found = Vec::new();
    let lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    for line in lines {
        for (marker, base) in [("crate::", ""), ("super::", &above)] {
            for rest in line.split(marker).skip(1) {
                let path: String = rest
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':')
                    .collect();
                let mut words: Vec<&str> =
                    path.split("::").filter(|word| !word.is_empty()).collect();
                words.splice(0..0, base.split('/').filter(|word| !word.is_empty()));
                let mut candidates = (1..=words.len())
                    .rev()
                    .map(|depth| words[..depth].join("/"));
                let target = candidates.find_map(|candidate| {
                    let folder = format!("{candidate}/mod");
                    [candidate.clone(), folder]
                        .into_iter()
                        .find(|name| modules.contains(name))
                });
                found.extend(target);
            }
        }
    }
    found
}

fn matches(module: &str, pattern: &str) -> bool {
    module == pattern || (pattern.ends_with('/') && module.starts_with(pattern))
}

fn is_parent(target: &str, module: &str) -> bool {
    let folder = module
        .rsplit_once('/')
        .map(|(folder, _)| format!("{folder}/mod"));
    folder.is_some_and(|parent| parent == target)
}

#[test]
fn imports_go_down_only() {
    let sources = sources();
    let modules: Vec<String> = sources.iter().map(|(module, _)| module.clone()).collect();
    let mut checked = 0;
    for (module, code) in sources.iter().filter(|(module, _)| module != "main") {
        for target in imports(module, code, &modules) {
            checked += 1;
            let is_within = WITHIN
                .iter()
                .any(|(from, to)| module == from && matches(&target, to));
            assert!(
                *module == target
                    || is_parent(&target, module)
                    || is_within
                    || floor(&target) < floor(module),
                "{module} imports {target}, which is not below it"
            );
        }
    }
    assert!(
        checked > 40,
        "{checked} imports were found: the reader is broken"
    );
}

#[test]
fn the_pure_floors_have_no_clock_no_io_and_no_randomness() {
    for (module, code) in sources() {
        if module == "main" || floor(&module) >= IO {
            continue;
        }
        for word in [
            "async fn",
            "tokio::",
            "reqwest::",
            "Instant::now",
            "Timestamp::now",
            "SystemTime",
            "std::env",
            "std::fs",
            "Uuid",
            "rand::",
        ] {
            assert!(!code.contains(word), "{module} is pure, but holds {word}");
        }
    }
}

#[test]
fn alibaba_could_be_lifted_out() {
    for (module, code) in sources() {
        if module.starts_with("alibaba/") {
            for word in [
                "kube::",
                "k8s_openapi",
                "crate::api",
                "crate::sync",
                "crate::metrics",
            ] {
                assert!(!code.contains(word), "{module} holds {word}");
            }
        }
    }
}
