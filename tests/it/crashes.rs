//! A life that is cut at every request: the operator is killed, or its connection breaks, before the API server has the
//! request or after it did as it was asked. Whatever k is, all ends well, and no Secret is ever absent, empty, partial or
//! older than it was.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kms_emulator::jiff::SignedDuration;
use kms_emulator::{Managed, Readable};
use kms_secret_operator::api::KmsSecret;
use kube::ResourceExt as _;
use kube::api::ListParams;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::gate::{Asked, Fate, Gate};
use crate::witness::{Data, State, Witness};
use crate::world::{Operator, World, eventually};

/// Lives at once: each waits most of the time.
const AT_ONCE: usize = 8;

/// What happens at the k-th request.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// The operator is killed, and another one started.
    Killed { is_sent: bool },
    /// The connection breaks, once.
    Broken { is_sent: bool },
    /// The API server refuses, once.
    Refused(u16),
}

impl Cut {
    fn fate(self) -> Fate {
        match self {
            Self::Killed { is_sent } => Fate::Silent { is_sent },
            Self::Broken { is_sent: true } => Fate::Unanswered,
            Self::Broken { is_sent: false } => Fate::Lost,
            Self::Refused(code) => Fate::Refused(code),
        }
    }
}

/// Counts the requests of an operator, and cuts the k-th. Those for Leases go by time, so they have no number.
struct Knife {
    at: usize,
    cut: Cut,
    count: AtomicUsize,
    hit: OnceLock<Asked>,
    is_hit: Notify,
}

impl Drop for Knife {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{:?} at request {}: {:?}", self.cut, self.at, self.hit);
        }
    }
}

impl Knife {
    fn gate(self: Arc<Self>) -> Gate {
        Gate::new(move |asked| {
            if asked.is_of_lease() || self.count.fetch_add(1, Ordering::Relaxed) != self.at {
                return Fate::Pass;
            }
            let _ = self.hit.set(asked.clone());
            self.is_hit.notify_one();
            self.cut.fate()
        })
    }

    fn was_hit(&self) -> bool {
        self.hit.get().is_some()
    }
}

/// Everything that a KmsSecret goes through: created, rotated, renamed and given another key, rotated, deleted.
async fn live(world: &World) {
    world.kms.put_generic("app/text", "1");
    world.kms_secret("text", "app/text", json!({})).await;
    world.until_synced("text").await;
    rotate(world, "2").await;
    let spec = json!({
        "target": {"name": "renamed"},
        "data": [{"key": "value"}, {"key": "copy"}],
    });
    world.kms_secret("text", "app/text", spec).await;
    world.until_synced("text").await;
    until_gone(world, "text").await;
    rotate(world, "3").await;
    world.delete::<KmsSecret>("text").await;
    until_gone(world, "renamed").await;
}

async fn rotate(world: &World, text: &str) {
    world.kms.put_generic("app/text", text);
    world.force("text").await;
    world.until_synced("text").await;
}

async fn until_gone(world: &World, name: &str) {
    eventually(&format!("{name} is gone"), async || {
        let found = world.api::<Secret>().get_metadata_opt(name).await.unwrap();
        found.is_none().then_some(())
    })
    .await;
}

/// Keeps an operator running, whatever happens to the first one.
async fn operate(world: &World, knife: &Arc<Knife>) {
    let client = world.cluster.client_behind(&Arc::clone(knife).gate()).await;
    let flags = ["--namespace", world.namespace.as_str()];
    let first = world.start(client, &flags, |_| ()).await;
    knife.is_hit.notified().await;
    if matches!(knife.cut, Cut::Killed { .. }) {
        first.kill();
        // It need not wait until the Lease of the first one has ended.
        let _second = world.rival().await;
        std::future::pending::<()>().await;
    } else {
        let _first = first;
        std::future::pending::<()>().await;
    }
}

/// One life; answers whether it came to the k-th request.
async fn life(at: usize, cut: Cut) -> bool {
    let world = World::new().await;
    let knife = Arc::new(Knife {
        at,
        cut,
        count: AtomicUsize::new(0),
        hit: OnceLock::new(),
        is_hit: Notify::new(),
    });
    let witness = Witness::of(&world).await;
    tokio::select! {
        () = live(&world) => {}
        () = operate(&world, &knife) => unreachable!("it operates for ever"),
    }
    let states = witness.states(&world).await;
    if let Err(wrong) = judge(&states) {
        panic!("{cut:?} at request {at}: {wrong}; the Secrets were {states:#?}");
    }
    knife.was_hit()
}

/// What the Secrets may pass through, in this order, each at most once.
fn judge(states: &[State]) -> Result<(), String> {
    let is = |name: &str, keys: &[&str], value: &str| -> State {
        let data = keys.iter().map(|key| ((*key).to_owned(), value.to_owned()));
        (name.to_owned(), Some(data.collect::<Data>()))
    };
    let course = [
        is("text", &["value"], "1"),
        is("text", &["value"], "2"),
        is("renamed", &["value", "copy"], "2"),
        ("text".to_owned(), None),
        is("renamed", &["value", "copy"], "3"),
        ("renamed".to_owned(), None),
    ];
    let mut seen = states.to_vec();
    // Not every write changes the data.
    seen.dedup();
    if seen == course {
        return Ok(());
    }
    Err(format!("not the course of a life: {course:#?}"))
}

/// Lives one life for every k, until one ends before the k-th request.
async fn at_every_request(cut: Cut) {
    let count = futures::stream::iter(0..)
        .map(|k| async move { life(k, cut).await })
        .buffered(AT_ONCE)
        .take_while(|was_hit| futures::future::ready(*was_hit))
        .count()
        .await;
    assert!(count > 15, "a life takes more than {count} requests");
    eprintln!("{cut:?}: {count} lives");
}

