//! What `EventBridge` and `CloudMonitor` tell of KMS secrets, cut down to who, where and what kind.
//!
//! Read liberally: the documents do not agree with each other on every key, and a notice is only a hint. Nothing is kept
//! but names that look like names, so nothing that is kept can harm a log.

use std::borrow::Cow;

use serde_json::Value;

use super::endpoint::is_region;
use super::secret_name::{SecretName, is_account};

/// `EventBridge` takes this many events at once, and hardly delivers more.
const EVENTS_MAX: usize = 100;
/// More than any body of the size that is read can be about.
const NOTICES_MAX: usize = 100;
/// An operation is about one secret; a list of resources may name a few.
const NAMES_MAX: usize = 8;
/// Ids are UUIDs, or not much longer.
const ID_MAX: usize = 128;

/// Operations after which a read can answer something else, as `ActionTrail` spells them.
const OPERATIONS: [&str; 8] = [
    "CreateSecret",
    "DeleteSecret",
    "PutSecretValue",
    "RestoreSecret",
    "RotateSecret",
    "UpdateSecret",
    "UpdateSecretRotationPolicy",
    "UpdateSecretVersionStage",
];

/// Something happened to a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Id of the event, by which the same one is known when it comes again.
    pub event_id: Option<String>,
    /// The region, where it is told.
    pub region: Option<String>,
    /// The account that owns the secret, where it is told.
    pub account: Option<String>,
    /// The secret's name, without region and account.
    pub secret_name: String,
    /// What happened.
    pub kind: Kind,
}

/// What happened to a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A read may answer something else now.
    Changed,
    /// KMS tried to rotate it and could not.
    RotationFailed,
}

/// What a body holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notices {
    /// What it tells of secrets.
    pub notices: Vec<Notice>,
    /// Events that are about something else, or that nobody understands.
    pub ignored: usize,
}

/// The body is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is not JSON")]
pub struct NotJson;

/// Reads the body of a delivery: one event or an array of them.
///
/// # Errors
/// [`NotJson`]. Whatever is JSON and no notice is ignored.
pub fn read(body: &[u8]) -> Result<Notices, NotJson> {
    let body = serde_json::from_slice(body).map_err(|_| NotJson)?;
    let events: &[Value] = match &body {
        Value::Array(events) => events,
        event => std::slice::from_ref(event),
    };
    let mut read = Notices {
        ignored: events.len().saturating_sub(EVENTS_MAX),
        ..Notices::default()
    };
    for event in events.iter().take(EVENTS_MAX) {
        let found = of_event(event);
        if found.is_empty() || read.notices.len() + found.len() > NOTICES_MAX {
            read.ignored += 1;
        } else {
            read.notices.extend(found);
        }
    }
    Ok(read)
}

/// The envelope of `CloudEvents`, as far as it says what the event itself may leave out.
#[derive(Default)]
struct Envelope<'a> {
    id: Option<&'a str>,
    type_: Option<&'a str>,
    region: Option<&'a str>,
    account: Option<&'a str>,
}

/// The notices of one event, bare or in its envelope.
fn of_event(event: &Value) -> Vec<Notice> {
    let (Some(type_), Some(data)) = (text(event, &["type"]), event.get("data")) else {
        return of_bare(event, &Envelope::default());
    };
    if !type_.starts_with("kms:") {
        return Vec::new();
    }
    let envelope = Envelope {
        id: text(event, &["id"]),
        type_: Some(type_),
        region: text(event, &["aliyunregionid"]),
        account: text(event, &["aliyunoriginalaccountid", "aliyunaccountid"]),
    };
    of_bare(&opened(data), &envelope)
}

fn of_bare(event: &Value, envelope: &Envelope<'_>) -> Vec<Notice> {
    // Both services name their product; an event of another one that looks alike is none of ours.
    let product = text(event, &["product", "serviceName"]);
    if product.is_some_and(|product| !product.eq_ignore_ascii_case("kms")) {
        return Vec::new();
    }
    let name = text(event, &["name"]).or(envelope.type_);
    if let Some(kind) = name.and_then(kind_of_system_event) {
        return of_system_event(event, kind, envelope);
    }
    let operation = text(event, &["eventName"]);
    let has_failed = text(event, &["errorCode"]).is_some();
    if !has_failed && operation.is_some_and(|operation| OPERATIONS.contains(&operation)) {
        return of_operation(event, envelope);
    }
    Vec::new()
}

