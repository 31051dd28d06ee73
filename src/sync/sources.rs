//! What to read of KMS, and whether to believe the answers: that they are to the question, of one moment, and not older
//! than what was known.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::schedule::note_rotation;
use super::{Failure, Reason, whole_seconds};
use crate::alibaba::secret_name::plain_name;
use crate::alibaba::secret_value::{Facts, GetSecretValue};
use crate::api::kms_secret::{Source, SourceRef, SourceStatus};

/// Stage that KMS reads when it is given neither a stage nor a version.
const DEFAULT_STAGE: &str = "ACSCurrent";
/// A managed secret that stays older than it was for so long was deleted and made anew.
const STALE_MAX: SignedDuration = SignedDuration::from_secs(60);
/// A version of a generic secret that comes back is read once more after this.
const ROLLBACK_CONFIRM: Duration = Duration::from_secs(3);
/// Of a version's labels the status shows so many; KMS gives a version 8 at most.
const STAGES_MAX: usize = 16;

/// The call that reads `source`. The default stage is not sent: KMS would hold it against a version id.
#[must_use]
pub fn request(source: &Source) -> GetSecretValue {
    GetSecretValue {
        secret_name: source.secret_name.clone(),
        version_stage: source.version_stage.clone(),
        version_id: source.version_id.clone(),
        fetch_extended_config: source.fetch_extended_config.unwrap_or_default(),
        dry_run: false,
    }
}

/// The stage that an answer must carry; `None` where only the version counts.
fn stage(source: &Source) -> Option<&str> {
    let default = source.version_id.is_none().then_some(DEFAULT_STAGE);
    source.version_stage.as_deref().or(default)
}

/// Whether `source` is read before the others. Of two versions of one secret the current one is: a rotation between the
/// two reads then shows, as both have one id.
#[must_use]
pub fn is_first(source: &Source) -> bool {
    stage(source) == Some(DEFAULT_STAGE)
}

/// Checks that every ARN is of the store's region: calls go there, and another region's secret is not found there.
///
/// # Errors
/// `SpecInvalid`.
pub fn check_regions(sources: &[SourceRef<'_>], region: &str, store: &str) -> Result<(), Failure> {
    for SourceRef { source, .. } in sources {
        let arn = source.secret_name.strip_prefix("acs:kms:");
        let other = arn.and_then(|rest| rest.split(':').next());
        if let Some(other) = other.filter(|other| *other != region) {
            return Err(Failure::new(
                Reason::SpecInvalid,
                format!(
                    "{:?} is in region {other}, and store {store:?} reads region {region}",
                    source.secret_name
                ),
                format!("name a store of region {other}"),
            ));
        }
    }
    Ok(())
}

/// Checks that the answer is of the version that was asked for: KMS itself ignores the id of managed secrets, and of a
/// stage and an id together only checks that the id exists.
///
/// # Errors
/// `VersionMismatch` or `VersionIdNotSupported`.
pub fn check_version(source: &Source, facts: &Facts) -> Result<(), Failure> {
    let name = &source.secret_name;
    if let Some(asked) = &source.version_id
        && *asked != facts.version_id
    {
        return Err(if facts.is_managed() {
            Failure::new(
                Reason::VersionIdNotSupported,
                format!("{name:?} is a managed secret, whose versions cannot be asked for by id"),
                "remove versionId, or use versionStage ACSCurrent or ACSPrevious",
            )
        } else {
            Failure::new(
                Reason::VersionMismatch,
                format!("KMS answered another version of {name:?} than {asked:?}"),
                "check the source's versionId",
            )
        });
    }
    let labels = &facts.version_stages;
    match stage(source) {
        Some(stage) if is_missing(stage, labels, source.version_stage.is_some()) => {
            Err(Failure::new(
                Reason::VersionMismatch,
                format!(
                    "KMS answered a version of {name:?} that does not carry the stage {stage:?}"
                ),
                "check the source: a version id and a stage must belong to one version",
            ))
        }
        _ => Ok(()),
    }
}

/// A stage that was asked for must be there; the default one may be left unsaid.
fn is_missing(stage: &str, labels: &[String], is_asked: bool) -> bool {
    (is_asked || !labels.is_empty()) && !labels.iter().any(|label| label == stage)
}

/// The name of a secret that was rotated between the reads of two of its versions: both answers are then the same
/// version, which does not carry both labels.
#[must_use]
pub fn straddled<'a>(read: &[(SourceRef<'a>, &Facts)]) -> Option<&'a str> {
    let pairs = read.iter().enumerate().flat_map(|(i, first)| {
        let rest = read[i + 1..].iter();
        rest.map(move |second| (first, second))
    });
    let torn = pairs
        .filter(|((a, _), (b, _))| {
            plain_name(&a.source.secret_name) == plain_name(&b.source.secret_name)
                && stage(a.source) != stage(b.source)
        })
        .find(|((a, seen_of_a), (b, seen_of_b))| {
            let both = [stage(a.source), stage(b.source)];
            let carries = |facts: &Facts| {
                let mut stages = both.iter().flatten();
                stages.all(|stage| facts.version_stages.iter().any(|label| label == stage))
            };
            both.iter().all(Option::is_some)
                && seen_of_a.version_id == seen_of_b.version_id
                && !(carries(seen_of_a) && carries(seen_of_b))
        });
    torn.map(|((a, _), _)| a.source.secret_name.as_str())
}

