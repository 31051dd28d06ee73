//! The arithmetic: what one KmsSecret must cost in a span of time, by docs/rotation.md and nothing else. It is reckoned
//! apart from the operator's own schedule, so that the two can contradict each other.

use std::ops::RangeInclusive;
use std::time::Duration;

/// The most by which reads at the ceiling are spread.
const SPREAD_MAX: Duration = Duration::from_secs(300);
/// Times alone are written into a status this often at most, or at the ceiling if that is longer.
const HEARTBEAT_MIN: Duration = Duration::from_secs(600);
/// Times in a status are whole seconds.
const SECOND: Duration = Duration::from_secs(1);

/// What time does to one KmsSecret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timing {
    /// KMS rotates the secret so often, on the announced date.
    Rotates { every: Duration, ceiling: Duration },
    /// Read at the ceiling, and no date falls into the day.
    Ceiling(Duration),
    /// Never read by time.
    Never,
}

/// What must be seen of one KmsSecret in a span, which begins with a rotation, or with a read at the ceiling that is not
/// counted, and ends where nothing is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) span: Duration,
    pub(crate) reads: u64,
    /// As many Secrets change, and as many statuses tell something new.
    pub(crate) rotations: u64,
    /// Writes of a status that only renew its times.
    pub(crate) heartbeats: RangeInclusive<u64>,
}

impl Timing {
    /// What must be seen in the longest span that fits into `left`.
    pub(crate) fn expect(self, hash: u64, left: Duration) -> Expected {
        match self {
            Self::Rotates { every, ceiling } => {
                let rotations = count(left, every);
                let wait = wait(ceiling, hash);
                let heartbeats = heartbeats(every, ceiling, wait);
                Expected {
                    span: every * small(rotations),
                    // The read after the date, and those at the ceiling before the next date.
                    reads: rotations * (reads_between(every, wait) + 1),
                    rotations,
                    heartbeats: rotations * heartbeats.start()..=rotations * heartbeats.end(),
                }
            }
            Self::Ceiling(ceiling) => {
                let wait = wait(ceiling, hash);
                // It ends halfway between two reads: each is a little late, and the next one is due so much later.
                let reads = count(left.saturating_sub(wait / 2), wait);
                let span = wait * small(reads) + wait / 2;
                Expected {
                    span: span.min(left),
                    reads,
                    rotations: 0,
                    heartbeats: heartbeats(span.min(left), ceiling, wait),
                }
            }
            Self::Never => Expected {
                span: left,
                reads: 0,
                rotations: 0,
                heartbeats: 0..=0,
            },
        }
    }

    /// How many reads there can be at most in a span that begins with a start of the operator. What is known of the last read
    /// is then up to a heartbeat old, so that what waits for its ceiling is read once more; what was missed, too.
    pub(crate) fn at_most_after_start(self, span: Duration) -> u64 {
        match self {
            Self::Rotates { every, ceiling } => count(span, every) + count(span, ceiling) + 2,
            Self::Ceiling(ceiling) => count(span, ceiling) + 1,
            Self::Never => 0,
        }
    }

    /// By how much the reads of a rotation may all be late together before their number is another: it must not matter how
    /// busy the machine is. `None` where the number depends on the uid.
    pub(crate) fn slack(self) -> Option<Duration> {
        match self {
            Self::Rotates { every, ceiling } => {
                let (quick, slow) = (wait(ceiling, 0), wait(ceiling, SLOWEST));
                let reads = reads_between(every, slow);
                let rest = every.checked_sub(slow * small(reads))?;
                (reads == reads_between(every, quick)).then_some(rest)
            }
            Self::Ceiling(ceiling) => Some(ceiling / 2),
            Self::Never => Some(Duration::MAX),
        }
    }
}

/// The hash with the longest wait.
const SLOWEST: u64 = 999;

/// From a read to the next one at the ceiling.
pub(crate) fn wait(ceiling: Duration, hash: u64) -> Duration {
    let thousandths = u32::try_from(hash % 1000).unwrap_or_default();
    ceiling + (ceiling / 10).min(SPREAD_MAX) * thousandths / 1000
}

/// The reads at the ceiling between two rotations; one that is due with the date is that of the rotation.
fn reads_between(every: Duration, wait: Duration) -> u64 {
    count(every.saturating_sub(Duration::from_nanos(1)), wait)
}

