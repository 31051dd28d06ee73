//! Lives of a KmsSecret under each policy, cut at every request: the operator is killed, its connection breaks or it is
//! refused, before the API server has the request or after it did as it was asked. Whatever k is, all ends well, and no
//! Secret is ever absent, empty, partial or older than it was.

use std::collections::HashMap;
use std::fmt;

use futures::future::LocalBoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use kms_secret_operator::api::KmsSecret;
use kube::ResourceExt as _;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::knife::{Cut, Knife};
use crate::rollout::{restart, until_restarted, workload};
use crate::witness::{Data, State, Witness};
use crate::world::{World, a_while, eventually};

/// Lives at once: each waits most of the time.
const AT_ONCE: usize = 12;

/// Name and keys of a Secret; without keys, it went.
type Moment = (
    &'static str,
    Option<&'static [(&'static str, &'static str)]>,
);

/// What a KmsSecret goes through.
#[derive(Clone, Copy)]
struct Life {
    name: &'static str,
    live: for<'a> fn(&'a World) -> LocalBoxFuture<'a, ()>,
    /// What the Secrets pass through meanwhile, in this order, each once.
    course: &'static [Moment],
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The slowest is the first, so that the others pass meanwhile.
const LIVES: [Life; 8] = [
    Life {
        name: "deleted",
        live: |world| deleted(world).boxed_local(),
        course: &[
            ("text", Some(&[("value", "1")])),
            ("text", None),
            ("text", Some(&[("value", "2")])),
        ],
    },
    Life {
        name: "owned",
        live: |world| owned(world).boxed_local(),
        course: &[
            ("text", Some(&[("value", "1")])),
            ("text", Some(&[("value", "2")])),
            ("renamed", Some(&[("copy", "2"), ("value", "2")])),
            ("text", None),
            ("renamed", Some(&[("copy", "3"), ("value", "3")])),
            ("renamed", None),
        ],
    },
    Life {
        name: "orphaned",
        live: |world| orphaned(world).boxed_local(),
        course: &[
            ("text", Some(&[("value", "1")])),
            ("text", Some(&[("value", "2")])),
            ("renamed", Some(&[("value", "2")])),
            ("renamed", Some(&[("value", "3")])),
        ],
    },
    Life {
        name: "given away and taken back",
        live: |world| handed_over(world).boxed_local(),
        course: &[
            ("text", Some(&[("value", "1")])),
            ("text", Some(&[("value", "2")])),
            ("text", None),
        ],
    },
    Life {
        name: "merged",
        live: |world| merged(world).boxed_local(),
        course: &[
            ("app", Some(&[("theirs", "a")])),
            ("other", Some(&[("theirs", "b")])),
            ("app", Some(&[("password", "1"), ("theirs", "a")])),
            ("app", Some(&[("password", "2"), ("theirs", "a")])),
            ("app", Some(&[("theirs", "a"), ("token", "2")])),
            ("app", Some(&[("theirs", "c"), ("token", "2")])),
            ("other", Some(&[("theirs", "b"), ("token", "2")])),
            ("app", Some(&[("theirs", "c")])),
            ("other", Some(&[("theirs", "b"), ("token", "3")])),
        ],
    },
    Life {
        name: "adopted",
        live: |world| adopted(world).boxed_local(),
        course: &[
            ("text", Some(&[("theirs", "a")])),
            // What it held before goes once ours is in it.
            ("text", Some(&[("theirs", "a"), ("value", "1")])),
            ("text", Some(&[("value", "1")])),
            ("text", Some(&[("value", "2")])),
            ("text", None),
        ],
    },
    Life {
        name: "retained",
        live: |world| retained(world).boxed_local(),
        course: &[
            ("text", Some(&[("value", "1")])),
            ("text", Some(&[("value", "2")])),
        ],
    },
    Life {
        name: "restarting",
        live: |world| restarting(world).boxed_local(),
        course: &[
            ("text", Some(&[("value", "1")])),
            ("text", Some(&[("value", "2")])),
        ],
    },
];

