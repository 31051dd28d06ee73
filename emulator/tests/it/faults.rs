//! Each thing that can go wrong on purpose, seen from a raw socket.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use kms_emulator::{
    ABANDONED, Effect, Emulator, Fault, PENDING, Reads, Throttle, error, known_errors,
};
use serde_json::json;

use crate::client::{get, parse, send_raw, start};

fn with_secret() -> Emulator {
    let kms = start();
    kms.put_generic("s", "the value");
    kms
}

fn once(kms: &Emulator, effect: Effect) {
    kms.fault(Fault::new(effect).times(1));
}

fn raw(kms: &Emulator) -> std::io::Result<Vec<u8>> {
    send_raw(kms, &get(kms, "s").v3())
}

#[test]
fn every_known_code_comes_with_its_status() {
    let kms = with_secret();
    for (code, status) in known_errors() {
        kms.fault(Fault::code(code).times(1));
        let answer = get(&kms, "s").send(&kms);
        assert_eq!((answer.status, answer.code().as_str()), (status, code));
    }
    assert_eq!(get(&kms, "s").send(&kms).status, 200);
}

#[test]
fn an_error_can_carry_details_headers_and_xml() {
    let kms = with_secret();
    let denied = error("Forbidden.NoPermission")
        .with(
            "AccessDeniedDetail",
            json!({ "AuthAction": "kms:GetSecretValue" }),
        )
        .header("x-acs-retry-after", "250");
    kms.fault(Fault::error(denied.clone()).times(1));
    let answer = get(&kms, "s").send(&kms);
    assert_eq!(
        answer.json()["AccessDeniedDetail"]["AuthAction"],
        "kms:GetSecretValue"
    );
    assert_eq!(answer.header("x-acs-retry-after"), Some("250"));
    kms.fault(Fault::error(denied).as_xml().times(1));
    let answer = get(&kms, "s").send(&kms);
    assert!(answer.text().contains("<Error>") && answer.text().contains("<AuthAction>"));
}

#[test]
fn a_fault_hits_only_the_calls_it_names() {
    let kms = with_secret();
    kms.put_generic("other", "x");
    let id = kms.fault(
        Fault::code("InternalFailure")
            .on_secret("s")
            .on_action("GetSecretValue"),
    );
    assert_eq!(get(&kms, "s").send(&kms).status, 500);
    assert_eq!(get(&kms, "other").send(&kms).status, 200);
    assert!(kms.clear_fault(id));
    assert_eq!(get(&kms, "s").send(&kms).status, 200);
    kms.fault(Fault::code("InternalFailure").on_key("somebody"));
    kms.fault(Fault::code("InternalFailure").with_probability(0.0));
    assert_eq!(get(&kms, "s").send(&kms).status, 200);
}

#[test]
fn a_reset_is_a_reset() {
    let kms = with_secret();
    once(&kms, Effect::Reset);
    assert_eq!(raw(&kms).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(kms.calls()[0].outcome, "Fault.Reset");
}

#[test]
fn a_truncated_answer_announces_more_than_it_sends() {
    let kms = with_secret();
    once(&kms, Effect::Truncated);
    let answer = parse(&raw(&kms).unwrap());
    let announced: usize = answer.header("content-length").unwrap().parse().unwrap();
    assert!(!answer.body.is_empty() && answer.body.len() < announced);
}

#[test]
fn garbage_is_no_http_and_a_garbage_body_is_no_json() {
    let kms = with_secret();
    once(&kms, Effect::Garbage);
    assert!(!raw(&kms).unwrap().starts_with(b"HTTP"));
    once(&kms, Effect::GarbageBody);
    let answer = parse(&raw(&kms).unwrap());
    assert_eq!(answer.status, 200);
    assert!(serde_json::from_slice::<serde_json::Value>(&answer.body).is_err());
}

#[test]
fn a_proxy_page_an_empty_body_a_redirect_and_a_raw_answer() {
    let kms = with_secret();
    once(&kms, Effect::BadGateway);
    let answer = get(&kms, "s").send(&kms);
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (502, Some("text/html"))
    );
    once(&kms, Effect::Empty);
    let answer = get(&kms, "s").send(&kms);
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    once(
        &kms,
        Effect::Redirect {
            location: "http://127.0.0.1:1/".to_owned(),
        },
    );
    let answer = get(&kms, "s").send(&kms);
    assert_eq!(
        (answer.status, answer.header("location")),
        (302, Some("http://127.0.0.1:1/"))
    );
    let headers = vec![("content-type".to_owned(), "text/plain".to_owned())];
    once(
        &kms,
        Effect::Raw {
            status: 418,
            headers,
            body: "tea".to_owned(),
        },
    );
    let answer = get(&kms, "s").send(&kms);
    assert_eq!((answer.status, answer.text().as_str()), (418, "tea"));
    assert_eq!(answer.header("content-type"), Some("text/plain"));
}

#[test]
fn a_patched_answer_lacks_or_changes_fields() {
    let kms = with_secret();
    kms.fault(Fault::without_secret_data().times(1));
    let answer = get(&kms, "s").send(&kms).json();
    assert!(answer.get("SecretData").is_none() && answer["SecretName"] == "s");
    kms.fault(Fault::patch(&json!({ "VersionId": "another" })).times(1));
    assert_eq!(get(&kms, "s").send(&kms).json()["VersionId"], "another");
}

