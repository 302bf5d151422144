//! Figures, their targets, and all of them together. Serialized, the report is what `longshore bench --json` prints.

use serde::Serialize;

use crate::Machine;

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// So many a second.
    PerSecond,
    /// A quotient of two figures.
    Ratio,
    /// A part of the whole; 1 is all of it.
    Share,
    /// Milliseconds.
    Ms,
    /// Bytes.
    Bytes,
    /// Cores kept busy.
    Cores,
    /// A number of things.
    Count,
}

/// What a figure must be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// This or more.
    AtLeast(f64),
    /// This or less.
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

/// One measured value of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
    pub(crate) value: f64,
    pub(crate) target: Option<Target>,
}

/// A sample without a target.
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

/// A value over all runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// What was measured.
    pub name: &'static str,
    /// What it counts.
    pub unit: Unit,
    /// The middle of the runs; of an even number the mean of the middle two.
    pub median: f64,
    /// Run by run.
    pub runs: Vec<f64>,
    /// What the median must be, if anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// Whether it is.
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

/// What came out of one scenario.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The scenario.
    pub scenario: &'static str,
    /// What it does.
    pub what: &'static str,
    /// What was measured.
    pub figures: Vec<Figure>,
    /// Where the time went: cores kept busy by each process; `others` are none of ours.
    pub cores: Vec<Figure>,
    /// The machine's load average over the last minute, when the scenario ended.
    pub load: f64,
}

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Of Longshore.
    pub version: &'static str,
    /// What was measured on.
    pub machine: Machine,
    /// What the version of Redis is, as it says, and when its append-only file is flushed.
    pub redis: String,
    /// The kind of the work queues.
    pub work_queues: String,
    /// What sizes and durations were multiplied with.
    pub scale: f64,
    /// What RabbitMQ and Redis do by themselves, over all runs.
    pub yardsticks: Vec<Figure>,
    /// The scenarios, in the order in which they were asked for.
    pub scenarios: Vec<Outcome>,
}

/// Values of the same name become one figure, in the order in which the names first came.
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

/// The middle value; 0 of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

/// The value that a share of all values do not exceed (nearest rank); 0 of none. Sorts.
pub(crate) fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (share * values.len() as f64).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn a_percentile_is_the_nearest_rank() {
        let mut hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(percentile(&mut hundred, 0.5), 50.0);
        assert_eq!(percentile(&mut hundred, 0.99), 99.0);
        assert_eq!(percentile(&mut [7.0], 0.99), 7.0);
        assert_eq!(percentile(&mut [], 0.5), 0.0);
    }

    #[test]
    fn samples_of_one_name_are_one_figure_judged_by_its_median() {
        let rate = |value| sample("rate", Unit::PerSecond, value).at_least(10.0);
        let lag = |value| sample("lag", Unit::Ms, value).at_most(5.0);
        let found = figures([rate(9.0), lag(1.0), rate(11.0), lag(6.0), rate(12.0), lag(7.0)]);
        assert_eq!(found.iter().map(|figure| figure.name).collect::<Vec<_>>(), ["rate", "lag"]);
        assert_eq!((found[0].median, found[0].met), (11.0, Some(true)));
        assert_eq!((found[1].median, found[1].met), (6.0, Some(false)));
        assert_eq!(found[1].runs, [1.0, 6.0, 7.0]);
    }
}
