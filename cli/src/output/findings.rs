//! Prints the findings of `longshore doctor`, each with its remedy where one is needed.

use longshore_protocol::{Finding, Severity};

use super::Output;
use crate::failure::Failure;

/// Prints a line for each check, and a second line with the remedy where one is needed.
pub(crate) fn list(output: &mut Output, findings: &[Finding]) -> Result<(), Failure> {
    if output.is_json() {
        return output.json(&findings);
    }
    for finding in findings {
        let word = match finding.severity {
            Severity::Ok => "ok",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        output.line(format_args!("{word:<8} {}: {}", finding.check, finding.found))?;
        if !finding.remedy.is_empty() {
            output.line(format_args!("{:<8} {}", "", finding.remedy))?;
        }
    }
    Ok(())
}
