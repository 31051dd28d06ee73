//! Several replicas share the work: each object is one's, and nothing is lost or done worse when one comes or goes.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kms_emulator::{Fault, Managed};
use kms_secret_operator::api::KmsStore;
use kms_secret_operator::api::kms_store::KmsStoreStatus;
use kms_secret_operator::sync::share::group;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::events::{rotated, tell, told_operator};
use crate::witness::Witness;
use crate::world::{Operator, World, a_while, eventually};

/// Makes KmsSecrets `o0`, `o1` and so on, each of a secret of its own.
async fn make(world: &World, count: usize) -> Vec<String> {
    world
        .store("prod", "kms-credentials", json!({"batch": "Never"}))
        .await;
    let names: Vec<String> = (0..count).map(|n| format!("o{n}")).collect();
    let made = names.iter().map(|name| async move {
        world.kms.put_generic(name, "one");
        world.kms_secret(name, name, json!({})).await;
    });
    futures::stream::iter(made)
        .buffer_unordered(16)
        .count()
        .await;
    names
}

async fn until_all_synced(world: &World, names: &[String]) {
    for name in names {
        world.until_synced(name).await;
    }
}

/// Gives every secret another value, and forces it to be read.
async fn change(world: &World, names: &[String], text: &str) {
    for name in names {
        world.kms.put_generic(name, text);
        world.force(name).await;
    }
    for name in names {
        world.until_text(name, "value", text).await;
    }
}

async fn syncs(operator: &Operator) -> u64 {
    operator
        .counter("kms_secret_operator_syncs_total", &[])
        .await
}

/// The Leases of the replicas that look after a world.
async fn leases(world: &World, namespace: &str) -> Vec<Lease> {
    let api: Api<Lease> = Api::namespaced(world.client.clone(), namespace);
    let group = group(std::slice::from_ref(&world.namespace));
    let params = ListParams::default().labels(&format!("alikms.dev/replicas={group}"));
    api.list(&params).await.unwrap().items
}

/// A replica as it is shipped, in a process that can be stopped and killed.
struct Process {
    child: Child,
    log: std::path::PathBuf,
}

impl Process {
    fn start(world: &World, flags: &[&str]) -> Self {
        let log = std::env::temp_dir().join(format!("{}-replica.log", world.namespace));
        let mut command = Command::new(env!("CARGO_BIN_EXE_kms-secret-operator"));
        command
            .args(["run", "--namespace", &world.namespace])
            .args(["--allow-endpoint", &world.kms.origin()])
            .args(["--admin-listen", "127.0.0.1:0"])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap());
        if let Some(kubeconfig) = world.cluster.kubeconfig() {
            command.env("KUBECONFIG", kubeconfig);
        }
        Self {
            child: command.spawn().unwrap(),
            log,
        }
    }

    fn signal(&self, name: &str) {
        let (signal, pid) = (format!("-{name}"), self.child.id().to_string());
        let sent = Command::new("kill").args([signal, pid]).status().unwrap();
        assert!(sent.success());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until it ends by itself, and answers its exit code and its log.
    async fn ended(&mut self) -> (Option<i32>, String) {
        let began = std::time::Instant::now();
        while began.elapsed() < Duration::from_secs(60) {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status.code(), self.log());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it does not end:\n{}", self.log());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.log);
    }
}

#[tokio::test]
async fn three_share_the_work_and_each_object_is_read_and_written_once() {
    let world = World::new().await;
    let replicas = [
        world.operator().await,
        world.operator().await,
        world.operator().await,
    ];
    for replica in &replicas {
        replica.until_members(3).await;
    }
    world.settled().await;
    let names = make(&world, 60).await;
    until_all_synced(&world, &names).await;
    world.settled().await;
    assert_eq!(world.kms.count("GetSecretValue"), 60);
    let (mut all, mut writes) = (0, 0);
    for replica in &replicas {
        let done = syncs(replica).await;
        assert!(done > 0, "each does some of it");
        all += done;
        writes += replica.writes().await;
    }
    assert_eq!(all, 60);
    assert!(
        (122..=123).contains(&writes),
        "{writes} writes: a Secret and a status for each, and the status of the store, once for each of its specs"
    );
    let rates = replicas.iter().map(|replica| replica.get("metrics"));
    for metrics in futures::future::join_all(rates).await {
        let mut lines = metrics.lines();
        let rate = lines.find(|line| line.starts_with("kms_secret_operator_store_rate{"));
        let rate: f64 = rate.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
        assert!((rate - 100.0 / 3.0).abs() < 0.1, "{rate}: a third of 100");
    }
    assert_eq!(leases(&world, "default").await.len(), 3);
}

