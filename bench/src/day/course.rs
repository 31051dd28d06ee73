//! The KmsSecrets of the day: what kinds there are, and how their hours are scaled.

use std::time::Duration;

use anyhow::{Result, ensure};
use jiff::{SignedDuration, Timestamp};
use kms_emulator::{Emulator, Kind, Managed};
use serde_json::{Value, json};

use super::timing::Timing;
use crate::world::{object_name, secret_name};

/// What rotates weekly does not rotate today.
const WEEK: Duration = Duration::from_secs(7 * 86_400);
/// Values have about 1 KiB.
const VALUE_LENGTH: usize = 950;
/// The version that `put_generic` of the emulator gives to a new secret.
const FIRST_VERSION: &str = "v1";

/// A kind of KmsSecret. Times are in minutes of the day.
#[derive(Debug)]
pub(crate) struct Course {
    pub(crate) name: &'static str,
    kind: Kind,
    pub(crate) refresh: Refresh,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Refresh {
    Rotates { every: u32, ceiling: u32 },
    Ceiling(u32),
    Pinned,
    OnChange,
}

const fn rotates(every: u32, ceiling: u32) -> Refresh {
    Refresh::Rotates { every, ceiling }
}

/// In equal parts. The ceilings are such that the number of reads between two rotations does not depend on the uid.
pub(crate) static COURSES: [Course; 8] = [
    Course {
        name: "Rds, each hour",
        kind: Kind::Rds,
        refresh: rotates(60, 120),
    },
    Course {
        name: "PolarDB, each 2 hours",
        kind: Kind::PolarDb,
        refresh: rotates(120, 70),
    },
    Course {
        name: "Redis, each 6 hours",
        kind: Kind::Redis,
        refresh: rotates(360, 75),
    },
    Course {
        name: "ECS, each 12 hours",
        kind: Kind::EcsPassword,
        refresh: rotates(720, 150),
    },
    Course {
        name: "RAMCredentials, weekly",
        kind: Kind::RamCredentials,
        refresh: Refresh::Ceiling(60),
    },
    Course {
        name: "Generic",
        kind: Kind::Generic,
        refresh: Refresh::Ceiling(60),
    },
    Course {
        name: "Generic, pinned",
        kind: Kind::Generic,
        refresh: Refresh::Pinned,
    },
    Course {
        name: "Generic, OnChange",
        kind: Kind::Generic,
        refresh: Refresh::OnChange,
    },
];

/// How long an hour of the day takes, and how many it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scale {
    pub(crate) hour: Duration,
    pub(crate) hours: u32,
}

impl Scale {
    /// A whole day in so many minutes.
    pub(crate) fn day(minutes: u32) -> Self {
        Self {
            hour: Duration::from_secs(60) * minutes / 24,
            hours: 24,
        }
    }

    /// Minutes of the day in whole seconds, which is what KMS and `spec.refresh.interval` count in.
    fn seconds(self, minutes: u32) -> Duration {
        let rounded = self.hour * minutes / 60 + Duration::from_millis(500);
        Duration::from_secs(rounded.as_secs().max(1))
    }
}

impl Course {
    pub(crate) fn timing(&self, scale: Scale) -> Timing {
        match self.refresh {
            Refresh::Rotates { every, ceiling } => Timing::Rotates {
                every: scale.seconds(every),
                ceiling: scale.seconds(ceiling),
            },
            Refresh::Ceiling(ceiling) => Timing::Ceiling(scale.seconds(ceiling)),
            // Read once in a real day.
            Refresh::Pinned | Refresh::OnChange => Timing::Never,
        }
    }

