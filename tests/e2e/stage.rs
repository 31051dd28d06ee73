//! What the play is on: a cluster with a node, and the commands that people use.

use std::future::Future;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// Namespace of the release.
pub(crate) const OPERATOR: &str = "kms-secret-operator";
/// Namespace of the application.
pub(crate) const APP: &str = "shop";

/// A cluster of this test's own; dropping it ends all of it.
pub(crate) struct Stage {
    dir: PathBuf,
    /// Its standard input is the life line of the cluster, and the node ends with the cluster.
    cluster: Child,
}

impl Stage {
    /// Starts a cluster and a node that has the images of `dev/image`.
    pub(crate) fn set() -> Self {
        let dir = std::env::temp_dir().join(format!("kso-e2e-{}", uuid::Uuid::new_v4()));
        let mut cluster = Command::new(root().join("dev/cluster"))
            .args([
                "run".as_ref(),
                dir.as_os_str(),
                "--until-stdin-closes".as_ref(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("dev/cluster can be run");
        let mut said = String::new();
        let stdout = cluster.stdout.take().expect("a pipe");
        let _ = BufReader::new(stdout).read_line(&mut said);
        assert!(said.contains("ready"), "the cluster did not start");
        let stage = Self { dir, cluster };
        let mut node = Command::new(root().join("dev/node"));
        node.arg("up")
            .arg(&stage.dir)
            .args(["kms-secret-operator", "kms-emulator"].map(image))
            .stdin(Stdio::null());
        say(finish(&mut node, "dev/node up").trim());
        stage
    }

    /// `kubectl`, which has to succeed; returns what it prints.
    pub(crate) fn kubectl(&self, args: &[&str]) -> String {
        finish(
            self.kubectl_command().args(args).stdin(Stdio::null()),
            &args.join(" "),
        )
    }

    /// `kubectl`, to be run.
    pub(crate) fn kubectl_command(&self) -> Command {
        let mut command = Command::new(self.dir.join("kubectl"));
        command
            .env("KUBECONFIG", self.kubeconfig())
            .env("KUBECACHEDIR", self.dir.join("kubectl-cache"));
        command
    }

    /// `kubectl apply` of a manifest in a namespace.
    pub(crate) fn apply(&self, namespace: &str, manifest: &str) {
        let mut apply = self
            .kubectl_command()
            .args(["apply", "--namespace", namespace, "--filename=-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        apply
            .stdin
            .take()
            .unwrap()
            .write_all(manifest.as_bytes())
            .unwrap();
        assert!(apply.wait().unwrap().success(), "kubectl apply failed");
    }

    /// `helm` in the release's namespace.
    pub(crate) fn helm(&self, args: &[&str]) -> String {
        let mut helm = Command::new(root().join("dev/helm"));
        helm.current_dir(root())
            .args(args)
            .args(["--namespace", OPERATOR])
            .env("KUBECONFIG", self.kubeconfig())
            .stdin(Stdio::null());
        finish(&mut helm, &args.join(" "))
    }

    /// Kills the first process of a container, as a crash would.
    pub(crate) fn kill(&self, container: &str) {
        let mut kill = Command::new("ctr");
        kill.arg("--address")
            .arg(self.dir.join("node/containerd.sock"))
            .args(["--namespace", "k8s.io", "tasks", "kill", "--signal", "KILL"])
            .arg(container);
        finish(&mut kill, "ctr tasks kill");
    }

    /// A client with all rights.
    pub(crate) async fn client(&self) -> Client {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig()).unwrap();
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .unwrap();
        Client::try_from(config).unwrap()
    }

    fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// What a reader of a failure wants to know first.
    fn explain(&self) {
        for args in [
            vec![
                "get",
                "pods,kmssecrets,secrets",
                "--all-namespaces",
                "--output=wide",
            ],
            vec!["get", "events", "--all-namespaces"],
            vec![
                "logs",
                "--namespace",
                OPERATOR,
                "--selector=app.kubernetes.io/component=operator",
                "--tail=30",
            ],
        ] {
            let _ = self
                .kubectl_command()
                .args(args)
                .stdin(Stdio::null())
                .status();
        }
        say(&format!("all logs are in {}", self.dir.display()));
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        if failed {
            self.explain();
        }
        let down = Command::new(root().join("dev/node"))
            .arg("down")
            .arg(&self.dir)
            .status();
        drop(self.cluster.stdin.take());
        let _ = self.cluster.wait();
        if !failed {
            assert!(down.unwrap().success(), "the node did not end");
            std::fs::remove_dir_all(&self.dir).unwrap();
        }
    }
}

/// Where this repository is.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where `dev/image` has put an image.
fn image(name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    target.join("images").join(name).with_extension("tar")
}

/// Runs a command to its end, which has to be a good one.
fn finish(command: &mut Command, what: &str) -> String {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{}: {}{}",
        what,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// How many seconds something took.
pub(crate) fn timed(act: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    act();
    begin.elapsed().as_secs_f64()
}

/// Tells the reader of the test's output.
#[expect(clippy::print_stdout, reason = "the numbers are what people look for")]
pub(crate) fn say(line: &str) {
    println!("e2e: {line}");
}

/// Waits until something is there, and returns it.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut look: impl FnMut() -> F,
) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(
            begin.elapsed() < Duration::from_secs(120),
            "waited in vain for {what}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
