//! Keys, times, tokens, nonces and signatures at the door.

use std::time::Duration;

use kms_emulator::jiff::SignedDuration;
use kms_emulator::{Signature, StsKey};

use crate::client::{Ask, ID, SECRET, ask, get, parse, send_raw, start};

#[test]
fn both_signatures_read_a_secret_by_get_and_post() {
    let kms = start();
    kms.put_generic("team/app+db=1", "hello");
    for method in ["GET", "POST"] {
        let make = || Ask {
            method,
            ..get(&kms, "team/app+db=1")
        };
        assert_eq!(make().send(&kms).data(), "hello");
        assert_eq!(make().send_v1(&kms).data(), "hello");
    }
    let seen: Vec<Signature> = kms.calls().iter().map(|call| call.signature).collect();
    assert_eq!(
        seen,
        [Signature::V3, Signature::V1, Signature::V3, Signature::V1]
    );
}

#[test]
fn unknown_removed_and_disabled_keys_are_refused() {
    let kms = start();
    let refused = get(&kms, "s").key("nobody", SECRET, None).send(&kms);
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (404, "InvalidAccessKeyId.NotFound")
    );
    kms.disable_key(ID);
    assert_eq!(
        get(&kms, "s").send(&kms).code(),
        "InvalidAccessKeyId.Inactive"
    );
    kms.enable_key(ID);
    assert_eq!(
        get(&kms, "s").send(&kms).code(),
        "Forbidden.ResourceNotFound"
    );
    kms.remove_key(ID);
    assert_eq!(
        get(&kms, "s").send_v1(&kms).code(),
        "InvalidAccessKeyId.NotFound"
    );
}

#[test]
fn a_wrong_secret_is_told_what_the_server_signed() {
    let kms = start();
    let wrong = get(&kms, "s").key(ID, "wrong", None);
    let answer = wrong.send_v1(&kms);
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (400, "SignatureDoesNotMatch")
    );
    let message = answer.json()["Message"].as_str().unwrap().to_owned();
    assert!(message.contains("server string to sign is:POST&%2F&AccessKeyId%3DLTAItest"));
    let message = get(&kms, "s").key(ID, "wrong", None).send(&kms).text();
    assert!(message.contains("server string to sign is:ACS3-HMAC-SHA256"));
}

#[test]
fn the_v1_error_text_holds_the_security_token() {
    let kms = start();
    let sts = StsKey::fresh(kms.now() + SignedDuration::from_hours(1));
    kms.add_sts_key(&sts);
    let wrong = get(&kms, "s").key(&sts.access_key_id, "wrong", Some(&sts.security_token));
    let message = wrong.send_v1(&kms).text();
    assert!(message.contains(&sts.security_token[..30]));
}

#[test]
fn a_replay_is_refused_until_the_window_is_over() {
    let kms = start();
    kms.put_generic("s", "x");
    let once = get(&kms, "s");
    assert_eq!(once.send(&kms).status, 200);
    assert_eq!(once.send(&kms).code(), "SignatureNonceUsed");
    kms.advance(Duration::from_secs(16 * 60));
    let again = Ask {
        nonce: once.nonce.clone(),
        ..get(&kms, "s")
    };
    assert_eq!(again.send(&kms).status, 200);
}

#[test]
fn a_time_that_is_off_or_missing_is_refused() {
    let kms = start();
    let at = |minutes: i64| {
        let time = kms.now() + SignedDuration::from_mins(minutes);
        let time = time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        Ask {
            time,
            ..get(&kms, "s")
        }
    };
    assert_eq!(at(-16).send(&kms).code(), "InvalidTimeStamp.Expired");
    assert_eq!(at(16).send_v1(&kms).code(), "InvalidTimeStamp.Expired");
    assert_eq!(at(14).send(&kms).code(), "Forbidden.ResourceNotFound");
    for time in [
        "",
        "yesterday",
        "2024-02-21 15:39:26Z",
        "2024-02-21T15:39:26+01",
    ] {
        let ask = Ask {
            time: time.to_owned(),
            ..get(&kms, "s")
        };
        assert_eq!(ask.send(&kms).code(), "IllegalTimestamp", "{time}");
        assert_eq!(ask.send_v1(&kms).code(), "IllegalTimestamp", "{time}");
    }
}

#[test]
fn the_date_header_follows_the_clock_and_the_skew() {
    let kms = start();
    kms.set_now("2031-05-06T07:08:09Z".parse().unwrap());
    let answer = get(&kms, "s").send(&kms);
    assert_eq!(answer.header("date"), Some("Tue, 06 May 2031 07:08:09 GMT"));
    kms.set_skew(SignedDuration::from_mins(20));
    let answer = get(&kms, "s").send(&kms);
    assert_eq!(answer.code(), "InvalidTimeStamp.Expired");
    assert!(
        answer
            .header("date")
            .unwrap()
            .starts_with("Tue, 06 May 2031 07:28:")
    );
}

