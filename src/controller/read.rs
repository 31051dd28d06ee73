//! The reads of one sync: every source, of one moment, and none of them older than what was known.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::try_join_all;
use jiff::Timestamp;
use kube::ResourceExt as _;

use super::Context;
use super::gather::Round;
use super::readers;
use crate::alibaba::Class;
use crate::alibaba::endpoint::Origin;
use crate::alibaba::reader::{Rank, Reader, Wish};
use crate::alibaba::secret_value::SecretValue;
use crate::api::KmsSecret;
use crate::api::kms_secret::{SourceRef, SourceStatus, StoreStatus};
use crate::sync::plan::Why;
use crate::sync::shape::{self, Data, Sourced, Wanted};
use crate::sync::sources::{self, Known};
use crate::sync::{Failure, Reason};

/// Two versions of one secret that was rotated in between are read so often at most.
const TRIES: usize = 3;

/// What was read.
pub(super) struct Fetched<'a> {
    /// When the first read began.
    pub(super) read_at: Timestamp,
    /// The store that was read through.
    pub(super) store: StoreStatus,
    pub(super) origin: Origin,
    /// The time of KMS.
    pub(super) kms_now: Timestamp,
    /// What the status says of the sources that exist.
    pub(super) told: Vec<SourceStatus>,
    values: Vec<Read<'a>>,
}

/// A source and its value; `None`: it is optional and does not exist.
type Read<'a> = (SourceRef<'a>, Option<Arc<SecretValue>>);

impl Fetched<'_> {
    /// Makes the data of the Secret; what may take long, on a thread of its own.
    pub(super) async fn shape(
        &self,
        object: &KmsSecret,
        context: &Context,
    ) -> Result<Data, Failure> {
        let values = self.values.iter();
        let values: Vec<_> = values
            .map(|(named, value)| (named.name.to_owned(), value.clone()))
            .collect();
        if !shape::is_costly(&wanted(object)) {
            return shape::shape(&wanted(object), &sourced(&values));
        }
        let _permit = context.shapers.acquire().await;
        let object = object.clone();
        let shaped =
            tokio::task::spawn_blocking(move || shape::shape(&wanted(&object), &sourced(&values)));
        shaped.await.unwrap_or_else(|_| {
            Err(Failure::new(
                Reason::Conflict,
                "the operator is stopping",
                "no action needed: it is tried again",
            ))
        })
    }
}

fn wanted(object: &KmsSecret) -> Wanted<'_> {
    Wanted {
        data: &object.spec.data,
        extract: &object.spec.extract,
        target_type: object.target_type(),
        uid: object.metadata.uid.as_deref().unwrap_or_default(),
    }
}

/// The values, under their sources' names.
fn sourced(values: &[(String, Option<Arc<SecretValue>>)]) -> Vec<Sourced<'_>> {
    let values = values.iter().map(|(name, value)| Sourced {
        name,
        value: value.as_deref(),
    });
    values.collect()
}

impl<'a> Round<'a> {
    /// Reads every source, and checks the answers.
    pub(super) async fn fetch(&self, why: Why) -> Result<Fetched<'a>, Failure> {
        let read_at = (self.context.clock)();
        let store = self.store.as_ref().map_err(Clone::clone)?;
        let link = readers::link(store, self.context).boxed().await?;
        let values = self.read_all(&link.reader, rank(why), &store.name).await?;
        let kms_now = read_at + self.context.kms.offset(&store.origin);
        let there = values
            .iter()
            .filter_map(|(named, value)| Some((named, value.as_ref()?)));
        let told = there.map(|(named, value)| {
            let known = self.known(named, &store.status, kms_now);
            sources::believe(*named, &value.facts, &known)
        });
        Ok(Fetched {
            read_at,
            store: store.status.clone(),
            origin: store.origin.clone(),
            kms_now,
            told: told.collect::<Result<_, _>>()?,
            values,
        })
    }

    /// Reads the sources, current versions first, until no rotation came in between.
    async fn read_all(
        &self,
        reader: &Reader,
        rank: Rank,
        store: &str,
    ) -> Result<Vec<Read<'a>>, Failure> {
        let wanted = self.object.spec.all_sources();
        let mut moved = "";
        for _ in 0..TRIES {
            let mut values = self
                .read_some(reader, rank, store, &wanted, sources::is_first)
                .await?;
            let others = |source: &_| !sources::is_first(source);
            values.extend(self.read_some(reader, rank, store, &wanted, others).await?);
            values.sort_by_key(|(index, _)| *index);
            let values: Vec<Read<'a>> = values.into_iter().map(|(_, read)| read).collect();
            let facts: Vec<_> = values
                .iter()
                .filter_map(|(named, value)| Some((*named, &value.as_ref()?.facts)))
                .collect();
            let Some(name) = sources::straddled(&facts) else {
                return Ok(values);
            };
            moved = name;
        }
        Err(sources::torn(moved))
    }

    /// Reads those of the sources that meet a condition; each with its place among all.
    async fn read_some(
        &self,
        reader: &Reader,
        rank: Rank,
        store: &str,
        wanted: &[SourceRef<'a>],
        is_one: impl Fn(&crate::api::kms_secret::Source) -> bool,
    ) -> Result<Vec<(usize, Read<'a>)>, Failure> {
        let tenant: Arc<str> = self.object.namespace().unwrap_or_default().into();
        let has_followers = self.context.objects.is_busy();
        let some = wanted
            .iter()
            .enumerate()
            .filter(|(_, named)| is_one(named.source));
        let reads = some.map(|(index, named)| {
            let read = reader.read(Wish {
                request: sources::request(named.source),
                rank,
                tenant: Arc::clone(&tenant),
                has_followers,
            });
            async move {
                match read.await {
                    Ok(value) => Ok((index, (*named, Some(value)))),
                    Err(err) if named.optional && err.class() == Class::NotFound => {
                        Ok((index, (*named, None)))
                    }
                    Err(err) => Err(Failure::of_kms(&err, &named.source.secret_name, store)),
                }
            }
        });
        try_join_all(reads).await
    }

    /// What was known of a source, if it is still the same secret of the same store.
    fn known(&self, named: &SourceRef<'_>, store: &StoreStatus, kms_now: Timestamp) -> Known<'_> {
        let (memory, status) = (&self.memory, &self.memory.status);
        let is_same_store = status
            .store
            .as_ref()
            .is_some_and(|old| old.uid == store.uid);
        let last = status
            .sources
            .iter()
            .find(|last| last.name == named.name && last.secret_name == named.source.secret_name);
        let stale = memory
            .backoff
            .as_ref()
            .filter(|backoff| backoff.reason == Reason::StaleAnswer);
        Known {
            last: last.filter(|_| is_same_store),
            replaced: memory.replaced.get(named.name),
            is_same_spec: status.observed_generation == self.object.metadata.generation,
            stale_for: stale.map(|backoff| self.now.duration_since(backoff.since)),
            kms_now,
        }
    }
}

/// New, changed and rotated go before periodic: somebody waits for them.
fn rank(why: Why) -> Rank {
    match why {
        Why::Forced => Rank::Forced,
        Why::New | Why::Missing | Why::Changed | Why::Hinted | Why::Drift | Why::Rotation => {
            Rank::Urgent
        }
        Why::Retry | Why::Store | Why::Due => Rank::Later,
    }
}
