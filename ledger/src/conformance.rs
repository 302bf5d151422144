//! The conformance suite that every implementation of the ledger has to pass.
//!
//! A case gets an empty ledger, calls operations as schedulers and workers do, and asserts every
//! answer; each ends with an audit. Cases use no times but "due at once" and "not for hours", so
//! that they run on any clock. Deliberately absent: knowledge of an implementation.

/// Declares the cases of a file: `CASES`, from the names of their functions.
macro_rules! cases {
    ($($name:ident)*) => {
        pub(super) const CASES: &[super::Case] = &[
            $(super::Case { name: stringify!($name), run: |ledger| Box::pin($name(ledger)) },)*
        ];
    };
}

mod access;
mod admission;
mod cancelling;
mod claiming;
mod control;
mod fleet;
mod harness;
mod ids;
mod listing;
mod opening;
mod poison;
mod reading;
mod recovering;
mod reducing;
mod refunding;
mod restoring;
mod retrying;
mod settling;
mod speculation;
pub mod stress;
pub mod walk;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;

use crate::Ledger;

/// One case of the suite.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The rule that the case checks, as a sentence with underscores.
    pub name: &'static str,
    /// Runs the case on an empty ledger; panics if an assertion fails.
    pub run: fn(Arc<dyn Ledger>) -> LocalBoxFuture<'static, ()>,
}

/// All cases, by file.
const FILES: &[&[Case]] = &[
    refunding::CASES,
    admission::CASES,
    cancelling::CASES,
    listing::CASES,
    ids::CASES,
    opening::CASES,
    speculation::CASES,
    claiming::CASES,
    poison::CASES,
    recovering::CASES,
    settling::CASES,
    reducing::CASES,
    control::CASES,
    retrying::CASES,
    restoring::CASES,
    reading::CASES,
    fleet::CASES,
    access::CASES,
];

/// Runs all cases, each on a ledger of its own, and panics with the names of those that failed.
/// Their messages are on stderr.
///
/// # Panics
/// When a case fails.
pub async fn check_all<F>(fresh: F)
where
    F: AsyncFn() -> Arc<dyn Ledger>,
{
    let mut failed = Vec::new();
    let cases: Vec<&Case> = FILES.iter().copied().flatten().collect();
    for case in &cases {
        let ledger = fresh().await;
        if AssertUnwindSafe((case.run)(ledger)).catch_unwind().await.is_err() {
            failed.push(case.name);
        }
    }
    assert!(failed.is_empty(), "{} of {} cases failed: {failed:#?}", failed.len(), cases.len());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryLedger;

    #[tokio::test]
    async fn the_memory_ledger_passes() {
        check_all(async || Arc::new(MemoryLedger::default()) as Arc<dyn Ledger>).await;
    }
}
