//! Handing out: windows are filled in the order of the shares, and the line of calls to the ledger
//! moves on.

use longshore_ledger::op::MAX_CHUNKS_A_CALL;
use longshore_protocol::document::Placement;
use longshore_protocol::{JobId, Timestamp};
use rustc_hash::FxHashMap;

use super::event::Action;
use super::job::{Job, Offer, Opening};
use super::pool::PoolKey;
use super::shares::Standing;
use super::window::{AHEAD, Load, has_room};
use super::{Engine, Entry, Known, Lane};

/// Most calls about jobs under way at once: what one connection pool serves without delay, and all
/// that 10,000 jobs need.
const MOST_IN_FLIGHT: usize = 128;

/// A chunk that takes longer is not opened beside those of other jobs, which are before it: calls
/// under way overtake each other, and whoever comes behind such a chunk waits for long.
const LONG_US: f64 = AHEAD.as_micros() as f64;

/// Why a job is failed when its time is over.
const DEADLINE_PASSED: &str = "the deadline has passed";

/// Chunks of one job that are about to be opened.
struct Order {
    job: JobId,
    offer: Offer,
    chunks: u64,
}

impl Engine {
    /// Opens chunks while the pool's window has room, whoever's turn it is.
    pub(super) fn fill(&mut self, now: Timestamp, key: &PoolKey) {
        let ledger_now = self.ledger_now(now);
        if !self.link_up || self.trouble.is_some() {
            return;
        }
        let Some(pool) = self.pools.get_mut(key) else { return };
        // In the order of their first picks, so that who is next is also published first.
        let mut orders: Vec<Order> = Vec::new();
        let mut places: FxHashMap<JobId, usize> = FxHashMap::default();
        while has_room(pool.hands, pool.load) {
            let Some(id) = pool.shares.next() else { break };
            let Some(Entry { known: Known::Ours(job), .. }) = self.jobs.get_mut(&id) else { break };
            let place = *places.entry(id).or_insert(orders.len());
            if place == orders.len() {
                let offer = job.offer(now, ledger_now, pool.hands.slots);
                if offer.chunks == 0 {
                    // Its time has moved on since it was last considered.
                    places.remove(&id);
                    pool.shares.stand(id, Standing::Idle);
                    continue;
                }
                if place > 0 && job.price_us(offer.size, ledger_now) > LONG_US {
                    break;
                }
                orders.push(Order { job: id, offer, chunks: 0 });
            }
            let Order { offer, chunks, .. } = &mut orders[place];
            *chunks += 1;
            let price = job.price_us(offer.size, ledger_now);
            job.pay(price);
            pool.shares.serve(id, price);
            count_one_more(job, &mut pool.load, *chunks, *offer, ledger_now);
            if *chunks == offer.chunks {
                pool.shares.stand(id, Standing::Spent);
            } else if *chunks == u64::from(MAX_CHUNKS_A_CALL) {
                pool.shares.stand(id, Standing::Busy);
            }
        }
        for Order { job: id, offer: Offer { size, .. }, chunks } in orders {
            pool.shares.hold(id);
            let entry = self.jobs.get_mut(&id).expect("it was just served");
            entry.lane = Lane::Opening(Opening { chunks, size });
            self.in_flight += 1;
            let keyed = matches!(&entry.known, Known::Ours(job) if is_keyed(job));
            let tried = matches!(&entry.known, Known::Ours(job) if job.has_failures());
            let chunks = u32::try_from(chunks).expect("at most MAX_CHUNKS_A_CALL");
            self.actions.push(Action::Open { job: id, chunks, size, keyed, tried });
        }
    }

    /// Puts a job into the line if there is a call to make for it.
    pub(super) fn line_up(&mut self, now: Timestamp, id: JobId) {
        let Some(entry) = self.jobs.get(&id) else { return };
        if !entry.in_line && entry.lane == Lane::Idle && self.duty(now, id, entry).is_some() {
            self.jobs.get_mut(&id).expect("just looked up").in_line = true;
            self.line.push_back(id);
        }
    }

