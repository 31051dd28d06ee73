//! What a process has used, from /proc.

use std::fs;

use anyhow::{Context as _, Result};

/// What /proc counts CPU time in: `USER_HZ` is 100 on every architecture that Rust runs on.
const TICKS_A_SECOND: f64 = 100.0;

/// What a process has used until now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Usage {
    /// User and system time, in seconds.
    pub(crate) cpu: f64,
    /// Resident memory, in MiB.
    pub(crate) resident: f64,
    /// The part of it that no file holds: what the program has allocated, in MiB.
    pub(crate) anonymous: f64,
    /// The most that was resident at any time, in MiB.
    pub(crate) peak: f64,
}

/// What the process of that id has used.
pub(crate) fn usage(pid: u32) -> Result<Usage> {
    let read = |file: &str| {
        let path = format!("/proc/{pid}/{file}");
        fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
    };
    parse(&read("stat")?, &read("status")?)
        .with_context(|| format!("/proc/{pid} does not say what the process uses"))
}

/// Reads the files `stat` and `status`, as proc(5) describes them.
fn parse(stat: &str, status: &str) -> Option<Usage> {
    // The name of the program stands in parentheses, and may hold spaces and parentheses itself.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field)?.parse::<f64>().ok();
    let mebibytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kibibytes = line.trim().strip_suffix(" kB")?.parse::<f64>().ok()?;
        Some(kibibytes / 1024.0)
    };
    Some(Usage {
        cpu: (ticks(11)? + ticks(12)?) / TICKS_A_SECOND,
        resident: mebibytes("VmRSS:")?,
        anonymous: mebibytes("RssAnon:")?,
        peak: mebibytes("VmHWM:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read_whatever_the_program_is_called() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 3000 0 5 0 150 50 0 0 20 0 9 0 100 1 1";
        let status = "Name:\tx\nVmHWM:\t   20480 kB\nVmRSS:\t   10240 kB\nRssAnon:\t    5120 kB\n";
        let expected = Usage {
            cpu: 2.0,
            resident: 10.0,
            anonymous: 5.0,
            peak: 20.0,
        };
        assert_eq!(parse(stat, status), Some(expected));
        assert_eq!(parse(stat, "VmRSS:\t   10240 kB\n"), None);
    }

    #[test]
    fn this_process_uses_something() {
        let usage = usage(std::process::id()).unwrap();
        assert!(usage.resident > 0.0 && usage.peak >= usage.resident);
    }
}
