//! Changes of jobs and workers, read once a process and shared by all streams of events.
//!
//! ```text
//! ledger.events() ──┐
//!                   ├─> one task, while streams are open ─> broadcast ─> each stream
//! a poll a second ──┘         └ the latest changes, for clients that reconnect
//! ```
//!
//! A hint says that a job may have changed state; the poll finds what has no hint: the counts of
//! running jobs, and the workers. Every change carries the whole job or worker as it is, so one
//! that is missed or comes twice does no harm. Deliberately absent: any history beyond the latest
//! changes; a client that was away for longer is told the present.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use longshore_ledger::{Event, Events, Ledger, ListParams, Topic};
use longshore_protocol::state::JobState;
use longshore_protocol::wire::NodeView;
use longshore_protocol::{Hint, JobFilter, JobId, JobSummary, NodeId};
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::json;
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::debug;
use uuid::Uuid;

/// The changes that are kept for clients that reconnect, and for streams that are slow.
const KEPT: usize = 1_024;

/// The interval of the polls.
const POLL: Duration = Duration::from_secs(1);

/// The most jobs that a poll reads: the newest that have not ended. Of others only hints tell.
pub(crate) const MAX_POLLED: usize = 200;

/// The wait between two attempts to subscribe while the ledger is away.
const SUBSCRIBE_AGAIN: Duration = Duration::from_secs(1);

/// The name of a change that is not known: streams have to tell the present anew.
pub(crate) const GAP: &str = "gap";

/// The longest wait for a stream's first look at the ledger.
const READY_WITHIN: Duration = Duration::from_secs(5);

/// A change, as it is sent.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) number: u64,
    /// The event's name: `job`, `job_gone`, `node`, `node_gone` or [`GAP`].
    pub(crate) name: &'static str,
    /// The tenant that may see it; `None` for changes of the fleet.
    pub(crate) tenant: Option<String>,
    pub(crate) data: String,
}

/// The latest changes.
struct Recent {
    changes: VecDeque<Arc<Change>>,
    next: u64,
    is_followed: bool,
}

/// The changes of this process.
pub(crate) struct Hub {
    ledger: Arc<dyn Ledger>,
    /// Tells the numbers of this process from those of another.
    epoch: String,
    sender: broadcast::Sender<Arc<Change>>,
    recent: Mutex<Recent>,
    /// Every change from now on will be published.
    is_ready: watch::Sender<bool>,
}

/// A place in the changes of a process, as clients give it back: `EPOCH-NUMBER`.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    epoch: String,
    number: u64,
}

impl Place {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (epoch, number) = text.rsplit_once('-')?;
        Some(Self { epoch: epoch.to_owned(), number: number.parse().ok()? })
    }
}

/// A subscription: the changes that the client missed, unless it has to be told the present, and
/// those that follow.
pub(crate) struct Subscription {
    pub(crate) missed: Option<Vec<Arc<Change>>>,
    pub(crate) receiver: broadcast::Receiver<Arc<Change>>,
    /// The number of the next change.
    pub(crate) next: u64,
}

impl Hub {
    pub(crate) fn new(ledger: Arc<dyn Ledger>) -> Arc<Self> {
        let (sender, _) = broadcast::channel(KEPT);
        let recent = Recent { changes: VecDeque::new(), next: 1, is_followed: false };
        let epoch = Uuid::new_v4().simple().to_string();
        let (is_ready, _) = watch::channel(false);
        Arc::new(Self { ledger, epoch, sender, recent: Mutex::new(recent), is_ready })
    }

    /// The id of an event with this number.
    pub(crate) fn id(&self, number: u64) -> String {
        format!("{}-{number}", self.epoch)
    }

    /// Subscribes; `after` is the last change that the client has. Needs a tokio runtime.
    pub(crate) fn subscribe(self: &Arc<Self>, after: Option<&Place>) -> Subscription {
        let mut recent = self.recent.lock();
        if !recent.is_followed {
            recent.is_followed = true;
            // What happened while no stream was open is not known.
            recent.changes.clear();
            recent.next += 1;
            tokio::spawn(follow(Arc::downgrade(self)));
        }
        let first = recent.changes.front().map_or(recent.next, |change| change.number);
        let missed = after
            .filter(|place| place.epoch == self.epoch)
            .filter(|place| place.number + 1 >= first && place.number < recent.next)
            .map(|place| {
                let is_missed = |change: &&Arc<Change>| change.number > place.number;
                recent.changes.iter().filter(is_missed).cloned().collect()
            });
        Subscription { missed, receiver: self.sender.subscribe(), next: recent.next }
    }

    /// Waits until every change from now on will be published. What changed before is in the
    /// present. After a while it gives up: the ledger is away, and reading the present fails.
    pub(crate) async fn ready(&self) {
        let mut is_ready = self.is_ready.subscribe();
        let _ = tokio::time::timeout(READY_WITHIN, is_ready.wait_for(|is_ready| *is_ready)).await;
    }

    fn publish(&self, name: &'static str, tenant: Option<String>, data: &impl Serialize) {
        let data = serde_json::to_string(data).expect("views are JSON");
        let mut recent = self.recent.lock();
        let change = Arc::new(Change { number: recent.next, name, tenant, data });
        recent.next += 1;
        if recent.changes.len() == KEPT {
            recent.changes.pop_front();
        }
        recent.changes.push_back(Arc::clone(&change));
        // An error means that the last stream has just ended.
        let _ = self.sender.send(change);
    }

