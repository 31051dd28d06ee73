//! What a test needs: a namespace, a KMS, a store, and operators to start and stop.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Parser as _;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::rbac::v1::{ClusterRole, Role, RoleBinding};
use kms_emulator::{Emulator, Options};
use kms_secret_operator::Listeners;
use kms_secret_operator::api::{KmsSecret, KmsStore};
use kms_secret_operator::config::{Cli, Command, Run};
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::cluster::{Cluster, cluster};

/// The access key that every world's KMS knows.
pub(crate) const KEY_ID: &str = "LTAItest";
pub(crate) const KEY_SECRET: &str = "key-secret-of-the-test";
/// Nothing that is waited for takes longer, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);

static COUNT: AtomicUsize = AtomicUsize::new(0);

pub(crate) struct World {
    pub(crate) namespace: String,
    pub(crate) client: Client,
    pub(crate) kms: Emulator,
    pub(crate) cluster: Arc<Cluster>,
}

impl World {
    /// A namespace with credentials and the store `prod`, whose KMS is an emulator of this world's own.
    pub(crate) async fn new() -> Self {
        Self::on(Arc::clone(cluster().await)).await
    }

    /// A world with an operator and the KmsSecret `text`, whose Secret holds this text of KMS's `app/text`.
    pub(crate) async fn synced(text: &str) -> (Self, Operator) {
        let world = Self::new().await;
        world.kms.put_generic("app/text", text);
        let operator = world.operator().await;
        world.kms_secret("text", "app/text", json!({})).await;
        world.until_synced("text").await;
        (world, operator)
    }

    /// A world on a cluster of its own, for operators that look at all namespaces.
    pub(crate) async fn alone() -> Self {
        Self::alone_with(&[]).await
    }

