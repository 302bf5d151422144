//! Asking the ledger again while it can't be reached.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use longshore_ledger::Error;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::Machine;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);

/// The future of one call of the ledger.
type Call<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// Whether the ledger can be reached, so that all slots of a worker together say it once when it
/// can't be and once when it can.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    lost: AtomicBool,
}

impl Reach {
    fn failed(&self, operation: &str, error: &Error) {
        if !self.lost.swap(true, Ordering::Relaxed) {
            warn!(operation, %error, "the ledger is away; trying again");
        }
    }

    fn worked(&self, operation: &str, tries: u32) {
        if self.lost.swap(false, Ordering::Relaxed) {
            info!(operation, tries, "the ledger answers again");
        }
    }
}

/// Repeats an operation, which is safe to repeat, until the ledger answers. `None` once `until` is
/// cancelled, but not before the first try has ended or was given up.
pub(crate) async fn insist<'a, T>(
    reach: &Reach,
    operation: &'static str,
    machine: &Machine,
    until: &CancellationToken,
    call: impl Fn() -> Call<'a, T>,
) -> Option<Result<T, Error>> {
    let mut wait = FIRST;
    let mut tries = 1;
    loop {
        let answer = tokio::select! {
            biased;
            answer = call() => answer,
            () = given_up(until, tries) => return None,
        };
        match answer {
            Err(error @ Error::Unavailable { .. }) => reach.failed(operation, &error),
            answer => {
                reach.worked(operation, tries);
                return Some(answer);
            }
        }
        tries += 1;
        tokio::select! {
            biased;
            () = until.cancelled() => return None,
            () = tokio::time::sleep(wait.mul_f64(0.5 + machine.share() / 2.0)) => {}
        }
        wait = (wait * 2).min(LONGEST);
    }
}

/// The first try gets its time even when nobody waits for the answer: a release at the very end is
/// worth it.
async fn given_up(until: &CancellationToken, tries: u32) {
    until.cancelled().await;
    if tries == 1 {
        tokio::time::sleep(LONGEST).await;
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

    #[tokio::test(start_paused = true)]
    async fn an_operation_is_repeated_until_it_is_answered() {
        let calls = AtomicU32::new(0);
        let call = || {
            let number = calls.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move { if number < 9 { Err(down()) } else { Ok(number) } })
                as Call<'_, u32>
        };
        let answer =
            insist(&Reach::default(), "test", &Machine::default(), &CancellationToken::new(), call)
                .await;
        assert!(matches!(answer, Some(Ok(9))), "{answer:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn other_errors_are_answers() {
        let call = || -> Call<'_, ()> { Box::pin(async { Err(Error::BadUrl("x".into())) }) };
        let answer =
            insist(&Reach::default(), "test", &Machine::default(), &CancellationToken::new(), call)
                .await;
        assert!(matches!(answer, Some(Err(Error::BadUrl(_)))), "{answer:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn it_gives_up_when_told_even_if_the_ledger_hangs() {
        let until = CancellationToken::new();
        until.cancel();
        let call = || -> Call<'_, ()> { Box::pin(std::future::pending()) };
        assert!(
            insist(&Reach::default(), "test", &Machine::default(), &until, call).await.is_none()
        );
    }
}
