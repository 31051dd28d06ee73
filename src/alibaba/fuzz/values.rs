//! The values of secrets, one by one and in batches.

use jiff::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::*;
use crate::alibaba::Error;
use crate::alibaba::batch::read_batch;
use crate::alibaba::secret_name::plain_name;
use crate::alibaba::secret_value::{
    Facts, GetSecretValue, SecretValue, read_interval, read_secret_value,
};

const STAGES: &[&str] = &["ACSCurrent", "ACSPrevious", "blue"];

/// The answer to `GetSecretValue`, in every shape that a document or an SDK shows.
fn value() -> Text {
    let labels = list(&string(word(STAGES)), 3);
    let in_object = labels
        .clone()
        .prop_map(|labels| format!("{{\"VersionStage\":{labels}}}"));
    let in_text = in_object
        .clone()
        .prop_map(|json| format!("[{}]", quoted(&json)));
    let stages = prop_oneof![4 => in_object, 1 => in_text, 1 => labels];
    let secret = prop_oneof![
        6 => Just(PLANTED.to_owned()),
        1 => odd_text(40),
        1 => Just(json!({"AccountName": "app", "AccountPassword": PLANTED}).to_string()),
    ];
    object(vec![
        ("SecretName", string(name())),
        ("SecretData", string(secret)),
        ("SecretDataType", string(word(&["text", "binary"]))),
        (
            "SecretType",
            string(word(&["Generic", "Rds", "RAMCredentials"])),
        ),
        ("VersionId", string(word(&["v1", "v2"]))),
        ("VersionStages", stages.boxed()),
        (
            "AutomaticRotation",
            string(word(&["Enabled", "Disabled", "Invalid"])),
        ),
        ("RotationInterval", string(interval())),
        ("LastRotationDate", string(date())),
        ("NextRotationDate", string(date())),
        (
            "ExtendedConfig",
            prop_oneof![Just(quoted(PLANTED)), any_json()].boxed(),
        ),
    ])
}

/// Answers to `GetSecretValue`.
pub(crate) fn values() -> BoxedStrategy<Body> {
    bodies(&value(), samples(true))
}

/// What holds of every value that was read, however odd the answer was.
fn check_value(value: &SecretValue, body: &[u8]) -> Result<(), TestCaseError> {
    let facts = &value.facts;
    prop_assert!(!value.data.expose_secret().is_empty());
    let era = Timestamp::UNIX_EPOCH..=Timestamp::from_second(7_258_118_400).unwrap();
    let mut dates = facts
        .last_rotation_date
        .iter()
        .chain(&facts.next_rotation_date);
    prop_assert!(dates.all(|date| era.contains(date)), "{facts:?}");
    let interval = facts.rotation_interval.as_deref().and_then(read_interval);
    prop_assert!(interval.is_none_or(|it| (1..=315_360_000).contains(&it.as_secs())));
    // Nothing that is kept grows on the way.
    let words = [
        &facts.secret_type,
        &facts.secret_data_type,
        &facts.automatic_rotation,
    ];
    let kept = facts
        .version_stages
        .iter()
        .chain([&value.secret_name, &facts.version_id]);
    let kept: usize = kept
        .chain(words.into_iter().flatten())
        .map(String::len)
        .sum();
    prop_assert!(kept <= body.len() && facts.version_stages.len() <= body.len());
    // What KMS says besides the value is shown; the value is not.
    let shown = SecretValue {
        secret_name: String::new(),
        facts: Facts::default(),
        ..value.clone()
    };
    let shown = format!("{shown:?}");
    prop_assert!(!reveals(&shown), "{shown}");
    Ok(())
}

fn asked() -> impl Strategy<Value = Vec<GetSecretValue>> {
    let stage = proptest::option::of(select(STAGES));
    let one = (
        name(),
        stage,
        proptest::option::of(select(vec!["v1", "v2"])),
    );
    let one = one.prop_map(|(secret_name, stage, id)| GetSecretValue {
        secret_name,
        version_stage: stage.map(Into::into),
        version_id: id.map(Into::into),
        ..GetSecretValue::default()
    });
    vec(one, 1..4)
}

fn batches() -> BoxedStrategy<Body> {
    let error = object(vec![
        ("SecretName", string(name())),
        (
            "Code",
            string(word(&["Forbidden.NoPermission", "Rejected.Throttling"])),
        ),
        (
            "HttpStatus",
            prop_oneof![Just("403".to_owned()), any_json()].boxed(),
        ),
        ("Message", Just(quoted(PLANTED)).boxed()),
    ]);
    let batch = object(vec![
        ("SecretValues", list(&value(), 3)),
        ("Errors", list(&error, 2)),
        ("RequestId", string(odd_text(8))),
    ]);
    let of_one = samples(true)
        .into_iter()
        .map(|body| format!("{{\"SecretValues\":[{body}]}}"));
    bodies(&batch, of_one.collect())
}

proptest! {
    #[test]
    fn an_interval_is_at_most_ten_years_or_none(text in prop_oneof![interval(), odd_text(6)]) {
        let read = read_interval(&text);
        prop_assert!(read.is_none_or(|it| (1..=315_360_000).contains(&it.as_secs())), "{:?}", read);
    }

    #[test]
    fn a_value_is_whole_or_refused_without_a_word_of_it(Body(body) in values()) {
        match read_secret_value(&body) {
            Ok(value) => {
                check_value(&value, &body)?;
                // What nobody looks at may nest deeper than a document can.
                if let Ok(json) = serde_json::from_slice::<Value>(&body) {
                    prop_assert!(json.is_object());
                    prop_assert_eq!(json["SecretData"].as_str(), Some(value.data.expose_secret()));
                }
            }
            Err(error) => check_malformed(&error)?,
        }
    }

    #[test]
    fn a_batch_answers_each_request_with_its_own_secret_or_not(requests in asked(), Body(body) in batches()) {
        match read_batch(&requests, &body) {
            Ok(answers) => {
                prop_assert_eq!(answers.len(), requests.len());
                for (request, answer) in requests.iter().zip(answers) {
                    match answer {
                        Some(Ok(value)) => {
                            check_value(&value, &body)?;
                            prop_assert_eq!(plain_name(&value.secret_name), plain_name(&request.secret_name));
                            let stages = &value.facts.version_stages;
                            let stage = request.version_stage.as_deref().unwrap_or("ACSCurrent");
                            let is_asked = match &request.version_id {
                                Some(id) => *id == value.facts.version_id,
                                None => stages.iter().any(|label| label == stage),
                            };
                            prop_assert!(is_asked, "{:?} {:?}", request, value);
                        }
                        Some(Err(error)) => {
                            prop_assert!(matches!(error, Error::Refused(_)));
                            let said = format!("{error} {error:?}");
                            prop_assert!(!reveals(&said), "{}", said);
                        }
                        None => {}
                    }
                }
            }
            Err(error) => check_malformed(&error)?,
        }
    }
}

#[test]
fn many_of_the_values_are_read() {
    let asked = GetSecretValue {
        secret_name: "db".into(),
        ..GetSecretValue::default()
    };
    let is_value = |Body(body): &Body| read_secret_value(body).is_ok();
    let has_answer = |Body(body): &Body| {
        let read = read_batch(std::slice::from_ref(&asked), body);
        read.is_ok_and(|answers| answers[0].is_some())
    };
    let (alone, in_batches) = (share(&values(), is_value), share(&batches(), has_answer));
    assert!(
        alone >= 300 && in_batches >= 50,
        "{alone} and {in_batches} of 1000"
    );
}
