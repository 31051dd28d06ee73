//! The cluster of this test run: one of our own, that ends with this process, or with CLUSTER=current the one of
//! KUBECONFIG.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kms_secret_operator::api::definitions;
use kube::api::{Patch, PatchParams};
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{conditions, wait::await_condition};
use kube::{Api, Client, Config, ResourceExt as _};
use tokio::sync::OnceCell;

use crate::gate::Gate;

/// A cluster whose CRDs are installed.
pub(crate) struct Cluster {
    kubeconfig: Option<PathBuf>,
    supervisor: Option<Arc<Mutex<Supervisor>>>,
}

/// `dev/cluster run`. Its standard input is the cluster's life line: it closes when this process ends, however that
/// happens, or when this is dropped.
struct Supervisor {
    process: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Supervisor {
    /// Waits for a line with that word.
    fn wait_for(&mut self, word: &str) {
        let mut lines = self.lines.by_ref().map_while(Result::ok);
        assert!(
            lines.any(|line| line.contains(word)),
            "the cluster is not {word}; what dev/cluster said is above"
        );
    }
}

static CLUSTER: OnceCell<Arc<Cluster>> = OnceCell::const_new();

/// The cluster of this process, started at the first call.
pub(crate) async fn cluster() -> &'static Arc<Cluster> {
    CLUSTER
        .get_or_init(|| async {
            if wanted().as_deref() != Some("current") {
                return Arc::new(Cluster::start().await);
            }
            let cluster = Cluster {
                kubeconfig: None,
                supervisor: None,
            };
            install_definitions(cluster.client().await).await;
            Arc::new(cluster)
        })
        .await
}

#[expect(clippy::disallowed_methods, reason = "a test's own configuration")]
fn wanted() -> Option<String> {
    std::env::var("CLUSTER").ok()
}

fn start(flags: &[&str]) -> Cluster {
    let dir = std::env::temp_dir().join(format!("kso-it-{}", uuid::Uuid::new_v4()));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("dev/cluster");
    let mut process = Command::new(script)
        .args([
            "run".as_ref(),
            dir.as_os_str(),
            "--until-stdin-closes".as_ref(),
            "--".as_ref(),
        ])
        .args(flags)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("dev/cluster can be run");
    let stdout = process.stdout.take().expect("a pipe");
    let mut supervisor = Supervisor {
        process,
        lines: BufReader::new(stdout).lines(),
    };
    supervisor.wait_for("ready");
    Cluster {
        kubeconfig: Some(dir.join("kubeconfig")),
        supervisor: Some(Arc::new(Mutex::new(supervisor))),
    }
}

async fn install_definitions(client: Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client);
    for crd in definitions() {
        let name = crd.name_any();
        let params = PatchParams::apply("test").force();
        api.patch(&name, &params, &Patch::Apply(&crd))
            .await
            .expect("the CRD is accepted");
        let established = await_condition(api.clone(), &name, conditions::is_crd_established());
        tokio::time::timeout(Duration::from_secs(30), established)
            .await
            .unwrap()
            .unwrap();
    }
}

impl Cluster {
    /// Starts a cluster.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a cluster with more flags of its API server.
    pub(crate) async fn start_with(flags: &'static [&'static str]) -> Self {
        let cluster = tokio::task::spawn_blocking(|| start(flags)).await.unwrap();
        install_definitions(cluster.client().await).await;
        cluster
    }

    /// Ends the control plane; what etcd has written stays.
    pub(crate) async fn pause(&self) {
        self.order("pause", "paused").await;
    }

    /// Starts the control plane again, at the same address.
    pub(crate) async fn resume(&self) {
        self.order("resume", "ready").await;
    }

    async fn order(&self, order: &'static str, answer: &'static str) {
        let supervisor = Arc::clone(self.supervisor.as_ref().expect("a cluster of our own"));
        // The operators of the test go on meanwhile.
        let obey = move || {
            let mut supervisor = supervisor.lock().unwrap();
            let stdin = supervisor.process.stdin.as_mut().expect("a pipe");
            writeln!(stdin, "{order}").unwrap();
            supervisor.wait_for(answer);
        };
        tokio::task::spawn_blocking(obey).await.unwrap();
    }

    /// Copies what etcd has written, of a cluster that is paused.
    pub(crate) fn back_up(&self) {
        let [data, backup] = self.data();
        let copied = Command::new("cp").arg("-a").args([data, backup]).status();
        assert!(copied.unwrap().success());
    }

    /// Puts the copy back, of a cluster that is paused.
    pub(crate) fn restore(&self) {
        let [data, backup] = self.data();
        std::fs::remove_dir_all(&data).unwrap();
        std::fs::rename(backup, data).unwrap();
    }

    fn data(&self) -> [PathBuf; 2] {
        let kubeconfig = self.kubeconfig.as_ref().expect("a cluster of our own");
        ["cluster.data", "backup"].map(|name| kubeconfig.with_file_name(name))
    }

    /// Stops garbage collection for good, so that what it would do at any moment has not been done yet.
    pub(crate) fn stop_controllers(&self) {
        let dir = self
            .kubeconfig()
            .and_then(Path::parent)
            .expect("a cluster of our own");
        let is_it = |entry: &std::fs::DirEntry| {
            let command = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            command.starts_with("controllers") && command.contains(&*dir.to_string_lossy())
        };
        let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let found: Vec<_> = processes
            .filter(is_it)
            .map(|entry| entry.file_name())
            .collect();
        assert_eq!(found.len(), 1, "one process runs the controllers");
        assert!(
            Command::new("kill")
                .arg("-STOP")
                .args(found)
                .status()
                .unwrap()
                .success()
        );
    }

    /// A client that belongs to the runtime of the caller.
    pub(crate) async fn client(&self) -> Client {
        Client::try_from(self.config().await).unwrap()
    }

    /// A client whose requests go through a gate.
    pub(crate) async fn client_behind(&self, gate: &Gate) -> Client {
        let builder = ClientBuilder::try_from(self.config().await).unwrap();
        builder.with_layer(gate).build()
    }

    /// A client that acts as a ServiceAccount.
    pub(crate) async fn client_as(&self, namespace: &str, name: &str) -> Client {
        let mut config = self.config().await;
        config.auth_info.impersonate = Some(format!("system:serviceaccount:{namespace}:{name}"));
        config.auth_info.impersonate_groups = Some(vec![
            "system:authenticated".into(),
            "system:serviceaccounts".into(),
        ]);
        Client::try_from(config).unwrap()
    }

    async fn config(&self) -> Config {
        match &self.kubeconfig {
            None => Config::infer()
                .await
                .expect("CLUSTER=current needs a KUBECONFIG"),
            Some(path) => {
                let kubeconfig = Kubeconfig::read_from(path).unwrap();
                Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                    .await
                    .unwrap()
            }
        }
    }

    /// The kubeconfig, for other processes; `None`: they inherit the one that this process has.
    pub(crate) fn kubeconfig(&self) -> Option<&Path> {
        self.kubeconfig.as_deref()
    }
}