    /// The same, with more flags of its API server.
    pub(crate) async fn alone_with(flags: &'static [&'static str]) -> Self {
        Self::on(Arc::new(Cluster::start_with(flags).await)).await
    }

    /// Another tenant of the same cluster, with a KMS of its own.
    pub(crate) async fn beside(&self) -> Self {
        Self::on(Arc::clone(&self.cluster)).await
    }

    async fn on(cluster: Arc<Cluster>) -> Self {
        let client = cluster.client().await;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("it-{}-{count}", &uuid::Uuid::new_v4().to_string()[..8]);
        let spaces: Api<Namespace> = Api::all(client.clone());
        let space = Namespace {
            metadata: ObjectMeta {
                name: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        spaces.create(&PostParams::default(), &space).await.unwrap();
        let kms = Emulator::start(Options::default()).await.unwrap();
        kms.add_access_key(KEY_ID, KEY_SECRET);
        let world = Self {
            namespace,
            client,
            kms,
            cluster,
        };
        world
            .credentials("kms-credentials", KEY_ID, KEY_SECRET)
            .await;
        world.store("prod", "kms-credentials", json!({})).await;
        world
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Applies a manifest as a user does.
    pub(crate) async fn apply<K>(&self, name: &str, manifest: Value) -> K
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + Debug
            + serde::de::DeserializeOwned,
    {
        let mut manifest = manifest;
        manifest["apiVersion"] = K::api_version(&()).into();
        manifest["kind"] = K::kind(&()).into();
        manifest["metadata"]["name"] = name.into();
        let params = PatchParams::apply("user").force();
        self.api::<K>()
            .patch(name, &params, &Patch::Apply(&manifest))
            .await
            .unwrap()
    }

    /// Applies a cluster-scoped manifest under the namespace's name.
    pub(crate) async fn apply_cluster<K>(&self, manifest: Value) -> K
    where
        K: kube::Resource<DynamicType = ()> + Clone + Debug + serde::de::DeserializeOwned,
    {
        let mut manifest = manifest;
        manifest["apiVersion"] = K::api_version(&()).into();
        manifest["kind"] = K::kind(&()).into();
        manifest["metadata"]["name"] = self.namespace.clone().into();
        let params = PatchParams::apply("user").force();
        let api = Api::<K>::all(self.client.clone());
        api.patch(&self.namespace, &params, &Patch::Apply(&manifest))
            .await
            .unwrap()
    }

    pub(crate) async fn credentials(&self, name: &str, id: &str, secret: &str) {
        let manifest = json!({
            "metadata": {"labels": {"alikms.dev/credentials": "true"}},
            "stringData": {"accessKeyId": id, "accessKeySecret": secret},
        });
        self.apply::<Secret>(name, manifest).await;
    }

    pub(crate) async fn store(&self, name: &str, credentials: &str, more: Value) {
        let mut spec = json!({
            "region": "cn-hangzhou",
            "endpoint": self.kms.origin(),
            "auth": {"accessKey": {"secretRef": {"name": credentials}}},
        });
        merge(&mut spec, more);
        self.apply::<KmsStore>(name, json!({"spec": spec})).await;
    }

    /// Applies a KmsSecret of the store `prod`; `more` is merged into its spec.
    pub(crate) async fn kms_secret(&self, name: &str, secret_name: &str, more: Value) -> KmsSecret {
        let mut spec = json!({"storeRef": {"name": "prod"}, "source": {"secretName": secret_name}});
        merge(&mut spec, more);
        self.apply::<KmsSecret>(name, json!({"spec": spec})).await
    }

    /// Forces a sync.
    pub(crate) async fn force(&self, name: &str) {
        let token = uuid::Uuid::new_v4().to_string();
        self.patch::<KmsSecret>(
            name,
            json!({"metadata": {"annotations": {"alikms.dev/sync": token}}}),
        )
        .await;
    }

    pub(crate) async fn patch<K>(&self, name: &str, patch: Value) -> K
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + Debug
            + serde::de::DeserializeOwned,
    {
        self.api::<K>()
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap()
    }

    pub(crate) async fn delete<K>(&self, name: &str)
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + Debug
            + serde::de::DeserializeOwned,
    {
        self.api::<K>()
            .delete(name, &DeleteParams::background())
            .await
            .unwrap();
    }

    pub(crate) async fn object(&self, name: &str) -> KmsSecret {
        self.api::<KmsSecret>().get(name).await.unwrap()
    }

    pub(crate) async fn secret(&self, name: &str) -> Option<Secret> {
        self.api::<Secret>().get_opt(name).await.unwrap()
    }

    /// The data of a Secret; empty if there is none.
    pub(crate) async fn data(&self, name: &str) -> BTreeMap<String, Vec<u8>> {
        let data = self
            .secret(name)
            .await
            .and_then(|secret| secret.data)
            .unwrap_or_default();
        data.into_iter()
            .map(|(key, bytes)| (key, bytes.0))
            .collect()
    }

    /// The value of one key, as text.
    pub(crate) async fn text(&self, name: &str, key: &str) -> Option<String> {
        let data = self.data(name).await;
        data.get(key)
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    pub(crate) async fn events(&self) -> Vec<Event> {
        self.api::<Event>()
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
    }

    /// Waits until `Ready` of an object that was seen at its current generation has this value and reason.
    pub(crate) async fn until_ready(&self, name: &str, status: &str, reason: &str) -> KmsSecret {
        eventually(&format!("{name} is Ready={status} {reason}"), async || {
            let object = self.object(name).await;
            let seen = object.status.as_ref()?.observed_generation == object.metadata.generation;
            let (is, why, _) = condition(&object, "Ready")?;
            (seen && is == status && why == reason).then_some(object)
        })
        .await
    }

    /// Waits until `Ready` is true, and the last forced sync was handled.
    pub(crate) async fn until_synced(&self, name: &str) -> KmsSecret {
        eventually(&format!("{name} is synced"), async || {
            let object = self.object(name).await;
            let status = object.status.as_ref()?;
            let forced = object
                .metadata
                .annotations
                .as_ref()
                .and_then(|all| all.get("alikms.dev/sync"));
            let seen = status.observed_generation == object.metadata.generation
                && status.last_handled_sync.as_ref() == forced;
            let (is, why, _) = condition(&object, "Ready")?;
            (seen && is == "True" && why == "Synced").then_some(object)
        })
        .await
    }

    /// Waits until a key of a Secret has this text.
    pub(crate) async fn until_text(&self, name: &str, key: &str, text: &str) {
        eventually(&format!("{key} of {name} is {text:?}"), async || {
            (self.text(name, key).await.as_deref() == Some(text)).then_some(())
        })
        .await;
    }

    /// Waits until the credentials of every store of the namespace were looked at.
    pub(crate) async fn settled(&self) {
        eventually("every store was looked at", async || {
            let stores = self.api::<KmsStore>().list(&ListParams::default()).await;
            let is_seen = |store: &KmsStore| {
                let seen = store
                    .status
                    .as_ref()
                    .map(|status| status.observed_generation);
                seen == Some(store.metadata.generation)
            };
            stores.unwrap().items.iter().all(is_seen).then_some(())
        })
        .await;
    }

    /// A client that acts as the ServiceAccount `operator`, with the rights of examples/rbac.yaml in this namespace.
    pub(crate) async fn with_rights_of_the_example(&self) -> Client {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/rbac.yaml");
        let yaml = std::fs::read_to_string(file).unwrap();
        let rules = |kind: &str| -> Value {
            let is_it = |document: &&str| document.contains(&format!("\nkind: {kind}\n"));
            let role = yaml.split("\n---\n").find(is_it).unwrap();
            serde_saphyr::from_str::<Value>(role).unwrap()["rules"].clone()
        };
        let role = json!({"rules": rules("ClusterRole")});
        self.apply_cluster::<ClusterRole>(role).await;
        self.apply::<Role>("leases", json!({"rules": rules("Role")}))
            .await;
        for (name, kind, role) in [
            ("operator", "ClusterRole", self.namespace.as_str()),
            ("leases", "Role", "leases"),
        ] {
            let binding = json!({
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
                "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": self.namespace}],
            });
            self.apply::<RoleBinding>(name, binding).await;
        }
        self.cluster.client_as(&self.namespace, "operator").await
    }

    /// Starts an operator for this world's namespace.
    pub(crate) async fn operator(&self) -> Operator {
        self.operator_with(&[]).await
    }

    /// Starts an operator that knows nothing of the others: it does all the work, whoever does it besides.
    pub(crate) async fn rival(&self) -> Operator {
        let elsewhere = ["--lease-namespace", self.namespace.as_str()];
        self.operator_with(&elsewhere).await
    }

    /// Starts an operator with more flags.
    pub(crate) async fn operator_with(&self, flags: &[&str]) -> Operator {
        let namespaced = ["--namespace", self.namespace.as_str()];
        self.operator_of(&[&namespaced[..], flags].concat()).await
    }

    /// Starts an operator with these flags, for all namespaces unless they say otherwise.
    pub(crate) async fn operator_of(&self, flags: &[&str]) -> Operator {
        // A client of its own: connections are not shared, as between processes.
        let client = self.cluster.client().await;
        self.operator_by(client, flags, |_| ()).await
    }

    /// Starts an operator by that client, in an environment of which `adapt` tells it.
    pub(crate) async fn operator_by(
        &self,
        client: Client,
        flags: &[&str],
        adapt: impl FnOnce(&mut Run),
    ) -> Operator {
        let operator = self.start(client, flags, adapt).await;
        eventually("the operator is ready", async || {
            (operator.get("readyz").await == "ok").then_some(())
        })
        .await;
        operator
    }

    /// The same, without waiting until it is ready.
    pub(crate) async fn start(
        &self,
        client: Client,
        flags: &[&str],
        adapt: impl FnOnce(&mut Run),
    ) -> Operator {
        let origin = self.kms.origin();
        let words = ["kms-secret-operator", "run", "--allow-endpoint", &origin];
        let short = ["--min-refresh-interval", "1s"];
        let defaults = if flags.contains(&short[0]) {
            &[][..]
        } else {
            &short[..]
        };
        let cli = Cli::try_parse_from(words.iter().chain(defaults).chain(flags)).unwrap();
        let Command::Run(mut run) = cli.command else {
            unreachable!()
        };
        adapt(&mut run);
        let bind = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listeners = Listeners {
            admin: bind().await,
            events: match run.events.event_listen {
                Some(_) => Some(bind().await),
                None => None,
            },
        };
        let address = |listener: &TcpListener| listener.local_addr().unwrap();
        let admin = address(&listeners.admin);
        let events = listeners.events.as_ref().map(address);
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            kms_secret_operator::serve(*run, client, listeners, stopped)
                .await
                .unwrap();
        });
        Operator {
            admin,
            events,
            stop,
            task,
        }
    }
}