/// The failure that remains when reading again did not help.
#[must_use]
pub fn torn(secret_name: &str) -> Failure {
    Failure::new(
        Reason::StaleAnswer,
        format!("{secret_name:?} was rotated each time while its versions were read"),
        "no action needed: it is read again",
    )
}

/// What was known of a source before it was read.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// What the last success through the same store said of the same secret.
    pub last: Option<&'a SourceStatus>,
    /// Versions that newer ones replaced.
    pub replaced: Option<&'a VecDeque<String>>,
    /// The spec is the one of the last success: nobody asked for another version.
    pub is_same_spec: bool,
    /// For how long answers have been too old, if the last one was.
    pub stale_for: Option<SignedDuration>,
    /// Now, in the time of KMS.
    pub kms_now: Timestamp,
}

/// Checks an answer against the question and against what was known, and answers what the status says of it.
///
/// # Errors
/// `VersionMismatch`, `VersionIdNotSupported`; `StaleAnswer` where it is older than what was known and reading it again
/// will tell a lagging copy of KMS from a secret that was rolled back or made anew.
pub fn believe(
    asked: SourceRef<'_>,
    facts: &Facts,
    known: &Known<'_>,
) -> Result<SourceStatus, Failure> {
    let secret_name = &asked.source.secret_name;
    check_version(asked.source, facts)?;
    let mut seen = source_status(asked.name, secret_name, facts);
    let Some(last) = known.last else {
        return Ok(seen);
    };
    let was_stale_long = known.stale_for.is_some_and(|stale| stale >= STALE_MAX);
    if facts.is_managed() && is_before(&seen, last) && !was_stale_long {
        return Err(Failure::new(
            Reason::StaleAnswer,
            format!("KMS answered {secret_name:?} as it was before its last rotation"),
            "no action needed: it is read again, and believed after a minute",
        ));
    }
    let is_back = known
        .replaced
        .is_some_and(|replaced| replaced.contains(&seen.version_id));
    if !facts.is_managed() && is_back && known.is_same_spec && known.stale_for.is_none() {
        return Err(Failure {
            retry_after: Some(ROLLBACK_CONFIRM),
            ..Failure::new(
                Reason::StaleAnswer,
                format!("KMS answered an earlier version of {secret_name:?}"),
                "no action needed: it is read once more and then believed, since it may have been rolled back",
            )
        });
    }
    note_rotation(last, &mut seen, known.kms_now);
    Ok(seen)
}

