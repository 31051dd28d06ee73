//! The few calls about Leases, each with a deadline: a Lease that is renewed late is a Lease lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference};
use kube::api::{DeleteParams, ObjectMeta, PostParams, Preconditions};
use kube::{Api, ResourceExt as _};

use crate::metrics::Metrics;
use crate::sync::is_older;
use crate::sync::share::{DEAD, Found, Move, Record, next_move};

/// On every Lease of ours; its value is the group of replicas that share one work.
const LABEL: &str = "alikms.dev/replicas";
/// What a replica passes on.
pub(super) const NOTICES: &str = "alikms.dev/notices";
/// Nothing waits longer for the API server: a second renewal must fit in before the Lease has run out.
const DEADLINE: Duration = Duration::from_secs(3);
/// A Lease that changes under our hands is looked at again this often.
const TRIES: usize = 3;

/// Who this replica is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its name, and that of its Lease.
    pub name: String,
    /// Where the Lease is.
    pub namespace: String,
    /// Who else does the same work.
    pub group: String,
    /// This process among all that ever had the name.
    pub holder: String,
    /// The pod that it runs in, if that is in the namespace of the Lease.
    pub pod: Option<Pod>,
}

/// A pod, which takes the Lease with it when it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// Why a replica can't go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server does not let us.
    #[error(
        "the API server answers {1} to a Lease in namespace {0:?}: give the operator the Role of examples/rbac.yaml there, or name another namespace by --lease-namespace"
    )]
    Refused(String, u16),
    /// Something else has the name.
    #[error(
        "the Lease {0:?} of namespace {1:?} is none of this operator: name the replica otherwise by --replica-name"
    )]
    Foreign(String, String),
    /// Another process took the Lease.
    #[error(
        "another process took the Lease {0:?}: each replica needs a name of its own (--replica-name)"
    )]
    Replaced(String),
}

/// Why a Lease was not renewed.
pub(super) enum Failed {
    /// It may work the next time.
    For(String),
    /// It will not.
    ForGood(Error),
}

/// A call that the API server did not do.
enum Refusal {
    Api(u16),
    Silence,
}

/// Our own Lease, as the API server has it.
pub(super) struct Own(Lease);

impl Own {
    /// It was newer than what the API server shows now: that was put back to a backup.
    fn is_ahead_of(&self, shown: &Lease) -> bool {
        let version = |lease: &Lease| lease.resource_version().unwrap_or_default();
        is_older(&version(shown), &version(&self.0))
    }
}

/// The Leases of a namespace, for a replica.
pub(super) struct Leases {
    pub(super) api: Api<Lease>,
    pub(super) identity: Identity,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: fn() -> Timestamp,
}

impl Identity {
    /// What selects the Leases of all who do the same work.
    pub(super) fn selector(&self) -> String {
        format!("{LABEL}={}", self.group)
    }

    /// Our Lease as it should be from now on; its place in history is that of `before`.
    fn lease(&self, before: Option<&Lease>, notices: Option<String>, now: Timestamp) -> Lease {
        let spec = before.and_then(|lease| lease.spec.as_ref());
        let is_held = spec.is_some_and(|spec| spec.holder_identity.as_ref() == Some(&self.holder));
        let changes = spec.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        let acquired = spec.and_then(|spec| spec.acquire_time.clone());
        let mut metadata = before.map_or_else(
            || ObjectMeta {
                name: Some(self.name.clone()),
                ..ObjectMeta::default()
            },
            |lease| lease.metadata.clone(),
        );
        metadata.managed_fields = None;
        metadata.owner_references = self.pod.as_ref().map(|pod| vec![pod.reference()]);
        let labels = metadata.labels.get_or_insert_default();
        labels.insert(LABEL.into(), self.group.clone());
        let annotations: &mut BTreeMap<_, _> = metadata.annotations.get_or_insert_default();
        match notices {
            Some(text) => annotations.insert(NOTICES.into(), text),
            None => annotations.remove(NOTICES),
        };
        Lease {
            metadata,
            spec: Some(LeaseSpec {
                holder_identity: Some(self.holder.clone()),
                lease_duration_seconds: i32::try_from(DEAD.as_secs()).ok(),
                renew_time: Some(MicroTime(now)),
                acquire_time: acquired.filter(|_| is_held).or(Some(MicroTime(now))),
                lease_transitions: Some(if is_held || before.is_none() {
                    changes
                } else {
                    changes.saturating_add(1)
                }),
                ..LeaseSpec::default()
            }),
        }
    }
}

