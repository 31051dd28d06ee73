//! Everything that a test or the admin API can do to the service.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::batch::BatchWays;
use crate::calls::{Call, Calls, Count, Read};
use crate::clock::{Clock, lock, plus};
use crate::fault::{Fault, FaultId, Faults};
use crate::hold::{Hold, Holds, Reads};
use crate::keys::{Identity, Keys, StsKey};
use crate::metadata::Metadata;
use crate::oidc::Providers;
use crate::policy::Policies;
use crate::roles::Roles;
use crate::secrets::Secrets;
use crate::throttle::{Throttle, Throttling};
use crate::verify::Nonces;

/// The state of the emulated service, and the operations on it. [`crate::Emulator`] derefs to this.
pub struct Controls {
    pub(crate) clock: Clock,
    pub(crate) region: String,
    pub(crate) keys: Mutex<Keys>,
    pub(crate) roles: Mutex<Roles>,
    pub(crate) providers: Mutex<Providers>,
    pub(crate) policies: Mutex<Policies>,
    pub(crate) metadata: Mutex<Metadata>,
    pub(crate) batch: Mutex<BatchWays>,
    pub(crate) secrets: Mutex<Secrets>,
    pub(crate) nonces: Mutex<Nonces>,
    pub(crate) faults: Mutex<Faults>,
    pub(crate) holds: Mutex<Holds>,
    pub(crate) throttling: Mutex<Throttling>,
    pub(crate) calls: Arc<Mutex<Calls>>,
    /// Gates that were closed over the admin API, which has no handle to keep.
    pub(crate) admin_holds: Mutex<HashMap<String, Hold>>,
    latency: AtomicU64,
    session_lifetime: Mutex<Option<Duration>>,
}

impl Controls {
    pub(crate) fn new(region: &str, account: &str) -> Self {
        Self {
            clock: Clock::new(),
            region: region.to_owned(),
            keys: Mutex::new(Keys::new(account)),
            roles: Mutex::default(),
            providers: Mutex::default(),
            policies: Mutex::default(),
            metadata: Mutex::default(),
            batch: Mutex::default(),
            secrets: Mutex::new(Secrets::new(region, account)),
            nonces: Mutex::default(),
            faults: Mutex::default(),
            holds: Mutex::default(),
            throttling: Mutex::default(),
            calls: Arc::default(),
            admin_holds: Mutex::default(),
            latency: AtomicU64::new(0),
            session_lifetime: Mutex::default(),
        }
    }

    // === keys

    /// Adds a key of a RAM user, or gives one another secret.
    pub fn add_access_key(&self, id: &str, secret: &str) {
        let mut keys = lock(&self.keys);
        let account = keys.account().to_owned();
        keys.add(&account, id, secret);
    }

    /// The same for a RAM user of another account, whose plain names mean secrets of that account.
    pub fn add_access_key_of(&self, account: &str, id: &str, secret: &str) {
        lock(&self.keys).add(account, id, secret);
    }

    /// Adds temporary credentials, as if a role had been assumed.
    pub fn add_sts_key(&self, sts: &StsKey) {
        let mut keys = lock(&self.keys);
        let account = keys.account().to_owned();
        let identity = Identity::of_session(&account, "emulated", "session");
        keys.add_session(sts, &account, identity, None);
    }

    /// Disables a key; false if there is no such key.
    pub fn disable_key(&self, id: &str) -> bool {
        lock(&self.keys).set_disabled(id, true)
    }

    /// Enables a disabled key; false if there is no such key.
    pub fn enable_key(&self, id: &str) -> bool {
        lock(&self.keys).set_disabled(id, false)
    }

    /// Removes a key; false if there is no such key.
    pub fn remove_key(&self, id: &str) -> bool {
        lock(&self.keys).remove(id)
    }

    /// How long assumed sessions live whatever is asked for, so that a test can see one expire.
    pub fn set_session_lifetime(&self, lifetime: Option<Duration>) {
        *lock(&self.session_lifetime) = lifetime;
    }

