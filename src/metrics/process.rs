//! What the process uses, under the names that every exporter has for it. Read from /proc at each scrape, so there is
//! none of it but on Linux.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Unit;

use super::series::{Named, count};

/// The process at one moment; what cannot be read is left out.
#[derive(Debug, Default)]
struct Usage {
    cpu_seconds: Option<f64>,
    resident_bytes: Option<f64>,
    open_fds: Option<usize>,
    start_seconds: Option<f64>,
}

/// Reads [`Usage`] at each scrape.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let usage = read();
        Named(
            "process_cpu",
            "CPU time that the process has used",
            Some(Unit::Seconds),
        )
        .counter(&mut encoder, usage.cpu_seconds)?;
        Named(
            "process_resident_memory",
            "Memory of the process that is in RAM",
            Some(Unit::Bytes),
        )
        .gauge(&mut encoder, usage.resident_bytes)?;
        Named(
            "process_open_fds",
            "Files and connections that are open",
            None,
        )
        .gauge(&mut encoder, usage.open_fds.map(count))?;
        Named(
            "process_start_time",
            "When the process began, since 1970",
            Some(Unit::Seconds),
        )
        .gauge(&mut encoder, usage.start_seconds)
    }
}

#[cfg(target_os = "linux")]
fn read() -> Usage {
    use procfs::process::Process;

    let Ok(process) = Process::myself() else {
        return Usage::default();
    };
    #[expect(
        clippy::cast_precision_loss,
        reason = "exact for centuries, and up to 8 PiB"
    )]
    let ticks = |ticks: u64| ticks as f64 / procfs::ticks_per_second() as f64;
    #[expect(clippy::cast_precision_loss, reason = "likewise")]
    let whole = |number: u64| number as f64;
    let stat = process.stat().ok();
    let stat = stat.as_ref();
    Usage {
        cpu_seconds: stat.map(|stat| ticks(stat.utime + stat.stime)),
        resident_bytes: stat.map(|stat| whole(stat.rss * procfs::page_size())),
        open_fds: process.fd_count().ok(),
        start_seconds: stat
            .zip(procfs::boot_time_secs().ok())
            .map(|(stat, boot)| whole(boot) + ticks(stat.starttime)),
    }
}

#[cfg(not(target_os = "linux"))]
fn read() -> Usage {
    Usage::default()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_begun_and_uses_something() {
        let usage = read();
        assert!(usage.cpu_seconds.is_some());
        assert!(usage.resident_bytes.is_some_and(|bytes| bytes > 100_000.0));
        // Standard input, output and error, and the folder that is being counted.
        assert!(usage.open_fds.is_some_and(|count| count >= 3));
        assert!(usage.start_seconds.is_some_and(|start| start > 1.0e9));
    }
}