    /// Puts its secret into KMS; the first rotation comes when that `part` of the time between two has passed.
    pub(crate) fn put(&self, kms: &Emulator, number: usize, scale: Scale, part: f64) {
        let name = secret_name(number);
        let text = format!("{:x<VALUE_LENGTH$}", object_name(number));
        if self.kind == Kind::Generic {
            kms.put_generic(&name, &text);
            return;
        }
        let (every, first) = match self.timing(scale) {
            Timing::Rotates { every, .. } => (every, every.mul_f64(part)),
            Timing::Ceiling(_) | Timing::Never => (WEEK, WEEK),
        };
        let first = later(kms.now(), first);
        let managed = Managed::new(self.kind.clone(), every);
        kms.put_managed(&name, managed.dual().account(&text).first(first));
    }

    /// The manifest of its KmsSecret.
    pub(crate) fn manifest(&self, number: usize, scale: Scale) -> Value {
        let mut source = json!({"secretName": secret_name(number)});
        let mut refresh = json!({});
        match self.timing(scale) {
            Timing::Rotates { ceiling, .. } | Timing::Ceiling(ceiling) => {
                refresh = json!({"interval": format!("{}s", ceiling.as_secs())});
            }
            Timing::Never => {}
        }
        match self.refresh {
            Refresh::Pinned => source["versionId"] = FIRST_VERSION.into(),
            Refresh::OnChange => refresh = json!({"policy": "OnChange"}),
            Refresh::Rotates { .. } | Refresh::Ceiling(_) => {}
        }
        json!({
            "metadata": {"name": object_name(number)},
            "spec": {"storeRef": {"name": "kms"}, "source": source, "refresh": refresh},
        })
    }
}

/// Refuses a scale on which the arithmetic would not be exact.
pub(crate) fn check(scale: Scale) -> Result<()> {
    for course in &COURSES {
        let slack = course.timing(scale).slack();
        ensure!(
            slack.is_some_and(|slack| slack >= SLACK_MIN),
            "an hour of {:?} is too short: reads of {:?} would come too near to its rotations",
            scale.hour,
            course.name
        );
    }
    Ok(())
}

/// So late may all reads of a rotation be together.
const SLACK_MIN: Duration = Duration::from_secs(2);

fn later(time: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or_default();
    time.saturating_add(by).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_rotates_weekly_does_not_rotate_today() {
        let kms = Emulator::start(kms_emulator::Options::default())
            .await
            .unwrap();
        let is_weekly = |course: &&Course| course.name.ends_with("weekly");
        let weekly = COURSES.iter().find(is_weekly).unwrap();
        weekly.put(&kms, 1, Scale::day(60), 0.001);
        let next = kms.next_rotation(&secret_name(1)).unwrap();
        assert!(next > later(kms.now(), WEEK / 2), "{next}");
    }

    #[test]
    fn days_of_five_minutes_and_more_can_be_reckoned() {
        for minutes in 5..=24 * 60 {
            let checked = check(Scale::day(minutes));
            assert!(checked.is_ok(), "{minutes} minutes: {checked:?}");
        }
        assert!(check(Scale::day(1)).is_err());
    }

    #[test]
    fn an_hour_of_the_day_is_scaled_to_whole_seconds() {
        let scale = Scale::day(60);
        assert_eq!(scale.hour, Duration::from_secs(150));
        let polar = Timing::Rotates {
            every: Duration::from_secs(300),
            ceiling: Duration::from_secs(175),
        };
        assert_eq!(COURSES[1].timing(scale), polar);
        let short = Timing::Ceiling(Duration::from_secs(13));
        assert_eq!(COURSES[5].timing(Scale::day(5)), short);
    }

    #[test]
    fn a_manifest_asks_for_what_the_course_says() {
        let refresh = |course: usize| {
            let manifest = COURSES[course].manifest(7, Scale::day(60));
            manifest["spec"]["refresh"].clone()
        };
        assert_eq!(refresh(0), json!({"interval": "300s"}));
        assert_eq!(refresh(6), json!({}));
        assert_eq!(refresh(7), json!({"policy": "OnChange"}));
        let pinned = COURSES[6].manifest(7, Scale::day(60));
        assert_eq!(pinned["spec"]["source"]["versionId"], "v1");
    }
}
