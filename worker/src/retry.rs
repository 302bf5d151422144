//! Repeats calls of the ledger while it can't be reached, and logs each outage once.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use longshore_ledger::Error;
use longshore_protocol::Backoff;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::Environment;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The future of one call of the ledger.
type Call<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// Whether the ledger can be reached. All slots of a worker share it, so that an outage is logged
/// once when it begins and once when it ends.
#[derive(Debug, Default)]
pub(crate) struct LedgerHealth {
    is_away: AtomicBool,
}

impl LedgerHealth {
    fn failed(&self, operation: &str, error: &Error) {
        if !self.is_away.swap(true, Ordering::Relaxed) {
            warn!(operation, %error, "the ledger is away; trying again");
        }
    }

    fn worked(&self, operation: &str, tries: u32) {
        if self.is_away.swap(false, Ordering::Relaxed) {
            info!(operation, tries, "the ledger answers again");
        }
    }
}

/// Repeats an operation, which must be safe to repeat, until the ledger answers. `None` once
/// `until` is cancelled, but not before the first try has ended or was given up.
pub(crate) async fn retry_until<'a, T>(
    health: &LedgerHealth,
    operation: &'static str,
    environment: &Environment,
    until: &CancellationToken,
    call: impl Fn() -> Call<'a, T>,
) -> Option<Result<T, Error>> {
    let mut backoff = Backoff::doubling(FIRST_PAUSE, LONGEST_PAUSE);
    let mut tries = 1;
    loop {
        let answer = tokio::select! {
            biased;
            answer = call() => answer,
            () = given_up(until, tries) => return None,
        };
        match answer {
            Err(error @ Error::Unavailable { .. }) => health.failed(operation, &error),
            answer => {
                health.worked(operation, tries);
                return Some(answer);
            }
        }
        tries += 1;
        tokio::select! {
            biased;
            () = until.cancelled() => return None,
            () = tokio::time::sleep(backoff.next_jittered(environment.random())) => {}
        }
    }
}

/// The first try gets its time even after `until` is cancelled: a release at the very end of a
/// worker is worth it.
async fn given_up(until: &CancellationToken, tries: u32) {
    until.cancelled().await;
    if tries == 1 {
        tokio::time::sleep(LONGEST_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    fn down() -> Error {
        let kind = longshore_protocol::ErrorKind::Unreachable;
        Error::Unavailable { kind, address: "127.0.0.1:1".into(), reason: "refused".into() }
    }

    async fn retry<'a, T>(
        until: &CancellationToken,
        call: impl Fn() -> Call<'a, T>,
    ) -> Option<Result<T, Error>> {
        let (health, environment) = (LedgerHealth::default(), Environment::default());
        retry_until(&health, "test", &environment, until, call).await
    }

    #[tokio::test(start_paused = true)]
    async fn an_operation_is_repeated_until_it_is_answered() {
        let calls = AtomicU32::new(0);
        let call = || {
            let number = calls.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move { if number < 9 { Err(down()) } else { Ok(number) } })
                as Call<'_, u32>
        };
        let answer = retry(&CancellationToken::new(), call).await;
        assert!(matches!(answer, Some(Ok(9))), "{answer:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn other_errors_are_answers() {
        let call = || -> Call<'_, ()> { Box::pin(async { Err(Error::BadUrl("x".into())) }) };
        let answer = retry(&CancellationToken::new(), call).await;
        assert!(matches!(answer, Some(Err(Error::BadUrl(_)))), "{answer:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_hangs_is_given_up_after_a_cancel() {
        let until = CancellationToken::new();
        until.cancel();
        let call = || -> Call<'_, ()> { Box::pin(std::future::pending()) };
        assert!(retry(&until, call).await.is_none());
    }
}
