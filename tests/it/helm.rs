//! Helm, as people use it on the chart of this repository.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::docs::{files, root};

/// Where the chart is.
pub(crate) const CHART: &str = "charts/kms-secret-operator";

/// What `helm` printed; what it complained of, if it failed.
pub(crate) fn helm<S: AsRef<OsStr>>(args: &[S]) -> Result<String, String> {
    let called = Command::new(root().join("dev/helm"))
        .current_dir(root())
        .args(args)
        .output()
        .expect("dev/helm can be run");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if called.status.success() {
        Ok(text(called.stdout))
    } else {
        Err(text(called.stderr))
    }
}

/// The values files that the chart is tried with.
pub(crate) fn profiles() -> Vec<PathBuf> {
    let mut profiles = files(&format!("{CHART}/ci"));
    profiles.sort();
    profiles
}

/// One of them.
pub(crate) fn profile(name: &str) -> PathBuf {
    root().join(format!("{CHART}/ci/{name}.yaml"))
}

/// What the chart makes of a values file and more values, each `name=JSON`.
pub(crate) fn render(values: &Path, more: &[&str]) -> Result<Vec<Value>, String> {
    let values = values.to_string_lossy();
    let mut args = vec![
        "template",
        "kms-secret-operator",
        CHART,
        "--namespace",
        "kso",
        "--values",
        &*values,
    ];
    for value in more {
        args.extend(["--set-json", value]);
    }
    helm(&args).map(|yaml| documents(&yaml))
}

/// The objects of a YAML stream.
pub(crate) fn documents(yaml: &str) -> Vec<Value> {
    let parts = yaml
        .split("\n---\n")
        .map(|part| part.trim_start_matches("---\n"));
    let objects = parts.map(|part| serde_saphyr::from_str::<Value>(part).unwrap());
    objects.filter(Value::is_object).collect()
}

/// Those of a kind.
pub(crate) fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects
        .iter()
        .filter(|object| object["kind"] == kind)
        .collect()
}

/// The Pod that runs the operator.
pub(crate) fn operator_pod(objects: &[Value]) -> &Value {
    let deployments = of_kind(objects, "Deployment");
    let is_operator = |object: &&&Value| {
        object["metadata"]["labels"]["app.kubernetes.io/component"] == "operator"
    };
    &deployments.iter().find(is_operator).unwrap()["spec"]["template"]
}

/// The arguments that the chart starts the operator with, without the program's name.
pub(crate) fn operator_args(objects: &[Value]) -> Vec<String> {
    let args = &operator_pod(objects)["spec"]["containers"][0]["args"];
    let args = args.as_array().unwrap().iter();
    args.map(|arg| arg.as_str().unwrap().to_owned()).collect()
}