#[test]
fn temporary_keys_need_their_own_valid_token() {
    let kms = start();
    let expires = kms.now() + SignedDuration::from_hours(1);
    let (one, two) = (StsKey::fresh(expires), StsKey::fresh(expires));
    kms.add_sts_key(&one);
    kms.add_sts_key(&two);
    let with = |token: Option<&str>| {
        get(&kms, "s")
            .key(&one.access_key_id, &one.access_key_secret, token)
            .send(&kms)
            .code()
    };
    assert_eq!(
        with(Some(&one.security_token)),
        "Forbidden.ResourceNotFound"
    );
    assert_eq!(with(None), "MissingSecurityToken");
    assert_eq!(
        with(Some(&two.security_token)),
        "InvalidSecurityToken.MismatchWithAccessKey"
    );
    assert_eq!(with(Some("made up")), "InvalidSecurityToken.Malformed");
    kms.advance(Duration::from_secs(3601));
    let late = get(&kms, "s")
        .key(
            &one.access_key_id,
            &one.access_key_secret,
            Some(&one.security_token),
        )
        .send_v1(&kms);
    assert_eq!(late.code(), "InvalidSecurityToken.Expired");
}

#[test]
fn what_is_not_signed_is_not_taken() {
    let kms = start();
    let request = String::from_utf8(get(&kms, "s").v3()).unwrap();
    let send = |from: &str, to: &str| {
        let changed = request.replacen(from, to, 1);
        assert_ne!(changed, request);
        parse(&send_raw(&kms, changed.as_bytes()).unwrap()).code()
    };
    let added = "x-acs-security-token: t\r\nauthorization:";
    assert_eq!(
        send("authorization:", added),
        "InvalidSecurityToken.Malformed"
    );
    let added = "x-acs-extra: t\r\nauthorization:";
    assert_eq!(send("authorization:", added), "IncompleteSignature");
    assert_eq!(
        send("host;x-acs-action;", "x-acs-action;"),
        "IncompleteSignature"
    );
    assert_eq!(send("Signature=", "Signed="), "IncompleteSignature");
    assert_eq!(
        send("host: kms.test", "host: other.test"),
        "SignatureDoesNotMatch"
    );
    let body = "content-length: 2\r\n\r\nhi";
    assert_eq!(
        send("content-length: 0\r\n\r\n", body),
        "SignatureDoesNotMatch"
    );
    assert_eq!(send("POST /?", "POST /x?"), "SignatureDoesNotMatch");
}

#[test]
fn an_unsigned_call_and_an_unknown_action_have_their_codes() {
    let kms = start();
    let plain = b"GET /?Action=GetSecretValue&Version=2016-01-20&Format=JSON&SecretName=s HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    assert_eq!(
        parse(&send_raw(&kms, plain).unwrap()).code(),
        "IncompleteSignature"
    );
    let unknown = ask(&kms, "BatchGetSomething", &[]).send(&kms);
    assert_eq!(
        (unknown.status, unknown.code().as_str()),
        (404, "InvalidAction.NotFound")
    );
    let old = Ask {
        version: "1999-01-01".to_owned(),
        ..get(&kms, "s")
    };
    assert_eq!(old.send(&kms).code(), "InvalidVersion");
}

#[test]
fn without_a_format_v1_answers_in_xml() {
    let kms = start();
    kms.put_generic("s", "a<b");
    let xml = Ask {
        format: None,
        ..get(&kms, "s")
    }
    .send_v1(&kms);
    assert_eq!(xml.header("content-type"), Some("text/xml;charset=utf-8"));
    assert!(xml.text().contains("<GetSecretValueResponse>"));
    assert!(xml.text().contains("<SecretData>a&lt;b</SecretData>"));
    let xml = Ask {
        format: None,
        ..get(&kms, "none")
    }
    .send_v1(&kms);
    assert!(
        xml.text()
            .contains("<Code>Forbidden.ResourceNotFound</Code>")
    );
    assert_eq!(get(&kms, "s").send(&kms).json()["SecretData"], "a<b");
}

#[test]
fn every_answer_has_one_request_id_in_two_places() {
    let kms = start();
    let answer = get(&kms, "s").send(&kms);
    let id = answer.json()["RequestId"].as_str().unwrap().to_owned();
    assert_eq!(answer.header("x-acs-request-id"), Some(id.as_str()));
}
