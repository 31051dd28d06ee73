//! Helm, as people use it on the chart of this repository.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::docs::{files, root};
use crate::world::World;

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

/// A release of the chart, for one namespace, without what is installed already; dropping it uninstalls it.
pub(crate) struct Release {
    namespace: String,
    kubeconfig: Vec<String>,
}

/// What a release is called; so are its ServiceAccount and its Roles, as it holds the chart's name.
pub(crate) const RELEASE: &str = "kms-secret-operator";

impl Release {
    /// Installs the chart in a world's namespace; more values are `name=JSON`.
    pub(crate) async fn install(world: &World, more: &[&str]) -> Self {
        let kubeconfig = world.cluster.kubeconfig().map(|path| {
            [
                "--kubeconfig".to_owned(),
                path.to_string_lossy().into_owned(),
            ]
        });
        let release = Self {
            namespace: world.namespace.clone(),
            kubeconfig: kubeconfig.into_iter().flatten().collect(),
        };
        let installed = release.call(&["install", RELEASE, CHART], more).await;
        assert!(installed.is_ok(), "{installed:?}");
        release
    }

    /// `helm` with the release's namespace and cluster.
    pub(crate) async fn call(&self, words: &[&str], values: &[&str]) -> Result<String, String> {
        let mut args: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        args.extend(["--namespace".to_owned(), self.namespace.clone()]);
        args.extend(self.kubeconfig.clone());
        for value in values {
            args.extend(["--set-json".to_owned(), (*value).to_owned()]);
        }
        tokio::task::spawn_blocking(move || helm(&args))
            .await
            .unwrap()
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        let mut args = vec![
            "uninstall",
            RELEASE,
            "--ignore-not-found",
            "--namespace",
            &self.namespace,
        ];
        args.extend(self.kubeconfig.iter().map(String::as_str));
        // The cluster may be gone already.
        let _ = helm(&args);
    }
}
