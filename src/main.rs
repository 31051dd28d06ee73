//! The command line: parses it and hands over to the library.

use std::io::Read as _;
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
#[expect(clippy::print_stdout, reason = "the output of the command")]
async fn look(flags: &Status) -> Outcome {
    telemetry::init(LogFormat::Text, LevelFilter::ERROR);
    let (report, text) = status(flags, connect(&flags.access).await?).await?;
    print!("{text}");
    for complaint in report.complaints() {
        eprintln!("{complaint}");
    }
    Ok(report.is_fine())
}

/// Has KmsSecrets synced; answers whether that was done, or asked for where nobody waits.
#[expect(clippy::print_stdout, reason = "the output of the command")]
async fn renew(flags: &Force) -> Outcome {
    telemetry::init(LogFormat::Text, LevelFilter::ERROR);
    let asked = force(flags, connect(&flags.access).await?).await?;
    for one in &asked {
        println!("{one}");
    }
    if asked.is_empty() {
        eprintln!("no KmsSecrets found");
    }
    Ok(asked.iter().all(|one| one.outcome.is_fine()))
}

/// Answers whether everything can be read.
#[expect(clippy::print_stdout, reason = "the output of the command")]
async fn ask(mut flags: Check) -> Outcome {
    telemetry::init(LogFormat::Text, LevelFilter::ERROR);
    flags.reach.read_environment()?;
    let client = connect(&flags.access).await?;
    let checked = check(flags, client).await?;
    for one in &checked {
        let what = format!("{} {} {}", one.object, one.source, one.secret_name);
        match &one.result {
            Ok(()) => println!("{what}: can be read"),
            Err(failure) => {
                println!("{what}: {}: {}", failure.reason.as_str(), failure.message());
            }
        }
    }
    if checked.is_empty() {
        println!("there are no KmsSecrets");
    }
    Ok(checked.iter().all(|one| one.result.is_ok()))
}

/// Writes our manifests to standard output and what became of the others to standard error; answers whether all have their equal.
#[expect(clippy::print_stdout, reason = "the output of the command")]
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
    print!("{}", converted.manifests);
    for line in &converted.report {
        eprintln!("{line}");
    }
    Ok(converted.is_whole())
}

#[expect(clippy::print_stdout, reason = "the output of the command")]
fn print_crds() -> Outcome {
    print!("{}", crds_yaml()?);
    Ok(true)
}

/// An error with its causes, on one line.
fn tell(err: &dyn std::error::Error) {
    let mut line = err.to_string();
    let mut source = err.source();
    while let Some(cause) = source {
        line = format!("{line}: {cause}");
        source = cause.source();
    }
    eprintln!("kms-secret-operator: {line}");
}
