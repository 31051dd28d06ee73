//! Tools that apply what is in Git: it never differs from what is in the cluster, and what docs/gitops.md gives to them works.

use std::path::Path;

use kms_secret_operator::api::KmsSecret;
use kube::api::ListParams;
use mlua::{Lua, LuaSerdeExt as _, StdLib};
use serde_json::{Value, json};

use crate::docs::{files, read, root};
use crate::kubectl::kubectl;
use crate::world::{World, condition, eventually};

/// What runs in Argo CD: Lua 5.1, with these libraries.
fn lua(object: &Value) -> Lua {
    let lua = Lua::new_with(
        StdLib::TABLE | StdLib::OS | StdLib::PACKAGE,
        mlua::LuaOptions::default(),
    );
    let lua = lua.unwrap();
    let object = lua.to_value(object).unwrap();
    lua.globals().set("obj", object).unwrap();
    lua
}

/// What Argo CD's ConfigMap says under a key.
fn customization(key: &str) -> String {
    let manifest: Value = serde_saphyr::from_str(&read("examples/argocd-cm.yaml")).unwrap();
    let text = &manifest["data"][format!("resource.customizations.{key}")];
    text.as_str().unwrap_or_else(|| panic!("{key}")).to_owned()
}

/// The health of an object, and its message, as examples/argocd-cm.yaml has Argo CD see it.
pub(crate) fn health(kind: &str, object: &Value) -> (String, String) {
    let script = customization(&format!("health.alikms.dev_{kind}"));
    let lua = lua(object);
    let said: mlua::Table = lua.load(script).eval().unwrap();
    (said.get("status").unwrap(), said.get("message").unwrap())
}

#[test]
fn argo_cd_tells_what_the_condition_says() {
    let ready =
        json!({"type": "Ready", "status": "True", "reason": "Synced", "message": "it holds"});
    let object = json!({"metadata": {"generation": 2}, "spec": {}, "status": {"observedGeneration": 2, "conditions": [ready]}});
    for kind in ["KmsSecret", "KmsStore", "ClusterKmsStore"] {
        let said = health(kind, &object);
        assert_eq!(
            said,
            ("Healthy".to_owned(), "it holds".to_owned()),
            "{kind}"
        );
        let (new, message) = health(kind, &json!({"metadata": {"generation": 1}, "spec": {}}));
        assert_eq!(new, "Progressing", "{kind}");
        assert!(message.contains("not looked"), "{message}");
    }
}

#[test]
fn the_action_of_argo_cd_sets_the_annotation_and_nothing_else() {
    let actions = customization("actions.alikms.dev_KmsSecret");
    let actions: Value = serde_saphyr::from_str(&actions).unwrap();
    let discovery = actions["discovery.lua"].as_str().unwrap();
    let action = &actions["definitions"][0];
    assert_eq!(action["name"], "sync");
    for (suspend, is_disabled) in [(Value::Null, false), (json!(true), true)] {
        let lua = lua(&json!({"spec": {"suspend": suspend}}));
        let found: Value = lua.from_value(lua.load(discovery).eval().unwrap()).unwrap();
        assert_eq!(found, json!({"sync": {"disabled": is_disabled}}));
    }
    let action = action["action.lua"].as_str().unwrap();
    for annotations in [json!({}), json!({"team": "shop"})] {
        let object =
            json!({"metadata": {"name": "db", "annotations": annotations}, "spec": {"x": 1}});
        let lua = lua(&object);
        let mut changed: Value = lua.from_value(lua.load(action).eval().unwrap()).unwrap();
        let set = changed["metadata"]["annotations"].as_object_mut().unwrap();
        let token = set.remove("alikms.dev/sync").unwrap();
        assert_eq!(token.as_str().unwrap().len(), "2026-01-01T00:00:00Z".len());
        assert_eq!(Value::Object(set.clone()), annotations);
        assert_eq!(changed["spec"], object["spec"]);
    }
}

