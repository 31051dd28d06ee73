//! The command line: parses it and hands over to the library.

use std::process::ExitCode;

use clap::Parser as _;
use kms_secret_operator::config::{Cli, Command, Run};
use kms_secret_operator::{connect, crds_yaml, run, telemetry};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(flags) => operate(*flags).await,
        Command::Crds => print_crds(),
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
    flags.read_environment()?;
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
