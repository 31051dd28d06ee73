//! What becomes of a Secret at each moment, under each policy: every cell of the table in docs/targets.md is played, and
//! what it says is looked for.

use futures::future::join_all;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kms_emulator::jiff::SignedDuration;
use kms_secret_operator::api::{KmsSecret, KmsStore};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use crate::docs::read;
use crate::world::{Operator, World, a_while, eventually};

/// The columns of the table.
const POLICIES: [&str; 3] = ["Owner", "Orphan", "Merge"];
/// What KMS holds, and the key `password` is to hold.
const VALUE: &str = "one";

/// The rows of the table: a moment, and what it says for each policy.
fn table() -> Vec<(String, Vec<String>)> {
    let page = read("docs/targets.md");
    let (_, part) = page.split_once("## What happens when").unwrap();
    let lines = part.lines().skip_while(|line| !line.starts_with('|'));
    let lines: Vec<_> = lines.take_while(|line| line.starts_with('|')).collect();
    let header = format!("| moment | {} |", POLICIES.join(" | "));
    assert_eq!(lines[0], header);
    let cells = |line: &str| -> Vec<String> {
        let cells = line.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().to_owned()).collect()
    };
    let rows = lines[2..].iter().map(|line| cells(line));
    rows.map(|cells| (cells[0].clone(), cells[1..].to_vec()))
        .collect()
}

/// One cell: a policy, in a namespace of its own with an operator.
struct Stage {
    world: World,
    operator: Option<Operator>,
    policy: &'static str,
    /// The Secret before it happens.
    before: Option<Secret>,
    /// The API server refused the KmsSecret.
    is_refused: bool,
    /// The key that it is about.
    key: &'static str,
}

impl Stage {
    async fn new(world: World, policy: &'static str) -> Self {
        world.kms.put_generic("app/text", VALUE);
        let client = world.cluster.client().await;
        let flags = ["--namespace", world.namespace.as_str()];
        let hasty = |run: &mut kms_secret_operator::config::Run| {
            run.gone_after = SignedDuration::from_secs(1);
        };
        let operator = world.operator_by(client, &flags, hasty).await;
        Self {
            world,
            operator: Some(operator),
            policy,
            before: None,
            is_refused: false,
            key: "user",
        }
    }

    /// Applies the KmsSecret `text`, which keeps `password` and `user` in the Secret `app`.
    async fn ask(&mut self, target: Value) {
        let data = json!([{"key": "password"}, {"key": "user", "template": "u"}]);
        self.ask_for(target, data).await;
    }

