//! Which part of the work is whose: the live replicas, in the order of their names, split the hashes of all uids evenly.
//!
//! There is no leader and nothing to agree on. Two replicas that see different members for a moment do the same work
//! twice, or leave it for a moment; every write is fenced, so neither does harm.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::hash::fnv1a;
use super::later;

/// A replica renews its Lease this often.
pub const RENEW: Duration = Duration::from_secs(4);
/// It stops working so long after the start of its last renewal: well before the others take over.
pub const HELD: Duration = Duration::from_secs(10);
/// It is dead to whoever has not seen its record change for so long.
pub const DEAD: Duration = Duration::from_secs(15);
/// A Lease that nobody renewed for so long is litter.
const LITTER: SignedDuration = SignedDuration::from_hours(1);

/// What one replica looks after: the objects whose uid hashes into a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    range: Option<RangeInclusive<u64>>,
    members: u32,
}

impl Share {
    /// Nothing: whoever may not work.
    pub const NONE: Self = Self {
        range: None,
        members: 1,
    };

    /// That of the member who comes after `rank` others, of so many.
    #[must_use]
    pub fn of(rank: u32, members: u32) -> Self {
        let members = members.max(1);
        let bound = |rank: u32| (u128::from(rank) << 64) / u128::from(members);
        let within = |bound: u128| u64::try_from(bound).unwrap_or(u64::MAX);
        let range = (rank < members).then(|| within(bound(rank))..=within(bound(rank + 1) - 1));
        Self { range, members }
    }

    /// Everything, of whoever is alone.
    #[must_use]
    pub fn whole() -> Self {
        Self::of(0, 1)
    }

    /// Whether the object with this uid belongs to it.
    #[must_use]
    pub fn has(&self, uid: &str) -> bool {
        self.range
            .as_ref()
            .is_some_and(|range| range.contains(&fnv1a(uid)))
    }

    /// Whether it is nothing at all.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.range.is_none()
    }

    /// How many replicas share the work, this one among them.
    #[must_use]
    pub fn members(&self) -> u32 {
        self.members
    }

    /// What part of all it is: from 0 to 1.
    #[must_use]
    pub fn fraction(&self) -> f64 {
        if self.is_none() {
            return 0.0;
        }
        1.0 / f64::from(self.members)
    }

    /// What one replica may use of a rate that all of them share; at least one a second, or it would stand still.
    #[must_use]
    pub fn pace(&self, per_second: f64) -> f64 {
        (per_second / f64::from(self.members)).max(per_second.min(1.0))
    }

    /// The bounds, for the log.
    #[must_use]
    pub fn bounds(&self) -> Option<String> {
        let range = self.range.as_ref()?;
        Some(format!("{:016x}-{:016x}", range.start(), range.end()))
    }
}

/// Whose work the members of one group share: those who look at the same namespaces. As the value of a label.
#[must_use]
pub fn group(namespaces: &[String]) -> String {
    if namespaces.is_empty() {
        return "cluster".into();
    }
    let mut names: Vec<&str> = namespaces.iter().map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    format!("namespaces-{:016x}", fnv1a(&names.join(",")))
}

/// What another's Lease says. Its time is compared with what it was before, and with our clock only to find litter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The process that holds it; nobody, if empty.
    pub holder: String,
    /// When that last renewed it, by its own clock.
    pub renewed: Option<Timestamp>,
}

/// A record, and when we saw it change.
#[derive(Clone, Debug)]
struct Sight {
    record: Record,
    changed: Instant,
}

impl Sight {
    fn dies(&self) -> Instant {
        self.changed + DEAD
    }

    fn is_alive(&self, now: Instant) -> bool {
        !self.record.holder.is_empty() && now < self.dies()
    }
}

/// The Leases of the other replicas, by name, as we see them.
#[derive(Debug, Default)]
pub struct Roster(BTreeMap<String, Sight>);

impl Roster {
    /// Takes in every Lease that is there now. One that was not there before counts as alive: it may be.
    pub fn see(&mut self, leases: impl IntoIterator<Item = (String, Record)>, now: Instant) {
        let mut known = std::mem::take(&mut self.0);
        self.0 = leases
            .into_iter()
            .map(|(name, record)| {
                let before = known.remove(&name).filter(|sight| sight.record == record);
                let changed = before.map_or(now, |sight| sight.changed);
                (name, Sight { record, changed })
            })
            .collect();
    }

