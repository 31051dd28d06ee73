//! The account of a day: what the arithmetic says beside what was seen.

use std::collections::HashMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use kms_emulator::Read;

use super::journal::{Entries, Good, Told};
use super::stage::{Object, Stage};
use super::timing::{Timing, wait};
use crate::world::{object_name, secret_name};

/// What is counted of each course, in this order.
pub(crate) const COUNTED: [&str; 6] = [
    "rotations",
    "reads",
    "changes of Secrets",
    "statuses with news",
    "heartbeats",
    "statuses in vain",
];

/// So exactly is the moment of a rotation known.
const ROUNDING: Duration = Duration::from_millis(100);

/// What the arithmetic says, from and to, and what was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    least: u64,
    most: u64,
    pub(crate) seen: u64,
}

impl Count {
    pub(crate) fn new(expected: RangeInclusive<u64>, seen: u64) -> Self {
        let (least, most) = expected.into_inner();
        Self { least, most, seen }
    }

    fn add(&mut self, other: Self) {
        self.least += other.least;
        self.most += other.most;
        self.seen += other.seen;
    }

    pub(crate) fn is_met(self) -> bool {
        (self.least..=self.most).contains(&self.seen)
    }

    pub(crate) fn expected(self) -> String {
        if self.least == self.most {
            self.least.to_string()
        } else {
            format!("{} to {}", self.least, self.most)
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} expected, {} seen", self.expected(), self.seen)
    }
}

/// What is told of all KmsSecrets of one course.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) course: &'static str,
    pub(crate) objects: u64,
    pub(crate) counts: [Count; COUNTED.len()],
}

/// How much later than it could have been something was, and when it was.
pub(crate) type Delays = Vec<(Instant, Duration)>;

pub(crate) struct Account {
    pub(crate) lines: Vec<Line>,
    /// From readable in KMS to the Secret.
    pub(crate) delays: Delays,
    /// Of reads at the ceiling, reckoned from the read before.
    pub(crate) lags: Delays,
}

/// When each secret was read with success, in order.
pub(crate) type Reads = HashMap<String, Vec<Instant>>;

pub(crate) fn by_secret(reads: &[Read]) -> Reads {
    let mut by_secret = Reads::new();
    for read in reads.iter().filter(|read| read.outcome == "OK") {
        let secret = read.secret.clone().unwrap_or_default();
        by_secret.entry(secret).or_default().push(read.arrived);
    }
    by_secret
}

/// All that happened to one KmsSecret.
struct Past<'a> {
    rotated: Vec<Instant>,
    read: &'a [Instant],
    changed: &'a [Instant],
    told: &'a [Told],
}

impl Account {
    /// Adds up what happened to the KmsSecrets of the stage between dawn and dusk.
    pub(crate) fn draw_up(
        stage: &Stage,
        reads: &Reads,
        entries: &Entries,
        day: (Instant, Instant),
    ) -> Result<Self> {
        let mut account = Self {
            lines: Vec::new(),
            delays: Vec::new(),
            lags: Vec::new(),
        };
        for object in &stage.objects {
            let name = object_name(object.number);
            let never = || format!("{name} was not synced");
            let past = Past {
                rotated: stage.rotations(object),
                read: reads.get(&secret_name(object.number)).with_context(never)?,
                changed: entries.secrets.get(&name).with_context(never)?,
                told: entries.statuses.get(&name).with_context(never)?,
            };
            account.add(object, object.course.timing(stage.scale), &past, day);
        }
        Ok(account)
    }

    fn add(
        &mut self,
        object: &Object,
        timing: Timing,
        past: &Past<'_>,
        (dawn, dusk): (Instant, Instant),
    ) {
        let line = self.line(object.course.name);
        line.objects += 1;
        // It is reckoned from a rotation on, or else from a read.
        let begin = match timing {
            Timing::Rotates { .. } => past.rotated.iter().find(|at| (dawn..dusk).contains(*at)),
            Timing::Ceiling(_) | Timing::Never => past.read.first(),
        };
        let Some(&begin) = begin else {
            return;
        };
        let expected = timing.expect(object.hash, dusk.saturating_duration_since(begin));
        let end = begin + expected.span;
        let is_within = |at: &Instant| begin < *at && *at < end;
        let within = |all: &[Instant]| all.iter().copied().filter(is_within).collect::<Vec<_>>();
        // The rotation that begins the span belongs to it, the one at its end does not.
        let mut rotated = past.rotated.clone();
        rotated.retain(|at| (begin..end).contains(&(*at + ROUNDING)));
        let read = within(past.read);
        // The first of each was written by the cold sync.
        let changed = within(&past.changed[1..]);
        let told = past.told[1..].iter().filter(|told| is_within(&told.at));
        let told_as = |good| told.clone().filter(|told| told.good == good).count();

        let exactly = |count: u64| count..=count;
        let (rotations, forced) = (expected.rotations, object.forced);
        let counted = [
            (exactly(rotations), rotated.len()),
            (exactly(expected.reads + forced), read.len()),
            (exactly(rotations), changed.len()),
            (exactly(rotations + forced), told_as(Good::News)),
            (expected.heartbeats, told_as(Good::Heartbeat)),
            (exactly(0), told_as(Good::Nothing)),
        ];
        for (count, (expected, seen)) in line.counts.iter_mut().zip(counted) {
            count.add(Count::new(expected, seen as u64));
        }

        let written = rotated.iter().zip(&changed);
        let late = written.map(|(from, to)| (*to, to.saturating_duration_since(*from)));
        self.delays.extend(late);
        if let Timing::Ceiling(ceiling) = timing {
            let wait = wait(ceiling, object.hash);
            let late = read.windows(2).map(|pair| {
                let gap = pair[1].duration_since(pair[0]);
                (pair[1], gap.saturating_sub(wait))
            });
            self.lags.extend(late);
        }
    }

