//! Runs the emulator until it is told to stop.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use kms_emulator::{Emulator, Options};
use tokio::signal::unix::{SignalKind, signal};

/// Alibaba Cloud KMS and STS on loopback.
#[derive(Parser)]
#[command(version, about)]
struct Args {
    /// Address for HTTP.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Address for HTTPS; otherwise a free port on loopback.
    #[arg(long, default_value = "127.0.0.1:0")]
    https_listen: SocketAddr,
    /// Further name or address in the HTTPS certificate.
    #[arg(long = "tls-name", value_name = "NAME")]
    tls_names: Vec<String>,
    /// File with the HTTPS certificate, as PEM, in place of one of the emulator's own authority.
    #[arg(long, value_name = "FILE", requires = "tls_key", conflicts_with_all = ["write_ca", "tls_names"])]
    tls_cert: Option<PathBuf>,
    /// File with the key of that certificate, as PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Allow addresses that other machines can reach. The admin API is open to whoever reaches it.
    #[arg(long)]
    listen_anywhere: bool,
    /// Write the certificate of the HTTPS authority to this file.
    #[arg(long, value_name = "FILE")]
    write_ca: Option<PathBuf>,
    /// Access key to accept.
    #[arg(long = "access-key", value_name = "ID:SECRET")]
    access_keys: Vec<String>,
    /// JSON file with keys, roles and secrets.
    #[arg(long, value_name = "FILE")]
    seed: Option<PathBuf>,
    /// Time to add to every answer.
    #[arg(long, value_name = "N", default_value_t = 0)]
    latency_ms: u64,
    /// The account that owns keys and secrets.
    #[arg(long, default_value = "1234567890123456")]
    account: String,
    /// The region of the secrets.
    #[arg(long, default_value = "cn-hangzhou")]
    region: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("kms-emulator: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let emulator = start(&args).await?;
    if let Some(file) = &args.write_ca {
        std::fs::write(file, emulator.ca_pem())?;
    }
    announce(&emulator)?;
    tokio::select! {
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    emulator.stop();
    Ok(())
}

async fn start(args: &Args) -> io::Result<Emulator> {
    for address in [args.listen, args.https_listen] {
        if !address.ip().is_loopback() && !args.listen_anywhere {
            let text = format!("{address} is not on loopback; --listen-anywhere allows it");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
    }
    let tls_pair = match (&args.tls_cert, &args.tls_key) {
        (Some(certificates), Some(key)) => Some((
            std::fs::read_to_string(certificates)?,
            std::fs::read_to_string(key)?,
        )),
        _ => None,
    };
    let emulator = Emulator::start(Options {
        listen: args.listen,
        https_listen: args.https_listen,
        tls_names: args.tls_names.clone(),
        tls_pair,
        account: args.account.clone(),
        region: args.region.clone(),
    })
    .await?;
    emulator.set_latency(Duration::from_millis(args.latency_ms));
    for key in &args.access_keys {
        let wrong = || io::Error::new(io::ErrorKind::InvalidInput, "--access-key takes ID:SECRET");
        let (id, secret) = key.split_once(':').ok_or_else(wrong)?;
        emulator.add_access_key(id, secret);
    }
    if let Some(file) = &args.seed {
        emulator.seed(file)?;
    }
    Ok(emulator)
}

/// One origin a line, for people and scripts.
fn announce(emulator: &Emulator) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", emulator.origin())?;
    writeln!(out, "{}", emulator.https_origin())?;
    out.flush()
}
