//! Many secrets in one call.

use std::thread;
use std::time::Duration;

use kms_emulator::{Batch, Effect, Emulator, Fault, Managed, Throttle};
use serde_json::{Value, json};

use crate::client::{Answer, Ask, ask, get, start};

const OWN: &str = "acs:kms:cn-hangzhou:1234567890123456:secret/";

fn batch(kms: &Emulator, items: &Value) -> Ask {
    let list = items.to_string();
    ask(kms, "BatchGetSecretValue", &[("SecretsList", &list)])
}

fn named(names: &[&str]) -> Value {
    names
        .iter()
        .map(|name| json!({ "SecretName": name }))
        .collect()
}

fn names(answer: &Answer, list: &str) -> Vec<String> {
    let answer = answer.json();
    let items = answer[list].as_array().unwrap().iter();
    items
        .map(|item| item["SecretName"].as_str().unwrap().to_owned())
        .collect()
}

fn filled(count: usize) -> (Emulator, Vec<String>) {
    let kms = start();
    let names: Vec<String> = (0..count).map(|n| format!("app/{n}")).collect();
    for name in &names {
        kms.put_generic(name, &format!("value of {name}"));
    }
    (kms, names)
}

#[test]
fn a_batch_answers_each_secret_as_a_single_read_does() {
    let kms = start();
    kms.put_generic("text", "one");
    kms.put_generic("text", "two");
    kms.put_managed("db", Managed::rds(Duration::from_secs(3600)));
    let items = json!([
        { "SecretName": "text", "VersionStage": "ACSPrevious" },
        { "SecretName": "text", "VersionId": "v2" },
        { "SecretName": "db", "FetchExtendedConfig": "true" },
    ]);
    for asked in [
        batch(&kms, &items).send(&kms),
        batch(&kms, &items).send_v1(&kms),
    ] {
        assert_eq!(asked.status, 200, "{}", asked.text());
        let answer = asked.json();
        assert!(answer["RequestId"].is_string());
        assert_eq!(answer["Errors"], json!([]));
        let values = &answer["SecretValues"];
        assert_eq!(values[0]["SecretData"], "one");
        assert_eq!(values[1]["SecretData"], "two");
        let mut single = get(&kms, "db")
            .with("FetchExtendedConfig", "true")
            .send(&kms)
            .json();
        assert!(values[2]["RequestId"].is_string());
        single["RequestId"] = values[2]["RequestId"].clone();
        assert_eq!(values[2], single);
    }
    let mut by_get = batch(&kms, &items);
    by_get.method = "GET";
    assert_eq!(by_get.send(&kms).status, 200);
}

#[test]
fn what_fails_fails_alone() {
    let (kms, _) = filled(2);
    kms.fault(
        Fault::code("Rejected.Throttling")
            .on_secret("app/1")
            .times(1),
    );
    let items = named(&["app/0", "missing", "app/1", "密钥"]);
    let answer = batch(&kms, &items).send(&kms);
    assert_eq!(names(&answer, "SecretValues"), ["app/0"]);
    let answer = answer.json();
    let errors = answer["Errors"].as_array().unwrap();
    let brief = |at: usize| {
        (
            errors[at]["Code"].as_str().unwrap(),
            errors[at]["HttpStatus"].as_u64().unwrap(),
        )
    };
    assert_eq!(brief(0), ("Forbidden.ResourceNotFound", 404));
    assert_eq!(brief(1), ("Rejected.Throttling", 429));
    assert_eq!(brief(2), ("InvalidParameter", 400));
    assert!(errors[1]["Message"].is_string());
    let again = batch(&kms, &items).send(&kms);
    assert_eq!(names(&again, "SecretValues"), ["app/0", "app/1"]);
}

#[test]
fn faults_hit_an_item_or_the_whole_call() {
    let (kms, _) = filled(3);
    let items = named(&["app/0", "app/1"]);
    let id = kms.fault(Fault::code("InternalFailure").on_action("BatchGetSecretValue"));
    assert_eq!(batch(&kms, &items).send(&kms).status, 500);
    assert_eq!(get(&kms, "app/0").send(&kms).status, 200);
    kms.clear_fault(id);
    kms.fault(Fault::without_secret_data().on_secret("app/1").times(1));
    let answer = batch(&kms, &items).send(&kms).json();
    assert!(answer["SecretValues"][0]["SecretData"].is_string());
    assert!(answer["SecretValues"][1]["SecretData"].is_null());
    kms.fault(Fault::new(Effect::BadGateway).on_secret("app/1").times(1));
    assert_eq!(
        batch(&kms, &named(&["app/0", "app/2"])).send(&kms).status,
        200
    );
    assert_eq!(batch(&kms, &items).send(&kms).status, 502);
    assert_eq!(batch(&kms, &items).send(&kms).status, 200);
    let ends: Vec<String> = kms
        .reads()
        .into_iter()
        .filter(|read| read.batched && read.secret.as_deref() == Some("app/1"))
        .map(|read| read.outcome)
        .collect();
    assert_eq!(
        ends,
        ["InternalFailure", "Fault.Patch", "Fault.BadGateway", "OK"]
    );
}