#[tokio::test]
async fn a_clean_stop_hands_over_at_once_and_what_is_in_sync_costs_nothing() {
    let world = World::new().await;
    let (first, second) = (world.operator().await, world.operator().await);
    for replica in [&first, &second] {
        replica.until_members(2).await;
    }
    let names = make(&world, 40).await;
    world
        .kms
        .put_managed("app/db", Managed::rds(Duration::from_secs(5)));
    let rotated: Vec<String> = (0..6).map(|n| format!("db{n}")).collect();
    for name in &rotated {
        world.kms_secret(name, "app/db", json!({})).await;
    }
    until_all_synced(&world, &[&names[..], &rotated[..]].concat()).await;
    world.settled().await;
    let shared = [syncs(&first).await, syncs(&second).await];
    assert!(shared.iter().all(|done| *done > 0), "{shared:?}");
    a_while().await;
    world.kms.reset_calls();
    first.stop().await;
    assert_eq!(
        leases(&world, "default").await.len(),
        1,
        "it is gone as the replica ends, and nobody waits"
    );
    second.until_members(1).await;
    a_while().await;
    let of_generic = world.kms.count_where(|call| {
        let secret = call.secret.as_deref();
        secret.is_some_and(|name| name != "app/db")
    });
    assert_eq!(of_generic, 0);
    // A rotation right after it arrives in all, whosever they were.
    let value = || world.kms.current("app/db").unwrap().value;
    let before = value();
    eventually("KMS rotates", async || (value() != before).then_some(())).await;
    eventually("all have the value of KMS", async || {
        let now = value();
        for name in &rotated {
            if world.text(name, "value").await? != now {
                return None;
            }
        }
        Some(())
    })
    .await;
    change(&world, &names, "two").await;
}

#[tokio::test]
async fn the_share_of_one_that_was_killed_is_served_again() {
    let world = World::new().await;
    let killed = Process::start(&world, &[]);
    let stays = world.operator().await;
    stays.until_members(2).await;
    let names = make(&world, 40).await;
    until_all_synced(&world, &names).await;
    let done = syncs(&stays).await;
    assert!((1..40).contains(&done), "{done} of 40");
    world.settled().await;
    a_while().await;
    world.kms.reset_calls();
    let writes = stays.writes().await;
    killed.signal("KILL");
    stays.until_members(1).await;
    a_while().await;
    assert_eq!(world.kms.calls().len(), 0, "it is in sync");
    assert_eq!(stays.writes().await, writes);
    change(&world, &names, "two").await;
}

#[tokio::test]
async fn a_replica_that_cannot_renew_its_lease_stops_working_and_goes_on_when_it_can() {
    let world = World::new().await;
    let client = world.with_rights_of_the_example().await;
    let own = &world.namespace;
    let flags = ["--namespace", own, "--lease-namespace", own];
    let replica = world.operator_by(client, &flags, |_| ()).await;
    let names = make(&world, 5).await;
    until_all_synced(&world, &names).await;
    let binding: RoleBinding = world.api().get("leases").await.unwrap();
    world.delete::<RoleBinding>("leases").await;
    replica.until_members(0).await;
    assert_ne!(replica.get("readyz").await, "ok");
    world.kms.reset_calls();
    let writes = replica.writes().await;
    for name in &names {
        world.kms.put_generic(name, "two");
        world.force(name).await;
    }
    a_while().await;
    assert_eq!(world.kms.calls().len(), 0);
    assert_eq!(replica.writes().await, writes);
    let again = json!({"roleRef": binding.role_ref, "subjects": binding.subjects});
    world.apply::<RoleBinding>("leases", again).await;
    for name in &names {
        world.until_text(name, "value", "two").await;
    }
    assert_eq!(replica.get("readyz").await, "ok");
}

