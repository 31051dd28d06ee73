//! The chart on a real node: images, Pods, an application that mounts the Secret, and what becomes of it when the operator
//! crashes, is upgraded and goes.
//!
//! `make e2e` runs it, as root, where `dev/node able` says that it can; every other way to run tests leaves it out.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends where it fails"
)]

mod app;
mod emulator;
mod stage;
mod witness;

use std::time::Duration;

use jiff::Timestamp;

use crate::app::App;
use crate::emulator::{Emulator, Version};
use crate::stage::{APP, OPERATOR, Stage, eventually, say, timed};
use crate::witness::Witness;

const CHART: &str = "charts/kms-secret-operator";
const RELEASE: &str = "kms-secret-operator";
const PODS: &str = "app.kubernetes.io/component=operator";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and a node: make e2e"]
async fn an_application_keeps_its_secret_whatever_becomes_of_the_operator() {
    let stage = Stage::set();
    install(&stage);
    let kms = Emulator::reach(&stage).await;
    kms.rotate_every("shop/orders-db", Duration::from_secs(10))
        .await;

    sync(&stage);
    let witness = Witness::of_secret(stage.client().await, APP, "orders-db");
    let app = App::start(&stage);

    for _ in 0..3 {
        let version = follow(&kms, &witness, &app).await;
        let after = |seen: Option<Timestamp>| seen.unwrap().duration_since(version.since);
        say(&format!(
            "a rotation was in the Secret after {:.2} s, in the mounted file after {:.2} s",
            after(witness.when(&version.password)).as_secs_f64(),
            after(app.when(&version.password)).as_secs_f64(),
        ));
    }

    crash(&stage);
    follow(&kms, &witness, &app).await;
    say("the Secret follows after a crash of every replica");

    upgrade(&stage);
    follow(&kms, &witness, &app).await;
    say("the Secret follows after an upgrade of the release");

    let history = kms.stop_rotating("shop/orders-db").await;
    settle(&history, &witness, &app).await;
    uninstall(&stage);
    let last = &history.last().unwrap().password;
    assert_eq!(witness.last().as_ref(), Some(last));
    assert_eq!(app.last().as_ref(), Some(last));
    in_order("the Secret", &witness.seen(), &history);
    in_order("the mounted file", &app.seen(), &history);
    say(&format!(
        "through all of it the Secret had {} values and the file {}: never absent, never empty, never an older one",
        witness.seen().len(),
        app.seen().len(),
    ));
}

/// Installs the chart as `docs/installing.md` says, with the emulator, where the standard "restricted" is enforced.
fn install(stage: &Stage) {
    stage.kubectl(&["create", "namespace", OPERATOR]);
    stage.kubectl(&[
        "label",
        "namespace",
        OPERATOR,
        "pod-security.kubernetes.io/enforce=restricted",
    ]);
    let ready = timed(|| {
        stage.helm(&[
            "install",
            RELEASE,
            CHART,
            "--set=emulator.enabled=true",
            "--wait",
            "--timeout=3m",
        ]);
    });
    say(&format!(
        "helm install: all Pods were ready after {ready:.1} s"
    ));
}

/// Gives the application's namespace a store, as the chart's notes say, and a KmsSecret.
fn sync(stage: &Stage) {
    let example = stage.kubectl(&[
        "get",
        "secret",
        "--namespace",
        OPERATOR,
        "kms-secret-operator-emulator-example",
        "--output=go-template={{index .data \"example.yaml\" | base64decode}}",
    ]);
    stage.kubectl(&["create", "namespace", APP]);
    stage.apply(APP, &example);
    let ready = timed(|| {
        stage.apply(APP, include_str!("kmssecret.yaml"));
        stage.kubectl(&[
            "wait",
            "--namespace",
            APP,
            "--for=condition=Ready",
            "--timeout=60s",
            "kmssecret",
            "--all",
        ]);
    });
    say(&format!(
        "the new KmsSecrets were Ready after {ready:.1} s, kubectl included"
    ));
}

