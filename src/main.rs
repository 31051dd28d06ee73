//! The command line: parses it and hands over to the library.

use std::io::{ErrorKind, Read as _, Write};
use std::process::ExitCode;

use kms_secret_operator::config::{Check, Command, Convert, LogFormat, Plugin, Run};
use kms_secret_operator::plugin::{Access, Force, Status};
use kms_secret_operator::{check, connect, convert, crds_yaml, force, run, status, telemetry};
use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;

/// A burst of work leaves holes in the heap; this one gives them back to the system.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Whether all is well.
type Outcome = Result<bool, Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> ExitCode {
    let command = Command::parse(std::env::args_os()).unwrap_or_else(|err| err.exit());
    let outcome = match command {
        Command::Run(flags) => operate(*flags).await,
        Command::Plugin(Plugin::Status(flags)) => look(&flags).await,
        Command::Plugin(Plugin::Sync(flags)) => renew(&flags).await,
        Command::Plugin(Plugin::Check(flags)) => ask(*flags).await,
        Command::Crds => print_crds(),
        Command::Convert(flags) => translate(flags),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(err) => {
            tell(&*err);
            ExitCode::FAILURE
        }
    }
}

async fn operate(mut flags: Run) -> Outcome {
    telemetry::init(flags.log_format, flags.log_level);
    flags.reach.read_environment()?;
    flags.replica.read_environment();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let client = connect(&Access::default()).await?;
    run(flags, client, stop).await?;
    Ok(true)
}

/// Prints how KmsSecrets stand; answers whether nobody has to look.
async fn look(flags: &Status) -> Outcome {
    telemetry::init(LogFormat::Text, LevelFilter::ERROR);
    let (report, text) = status(flags, connect(&flags.access).await?).await?;
    print(&text)?;
    for complaint in report.complaints() {
        complain(&complaint)?;
    }
    Ok(report.is_fine())
}

/// Has KmsSecrets synced; answers whether that was done, or asked for where nobody waits.
async fn renew(flags: &Force) -> Outcome {
    telemetry::init(LogFormat::Text, LevelFilter::ERROR);
    let asked = force(flags, connect(&flags.access).await?).await?;
    for one in &asked {
        print(&format!("{one}\n"))?;
    }
    if asked.is_empty() {
        complain("no KmsSecrets found")?;
    }
    Ok(asked.iter().all(|one| one.outcome.is_fine()))
}

/// Answers whether everything can be read.
async fn ask(mut flags: Check) -> Outcome {
    telemetry::init(LogFormat::Text, LevelFilter::ERROR);
    flags.reach.read_environment()?;
    let client = connect(&flags.access).await?;
    let checked = check(flags, client).await?;
    for one in &checked {
        let what = format!("{} {} {}", one.object, one.source, one.secret_name);
        let how = match &one.result {
            Ok(()) => "can be read".to_owned(),
            Err(failure) => format!("{}: {}", failure.reason.as_str(), failure.message()),
        };
        print(&format!("{what}: {how}\n"))?;
    }
    if checked.is_empty() {
        print("there are no KmsSecrets\n")?;
    }
    Ok(checked.iter().all(|one| one.result.is_ok()))
}

/// Writes our manifests to standard output and what became of the others to standard error; answers whether all have their equal.
fn translate(flags: Convert) -> Outcome {
    let mut input = String::new();
    for file in &flags.files {
        if file.as_os_str() == "-" {
            std::io::stdin().read_to_string(&mut input)?;
        } else {
            let text = std::fs::read_to_string(file);
            input.push_str(&text.map_err(|err| format!("{}: {err}", file.display()))?);
        }
        input.push_str("\n---\n");
    }
    let options = convert::Options {
        region: flags.region,
        service_account: flags.service_account,
        namespace: flags.namespace,
    };
    let converted = convert::convert(&input, &options)?;
    print(&converted.manifests)?;
    for line in &converted.report {
        complain(&line.to_string())?;
    }
    Ok(converted.is_whole())
}

fn print_crds() -> Outcome {
    print(&crds_yaml()?)?;
    Ok(true)
}

/// Writes to standard output.
fn print(text: &str) -> std::io::Result<()> {
    write(std::io::stdout().lock(), text)
}

/// Writes a line to standard error.
fn complain(line: &str) -> std::io::Result<()> {
    write(std::io::stderr().lock(), &format!("{line}\n"))
}

/// Whoever has read enough, as `head`, closes the pipe: that is no failure, and nothing to panic about.
fn write(mut to: impl Write, text: &str) -> std::io::Result<()> {
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Err(err) if err.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// An error with its causes, on one line.
fn tell(err: &dyn std::error::Error) {
    let mut line = err.to_string();
    let mut source = err.source();
    while let Some(cause) = source {
        line = format!("{line}: {cause}");
        source = cause.source();
    }
    // There is nobody left to tell that it could not be told.
    let _ = complain(&format!("kms-secret-operator: {line}"));
}
