//! From an answer of KMS to what the status says of it, whatever the answer was.

use jiff::SignedDuration;
use proptest::prelude::*;

use super::*;
use crate::alibaba::Error;
use crate::alibaba::answer::read_refusal;
use crate::alibaba::fuzz::{Body, refusals, reveals, values};
use crate::alibaba::secret_value::read_secret_value;
use crate::api::kms_secret::{KmsSecretStatus, Source, SourceRef};
use crate::sync::Failure;
use crate::sync::sources::{Known, believe};
use crate::sync::status::{Context, failed, merge_patch, ready};

/// More than a message needs; the API server takes 32 KiB, and an Event 1 KiB.
const MESSAGE_MAX: usize = 1000;

proptest! {
    #[test]
    fn a_refusal_is_told_in_our_words_and_the_same_each_time(
        Body(body) in refusals(), status in 201..600_u16, generation in 1..3_i64, now in moment()
    ) {
        let mut refusal = read_refusal(status, &body, Some("250"));
        let failure = Failure::of_kms(&Error::Refused(Box::new(refusal.clone())), "shop/db", "prod");
        let message = failure.message();
        prop_assert!(message.len() <= MESSAGE_MAX && !message.contains(char::is_control), "{}", message);
        let said = format!("{failure:?}");
        prop_assert!(!reveals(&said), "{}", said);
        // The id is another for each attempt: told, it would wake the object each time.
        refusal.request_id = Some("another".into());
        let again = Failure::of_kms(&Error::Refused(Box::new(refusal)), "shop/db", "prod");
        prop_assert_eq!(&again, &failure);

        let context = Context { generation: Some(generation), sync: None, now };
        let hour = SignedDuration::from_hours(1);
        let status = failed(&KmsSecretStatus::default(), context, &failure, hour, false);
        prop_assert_eq!(ready(&status), Some(("False", failure.reason.as_str())));
        let later = Context { now: now.max(Timestamp::UNIX_EPOCH), ..context };
        prop_assert_eq!(failed(&status, later, &again, hour, false), status.clone());
        let json = serde_json::to_value(&status).unwrap();
        prop_assert_eq!(merge_patch(&json, &json), serde_json::json!({}));
    }

    #[test]
    fn what_a_status_says_of_a_value_is_short_and_clean_and_fits_the_schema(
        Body(body) in values(), last in proptest::option::of(source_status()), kms_now in moment(), stale in 0..100_i64
    ) {
        let Ok(value) = read_secret_value(&body) else { return Ok(()) };
        let source = Source {
            secret_name: "shop/db".into(),
            version_stage: None,
            version_id: None,
            fetch_extended_config: None,
        };
        let asked = SourceRef { name: "source", source: &source, optional: false };
        let known = Known {
            last: last.as_ref(),
            replaced: None,
            is_same_spec: true,
            stale_for: Some(SignedDuration::from_secs(stale)),
            kms_now,
        };
        match believe(asked, &value.facts, &known) {
            Ok(seen) => {
                let words = [&seen.secret_type, &seen.secret_data_type, &seen.automatic_rotation, &seen.rotation_interval];
                let words = words.into_iter().flatten().chain(&seen.version_stages).chain([&seen.version_id]);
                for word in words {
                    prop_assert!(word.chars().count() <= 128 && !word.contains(char::is_control), "{:?}", word);
                }
                prop_assert!(seen.version_stages.len() <= 16);
                let json = serde_json::to_value(&seen).unwrap();
                let back: SourceStatus = serde_json::from_value(json).unwrap();
                prop_assert_eq!(back, seen, "what the API server gives back is what was written");
            }
            Err(failure) => {
                let said = format!("{failure:?}");
                prop_assert!(!reveals(&said), "{}", said);
            }
        }
    }
}
