//! A random walk: secrets rotate, specs and Secrets are edited, replicas are killed, the API server and KMS fail, all at
//! once. Whatever happens, every Secret holds whole values that KMS really had, never one older than it held before; and
//! once the faults end, all are current.
//!
//! The seed is printed; `WALK_SEED` walks the same way again, as far as the timing of the processes allows.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use k8s_openapi::api::core::v1::Secret;
use kms_emulator::{Effect, Fault};
use kms_secret_operator::api::KmsSecret;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::gate::{Asked, Fate, Gate};
use crate::witness::{Data, State, Witness};
use crate::world::{Operator, World, eventually};

const OBJECTS: usize = 16;
const REPLICAS: usize = 2;
/// A key that only somebody else writes: such a state is not the operator's.
const FOREIGN: &str = "foreign";

/// The walk that `make test` takes.
const SHORT: Duration = Duration::from_secs(20);

#[expect(clippy::disallowed_methods, reason = "a test's own configuration")]
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// What the requests of the replicas meet while it storms.
fn weather(storms: &Arc<AtomicBool>, seed: u64) -> Gate {
    let storms = Arc::clone(storms);
    let rng = std::sync::Mutex::new(Rng::with_seed(seed));
    Gate::new(move |asked: &Asked| {
        if !storms.load(Ordering::Relaxed) {
            return Fate::Pass;
        }
        let mut rng = rng.lock().unwrap();
        // A Lease that is lost again and again would only make both replicas idle.
        if rng.f64() > if asked.is_of_lease() { 0.02 } else { 0.15 } {
            return Fate::Pass;
        }
        let fates = [
            Fate::Lost,
            Fate::Unanswered,
            Fate::Refused(409),
            Fate::Refused(429),
            Fate::Refused(500),
        ];
        match rng.choice(fates).unwrap_or(Fate::Pass) {
            // The answer of a watch has no end that could be waited for.
            Fate::Unanswered if asked.is_watch => Fate::Refused(410),
            fate => fate,
        }
    })
}

/// The keys that a KmsSecret can be told to make, each with the whole value.
const SHAPES: [&[&str]; 3] = [&["value"], &["value", "copy"], &["other"]];

fn spec(shape: usize) -> Value {
    let keys = SHAPES[shape].iter().map(|key| json!({"key": key}));
    json!({"data": keys.collect::<Vec<_>>(), "refresh": {"interval": "3s"}})
}

/// One object of the walk.
#[derive(Default)]
struct Course {
    /// The number of its current value.
    value: u32,
    shape: usize,
    /// How often its Secret was made to go.
    deletions: usize,
}

struct Walk {
    world: World,
    rng: Rng,
    storms: Arc<AtomicBool>,
    replicas: Vec<Operator>,
    courses: Vec<Course>,
}

fn object(n: usize) -> String {
    format!("o{n}")
}

fn text(n: usize, value: u32) -> String {
    format!("{n}/{value}")
}

impl Walk {
    async fn begin(seed: u64) -> Self {
        let world = World::new().await;
        let mut walk = Self {
            world,
            rng: Rng::with_seed(seed),
            storms: Arc::default(),
            replicas: Vec::new(),
            courses: Vec::new(),
        };
        for _ in 0..REPLICAS {
            let replica = walk.start().await;
            walk.replicas.push(replica);
        }
        for n in 0..OBJECTS {
            walk.courses.push(Course::default());
            walk.rotate(n);
            walk.apply(n).await;
        }
        walk
    }

    async fn start(&mut self) -> Operator {
        let gate = weather(&self.storms, self.rng.u64(..));
        let client = self.world.cluster.client_behind(&gate).await;
        let flags = ["--namespace", self.world.namespace.as_str()];
        self.world.start(client, &flags, |_| ()).await
    }

    fn rotate(&mut self, n: usize) {
        let course = &mut self.courses[n];
        course.value += 1;
        self.world
            .kms
            .put_generic(&object(n), &text(n, course.value));
    }

    async fn apply(&self, n: usize) {
        let spec = spec(self.courses[n].shape);
        self.world.kms_secret(&object(n), &object(n), spec).await;
    }

    /// Does something to somebody.
    async fn step(&mut self) {
        let n = self.rng.usize(..OBJECTS);
        match self.rng.u32(..100) {
            0..30 => self.rotate(n),
            30..45 => {
                self.rotate(n);
                self.world.force(&object(n)).await;
            }
            45..60 => {
                self.courses[n].shape = self.rng.usize(..SHAPES.len());
                self.apply(n).await;
            }
            60..68 => self.tamper(n).await,
            68..72 => {
                self.courses[n].deletions += 1;
                self.delete_secret(n).await;
            }
            72..76 => {
                // The collector may find the old Secret, or the new object takes it over before.
                self.courses[n].deletions += 1;
                self.world.delete::<KmsSecret>(&object(n)).await;
                self.apply(n).await;
            }
            76..84 => self.kms_fails(),
            84..88 => self.world.kms.clear_faults(),
            88..92 => {
                let replica = self.rng.usize(..REPLICAS);
                let new = self.start().await;
                std::mem::replace(&mut self.replicas[replica], new).kill();
            }
            92..94 => {
                let replica = self.rng.usize(..REPLICAS);
                let new = self.start().await;
                std::mem::replace(&mut self.replicas[replica], new)
                    .stop()
                    .await;
            }
            _ => {
                let storms = self.rng.bool();
                self.storms.store(storms, Ordering::Relaxed);
            }
        }
        tokio::time::sleep(Duration::from_millis(self.rng.u64(..60))).await;
    }