#[tokio::test]
async fn a_replica_that_was_frozen_with_an_old_value_in_hand_puts_it_over_no_newer_one() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "one");
    let frozen = Process::start(&world, &[]);
    world.kms_secret("text", "app/text", json!({})).await;
    world.until_synced("text").await;
    let hold = world.kms.hold("app/text");
    world.force("text").await;
    hold.until_waiting(1).await;
    frozen.signal("STOP");
    hold.release();
    world.kms.put_generic("app/text", "two");
    let witness = Witness::of(&world).await;
    // It believes for some seconds more that all is its own: only the fence is between it and the Secret.
    let rival = world.rival().await;
    world.until_text("text", "value", "two").await;
    rival.stop().await;
    frozen.signal("CONT");
    a_while().await;
    assert_eq!(world.text("text", "value").await.unwrap(), "two");
    world.kms.put_generic("app/text", "three");
    world.force("text").await;
    world.until_text("text", "value", "three").await;
    let values = witness.values(&world, "text").await;
    assert_eq!(values, ["two", "three"], "and it works on");
}

#[tokio::test]
async fn a_replica_that_was_taken_for_dead_comes_back_and_does_no_harm() {
    let world = World::new().await;
    let frozen = Process::start(&world, &[]);
    let stays = world.operator().await;
    stays.until_members(2).await;
    let names = make(&world, 8).await;
    until_all_synced(&world, &names).await;
    let holds: Vec<_> = names.iter().map(|name| world.kms.hold(name)).collect();
    for name in &names {
        world.force(name).await;
    }
    for hold in &holds {
        hold.until_waiting(1).await;
    }
    frozen.signal("STOP");
    drop(holds);
    stays.until_members(1).await;
    change(&world, &names, "two").await;
    frozen.signal("CONT");
    stays.until_members(2).await;
    a_while().await;
    for name in &names {
        assert_eq!(world.text(name, "value").await.unwrap(), "two", "{name}");
    }
    change(&world, &names, "three").await;
    assert!(!frozen.log().contains("panic"), "{}", frozen.log());
}

#[tokio::test]
async fn a_notice_reaches_whichever_replica_the_object_belongs_to() {
    let world = World::new().await;
    let (told, _files) = told_operator(&world, &["--namespace", &world.namespace]).await;
    let other = world.operator().await;
    for replica in [&told, &other] {
        replica.until_members(2).await;
    }
    let names = make(&world, 20).await;
    until_all_synced(&world, &names).await;
    let before = syncs(&other).await;
    assert!((1..20).contains(&before), "{before} of 20");
    world.kms.reset_calls();
    for name in &names {
        world.kms.put_generic(name, "two");
        tell(&told, &rotated(&format!("e-{name}"), name)).await;
    }
    for name in &names {
        world.until_text(name, "value", "two").await;
    }
    a_while().await;
    assert_eq!(world.kms.count("GetSecretValue"), 20, "once for each");
    let hinted = other
        .counter("kms_secret_operator_syncs_total", &["hinted"])
        .await;
    assert_eq!(hinted, before, "as many as are the other's");
}

#[tokio::test]
async fn a_notice_for_one_that_is_dead_reaches_its_heir() {
    let world = World::new().await;
    let (told, _files) = told_operator(&world, &["--namespace", &world.namespace]).await;
    let killed = Process::start(&world, &[]);
    told.until_members(2).await;
    let names = make(&world, 12).await;
    until_all_synced(&world, &names).await;
    let own = syncs(&told).await;
    assert!((1..12).contains(&own), "{own} of 12");
    killed.signal("KILL");
    for name in &names {
        world.kms.put_generic(name, "two");
        tell(&told, &rotated(&format!("e-{name}"), name)).await;
    }
    for name in &names {
        world.until_text(name, "value", "two").await;
    }
    told.until_members(1).await;
}

/// The status of the store `prod`.
async fn store_status(world: &World) -> Option<KmsStoreStatus> {
    world.api::<KmsStore>().get("prod").await.unwrap().status
}

