//! Prints the report of a benchmark, as tables or as JSON.

use longshore_bench::{Figure, Report, Target, Unit};

use super::Output;
use super::table::table;
use crate::failure::Failure;

/// Prints all figures: as tables, or with `--json` as one line of JSON.
pub(crate) fn report(output: &mut Output, report: &Report) -> Result<(), Failure> {
    if output.is_json() {
        return output.json(report);
    }
    let host = &report.host;
    output.line(format_args!(
        "longshore {} on {} cores ({}), {}, Linux {}, load {:.2}",
        report.version,
        host.cores,
        host.processor,
        bytes(host.memory as f64),
        host.kernel,
        host.load,
    ))?;
    output.line(format_args!("Redis {}; {} work queues", report.redis, report.work_queues))?;
    if report.scale != 1.0 {
        output.line(format_args!("sizes times {}: the targets are for 1", report.scale))?;
    }
    if !report.baselines.is_empty() {
        output.line("\nBASELINES")?;
        output.text(&figures(&report.baselines))?;
    }
    for outcome in &report.scenarios {
        let name = outcome.scenario.to_uppercase();
        output.line(format_args!("\n{name}: {} (load {:.2})", outcome.what, outcome.load))?;
        output.text(&figures(&outcome.figures))?;
        let cores: Vec<String> = outcome
            .cores
            .iter()
            .map(|figure| format!("{} {:.2}", figure.name, figure.median))
            .collect();
        output.line(format_args!("cores: {}", cores.join(", ")))?;
    }
    Ok(())
}

fn figures(figures: &[Figure]) -> String {
    let rows: Vec<Vec<String>> = figures.iter().map(row).collect();
    table(&["FIGURE", "MEDIAN", "LOWEST", "HIGHEST", "TARGET", ""], &rows)
}

fn row(figure: &Figure) -> Vec<String> {
    let show = |value: f64| value_text(figure.unit, value);
    let lowest = figure.runs.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = figure.runs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let target = match figure.target {
        None => String::new(),
        Some(Target::AtLeast(least)) => format!("at least {}", show(least)),
        Some(Target::AtMost(most)) => format!("at most {}", show(most)),
    };
    let verdict = match figure.met {
        None => "",
        Some(true) => "met",
        Some(false) => "MISSED",
    };
    let name = figure.name.to_owned();
    vec![name, show(figure.median), show(lowest), show(highest), target, verdict.to_owned()]
}

fn value_text(unit: Unit, value: f64) -> String {
    match unit {
        Unit::PerSecond => format!("{}/s", grouped(value)),
        Unit::Ratio => format!("{value:.2} x"),
        Unit::Share => format!("{:.2} %", value * 100.0),
        Unit::Ms => format!("{value:.2} ms"),
        Unit::Bytes => bytes(value),
        Unit::Cores => format!("{value:.2} cores"),
        Unit::Count => grouped(value),
    }
}

/// A number with a comma between groups of three digits.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn bytes(value: f64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let mut at = 0;
    let mut left = value;
    while left >= 1024.0 && at + 1 < UNITS.len() {
        left /= 1024.0;
        at += 1;
    }
    if at == 0 { format!("{left:.0} B") } else { format!("{left:.1} {}", UNITS[at]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_with_their_units() {
        assert_eq!(value_text(Unit::PerSecond, 1_234_567.4), "1,234,567/s");
        assert_eq!(value_text(Unit::Ratio, 0.705), "0.70 x");
        assert_eq!(value_text(Unit::Share, 0.0031), "0.31 %");
        assert_eq!(value_text(Unit::Bytes, 30e6), "28.6 MiB");
        assert_eq!(value_text(Unit::Bytes, 7.0), "7 B");
        assert_eq!(value_text(Unit::Count, 100.0), "100");
        assert_eq!(value_text(Unit::Ms, 0.615), "0.61 ms");
    }
}
