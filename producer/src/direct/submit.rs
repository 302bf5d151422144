//! Submits a job, waits until the ledger shows a verdict, and says what keeps it from one.
//!
//! It publishes the document; the verdict is that the job was accepted or rejected.

use std::time::Duration;

use longshore_broker::{Broker, Outgoing, PublishError, Queue};
use longshore_ledger::{Ledger, OpenParams};
use longshore_protocol::JobId;
use tokio::time::Instant;
use tracing::debug;

use super::hints::{JobHints, Notification};
use crate::SubmitError;
use crate::submission::Submission;
use crate::timers::{OutageTimer, PollInterval};

/// How long a rejection is taken for that of an earlier submission with the same id. The ledger
/// keeps one rejection for an id, so a second one with the same text looks like the first.
const OLD_REJECTION: Duration = Duration::from_secs(3);

/// Publishes until the broker confirms, for at most `within`. The id makes a second message
/// harmless.
pub(super) async fn publish(
    broker: &dyn Broker,
    submission: &Submission,
    within: Duration,
) -> Result<(), SubmitError> {
    let started = Instant::now();
    let mut interval = PollInterval::new();
    loop {
        let message = Outgoing {
            body: submission.body.clone(),
            message_id: Some(submission.job.to_string()),
            headers: Vec::new(),
        };
        let error = match broker.publish(&Queue::Jobs, message).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        debug!(job = %submission.job, %error, "publish failed; trying again");
        let kind = error.kind();
        let reason = match error {
            PublishError::Unroutable(_) => "no queue takes jobs".to_owned(),
            PublishError::Unknown { reason, .. } => reason,
            blocked @ PublishError::Blocked(_) => blocked.to_string(),
        };
        if started.elapsed() >= within {
            return Err(SubmitError::NotPublished { job: submission.job, kind, reason });
        }
        tokio::time::sleep(interval.next()).await;
    }
}

/// The outcome of a submission, as the ledger shows it.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// None yet.
    Unknown,
    /// The job was accepted, now or before.
    Accepted,
    /// Another job has the id.
    Conflict,
    /// The job was rejected, for this reason.
    Rejected(String),
}

/// Reads the outcome once.
pub(super) async fn read_verdict(
    ledger: &dyn Ledger,
    submission: &Submission,
) -> Result<Verdict, longshore_ledger::Error> {
    if let Some(stored) = ledger.document(submission.job).await? {
        let same = stored.digest == submission.digest;
        return Ok(if same { Verdict::Accepted } else { Verdict::Conflict });
    }
    Ok(match ledger.job(submission.job).await? {
        Some(job) if !job.state.was_accepted() => Verdict::Rejected(job.error.unwrap_or_default()),
        _ => Verdict::Unknown,
    })
}

/// Waits for the outcome of a published submission. `before` is the outcome that the ledger showed
/// earlier; without it the id was just drawn, and a hint about it is as good as a read.
pub(super) async fn await_verdict(
    broker: &dyn Broker,
    ledger: &dyn Ledger,
    submission: &Submission,
    before: Option<&Verdict>,
    hints: &mut JobHints,
    within: Duration,
) -> Result<(), SubmitError> {
    let job = submission.job;
    let started = Instant::now();
    let mut interval = PollInterval::new();
    let mut outage = OutageTimer::default();
    let mut notification = Notification::Nothing;
    if before.is_none() && hints.is_complete() {
        notification = hints.changed(interval.next()).await;
    }
    loop {
        match notification {
            Notification::State(state) if before.is_none() && state.was_accepted() => {
                return Ok(());
            }
            Notification::End(_) if before.is_none() => return Ok(()),
            Notification::State(_) | Notification::End(_) | Notification::Nothing => {}
        }
        let verdict = outage
            .tolerate(read_verdict(ledger, submission).await)
            .map_err(|error| SubmitError::Unknown { job, error })?;
        match verdict.unwrap_or(Verdict::Unknown) {
            Verdict::Accepted => return Ok(()),
            Verdict::Conflict => return Err(SubmitError::Conflict { job }),
            verdict if Some(&verdict) == before && started.elapsed() < OLD_REJECTION => {}
            Verdict::Rejected(error) => return Err(SubmitError::Rejected { job, error }),
            Verdict::Unknown => {}
        }
        if started.elapsed() >= within {
            let missing = missing(broker, ledger, job).await;
            return Err(SubmitError::NotAccepted { job, waited: within, missing });
        }
        notification = hints.changed(interval.next()).await;
    }
}

/// A scheduler renews its registration twice a second. One that was silent for longer than this is
/// frozen, disconnected or gone.
const SCHEDULER_SILENCE: Duration = Duration::from_secs(3);

/// What keeps the job from being accepted.
async fn missing(broker: &dyn Broker, ledger: &dyn Ledger, job: JobId) -> String {
    // Opens chunks of a job that can't exist, which writes nothing, but fails where the ledger
    // refuses writes.
    let open = OpenParams::new(1, 1, Duration::ZERO);
    if let Err(error) = ledger.open(JobId::NIL, &open).await {
        return error.to_string();
    }
    if let Some(silent) = silent_schedulers(ledger).await {
        return silent;
    }
    if let Ok(Some(_)) = ledger.pending_cancel(job).await {
        return "it was cancelled before, and will be admitted as cancelled".to_owned();
    }
    if let Ok(Some(reason)) = ledger.postponed(job).await {
        return format!(
            "it can't be validated yet, and is tried again every few seconds: {reason}"
        );
    }
    match broker.depth(&Queue::Jobs).await {
        Ok(Some(depth)) if depth.consumers == 0 => {
            "no scheduler takes jobs; start one with `longshore scheduler`, or look at its log"
                .to_owned()
        }
        Ok(Some(depth)) if depth.ready > 0 => {
            format!("the schedulers are behind: {} documents wait", depth.ready)
        }
        Ok(_) => "a scheduler has it but could not admit it yet; its log says why".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// Names the scheduler that has been silent, if no other one is running. RabbitMQ counts a frozen
/// process as a consumer for a while.
async fn silent_schedulers(ledger: &dyn Ledger) -> Option<String> {
    let (listed, now) = (ledger.schedulers().await.ok()?, ledger.now().await.ok()?);
    let last = listed.iter().max_by_key(|scheduler| scheduler.beat_at)?;
    let silence = now.since(last.beat_at);
    (silence > SCHEDULER_SILENCE).then(|| {
        let (id, seconds) = (&last.id, silence.as_secs());
        format!(
            "scheduler {id} has been silent for {seconds}s: it is frozen, disconnected or gone; \
             restart it, or start another one"
        )
    })
}
