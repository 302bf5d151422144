//! What `doctor` found.

use longshore_protocol::{Finding, Severity};

use super::Output;
use crate::failure::Failure;

/// A line for each thing that was looked at, and below it what to do where that is needed.
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
