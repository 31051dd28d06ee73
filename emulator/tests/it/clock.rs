//! Rotation as a reader sees it, by the clock.

use std::time::{Duration, Instant};

use kms_emulator::Managed;
use serde_json::Value;

use crate::client::{get, start};

fn date(answer: &Value, field: &str) -> String {
    answer[field].as_str().unwrap().to_owned()
}

#[test]
fn a_rotation_is_read_from_the_announced_second_on() {
    let kms = start();
    kms.put_managed("m", Managed::rds(Duration::from_secs(3600)));
    let before = get(&kms, "m").send(&kms).json();
    kms.advance(Duration::from_secs(3590));
    assert_eq!(
        get(&kms, "m").send(&kms).json()["VersionId"],
        before["VersionId"]
    );
    kms.advance(Duration::from_secs(11));
    let after = get(&kms, "m").send(&kms).json();
    assert_ne!(after["VersionId"], before["VersionId"]);
    assert_eq!(
        date(&after, "LastRotationDate"),
        date(&before, "NextRotationDate")
    );
    assert!(date(&after, "NextRotationDate") > date(&before, "NextRotationDate"));
}

#[test]
fn a_late_rotation_leaves_a_date_in_the_past() {
    let kms = start();
    let plan = Managed::rds(Duration::from_secs(100)).late(Duration::from_secs(50));
    kms.put_managed("m", plan);
    let before = get(&kms, "m").send(&kms).json();
    kms.advance(Duration::from_secs(120));
    let still = get(&kms, "m").send(&kms).json();
    assert_eq!(still["VersionId"], before["VersionId"]);
    assert_eq!(still["NextRotationDate"], before["NextRotationDate"]);
    kms.advance(Duration::from_secs(31));
    assert_ne!(
        get(&kms, "m").send(&kms).json()["VersionId"],
        before["VersionId"]
    );
}

#[test]
fn two_second_rotations_happen_in_real_time_and_are_timed() {
    let kms = start();
    kms.put_managed("m", Managed::rds(Duration::from_secs(2)));
    let first = kms.current("m").unwrap();
    let deadline = Instant::now() + Duration::from_secs(4);
    while kms.current("m").unwrap() == first {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(2));
    }
    let readable = kms.history("m").pop().unwrap();
    assert!(readable.at.elapsed() < Duration::from_millis(500));
    assert_eq!(readable.since.subsec_nanosecond(), 0);
}
