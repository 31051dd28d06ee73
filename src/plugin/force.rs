//! `kubectl kmssecret sync`: reads KMS now, by the annotation that forces a sync.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;

use clap::{ArgGroup, Args};
use futures::StreamExt as _;
use jiff::SignedDuration;
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use super::{Access, Error, is_missing, line};
use crate::api::kms_secret::RefreshPolicy;
use crate::api::{KmsSecret, SYNC_ANNOTATION, parse_duration};
use crate::sync::status;

/// Who set the annotation, in the managed fields.
const FIELD_MANAGER: &str = "kubectl-kmssecret";

/// Which KmsSecrets are read now.
#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("which").args(["names", "all", "selector"]).required(true))]
pub struct Force {
    /// Names of KmsSecrets.
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// All of the namespace.
    #[arg(long)]
    pub all: bool,
    /// Those with these labels, such as team=shop.
    #[arg(long, short = 'l', value_name = "SELECTOR")]
    pub selector: Option<String>,
    /// Wait until the operator has done it, and tell what became of it.
    #[arg(long)]
    pub wait: bool,
    /// How long to wait.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration, requires = "wait")]
    pub timeout: SignedDuration,
    /// Which cluster, and as whom.
    #[command(flatten)]
    pub access: Access,
}

fn duration(text: &str) -> Result<SignedDuration, String> {
    parse_duration(text).ok_or_else(|| format!("{text:?} is not a duration, as 1m or 90s"))
}

/// What became of one KmsSecret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its name.
    pub name: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of asking for a sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The annotation is set, and nobody waited.
    Asked,
    /// It was handled, and ended so.
    Handled {
        /// Value of the condition `Ready`.
        ready: String,
        /// Its reason.
        reason: String,
        /// Its message.
        message: String,
    },
    /// It was not handled in time.
    Unhandled,
    /// There is no such object, or no more.
    Missing,
    /// `spec.suspend` forbids it.
    Suspended,
    /// `refresh.policy: Once`, and it was.
    Done,
}

impl Outcome {
    /// Whether that is what was asked for.
    #[must_use]
    pub fn is_fine(&self) -> bool {
        match self {
            Self::Asked => true,
            Self::Handled { ready, .. } => ready == "True",
            Self::Unhandled | Self::Missing | Self::Suspended | Self::Done => false,
        }
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name)?;
        match &self.outcome {
            Outcome::Asked => f.write_str("asked for a sync"),
            Outcome::Handled {
                ready,
                reason,
                message,
            } => write!(f, "Ready is {ready}, {reason}: {}", line(message)),
            Outcome::Unhandled => f.write_str(
                "not done in time: the operator does not run, or waits for KMS, or has much to do; `kubectl kmssecret status` tells how it stands",
            ),
            Outcome::Missing => f.write_str("there is no such KmsSecret"),
            Outcome::Suspended => {
                f.write_str("spec.suspend is true, so it is not read; set it to false first")
            }
            Outcome::Done => f.write_str(
                "refresh.policy is Once, and it was read: only a missing Secret makes it read again",
            ),
        }
    }
}

/// Asks for a sync of the KmsSecrets that are meant, each by the same new `token`.
///
/// # Errors
/// The API server does not let us.
pub async fn ask(flags: &Force, client: Client, token: &str) -> Result<Vec<Asked>, Error> {
    let namespace = flags.access.namespace(&client);
    let api: Api<KmsSecret> = Api::namespaced(client, &namespace);
    let names = named(flags, &api)
        .await
        .map_err(|err| Error::of(&err, "list", Some(&namespace)))?;
    let mut outcomes = BTreeMap::new();
    for name in names {
        let outcome = match annotate(&api, &name, token).await {
            Ok(object) => without_a_read(&object).unwrap_or(Outcome::Asked),
            Err(err) if is_missing(&err, &name) => Outcome::Missing,
            Err(err) => return Err(Error::of(&err, "patch", Some(&namespace))),
        };
        outcomes.insert(name, outcome);
    }
    if flags.wait {
        let timeout = flags.timeout.unsigned_abs();
        match tokio::time::timeout(timeout, follow(&api, &mut outcomes, token)).await {
            Ok(followed) => followed.map_err(|err| Error::of(&err, "watch", Some(&namespace)))?,
            Err(_) => outcomes
                .values_mut()
                .filter(|outcome| **outcome == Outcome::Asked)
                .for_each(|outcome| *outcome = Outcome::Unhandled),
        }
    }
    let asked = outcomes.into_iter();
    Ok(asked
        .map(|(name, outcome)| Asked { name, outcome })
        .collect())
}