    /// Makes the calls that wait in the line, as many as may be under way.
    pub(super) fn pump(&mut self, now: Timestamp) {
        loop {
            let limit = match self.trouble {
                Some(trouble) if now < trouble.until => 0,
                Some(_) => 1,
                None => MOST_IN_FLIGHT,
            };
            if self.in_flight >= limit {
                return;
            }
            let Some(id) = self.line.pop_front() else {
                // Nobody is left to find out whether the ledger answers again.
                if self.in_flight == 0 {
                    self.trouble = None;
                }
                return;
            };
            let Some(entry) = self.jobs.get_mut(&id) else { continue };
            entry.in_line = false;
            let entry = &self.jobs[&id];
            // While a call is under way the job waits for its answer, which lines it up again.
            if entry.lane != Lane::Idle {
                continue;
            }
            let Some(action) = self.duty(now, id, entry) else { continue };
            self.call(now, id, action);
        }
    }

    fn call(&mut self, now: Timestamp, id: JobId, action: Action) {
        let entry = self.jobs.get_mut(&id).expect("the caller looked it up");
        entry.lane = match &action {
            Action::Look { .. } => Lane::Looking,
            Action::Sweep { doubt, .. } => Lane::Sweeping { doubt: *doubt },
            Action::AskHolders { .. } => Lane::AskingHolders,
            _ => Lane::Asking,
        };
        if matches!(entry.lane, Lane::Looking | Lane::Sweeping { .. }) {
            entry.wanted = false;
        }
        if let Known::Ours(job) = &mut entry.known {
            if matches!(action, Action::Fail { .. }) {
                job.failing(now);
            }
            if matches!(action, Action::AskHolders { .. }) {
                job.asking_holders(now);
            }
            if let Some(pool) = self.pools.get_mut(&job.pool) {
                pool.shares.hold(id);
            }
        }
        self.in_flight += 1;
        self.actions.push(action);
    }

    /// The call that is to be made for a job, if any.
    fn duty(&self, now: Timestamp, id: JobId, entry: &Entry) -> Option<Action> {
        match &entry.known {
            Known::Over => Some(Action::Archive { job: id }),
            Known::Elsewhere(_) => None,
            Known::Unseen => entry.wanted.then_some(Action::Look { job: id }),
            Known::Ours(job) => {
                if job.is_overdue(now, self.ledger_now(now)) {
                    Some(Action::Fail { job: id, error: DEADLINE_PASSED.into() })
                } else if job.holders_are_due(now) {
                    Some(Action::AskHolders { job: id })
                } else if job.terms.is_none() {
                    Some(Action::Study { job: id })
                } else if let Some(nodes) = self.to_absolve(job) {
                    Some(Action::Absolve { job: id, nodes })
                } else if let Some(copy) = self.offer_copies(now, id, job) {
                    Some(copy)
                } else if job.sweep_is_due(now) && self.link_up {
                    let (unless_in, doubt) = (self.resting_place(job), job.doubts(now));
                    let (keyed, tried) = (is_keyed(job), job.has_failures());
                    Some(Action::Sweep { job: id, keyed, unless_in, doubt, tried })
                } else {
                    let look = entry.wanted || job.sweep_is_due(now);
                    look.then_some(Action::Look { job: id })
                }
            }
        }
    }
}

fn is_keyed(job: &Job) -> bool {
    job.terms.as_ref().is_some_and(|terms| matches!(terms.placement, Placement::Hash(_)))
}

/// The load of the pool grows with what one job is about to open.
fn count_one_more(
    job: &mut Job,
    load: &mut Load,
    ordered: u64,
    offer: Offer,
    ledger_now: Option<Timestamp>,
) {
    let opening = Opening { chunks: ordered, size: offer.size };
    let counted = job.load(Some(opening), ledger_now);
    load.replace(job.counted, counted);
    job.counted = counted;
}
