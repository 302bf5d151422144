//! The report: the values of all runs, their medians, and whether these meet their targets.
//!
//! `longshore bench --json` prints it.

use serde::Serialize;

use crate::Host;

/// The unit of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// A number per second.
    PerSecond,
    /// The quotient of two figures.
    Ratio,
    /// A part of the whole, from 0 to 1.
    Share,
    /// Milliseconds.
    Ms,
    /// Bytes.
    Bytes,
    /// Cores kept busy.
    Cores,
    /// A number.
    Count,
}

/// The bound that the median of a figure must keep.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The median must be this value or more.
    AtLeast(f64),
    /// The median must be this value or less.
    AtMost(f64),
}

impl Target {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }
}

/// A value that one run measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
    pub(crate) value: f64,
    pub(crate) target: Option<Target>,
}

/// Creates a sample without a target.
pub(crate) fn sample(name: &'static str, unit: Unit, value: f64) -> Sample {
    Sample { name, unit, value, target: None }
}

impl Sample {
    pub(crate) fn at_least(self, least: f64) -> Self {
        Self { target: Some(Target::AtLeast(least)), ..self }
    }

    pub(crate) fn at_most(self, most: f64) -> Self {
        Self { target: Some(Target::AtMost(most)), ..self }
    }
}

/// The values of one name over all runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// The name of what was measured.
    pub name: &'static str,
    /// The unit of the values.
    pub unit: Unit,
    /// The median of the runs; of an even number, the mean of the middle two.
    pub median: f64,
    /// The value of each run.
    pub runs: Vec<f64>,
    /// The bound for the median, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// Whether the median meets the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub met: Option<bool>,
}

impl Figure {
    fn of(first: Sample, runs: Vec<f64>) -> Self {
        let Sample { name, unit, target, .. } = first;
        let median = median(&runs);
        let met = target.map(|target| target.is_met(median));
        Self { name, unit, median, runs, target, met }
    }
}

/// The outcome of one scenario.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The name of the scenario.
    pub scenario: &'static str,
    /// What the scenario does.
    pub what: &'static str,
    /// The measured figures.
    pub figures: Vec<Figure>,
    /// The cores that each role kept busy; `others` are processes outside the benchmark.
    pub cores: Vec<Figure>,
    /// The load average of the last minute when the scenario ended.
    pub load: f64,
}

/// Everything that the benchmark measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The version of Longshore.
    pub version: &'static str,
    /// The host that was measured.
    pub host: Host,
    /// The version of Redis, and how often its append-only file is flushed.
    pub redis: String,
    /// The kind of the work queues.
    pub work_queues: String,
    /// The factor for sizes and durations.
    pub scale: f64,
    /// The baselines, over all runs.
    pub baselines: Vec<Figure>,
    /// The outcomes of the scenarios, in the order in which they ran.
    pub scenarios: Vec<Outcome>,
}

/// Groups samples of the same name into figures, in the order in which the names first occur.
pub(crate) fn figures(samples: impl IntoIterator<Item = Sample>) -> Vec<Figure> {
    let mut groups: Vec<(Sample, Vec<f64>)> = Vec::new();
    for sample in samples {
        match groups.iter_mut().find(|(first, _)| first.name == sample.name) {
            Some((_, runs)) => runs.push(sample.value),
            None => groups.push((sample, vec![sample.value])),
        }
    }
    groups.into_iter().map(|(first, runs)| Figure::of(first, runs)).collect()
}

/// The median of the values; 0 without values.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

/// The value that a share of all values do not exceed (nearest rank); 0 without values. Sorts the
/// values.
pub(crate) fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (share * values.len() as f64).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_value() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn a_percentile_is_the_value_of_the_nearest_rank() {
        let mut hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(percentile(&mut hundred, 0.5), 50.0);
        assert_eq!(percentile(&mut hundred, 0.99), 99.0);
        assert_eq!(percentile(&mut [7.0], 0.99), 7.0);
        assert_eq!(percentile(&mut [], 0.5), 0.0);
    }

    #[test]
    fn samples_of_one_name_become_one_figure_whose_median_meets_the_target_or_not() {
        let rate = |value| sample("rate", Unit::PerSecond, value).at_least(10.0);
        let lag = |value| sample("lag", Unit::Ms, value).at_most(5.0);
        let found = figures([rate(9.0), lag(1.0), rate(11.0), lag(6.0), rate(12.0), lag(7.0)]);
        assert_eq!(found.iter().map(|figure| figure.name).collect::<Vec<_>>(), ["rate", "lag"]);
        assert_eq!((found[0].median, found[0].met), (11.0, Some(true)));
        assert_eq!((found[1].median, found[1].met), (6.0, Some(false)));
        assert_eq!(found[1].runs, [1.0, 6.0, 7.0]);
    }
}
