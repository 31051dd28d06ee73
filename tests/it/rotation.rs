//! Rotations reach the Secret by themselves, on time where KMS says when, and without polling.

use std::time::{Duration, Instant};

use kms_emulator::jiff::SignedDuration;
use kms_emulator::{Automatic, Managed};
use serde_json::{Value, json};

use crate::world::{World, a_while, condition, eventually};

const DAY: Duration = Duration::from_secs(86_400);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn password() -> Value {
    json!({"data": [{"key": "user", "path": "AccountName"}, {"key": "password", "path": "AccountPassword"}]})
}

/// What the Secret should hold now.
fn current(world: &World, name: &str) -> String {
    let value: Value = serde_json::from_str(&world.kms.current(name).unwrap().value).unwrap();
    value["AccountPassword"].as_str().unwrap().to_owned()
}

async fn until_current(world: &World, object: &str, name: &str) {
    eventually("the Secret holds the rotated password", async || {
        let password = world.text(object, "password").await?;
        (password == current(world, name)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_rotation_on_time_is_read_once_and_within_two_seconds() {
    const ROTATIONS: usize = 4;
    let world = World::new().await;
    world.kms.put_managed("app/db", Managed::rds(seconds(4)));
    let _operator = world.operator().await;
    world.kms_secret("db", "app/db", password()).await;
    world.until_synced("db").await;
    let mut delays = Vec::new();
    while delays.len() < ROTATIONS {
        let before = world.text("db", "password").await;
        eventually("the password changes", async || {
            let now = world.text("db", "password").await;
            (now != before).then_some(())
        })
        .await;
        let readable = world.kms.history("app/db").last().unwrap().at;
        delays.push(Instant::now().duration_since(readable));
    }
    let calls = world.kms.count("GetSecretValue");
    assert!(
        calls <= 2 + ROTATIONS,
        "{calls} calls: one for each rotation, and the first"
    );
    // One late answer on a busy machine is no fault of the schedule; half of them would be.
    let in_time = delays.iter().filter(|delay| **delay < seconds(2)).count();
    assert!(in_time * 2 > ROTATIONS, "{delays:?}");
    let status = world.object("db").await.status.unwrap();
    let (next, rotation) = (
        status.next_sync_time.unwrap(),
        status.sources[0].next_rotation_date.clone().unwrap(),
    );
    let planned = next.0.duration_since(rotation.0);
    assert!(
        planned.as_secs() <= 1,
        "planned {planned:?} after the announced date"
    );
}

#[tokio::test]
async fn a_late_rotation_is_confirmed_in_few_calls_and_before_the_ceiling() {
    let world = World::new().await;
    let first = world.kms.now() + SignedDuration::from_secs(2);
    let managed = Managed::rds(seconds(60)).first(first).late(seconds(7));
    world.kms.put_managed("app/db", managed);
    let _operator = world.operator().await;
    world.kms_secret("db", "app/db", password()).await;
    world.until_synced("db").await;
    let before = current(&world, "app/db");
    eventually("the rotated password arrives", async || {
        let now = world.text("db", "password").await?;
        (now != before).then_some(())
    })
    .await;
    let calls = world.kms.count("GetSecretValue");
    assert!(
        (3..=7).contains(&calls),
        "{calls} calls: steps of 3 s, the interval's twentieth"
    );
    a_while().await;
    assert_eq!(
        world.kms.count("GetSecretValue"),
        calls,
        "confirming has ended"
    );
}

#[tokio::test]
async fn a_rotation_by_hand_is_found_at_the_ceiling() {
    let world = World::new().await;
    world.kms.put_managed("app/db", Managed::rds(DAY));
    let _operator = world.operator().await;
    let mut spec = password();
    spec["refresh"] = json!({"interval": "2s"});
    world.kms_secret("db", "app/db", spec).await;
    world.until_synced("db").await;
    world.kms.rotate("app/db").unwrap();
    until_current(&world, "db", "app/db").await;
    let mut calls = world.kms.calls();
    calls.retain(|call| call.action == "GetSecretValue");
    let gaps = calls
        .windows(2)
        .map(|pair| pair[1].since_start.saturating_sub(pair[0].since_start));
    // Two seconds, less what a call takes to be sent.
    assert!(
        gaps.into_iter()
            .all(|gap| gap > Duration::from_millis(1500)),
        "{} calls",
        calls.len()
    );
}

#[tokio::test]
async fn a_dual_account_changes_name_and_password_together() {
    let world = World::new().await;
    world.kms.put_managed("app/db", Managed::rds(DAY).dual());
    let _operator = world.operator().await;
    world.kms_secret("db", "app/db", password()).await;
    world.until_synced("db").await;
    let user = world.text("db", "user").await;
    world.kms.rotate("app/db").unwrap();
    world.force("db").await;
    world.until_synced("db").await;
    until_current(&world, "db", "app/db").await;
    assert_ne!(world.text("db", "user").await, user);
}

#[tokio::test]
async fn a_rotation_that_kms_cannot_make_is_told_and_the_value_stays() {
    let world = World::new().await;
    world.kms.put_managed("app/db", Managed::rds(DAY));
    let _operator = world.operator().await;
    world.kms_secret("db", "app/db", password()).await;
    world.until_synced("db").await;
    world
        .kms
        .set_rotation_status("app/db", Automatic::Invalid)
        .unwrap();
    world.force("db").await;
    let object = world.until_synced("db").await;
    assert_eq!(condition(&object, "RotationOverdue").unwrap().1, "Invalid");
    assert_eq!(condition(&object, "Ready").unwrap().0, "True");
    eventually("an Event tells it", async || {
        let events = world.events().await;
        events
            .iter()
            .any(|event| event.reason.as_deref() == Some("RotationOverdue"))
            .then_some(())
    })
    .await;
    world
        .kms
        .set_rotation_status("app/db", Automatic::Enabled)
        .unwrap();
    world.force("db").await;
    let object = world.until_synced("db").await;
    assert!(condition(&object, "RotationOverdue").is_none());
}

#[tokio::test]
async fn a_rotation_that_is_long_overdue_is_told() {
    let world = World::new().await;
    let first = world.kms.now() + SignedDuration::from_secs(100);
    world.kms.put_managed(
        "app/db",
        Managed::rds(seconds(400)).first(first).late(seconds(3600)),
    );
    let _operator = world.operator().await;
    world.kms_secret("db", "app/db", password()).await;
    world.until_synced("db").await;
    // 150 s late, more than a quarter of the interval.
    world.kms.advance(seconds(250));
    world.force("db").await;
    let object = world.until_synced("db").await;
    assert_eq!(condition(&object, "RotationOverdue").unwrap().1, "Late");
}

#[tokio::test]
async fn a_date_that_kms_leaves_behind_schedules_nothing() {
    let world = World::new().await;
    let first = world.kms.now() + SignedDuration::from_secs(2);
    world
        .kms
        .put_managed("app/db", Managed::rds(seconds(20)).first(first).unmoved());
    let _operator = world.operator().await;
    world.kms_secret("db", "app/db", password()).await;
    world.until_synced("db").await;
    let before = current(&world, "app/db");
    eventually("the rotated password arrives", async || {
        let now = world.text("db", "password").await?;
        (now != before).then_some(())
    })
    .await;
    let calls = world.kms.count("GetSecretValue");
    a_while().await;
    a_while().await;
    assert_eq!(world.kms.count("GetSecretValue"), calls);
}

#[tokio::test]
async fn dates_are_read_in_the_time_of_kms() {
    let world = World::new().await;
    world.kms.set_skew(SignedDuration::from_mins(10));
    // In ten minutes by our clock, in two seconds by that of KMS.
    let first = world.kms.now() + SignedDuration::from_mins(10) + SignedDuration::from_secs(3);
    world
        .kms
        .put_managed("app/db", Managed::rds(DAY).first(first));
    let _operator = world.operator().await;
    world.kms_secret("db", "app/db", password()).await;
    let object = world.until_synced("db").await;
    let status = object.status.unwrap();
    let planned = status
        .next_sync_time
        .unwrap()
        .0
        .duration_since(status.last_sync_time.unwrap().0);
    assert!(planned.as_secs() < 60, "{planned:?}");
    eventually("an Event about the store tells it", async || {
        let events = world.events().await;
        let told = events
            .iter()
            .find(|event| event.reason.as_deref() == Some("ClockOff"))?;
        told.note.as_ref()?.contains("minutes behind").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_clock_that_kms_does_not_accept_is_corrected_at_the_second_attempt() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "one");
    world.kms.set_skew(SignedDuration::from_mins(20));
    let _operator = world.operator().await;
    world.kms_secret("text", "app/text", json!({})).await;
    world.until_synced("text").await;
    // The look at the store may have been the first to learn of it.
    let refused = world
        .kms
        .count_where(|call| call.outcome == "InvalidTimeStamp.Expired");
    assert!((1..=2).contains(&refused), "{refused}");
    let answered = world.kms.count_where(|call| call.outcome == "OK");
    assert_eq!(answered, 2, "the read, and whose the credentials are");
}

#[tokio::test]
async fn a_rollback_of_a_generic_secret_is_read_twice_and_then_believed() {
    let (world, _operator) = World::synced("one").await;
    world.kms.put_generic("app/text", "two");
    world.force("text").await;
    world.until_text("text", "value", "two").await;
    world
        .kms
        .move_stage("app/text", "ACSCurrent", "v1")
        .unwrap();
    world.kms.reset_calls();
    world.force("text").await;
    world.until_text("text", "value", "one").await;
    assert_eq!(world.kms.count("GetSecretValue"), 2);
    // An answer from a copy that lags is not believed.
    world
        .kms
        .move_stage("app/text", "ACSCurrent", "v2")
        .unwrap();
    world.force("text").await;
    world.until_text("text", "value", "two").await;
}