/// Its Secret is made, rotated, renamed and given another key, rotated, and goes with it.
async fn owned(world: &World) {
    begin(world, json!({})).await;
    rotate(world, "2").await;
    let spec = json!({"target": {"name": "renamed"}, "data": [{"key": "value"}, {"key": "copy"}]});
    ask(world, spec).await;
    until_gone(world, "text").await;
    rotate(world, "3").await;
    world.delete::<KmsSecret>("text").await;
    until_gone(world, "renamed").await;
}

/// Its Secrets stay: after a rename, and when it goes; then another one of its name takes it up.
async fn orphaned(world: &World) {
    let orphan = |name: &str| json!({"target": {"name": name, "creationPolicy": "Orphan"}});
    begin(world, orphan("text")).await;
    rotate(world, "2").await;
    ask(world, orphan("renamed")).await;
    until(world, "text", "has no marks of ours", |secret| {
        secret.labels().is_empty() && secret.annotations().is_empty()
    })
    .await;
    delete(world).await;
    ask(world, orphan("renamed")).await;
    rotate(world, "3").await;
}

/// Its Secret loses its owner and gets it back.
async fn handed_over(world: &World) {
    begin(world, json!({})).await;
    ask(world, json!({"target": {"creationPolicy": "Orphan"}})).await;
    until(world, "text", "has no owner", |secret| {
        secret.owner_references().is_empty()
    })
    .await;
    rotate(world, "2").await;
    ask(world, json!({"target": {"creationPolicy": "Owner"}})).await;
    until(world, "text", "has an owner", |secret| {
        secret.owner_references().len() == 1
    })
    .await;
    world.delete::<KmsSecret>("text").await;
    until_gone(world, "text").await;
}

/// Its keys come and go in Secrets of somebody's, who writes keys of their own meanwhile.
async fn merged(world: &World) {
    let merge = |name: &str, key: &str| json!({"target": {"name": name, "creationPolicy": "Merge"}, "data": [{"key": key}]});
    somebodys(world, "app", "a").await;
    somebodys(world, "other", "b").await;
    begin(world, merge("app", "password")).await;
    rotate(world, "2").await;
    ask(world, merge("app", "token")).await;
    somebodys(world, "app", "c").await;
    ask(world, merge("other", "token")).await;
    until(world, "app", "has no marks of ours", |secret| {
        secret.labels().is_empty() && secret.annotations().len() == 1
    })
    .await;
    rotate(world, "3").await;
    delete(world).await;
    // Long enough for whoever would take the keys with it.
    ask(world, merge("other", "token")).await;
}

/// Its Secret was somebody's, who consented.
async fn adopted(world: &World) {
    somebodys(world, "text", "a").await;
    begin(world, json!({"target": {"adopt": "IfUnowned"}})).await;
    rotate(world, "2").await;
    world.delete::<KmsSecret>("text").await;
    until_gone(world, "text").await;
}

/// Its secret goes from KMS and comes back, and the Secret stays.
async fn retained(world: &World) {
    begin(world, json!({})).await;
    assert!(world.kms.delete("app/text"));
    world.force("text").await;
    world.until_ready("text", "False", "SecretNotFound").await;
    rotate(world, "2").await;
}

/// Its secret goes from KMS and comes back, and the Secret with it.
async fn deleted(world: &World) {
    begin(world, json!({"target": {"deletionPolicy": "Delete"}})).await;
    assert!(world.kms.delete("app/text"));
    // Three times for each who is to believe it.
    for _ in 0..6 {
        if world.secret("text").await.is_none() {
            break;
        }
        let reads = world.kms.count("GetSecretValue");
        world.force("text").await;
        eventually("KMS is asked again", async || {
            (world.kms.count("GetSecretValue") > reads).then_some(())
        })
        .await;
        a_while().await;
    }
    until_gone(world, "text").await;
    rotate(world, "2").await;
}

/// A Deployment that uses its Secret is restarted, once.
async fn restarting(world: &World) {
    world.apply::<Deployment>("app", workload()).await;
    begin(world, restart(&["app"])).await;
    rotate(world, "2").await;
    until_restarted(world).await;
    rotate(world, "2").await;
    let deployment = world.api::<Deployment>().get("app").await.unwrap();
    assert_eq!(deployment.metadata.generation, Some(2), "restarted once");
}