/// When the times of a status are old enough to be written alone.
pub(crate) fn heartbeat(ceiling: Duration) -> Duration {
    ceiling.max(HEARTBEAT_MIN)
}

/// The heartbeats in a span that begins with a status: each comes with the first read after it is due.
fn heartbeats(span: Duration, ceiling: Duration, wait: Duration) -> RangeInclusive<u64> {
    let due = heartbeat(ceiling);
    count(span, due + wait + SECOND)..=count(span, due.saturating_sub(SECOND))
}

/// How many whole parts are in a span.
fn count(span: Duration, part: Duration) -> u64 {
    u64::try_from(span.as_nanos() / part.as_nanos().max(1)).unwrap_or(u64::MAX)
}

fn small(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minutes(minutes: u64) -> Duration {
        Duration::from_secs(60 * minutes)
    }

    fn rotates(every: u64, ceiling: u64) -> Timing {
        Timing::Rotates {
            every: minutes(every),
            ceiling: minutes(ceiling),
        }
    }

    #[test]
    fn a_rotation_costs_the_read_after_its_date_and_those_at_the_ceiling_before_the_next() {
        // An hour between rotations; 24 of them fit into a day.
        for (ceiling, hash, reads) in [
            (120, 0, 1),
            (60, 0, 1), // the date comes first
            (50, 0, 2),
            (50, 999, 2),
            (30, 0, 2), // the second at the ceiling would come with the date
            (20, 0, 3),
            (19, 0, 4),
            (19, 999, 3),
        ] {
            let expected = rotates(60, ceiling).expect(hash, minutes(24 * 60 + 59));
            assert_eq!(expected.span, minutes(24 * 60));
            assert_eq!(expected.rotations, 24);
            assert_eq!(expected.reads, 24 * reads, "ceiling {ceiling}, hash {hash}");
        }
    }

    #[test]
    fn what_does_not_rotate_is_read_at_the_ceiling_and_its_spread() {
        let ceiling = Timing::Ceiling(minutes(60));
        let expected = ceiling.expect(0, minutes(24 * 60));
        assert_eq!((expected.reads, expected.span), (23, minutes(23 * 60 + 30)));
        // The spread is five minutes at most, not a tenth.
        let expected = ceiling.expect(500, minutes(24 * 60));
        assert_eq!((expected.reads, expected.rotations), (22, 0));
        assert_eq!(Timing::Never.expect(7, minutes(60)).reads, 0);
        assert_eq!(ceiling.expect(0, minutes(20)).span, minutes(20));
    }

    #[test]
    fn a_heartbeat_comes_with_the_first_read_after_it_is_due() {
        // Read each 4 minutes: at 12, 24, ...
        let expected = Timing::Ceiling(minutes(4)).expect(0, minutes(61));
        assert_eq!((expected.reads, expected.heartbeats), (14, 4..=5));
        // A rotation renews the times too.
        assert_eq!(rotates(9, 4).expect(0, minutes(90)).heartbeats, 0..=0);
        assert_eq!(rotates(16, 4).expect(0, minutes(160)).heartbeats, 10..=10);
        // With a long ceiling, each read does.
        let expected = Timing::Ceiling(minutes(60)).expect(0, minutes(200));
        assert_eq!((expected.reads, expected.heartbeats), (2, 1..=2));
    }

    #[test]
    fn the_slack_is_what_lies_between_the_last_read_and_the_date() {
        assert_eq!(rotates(60, 120).slack(), Some(minutes(60)));
        let slack = minutes(5) + minutes(5) / 1000;
        assert_eq!(rotates(60, 50).slack(), Some(slack));
        assert_eq!(rotates(60, 19).slack(), None);
        assert_eq!(Timing::Ceiling(minutes(60)).slack(), Some(minutes(30)));
    }

    #[test]
    fn a_start_reads_what_it_must_and_everything_once_more_at_most() {
        assert_eq!(rotates(60, 50).at_most_after_start(minutes(130)), 6);
        let ceiling = Timing::Ceiling(minutes(60));
        assert_eq!(ceiling.at_most_after_start(minutes(20)), 1);
        assert_eq!(Timing::Never.at_most_after_start(minutes(999)), 0);
    }
}
