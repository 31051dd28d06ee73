//! The evening: the operator is started again, KMS throttles, and KMS is down. How much is read then cannot be reckoned
//! exactly; that nothing is written in vain, nothing goes back, and everything comes right in the end, can.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use kms_emulator::{Fault, Throttle};

use super::account::Count;
use super::journal::{Entries, Good, Journal, Told};
use super::stage::Stage;
use super::{Check, Plan, table};
use crate::operator::Operator;
use crate::world::{object_name, secret_name};

/// While KMS throttles, so many KmsSecrets share one read a second.
const SHARING: u32 = 200;

/// After the trouble everything comes right within this: what failed is tried again after as long as it failed.
const PATIENCE: Duration = Duration::from_secs(600);

/// Spends the evening; the operator has ended, and nothing is under way.
pub(crate) async fn spend(plan: &Plan, stage: &Stage, journal: &Journal) -> Result<Vec<Check>> {
    let kms = &stage.world.kms;
    let began = Instant::now();
    let before = kms.reads().len();
    table::announce("the operator is started again", plan.restart);
    let mut operator = Operator::start(&plan.operator, &stage.world, "evening")?;
    operator.until_ready().await?;
    tokio::time::sleep(plan.restart).await;
    let read = kms.reads().len() - before;
    let span = began.elapsed();
    let timings = stage.timings();
    let most = timings.map(|timing| timing.at_most_after_start(span)).sum();

    table::announce("KMS throttles", plan.trouble);
    let pace = f64::from(u32::try_from(stage.objects.len())?.div_ceil(SHARING));
    kms.throttle(Some(Throttle::new(pace, pace)));
    tokio::time::sleep(plan.trouble).await;
    kms.throttle(None);

    table::announce("KMS is down", plan.trouble);
    let fault = kms.fault(Fault::code("ServiceUnavailableTemporary"));
    tokio::time::sleep(plan.trouble).await;
    kms.clear_fault(fault);
    until_current(stage, journal).await?;
    operator.stop().await?;
    journal.until_still().await?;

    let entries = journal.entries();
    let told_since = |is_so: fn(&Told) -> bool| {
        let told = entries.statuses.values().flatten();
        told.filter(|told| told.at > began && is_so(told)).count()
    };
    let never = |seen: usize| Count::new(0..=0, seen as u64);
    Ok(vec![
        ("reads after the restart", Count::new(0..=most, read as u64)),
        (
            "statuses of the evening in vain",
            never(told_since(|told| told.good == Good::Nothing)),
        ),
        (
            "statuses of the evening that are not ready",
            never(told_since(|told| !told.is_ready)),
        ),
        (
            "old versions that came back",
            never(count_old(stage, &entries)),
        ),
        (
            "changes of Secrets beyond their rotations",
            never(count_needless(stage, &entries)),
        ),
    ])
}

/// Waits until each KmsSecret was told to hold what its secret held at that moment.
async fn until_current(stage: &Stage, journal: &Journal) -> Result<()> {
    let mut behind: Vec<usize> = stage.objects.iter().map(|object| object.number).collect();
    let is_behind = |number: usize, entries: &Entries| {
        let name = object_name(number);
        let current = stage.world.kms.current(&secret_name(number));
        let told = entries.statuses.get(&name).and_then(|told| told.last());
        let is_current = told.is_some_and(|told| {
            told.is_ready && told.version == current.map(|current| current.version_id)
        });
        !is_current
    };
    let catching_up = journal.until(|entries| {
        behind.retain(|number| is_behind(*number, entries));
        behind.is_empty()
    });
    // The others write on meanwhile, so that the journal does not give up.
    let caught_up = tokio::time::timeout(PATIENCE, catching_up).await;
    caught_up.unwrap_or_else(|_| {
        let names: Vec<_> = behind.iter().map(|number| object_name(*number)).collect();
        bail!(
            "after the trouble, these do not come right: {}",
            names.join(", ")
        )
    })
}

/// Statuses that tell of an older version than the one before.
fn count_old(stage: &Stage, entries: &Entries) -> usize {
    let of_object = |number: usize| {
        let history = stage.world.kms.history(&secret_name(number));
        let place = |told: &Told| {
            let version = told.version.as_deref()?;
            history.iter().position(|it| it.version_id == version)
        };
        let told = entries.statuses.get(&object_name(number));
        let places: Vec<_> = told.into_iter().flatten().filter_map(place).collect();
        places.windows(2).filter(|pair| pair[1] < pair[0]).count()
    };
    let numbers = stage.objects.iter().map(|object| object.number);
    numbers.map(of_object).sum()
}

/// Changes of Secrets that no rotation explains, since the night.
fn count_needless(stage: &Stage, entries: &Entries) -> usize {
    let of_object = |object: &super::stage::Object| {
        let changes = entries.secrets.get(&object_name(object.number));
        // The first is its creation.
        let changes = changes.map_or(0, Vec::len).saturating_sub(1);
        changes.saturating_sub(stage.rotations(object).len())
    };
    stage.objects.iter().map(of_object).sum()
}
