//! What is told of secrets by whoever has the token of the receiver.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::alibaba::endpoint::is_region;
use crate::alibaba::notice;
use crate::alibaba::secret_name::{SecretName, is_account};

/// What `EventBridge` and `CloudMonitor` send, each alone, in its envelope, and as text in it.
fn events() -> BoxedStrategy<Body> {
    let secret = || {
        object(vec![
            ("SecretName", string(name())),
            ("SecretData", Just(quoted(PLANTED)).boxed()),
        ])
    };
    let id = || {
        string(prop_oneof![
            Just("6894B13B-6D71".to_owned()),
            Just(PLANTED.to_owned()),
            odd_text(140)
        ])
    };
    let as_text_too = |json: Text| prop_oneof![3 => json.clone(), 1 => string(json)].boxed();
    let content = object(vec![("eventId", id()), ("secretName", string(name()))]);
    let system = object(vec![
        ("product", string(word(&["KMS", "kms"]))),
        (
            "name",
            string(word(&[
                "Secret:RotateSecret:Success",
                "Secret:RotateSecret:Failure",
            ])),
        ),
        ("regionId", string(word(&["cn-hangzhou"]))),
        ("resourceId", string(name())),
        ("content", as_text_too(content)),
    ]);
    let resources = object(vec![
        ("ACS::KMS::Secret", list(&string(name()), 12)),
        ("ACS::KMS::Key", list(&string(name()), 2)),
    ]);
    let operation = object(vec![
        ("serviceName", string(word(&["Kms"]))),
        ("eventId", id()),
        ("acsRegion", string(word(&["cn-beijing"]))),
        (
            "eventName",
            string(word(&["PutSecretValue", "RotateSecret", "GetSecretValue"])),
        ),
        ("requestParameters", as_text_too(secret())),
        ("requestParameterJson", string(secret())),
        ("referencedResources", as_text_too(resources)),
        (
            "resourceType",
            string(word(&[
                "ACS::KMS::Key;ACS::KMS::Secret",
                "ACS::KMS::Secret",
            ])),
        ),
        ("resourceName", string(word(&["key;db", "db", ";;"]))),
    ]);
    let bare = prop_oneof![system, operation].boxed();
    let types = &[
        "kms:CloudMonitor:Secret[RotateSecret:Success]",
        "kms:ActionTrail:ApiCall",
        "ecs:x",
    ];
    let wrapped = object(vec![
        ("id", id()),
        ("type", string(word(types))),
        ("aliyunregionid", string(word(&["cn-shanghai"]))),
        ("aliyunaccountid", string(word(&["42"]))),
        ("data", as_text_too(bare.clone())),
    ]);
    let one = prop_oneof![1 => bare, 2 => wrapped].boxed();
    let many = (one.clone(), 0..130_usize)
        .prop_map(|(event, times)| format!("[{}]", vec![event; times].join(",")));
    let made = prop_oneof![12 => one.clone(), 4 => list(&one, 4), 1 => many].boxed();
    let sample = json!({
        "id": "e1", "source": "acs.kms", "specversion": "1.0", "type": types[0], "aliyunregionid": "cn-shanghai",
        "data": {"product": "KMS", "name": "Secret:RotateSecret:Failure", "regionId": "cn-hangzhou",
            "resourceId": "acs:kms:cn-hangzhou:1:secret/shop/db", "content": {"eventId": "e2", "secretName": "shop/db"}},
    });
    bodies(&made, vec![sample.to_string()])
}

proptest! {
    #[test]
    fn of_a_notice_only_clean_and_short_names_are_kept(Body(body) in events()) {
        let Ok(read) = notice::read(&body) else { return Ok(()) };
        prop_assert!(read.notices.len() <= 100 && !reveals(&format!("{read:?}")), "{:?}", read);
        for notice in &read.notices {
            let name = SecretName::parse(&notice.secret_name);
            prop_assert!(name.is_some_and(|name| name.name == notice.secret_name), "{:?}", notice);
            prop_assert!(notice.region.as_deref().is_none_or(is_region));
            prop_assert!(notice.account.as_deref().is_none_or(is_account));
            let is_id = |id: &str| (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic());
            prop_assert!(notice.event_id.as_deref().is_none_or(is_id));
        }
        let json: Value = serde_json::from_slice(&body).unwrap();
        let events = json.as_array().map_or(1, Vec::len);
        prop_assert!(read.ignored <= events && (read.ignored < events || read.notices.is_empty()));
    }
}

#[test]
fn many_of_the_events_are_notices() {
    let is_notice =
        |Body(body): &Body| notice::read(body).is_ok_and(|read| !read.notices.is_empty());
    let read = share(&events(), is_notice);
    assert!(read >= 100, "{read} of 1000");
}
