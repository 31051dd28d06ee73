//! How KMS rotates a managed secret: when, and into what.

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use crate::clock::{Clock, floor, plus};
use crate::managed::{Automatic, Managed};
use crate::secret::{CURRENT, Secret};
use crate::value::{extended_config, generate};
use crate::version::Data;

/// After a long jump of the clock only so many of the missed rotations are played.
const MOST_MISSED: i64 = 4;

pub(crate) struct Rotation {
    pub(crate) plan: Managed,
    pub(crate) extended_config: String,
    /// What `NextRotationDate` says.
    pub(crate) announced: Timestamp,
    pub(crate) last: Option<Timestamp>,
    /// When the next rotation is really planned, lateness apart.
    due: Timestamp,
    turn: u64,
}

impl Rotation {
    pub(crate) fn interval(&self) -> Duration {
        Duration::from_secs(self.plan.interval.as_secs().max(1))
    }

    pub(crate) fn announce(&mut self, at: Timestamp) {
        self.announced = floor(at);
        self.due = floor(at);
    }

    /// The moment of the next automatic rotation, if there is one.
    fn falls_due(&self) -> Option<Timestamp> {
        (self.plan.automatic == Automatic::Enabled).then(|| plus(self.due, self.plan.lateness))
    }

    fn skip_missed(&mut self, now: Timestamp) {
        let interval = i64::try_from(self.interval().as_secs()).unwrap_or(i64::MAX);
        let behind = now.as_second().saturating_sub(self.due.as_second()) / interval;
        if behind > MOST_MISSED {
            let skipped = (behind - MOST_MISSED).saturating_mul(interval);
            let due = self.due.as_second().saturating_add(skipped);
            self.due = Timestamp::from_second(due).unwrap_or(self.due);
        }
    }
}

impl Secret {
    pub(crate) fn managed(name: &str, plan: Managed, clock: &Clock) -> Self {
        let now = clock.now();
        let mut secret = Self::new(name, plan.kind.clone(), now);
        let first = floor(plan.first.unwrap_or_else(|| plus(now, plan.interval)));
        let made_up = || extended_config(&plan.kind, plan.accounts, &plan.account);
        let value = plan.value.clone();
        secret.rotation = Some(Rotation {
            extended_config: plan.extended_config.clone().unwrap_or_else(made_up),
            announced: first,
            last: None,
            due: first,
            turn: 0,
            plan,
        });
        secret.take_turn(value, now, clock);
        secret
    }

    /// Plays the rotations that have fallen due.
    pub(crate) fn settle(&mut self, clock: &Clock) {
        let now = clock.now();
        while let Some(rotation) = &mut self.rotation
            && let Some(at) = rotation.falls_due()
            && at <= now
        {
            rotation.skip_missed(now);
            let at = rotation.falls_due().unwrap_or(at);
            self.rotate(None, at, clock);
        }
    }

    /// Rotates, at that moment, into that value or a new one.
    pub(crate) fn rotate(&mut self, value: Option<String>, at: Timestamp, clock: &Clock) -> String {
        if let Some(rotation) = &mut self.rotation {
            rotation.turn += 1;
            rotation.last = Some(floor(at));
            rotation.due = plus(floor(at), rotation.interval());
            if rotation.plan.moves_next_date {
                rotation.announced = rotation.due;
            }
        }
        self.take_turn(value, at, clock)
    }

    fn take_turn(&mut self, value: Option<String>, at: Timestamp, clock: &Clock) -> String {
        let Some(rotation) = &self.rotation else {
            return String::new();
        };
        let plan = &rotation.plan;
        let made_up = || generate(&plan.kind, plan.accounts, &plan.account, rotation.turn, at);
        let data = Data {
            text: value.unwrap_or_else(made_up),
            binary: false,
        };
        let id = Uuid::new_v4().to_string();
        // A fresh id cannot be there already, which is the one thing a put refuses.
        let _ = self.put(&id, data, &[CURRENT], at, clock);
        id
    }

    pub(crate) fn set_automatic(&mut self, automatic: Automatic, clock: &Clock) {
        self.settle(clock);
        let now = clock.now();
        if let Some(rotation) = &mut self.rotation {
            let woken = rotation.plan.automatic != Automatic::Enabled;
            rotation.plan.automatic = automatic;
            if automatic == Automatic::Enabled && woken && rotation.due <= now {
                rotation.announce(plus(now, rotation.interval()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn rotated(plan: Managed, seconds: i64) -> (Secret, Clock) {
        let clock = Clock::new();
        let mut secret = Secret::managed("m", plan, &clock);
        clock.advance(SignedDuration::from_secs(seconds));
        secret.settle(&clock);
        (secret, clock)
    }

    #[test]
    fn a_rotation_comes_with_the_clock_and_moves_the_dates() {
        let (secret, _) = rotated(Managed::rds(MINUTE), 61);
        let rotation = secret.rotation.as_ref().unwrap();
        assert_eq!(secret.history.len(), 2);
        let last = rotation.last.unwrap();
        assert_eq!(rotation.announced, plus(last, MINUTE));
        assert_eq!(secret.history[1].since, last);
    }

    #[test]
    fn a_late_rotation_waits_past_the_announced_date() {
        let plan = Managed::rds(MINUTE).late(Duration::from_secs(30));
        let (mut secret, clock) = rotated(plan, 75);
        assert_eq!(secret.history.len(), 1);
        clock.advance(SignedDuration::from_secs(20));
        secret.settle(&clock);
        assert_eq!(secret.history.len(), 2);
    }

    #[test]
    fn disabled_and_invalid_do_not_rotate() {
        for automatic in [Automatic::Disabled, Automatic::Invalid] {
            let (secret, _) = rotated(Managed::rds(MINUTE).automatic(automatic), 6000);
            assert_eq!(secret.history.len(), 1);
        }
    }

    #[test]
    fn an_unmoved_date_stays_while_rotations_go_on() {
        let (secret, _) = rotated(Managed::rds(MINUTE).unmoved(), 125);
        assert_eq!(secret.history.len(), 3);
        let rotation = secret.rotation.as_ref().unwrap();
        assert!(rotation.announced < rotation.last.unwrap());
    }

    #[test]
    fn a_jump_of_a_year_plays_only_the_last_rotations() {
        let (secret, clock) = rotated(Managed::rds(Duration::from_secs(2)), 365 * 86_400);
        assert!(secret.history.len() < 10);
        assert!(secret.rotation.as_ref().unwrap().announced > clock.now());
    }
}