#[test]
fn lists_that_are_empty_too_long_or_malformed_are_refused() {
    let (kms, names) = filled(21);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(batch(&kms, &named(&names[..20])).send(&kms).status, 200);
    let odd = [
        named(&names),
        json!([]),
        json!({ "SecretName": "app/0" }),
        json!([{ "VersionId": "v1" }]),
        json!([{ "SecretName": "app/0", "FetchExtendedConfig": true }]),
        json!("app/0"),
    ];
    for items in &odd {
        let answer = batch(&kms, items).send(&kms);
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "InvalidParameter")
        );
    }
    let none = ask(&kms, "BatchGetSecretValue", &[]).send(&kms);
    assert_eq!(none.code(), "InvalidParameter");
}

#[test]
fn a_secret_may_be_there_twice_unless_told_otherwise() {
    let (kms, _) = filled(2);
    let arn = format!("{OWN}app/0");
    let read = |names: &[&str]| batch(&kms, &named(names)).send(&kms).status;
    assert_eq!(read(&["app/0", &arn]), 200);
    kms.set_batch_refuses_repeats(true);
    assert_eq!(
        (read(&["app/0", &arn]), read(&["app/0", "app/1"])),
        (400, 200)
    );
}

#[test]
fn a_batch_costs_its_items_unless_told_otherwise() {
    let (kms, _) = filled(3);
    let items = named(&["app/0", "app/1", "app/2"]);
    let read = || batch(&kms, &items).send(&kms).status;
    kms.throttle(Some(Throttle::new(0.001, 5.0)));
    assert_eq!((read(), read()), (200, 429));
    kms.throttle(Some(Throttle::new(0.001, 5.0)));
    kms.set_batch_costs_one(true);
    assert_eq!((read(), read()), (200, 200));
}

#[test]
fn a_service_without_batches_says_so() {
    let (kms, _) = filled(1);
    let read = || {
        let answer = batch(&kms, &named(&["app/0"])).send(&kms);
        (answer.status, answer.code())
    };
    kms.set_batch(Batch::Absent);
    assert_eq!(read(), (404, "InvalidAction.NotFound".to_owned()));
    kms.set_batch(Batch::Unsupported);
    assert_eq!(read(), (400, "UnsupportedOperation".to_owned()));
    kms.set_batch(Batch::Present);
    assert_eq!(read().0, 200);
}

#[test]
fn answers_come_in_any_order_and_under_either_name() {
    let (kms, own) = filled(4);
    let arn = format!("{OWN}app/0");
    let asked = named(&[&arn, "app/1", "app/2", "app/3"]);
    let order = || names(&batch(&kms, &asked).send(&kms), "SecretValues");
    assert_eq!(order(), [arn.as_str(), "app/1", "app/2", "app/3"]);
    kms.set_batch_plain_names(true);
    assert_eq!(order(), own);
    kms.set_batch_shuffled(true);
    for _ in 0..20 {
        let mut shuffled = order();
        assert_ne!(shuffled, own);
        shuffled.sort();
        assert_eq!(shuffled, own);
    }
    let missing = named(&[&format!("{OWN}missing")]);
    let answer = batch(&kms, &missing).send(&kms);
    assert_eq!(names(&answer, "Errors"), ["missing"]);
}

#[test]
fn wire_calls_and_reads_are_counted_apart() {
    let (kms, _) = filled(2);
    batch(&kms, &named(&["app/0", "app/1", "missing"])).send(&kms);
    batch(&kms, &named(&["app/0"])).send(&kms);
    get(&kms, "app/0").send(&kms);
    assert_eq!(kms.count("BatchGetSecretValue"), 2);
    assert_eq!(kms.calls().len(), 3);
    assert_eq!(kms.count_reads("app/0"), 3);
    assert_eq!(kms.count_reads(&format!("{OWN}app/1")), 1);
    let first = kms.calls().remove(0);
    assert_eq!(first.secret, None);
    let ends: Vec<_> = first
        .items
        .iter()
        .map(|item| (item.outcome.as_str(), item.answered_version.as_deref()))
        .collect();
    let missing = ("Forbidden.ResourceNotFound", None);
    assert_eq!(ends, [("OK", Some("v1")), ("OK", Some("v1")), missing]);
    let of_batches = kms
        .read_counts()
        .into_iter()
        .filter(|count| count.action == "BatchGetSecretValue")
        .map(|count| count.calls);
    assert_eq!(of_batches.sum::<u64>(), 4);
    kms.reset_calls();
    assert!(kms.reads().is_empty() && kms.read_counts().is_empty());
}

#[tokio::test]
async fn a_hold_keeps_the_whole_batch_back() {
    let (kms, _) = filled(3);
    let first = kms.hold("app/0");
    let second = kms.hold_reading("app/1", kms_emulator::Reads::AtRelease);
    let asked = batch(&kms, &named(&["app/0", "app/1", "app/0", "app/2"]));
    let there = kms.clone();
    let call = thread::spawn(move || asked.send(&there));
    first.until_waiting(1).await;
    second.until_waiting(1).await;
    assert_eq!(kms.reads()[3].outcome, kms_emulator::PENDING);
    for name in ["app/0", "app/1", "app/2"] {
        kms.put_generic(name, "new");
    }
    first.release();
    second.release();
    let answer = call.join().unwrap().json();
    let values: Vec<&str> = answer["SecretValues"]
        .as_array()
        .unwrap()
        .iter()
        .map(|value| value["SecretData"].as_str().unwrap())
        .collect();
    let (old, also_old) = ("value of app/0", "value of app/2");
    assert_eq!(values, [old, "new", old, also_old]);
}