/// The system events of `CloudMonitor`, by their own name and by the type under which `EventBridge` carries them.
fn kind_of_system_event(name: &str) -> Option<Kind> {
    match name {
        "Secret:RotateSecret:Success" | "kms:CloudMonitor:Secret[RotateSecret:Success]" => {
            Some(Kind::Changed)
        }
        "Secret:RotateSecret:Failure" | "kms:CloudMonitor:Secret[RotateSecret:Failure]" => {
            Some(Kind::RotationFailed)
        }
        _ => None,
    }
}

fn of_system_event(event: &Value, kind: Kind, envelope: &Envelope<'_>) -> Vec<Notice> {
    let content = event.get("content").map(opened).unwrap_or_default();
    let resource = text(event, &["resourceId"]).and_then(SecretName::parse);
    let named = text(&content, &["secretName"])
        .or_else(|| text(event, &["secretName"]))
        .and_then(SecretName::parse);
    let Some(secret) = named.or(resource) else {
        return Vec::new();
    };
    let id = text(&content, &["eventId"]).or_else(|| text(event, &["eventId"]));
    let told = SecretName {
        region: secret
            .region
            .or(resource.and_then(|resource| resource.region))
            .or_else(|| text(event, &["regionId"])),
        account: secret
            .account
            .or(resource.and_then(|resource| resource.account)),
        ..secret
    };
    vec![notice(told, kind, id, envelope)]
}

/// An operation that `ActionTrail` recorded. Where it names the secret is not documented for KMS: the request is asked
/// first, since it holds what the caller asked for, then the lists of resources.
fn of_operation(event: &Value, envelope: &Envelope<'_>) -> Vec<Notice> {
    let id = text(event, &["eventId", "requestId"]);
    let region = text(event, &["acsRegion"]);
    let notices = |names: Vec<String>| -> Vec<Notice> {
        names
            .iter()
            .filter_map(|name| SecretName::parse(name.trim()))
            .take(NAMES_MAX)
            .map(|secret| {
                let told = SecretName {
                    region: secret.region.or(region),
                    ..secret
                };
                notice(told, Kind::Changed, id, envelope)
            })
            .collect()
    };
    let places = [in_parameters, in_referenced_resources, in_resource_name];
    places
        .into_iter()
        .map(|place| notices(place(event)))
        .find(|notices| !notices.is_empty())
        .unwrap_or_default()
}

fn in_parameters(event: &Value) -> Vec<String> {
    let places = [
        "requestParameters",
        "requestParameterJson",
        "responseElements",
    ];
    places
        .iter()
        .filter_map(|place| event.get(place))
        .find_map(|parameters| {
            let parameters = opened(parameters);
            text(&parameters, &["SecretName", "secretName"]).map(ToOwned::to_owned)
        })
        .into_iter()
        .collect()
}

/// `{"ACS::KMS::Secret": ["name"]}`
fn in_referenced_resources(event: &Value) -> Vec<String> {
    let resources = event.get("referencedResources").map(opened);
    let resources = resources.as_deref().and_then(Value::as_object);
    resources
        .into_iter()
        .flatten()
        .filter(|(type_, _)| is_type_of_secrets(type_))
        .filter_map(|(_, names)| names.as_array())
        .flatten()
        .filter_map(Value::as_str)
        .map(ToOwned::to_owned)
        .collect()
}

/// `"resourceType": "ACS::KMS::Key;ACS::KMS::Secret", "resourceName": "key;name"`; without types, all of them.
fn in_resource_name(event: &Value) -> Vec<String> {
    let names = text(event, &["resourceName"]).unwrap_or_default();
    let mut types = text(event, &["resourceType"]).map(|types| types.split(';'));
    names
        .split(';')
        .filter(|_| {
            types
                .as_mut()
                .is_none_or(|types| types.next().is_some_and(is_type_of_secrets))
        })
        .map(ToOwned::to_owned)
        .collect()
}

fn is_type_of_secrets(type_: &str) -> bool {
    type_.trim().eq_ignore_ascii_case("ACS::KMS::Secret")
}

fn notice(secret: SecretName<'_>, kind: Kind, id: Option<&str>, envelope: &Envelope<'_>) -> Notice {
    let or_envelope = |told: Option<&str>, envelope: Option<&str>, fits: fn(&str) -> bool| {
        let told = told.filter(|told| fits(told));
        told.or(envelope.filter(|told| fits(told)))
            .map(ToOwned::to_owned)
    };
    Notice {
        event_id: or_envelope(id, envelope.id, is_id),
        region: or_envelope(secret.region, envelope.region, is_region),
        account: or_envelope(secret.account, envelope.account, is_account),
        secret_name: secret.name.to_owned(),
        kind,
    }
}