/// Both were rotated, and `new` was not rotated since.
fn is_before(new: &SourceStatus, old: &SourceStatus) -> bool {
    matches!((&new.last_rotation_date, &old.last_rotation_date), (Some(new), Some(old)) if new < old)
}

/// What KMS said of a source, as the status shows it.
fn source_status(name: &str, secret_name: &str, facts: &Facts) -> SourceStatus {
    let word = |word: &Option<String>| word.as_deref().map(clean);
    SourceStatus {
        name: name.to_owned(),
        secret_name: secret_name.to_owned(),
        version_id: clean(&facts.version_id),
        version_stages: facts
            .version_stages
            .iter()
            .take(STAGES_MAX)
            .map(|stage| clean(stage))
            .collect(),
        secret_type: word(&facts.secret_type),
        secret_data_type: word(&facts.secret_data_type),
        automatic_rotation: word(&facts.automatic_rotation),
        rotation_interval: word(&facts.rotation_interval),
        create_time: facts.create_time.map(whole_seconds),
        last_rotation_date: facts.last_rotation_date.map(whole_seconds),
        next_rotation_date: facts.next_rotation_date.map(whole_seconds),
        confirmed_rotation_date: None,
    }
}

/// A word of KMS as it may stand in a status: short, and without control characters.
fn clean(word: &str) -> String {
    word.chars().filter(|c| !c.is_control()).take(128).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn source(secret_name: &str, stage: Option<&str>, id: Option<&str>) -> Source {
        Source {
            secret_name: secret_name.into(),
            version_stage: stage.map(Into::into),
            version_id: id.map(Into::into),
            fetch_extended_config: None,
        }
    }

    fn named(source: &Source) -> SourceRef<'_> {
        SourceRef {
            name: "a",
            source,
            optional: false,
        }
    }

    fn facts(id: &str, stages: &[&str], secret_type: &str) -> Facts {
        Facts {
            version_id: id.into(),
            version_stages: stages.iter().map(ToString::to_string).collect(),
            secret_type: Some(secret_type.into()),
            ..Facts::default()
        }
    }

    #[test]
    fn answers_are_held_against_what_was_asked() {
        use Reason::{VersionIdNotSupported, VersionMismatch};
        let current = facts("v2", &["ACSCurrent"], "Generic");
        let previous = facts("v1", &["ACSPrevious"], "Generic");
        let rds = facts("v2", &["ACSCurrent"], "Rds");
        let bare = facts("v1", &[], "Generic");
        for (stage, id, facts, refused) in [
            (None, None, &current, None),
            (None, Some("v2"), &current, None),
            (None, Some("v1"), &current, Some(VersionMismatch)),
            (None, Some("v1"), &rds, Some(VersionIdNotSupported)),
            (Some("ACSPrevious"), None, &current, Some(VersionMismatch)),
            (
                Some("ACSPrevious"),
                Some("v2"),
                &current,
                Some(VersionMismatch),
            ),
            (None, None, &previous, Some(VersionMismatch)),
            (None, None, &bare, None),
        ] {
            let checked = check_version(&source("a", stage, id), facts);
            assert_eq!(checked.err().map(|f| f.reason), refused, "{stage:?} {id:?}");
        }
    }

    #[test]
    fn an_arn_is_of_the_region_of_its_store() {
        let check =
            |name: &str| check_regions(&[named(&source(name, None, None))], "cn-hangzhou", "prod");
        assert_eq!(check("acs"), Ok(()));
        assert_eq!(check("acs:kms:cn-hangzhou:1:secret/a"), Ok(()));
        let refused = check("acs:kms:cn-beijing:1:secret/a").unwrap_err();
        assert_eq!(refused.reason, Reason::SpecInvalid);
        assert!(refused.message().contains("cn-beijing"));
    }

    #[test]
    fn two_versions_of_one_secret_are_of_one_moment() {
        let current = source("shop/db", None, None);
        let previous = source("shop/db", Some("ACSPrevious"), None);
        let by_arn = source(
            "acs:kms:cn-hangzhou:1:secret/shop/db",
            Some("ACSPrevious"),
            None,
        );
        let pinned = source("shop/db", None, Some("v1"));
        let other = source("shop/other", Some("ACSPrevious"), None);
        let (now, before) = (
            facts("v1", &["ACSCurrent"], "Rds"),
            facts("v1", &["ACSPrevious"], "Rds"),
        );
        let older = facts("v0", &["ACSPrevious"], "Rds");
        let both = facts("v1", &["ACSPrevious", "ACSCurrent"], "Rds");
        for (second, first_facts, second_facts, is_torn) in [
            (&previous, &now, &older, false),
            (&previous, &now, &before, true),
            (&by_arn, &now, &before, true),
            (&previous, &both, &both, false),
            (&previous, &both, &before, true),
            (&pinned, &now, &before, false),
            (&other, &now, &before, false),
        ] {
            let read = [
                (named(&current), first_facts),
                (named(second), second_facts),
            ];
            assert_eq!(straddled(&read).is_some(), is_torn, "{second:?}");
        }
        assert!(is_first(&current) && !is_first(&previous) && !is_first(&pinned));
    }

    fn known(last: &SourceStatus) -> Known<'_> {
        Known {
            last: Some(last),
            replaced: None,
            is_same_spec: true,
            stale_for: None,
            kms_now: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn an_older_answer_of_a_managed_secret_is_believed_after_a_minute() {
        let asked = source("a", None, None);
        let mut rds = facts("v2", &["ACSCurrent"], "Rds");
        rds.last_rotation_date = Some(Timestamp::from_second(2000).unwrap());
        let last = believe(
            named(&asked),
            &rds,
            &Known {
                last: None,
                ..known(&SourceStatus::default())
            },
        )
        .unwrap();
        rds.last_rotation_date = Some(Timestamp::from_second(1000).unwrap());
        let mut known = known(&last);
        let stale = believe(named(&asked), &rds, &known).unwrap_err();
        assert_eq!(stale.reason, Reason::StaleAnswer);
        known.stale_for = Some(SignedDuration::from_secs(59));
        assert!(believe(named(&asked), &rds, &known).is_err());
        known.stale_for = Some(SignedDuration::from_secs(60));
        assert!(believe(named(&asked), &rds, &known).is_ok());
    }

    #[test]
    fn an_earlier_version_of_a_generic_secret_is_read_twice() {
        let asked = source("a", None, None);
        let back = facts("v1", &["ACSCurrent"], "Generic");
        let last = SourceStatus::default();
        let replaced = VecDeque::from(["v1".to_owned()]);
        let mut known = Known {
            replaced: Some(&replaced),
            ..known(&last)
        };
        let stale = believe(named(&asked), &back, &known).unwrap_err();
        assert_eq!(stale.retry_after, Some(ROLLBACK_CONFIRM));
        known.stale_for = Some(SignedDuration::ZERO);
        assert!(believe(named(&asked), &back, &known).is_ok());
        known.stale_for = None;
        known.is_same_spec = false;
        assert!(
            believe(named(&asked), &back, &known).is_ok(),
            "a new spec may ask for it"
        );
    }

    proptest! {
        #[test]
        fn what_the_status_shows_is_short_and_clean(id in ".{0,300}", stages in proptest::collection::vec(".{0,200}", 0..40)) {
            let stages: Vec<&str> = stages.iter().map(String::as_str).collect();
            let shown = source_status("a", "a", &facts(&id, &stages, &id));
            prop_assert!(shown.version_stages.len() <= STAGES_MAX);
            let words = shown.version_stages.iter().chain([&shown.version_id]).chain(&shown.secret_type);
            for word in words {
                prop_assert!(word.chars().count() <= 128 && !word.contains(char::is_control));
            }
        }
    }
}