/// Waits until KMS has rotated once more, and the Secret and the file have followed; returns that version.
async fn follow(kms: &Emulator, witness: &Witness, app: &App<'_>) -> Version {
    let before = kms.history("shop/orders-db").await.len();
    eventually("KMS to rotate and the file to follow", || async {
        let later = kms.history("shop/orders-db").await.split_off(before);
        // In an outage a version may be missed: then it is the next one.
        later.into_iter().find(|version| {
            witness.when(&version.password).is_some() && app.when(&version.password).is_some()
        })
    })
    .await
}

/// Waits until the Secret and the file hold the newest version.
async fn settle(history: &[Version], witness: &Witness, app: &App<'_>) {
    let last = Some(&history.last().unwrap().password);
    eventually("the last version to arrive", || async {
        (witness.last().as_ref() == last && app.last().as_ref() == last).then_some(())
    })
    .await;
}

/// Kills the process of every replica: containers are started anew by kubelet.
fn crash(stage: &Stage) {
    let containers = stage.kubectl(&[
        "get",
        "pods",
        "--namespace",
        OPERATOR,
        "--selector",
        PODS,
        "--output=jsonpath={.items[*].status.containerStatuses[*].containerID}",
    ]);
    let mut killed = 0;
    for container in containers.split_whitespace() {
        stage.kill(container.strip_prefix("containerd://").unwrap());
        killed += 1;
    }
    assert_eq!(killed, 2, "the chart runs two replicas");
    stage.kubectl(&[
        "wait",
        "--namespace",
        OPERATOR,
        "--selector",
        PODS,
        "--for=jsonpath={.status.containerStatuses[0].restartCount}=1",
        "--timeout=60s",
        "pod",
    ]);
}

/// Upgrades the release with another value, and waits until the Pods are new ones.
fn upgrade(stage: &Stage) {
    let pods = || {
        stage.kubectl(&[
            "get",
            "pods",
            "--namespace",
            OPERATOR,
            "--selector",
            PODS,
            "--output=name",
        ])
    };
    let old = pods();
    stage.helm(&[
        "upgrade",
        RELEASE,
        CHART,
        "--reuse-values",
        "--set=log.level=debug",
        "--wait",
        "--timeout=3m",
    ]);
    stage.kubectl(&[
        "rollout",
        "status",
        "--namespace",
        OPERATOR,
        "deployment/kms-secret-operator",
        "--timeout=60s",
    ]);
    let new = pods();
    assert!(
        new.lines().any(|pod| !old.contains(pod)),
        "no Pod is new: {new}"
    );
}

/// Uninstalls the release; the definitions, the KmsSecrets and their Secrets stay.
fn uninstall(stage: &Stage) {
    stage.helm(&["uninstall", RELEASE, "--wait", "--timeout=2m"]);
    stage.kubectl(&[
        "wait",
        "--namespace",
        OPERATOR,
        "--for=delete",
        "--timeout=60s",
        "pod",
        "--all",
    ]);
    stage.kubectl(&[
        "get",
        "crd",
        "kmssecrets.alikms.dev",
        "kmsstores.alikms.dev",
        "clusterkmsstores.alikms.dev",
    ]);
    stage.kubectl(&["get", "--namespace", APP, "kmssecret", "orders-db"]);
    say("uninstalled: definitions, KmsSecrets and Secrets are there");
}

/// Asserts that what was seen, one after the other, are versions of KMS, and never an older one after a newer one.
fn in_order(what: &str, seen: &[Option<String>], history: &[Version]) {
    let place = |password: &Option<String>| {
        let of = |version: &Version| Some(&version.password) == password.as_ref();
        history.iter().position(of)
    };
    let places: Vec<_> = seen.iter().map(place).collect();
    assert!(
        places.iter().all(Option::is_some),
        "{what} was absent, or held what KMS never did: {places:?}"
    );
    assert!(
        places.is_sorted(),
        "{what} went back to an older value: {places:?}"
    );
}