    async fn ask_for(&mut self, target: Value, data: Value) {
        let mut whole = json!({"name": "app", "creationPolicy": self.policy});
        whole
            .as_object_mut()
            .unwrap()
            .extend(target.as_object().unwrap().clone());
        let source = json!({"secretName": "app/text"});
        let spec =
            json!({"storeRef": {"name": "prod"}, "source": source, "data": data, "target": whole});
        let manifest = json!({"apiVersion": "alikms.dev/v1alpha1", "kind": "KmsSecret", "metadata": {"name": "text"}, "spec": spec});
        let (api, params) = (
            self.world.api::<KmsSecret>(),
            PatchParams::apply("user").force(),
        );
        match api.patch("text", &params, &Patch::Apply(&manifest)).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_invalid() => self.is_refused = true,
            Err(err) => panic!("{err}"),
        }
    }

    /// A Secret of somebody's.
    async fn somebodys(&mut self, name: &str, annotations: Value) {
        let manifest =
            json!({"metadata": {"annotations": annotations}, "data": {"theirs": "eA=="}});
        self.world.apply::<Secret>(name, manifest).await;
        self.note().await;
    }

    /// Remembers the Secret as it is.
    async fn note(&mut self) {
        self.before = self.world.secret("app").await;
    }

    /// All is as it should be, before something happens.
    async fn begin(&mut self) {
        if self.policy == "Merge" {
            self.somebodys("app", consent()).await;
        }
        self.ask(json!({})).await;
        self.world.until_synced("text").await;
        self.note().await;
    }

    /// Another policy is asked for.
    async fn turn(&mut self, policy: &str) {
        self.ask(json!({"creationPolicy": policy})).await;
    }

    async fn delete(&mut self, params: &DeleteParams) {
        let api = self.world.api::<KmsSecret>();
        api.delete("text", params).await.unwrap();
        eventually("the KmsSecret is gone", async || {
            api.get_opt("text").await.unwrap().is_none().then_some(())
        })
        .await;
    }

    /// The secret goes from KMS, and KMS says so as often as it takes to believe it.
    async fn lose(&mut self) {
        assert!(self.world.kms.delete("app/text"));
        for _ in 0..3 {
            let calls = self.world.kms.count("GetSecretValue");
            self.world.force("text").await;
            eventually("KMS was asked again", async || {
                (self.world.kms.count("GetSecretValue") > calls).then_some(())
            })
            .await;
            a_while().await;
        }
    }

    /// Waits until the Secret `app` is as it should be.
    async fn until(&self, what: &str, is: impl Fn(&Secret) -> bool) {
        let what = format!("{}: {what}", self.policy);
        eventually(&what, async || {
            self.world.secret("app").await.filter(|secret| is(secret))
        })
        .await;
    }

    async fn until_gone(&self) {
        eventually(
            &format!("{}: the Secret is gone", self.policy),
            async || self.world.secret("app").await.is_none().then_some(()),
        )
        .await;
    }

    fn is_same(&self, secret: &Secret) -> bool {
        secret.uid() == self.before.as_ref().and_then(kube::ResourceExt::uid)
    }

    /// The uids of the Secret's owners are that of the KmsSecret, or none.
    async fn owners(&self, is_owned: bool) -> Vec<String> {
        let uid = self.world.object("text").await.uid();
        uid.into_iter().filter(|_| is_owned).collect()
    }

    /// Looks for what a cell says.
    #[expect(clippy::too_many_lines, reason = "what each word of the table means")]
    async fn expect(&self, said: &str) {
        let policy = self.policy;
        assert_eq!(
            self.is_refused,
            said == "the spec is refused",
            "{policy}: {said}"
        );
        match said {
            "the spec is refused" => {}
            "made, with an owner" | "made, without an owner" => {
                let owners = self.owners(said == "made, with an owner").await;
                self.until(said, |secret| {
                    !self.is_same(secret) && has_all(secret) && owners_of(secret) == owners
                })
                .await;
            }
            "taken over, with an owner" | "taken over, without an owner" => {
                let owners = self.owners(said == "taken over, with an owner").await;
                self.until(said, |secret| {
                    self.is_same(secret)
                        && has_all(secret)
                        && keys_of(secret) == ["password", "user"]
                        && owners_of(secret) == owners
                })
                .await;
            }
            "gets an owner" | "loses its owner" => {
                let owners = self.owners(said == "gets an owner").await;
                self.until(said, |secret| {
                    self.is_same(secret) && has_all(secret) && owners_of(secret) == owners
                })
                .await;
            }
            "gets our keys" => {
                self.until(said, |secret| {
                    self.is_same(secret)
                        && has_all(secret)
                        && keys_of(secret) == ["password", "theirs", "user"]
                        && owners_of(secret).is_empty()
                })
                .await;
            }
            "is somebody's from then on, with our keys" => {
                self.world.until_synced("text").await;
                self.until(said, |secret| {
                    let mark = secret.annotations().get("alikms.dev/kmssecret");
                    self.is_same(secret)
                        && has_all(secret)
                        && owners_of(secret).is_empty()
                        && mark.is_none()
                })
                .await;
            }
            "waited for (`TargetNotFound`)" => {
                self.world
                    .until_ready("text", "False", "TargetNotFound")
                    .await;
                assert!(self.world.secret("app").await.is_none(), "{policy}");
            }
            "refused (`TargetOwnedByOther`)" => {
                self.world
                    .until_ready("text", "False", "TargetOwnedByOther")
                    .await;
                let version = |secret: &Option<Secret>| secret.as_ref()?.resource_version();
                let now = self.world.secret("app").await;
                assert_eq!(version(&now), version(&self.before), "{policy}");
            }
            "loses that key" => {
                self.until(said, |secret| {
                    self.is_same(secret)
                        && text(secret, "password").as_deref() == Some(VALUE)
                        && text(secret, self.key).is_none()
                })
                .await;
            }
            "keeps that key" => {
                a_while().await;
                let secret = self.world.secret("app").await.unwrap();
                assert!(
                    has_all(&secret) && text(&secret, self.key).is_some(),
                    "{policy}"
                );
            }
            "repaired" => {
                self.until(said, |secret| {
                    self.is_same(secret) && has_all(secret) && is_marked(secret)
                })
                .await;
            }
            "the old one is deleted" => {
                self.world.until_text("new", "password", VALUE).await;
                self.until_gone().await;
            }
            "the old one stays without our marks" => {
                self.world.until_text("new", "password", VALUE).await;
                self.until(said, |secret| {
                    self.is_same(secret)
                        && has_all(secret)
                        && !is_marked(secret)
                        && secret.annotations().is_empty()
                })
                .await;
            }
            "the old one stays without our keys" => {
                self.world.until_text("new", "password", VALUE).await;
                self.until(said, |secret| {
                    let ours = secret
                        .annotations()
                        .keys()
                        .any(|key| key.contains("merged"));
                    self.is_same(secret)
                        && keys_of(secret) == ["theirs"]
                        && !is_marked(secret)
                        && !ours
                })
                .await;
            }
            "stays" => {
                a_while().await;
                let secret = self.world.secret("app").await.unwrap();
                assert!(self.is_same(&secret) && has_all(&secret), "{policy}");
            }
            "stays as they left it" => {
                a_while().await;
                let secret = self.world.secret("app").await.unwrap();
                assert_eq!(
                    text(&secret, "password").as_deref(),
                    Some("wrong"),
                    "{policy}"
                );
            }
            "collected by Kubernetes" => {
                self.until_gone().await;
                a_while().await;
                assert!(
                    self.world.secret("app").await.is_none(),
                    "{policy}: it came back"
                );
            }
            "deleted" => {
                self.until_gone().await;
                self.world
                    .until_ready("text", "False", "SecretNotFound")
                    .await;
            }
            other => panic!("docs/targets.md says {other:?}, which nobody looks for"),
        }
    }
}

