//! `kubectl kmssecret`, found by kubectl in PATH.

use std::path::PathBuf;

use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kms_secret_operator::api::KmsSecret;
use kms_secret_operator::plugin::standing::Standing;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::docs::read;
use crate::kubectl::{Said, call};
use crate::world::World;

/// A folder that holds the plugin, as docs/plugin.md installs it.
struct Installed {
    folder: PathBuf,
}

impl Installed {
    fn new(world: &World) -> Self {
        let folder = std::env::temp_dir().join(format!("kso-plugin-{}", world.namespace));
        std::fs::create_dir(&folder).unwrap();
        let program = env!("CARGO_BIN_EXE_kms-secret-operator");
        std::os::unix::fs::symlink(program, folder.join("kubectl-kmssecret")).unwrap();
        Self { folder }
    }

    /// `kubectl kmssecret`, with the words that are separated by spaces and the namespace of the test.
    async fn call(&self, world: &World, words: &str) -> Said {
        let words = format!("{words} -n {}", world.namespace);
        self.call_plain(world, &words).await
    }

    async fn call_plain(&self, world: &World, words: &str) -> Said {
        let words = std::iter::once("kmssecret").chain(words.split(' '));
        let words: Vec<_> = words.collect();
        call(world, &words, "", Some(&self.folder)).await
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The names of the rows, from the top; the line that closes the table is not among them.
fn names(table: &str) -> Vec<&str> {
    let mut lines: Vec<_> = table.lines().skip(1).collect();
    lines.pop();
    let first = |line: &&str| line.starts_with(|c: char| c.is_lowercase());
    let names = lines.into_iter().filter(first);
    names
        .map(|line| line.split(' ').next().unwrap_or_default())
        .collect()
}

/// Lets a ServiceAccount do this with KmsSecrets, and nothing else; answers the flag to act as it.
async fn allow(world: &World, name: &str, verbs: &[&str]) -> String {
    let rules = json!([{"apiGroups": ["alikms.dev"], "resources": ["kmssecrets"], "verbs": verbs}]);
    world.apply::<Role>(name, json!({ "rules": rules })).await;
    let binding = json!({
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": world.namespace}],
    });
    world.apply::<RoleBinding>(name, binding).await;
    format!("--as system:serviceaccount:{}:{name}", world.namespace)
}

/// A world in which `text` is well, `denied` is not, and `resting` is suspended.
async fn world() -> (World, crate::world::Operator) {
    let (world, operator) = World::synced("top-secret-value").await;
    world.kms.put_generic("app/denied", "x");
    world.kms.deny("*", "app/denied");
    world.kms_secret("denied", "app/denied", json!({})).await;
    world.until_ready("denied", "False", "AccessDenied").await;
    world
        .kms_secret("resting", "app/text", json!({"suspend": true}))
        .await;
    world.until_ready("resting", "Unknown", "Suspended").await;
    (world, operator)
}

#[tokio::test]
async fn status_shows_the_worst_first_and_its_exit_code_tells() {
    let (world, operator) = world().await;
    let plugin = Installed::new(&world);
    let said = plugin.call(&world, "status").await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert_eq!(names(&said.out), ["denied", "text", "resting"], "{said:?}");
    assert!(said.out.contains("   AccessDenied   "), "{said:?}");
    let closing = "3 KmsSecrets: 1 failing, 1 fine, 1 suspended\n";
    assert!(said.out.ends_with(closing), "{said:?}");

    let problems = plugin.call(&world, "status --problems").await;
    assert_eq!(names(&problems.out), ["denied"]);
    assert!(problems.out.ends_with(closing), "all are counted");

    let good = plugin.call(&world, "status text resting").await;
    assert_eq!(good.code, Some(0), "{good:?}");
    assert_eq!(names(&good.out), ["text", "resting"]);
    let version = world.object("text").await.status.unwrap().sources[0]
        .version_id
        .clone();
    let wide = plugin.call(&world, "status text -o wide").await.done();
    assert!(wide.contains(&version) && wide.contains("prod"), "{wide}");

    let json = plugin.call(&world, "status -o json").await;
    assert_eq!(json.code, Some(1));
    let json: Value = serde_json::from_str(&json.out).unwrap();
    let first = &json["items"][0];
    assert_eq!(
        (&first["name"], &first["standing"]),
        (&"denied".into(), &"failing".into())
    );
    let message = first["message"].as_str().unwrap();
    assert!(message.contains("kms:GetSecretValue"), "{message}");

    operator.stop().await;
    world.kms_secret("new", "app/text", json!({})).await;
    let (last, next) = ("2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z");
    let times = json!({"status": {"lastSyncTime": last, "nextSyncTime": next}});
    let params = PatchParams::default();
    let api = world.api::<KmsSecret>();
    api.patch_status("text", &params, &Patch::Merge(times))
        .await
        .unwrap();
    let said = plugin.call(&world, "status").await;
    assert_eq!(names(&said.out), ["denied", "text", "new", "resting"]);
    assert!(said.out.contains(" late "), "{said:?}");
    let closing = "4 KmsSecrets: 1 failing, 1 late, 1 pending, 1 suspended\n";
    assert!(said.out.ends_with(closing), "{said:?}");
    for name in ["text", "new"] {
        let said = plugin.call(&world, &format!("status {name}")).await;
        assert_eq!(said.code, Some(1), "{said:?}");
    }
}

#[tokio::test]
async fn status_finds_what_is_meant_and_says_what_it_does_not_find() {
    let (world, _operator) = world().await;
    let plugin = Installed::new(&world);
    let label = json!({"metadata": {"labels": {"it": world.namespace}}});
    world.patch::<KmsSecret>("text", label).await;
    let selector = format!("-l it={}", world.namespace);
    let selected = plugin.call(&world, &format!("status {selector}")).await;
    assert_eq!(names(&selected.done()), ["text"]);
    let everywhere = format!("status -A {selector}");
    let everywhere = plugin.call_plain(&world, &everywhere).await.done();
    assert!(everywhere.starts_with("NAMESPACE "), "{everywhere}");
    assert_eq!(names(&everywhere), [world.namespace.as_str()]);

    let unknown = plugin.call(&world, "status text nobody").await;
    assert_eq!(unknown.code, Some(1));
    assert_eq!(names(&unknown.out), ["text"]);
    let place = format!("in namespace {:?}", world.namespace);
    let told = format!("there is no KmsSecret \"nobody\" {place}\n");
    assert_eq!(unknown.err, told);
    let nothing = plugin.call(&world, "status -l it=nobody").await;
    let told = format!("no KmsSecrets found {place}\n");
    let nothing = (nothing.code, nothing.out.as_str(), nothing.err.as_str());
    assert_eq!(nothing, (Some(0), "", told.as_str()));
    let wrong = plugin.call(&world, "status --output yaml").await;
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
    let context = plugin.call(&world, "status --context nowhere").await;
    assert_eq!(context.code, Some(1));
    assert!(context.err.contains("nowhere"), "{context:?}");
}

#[tokio::test]
async fn nothing_but_kms_secrets_has_to_be_readable() {
    let (world, _operator) = world().await;
    let plugin = Installed::new(&world);
    let viewer = allow(&world, "viewer", &["get", "list", "watch"]).await;
    for words in ["status", "status denied"] {
        let said = plugin.call(&world, &format!("{words} {viewer}")).await;
        assert!(said.out.contains("AccessDenied"), "{said:?}");
    }
    let stranger = viewer.replace("viewer", "stranger");
    for (words, who, verb, role) in [
        ("status", &stranger, "list", "view"),
        ("status text", &stranger, "get", "view"),
        ("sync text", &viewer, "patch", "edit"),
        ("sync --all", &stranger, "list", "view"),
    ] {
        let said = plugin.call(&world, &format!("{words} {who}")).await;
        assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{said:?}");
        let place = format!("the KmsSecrets of namespace {:?}", world.namespace);
        let told = format!("you may not {verb} {place}");
        assert!(said.err.contains(&told), "{said:?}");
        assert!(said.err.contains(&format!("the role {role} ")), "{said:?}");
        assert!(said.err.contains("is forbidden: User"), "{said:?}");
        assert!(
            !said.err.contains("Status"),
            "nothing for programmers: {said:?}"
        );
    }
    let patcher = allow(&world, "patcher", &["patch"]).await;
    let asked = plugin.call(&world, &format!("sync text {patcher}")).await;
    assert_eq!(asked.done(), "text: asked for a sync\n");
    let waiting = format!("sync text --wait {patcher}");
    let waiting = plugin.call(&world, &waiting).await;
    assert!(waiting.err.contains("you may not watch"), "{waiting:?}");
}

#[tokio::test]
async fn sync_reads_now_and_tells_what_became_of_it() {
    let (world, operator) = world().await;
    let plugin = Installed::new(&world);
    world.kms.put_generic("app/text", "changed by hand");
    let said = plugin.call(&world, "sync text --wait").await.done();
    assert!(said.starts_with("text: Ready is True, Synced: "), "{said}");
    let now = world.text("text", "value").await;
    assert_eq!(
        now.as_deref(),
        Some("changed by hand"),
        "it was done by then"
    );
    let fields = world.object("text").await.metadata.managed_fields.unwrap();
    let managers: Vec<_> = fields
        .iter()
        .filter_map(|is| is.manager.as_deref())
        .collect();
    assert!(managers.contains(&"kubectl-kmssecret"), "{managers:?}");

    let all = plugin.call(&world, "sync --all --wait").await;
    assert_eq!(all.code, Some(1));
    let lines: Vec<_> = all.out.lines().collect();
    assert!(lines[0].starts_with("denied: Ready is False, AccessDenied: "));
    assert!(
        lines[1].starts_with("resting: spec.suspend is true"),
        "{all:?}"
    );
    assert!(
        lines[2].starts_with("text: Ready is True, Synced: "),
        "{all:?}"
    );

    let unknown = plugin.call(&world, "sync nobody text").await;
    assert_eq!(unknown.code, Some(1));
    let told = "nobody: there is no such KmsSecret\ntext: asked for a sync\n";
    assert_eq!(unknown.out, told);
    let nothing = plugin.call(&world, "sync -l it=nobody").await;
    assert_eq!(
        (nothing.code, nothing.err.as_str()),
        (Some(0), "no KmsSecrets found\n")
    );

    operator.stop().await;
    let asked = plugin.call(&world, "sync text").await.done();
    assert_eq!(asked, "text: asked for a sync\n");
    let in_vain = plugin.call(&world, "sync text --wait --timeout 1s").await;
    assert_eq!(in_vain.code, Some(1));
    assert!(
        in_vain.out.starts_with("text: not done in time"),
        "{in_vain:?}"
    );
}

#[tokio::test]
async fn check_asks_kms_under_the_same_name() {
    let (world, _operator) = world().await;
    let plugin = Installed::new(&world);
    let words = format!("check text --allow-endpoint {}", world.kms.origin());
    let said = plugin.call(&world, &words).await.done();
    assert_eq!(said, "text source app/text: can be read\n");
}

#[test]
fn every_standing_is_described() {
    let page = read("docs/plugin.md");
    for standing in Standing::ALL.map(Standing::as_str) {
        assert!(page.contains(&format!("| `{standing}` |")), "{standing}");
    }
}
