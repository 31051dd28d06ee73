//! The command line: parses it and hands over to the library.

use std::io::Read as _;
use std::process::ExitCode;

use clap::Parser as _;
use kms_secret_operator::config::{Check, Cli, Command, Convert, LogFormat, Run};
use kms_secret_operator::{check, connect, convert, crds_yaml, run, telemetry};
use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;

#[tokio::main]
async fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(flags) => operate(*flags).await,
        Command::Check(flags) => match ask(*flags).await {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::FAILURE,
            Err(err) => Err(err),
        },
        Command::Crds => print_crds(),
        Command::Convert(flags) => match translate(flags) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::FAILURE,
            Err(err) => Err(err),
        },
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            tell(&*err);
            ExitCode::FAILURE
        }
    }
}

async fn operate(mut flags: Run) -> Result<(), Box<dyn std::error::Error>> {
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
    let client = connect().await?;
    run(flags, client, stop).await?;
    Ok(())
}

/// Answers whether everything can be read.
#[expect(clippy::print_stdout, reason = "the output of the command")]
async fn ask(mut flags: Check) -> Result<bool, Box<dyn std::error::Error>> {
    telemetry::init(LogFormat::Text, LevelFilter::ERROR);
    flags.reach.read_environment()?;
    let checked = check(flags, connect().await?).await?;
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
fn translate(flags: Convert) -> Result<bool, Box<dyn std::error::Error>> {
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
fn print_crds() -> Result<(), Box<dyn std::error::Error>> {
    print!("{}", crds_yaml()?);
    Ok(())
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
