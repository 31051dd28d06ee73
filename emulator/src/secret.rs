//! One secret: its versions and the labels on them.

use jiff::Timestamp;

use crate::clock::Clock;
use crate::errors::{ApiError, error};
use crate::rotation::Rotation;
use crate::value::Kind;
use crate::version::{Data, Readable, Version};

pub(crate) const CURRENT: &str = "ACSCurrent";
pub(crate) const PREVIOUS: &str = "ACSPrevious";
const MOST_VERSIONS: usize = 10;
const MOST_LABELS: usize = 8;

pub(crate) struct Secret {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) created: Timestamp,
    pub(crate) updated: Timestamp,
    pub(crate) versions: Vec<Version>,
    pub(crate) rotation: Option<Rotation>,
    pub(crate) history: Vec<Readable>,
}

impl Secret {
    pub(crate) fn new(name: &str, kind: Kind, now: Timestamp) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            created: now,
            updated: now,
            versions: Vec::new(),
            rotation: None,
            history: Vec::new(),
        }
    }

    pub(crate) fn labelled(&self, stage: &str) -> Option<&Version> {
        self.versions
            .iter()
            .find(|v| v.stages.iter().any(|s| s == stage))
    }

    pub(crate) fn version(&self, id: &str) -> Option<&Version> {
        self.versions.iter().find(|v| v.id == id)
    }

    /// Finds what `GetSecretValue` answers. With both parameters the label is not compared.
    pub(crate) fn find(&self, stage: Option<&str>, id: Option<&str>) -> Result<&Version, ApiError> {
        let missing = || error("Forbidden.ResourceNotFound");
        if self.rotation.is_some() {
            let stage = stage.unwrap_or(CURRENT);
            let known = stage == CURRENT || stage == PREVIOUS;
            return self.labelled(stage).filter(|_| known).ok_or_else(missing);
        }
        match (id, stage) {
            (Some(id), Some(_)) => self.version(id).ok_or_else(|| {
                error("InvalidParameter").message("The specified VersionId is not valid.")
            }),
            (Some(id), None) => self.version(id).ok_or_else(missing),
            (None, stage) => self.labelled(stage.unwrap_or(CURRENT)).ok_or_else(missing),
        }
    }

    /// Stores a version and labels it; storing the same again changes nothing.
    pub(crate) fn put(
        &mut self,
        id: &str,
        data: Data,
        stages: &[&str],
        since: Timestamp,
        clock: &Clock,
    ) -> Result<(), ApiError> {
        if let Some(known) = self.version(id) {
            if known.data == data {
                return Ok(());
            }
            return Err(error("Rejected.ResourceExist")
                .message("The specified version exists with another value."));
        }
        self.versions.push(Version {
            id: id.to_owned(),
            data,
            created: since,
            stages: Vec::new(),
        });
        for stage in stages {
            self.label_new(id, stage, since, clock);
        }
        self.updated = since;
        self.forget_old();
        Ok(())
    }

    /// A new current version makes the old one the previous one.
    fn label_new(&mut self, id: &str, stage: &str, since: Timestamp, clock: &Clock) {
        if stage == CURRENT
            && let Some(old) = self.labelled(CURRENT).map(|v| v.id.clone())
        {
            self.label(&old, PREVIOUS);
        }
        self.label(id, stage);
        if stage == CURRENT {
            self.record(since, clock);
        }
    }

    /// Moves a label, alone: the others stay where they are.
    pub(crate) fn move_stage(
        &mut self,
        stage: &str,
        to: Option<&str>,
        from: Option<&str>,
        clock: &Clock,
    ) -> Result<(), ApiError> {
        let built_in = stage == CURRENT || stage == PREVIOUS;
        if to.is_none() && (from.is_none() || built_in) {
            return Err(error("InvalidParameter").message("The label cannot be removed so."));
        }
        for id in [to, from].into_iter().flatten() {
            self.version(id)
                .ok_or_else(|| error("Forbidden.ResourceNotFound"))?;
        }
        if let Some(from) = from
            && self.labelled(stage).is_none_or(|v| v.id != from)
        {
            return Err(
                error("InvalidParameter").message("RemoveFromVersion does not hold the label.")
            );
        }
        if self.labelled(stage).is_none() && self.count_labels() >= MOST_LABELS {
            return Err(error("Rejected.LimitExceeded"));
        }
        self.unlabel(stage);
        if let Some(to) = to {
            self.label(to, stage);
        }
        let now = clock.now();
        self.updated = now;
        if stage == CURRENT {
            self.record(now, clock);
        }
        self.forget_old();
        Ok(())
    }

    fn count_labels(&self) -> usize {
        self.versions.iter().map(|v| v.stages.len()).sum()
    }

    fn label(&mut self, id: &str, stage: &str) {
        self.unlabel(stage);
        if let Some(version) = self.versions.iter_mut().find(|v| v.id == id) {
            version.stages.push(stage.to_owned());
        }
    }

    fn unlabel(&mut self, stage: &str) {
        for version in &mut self.versions {
            version.stages.retain(|s| s != stage);
        }
    }

    fn record(&mut self, since: Timestamp, clock: &Clock) {
        let Some(current) = self.labelled(CURRENT) else {
            return;
        };
        let readable = Readable {
            version_id: current.id.clone(),
            value: current.data.text.clone(),
            since,
            at: clock.instant_of(since),
        };
        self.history.push(readable);
    }

    fn forget_old(&mut self) {
        while self.versions.len() > MOST_VERSIONS {
            let Some(oldest) = self.versions.iter().position(|v| v.stages.is_empty()) else {
                return;
            };
            self.versions.remove(oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Data {
        Data {
            text: text.to_owned(),
            binary: false,
        }
    }

    fn generic(clock: &Clock, count: usize) -> Secret {
        let mut secret = Secret::new("s", Kind::Generic, clock.now());
        for n in 1..=count {
            let (id, data) = (format!("v{n}"), text(&format!("value {n}")));
            secret
                .put(&id, data, &[CURRENT], clock.now(), clock)
                .unwrap();
        }
        secret
    }

    fn id_of(secret: &Secret, stage: &str) -> Option<String> {
        secret.labelled(stage).map(|v| v.id.clone())
    }

    #[test]
    fn a_put_moves_current_to_previous() {
        let clock = Clock::new();
        let secret = generic(&clock, 3);
        assert_eq!(id_of(&secret, CURRENT).as_deref(), Some("v3"));
        assert_eq!(id_of(&secret, PREVIOUS).as_deref(), Some("v2"));
        assert!(secret.version("v1").unwrap().stages.is_empty());
        assert_eq!(secret.history.len(), 3);
    }

    #[test]
    fn the_eleventh_version_pushes_out_the_oldest_without_a_label() {
        let clock = Clock::new();
        let mut secret = generic(&clock, 1);
        secret.move_stage("keep", Some("v1"), None, &clock).unwrap();
        for n in 2..=12 {
            let id = format!("v{n}");
            secret
                .put(&id, text("x"), &[CURRENT], clock.now(), &clock)
                .unwrap();
        }
        assert_eq!(secret.versions.len(), 10);
        assert!(secret.version("v1").is_some());
        assert!(secret.version("v2").is_none() && secret.version("v3").is_none());
    }

    #[test]
    fn the_same_version_again_is_fine_and_another_value_is_not() {
        let clock = Clock::new();
        let mut secret = generic(&clock, 2);
        secret
            .put("v1", text("value 1"), &[CURRENT], clock.now(), &clock)
            .unwrap();
        assert_eq!(id_of(&secret, CURRENT).as_deref(), Some("v2"));
        assert!(
            secret
                .put("v1", text("other"), &[CURRENT], clock.now(), &clock)
                .is_err()
        );
    }

    #[test]
    fn moving_current_back_is_a_rollback_and_is_in_the_history() {
        let clock = Clock::new();
        let mut secret = generic(&clock, 2);
        secret
            .move_stage(CURRENT, Some("v1"), Some("v2"), &clock)
            .unwrap();
        assert_eq!(secret.find(None, None).unwrap().data.text, "value 1");
        assert_eq!(secret.history.last().unwrap().version_id, "v1");
        assert!(
            secret
                .move_stage(CURRENT, None, Some("v1"), &clock)
                .is_err()
        );
        assert!(secret.move_stage("blue", Some("v9"), None, &clock).is_err());
    }

    #[test]
    fn with_both_parameters_only_the_version_must_exist() {
        let clock = Clock::new();
        let secret = generic(&clock, 2);
        assert_eq!(
            secret.find(Some("no such label"), Some("v1")).unwrap().id,
            "v1"
        );
        assert_eq!(
            secret.find(Some(CURRENT), Some("v9")).err().unwrap().status,
            400
        );
        assert_eq!(secret.find(None, Some("v9")).err().unwrap().status, 404);
        assert_eq!(
            secret
                .find(Some("no such label"), None)
                .err()
                .unwrap()
                .status,
            404
        );
    }
}
