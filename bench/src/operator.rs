//! The operator as its users run it: a process of its own.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::process::{self, Usage};
use crate::world::World;

/// Ports below those that the kernel gives to outgoing connections.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// It must be ready, or gone, within this.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running operator. It is killed when this is dropped, or when this process ends.
pub(crate) struct Operator {
    process: Child,
    name: String,
    port: u16,
}

impl Operator {
    /// Starts one, and does not wait for it. Its name tells it from other replicas.
    pub(crate) fn start(binary: &Path, world: &World, name: &str) -> Result<Self> {
        let log = File::create(world.cluster.dir().join(format!("{name}.log")))?;
        let port = free_port().context("no port is free for the operator")?;
        // setpriv becomes the operator, which the kernel then ends with us.
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(binary)
            .args(["run", "--replica-name", name])
            .args(["--allow-endpoint", &world.kms.origin()])
            // The hours of a soak are short.
            .args(["--min-refresh-interval", "1s"])
            .args(["--admin-listen", &format!("127.0.0.1:{port}")])
            .env("KUBECONFIG", world.cluster.kubeconfig())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("setpriv (Debian package util-linux) cannot be run")?;
        Ok(Self {
            process,
            name: name.to_owned(),
            port,
        })
    }

    /// Waits until its caches are filled and it holds its Lease.
    pub(crate) async fn until_ready(&mut self) -> Result<()> {
        let url = format!("http://127.0.0.1:{}/readyz", self.port);
        let asking = async {
            loop {
                if let Some(status) = self.process.try_wait()? {
                    bail!("the operator {} has ended: {status}", self.name);
                }
                let answer = reqwest::get(&url).await;
                if answer.is_ok_and(|answer| answer.status().is_success()) {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let answer = tokio::time::timeout(PATIENCE, asking).await;
        answer.with_context(|| format!("the operator {} is not ready in time", self.name))?
    }

    /// What it has used.
    pub(crate) fn usage(&self) -> Result<Usage> {
        process::usage(self.process.id())
    }

    /// Asks it to stop, and does not wait.
    pub(crate) fn ask_to_stop(&self) -> Result<()> {
        let pid = self.process.id().to_string();
        let status = Command::new("kill").args(["-TERM", &pid]).status()?;
        ensure!(
            status.success(),
            "the operator {} cannot be stopped",
            self.name
        );
        Ok(())
    }

    /// Stops it cleanly.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.ask_to_stop()?;
        let ending = async {
            while self.process.try_wait()?.is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            anyhow::Ok(())
        };
        let ended = tokio::time::timeout(PATIENCE, ending).await;
        ended.context("the operator did not stop in time")?
    }

    /// Ends it in the middle of whatever it does.
    pub(crate) fn kill(self) {
        drop(self);
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> Option<u16> {
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    // Another benchmark that begins at this moment begins to look elsewhere.
    let begin = usize::try_from(std::process::id()).unwrap_or_default() % PORTS.len();
    PORTS.skip(begin).chain(PORTS).find(is_free)
}
