//! Every malformed answer at each call that a KmsSecret needs: it passes by itself, and the Secret goes from the old value
//! to the new one, whole.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kms_emulator::{Effect, Emulator, Fault, MetadataMode, Options, Role};
use kms_secret_operator::alibaba::client::Client;
use kms_secret_operator::alibaba::metadata::Metadata;
use secrecy::ExposeSecret as _;
use serde_json::json;

use crate::credentials::{SECOND, federate, rrsa, store};
use crate::witness::{Data, Witness};
use crate::world::World;

/// What a read takes, from the ServiceAccount's token to the value.
const CALLS: [&str; 4] = [
    "AssumeRoleWithOIDC",
    "AssumeRole",
    "BatchGetSecretValue",
    "GetSecretValue",
];

/// What the credentials of an instance take.
const METADATA_CALLS: [&str; 3] = ["MetadataToken", "MetadataRole", "MetadataCredentials"];

fn effects() -> Vec<(&'static str, Fault)> {
    let raw = |status, body: &str| {
        Fault::new(Effect::Raw {
            status,
            headers: Vec::new(),
            body: body.to_owned(),
        })
    };
    vec![
        ("500", Fault::code("InternalFailure")),
        ("503", Fault::code("ServiceUnavailableTemporary")),
        ("throttled", Fault::code("Throttling.User")),
        ("xml", Fault::code("InternalFailure").as_xml()),
        ("reset", Fault::new(Effect::Reset)),
        ("truncated", Fault::new(Effect::Truncated)),
        ("no HTTP", Fault::new(Effect::Garbage)),
        ("no JSON", Fault::new(Effect::GarbageBody)),
        ("proxy", Fault::new(Effect::BadGateway)),
        ("empty", Fault::new(Effect::Empty)),
        ("huge", Fault::new(Effect::Huge { bytes: 64 << 20 })),
        (
            "dripping",
            Fault::new(Effect::Drip {
                bytes: 40,
                seconds: Duration::from_millis(20),
            }),
        ),
        ("no object", raw(200, "[]")),
        ("no fields", raw(200, "{}")),
        ("null", raw(200, "null")),
        ("deep", raw(200, &"[".repeat(100_000))),
        ("no code", raw(500, "{}")),
        ("teapot", raw(503, "I'm a teapot")),
    ]
}

/// Answers that never end.
fn slow() -> [(&'static str, Fault); 2] {
    let drip = Effect::Drip {
        bytes: 1,
        seconds: Duration::from_secs(1),
    };
    [
        ("silence", Fault::new(Effect::Hang)),
        ("a byte a second", Fault::new(drip)),
    ]
}

/// Two secrets that are read by a role behind a role, where each of these calls goes wrong a first time.
async fn suffer(name: &str, fault: Fault, calls: &[&str]) {
    let world = World::new().await;
    federate(&world).await;
    let role = "acs:ram::1234567890123456:role/shop";
    world.kms.put_role(Role::new(SECOND).trusting(role));
    let hop = json!({"assumeRole": [{"roleArn": SECOND}]});
    store(&world, "hop", rrsa("orders"), hop).await;
    let objects = ["one", "two"];
    let put = |value: &str| {
        for object in objects {
            world.kms.put_generic(object, &format!("{object} {value}"));
        }
    };
    let hit = || {
        for call in calls {
            world.kms.fault(fault.clone().on_action(call).times(1));
        }
    };
    let current = async |value: &str| {
        for object in objects {
            let text = format!("{object} {value}");
            world.until_text(object, "value", &text).await;
        }
    };
    put("old");
    hit();
    let witness = Witness::of(&world).await;
    let _operator = world.operator().await;
    for object in objects {
        let spec = json!({"storeRef": {"name": "hop"}, "refresh": {"interval": "2s"}});
        world.kms_secret(object, object, spec).await;
    }
    current("old").await;
    put("new");
    hit();
    current("new").await;
    let mut states = witness.states(&world).await;
    states.dedup();
    for object in objects {
        let seen = states.iter().filter(|(of, _)| of == object);
        let seen: Vec<_> = seen.map(|(_, data)| data.clone()).collect();
        let course = ["old", "new"].map(|value| {
            let text = format!("{object} {value}");
            Some(Data::from([("value".to_owned(), text)]))
        });
        assert_eq!(seen, course, "{name}");
    }
}

#[tokio::test]
async fn any_answer_that_makes_no_sense_passes_at_any_call() {
    let suffering = effects().into_iter();
    let suffering = suffering.map(async |(name, fault)| suffer(name, fault, &CALLS).await);
    futures::future::join_all(suffering).await;
}

#[tokio::test]
async fn an_answer_that_never_ends_passes_at_any_call() {
    // One call at a time: each takes its whole deadline.
    let cases = CALLS
        .iter()
        .flat_map(|call| slow().map(|(name, fault)| (name, fault, call)));
    let suffering = cases.map(async |(name, fault, call)| {
        suffer(&format!("{name} at {call}"), fault, &[call]).await;
    });
    futures::future::join_all(suffering).await;
}

/// The metadata service gives one answer that makes no sense: that is an error, or made up for, and the next time it is asked
/// it is believed again.
async fn confuse(kms: &Emulator, metadata: &Metadata, case: &(&str, Fault), call: &str) {
    let (name, fault) = case;
    kms.fault(fault.clone().on_action(call).times(1));
    let confused = metadata.session(None).await;
    let session = metadata.session(None).await;
    let session = session.unwrap_or_else(|err| panic!("{name} at {call} is not over: {err}"));
    let id = session.key.id.expose_secret();
    match confused {
        Ok(early) => assert_eq!(early.key.id.expose_secret(), id, "{name} at {call}"),
        Err(err) => {
            let words = err.to_string();
            let is_fit = words.len() < 300 && !words.contains(id);
            assert!(is_fit, "{name} at {call}: {words}");
        }
    }
}

#[tokio::test]
async fn an_instance_gets_its_credentials_whatever_its_metadata_service_answered_before() {
    let kms = Emulator::start(Options::default()).await.unwrap();
    kms.set_instance_role(Some("worker"));
    kms.set_metadata_mode(MetadataMode::V2Only);
    let client = Arc::new(Client::new(|| Timestamp::UNIX_EPOCH, |_| ()).unwrap());
    let metadata = Metadata::new(client, kms.origin().parse().unwrap()).unwrap();
    // One at a time: the service has two seconds for an answer, whatever else the machine does.
    for case in effects().into_iter().chain(slow()) {
        for call in METADATA_CALLS {
            confuse(&kms, &metadata, &case, call).await;
        }
    }
}
