//! `make bench`: measures the operator, as a process of its own, on a control plane of this machine, and a naive writer of
//! the same objects beside it. docs/benchmarks.md tells how, and what came out. `kms-bench day` is a part of `make soak`: docs/soak.md.

mod bars;
mod cluster;
mod day;
mod floor;
mod follow;
mod machine;
mod operator;
mod plot;
mod process;
mod report;
mod requests;
mod results;
mod scenarios;
mod statistics;
mod watch;
mod world;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, Subcommand};

use day::{Plan, Scale};
use results::Results;
use scenarios::cold_sync::{CREATED, CREATED_SINGLY, STARTED_SHARING, STARTED_SINGLY};
use scenarios::replicas::End;
use scenarios::{Scenario, Settings};

/// Measures kms-secret-operator against a naive writer, on a control plane of this machine.
#[derive(Parser)]
#[command(about, args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Numbers of KmsSecrets.
    #[arg(long, value_delimiter = ',', default_value = "100,1000,10000")]
    sizes: Vec<usize>,
    /// Measure this besides a cold sync and the floor, and nothing else (repeatable).
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Scenario>,
    /// Only show that the benchmark works: 20 KmsSecrets, little of everything, and no number that means anything.
    #[arg(long, conflicts_with = "sizes")]
    quick: bool,
    /// The operator's binary; the one beside this one when left out.
    #[arg(long, value_name = "FILE", global = true)]
    operator: Option<PathBuf>,
    /// Folder of benchmarks.md, whose results are replaced, and of bench/ with results.json and cost.svg.
    #[arg(long, value_name = "DIR", default_value = "docs")]
    out: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Spends a day whose hours are minutes with many KmsSecrets, and reckons up what it cost.
    Day {
        /// How long the day is. The evening, with its troubles, comes on top.
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(5..=1440))]
        minutes: u32,
        /// Number of KmsSecrets.
        #[arg(long, default_value_t = 2000)]
        objects: usize,
        /// Only show that it works: 24 KmsSecrets, three hours of 8 seconds, and counts, but no times.
        #[arg(long, conflicts_with_all = ["minutes", "objects"])]
        quick: bool,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(Command::Day {
        minutes,
        objects,
        quick,
    }) = args.command
    {
        let operator = operator(args.operator)?;
        let plan = if quick {
            Plan::quick(operator)
        } else {
            Plan::new(operator, objects, Scale::day(minutes))
        };
        return day::spend(&plan).await;
    }
    let settings = settings(&args)?;
    let mut results = Results {
        machine: machine::describe()?,
        ..Results::default()
    };
    let sizes = if args.quick {
        vec![settings.middle]
    } else {
        args.sizes
    };
    let measured = measure(&sizes, &settings, &mut results).await;
    // What came before a failure is worth something too.
    let text = report::write(&results, &bars::judge(&results, bars::BARS));
    eprintln!("\n{text}");
    measured?;
    keep(&args.out, &results, &text)
}

async fn measure(sizes: &[usize], settings: &Settings, results: &mut Results) -> Result<()> {
    let began = Instant::now();
    for &objects in sizes {
        let tell = |row| {
            tell(&row, began.elapsed());
            results.rows.push(row);
        };
        let measured = scenarios::measure(objects, settings, tell).await;
        measured.with_context(|| format!("with {objects} KmsSecrets"))?;
    }
    Ok(())
}

/// The operator's binary, if it is there.
fn operator(given: Option<PathBuf>) -> Result<PathBuf> {
    let operator = match given {
        Some(path) => path,
        None => std::env::current_exe()?.with_file_name("kms-secret-operator"),
    };
    let path = operator.display();
    ensure!(
        operator.is_file(),
        "{path} is not there: `make bench` builds it"
    );
    Ok(operator)
}

fn settings(args: &Args) -> Result<Settings> {
    let operator = operator(args.operator.clone())?;
    let only = args.only.clone();
    if args.quick {
        return Ok(Settings {
            operator,
            rest: Duration::from_secs(1),
            span: Duration::from_secs(1),
            rotations: 3,
            new_objects: 3,
            middle: 20,
            only,
            ways: vec![CREATED_SINGLY],
            ends: vec![End::Stopped],
            replicas: vec![2],
        });
    }
    Ok(Settings {
        operator,
        rest: Duration::from_secs(5),
        span: Duration::from_secs(120),
        rotations: 50,
        new_objects: 100,
        middle: 1000,
        only,
        ways: vec![STARTED_SINGLY, STARTED_SHARING, CREATED, CREATED_SINGLY],
        ends: vec![End::Killed, End::Stopped],
        replicas: vec![1, 2, 3],
    })
}

/// Says what was just measured.
fn tell(row: &results::Row, since: Duration) {
    let numbers = row
        .numbers
        .iter()
        .map(|(name, value)| format!("{name} {value:.3}"));
    let numbers = numbers.collect::<Vec<_>>().join(", ");
    eprintln!(
        "{:5.0} s  {} of {}: {numbers}",
        since.as_secs_f64(),
        row.scenario,
        row.objects
    );
}

/// Writes the results: as JSON, as a picture, and into the page.
fn keep(folder: &Path, results: &Results, text: &str) -> Result<()> {
    let write = |path: &str, content: &str| {
        let path = folder.join(path);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
    };
    fs::create_dir_all(folder.join("bench"))?;
    write(
        "bench/results.json",
        &(serde_json::to_string_pretty(results)? + "\n"),
    )?;
    write("bench/cost.svg", &plot::draw(results))?;
    let page = folder.join("benchmarks.md");
    let before = fs::read_to_string(&page);
    let before = before.with_context(|| format!("cannot read {}", page.display()))?;
    write("benchmarks.md", &report::place(&before, text)?)
}