#[tokio::test]
async fn killed_at_any_request_before_it_is_sent() {
    at_every_request(Cut::Killed { is_sent: false }).await;
}

#[tokio::test]
async fn killed_at_any_request_after_it_was_sent() {
    at_every_request(Cut::Killed { is_sent: true }).await;
}

#[tokio::test]
async fn cut_off_at_any_request_before_it_is_sent() {
    at_every_request(Cut::Broken { is_sent: false }).await;
}

#[tokio::test]
async fn cut_off_at_any_request_before_it_is_answered() {
    at_every_request(Cut::Broken { is_sent: true }).await;
}

#[tokio::test]
async fn refused_at_any_request() {
    for code in [409, 410, 429, 500] {
        at_every_request(Cut::Refused(code)).await;
    }
}

#[tokio::test]
async fn what_could_not_be_removed_after_a_rename_is_removed_by_whoever_comes_next() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "hello");
    let gate = Gate::new(|asked| match asked.method.as_str() {
        "DELETE" if asked.path.contains("/secrets/") => Fate::Refused(500),
        _ => Fate::Pass,
    });
    let client = world.cluster.client_behind(&gate).await;
    let flags = ["--namespace", world.namespace.as_str()];
    let first = world.operator_by(client, &flags, |_| ()).await;
    world.kms_secret("text", "app/text", json!({})).await;
    world.until_synced("text").await;
    let spec = json!({"target": {"name": "renamed"}});
    world.kms_secret("text", "app/text", spec).await;
    world.until_synced("text").await;
    eventually("it is told", async || {
        let events = world.events().await;
        let told = |reason: &str| {
            events
                .iter()
                .any(|event| event.reason.as_deref() == Some(reason))
        };
        told("OldTargetLeft").then_some(())
    })
    .await;
    assert!(world.secret("text").await.is_some());
    first.kill();
    let before = world.object("text").await.resource_version();
    let calls = world.kms.count("GetSecretValue");
    let _second = world.rival().await;
    until_gone(&world, "text").await;
    assert_eq!(
        world.kms.count("GetSecretValue"),
        calls,
        "nothing was read for it"
    );
    assert_eq!(world.object("text").await.resource_version(), before);
}

/// Starts a replica that knows the others.
async fn replica(world: &World) -> Operator {
    let flags = ["--namespace", world.namespace.as_str()];
    let client = world.cluster.client().await;
    world.operator_by(client, &flags, |_| ()).await
}

/// The passwords that a secret ever had, oldest first.
fn passwords(world: &World, name: &str) -> Vec<String> {
    let history = world.kms.history(name).into_iter();
    let password = |readable: Readable| -> String {
        let value: Value = serde_json::from_str(&readable.value).unwrap();
        value["AccountPassword"].as_str().unwrap().to_owned()
    };
    history.map(password).collect()
}

#[tokio::test]
async fn either_of_two_replicas_may_die_at_any_moment_of_a_rotation_of_500() {
    const SECRETS: usize = 500;
    const EVERY: Duration = Duration::from_secs(40);
    let world = World::new().await;
    world
        .store(
            "prod",
            "kms-credentials",
            json!({"requestsPerSecond": 10_000}),
        )
        .await;
    let first = world.kms.now() + SignedDuration::from_secs(30);
    let names: Vec<String> = (0..SECRETS).map(|n| format!("db{n}")).collect();
    for name in &names {
        world
            .kms
            .put_managed(name, Managed::rds(EVERY).first(first));
    }
    let spec = || json!({"data": [{"key": "password", "path": "AccountPassword"}]});
    let made = names
        .iter()
        .map(|name| world.kms_secret(name, name, spec()));
    futures::stream::iter(made)
        .buffer_unordered(16)
        .count()
        .await;
    let witness = Witness::of(&world).await;
    let mut replicas = vec![replica(&world).await, replica(&world).await];
    let current = async || -> usize {
        let secrets = world
            .api::<Secret>()
            .list(&ListParams::default())
            .await
            .unwrap();
        let is_current = |secret: &Secret| {
            let password = secret.data.as_ref()?.get("password")?;
            let newest = passwords(&world, &secret.name_any()).pop()?;
            (password.0 == newest.into_bytes()).then_some(())
        };
        secrets.iter().filter_map(is_current).count()
    };
    let until_all = async || {
        eventually("every Secret is current", async || {
            (current().await == SECRETS).then_some(())
        })
        .await;
    };
    until_all().await;
    // When so many Secrets have followed, that one dies.
    for (followed, victim) in [(1, 0), (SECRETS / 2, 1), (SECRETS * 9 / 10, 0)] {
        eventually("they rotate", async || {
            (current().await < SECRETS / 10).then_some(())
        })
        .await;
        eventually("some have followed", async || {
            (current().await >= followed).then_some(())
        })
        .await;
        replicas.remove(victim).kill();
        until_all().await;
        replicas.insert(victim, replica(&world).await);
    }
    let states = witness.states(&world).await;
    let mut last: HashMap<&str, usize> = HashMap::new();
    for (name, data) in states.iter().filter(|(name, _)| name.starts_with("db")) {
        let data = data.as_ref().expect("no Secret is ever absent");
        let keys: Vec<&String> = data.keys().collect();
        assert_eq!(keys, ["password"], "{name}");
        let passwords = passwords(&world, name);
        let index = passwords
            .iter()
            .position(|password| *password == data["password"]);
        let index = index.expect("a password that KMS had");
        let before = last.insert(name, index).unwrap_or(0);
        assert!(before <= index, "{name} went from {before} to {index}");
    }
    assert_eq!(last.len(), SECRETS);
}