fn is_id(text: &str) -> bool {
    (1..=ID_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

/// The first of these keys that holds text, without the blanks around it (a sample of the documents has some).
fn text<'a>(value: &'a Value, keys: &[&str]) -> Option<&'a str> {
    let mut texts = keys.iter().filter_map(|key| value.get(key)?.as_str());
    texts.find(|text| !text.trim().is_empty()).map(str::trim)
}

/// A document that stands as it is, or as text.
fn opened(value: &Value) -> Cow<'_, Value> {
    match value {
        Value::String(text) => Cow::Owned(serde_json::from_str(text).unwrap_or_default()),
        value => Cow::Borrowed(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read_json(body: &Value) -> Notices {
        read(body.to_string().as_bytes()).unwrap()
    }

    fn only(body: &Value) -> Notice {
        let read = read_json(body);
        assert_eq!((read.notices.len(), read.ignored), (1, 0), "{body}");
        read.notices.into_iter().next().unwrap()
    }

    fn told(id: &str, region: &str, account: Option<&str>, name: &str, kind: Kind) -> Notice {
        Notice {
            event_id: Some(id.into()),
            region: Some(region.into()),
            account: account.map(Into::into),
            secret_name: name.into(),
            kind,
        }
    }

    fn system_event(name: &str) -> Value {
        json!({
            "product": "KMS", "instanceName": "secretId", "level": "INFO", "name": name,
            "regionId": "cn-hangzhou", "resourceId": " acs:kms:cn-hangzhou:123456789:secret/shop/db",
            "status": "Normal", "ver": "1.0",
            "content": {
                "eventId": "e1", "secretName": "shop/db", "secretType": "Rds", "rotationStatus": "Enabled",
                "RotationEntityArn": "acs:rds:$regionId:$accountId:dbinstance/x",
            },
        })
    }

    fn operation(more: &Value) -> Value {
        let mut event = json!({
            "eventId": "e2", "eventVersion": 1, "eventRW": "Write", "eventType": "ApiCall", "serviceName": "Kms",
            "requestId": "r2", "acsRegion": "cn-beijing", "eventName": "PutSecretValue",
            "userIdentity": {"type": "ram-user", "accountId": "999"},
        });
        let event_fields = event.as_object_mut().unwrap();
        event_fields.extend(more.as_object().unwrap().clone());
        event
    }

    fn envelope(type_: &str, data: &Value) -> Value {
        json!({
            "id": "outer", "source": "acs.kms", "specversion": "1.0", "type": type_, "data": data,
            "aliyunaccountid": "42", "aliyunregionid": "cn-shanghai",
        })
    }

    #[test]
    fn a_system_event_tells_of_a_rotation_or_its_failure() {
        for (name, kind) in [
            ("Secret:RotateSecret:Success", Kind::Changed),
            ("Secret:RotateSecret:Failure", Kind::RotationFailed),
        ] {
            let expected = told("e1", "cn-hangzhou", Some("123456789"), "shop/db", kind);
            assert_eq!(only(&system_event(name)), expected);
            let mut as_text = system_event(name);
            as_text["content"] = as_text["content"].to_string().into();
            assert_eq!(only(&as_text), expected, "content as text");
        }
    }

    #[test]
    fn a_system_event_without_content_is_known_by_its_resource() {
        let mut event = system_event("Secret:RotateSecret:Success");
        event["content"] = json!("not JSON");
        let notice = only(&event);
        assert_eq!(notice.secret_name, "shop/db");
        assert_eq!(notice.event_id, None);
        event["resourceId"] = json!("acs:kms:cn-hangzhou:1234****:secret/db");
        let notice = only(&event);
        assert_eq!((notice.secret_name.as_str(), notice.account), ("db", None));
    }

    #[test]
    fn an_envelope_says_what_the_event_leaves_out_and_no_more() {
        let type_ = "kms:CloudMonitor:Secret[RotateSecret:Failure]";
        let inside = system_event("Secret:RotateSecret:Failure");
        let expected = told(
            "e1",
            "cn-hangzhou",
            Some("123456789"),
            "shop/db",
            Kind::RotationFailed,
        );
        assert_eq!(only(&envelope(type_, &inside)), expected);
        assert_eq!(
            only(&envelope(type_, &inside.to_string().into())),
            expected,
            "data as text"
        );
        assert_eq!(
            only(&envelope(type_, &json!({"secretName": "shop/db"}))),
            told(
                "outer",
                "cn-shanghai",
                Some("42"),
                "shop/db",
                Kind::RotationFailed
            )
        );
    }

    #[test]
    fn an_operation_names_its_secret_in_one_of_several_places() {
        let arn = "acs:kms:cn-hangzhou:123:secret/shop/db";
        let (plain, by_arn) = (
            told("e2", "cn-beijing", None, "shop/db", Kind::Changed),
            told("e2", "cn-hangzhou", Some("123"), "shop/db", Kind::Changed),
        );
        for (place, expected) in [
            (
                json!({"requestParameters": {"SecretName": "shop/db", "SecretData": "hidden"}}),
                &plain,
            ),
            (json!({"requestParameters": {"SecretName": arn}}), &by_arn),
            (
                json!({"requestParameters": "{\"SecretName\": \"shop/db\"}"}),
                &plain,
            ),
            (
                json!({"requestParameterJson": "{\"SecretName\":\"shop/db\",\"SecretData\":\"hidden\"}"}),
                &plain,
            ),
            (
                json!({"requestParameters": {"RegionId": "x"}, "responseElements": {"SecretName": "shop/db"}}),
                &plain,
            ),
            (
                json!({"referencedResources": {"ACS::KMS::Key": ["k"], "ACS::KMS::Secret": ["shop/db"]}}),
                &plain,
            ),
            (
                json!({"referencedResources": {"ACS::KMS::Secret": [arn, 7]}}),
                &by_arn,
            ),
            (
                json!({"resourceType": "ACS::KMS::Key;ACS::KMS::Secret", "resourceName": "k;shop/db"}),
                &plain,
            ),
            (json!({"resourceName": "shop/db"}), &plain),
        ] {
            assert_eq!(&only(&operation(&place)), expected, "{place}");
            let wrapped = envelope("kms:ActionTrail:ApiCall", &operation(&place));
            let mut expected = expected.clone();
            expected.account = expected.account.or(Some("42".into()));
            assert_eq!(only(&wrapped), expected, "{place}");
        }
    }

    #[test]
    fn every_operation_that_can_change_an_answer_counts() {
        let place = json!({"requestParameters": {"SecretName": "db"}});
        for name in OPERATIONS {
            let mut event = operation(&place);
            event["eventName"] = name.into();
            assert_eq!(only(&event).kind, Kind::Changed, "{name}");
        }
    }

    #[test]
    fn what_is_about_something_else_is_ignored() {
        let place = json!({"requestParameters": {"SecretName": "db"}});
        let changed = |key: &str, value: Value| {
            let mut event = operation(&place);
            event[key] = value;
            event
        };
        let mut disk = system_event("Secret:RotateSecret:Success");
        disk["product"] = json!("ECS");
        for body in [
            changed("eventName", json!("GetSecretValue")),
            changed("eventName", json!("CreateKey")),
            changed("serviceName", json!("Ecs")),
            changed("errorCode", json!("Forbidden.NoPermission")),
            operation(&json!({})),
            operation(&json!({"requestParameters": {"SecretName": "no name\n"}})),
            operation(&json!({"referencedResources": {"ACS::KMS::Key": ["k"]}})),
            operation(&json!({"resourceType": "ACS::KMS::Key", "resourceName": "k"})),
            system_event("Instance:StateChange"),
            disk,
            envelope("ecs:ActionTrail:ApiCall", &operation(&place)),
            envelope("kms:Config:NonCompliantNotification", &json!({})),
            json!({}),
            json!(7),
            json!("text"),
            json!(null),
        ] {
            let read = read_json(&body);
            assert_eq!((read.notices.len(), read.ignored), (0, 1), "{body}");
        }
        assert_eq!(read_json(&json!([])), Notices::default());
        assert_eq!(read(b"not JSON"), Err(NotJson));
        assert_eq!(read(b""), Err(NotJson));
    }

    #[test]
    fn a_batch_is_read_event_by_event_and_not_without_end() {
        let event = system_event("Secret:RotateSecret:Success");
        let read = read_json(&json!([event, {}, event]));
        assert_eq!((read.notices.len(), read.ignored), (2, 1));
        let read = read_json(&Value::Array(vec![event; 150]));
        assert_eq!((read.notices.len(), read.ignored), (100, 50));
        let names: Vec<String> = (0..50).map(|n| format!("s{n}")).collect();
        let many = operation(&json!({"referencedResources": {"ACS::KMS::Secret": names}}));
        assert_eq!(read_json(&many).notices.len(), NAMES_MAX);
        let read = read_json(&Value::Array(vec![many; 50]));
        assert!(read.notices.len() <= NOTICES_MAX && read.ignored > 0);
    }

    #[test]
    fn an_id_that_is_none_is_not_kept() {
        let mut event = system_event("Secret:RotateSecret:Success");
        for id in [
            json!("x".repeat(129)),
            json!("a b"),
            json!(""),
            json!(7),
            json!(null),
        ] {
            event["content"]["eventId"] = id;
            assert_eq!(only(&event).event_id, None);
        }
    }
}
