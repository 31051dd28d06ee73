//! Logs.

use std::io::IsTerminal as _;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::Directive;

use crate::config::LogFormat;

/// What other crates may log at most, whatever is asked for: kube logs a body that it can't decode as a warning, and the
/// HTTP crates trace URLs and headers.
const CAPS: [(&str, LevelFilter); 8] = [
    ("kube_client::client", LevelFilter::ERROR),
    // Every failure of a watch is told by the loop, in a line.
    ("kube_runtime::watcher", LevelFilter::ERROR),
    ("hyper", LevelFilter::INFO),
    ("hyper_util", LevelFilter::INFO),
    ("h2", LevelFilter::INFO),
    ("reqwest", LevelFilter::INFO),
    ("rustls", LevelFilter::INFO),
    ("tower", LevelFilter::INFO),
];

/// Installs the logger; a second call changes nothing.
pub fn init(format: LogFormat, level: LevelFilter) {
    let builder = tracing_subscriber::fmt()
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(filter(level))
        .with_writer(std::io::stderr);
    let _ = match format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.try_init(),
    };
}

fn filter(level: LevelFilter) -> EnvFilter {
    let caps = CAPS.iter().filter_map(|(target, cap)| {
        let directive = format!("{target}={}", (*cap).min(level));
        directive.parse::<Directive>().ok()
    });
    let base = EnvFilter::default().add_directive(level.into());
    caps.fold(base, EnvFilter::add_directive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cap_only_ever_lowers() {
        let trace = filter(LevelFilter::TRACE).to_string();
        assert!(trace.contains("kube_client::client=error"), "{trace}");
        assert!(trace.contains("hyper_util=info"), "{trace}");
        let warn = filter(LevelFilter::WARN).to_string();
        assert!(warn.contains("hyper=warn"), "{warn}");
    }
}
