//! Waits until Redis answers and has the functions of this build, and logs each new reason to wait.

use std::time::Duration;

use tracing::{info, warn};

use super::RedisLedger;
use crate::{Error, Ledger};

/// The wait between two attempts.
const RETRY_AFTER: Duration = Duration::from_millis(500);

impl RedisLedger {
    /// Waits until Redis answers and has the functions of this build, however long it is away.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when Redis refuses this user, since waiting does not help then; any
    /// other error at once.
    pub async fn ready(&self) -> Result<(), Error> {
        let mut logged = String::new();
        loop {
            let reason = match self.load_functions().await {
                Ok(()) => {
                    info!(ledger = %self.describe(), "connected");
                    return Ok(());
                }
                Err(error @ Error::Unavailable { .. }) if !error.kind().is_refusal() => {
                    error.to_string()
                }
                Err(error) => return Err(error),
            };
            if logged != reason {
                warn!(error = %reason, "waiting for Redis");
                logged = reason;
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }
}