    /// The share of the replica `me`, which is alive, among the others that are.
    #[must_use]
    pub fn share(&self, me: &str, now: Instant) -> Share {
        let others = self.0.iter().filter(|(name, _)| *name != me);
        let live: Vec<_> = others.filter(|(_, sight)| sight.is_alive(now)).collect();
        let before = live.iter().filter(|(name, _)| name.as_str() < me).count();
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX - 1);
        Share::of(count(before), count(live.len()) + 1)
    }

    /// When the next one is dead, unless it is heard of.
    #[must_use]
    pub fn next_death(&self, now: Instant) -> Option<Instant> {
        let live = self.0.values().filter(|sight| sight.is_alive(now));
        live.map(Sight::dies).min()
    }

    /// The Leases that nobody holds any more and that nobody will come back to.
    pub fn litter(&self, now: Instant, clock: Timestamp) -> impl Iterator<Item = &str> {
        let is_old = move |sight: &Sight| {
            let renewed = sight.record.renewed;
            renewed.is_none_or(|renewed| later(renewed, LITTER) < clock)
        };
        let all = self.0.iter();
        all.filter(move |(_, sight)| now >= sight.dies() && is_old(sight))
            .map(|(name, _)| name.as_str())
    }
}

/// What there is under the name of our own Lease.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// Who holds it.
    pub holder: &'a str,
    /// It carries the label of such Leases.
    pub is_ours: bool,
}

/// What to do with the Lease of our own name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// Make it.
    Create,
    /// Say that we are still here.
    Renew,
    /// It is our predecessor's, who is gone: a pod has one process at a time.
    Take,
    /// Another process took it while we held it: two of one name, and the older one goes.
    Leave,
    /// It is something else's.
    Refuse,
}

