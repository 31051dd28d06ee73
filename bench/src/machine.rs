//! What the benchmark runs on.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};
use jiff::Timestamp;

use crate::results::Machine;

/// What this machine is, and which commit was built on it.
pub(crate) fn describe() -> Result<Machine> {
    let read = |path: &str| fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
    let kibibytes = field(&read("/proc/meminfo")?, "MemTotal").unwrap_or_default();
    let kibibytes: f64 = kibibytes
        .trim_end_matches(" kB")
        .parse()
        .unwrap_or_default();
    let cpu = field(&read("/proc/cpuinfo")?, "model name");
    let release = read("/proc/sys/kernel/osrelease")?;
    Ok(Machine {
        commit: commit()?,
        date: now().strftime("%Y-%m-%d").to_string(),
        cpu: cpu.unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
        cores: std::thread::available_parallelism()?.get(),
        memory: (kibibytes / 1024.0 / 1024.0).round(),
        system: format!("Linux {}", release.trim()),
        kubernetes: kubernetes()?,
        build: if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        }
        .to_owned(),
    })
}

#[expect(clippy::disallowed_methods, reason = "the date of the run")]
fn now() -> Timestamp {
    Timestamp::now()
}

/// The value of a line `name : value`.
fn field(text: &str, name: &str) -> Option<String> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(key, _)| key.trim() == name)?;
    Some(value.trim().to_owned())
}

/// The release of Kubernetes that dev/cluster runs.
fn kubernetes() -> Result<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../dev/cluster");
    let text = fs::read_to_string(script).with_context(|| format!("cannot read {script}"))?;
    let mut lines = text
        .lines()
        .filter_map(|line| line.strip_prefix("kubernetes="));
    Ok(lines.next().unwrap_or("unknown").to_owned())
}

/// What is checked out, and whether files were changed since.
fn commit() -> Result<String> {
    let git = |words: &[&str]| -> Result<String> {
        let output = Command::new("git").args(words).output();
        let output = output.context("git cannot be run")?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changes = git(&[
        "status",
        "--porcelain",
        "--",
        "src",
        "emulator",
        "bench",
        "Cargo.lock",
    ])?;
    Ok(match (commit.as_str(), changes.as_str()) {
        ("", _) => "unknown".to_owned(),
        (_, "") => commit,
        _ => format!("{commit} and changes"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_whatever_stands_around_it() {
        let text = "processor\t: 0\nmodel name\t: A CPU: fast\n";
        assert_eq!(field(text, "model name").as_deref(), Some("A CPU: fast"));
        assert_eq!(field(text, "model"), None);
    }
}
