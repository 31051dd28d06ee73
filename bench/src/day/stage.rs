//! Who takes part in a day: the KmsSecrets of all courses, and visitors that come and go.

use std::time::Instant;

use anyhow::Result;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kms_secret_operator::api::{KmsSecret, SYNC_ANNOTATION};
use kms_secret_operator::sync::hash::fnv1a;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use super::course::{COURSES, Course, Refresh, Scale};
use super::timing::Timing;
use crate::world::{CONNECTIONS, NEAR, World, object_name, secret_name};

/// One in so many KmsSecrets is created, and one deleted, in each hour.
const VISITORS: usize = 200;
/// One in so many has its sync forced in each hour.
const FORCED: usize = 400;

/// A KmsSecret of a course.
pub(crate) struct Object {
    pub(crate) number: usize,
    pub(crate) course: &'static Course,
    /// Of its uid: it decides on spread and jitter.
    pub(crate) hash: u64,
    /// So often was its sync forced.
    pub(crate) forced: u64,
}

pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) scale: Scale,
    pub(crate) objects: Vec<Object>,
    /// The numbers of those that came and went, and of those that are there.
    pub(crate) visitors: std::ops::Range<usize>,
    staying: std::ops::Range<usize>,
}

impl Stage {
    /// Puts so many secrets into KMS; rotations of one period are spread evenly over it.
    pub(crate) async fn set(count: usize, scale: Scale) -> Result<Self> {
        let world = World::new(NEAR).await?;
        let of_course = count.div_ceil(COURSES.len());
        for number in 0..count {
            #[expect(clippy::cast_precision_loss, reason = "a part of a number of objects")]
            let part = (number / COURSES.len() + 1) as f64 / of_course as f64;
            course(number).put(&world.kms, number, scale, part);
        }
        Ok(Self {
            world,
            scale,
            objects: Vec::new(),
            visitors: count..count,
            staying: count..count,
        })
    }

    /// Creates a KmsSecret for each of the first `count` secrets.
    pub(crate) async fn fill(&mut self, count: usize) -> Result<()> {
        let world = &self.world;
        let creating = (0..count).map(async |number| {
            let course = course(number);
            let manifest = course.manifest(number, self.scale);
            let created: KmsSecret = world.create(manifest).await?;
            anyhow::Ok(Object {
                number,
                course,
                hash: fnv1a(&created.uid().unwrap_or_default()),
                forced: 0,
            })
        });
        let created = stream::iter(creating).buffer_unordered(CONNECTIONS);
        self.objects = created.try_collect().await?;
        self.objects.sort_by_key(|object| object.number);
        Ok(())
    }

    /// What people do in an hour: some KmsSecrets are created, those of the hour before are deleted.
    pub(crate) async fn receive_visitors(&mut self) -> Result<()> {
        let api = self.world.api::<KmsSecret>();
        for number in self.staying.clone() {
            api.delete(&object_name(number), &DeleteParams::default())
                .await?;
        }
        let first = self.visitors.end;
        self.staying = first..first + self.objects.len().div_ceil(VISITORS);
        self.visitors.end = self.staying.end;
        for number in self.staying.clone() {
            // They are read when they come, and by no time.
            let course = &COURSES[COURSES.len() - 1];
            course.put(&self.world.kms, number, self.scale, 1.0);
            let created = self
                .world
                .create::<KmsSecret>(course.manifest(number, self.scale));
            created.await?;
        }
        Ok(())
    }

    /// Forces a sync of some that nothing else makes the operator read, each at most once.
    pub(crate) async fn force(&mut self) -> Result<()> {
        let api = self.world.api::<KmsSecret>();
        let some = self.objects.len().div_ceil(FORCED);
        let idle = |object: &&mut Object| {
            object.forced == 0 && matches!(object.course.refresh, Refresh::OnChange)
        };
        for object in self.objects.iter_mut().filter(idle).take(some) {
            let annotation = json!({SYNC_ANNOTATION: "once"});
            let patch = Patch::Merge(json!({"metadata": {"annotations": annotation}}));
            let name = object_name(object.number);
            api.patch_metadata(&name, &PatchParams::default(), &patch)
                .await?;
            object.forced += 1;
        }
        Ok(())
    }

    /// What time does to each of them.
    pub(crate) fn timings(&self) -> impl Iterator<Item = Timing> {
        let objects = self.objects.iter();
        objects.map(|object| object.course.timing(self.scale))
    }

    /// When its secret rotated.
    pub(crate) fn rotations(&self, object: &Object) -> Vec<Instant> {
        let history = self.world.kms.history(&secret_name(object.number));
        history.iter().skip(1).map(|readable| readable.at).collect()
    }
}

fn course(number: usize) -> &'static Course {
    &COURSES[number % COURSES.len()]
}