/// A running operator; dropping it is a kill.
pub(crate) struct Operator {
    admin: SocketAddr,
    /// Where it receives notices of KMS, if it does.
    pub(crate) events: Option<SocketAddr>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Operator {
    /// Stops it cleanly.
    pub(crate) async fn stop(self) {
        let _ = self.stop.send(());
        self.task.await.unwrap();
    }

    /// Ends it in the middle of whatever it does.
    pub(crate) fn kill(self) {
        self.task.abort();
    }

    /// Where it tells of itself.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.admin)
    }

    pub(crate) async fn get(&self, path: &str) -> String {
        let url = self.url(path);
        match reqwest::get(url).await {
            Ok(response) => response.text().await.unwrap_or_default(),
            Err(_) => String::new(),
        }
    }

    /// The sum of a counter over all series whose labels contain every one of `labels`.
    pub(crate) async fn counter(&self, name: &str, labels: &[&str]) -> u64 {
        self.sum(name, |line| labels.iter().all(|label| line.contains(label)))
            .await
    }

    /// The sum of a counter, at one moment, over the series that count.
    async fn sum(&self, name: &str, counts: impl Fn(&str) -> bool) -> u64 {
        let text = self.get("metrics").await;
        text.lines()
            .filter(|line| line.starts_with(name) && counts(line))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    }