    /// Ends the task if no stream is open.
    fn may_rest(&self) -> bool {
        let mut recent = self.recent.lock();
        let may_rest = self.sender.receiver_count() == 0;
        if may_rest {
            recent.is_followed = false;
            self.is_ready.send_replace(false);
        }
        may_rest
    }
}

/// What was published last.
#[derive(Default)]
struct Seen {
    /// The jobs that have not ended.
    jobs: HashMap<JobId, JobSummary>,
    nodes: BTreeMap<NodeId, NodeView>,
    is_complete: bool,
}

/// Publishes changes until no stream is open.
async fn follow(hub: Weak<Hub>) {
    let mut seen = Seen::default();
    let mut hints: Option<Box<dyn Events>> = None;
    let mut subscribed_at = None;
    let mut ticks = interval(POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let hint = async {
            match hints.as_mut() {
                Some(hints) => hints.next().await,
                None => std::future::pending().await,
            }
        };
        let hint = tokio::select! {
            hint = hint => Some(hint),
            _ = ticks.tick() => None,
        };
        let Some(hub) = hub.upgrade() else { return };
        if hub.may_rest() {
            return;
        }
        match hint {
            Some(hint) => hinted(&hub, &mut seen, hint).await,
            None => {
                let is_due =
                    subscribed_at.is_none_or(|at: Instant| at.elapsed() >= SUBSCRIBE_AGAIN);
                if hints.is_none() && is_due {
                    subscribed_at = Some(Instant::now());
                    hints = hub.ledger.events(Topic::Clients).await.ok();
                }
                match poll(&hub, &mut seen).await {
                    Ok(()) if hints.is_some() => drop(hub.is_ready.send_replace(true)),
                    Ok(()) => {}
                    Err(error) => debug!(%error, "changes can't be read; trying again"),
                }
            }
        }
    }
}

async fn hinted(hub: &Hub, seen: &mut Seen, hint: Event) {
    match hint {
        Event::Hint(Hint::Job { job, .. }) => {
            // A failed read is made up for by the next poll, or the next hint.
            if let Ok(Some(summary)) = hub.ledger.job(job).await {
                publish_job(hub, seen, &summary);
            }
        }
        Event::Ended(ended) => publish_job(hub, seen, &ended.summary),
        Event::Gap => hub.publish(GAP, None, &json!({})),
        Event::Hint(Hint::Room { .. } | Hint::Node { .. } | Hint::Scheduler { .. }) => {}
    }
}

/// Publishes a job unless it is as it was.
fn publish_job(hub: &Hub, seen: &mut Seen, summary: &JobSummary) {
    let view = summary.clone();
    let has_ended = summary.state.is_terminal();
    if has_ended {
        seen.jobs.remove(&summary.id);
    } else if seen.jobs.insert(summary.id, view.clone()).is_some_and(|before| before == view) {
        return;
    }
    hub.publish("job", Some(summary.tenant.clone()), &view);
}

/// Reads the jobs that have not ended, and the workers, and publishes what has changed. The first
/// poll only learns what is there, since streams begin with that.
async fn poll(hub: &Hub, seen: &mut Seen) -> Result<(), longshore_ledger::Error> {
    let ledger = &hub.ledger;
    let is_open = |state: &JobState| !state.is_terminal();
    let states = JobState::ALL.into_iter().filter(is_open).collect();
    let filter = JobFilter { states, ..JobFilter::default() };
    let params = ListParams::new(filter, MAX_POLLED);
    let (page, nodes) = tokio::try_join!(ledger.list(&params), ledger.nodes())?;
    let nodes: BTreeMap<NodeId, NodeView> =
        nodes.iter().map(|node| (node.info.id.clone(), NodeView::from(node))).collect();
    if !std::mem::replace(&mut seen.is_complete, true) {
        let jobs = page.jobs.iter().map(|job| (job.id, job.clone()));
        seen.jobs.extend(jobs);
        seen.nodes = nodes;
        return Ok(());
    }
    let listed: Vec<JobId> = page.jobs.iter().map(|job| job.id).collect();
    for summary in &page.jobs {
        publish_job(hub, seen, summary);
    }
    let unlisted: Vec<(JobId, String)> = seen
        .jobs
        .iter()
        .filter(|(id, _)| !listed.contains(id))
        .map(|(id, view)| (*id, view.tenant.clone()))
        .take(MAX_POLLED)
        .collect();
    for (id, tenant) in unlisted {
        match ledger.job(id).await? {
            Some(summary) => publish_job(hub, seen, &summary),
            None => {
                seen.jobs.remove(&id);
                hub.publish("job_gone", Some(tenant), &json!({ "id": id }));
            }
        }
    }
    for (id, view) in &nodes {
        if seen.nodes.get(id).is_none_or(|before| differs(before, view)) {
            hub.publish("node", None, view);
        }
    }
    for id in seen.nodes.keys().filter(|id| !nodes.contains_key(*id)) {
        hub.publish("node_gone", None, &json!({ "node": id }));
    }
    seen.nodes = nodes;
    Ok(())
}

/// Whether a worker has changed in more than what changes with every heartbeat.
fn differs(before: &NodeView, now: &NodeView) -> bool {
    let steady = |view: &NodeView| {
        let mut view = view.clone();
        view.beat_at = Default::default();
        (view.info.cpu, view.info.rss) = (0.0, 0);
        view
    };
    steady(before) != steady(now)
}