    pub(crate) fn session_lifetime(&self) -> Option<Duration> {
        *lock(&self.session_lifetime)
    }

    // === trouble

    /// Makes calls fail.
    pub fn fault(&self, fault: Fault) -> FaultId {
        lock(&self.faults).add(fault)
    }

    /// Ends a fault; false if it had ended.
    pub fn clear_fault(&self, id: FaultId) -> bool {
        lock(&self.faults).clear(id)
    }

    /// Ends all faults.
    pub fn clear_faults(&self) {
        lock(&self.faults).clear_all();
    }

    /// Limits the calls of each account, each with a bucket of its own; none lifts all limits.
    pub fn throttle(&self, limit: Option<Throttle>) {
        lock(&self.throttling).set(limit);
    }

    /// Gives an account another limit than the rest, or none.
    pub fn throttle_account(&self, account: &str, limit: Option<Throttle>) {
        lock(&self.throttling).set_for(account, limit);
    }

    /// Keeps back the answers for a secret; they carry the value of when the calls arrived.
    pub fn hold(&self, name: &str) -> Hold {
        self.hold_reading(name, Reads::AtArrival)
    }

    /// Keeps back the answers for a secret.
    pub fn hold_reading(&self, name: &str, reads: Reads) -> Hold {
        let key = lock(&self.secrets).key(name).to_owned();
        lock(&self.holds).close(&key, reads)
    }

    /// Adds that much to the time of every answer.
    pub fn set_latency(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latency.store(micros, Ordering::Relaxed);
    }

    pub(crate) fn latency(&self) -> Duration {
        Duration::from_micros(self.latency.load(Ordering::Relaxed))
    }

    // === calls

    /// The calls since the start or the last reset.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.calls).log()
    }

    /// How many calls of that action there were, pending ones included.
    pub fn count(&self, action: &str) -> usize {
        self.count_where(|call| call.action == action)
    }

    /// How many logged calls are so.
    pub fn count_where(&self, wanted: impl Fn(&Call) -> bool) -> usize {
        lock(&self.calls).count(wanted)
    }

    /// Ended calls by action, outcome, access key and secret.
    pub fn counts(&self) -> Vec<Count> {
        lock(&self.calls).counts()
    }

    /// Every read of a secret's value, be it a call or an item of a batch.
    pub fn reads(&self) -> Vec<Read> {
        lock(&self.calls).reads()
    }

    /// How often a secret was read, pending and failed reads included.
    pub fn count_reads(&self, name: &str) -> usize {
        let key = lock(&self.secrets).key(name).to_owned();
        let reads = self.reads();
        let of_it = |read: &&Read| read.secret.as_deref() == Some(key.as_str());
        reads.iter().filter(of_it).count()
    }

    /// Ended reads by action, outcome, access key and secret.
    pub fn read_counts(&self) -> Vec<Count> {
        lock(&self.calls).read_counts()
    }

    /// Calls under way.
    pub fn in_flight(&self) -> usize {
        lock(&self.calls).in_flight()
    }

    /// The most calls that were under way at once.
    pub fn peak_in_flight(&self) -> usize {
        lock(&self.calls).peak()
    }

    /// Forgets all calls.
    pub fn reset_calls(&self) {
        lock(&self.calls).reset();
    }

    // === clock

    /// The emulator's time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Moves the clock on; rotations that fall due on the way happen.
    pub fn advance(&self, by: Duration) {
        self.settle_all();
        self.clock
            .advance(plus(Timestamp::UNIX_EPOCH, by).duration_since(Timestamp::UNIX_EPOCH));
        self.settle_all();
    }

    /// Sets the clock.
    pub fn set_now(&self, now: Timestamp) {
        self.settle_all();
        self.clock.set(now);
        self.settle_all();
    }

    /// Makes only the `Date` header and the timestamp checks run ahead, or behind.
    pub fn set_skew(&self, skew: SignedDuration) {
        self.clock.set_skew(skew);
    }

    fn settle_all(&self) {
        lock(&self.secrets).settle(&self.clock);
    }
}
