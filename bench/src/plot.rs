//! Cost against the number of KmsSecrets, as a picture: docs/bench/cost.svg. Both scales are logarithmic.

use crate::results::Results;
use crate::scenarios::cold_sync::{STARTED, STARTED_SINGLY};
use crate::scenarios::floor::FLOOR;

/// A line of the picture, with its points (KmsSecrets, value).
struct Line {
    class: &'static str,
    name: &'static str,
    points: Vec<(f64, f64)>,
}

/// One of the two diagrams.
struct Diagram {
    left: f64,
    title: &'static str,
    lines: Vec<Line>,
}

/// The size of a diagram between its axes, and where it begins from above.
const WIDTH: f64 = 270.0;
const HEIGHT: f64 = 200.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = TOP + HEIGHT;

const HEAD: &str = r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 330" width="760" height="330" role="img" aria-labelledby="title description" font-family="system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif" font-size="12">
  <title id="title">Cost against the number of KmsSecrets</title>
  <desc id="description">Left: seconds of a cold sync, beside a naive writer of the same objects and the default pace of a store. Right: resident memory after it. docs/benchmarks.md has the numbers.</desc>
  <style>
    .ink { fill: #24292f; }
    .soft { fill: #57606a; }
    .axis { stroke: #8c959f; stroke-width: 1.5; fill: none; }
    .grid { stroke: #8c959f; stroke-width: 0.5; stroke-opacity: 0.5; }
    .line { stroke-width: 2; fill: none; }
    .floor { stroke: #8c959f; }
    .batch { stroke: #0969da; }
    .single { stroke: #1a7f37; }
    .pace { stroke: #cf222e; stroke-dasharray: 4 3; }
    @media (prefers-color-scheme: dark) {
      .ink { fill: #e6edf3; }
      .soft { fill: #9da7b1; }
      .axis, .grid { stroke: #6e7681; }
      .batch { stroke: #58a6ff; }
      .single { stroke: #3fb950; }
      .pace { stroke: #ff7b72; }
    }
  </style>
"#;

/// Draws it.
pub(crate) fn draw(results: &Results) -> String {
    let sizes = results.sizes();
    let points = |scenario: &str, name: &str| {
        let point =
            |&objects: &usize| Some((count(objects), results.number(scenario, objects, name)?));
        sizes.iter().filter_map(point).collect::<Vec<_>>()
    };
    let line = |class, name, points| Line {
        class,
        name,
        points,
    };
    let paced = sizes
        .iter()
        .map(|&objects| (count(objects), count(objects) / 100.0));
    let times = vec![
        line("floor", "naive writer", points(FLOOR, "seconds")),
        line("batch", "in batches", points(STARTED.scenario, "seconds")),
        line(
            "single",
            "one by one",
            points(STARTED_SINGLY.scenario, "seconds"),
        ),
        line("pace", "default pace", paced.collect()),
    ];
    let memory = vec![
        line(
            "batch",
            "in batches",
            points(STARTED.scenario, "resident_mib"),
        ),
        line(
            "single",
            "one by one",
            points(STARTED_SINGLY.scenario, "resident_mib"),
        ),
    ];
    let diagrams = [
        Diagram {
            left: 60.0,
            title: "Seconds of a cold sync",
            lines: times,
        },
        Diagram {
            left: 440.0,
            title: "Resident memory, MiB",
            lines: memory,
        },
    ];
    HEAD.to_owned() + &diagrams.map(|diagram| diagram.draw()).concat() + "</svg>\n"
}

#[expect(clippy::cast_precision_loss, reason = "counts here are small")]
fn count(objects: usize) -> f64 {
    objects as f64
}

/// How values become places of a diagram.
struct Scales {
    left: f64,
    x: (i32, i32),
    y: (i32, i32),
}

impl Scales {
    fn x(&self, value: f64) -> f64 {
        self.left + WIDTH * place(value, self.x)
    }

    fn y(&self, value: f64) -> f64 {
        BOTTOM - HEIGHT * place(value, self.y)
    }
}

impl Diagram {
    fn draw(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let scales = Scales {
            left: self.left,
            x: decades(points().map(|(x, _)| *x)),
            y: decades(points().map(|(_, y)| *y)),
        };
        let title = text("ink", "start", self.left, 24.0, self.title);
        let lines = (0_u8..).zip(&self.lines);
        let lines: String = lines
            .map(|(place, line)| line.draw(&scales, place))
            .collect();
        title + &scales.draw() + &lines
    }
}

impl Scales {
    /// The axes, with the powers of ten.
    fn draw(&self) -> String {
        let (left, right) = (self.left, self.left + WIDTH);
        let levels = (self.y.0..=self.y.1).map(|decade| {
            let (value, y) = (power(decade), self.y(power(decade)));
            let grid = format!("  <path class=\"grid\" d=\"M{left} {y:.1}H{right}\"/>\n");
            grid + &text("soft", "end", left - 6.0, y + 4.0, &value.to_string())
        });
        let marks = (self.x.0..=self.x.1).map(|decade| {
            let (value, x) = (power(decade), self.x(power(decade)));
            text("soft", "middle", x, BOTTOM + 18.0, &value.to_string())
        });
        let axes = format!("  <path class=\"axis\" d=\"M{left} {TOP}V{BOTTOM}H{right}\"/>\n");
        levels.chain(marks).collect::<String>() + &axes
    }
}

impl Line {
    /// The line, and its name in one of two columns below the diagram.
    fn draw(&self, scales: &Scales, place: u8) -> String {
        let points = self.points.iter();
        let points = points.map(|(x, y)| format!("{:.1},{:.1}", scales.x(*x), scales.y(*y)));
        let points = points.collect::<Vec<_>>().join(" ");
        let x = scales.left + 140.0 * f64::from(place % 2);
        let y = BOTTOM + 42.0 + 20.0 * f64::from(place / 2);
        let class = self.class;
        let line = format!("  <polyline class=\"line {class}\" points=\"{points}\"/>\n");
        let key = format!("  <path class=\"line {class}\" d=\"M{x} {y}h24\"/>\n");
        line + &key + &text("ink", "start", x + 30.0, y + 4.0, self.name)
    }
}

fn text(class: &str, anchor: &str, x: f64, y: f64, text: &str) -> String {
    format!(
        "  <text class=\"{class}\" text-anchor=\"{anchor}\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>\n"
    )
}

fn power(decade: i32) -> f64 {
    10_f64.powi(decade)
}

/// The powers of ten between which all values are; at least one step apart.
fn decades(values: impl Iterator<Item = f64>) -> (i32, i32) {
    let logarithms: Vec<f64> = values
        .filter(|value| *value > 0.0)
        .map(f64::log10)
        .collect();
    let least = logarithms.iter().copied().fold(f64::INFINITY, f64::min);
    let most = logarithms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if logarithms.is_empty() {
        return (0, 1);
    }
    #[expect(clippy::cast_possible_truncation, reason = "a handful of decades")]
    let (from, to) = (least.floor() as i32, most.ceil() as i32);
    (from, to.max(from + 1))
}

/// Where a value is between two powers of ten, from 0 to 1.
fn place(value: f64, (from, to): (i32, i32)) -> f64 {
    (value.log10() - f64::from(from)) / f64::from(to - from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Row;

    #[test]
    fn values_lie_between_powers_of_ten() {
        assert_eq!(decades([100.0, 10_000.0].into_iter()), (2, 4));
        assert_eq!(decades([0.3, 20.0].into_iter()), (-1, 2));
        assert_eq!(decades([100.0].into_iter()), (2, 3));
        assert_eq!(decades(std::iter::empty()), (0, 1));
        assert!((place(1000.0, (2, 4)) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn a_line_goes_through_what_was_measured() {
        let row = |objects, seconds| Row::new(FLOOR, objects).with("seconds", seconds);
        let results = Results {
            rows: vec![row(100, 1.0), row(10_000, 100.0)],
            ..Results::default()
        };
        let svg = draw(&results);
        let line = r#"<polyline class="line floor" points="60.0,250.0 330.0,50.0"/>"#;
        assert!(svg.contains(line), "{svg}");
        assert!(svg.ends_with("</svg>\n"));
    }
}