async fn named(flags: &Force, api: &Api<KmsSecret>) -> kube::Result<Vec<String>> {
    if !flags.names.is_empty() {
        return Ok(flags.names.clone());
    }
    let mut params = ListParams::default();
    params.label_selector.clone_from(&flags.selector);
    let listed = api.list_metadata(&params).await?;
    let names = listed.items.into_iter();
    Ok(names.filter_map(|object| object.metadata.name).collect())
}

async fn annotate(api: &Api<KmsSecret>, name: &str, token: &str) -> kube::Result<KmsSecret> {
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let patch = json!({"metadata": {"annotations": {SYNC_ANNOTATION: token}}});
    api.patch(name, &params, &Patch::Merge(patch)).await
}

/// Follows all that was asked for until it is handled: one watch, however many they are.
async fn follow(
    api: &Api<KmsSecret>,
    outcomes: &mut BTreeMap<String, Outcome>,
    token: &str,
) -> kube::Result<()> {
    let mut events = pin!(watcher(api.clone(), watcher::Config::default()).default_backoff());
    while outcomes.values().any(|is| *is == Outcome::Asked) {
        let (name, outcome) = match events.next().await {
            Some(Ok(Event::Apply(object) | Event::InitApply(object))) => {
                (object.name_any(), judge(&object, token))
            }
            Some(Ok(Event::Delete(object))) => (object.name_any(), Some(Outcome::Missing)),
            Some(Err(
                watcher::Error::InitialListFailed(err) | watcher::Error::WatchStartFailed(err),
            )) if is_forbidden(&err) => {
                return Err(err);
            }
            // What passes by itself is tried again until the time is up.
            Some(Ok(Event::Init | Event::InitDone) | Err(_)) => continue,
            None => break,
        };
        if let (Some(asked), Some(outcome)) = (outcomes.get_mut(&name), outcome)
            && *asked == Outcome::Asked
        {
            *asked = outcome;
        }
    }
    Ok(())
}

fn is_forbidden(err: &kube::Error) -> bool {
    matches!(err, kube::Error::Api(status) if status.is_forbidden())
}

/// What became of a sync, as soon as the object tells.
fn judge(object: &KmsSecret, token: &str) -> Option<Outcome> {
    if let Some(outcome) = without_a_read(object) {
        return Some(outcome);
    }
    let status = object.status.as_ref()?;
    let (ready, reason) = status::ready(status)?;
    (status.last_handled_sync.as_deref() == Some(token)).then(|| Outcome::Handled {
        ready: ready.to_owned(),
        reason: reason.to_owned(),
        message: status::ready_message(status).to_owned(),
    })
}

/// Why the annotation reads nothing.
fn without_a_read(object: &KmsSecret) -> Option<Outcome> {
    if object.spec.suspend == Some(true) {
        return Some(Outcome::Suspended);
    }
    let status = object.status.as_ref()?;
    let is_current = status.observed_generation == object.metadata.generation;
    let is_once = object.refresh_policy() == RefreshPolicy::Once;
    (is_once && is_current && status::is_ready(status)).then_some(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn object(spec: &Value, handled: &str, ready: &str) -> KmsSecret {
        let mut all = json!({"storeRef": {"name": "kms"}, "source": {"secretName": "a"}});
        for (field, value) in spec.as_object().unwrap() {
            all[field] = value.clone();
        }
        let condition = json!({
            "type": "Ready", "status": ready, "reason": "Why", "message": "what\u{7}", "lastTransitionTime": "2026-01-01T00:00:00Z",
        });
        serde_json::from_value(json!({
            "apiVersion": "alikms.dev/v1alpha1", "kind": "KmsSecret",
            "metadata": {"name": "db", "generation": 2},
            "spec": all,
            "status": {"observedGeneration": 2, "lastHandledSync": handled, "conditions": [condition]},
        }))
        .unwrap()
    }

    #[test]
    fn only_the_sync_that_was_asked_for_counts() {
        let plain = json!({});
        assert_eq!(judge(&object(&plain, "before", "True"), "now"), None);
        for ready in ["True", "False"] {
            let outcome = judge(&object(&plain, "now", ready), "now").unwrap();
            assert_eq!(outcome.is_fine(), ready == "True");
            let name = "db".to_owned();
            assert_eq!(
                Asked { name, outcome }.to_string(),
                format!("db: Ready is {ready}, Why: what ")
            );
        }
    }

    #[test]
    fn what_the_annotation_cannot_wake_is_not_waited_for() {
        let suspended = object(&json!({"suspend": true}), "before", "True");
        assert_eq!(judge(&suspended, "now"), Some(Outcome::Suspended));
        let once = json!({"refresh": {"policy": "Once"}});
        let done = object(&once, "before", "True");
        assert_eq!(judge(&done, "now"), Some(Outcome::Done));
        assert_eq!(judge(&object(&once, "before", "False"), "now"), None);
    }
}