/// The manifests of our kinds in a file, without their namespaces.
fn ours(path: &Path) -> Vec<Value> {
    let yaml = read(path).replace("EMULATOR-ORIGIN", "http://127.0.0.1:8900");
    let documents = yaml
        .split("\n---\n")
        .map(|one| serde_saphyr::from_str::<Value>(one).unwrap());
    let mut ours: Vec<_> = documents
        .filter(|one| one["apiVersion"] == "alikms.dev/v1alpha1")
        .collect();
    for manifest in &mut ours {
        manifest["metadata"]
            .as_object_mut()
            .unwrap()
            .remove("namespace");
    }
    ours
}

/// The operator has done with them what it can.
async fn until_seen(world: &World) {
    eventually("every object was looked at", async || {
        let objects = world.api::<KmsSecret>().list(&ListParams::default()).await;
        let is_seen = |object: &KmsSecret| {
            let status = object.status.as_ref();
            status.and_then(|status| status.observed_generation) == object.metadata.generation
        };
        objects.unwrap().iter().all(is_seen).then_some(())
    })
    .await;
    world.settled().await;
}

#[tokio::test]
async fn no_example_ever_differs_from_what_is_in_the_cluster() {
    let world = World::new().await;
    world
        .kms
        .seed(&root().join("examples/demo/seed.json"))
        .unwrap();
    world
        .kms
        .put_generic("shop/orders-settings", r#"{"user": "a"}"#);
    world
        .kms
        .put_generic("shop/certificate", r#"{"certificate": "c", "key": "k"}"#);
    world.store("kms", "kms-credentials", json!({})).await;
    let _operator = world.operator().await;
    let mut synced = 0;
    for path in files("examples") {
        if path.extension().is_none_or(|is| is != "yaml") {
            continue;
        }
        for manifest in ours(&path) {
            let kind = manifest["kind"].as_str().unwrap().to_owned();
            let name = manifest["metadata"]["name"].as_str().unwrap().to_owned();
            // A store beside the one that the examples name; none has credentials here, so none calls KMS.
            let mut manifest = manifest;
            if kind != "KmsSecret" {
                manifest["metadata"]["name"] = format!("{name}-{}", world.namespace).into();
            }
            synced += u32::from(no_diff(&world, &manifest, &path).await);
        }
    }
    assert!(synced >= 8, "{synced} KmsSecrets were synced");
}

/// Applies a manifest in both ways, and looks for a difference once the operator is done; answers whether it was synced.
async fn no_diff(world: &World, manifest: &Value, path: &Path) -> bool {
    let kind = manifest["kind"].as_str().unwrap();
    let name = manifest["metadata"]["name"].as_str().unwrap();
    let resource = format!("{kind}/{name}");
    let text = manifest.to_string();
    let mut is_synced = false;
    for way in [&["--server-side"][..], &[]] {
        let run = async |words: &[&str]| {
            let words = [words, way, &["-f", "-"]].concat();
            kubectl(world, &words, &text).await
        };
        run(&["apply"]).await.done();
        until_seen(world).await;
        let version = ["-o", "jsonpath={.metadata.resourceVersion}"];
        let stored = async || {
            let words = [&["get", &resource], &version[..]].concat();
            kubectl(world, &words, "").await.done()
        };
        eventually("nothing moves for a moment", async || {
            let before = stored().await;
            let diff = run(&["diff"]).await;
            let again = [&["apply", "--dry-run=server"], &version[..]].concat();
            let again = run(&again).await.done();
            if before != stored().await {
                return None;
            }
            let of = path.display();
            assert_eq!(
                (diff.code, diff.out.as_str()),
                (Some(0), ""),
                "{of}: {diff:?}"
            );
            assert_eq!(again, before, "{of}: nothing would be written");
            Some(())
        })
        .await;
        if kind == "KmsSecret" {
            let object = world.object(name).await;
            is_synced = condition(&object, "Ready").is_some_and(|(is, ..)| is == "True");
        }
        kubectl(world, &["delete", &resource], "").await.done();
    }
    is_synced
}