async fn begin(world: &World, spec: Value) {
    world.kms.put_generic("app/text", "1");
    ask(world, spec).await;
}

async fn ask(world: &World, spec: Value) {
    world.kms_secret("text", "app/text", spec).await;
    world.until_synced("text").await;
}

async fn rotate(world: &World, text: &str) {
    world.kms.put_generic("app/text", text);
    world.force("text").await;
    world.until_synced("text").await;
}

async fn delete(world: &World) {
    world.delete::<KmsSecret>("text").await;
    eventually("the KmsSecret is gone", async || {
        let found = world.api::<KmsSecret>().get_opt("text").await.unwrap();
        found.is_none().then_some(())
    })
    .await;
}

/// A Secret of somebody's that lets the KmsSecret in.
async fn somebodys(world: &World, name: &str, value: &str) {
    let annotations = json!({"alikms.dev/allow": "text"});
    let data = json!({"theirs": k8s_openapi::ByteString(value.into())});
    let manifest = json!({"metadata": {"annotations": annotations}, "data": data});
    world.apply::<Secret>(name, manifest).await;
}

async fn until(world: &World, name: &str, what: &str, is: impl Fn(&Secret) -> bool) {
    eventually(&format!("{name} {what}"), async || {
        world.secret(name).await.filter(|secret| is(secret))
    })
    .await;
}

async fn until_gone(world: &World, name: &str) {
    eventually(&format!("{name} is gone"), async || {
        world.secret(name).await.is_none().then_some(())
    })
    .await;
}

impl Life {
    /// Lives it once; answers whether it came to the k-th request.
    async fn once(self, at: usize, cut: Cut) -> bool {
        let world = World::new().await;
        let knife = Knife::new(at, cut);
        let witness = Witness::of(&world).await;
        tokio::select! {
            () = (self.live)(&world) => {}
            () = knife.operate(&world) => unreachable!("it operates for ever"),
        }
        let seen = course(witness.states(&world).await);
        let expected: Vec<State> = self.course.iter().map(state).collect();
        assert!(
            seen == expected,
            "{self:?}, {cut:?} at request {at}: the Secrets were {seen:#?}, not {expected:#?}"
        );
        knife.was_hit()
    }

    /// Lives it for every k, until it ends before the k-th request.
    async fn at_every_request(self, cut: Cut, room: &Semaphore) {
        let count = futures::stream::iter(0..)
            .map(|k| async move {
                let _place = room.acquire().await;
                self.once(k, cut).await
            })
            .buffered(AT_ONCE)
            .take_while(|was_hit| futures::future::ready(*was_hit))
            .count()
            .await;
        assert!(count >= 5, "{self:?} takes more than {count} requests");
        eprintln!("{self:?}, {cut:?}: {count} lives");
    }
}

fn state((name, keys): &Moment) -> State {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    let data = keys.map(|keys| keys.iter().map(owned).collect::<Data>());
    ((*name).to_owned(), data)
}

/// The states without those that are no other than the last of the same Secret: not every write changes the data.
fn course(states: Vec<State>) -> Vec<State> {
    let mut last: HashMap<String, Option<Data>> = HashMap::new();
    let is_new = |(name, data): &State| {
        let before = last.insert(name.clone(), data.clone());
        before.as_ref() != Some(data)
    };
    states.into_iter().filter(is_new).collect()
}

async fn every_life(cut: Cut) {
    let room = Semaphore::new(AT_ONCE);
    futures::future::join_all(LIVES.map(|life| life.at_every_request(cut, &room))).await;
}

#[tokio::test]
async fn every_life_may_be_cut_by_a_kill_at_any_request_that_was_sent() {
    every_life(Cut::Killed { is_sent: true }).await;
}

#[tokio::test]
async fn every_life_may_be_refused_at_any_request() {
    every_life(Cut::Refused(409)).await;
}

/// `make soak`.
#[tokio::test]
#[ignore = "takes minutes: make soak"]
async fn soak_by_every_cut_at_every_request_of_every_life() {
    for cut in Cut::ALL {
        every_life(cut).await;
    }
}