impl Pod {
    fn reference(&self) -> OwnerReference {
        OwnerReference {
            api_version: "v1".into(),
            kind: "Pod".into(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            ..OwnerReference::default()
        }
    }
}

/// What a Lease says of whoever holds it.
pub(super) fn read(lease: &Lease) -> Record {
    let spec = lease.spec.as_ref();
    let holder = spec.and_then(|spec| spec.holder_identity.clone());
    let renewed = spec.and_then(|spec| spec.renew_time.as_ref());
    Record {
        holder: holder.unwrap_or_default(),
        renewed: renewed.map(|time| time.0),
    }
}

impl Leases {
    /// Says that we are here, by a Lease of our own: the one that we know, or the one that there is, or a new one. Answers
    /// whether the API server was put back to a backup since the last time.
    pub(super) async fn renew(
        &self,
        own: &mut Option<Own>,
        notices: Option<String>,
    ) -> Result<bool, Failed> {
        let has_held = own.is_some();
        let is_past = |shown: &Lease| own.as_ref().is_some_and(|own| own.is_ahead_of(shown));
        let mut was_put_back = false;
        let mut known = own.as_ref().map(|Own(lease)| lease.clone());
        for _ in 0..TRIES {
            let written = self
                // Whoever held it in the past took it from nobody.
                .write(known.as_ref(), notices.clone(), has_held && !was_put_back)
                .await?;
            let refusal = match written {
                Ok(lease) => {
                    was_put_back |= is_past(&lease);
                    *own = Some(Own(lease));
                    return Ok(was_put_back);
                }
                Err(refusal) => refusal,
            };
            if !matches!(refusal, Refusal::Api(404 | 409)) {
                return Err(self.failed(&refusal, has_held));
            }
            // It is not as we knew it: look.
            let found = self.get().await;
            known = found.map_err(|refusal| self.failed(&refusal, has_held))?;
            was_put_back |= known.as_ref().is_some_and(is_past);
            if known.is_none() && matches!(refusal, Refusal::Api(404)) && !has_held {
                // Not the Lease is missing, but its namespace.
                return Err(self.failed(&refusal, has_held));
            }
        }
        Err(Failed::For("it changes all the time".into()))
    }

    async fn write(
        &self,
        known: Option<&Lease>,
        notices: Option<String>,
        has_held: bool,
    ) -> Result<Result<Lease, Refusal>, Failed> {
        let identity = &self.identity;
        let record = known.map(read);
        let found = known.zip(record.as_ref()).map(|(lease, record)| Found {
            holder: &record.holder,
            is_ours: lease.labels().contains_key(LABEL),
        });
        let next = next_move(found, &identity.holder, has_held);
        let lease = identity.lease(known, notices, (self.clock)());
        let (name, params) = (identity.name.as_str(), PostParams::default());
        Ok(match next {
            Move::Create => self.call("create", self.api.create(&params, &lease)).await,
            Move::Renew | Move::Take => {
                self.call("update", self.api.replace(name, &params, &lease))
                    .await
            }
            Move::Leave => return Err(Failed::ForGood(Error::Replaced(name.to_owned()))),
            Move::Refuse => {
                let (name, namespace) = (name.to_owned(), identity.namespace.clone());
                return Err(Failed::ForGood(Error::Foreign(name, namespace)));
            }
        })
    }

    async fn get(&self) -> Result<Option<Lease>, Refusal> {
        self.call("get", self.api.get_opt(&self.identity.name))
            .await
    }

