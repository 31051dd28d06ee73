//! A control plane for one measurement, fresh, so that nothing is left of those before.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kms_secret_operator::api::definitions;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{conditions, wait::await_condition};
use kube::{Api, Client, Config, ResourceExt as _};

use crate::requests::Requests;

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// A control plane whose CRDs are installed. It ends when this is dropped, or when this process ends.
pub(crate) struct Cluster {
    dir: PathBuf,
    supervisor: Child,
    pub(crate) client: Client,
}

impl Cluster {
    pub(crate) async fn start() -> Result<Self> {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("kms-bench-{}-{count}", std::process::id()));
        let supervisor = launch(&dir)?;
        let kubeconfig = Kubeconfig::read_from(dir.join("kubeconfig"))?;
        let config =
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let cluster = Self {
            dir,
            supervisor,
            client: Client::try_from(config)?,
        };
        install_definitions(&cluster.client).await?;
        Ok(cluster)
    }

    /// For other processes.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// Where logs go; it is deleted with the cluster.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// All requests that the API server has answered.
    pub(crate) async fn requests(&self) -> Result<Requests> {
        let request = http::Request::get("/metrics").body(Vec::new())?;
        let metrics = self.client.request_text(request).await;
        Ok(Requests::parse(
            &metrics.context("the API server shows no metrics")?,
        ))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Its standard input is the cluster's life line.
        drop(self.supervisor.stdin.take());
        let _ = self.supervisor.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn launch(dir: &Path) -> Result<Child> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dev/cluster");
    let mut supervisor = Command::new(&script)
        .arg("run")
        .arg(dir)
        .arg("--until-stdin-closes")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("{} cannot be run", script.display()))?;
    let lines = supervisor.stdout.take().map(BufReader::new);
    let mut lines = lines.into_iter().flat_map(BufReader::lines);
    let is_ready = lines.any(|line| line.is_ok_and(|line| line.contains("ready")));
    ensure!(
        is_ready,
        "the control plane did not start; what dev/cluster said is above"
    );
    Ok(supervisor)
}

async fn install_definitions(client: &Client) -> Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in definitions() {
        api.create(&PostParams::default(), &crd).await?;
        let name = crd.name_any();
        let established = await_condition(api.clone(), &name, conditions::is_crd_established());
        let established = tokio::time::timeout(Duration::from_secs(30), established).await;
        established.with_context(|| format!("{name} is not served after 30 seconds"))??;
    }
    Ok(())
}