async fn until_store(world: &World, value: &str) {
    eventually(&format!("the store is {value}"), async || {
        let status = store_status(world).await?;
        let ready = status.conditions.iter().find(|one| one.type_ == "Ready")?;
        (ready.status == value).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_kms_tells_any_replica_of_a_store_its_status_tells_until_it_is_over() {
    let world = World::new().await;
    let (first, second) = (world.operator().await, world.operator().await);
    for replica in [&first, &second] {
        replica.until_members(2).await;
    }
    let names = make(&world, 8).await;
    until_all_synced(&world, &names).await;
    until_store(&world, "True").await;
    for name in &names {
        // Whichever replica it is, and whichever has the store.
        let debt = world
            .kms
            .fault(Fault::code("Forbidden.InDebt").on_action("GetSecretValue"));
        world.force(name).await;
        until_store(&world, "False").await;
        let version = world
            .api::<KmsStore>()
            .get("prod")
            .await
            .unwrap()
            .resource_version();
        a_while().await;
        let now = world
            .api::<KmsStore>()
            .get("prod")
            .await
            .unwrap()
            .resource_version();
        assert_eq!(now, version, "nobody says otherwise");
        world.kms.clear_fault(debt);
        world.force(name).await;
        until_store(&world, "True").await;
        world.until_synced(name).await;
    }
}

#[tokio::test]
async fn of_two_with_one_name_the_older_one_goes_and_says_why() {
    let world = World::new().await;
    let flags = [
        "--replica-name",
        "twin",
        "--lease-namespace",
        &world.namespace,
    ];
    let mut older = Process::start(&world, &flags);
    eventually("the older one has the Lease", async || {
        (leases(&world, &world.namespace).await.len() == 1).then_some(())
    })
    .await;
    let younger = world.operator_with(&flags).await;
    let (code, log) = older.ended().await;
    assert_eq!(code, Some(1));
    assert!(
        log.contains("another process took the Lease \"twin\""),
        "{log}"
    );
    younger.until_members(1).await;
    let names = make(&world, 3).await;
    until_all_synced(&world, &names).await;
}

#[tokio::test]
async fn a_lease_of_something_else_is_left_alone() {
    let world = World::new().await;
    world
        .apply::<Lease>("theirs", json!({"spec": {"holderIdentity": "them"}}))
        .await;
    let name = ["--replica-name", "theirs"];
    let here = ["--lease-namespace", &world.namespace];
    let mut refused = Process::start(&world, &[&name[..], &here[..]].concat());
    let (code, log) = refused.ended().await;
    assert_eq!(code, Some(1));
    assert!(log.contains("--replica-name"), "{log}");
    let lease = world.api::<Lease>().get("theirs").await.unwrap();
    assert_eq!(lease.spec.unwrap().holder_identity.unwrap(), "them");

    let mut nowhere = Process::start(&world, &["--lease-namespace", "nowhere"]);
    let (code, log) = nowhere.ended().await;
    assert_eq!(code, Some(1));
    assert!(
        log.contains("nowhere") && log.contains("--lease-namespace"),
        "{log}"
    );
}

#[tokio::test]
async fn the_lease_of_one_that_is_long_dead_is_swept_away() {
    let world = World::new().await;
    let group = group(std::slice::from_ref(&world.namespace));
    for (name, renewed) in [
        ("long-dead", "2020-01-01T00:00:00.000000Z"),
        ("dead", "2999-01-01T00:00:00.000000Z"),
    ] {
        let lease = json!({
            "metadata": {"labels": {"alikms.dev/replicas": group}},
            "spec": {"holderIdentity": "nobody", "renewTime": renewed},
        });
        world.apply::<Lease>(name, lease).await;
    }
    let replica = world.rival().await;
    replica.until_members(3).await;
    replica.until_members(1).await;
    eventually("the old one is gone", async || {
        let there = world.api::<Lease>().get_opt("long-dead").await.unwrap();
        there.is_none().then_some(())
    })
    .await;
    assert!(world.api::<Lease>().get("dead").await.is_ok());
    assert_eq!(leases(&world, &world.namespace).await.len(), 2);
    replica.stop().await;
    assert_eq!(
        leases(&world, &world.namespace).await.len(),
        1,
        "its own is gone"
    );
}