#[test]
fn a_huge_answer_is_as_long_as_it_says() {
    let kms = with_secret();
    once(&kms, Effect::Huge { bytes: 8 << 20 });
    let answer = parse(&raw(&kms).unwrap());
    assert!(answer.body.len() > 8 << 20);
    assert_eq!(
        answer.header("content-length"),
        Some(answer.body.len().to_string().as_str())
    );
    assert_eq!(answer.json()["SecretData"].as_str().unwrap().len(), 8 << 20);
}

#[test]
fn a_delayed_and_a_dripping_answer_are_whole_but_late() {
    let kms = with_secret();
    for effect in [
        Effect::Delay {
            seconds: Duration::from_millis(200),
        },
        Effect::Drip {
            bytes: 40,
            seconds: Duration::from_millis(40),
        },
    ] {
        once(&kms, effect);
        let begun = Instant::now();
        assert_eq!(get(&kms, "s").send(&kms).data(), "the value");
        assert!(begun.elapsed() >= Duration::from_millis(200));
    }
}

#[test]
fn a_hanging_call_is_pending_until_its_caller_goes() {
    let kms = with_secret();
    once(&kms, Effect::Hang);
    let mut tcp = TcpStream::connect(kms.address()).unwrap();
    tcp.write_all(&get(&kms, "s").v3()).unwrap();
    tcp.set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let kind = tcp.read(&mut [0; 1]).unwrap_err().kind();
    assert!(matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut));
    assert_eq!(
        (kms.calls()[0].outcome.as_str(), kms.in_flight()),
        (PENDING, 1)
    );
    drop(tcp);
    until(|| kms.in_flight() == 0);
    assert_eq!(kms.calls()[0].outcome, ABANDONED);
}

fn until(done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !done() {
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_held_call_answers_the_value_of_its_arrival_or_of_its_release() {
    for (reads, wanted) in [(Reads::AtArrival, "the value"), (Reads::AtRelease, "newer")] {
        let kms = with_secret();
        let hold = kms.hold_reading("s", reads);
        let asked = get(&kms, "s");
        let there = kms.clone();
        let call = thread::spawn(move || asked.send(&there).data());
        until(|| hold.waiting() == 1);
        kms.put_generic("s", "newer");
        hold.release();
        assert_eq!(call.join().unwrap(), wanted);
        assert_eq!(get(&kms, "s").send(&kms).data(), "newer");
    }
}

#[test]
fn held_calls_go_on_one_at_a_time() {
    let kms = with_secret();
    let hold = kms.hold("s");
    let call = || {
        let (there, asked) = (kms.clone(), get(&kms, "s"));
        thread::spawn(move || asked.send(&there).status)
    };
    let calls = [call(), call()];
    until(|| hold.waiting() == 2);
    hold.release_one();
    until(|| hold.waiting() == 1);
    drop(hold);
    for call in calls {
        assert_eq!(call.join().unwrap(), 200);
    }
    assert_eq!(kms.peak_in_flight(), 2);
}

#[test]
fn calls_over_the_limit_are_refused_with_a_hint() {
    let kms = with_secret();
    kms.throttle(Some(Throttle::new(5.0, 2.0).code("Throttling.User")));
    let answers: Vec<_> = (0..3).map(|_| get(&kms, "s").send(&kms)).collect();
    assert_eq!([answers[0].status, answers[1].status], [200, 200]);
    assert_eq!(answers[2].code(), "Throttling.User");
    let hint: u64 = answers[2]
        .header("x-acs-retry-after")
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=200).contains(&hint));
    thread::sleep(Duration::from_millis(hint + 5));
    assert_eq!(get(&kms, "s").send(&kms).status, 200);
    kms.throttle(None);
    assert_eq!(get(&kms, "s").send(&kms).status, 200);
}

#[test]
fn calls_are_counted_and_no_value_is_in_the_log() {
    let kms = with_secret();
    kms.set_latency(Duration::from_millis(6));
    let begun = Instant::now();
    get(&kms, "s").with("VersionStage", "ACSCurrent").send(&kms);
    assert!(begun.elapsed() >= Duration::from_millis(6));
    get(&kms, "none").send(&kms);
    until(|| kms.in_flight() == 0);
    assert_eq!(kms.count("GetSecretValue"), 2);
    assert_eq!(kms.counts().len(), 2);
    let calls = kms.calls();
    assert_eq!(calls[0].stage.as_deref(), Some("ACSCurrent"));
    assert_eq!(calls[0].answered_version.as_deref(), Some("v1"));
    assert_eq!(calls[1].outcome, "Forbidden.ResourceNotFound");
    let log = format!("{calls:?} {:?} {:?}", kms.history("s"), kms.current("s"));
    assert!(!log.contains("the value"));
    kms.reset_calls();
    assert_eq!((kms.calls().len(), kms.counts().len()), (0, 0));
}

#[test]
fn stopping_ends_listening_and_connections() {
    let kms = with_secret();
    kms.stop();
    assert!(TcpStream::connect(kms.address()).is_err());
}
