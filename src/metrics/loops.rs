//! What the loops know of their work, asked at each scrape: nothing is kept of what is gone.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::objects::{self, Stands};
use super::series::{Named, count};
use super::stores::{self, StoreLabels};
use crate::alibaba::reader::Glance;

/// Reconciles at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// So many wait for a place.
    pub waiting: usize,
    /// So many are under way.
    pub under_way: usize,
    /// So many began, ever.
    pub begun: u64,
}

/// What one loop knows at one moment.
#[derive(Default)]
pub struct Sight {
    /// The stores that are in use.
    pub stores: Vec<(StoreLabels, Glance)>,
    /// The objects of this replica's share.
    pub objects: Vec<Stands>,
    /// Reconciles of objects.
    pub object_load: Load,
    /// Looks at stores.
    pub store_load: Load,
}

/// Tells what a loop knows.
type Look = Box<dyn Fn() -> Sight + Send + Sync>;

/// All loops.
#[derive(Clone)]
pub(super) struct Loops {
    looks: Arc<Mutex<Vec<Look>>>,
    /// Each object has metrics of its own.
    with_each: bool,
}

impl Loops {
    pub(super) fn new(with_each: bool) -> Self {
        Self {
            looks: Arc::default(),
            with_each,
        }
    }

    pub(super) fn add(&self, look: impl Fn() -> Sight + Send + Sync + 'static) {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        looks.push(Box::new(look));
    }

    fn look(&self) -> Sight {
        let looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = Sight::default();
        for sight in looks.iter().map(|look| look()) {
            all.stores.extend(sight.stores);
            all.objects.extend(sight.objects);
            all.object_load = all.object_load.and(sight.object_load);
            all.store_load = all.store_load.and(sight.store_load);
        }
        all
    }
}

impl Load {
    /// Both of them together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            waiting: self.waiting + other.waiting,
            under_way: self.under_way + other.under_way,
            begun: self.begun + other.begun,
        }
    }
}

impl fmt::Debug for Loops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Loops")
    }
}

impl Collector for Loops {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let sight = self.look();
        stores::encode(&sight.stores, &mut encoder)?;
        objects::encode(&sight.objects, &mut encoder)?;
        if self.with_each {
            objects::encode_each(&sight.objects, &mut encoder)?;
        }
        let loads = [("objects", sight.object_load), ("stores", sight.store_load)];
        let each =
            |value: fn(Load) -> usize| loads.map(|(of, load)| ([("of", of)], count(value(load))));
        Named(
            "reconciles_waiting",
            "Objects, and stores, that wait for a place to be looked at",
            None,
        )
        .gauges(&mut encoder, each(|load| load.waiting))?;
        Named(
            "reconciles_under_way",
            "Objects, and stores, that are being looked at",
            None,
        )
        .gauges(&mut encoder, each(|load| load.under_way))
    }
}