    /// Puts something else into a Secret, or takes the operator's mark from it.
    async fn tamper(&mut self, n: usize) {
        let patch = if self.rng.bool() {
            json!({"stringData": {FOREIGN: "x", "value": "x"}})
        } else {
            json!({"metadata": {"labels": {"alikms.dev/managed": null}}})
        };
        let api = self.world.api::<Secret>();
        // It need not be there.
        let _ = api
            .patch(&object(n), &PatchParams::default(), &Patch::Merge(patch))
            .await;
    }

    async fn delete_secret(&self, n: usize) {
        let api = self.world.api::<Secret>();
        let _ = api.delete(&object(n), &DeleteParams::default()).await;
    }

    fn kms_fails(&mut self) {
        let faults = [
            Fault::code("InternalFailure"),
            Fault::code("Rejected.Throttling"),
            Fault::code("Forbidden.NoPermission"),
            Fault::new(Effect::Reset),
            Fault::new(Effect::Truncated),
            Fault::new(Effect::Garbage),
            Fault::new(Effect::Empty),
            Fault::without_secret_data(),
            Fault::new(Effect::Delay {
                seconds: Duration::from_millis(self.rng.u64(100..1500)),
            }),
        ];
        let fault = self.rng.choice(faults).unwrap();
        let times = self.rng.u64(1..30);
        let share = self.rng.f64();
        self.world
            .kms
            .fault(fault.times(times).with_probability(share));
    }

    /// The faults end, and all that was done is made up for.
    async fn end(&mut self) {
        self.storms.store(false, Ordering::Relaxed);
        self.world.kms.clear_faults();
        for n in 0..OBJECTS {
            let course = &self.courses[n];
            let want: Data = SHAPES[course.shape]
                .iter()
                .map(|key| ((*key).to_owned(), text(n, course.value)))
                .collect();
            eventually(&format!("{} is current", object(n)), async || {
                let data = self.world.data(&object(n)).await.into_iter();
                let data = data.map(|(key, bytes)| (key, String::from_utf8(bytes).unwrap()));
                (data.collect::<Data>() == want).then_some(())
            })
            .await;
        }
    }

    fn judge(&self, states: &[State]) -> Result<(), String> {
        let mut last: HashMap<&str, u32> = HashMap::new();
        let mut gone: HashMap<&str, usize> = HashMap::new();
        for (name, data) in states {
            let Some(n) = name.strip_prefix('o').and_then(|n| n.parse::<usize>().ok()) else {
                continue;
            };
            let Some(data) = data else {
                *gone.entry(name).or_default() += 1;
                continue;
            };
            if data.contains_key(FOREIGN) {
                continue;
            }
            let value = whole(n, data).ok_or_else(|| format!("{name} held {data:?}"))?;
            let before = last.insert(name, value).unwrap_or(0);
            if value < before || value > self.courses[n].value {
                return Err(format!("{name} held {value} after {before}"));
            }
        }
        for (n, course) in self.courses.iter().enumerate() {
            let seen = gone.get(object(n).as_str()).copied().unwrap_or(0);
            if seen > course.deletions {
                return Err(format!(
                    "{} went {seen} times, {} by us",
                    object(n),
                    course.deletions
                ));
            }
        }
        Ok(())
    }
}

/// The number of the value that is under all the keys of a shape, and nothing else.
fn whole(n: usize, data: &Data) -> Option<u32> {
    let keys: Vec<&str> = data.keys().map(String::as_str).collect();
    let is_shape = SHAPES
        .iter()
        .any(|shape| shape.len() == keys.len() && shape.iter().all(|key| keys.contains(key)));
    let mut values = data.values();
    let first = values.next()?;
    let number = first.strip_prefix(&format!("{n}/"))?.parse().ok()?;
    (is_shape && values.all(|value| value == first)).then_some(number)
}

async fn walk(length: Duration) {
    let seed = setting("WALK_SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("WALK_SEED={seed}");
    let mut walk = Walk::begin(seed).await;
    let witness = Witness::of(&walk.world).await;
    let began = Instant::now();
    let mut steps = 0;
    while began.elapsed() < length {
        walk.step().await;
        steps += 1;
        if steps % 50 == 0 {
            judge(&walk, &witness, seed).await;
        }
    }
    walk.end().await;
    judge(&walk, &witness, seed).await;
    eprintln!("{steps} steps");
}

async fn judge(walk: &Walk, witness: &Witness, seed: u64) {
    let states = witness.states(&walk.world).await;
    if let Err(wrong) = walk.judge(&states) {
        panic!("{wrong} (WALK_SEED={seed})");
    }
}

#[tokio::test]
async fn a_short_random_walk_ends_with_every_secret_current() {
    walk(SHORT).await;
}

/// `make soak`: for `SOAK_MINUTES`.
#[tokio::test]
#[ignore = "takes as long as it is told: make soak"]
async fn soak_by_a_long_random_walk() {
    walk(Duration::from_secs(
        60 * setting("SOAK_MINUTES").unwrap_or(10),
    ))
    .await;
}
