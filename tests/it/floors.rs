//! The architecture, held by reading the source: imports go down only, and the pure floor stays pure.

use std::path::{Path, PathBuf};

/// The floors, from the bottom; a module may import from floors below its own, and within one folder from the folder's
/// own `mod.rs`. `alibaba` and `alibaba::kms` name the types of the pure floor that live in those files.
const FLOORS: [(&str, u8); 18] = [
    ("alibaba/mod", 0),
    ("alibaba/sign", 1),
    ("alibaba/endpoint", 1),
    ("api/mod", 1),
    ("api/kms_secret", 1),
    ("api/kms_store", 1),
    ("alibaba/client", 2),
    ("alibaba/kms", 3),
    ("sync/", 4),
    ("cluster", 5),
    ("metrics", 5),
    ("controller/memory", 6),
    ("controller/", 7),
    ("config", 8),
    ("telemetry", 9),
    ("admin", 9),
    ("lib", 10),
    ("main", 11),
];

/// Files that decide and never do.
const PURE: [&str; 5] = [
    "api/",
    "sync/",
    "alibaba/sign",
    "alibaba/endpoint",
    "alibaba/mod",
];

fn sources() -> Vec<(String, String)> {
    fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
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
            let code = text.split("#[cfg(test)]").next().unwrap().to_owned();
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

/// The modules that a file names by `crate::`, `super::` or, in the binary, by the crate's name.
fn imports(module: &str, code: &str, modules: &[String]) -> Vec<String> {
    let folder = module.rsplit_once('/').map(|(folder, _)| folder);
    let own = if module.ends_with("/mod") {
        folder
    } else {
        None
    };
    let mut found = Vec::new();
    let lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    for line in lines {
        for (marker, base) in [
            ("crate::", Some("")),
            ("super::", if own.is_some() { Some("") } else { folder }),
        ] {
            for rest in line.split(marker).skip(1) {
                let path: String = rest
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':')
                    .collect();
                let mut words: Vec<&str> =
                    path.split("::").filter(|word| !word.is_empty()).collect();
                words.splice(
                    0..0,
                    base.into_iter()
                        .flat_map(|base| base.split('/'))
                        .filter(|word| !word.is_empty()),
                );
                let candidates = [
                    words.iter().take(2).copied().collect::<Vec<_>>().join("/"),
                    words
                        .first()
                        .map(|word| (*word).to_owned())
                        .unwrap_or_default(),
                ];
                let target = candidates.iter().find_map(|candidate| {
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

#[test]
fn imports_go_down_only() {
    let sources = sources();
    let modules: Vec<String> = sources.iter().map(|(module, _)| module.clone()).collect();
    let mut checked = 0;
    for (module, code) in &sources {
        for target in imports(module, code, &modules) {
            let (folder, parent) = (module.rsplit_once('/'), target.rsplit_once('/'));
            let is_own = *module == target;
            // A folder's mod.rs holds what its files share.
            let is_parent = matches!((folder, parent), (Some((a, _)), Some((b, "mod"))) if a == b);
            // Within sync, plan builds on schedule, and nothing else on a sibling.
            let is_named = matches!(
                (module.as_str(), target.as_str()),
                ("sync/plan" | "sync/status", "sync/schedule")
            ) || matches!(
                (module.as_str(), target.as_str()),
                ("controller/kms_secret", "controller/kms_store")
            ) || (target == "api/mod" || module == "api/mod")
                && module.starts_with("api/");
            checked += 1;
            assert!(
                is_own
                    || is_parent
                    || is_named
                    || floor(&target) < floor(module)
                    || (module == "controller/mod" && target.starts_with("controller/")),
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
fn the_pure_floor_has_no_clock_no_io_and_no_randomness() {
    for (module, code) in sources() {
        if !PURE.iter().any(|prefix| {
            module == *prefix || (prefix.ends_with('/') && module.starts_with(prefix))
        }) {
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
