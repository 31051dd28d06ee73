//! `kms-secret-operator convert`: golden manifests, and that the API server takes what comes out.

use kms_secret_operator::convert::{Converted, Level, Options, convert};
use serde_json::Value;

use crate::docs::{files, read, root, try_out};
use crate::world::World;

fn options() -> Options {
    Options {
        region: Some("cn-hangzhou".to_owned()),
        ..Options::default()
    }
}

/// The names of the inputs, without their extension.
fn inputs() -> Vec<String> {
    let names = files("tests/convert").into_iter().filter_map(|path| {
        let name = path.file_name()?.to_str()?;
        Some(name.strip_suffix(".in.yaml")?.to_owned())
    });
    let mut names: Vec<_> = names.collect();
    names.sort();
    assert!(names.len() >= 6, "{names:?}");
    names
}

fn converted(name: &str) -> Converted {
    convert(&read(format!("tests/convert/{name}.in.yaml")), &options()).unwrap()
}

fn lines(converted: &Converted) -> String {
    let lines = converted.report.iter().map(|line| format!("{line}\n"));
    lines.collect()
}

#[test]
fn every_manifest_becomes_what_stands_beside_it() {
    #[expect(clippy::disallowed_methods, reason = "a test's own configuration")]
    let update = std::env::var("UPDATE_CONVERT").is_ok();
    for name in inputs() {
        let converted = converted(&name);
        for (extension, text) in [
            ("out.yaml", &converted.manifests),
            ("report.txt", &lines(&converted)),
        ] {
            let file = root().join(format!("tests/convert/{name}.{extension}"));
            if update {
                std::fs::write(&file, text).unwrap();
            }
            let stored = std::fs::read_to_string(&file).unwrap_or_default();
            assert!(
                stored == *text,
                "{} is not what comes out now: look at UPDATE_CONVERT=1 cargo test --test it convert::\n{text}",
                file.display()
            );
        }
        assert_eq!(
            converted.is_whole(),
            !lines(&converted).contains("refused") && !lines(&converted).contains("lost")
        );
    }
}

#[tokio::test]
async fn the_api_server_takes_everything_that_comes_out() {
    let world = World::new().await;
    let mut tried = 0;
    for name in inputs() {
        let manifests = converted(&name).manifests;
        for document in manifests.split("---\n").filter(|text| !text.is_empty()) {
            let said = try_out(&world, document).await;
            assert!(said.is_ok(), "{name}: {said:?}\n{document}");
            tried += 1;
        }
    }
    assert!(tried >= 8, "{tried} manifests");
}

#[test]
fn no_value_of_a_secret_comes_out() {
    for name in inputs() {
        let converted = converted(&name);
        let said = format!("{}{}", converted.manifests, lines(&converted));
        assert!(!said.contains("planted"), "{name}");
    }
    let broken = "apiVersion: v1\nkind: Secret\nstringData: {a: planted\nb: [";
    let said = convert(broken, &options()).unwrap_err();
    assert!(!said.contains("planted"), "{said}");
}

#[test]
fn a_serviceaccount_takes_the_place_of_the_controllers_own() {
    let options = Options {
        service_account: Some("kms-reader".to_owned()),
        ..options()
    };
    let input = read("tests/convert/ack-refused.in.yaml");
    let converted = convert(&input, &options).unwrap();
    let documents: Vec<Value> = serde_saphyr::from_multiple(&converted.manifests).unwrap();
    let account = &documents[0]["spec"]["auth"]["serviceAccount"];
    assert_eq!(account["name"], "kms-reader");
    assert_eq!(account["roleArn"], "acs:ram::1:role/x");
    let asked =
        "kubectl annotate serviceaccount kms-reader -n shop alikms.dev/role-arn=acs:ram::1:role/x";
    let asked =
        |line: &&kms_secret_operator::convert::Line| line.level == Level::Do && line.text == asked;
    assert!(
        converted.report.iter().any(|line| asked(&line)),
        "{}",
        lines(&converted)
    );
}

#[test]
fn no_field_is_dropped_in_silence() {
    for name in inputs().iter().filter(|name| !name.contains("refused")) {
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(&read(format!("tests/convert/{name}.in.yaml"))).unwrap();
        for mut document in documents {
            let objects: Vec<&mut Value> = match document.get_mut("items") {
                Some(items) => items.as_array_mut().unwrap().iter_mut().collect(),
                None => vec![&mut document],
            };
            for object in objects
                .into_iter()
                .filter(|object| object["kind"] != "Secret")
            {
                // A field that nobody knows, at every place where fields are.
                for place in places(&object["spec"], "/spec") {
                    let mut strange = object.clone();
                    strange.pointer_mut(&place).unwrap()["strangeField"] = "x".into();
                    let yaml = serde_json::to_string(&strange).unwrap();
                    let converted = convert(&yaml, &options()).unwrap();
                    let is_free = ["labels", "annotations", "matchLabels", "data"]
                        .iter()
                        .any(|map| place.ends_with(map));
                    let is_said = lines(&converted).contains("strangeField");
                    // Or all of what it stands in.
                    let whole = place[1..].replace('/', ".");
                    let is_said = is_said || lines(&converted).contains(&format!(" {whole}:"));
                    let is_kept = converted.manifests.contains("strangeField");
                    assert!(
                        is_said || (is_free && is_kept) || lines(&converted).contains("refused"),
                        "{name} {place}\n{}",
                        lines(&converted)
                    );
                }
            }
        }
    }
}

/// Where objects are in a value.
fn places(value: &Value, at: &str) -> Vec<String> {
    match value {
        Value::Object(fields) => {
            let inner = fields
                .iter()
                .flat_map(|(name, value)| places(value, &format!("{at}/{name}")));
            std::iter::once(at.to_owned()).chain(inner).collect()
        }
        Value::Array(items) => {
            let inner = items
                .iter()
                .enumerate()
                .flat_map(|(index, value)| places(value, &format!("{at}/{index}")));
            inner.collect()
        }
        _ => Vec::new(),
    }
}

/// Runs the program with nobody to read what it prints.
fn unread(words: &[&str], has_errors: bool) -> (Option<i32>, String) {
    use std::io::Read as _;
    use std::process::{Command, Stdio};

    let mut command = Command::new(env!("CARGO_BIN_EXE_kms-secret-operator"));
    command.args(words).stdin(Stdio::null());
    let mut program = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(program.stdout.take());
    let mut said = String::new();
    let errors = program.stderr.take();
    if has_errors {
        errors.unwrap().read_to_string(&mut said).unwrap();
    }
    (program.wait().unwrap().code(), said)
}

#[test]
fn who_has_read_enough_closes_the_pipe_and_hears_no_more() {
    assert_eq!(unread(&["crds"], true), (Some(0), String::new()));
    let input = root().join("tests/convert/eso-refused.in.yaml");
    let words = ["convert", input.to_str().unwrap()];
    let (code, said) = unread(&words, true);
    assert!(
        code == Some(1) && said.contains("refused") && !said.contains("panicked"),
        "{code:?} {said}"
    );
    assert_eq!(unread(&words, false), (Some(1), String::new()));
}