fn consent() -> Value {
    json!({"alikms.dev/allow": "text"})
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    let bytes = secret.data.as_ref()?.get(key)?;
    Some(String::from_utf8_lossy(&bytes.0).into_owned())
}

fn keys_of(secret: &Secret) -> Vec<&str> {
    let data = secret.data.iter().flatten();
    data.map(|(key, _)| key.as_str()).collect()
}

/// Both keys are there, and right.
fn has_all(secret: &Secret) -> bool {
    text(secret, "password").as_deref() == Some(VALUE)
        && text(secret, "user").as_deref() == Some("u")
}

fn owners_of(secret: &Secret) -> Vec<String> {
    let owners = secret.owner_references().iter();
    owners.map(|owner| owner.uid.clone()).collect()
}

fn is_marked(secret: &Secret) -> bool {
    secret
        .labels()
        .get("alikms.dev/managed")
        .map(String::as_str)
        == Some("true")
}

/// Plays a row: every policy begins, then it happens, then what the cells say is looked for.
async fn play(
    moment: &str,
    world: impl AsyncFn() -> World,
    begin: impl AsyncFn(&mut Stage),
    happen: impl AsyncFn(&mut Stage),
) {
    let mut rows = table().into_iter();
    let (_, cells) = rows
        .find(|(row, _)| row == moment)
        .unwrap_or_else(|| panic!("docs/targets.md has no row {moment:?}"));
    let cells = POLICIES.into_iter().zip(cells);
    let cells: Vec<_> = cells.filter(|(_, said)| !said.is_empty()).collect();
    let mut stages = join_all(cells.iter().map(|(policy, _)| {
        let world = world();
        async move { Stage::new(world.await, policy).await }
    }))
    .await;
    join_all(stages.iter_mut().map(|stage| begin(stage))).await;
    join_all(stages.iter_mut().map(|stage| happen(stage))).await;
    let ends = stages
        .iter()
        .zip(&cells)
        .map(|(stage, (_, said))| stage.expect(said));
    join_all(ends).await;
}

/// A test for each row: its name, what the table calls it, and what happens.
macro_rules! moments {
    ($($test:ident: $moment:literal, $begin:expr, $happen:expr;)*) => {
        /// What is played below.
        const PLAYED: &[&str] = &[$($moment),*];

        $(#[tokio::test]
        async fn $test() {
            play($moment, World::new, $begin, $happen).await;
        })*
    };
}

const DEFINITION_GOES: &str = "the CustomResourceDefinition is deleted";

#[test]
fn every_row_of_the_table_is_played() {
    let rows: Vec<_> = table().into_iter().map(|(moment, _)| moment).collect();
    assert_eq!(rows, [PLAYED, &[DEFINITION_GOES]].concat());
}

#[tokio::test]
async fn the_definition_goes() {
    // Nobody else can do without it.
    let first = World::alone().await;
    let happen = async |stage: &mut Stage| {
        let definitions = Api::<CustomResourceDefinition>::all(stage.world.client.clone());
        let deleted = definitions
            .delete("kmssecrets.alikms.dev", &DeleteParams::default())
            .await;
        assert!(deleted.is_ok() || stage.policy != "Owner");
        eventually("the definition is gone", async || {
            let found = definitions.get_opt("kmssecrets.alikms.dev").await.unwrap();
            found.is_none().then_some(())
        })
        .await;
    };
    play(
        DEFINITION_GOES,
        async || first.beside().await,
        Stage::begin,
        happen,
    )
    .await;
}