    /// A replica that never had a Lease and may not have one says so and ends; later on, rights may come back.
    fn failed(&self, refusal: &Refusal, has_held: bool) -> Failed {
        match refusal {
            Refusal::Api(code @ (403 | 404 | 422)) if !has_held => {
                let namespace = self.identity.namespace.clone();
                Failed::ForGood(Error::Refused(namespace, *code))
            }
            Refusal::Api(code) => Failed::For(format!("the API server answered {code}")),
            Refusal::Silence => Failed::For("the API server did not answer".into()),
        }
    }

    /// Deletes our Lease, if it is still ours: the others see it at once.
    pub(super) async fn give_up(&self, own: Option<Own>) {
        let mut own = match own {
            Some(Own(lease)) => Some(lease),
            // The first renewal may have been made, although we did not wait for it.
            None => self.get().await.ok().flatten(),
        };
        own = own.filter(|lease| read(lease).holder == self.identity.holder);
        for _ in 0..TRIES {
            let Some(lease) = own else { return };
            match self.delete(&lease).await {
                Ok(()) => {
                    tracing::info!(lease = self.identity.name, "the Lease is given up");
                    return;
                }
                // A renewal that we did not wait for may have come between.
                Err(Refusal::Api(409)) => own = self.get().await.ok().flatten(),
                Err(_) => break,
            }
            own = own.filter(|lease| read(lease).holder == self.identity.holder);
        }
        let lease = &self.identity.name;
        tracing::warn!(
            lease,
            "the Lease could not be given up; the others wait until it has run out"
        );
    }

    /// Deletes the Lease of a replica that is long gone.
    pub(super) async fn sweep(&self, lease: &Lease) {
        if self.delete(lease).await.is_ok() {
            tracing::info!(
                lease = lease.name_any(),
                "the Lease of a dead replica is deleted"
            );
        }
    }

    async fn delete(&self, lease: &Lease) -> Result<(), Refusal> {
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: lease.uid(),
                resource_version: lease.resource_version(),
            }),
            ..DeleteParams::default()
        };
        let name = lease.name_any();
        match self.call("delete", self.api.delete(&name, &params)).await {
            Ok(_) | Err(Refusal::Api(404)) => Ok(()),
            Err(refusal) => Err(refusal),
        }
    }

    async fn call<T>(
        &self,
        verb: &'static str,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Refusal> {
        self.metrics.count_request(verb, "leases");
        match tokio::time::timeout(DEADLINE, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(kube::Error::Api(status))) => Err(Refusal::Api(status.code)),
            Ok(Err(_)) | Err(_) => Err(Refusal::Silence),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(holder: &str) -> Identity {
        Identity {
            name: "one".into(),
            namespace: "kms".into(),
            group: "cluster".into(),
            holder: holder.into(),
            pod: Some(Pod {
                name: "one".into(),
                uid: "u".into(),
            }),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_lease_tells_who_holds_it_since_when_and_of_how_many() {
        let spec = |lease: &Lease| lease.spec.clone().unwrap();
        let first = identity("a").lease(None, None, at(0));
        assert_eq!(
            first.metadata.owner_references.as_ref().unwrap()[0].uid,
            "u"
        );
        assert_eq!(spec(&first).lease_transitions, Some(0));
        assert_eq!(spec(&first).lease_duration_seconds, Some(15));
        let renewed = identity("a").lease(Some(&first), Some("[]".into()), at(4));
        assert_eq!(spec(&renewed).acquire_time, Some(MicroTime(at(0))));
        assert_eq!(spec(&renewed).renew_time, Some(MicroTime(at(4))));
        assert_eq!(renewed.annotations()[NOTICES], "[]");
        let taken = identity("b").lease(Some(&renewed), None, at(9));
        assert_eq!(spec(&taken).acquire_time, Some(MicroTime(at(9))));
        assert_eq!(spec(&taken).lease_transitions, Some(1));
        assert_eq!(read(&taken).holder, "b");
        assert!(!taken.annotations().contains_key(NOTICES));
    }
}