/// Decides what to do with what was found under the name of our own Lease.
#[must_use]
pub fn next_move(found: Option<Found<'_>>, me: &str, has_held: bool) -> Move {
    match found {
        None => Move::Create,
        Some(found) if !found.is_ours => Move::Refuse,
        Some(found) if found.holder == me => Move::Renew,
        Some(_) if has_held => Move::Leave,
        Some(_) => Move::Take,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn record(holder: &str, renewed: i64) -> Record {
        Record {
            holder: holder.into(),
            renewed: Some(Timestamp::from_second(renewed).unwrap()),
        }
    }

    fn leases(names: &[&str], renewed: i64) -> Vec<(String, Record)> {
        let leases = names.iter();
        leases
            .map(|name| ((*name).to_owned(), record(name, renewed)))
            .collect()
    }

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[test]
    fn one_has_everything_and_two_have_half_each() {
        assert_eq!(Share::whole().range, Some(0..=u64::MAX));
        let half = 1 << 63;
        assert_eq!(Share::of(0, 2).range, Some(0..=half - 1));
        assert_eq!(Share::of(1, 2).range, Some(half..=u64::MAX));
        assert_eq!(Share::of(2, 2).range, None, "there is no third");
        assert!(!Share::NONE.has("u"));
        assert!(Share::whole().has("u"));
    }

    #[test]
    fn a_rate_is_divided_and_nobody_stands_still() {
        let pace = |members, rate| Share::of(0, members).pace(rate);
        for (members, rate, expected) in [
            (1, 100.0, 100.0),
            (4, 100.0, 25.0),
            (3, 2.0, 1.0),
            (3, 0.5, 0.5),
        ] {
            let is = pace(members, rate);
            assert!((is - expected).abs() < 1e-9, "{members} of {rate}: {is}");
        }
    }

    #[test]
    fn groups_are_of_those_who_look_at_the_same() {
        let group =
            |names: &[&str]| group(&names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
        assert_eq!(group(&[]), "cluster");
        assert_eq!(group(&["a", "b"]), group(&["b", "a", "b"]));
        assert_ne!(group(&["a", "b"]), group(&["a"]));
        assert!(group(&["a"]).len() <= 63);
    }

    #[test]
    fn who_is_not_seen_to_change_is_dead_whatever_its_clock_says() {
        let (mut roster, began) = (Roster::default(), Instant::now());
        roster.see(leases(&["a", "c"], 1_000_000), began);
        assert_eq!(roster.share("b", began), Share::of(1, 3));
        assert_eq!(roster.next_death(began), Some(began + DEAD));
        // One goes on, by a clock that is years behind.
        let mut seen = leases(&["a"], 1_000_000);
        seen.extend(leases(&["c"], 7));
        roster.see(seen.clone(), began + seconds(4));
        assert_eq!(roster.share("b", began + seconds(14)), Share::of(1, 3));
        assert_eq!(roster.share("b", began + DEAD), Share::of(0, 2));
        assert_eq!(roster.next_death(began + DEAD), Some(began + seconds(19)));
        // To be shown the same again is no sign of life.
        roster.see(seen, began + seconds(18));
        assert_eq!(roster.share("b", began + seconds(19)), Share::whole());
        assert_eq!(roster.next_death(began + seconds(19)), None);
    }

    #[test]
    fn who_gave_its_lease_up_is_gone_at_once_and_our_own_does_not_count_twice() {
        let (mut roster, began) = (Roster::default(), Instant::now());
        roster.see(leases(&["a", "b"], 1), began);
        assert_eq!(roster.share("b", began), Share::of(1, 2));
        roster.see(leases(&["b"], 2), began);
        assert_eq!(roster.share("b", began), Share::whole());
        roster.see([("a".to_owned(), record("", 3))], began);
        assert_eq!(roster.share("b", began), Share::whole());
    }

    #[test]
    fn litter_is_what_is_dead_and_an_hour_old() {
        let (mut roster, began) = (Roster::default(), Instant::now());
        let clock = |second| Timestamp::from_second(second).unwrap();
        roster.see(leases(&["a"], 0), began);
        let found = |now, second| roster.litter(now, clock(second)).count();
        assert_eq!(found(began, 9_999), 0, "its clock may be wrong");
        assert_eq!(found(began + DEAD, 3_600), 0);
        assert_eq!(found(began + DEAD, 3_601), 1);
    }

    #[test]
    fn only_what_is_ours_is_taken_and_who_was_replaced_leaves() {
        let found = |holder, is_ours| Some(Found { holder, is_ours });
        for (found, has_held, expected) in [
            (None, false, Move::Create),
            (None, true, Move::Create),
            (found("me", true), true, Move::Renew),
            (found("me", true), false, Move::Renew),
            (found("predecessor", true), false, Move::Take),
            (found("", true), false, Move::Take),
            (found("successor", true), true, Move::Leave),
            (found("me", false), true, Move::Refuse),
            (found("kube-scheduler", false), false, Move::Refuse),
        ] {
            assert_eq!(next_move(found, "me", has_held), expected, "{found:?}");
        }
    }

    proptest! {
        #[test]
        fn the_shares_of_any_members_cover_everything_once(
            names in prop::collection::btree_set("[a-z0-9.-]{1,12}", 1..40),
            uids in prop::collection::vec(any::<String>(), 1..50),
        ) {
            let now = Instant::now();
            let mut roster = Roster::default();
            roster.see(names.iter().map(|name| (name.clone(), record(name, 1))), now);
            let shares: Vec<_> = names.iter().map(|name| roster.share(name, now)).collect();
            for uid in &uids {
                prop_assert_eq!(shares.iter().filter(|share| share.has(uid)).count(), 1);
            }
            let ranges: Vec<_> = shares.iter().map(|share| share.range.clone().unwrap()).collect();
            prop_assert_eq!((*ranges[0].start(), *ranges[ranges.len() - 1].end()), (0, u64::MAX));
            for pair in ranges.windows(2) {
                prop_assert_eq!(*pair[0].end() + 1, *pair[1].start());
            }
            let sizes: BTreeSet<_> = ranges.iter().map(|range| range.end() - range.start()).collect();
            prop_assert!(sizes.last().unwrap() - sizes.first().unwrap() <= 1, "evenly");
        }
    }
}
