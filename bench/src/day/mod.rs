//! A part of `make soak`: a day of many KmsSecrets whose hours are minutes. docs/soak.md tells what happens in it, what it must
//! cost, and what came out.

mod account;
mod course;
mod evening;
mod journal;
mod stage;
mod table;
mod timing;
mod trend;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::operator::Operator;
use crate::requests::Requests;
use crate::scenarios::cold_sync::kms_calls;
use account::{Account, Count, by_secret};
use journal::Journal;
use stage::Stage;
use trend::Sample;

pub(crate) use course::Scale;

const SAMPLES_AN_HOUR: u32 = 5;
/// Of what was read that shortly before the operator stopped, not all needs to have been written.
const CUT_OFF: Duration = Duration::from_secs(2);
const BATCH_MAX: u64 = 20;

/// How the day is spent.
pub(crate) struct Plan {
    /// The operator's binary.
    pub(crate) operator: PathBuf,
    pub(crate) objects: usize,
    pub(crate) scale: Scale,
    /// How long the operator is left alone after it was restarted.
    pub(crate) restart: Duration,
    /// How long KMS throttles, and how long it is down.
    pub(crate) trouble: Duration,
    /// Whether times and memory mean something.
    pub(crate) has_trends: bool,
}

impl Plan {
    pub(crate) fn new(operator: PathBuf, objects: usize, scale: Scale) -> Self {
        Self {
            operator,
            objects,
            scale,
            // By then everything that has a ceiling was read once, and is known to be young when the trouble begins.
            restart: scale.hour * 3,
            trouble: Duration::from_secs(60),
            has_trends: true,
        }
    }

    /// A little of everything.
    pub(crate) fn quick(operator: PathBuf) -> Self {
        let hour = Duration::from_secs(8);
        Self {
            operator,
            objects: 24,
            scale: Scale { hour, hours: 3 },
            restart: hour / 2,
            trouble: hour / 2,
            has_trends: false,
        }
    }
}

/// A count, in words.
pub(crate) type Check = (&'static str, Count);

/// Spends the day; fails with words if it was not as it must be.
pub(crate) async fn spend(plan: &Plan) -> Result<()> {
    course::check(plan.scale)?;
    let mut stage = Stage::set(plan.objects, plan.scale).await?;
    let journal = Journal::open(&stage.world).await?;
    let before = stage.world.cluster.requests().await?;
    let mut operator = Operator::start(&plan.operator, &stage.world, "day")?;
    operator.until_ready().await?;
    stage.fill(plan.objects).await?;
    journal
        .until(|entries| entries.count_ready() == plan.objects)
        .await?;

    let dawn = Instant::now();
    let samples = work(&mut stage, &operator, dawn).await?;
    let dusk = Instant::now();
    operator.stop().await?;
    journal.until_still().await?;
    let came = stage.world.cluster.requests().await?.since(&before);

    let reads = by_secret(&stage.world.kms.reads());
    let account = Account::draw_up(&stage, &reads, &journal.entries(), (dawn, dusk))?;
    let mut checks = check_totals(&stage, &came, &journal, dusk);
    let trends = trend::find(&samples, &account, (dawn, dusk));
    table::tell_account(&account);
    table::tell_trends(&trends);
    checks.extend(evening::spend(plan, &stage, &journal).await?);
    table::tell_checks(&checks);

    let wrong = checks.iter().filter(|(_, count)| !count.is_met());
    let mut complaints = account.complaints();
    complaints.extend(wrong.map(|(what, count)| format!("{what}: {count}")));
    if plan.has_trends {
        complaints.extend(trends.iter().filter_map(trend::Trend::complaint));
    }
    let list = complaints.join("\n  ");
    ensure!(
        complaints.is_empty(),
        "the day was not as it must be:\n  {list}"
    );
    Ok(())
}

/// The hours of the day, with what people do in them.
async fn work(stage: &mut Stage, operator: &Operator, dawn: Instant) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    let step = stage.scale.hour / SAMPLES_AN_HOUR;
    for number in 0..stage.scale.hours * SAMPLES_AN_HOUR {
        if number % SAMPLES_AN_HOUR == 0 {
            stage.receive_visitors().await?;
            stage.force().await?;
        }
        tokio::time::sleep_until((dawn + step * (number + 1)).into()).await;
        let sample = Sample {
            at: Instant::now(),
            usage: operator.usage()?,
        };
        if (number + 1) % SAMPLES_AN_HOUR == 0 {
            let hour = (number + 1) / SAMPLES_AN_HOUR;
            table::tell_sample(hour, &sample, kms_calls(&stage.world));
        }
        samples.push(sample);
    }
    Ok(samples)
}

/// Counts from before the start of the operator until after its end.
fn check_totals(stage: &Stage, came: &Requests, journal: &Journal, dusk: Instant) -> Vec<Check> {
    let reads = stage.world.kms.reads();
    let answered = reads.iter().filter(|read| read.outcome == "OK");
    let sure = answered
        .clone()
        .filter(|read| read.arrived + CUT_OFF < dusk);
    let (sent, answered, sure) = (
        reads.len() as u64,
        answered.count() as u64,
        sure.count() as u64,
    );
    let visitors = stage.visitors.clone().map(crate::world::secret_name);
    let visits = visitors.map(|name| stage.world.kms.count_reads(&name) as u64);
    let entries = journal.entries();
    let told: usize = entries.statuses.values().map(Vec::len).sum();
    let (told, gone) = (told as u64, entries.gone as u64);
    let came_and_went = stage.visitors.len() as u64;
    vec![
        (
            "calls to KMS, of 1 to 20 reads each",
            Count::new(sent.div_ceil(BATCH_MAX)..=sent, kms_calls(&stage.world)),
        ),
        (
            "reads for visitors, one each",
            Count::new(came_and_went..=came_and_went, visits.sum()),
        ),
        (
            "requests that write Secrets: one for each read",
            Count::new(
                sure..=answered,
                came.writes_of("secrets").saturating_sub(gone),
            ),
        ),
        (
            "requests that write statuses: each changed one",
            Count::new(told..=told, came.writes_of("kmssecrets/status")),
        ),
        ("Events", Count::new(0..=0, came.writes_of("events"))),
    ]
}