moments! {
    no_secret_is_there: "the KmsSecret is created, and no Secret is there",
        async |_| {},
        async |stage: &mut Stage| stage.ask(json!({})).await;
    a_secret_is_there: "a Secret is there that is not its own",
        async |stage: &mut Stage| stage.somebodys("app", json!({})).await,
        async |stage: &mut Stage| stage.ask(json!({})).await;
    a_secret_is_there_that_consents: "a Secret is there that consents",
        async |stage: &mut Stage| stage.somebodys("app", consent()).await,
        async |stage: &mut Stage| stage.ask(json!({})).await;
    a_secret_is_there_that_consents_and_is_adopted: "a Secret is there that consents, and `adopt` is `IfUnowned`",
        async |stage: &mut Stage| stage.somebodys("app", consent()).await,
        async |stage: &mut Stage| stage.ask(json!({"adopt": "IfUnowned"})).await;
    a_predecessors_secret_is_there: "the Secret of a KmsSecret of the same name is there, which is gone",
        async |stage: &mut Stage| {
            stage.world.kms.put_generic("app/text", "old");
            stage.begin().await;
            stage.delete(&DeleteParams::orphan()).await;
            stage.world.kms.put_generic("app/text", VALUE);
        },
        async |stage: &mut Stage| stage.ask(json!({})).await;
    a_key_leaves_the_spec: "a key leaves the spec",
        Stage::begin,
        async |stage: &mut Stage| stage.ask_for(json!({}), json!([{"key": "password"}])).await;
    a_value_is_changed: "somebody changes a value of ours",
        Stage::begin,
        async |stage: &mut Stage| edit(stage, json!({"stringData": {"password": "wrong"}})).await;
    a_key_is_added: "somebody adds a key",
        Stage::begin,
        async |stage: &mut Stage| {
            stage.key = "planted";
            edit(stage, json!({"stringData": {"planted": "x"}})).await;
        };
    the_label_is_removed: "somebody removes our label",
        Stage::begin,
        async |stage: &mut Stage| edit(stage, json!({"metadata": {"labels": {"alikms.dev/managed": null}}})).await;
    the_secret_is_deleted: "somebody deletes the Secret",
        Stage::begin,
        async |stage: &mut Stage| stage.world.delete::<Secret>("app").await;
    the_target_is_renamed: "`target.name` changes",
        Stage::begin,
        async |stage: &mut Stage| {
            if stage.policy == "Merge" {
                stage.somebodys("new", consent()).await;
            }
            stage.ask(json!({"name": "new"})).await;
        };
    the_policy_becomes_owner: "`creationPolicy` becomes `Owner`",
        Stage::begin,
        async |stage: &mut Stage| stage.turn("Owner").await;
    the_policy_becomes_orphan: "`creationPolicy` becomes `Orphan`",
        Stage::begin,
        async |stage: &mut Stage| stage.turn("Orphan").await;
    the_policy_becomes_merge: "`creationPolicy` becomes `Merge`",
        Stage::begin,
        async |stage: &mut Stage| stage.turn("Merge").await;
    the_policy_becomes_merge_with_consent: "`creationPolicy` becomes `Merge`, and the Secret consents",
        async |stage: &mut Stage| {
            stage.begin().await;
            edit(stage, json!({"metadata": {"annotations": consent()}})).await;
        },
        async |stage: &mut Stage| stage.turn("Merge").await;
    the_kms_secret_is_deleted: "the KmsSecret is deleted",
        Stage::begin,
        async |stage: &mut Stage| stage.delete(&DeleteParams::background()).await;
    it_is_suspended: "the KmsSecret is suspended, and somebody changes a value of ours",
        Stage::begin,
        async |stage: &mut Stage| {
            stage.world.patch::<KmsSecret>("text", json!({"spec": {"suspend": true}})).await;
            stage.world.until_ready("text", "True", "Suspended").await;
            edit(stage, json!({"stringData": {"password": "wrong"}})).await;
        };
    the_store_is_deleted: "the store is deleted",
        Stage::begin,
        async |stage: &mut Stage| {
            stage.world.delete::<KmsStore>("prod").await;
            stage.world.until_ready("text", "False", "StoreNotFound").await;
        };
    the_secret_goes_from_kms: "the secret is deleted in KMS",
        Stage::begin,
        Stage::lose;
    the_secret_goes_from_kms_for_good: "the secret is deleted in KMS, and `deletionPolicy` is `Delete`",
        async |stage: &mut Stage| {
            stage.begin().await;
            stage.ask(json!({"deletionPolicy": "Delete"})).await;
            stage.world.until_synced("text").await;
        },
        async |stage: &mut Stage| {
            if !stage.is_refused {
                stage.lose().await;
            }
        };
    the_operator_goes: "the operator is stopped or removed",
        Stage::begin,
        async |stage: &mut Stage| {
            if let Some(operator) = stage.operator.take() {
                operator.stop().await;
            }
        };
}

async fn edit(stage: &mut Stage, patch: Value) {
    stage.world.patch::<Secret>("app", patch).await;
}
