//! What is told of many latencies.

use std::time::Duration;

/// The quantile by the nearest rank: the smallest value that so large a part of all does not exceed.
///
/// `None` if there are no values.
pub(crate) fn quantile(values: &[Duration], part: f64) -> Option<Duration> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a part of a number of values"
    )]
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let values: Vec<_> = (1..=200).rev().map(Duration::from_millis).collect();
        let of = |part| quantile(&values, part).unwrap().as_millis();
        assert_eq!([of(0.0), of(0.5), of(0.99), of(1.0)], [1, 100, 198, 200]);
        let one = [Duration::from_millis(7)];
        assert_eq!(quantile(&one, 0.5), Some(one[0]));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