    /// How many writes it has asked the API server for, besides those of its Lease.
    pub(crate) async fn writes(&self) -> u64 {
        let name = "kms_secret_operator_apiserver_requests_total";
        let is_none = |line: &str| line.contains("verb=\"get\"") || line.contains("\"leases\"");
        self.sum(name, |line| !is_none(line)).await
    }

    /// Waits until it shares the work with so many, itself among them; 0: until it has none.
    pub(crate) async fn until_members(&self, count: u64) {
        eventually(&format!("there are {count} members"), async || {
            let is = self.counter("kms_secret_operator_members", &[]).await;
            (is == count).then_some(())
        })
        .await;
    }
}

/// Status, reason and message of a condition.
pub(crate) fn condition<'a>(
    object: &'a KmsSecret,
    type_: &str,
) -> Option<(&'a str, &'a str, &'a str)> {
    let conditions = &object.status.as_ref()?.conditions;
    let condition = conditions
        .iter()
        .find(|condition| condition.type_ == type_)?;
    Some((&condition.status, &condition.reason, &condition.message))
}

/// Asks again and again until there is an answer.
pub(crate) async fn eventually<T>(what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if let Some(answer) = ask().await {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("waited in vain until {what}");
}

/// Long enough for what must not happen to happen.
pub(crate) async fn a_while() {
    tokio::time::sleep(Duration::from_millis(1500)).await;
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}