    fn line(&mut self, course: &'static str) -> &mut Line {
        let known = self.lines.iter().position(|line| line.course == course);
        let at = known.unwrap_or_else(|| {
            self.lines.push(Line::new(course));
            self.lines.len() - 1
        });
        &mut self.lines[at]
    }

    /// All courses together.
    pub(crate) fn sum(&self) -> Line {
        let mut sum = Line::new("all");
        for line in &self.lines {
            sum.objects += line.objects;
            for (all, one) in sum.counts.iter_mut().zip(line.counts) {
                all.add(one);
            }
        }
        sum
    }

    /// In words, whatever is not as the arithmetic says.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let of_line = |line: &Line| {
            let wrong = COUNTED.iter().zip(line.counts);
            let wrong = wrong.filter(|(_, count)| !count.is_met());
            let course = line.course;
            wrong
                .map(|(what, count)| format!("{course}: {what}: {count}"))
                .collect::<Vec<_>>()
        };
        self.lines.iter().flat_map(of_line).collect()
    }
}

impl Line {
    fn new(course: &'static str) -> Self {
        Self {
            course,
            objects: 0,
            counts: [Count::default(); COUNTED.len()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::day::course::COURSES;

    fn told(at: Instant, good: Good) -> Told {
        Told {
            at,
            good,
            is_ready: true,
            version: None,
        }
    }

    /// Rotations at 10, 70, 130 and 190 s of a day of 200 s, each followed by a read at the ceiling.
    fn complaints(edit: impl FnOnce(&mut Vec<Instant>, &mut Vec<Told>)) -> Vec<String> {
        let dawn = Instant::now();
        let after = |seconds| dawn + Duration::from_secs(seconds);
        let mut read = [1, 11, 61, 71, 121, 131, 181, 191].map(after).to_vec();
        let mut statuses = vec![told(dawn, Good::News)];
        statuses.extend([12, 72, 132].map(|at| told(after(at), Good::News)));
        edit(&mut read, &mut statuses);
        let past = Past {
            rotated: [10, 70, 130, 190].map(after).to_vec(),
            read: &read,
            changed: &[1, 12, 72, 132, 192].map(after),
            told: &statuses,
        };
        let object = Object {
            number: 0,
            course: &COURSES[0],
            hash: 0,
            forced: 0,
        };
        let timing = Timing::Rotates {
            every: Duration::from_secs(60),
            ceiling: Duration::from_secs(50),
        };
        let mut account = Account {
            lines: Vec::new(),
            delays: Vec::new(),
            lags: Vec::new(),
        };
        account.add(&object, timing, &past, (dawn, after(200)));
        let delays: Vec<_> = account.delays.iter().map(|(_, delay)| *delay).collect();
        assert_eq!(delays, [Duration::from_secs(2); 3]);
        account.complaints()
    }

    #[test]
    fn a_day_by_the_arithmetic_gives_no_cause_for_complaint() {
        assert_eq!(complaints(|_, _| ()), Vec::<String>::new());
    }

    #[test]
    fn a_read_right_before_the_first_rotation_belongs_to_the_time_before() {
        let early = complaints(|read, _| read[0] += Duration::from_millis(8950));
        assert_eq!(early, Vec::<String>::new());
    }

    #[test]
    fn every_count_that_is_off_is_complained_about() {
        let course = COURSES[0].name;
        let twice = complaints(|read, _| read.push(read[3]));
        assert_eq!(twice, [format!("{course}: reads: 6 expected, 7 seen")]);
        let never = complaints(|read, _| read.truncate(6));
        assert_eq!(never, [format!("{course}: reads: 6 expected, 5 seen")]);
        let in_vain = complaints(|_, statuses| {
            let again = told(statuses[1].at, Good::Nothing);
            statuses.push(again);
        });
        let in_vain_of = format!("{course}: statuses in vain: 0 expected, 1 seen");
        assert_eq!(in_vain, [in_vain_of]);
    }
}
