//! Decides which job's chunk is next: fair shares of worker time for tenants, then for their jobs.
//!
//! It is deficit round robin over tenants, then over the jobs of a tenant, in its continuous form.
//!
//! Round robin with quanta would have to walk many rounds where costs differ as much as here (a
//! chunk of 1 ms beside a chunk of an hour). Instead, each tenant and each job has a virtual time,
//! `at`, at which its deficit is paid, and the one with the least virtual time is next. Work of
//! cost c moves its job on by c / weight. This is the order in which deficit round robin would
//! serve with quanta that shrink to nothing (start-time fair queueing; Goyal, Vin and Cheng, 1996).
//! Each operation takes O(log n).
//!
//! - Cost is work: µs of worker time. It is charged by estimate when a chunk is opened and
//!   corrected when the ledger knows better, so shares are shares of worker time, and what already
//!   runs counts.
//! - The weight of a job is 2^(priority / 2). The weight of a tenant is that of its most urgent job
//!   that has work: a tenant gets no greater share by splitting its work into more jobs.
//! - A job that had nothing to open, and has again, starts at the virtual time of the one that is
//!   first: no credit is saved up.
//!
//! Deliberately absent: how much is opened (see `window`).

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use longshore_protocol::JobId;
use rustc_hash::FxHashMap;

use super::chunk_size::AIM;

/// Whether a job takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueueStatus {
    /// Nothing to open.
    Idle,
    /// All that the job had is being opened: it keeps its deficit, and the next job goes on.
    Spent,
    /// Something to open, but a call about the job is in flight: when it is the job's turn, the
    /// others wait. That is a matter of a millisecond; to pass the job over could cost it its turn
    /// at the only slot that frees in an hour.
    Busy,
    /// Something to open.
    Ready,
}

/// A point in the order of service: µs of worker time for each unit of weight.
#[derive(Clone, Copy, Debug, PartialEq)]
struct VirtualTime(f64);

impl Eq for VirtualTime {}

impl PartialOrd for VirtualTime {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for VirtualTime {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// How much of its charge a job can get back ahead of all others, in µs: a chunk of the usual size.
const MOST_CREDIT_US: f64 = AIM.as_micros() as f64;

type TenantKey = u64;

/// The jobs of one pool, in the order in which they are served.
#[derive(Debug, Default)]
pub(super) struct FairQueue {
    names: FxHashMap<String, TenantKey>,
    tenants: FxHashMap<TenantKey, Tenant>,
    jobs: FxHashMap<JobId, Member>,
    /// The tenants with a job that is ready or busy.
    order: BTreeSet<(VirtualTime, TenantKey)>,
    /// The virtual time of the latest pick.
    virtual_time: f64,
    next_key: TenantKey,
}

#[derive(Debug)]
struct Tenant {
    name: String,
    at: f64,
    /// How many jobs the tenant has, with or without work.
    members: usize,
    /// How many of them have work, by priority.
    backlogged: BTreeMap<u8, usize>,
    order: BTreeSet<(VirtualTime, JobId)>,
    virtual_time: f64,
}

#[derive(Debug)]
struct Member {
    tenant: TenantKey,
    priority: u8,
    at: f64,
    status: QueueStatus,
}

/// The weight of a priority: two steps double the share.
pub(super) fn weight(priority: u8) -> f64 {
    (f64::from(priority) / 2.0).exp2()
}

impl Tenant {
    fn weight(&self) -> f64 {
        // A tenant without work to open is still charged for what runs; its weight hardly matters.
        self.backlogged
            .last_key_value()
            .map_or_else(|| weight(5), |(priority, _)| weight(*priority))
    }
}

impl FairQueue {
    /// Adds a job, without work yet. Does nothing if it is there.
    pub(super) fn join(&mut self, job: JobId, tenant: &str, priority: u8) {
        if self.jobs.contains_key(&job) {
            return;
        }
        let key = *self.names.entry(tenant.to_owned()).or_insert_with(|| {
            self.next_key += 1;
            self.next_key
        });
        let virtual_time = self.virtual_time;
        let entry = self.tenants.entry(key).or_insert_with(|| Tenant {
            name: tenant.to_owned(),
            at: virtual_time,
            members: 0,
            backlogged: BTreeMap::new(),
            order: BTreeSet::new(),
            virtual_time: 0.0,
        });
        entry.members += 1;
        let member =
            Member { tenant: key, priority, at: entry.virtual_time, status: QueueStatus::Idle };
        self.jobs.insert(job, member);
    }

    /// Removes a job; a tenant without jobs is forgotten.
    pub(super) fn leave(&mut self, job: JobId) {
        self.set_status(job, QueueStatus::Idle);
        let Some(member) = self.jobs.remove(&job) else { return };
        let tenant = self.tenants.get_mut(&member.tenant).expect("a member's tenant is kept");
        tenant.members -= 1;
        if tenant.members == 0 {
            self.names.remove(&tenant.name);
            self.tenants.remove(&member.tenant);
        }
    }

    /// Changes the status of a job.
    pub(super) fn set_status(&mut self, job: JobId, status: QueueStatus) {
        let Some(member) = self.jobs.get_mut(&job) else { return };
        if member.status == status {
            return;
        }
        let tenant = self.tenants.get_mut(&member.tenant).expect("a member's tenant is kept");
        leave_order(&mut self.order, tenant, member, job);
        let (was, is) = (member.status != QueueStatus::Idle, status != QueueStatus::Idle);
        if !was && is {
            member.at = member.at.max(start(&tenant.order, tenant.virtual_time));
            if tenant.backlogged.is_empty() {
                tenant.at = tenant.at.max(start(&self.order, self.virtual_time));
            }
            *tenant.backlogged.entry(member.priority).or_insert(0) += 1;
        }
        if was && !is {
            let count = tenant.backlogged.get_mut(&member.priority).expect("counted when it came");
            *count -= 1;
            if *count == 0 {
                tenant.backlogged.remove(&member.priority);
            }
        }
        member.status = status;
        enter_order(&mut self.order, tenant, member, job);
    }

    /// A call about this job is in flight: if it was ready, the others wait when it is its turn.
    pub(super) fn hold(&mut self, job: JobId) {
        if self.jobs.get(&job).is_some_and(|member| member.status == QueueStatus::Ready) {
            self.set_status(job, QueueStatus::Busy);
        }
    }

    /// Whether a job has something to open.
    pub(super) fn has_work(&self) -> bool {
        !self.order.is_empty()
    }

    /// The job whose chunk is next; `None` if no job has work, or the next one is busy.
    pub(super) fn next(&self) -> Option<JobId> {
        let (_, key) = self.order.first()?;
        let (_, job) = self.tenants[key].order.first()?;
        (self.jobs[job].status == QueueStatus::Ready).then_some(*job)
    }

    /// A chunk of the job that [`Self::next`] returned is opened, at an estimated cost.
    pub(super) fn serve(&mut self, job: JobId, cost_us: f64) {
        let Some(member) = self.jobs.get(&job) else { return };
        let tenant = self.tenants.get_mut(&member.tenant).expect("a member's tenant is kept");
        (self.virtual_time, tenant.virtual_time) = (tenant.at, member.at);
        self.charge(job, cost_us);
    }

    /// A job has used more (or, if negative, less) than it was charged for. What is paid back does
    /// not put it far before all others: they may have come while it was behind, and owe it
    /// nothing.
    pub(super) fn charge(&mut self, job: JobId, cost_us: f64) {
        let Some(member) = self.jobs.get_mut(&job) else { return };
        let tenant = self.tenants.get_mut(&member.tenant).expect("a member's tenant is kept");
        leave_order(&mut self.order, tenant, member, job);
        let (own, whole) = (weight(member.priority), tenant.weight());
        member.at = moved(member.at, cost_us / own, first(&tenant.order), MOST_CREDIT_US / own);
        tenant.at = moved(tenant.at, cost_us / whole, first(&self.order), MOST_CREDIT_US / whole);
        enter_order(&mut self.order, tenant, member, job);
    }
}

/// The least virtual time of an order.
fn first<K: Ord>(order: &BTreeSet<(VirtualTime, K)>) -> Option<f64> {
    order.first().map(|(at, _)| at.0)
}

/// The virtual time of one that starts: just before the one that is first.
fn start<K: Ord>(order: &BTreeSet<(VirtualTime, K)>, virtual_time: f64) -> f64 {
    first(order).map_or(virtual_time, f64::next_down)
}

/// `at`, moved on by `by`; moved back no further than to `credit` before the first of the others.
fn moved(at: f64, by: f64, others: Option<f64>, credit: f64) -> f64 {
    match others {
        Some(others) if by < 0.0 => (at + by).max(at.min(others - credit)),
        _ => at + by,
    }
}

fn leave_order(
    order: &mut BTreeSet<(VirtualTime, TenantKey)>,
    tenant: &mut Tenant,
    member: &Member,
    job: JobId,
) {
    order.remove(&(VirtualTime(tenant.at), member.tenant));
    tenant.order.remove(&(VirtualTime(member.at), job));
}

fn enter_order(
    order: &mut BTreeSet<(VirtualTime, TenantKey)>,
    tenant: &mut Tenant,
    member: &Member,
    job: JobId,
) {
    if matches!(member.status, QueueStatus::Ready | QueueStatus::Busy) {
        tenant.order.insert((VirtualTime(member.at), job));
    }
    if !tenant.order.is_empty() {
        order.insert((VirtualTime(tenant.at), member.tenant));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn job(number: usize) -> JobId {
        JobId::from_uuid(uuid::Uuid::from_u128(number as u128 + 1))
    }

    /// Serves jobs (tenant, priority, cost of a chunk in µs); returns the work that each received
    /// of `work_us` in all.
    fn served(jobs: &[(&str, u8, f64)], work_us: f64) -> Vec<f64> {
        let mut queue = FairQueue::default();
        for (number, (tenant, priority, _)) in jobs.iter().enumerate() {
            queue.join(job(number), tenant, *priority);
            queue.set_status(job(number), QueueStatus::Ready);
        }
        let mut received = vec![0.0; jobs.len()];
        while received.iter().sum::<f64>() < work_us {
            let next = queue.next().expect("all of them always have work");
            let number = (0..jobs.len()).find(|number| job(*number) == next).unwrap();
            queue.serve(next, jobs[number].2);
            received[number] += jobs[number].2;
        }
        received
    }

    #[track_caller]
    fn check(jobs: &[(&str, u8, f64)], parts: &[f64]) {
        let received = served(jobs, 1e7);
        let (all, whole) = (received.iter().sum::<f64>(), parts.iter().sum::<f64>());
        for (number, (work, part)) in received.iter().zip(parts).enumerate() {
            let (share, fair) = (work / all, part / whole);
            assert!((share - fair).abs() < 0.02 * fair, "job {number} got {share}, not {fair}");
        }
    }

    #[test]
    fn shares_are_shares_of_work_not_of_chunks() {
        check(&[("a", 5, 10.0), ("b", 5, 1_000.0)], &[1.0, 1.0]);
    }

    #[test]
    fn two_steps_of_priority_double_the_share() {
        check(&[("a", 5, 70.0), ("a", 7, 70.0)], &[1.0, 2.0]);
        check(&[("a", 0, 70.0), ("b", 2, 70.0), ("c", 4, 70.0)], &[1.0, 2.0, 4.0]);
    }

    #[test]
    fn a_tenant_gets_no_more_for_having_more_jobs() {
        check(&[("a", 5, 50.0), ("b", 5, 50.0), ("b", 5, 50.0)], &[2.0, 1.0, 1.0]);
    }

    #[test]
    fn a_job_that_comes_late_is_next_and_gets_no_arrears() {
        let mut queue = FairQueue::default();
        queue.join(job(0), "a", 5);
        queue.set_status(job(0), QueueStatus::Ready);
        for _ in 0..1_000 {
            queue.serve(job(0), 100.0);
        }
        queue.join(job(1), "b", 5);
        queue.set_status(job(1), QueueStatus::Ready);
        let order: Vec<bool> = (0..6)
            .map(|_| {
                let next = queue.next().unwrap();
                queue.serve(next, 100.0);
                next == job(1)
            })
            .collect();
        assert!(order[0], "the new job is first");
        assert!(order.iter().filter(|is_new| **is_new).count() <= 4, "{order:?}");
    }

    #[test]
    fn a_job_that_holds_all_slots_pays_for_what_runs() {
        let mut queue = FairQueue::default();
        for number in 0..2 {
            queue.join(job(number), "a", 5);
            queue.set_status(job(number), QueueStatus::Ready);
        }
        queue.charge(job(0), 1_000.0);
        for _ in 0..10 {
            assert_eq!(queue.next(), Some(job(1)));
            queue.serve(job(1), 100.0);
        }
        queue.serve(job(1), 100.0);
        assert_eq!(queue.next(), Some(job(0)));
    }

    #[track_caller]
    fn returns_with_its_deficit(status: QueueStatus) {
        let mut queue = FairQueue::default();
        for number in 0..2 {
            queue.join(job(number), "a", 5);
            queue.set_status(job(number), QueueStatus::Ready);
        }
        queue.set_status(job(0), status);
        for _ in 0..5 {
            queue.serve(job(1), 100.0);
        }
        queue.set_status(job(0), QueueStatus::Ready);
        for _ in 0..5 {
            assert_eq!(queue.next(), Some(job(0)));
            queue.serve(job(0), 100.0);
        }
    }

    #[test]
    fn a_busy_or_spent_job_keeps_its_deficit() {
        returns_with_its_deficit(QueueStatus::Busy);
        returns_with_its_deficit(QueueStatus::Spent);
    }

    #[test]
    fn others_wait_for_a_busy_job_but_not_for_a_spent_one() {
        let mut queue = FairQueue::default();
        for number in 0..2 {
            queue.join(job(number), "a", 5);
            queue.set_status(job(number), QueueStatus::Ready);
        }
        queue.hold(job(0));
        assert_eq!(queue.next(), None);
        queue.set_status(job(0), QueueStatus::Spent);
        assert_eq!(queue.next(), Some(job(1)));
    }

    #[test]
    fn nothing_is_left_of_jobs_that_left() {
        let mut queue = FairQueue::default();
        for number in 0..100 {
            queue.join(job(number), &format!("tenant-{}", number % 7), 5);
            queue.set_status(job(number), QueueStatus::Ready);
        }
        for number in 0..100 {
            queue.leave(job(number));
        }
        assert_eq!(queue.next(), None);
        assert!(queue.tenants.is_empty() && queue.names.is_empty() && queue.jobs.is_empty());
    }

    proptest! {
        /// Work conserving: as long as a job is ready, one is picked, and it is ready. No
        /// starvation: a job that stays ready is picked before the others together have received
        /// more than its weight entitles them to.
        #[test]
        fn ready_jobs_are_served_and_none_starves(
            jobs in prop::collection::vec((0..4usize, 0..10u8, 1.0..1_000.0f64), 1..20),
            flips in prop::collection::vec((0..20usize, 0..4usize), 0..400),
        ) {
            let mut queue = FairQueue::default();
            let mut status = vec![QueueStatus::Idle; jobs.len()];
            for (number, (tenant, priority, _)) in jobs.iter().enumerate() {
                queue.join(job(number), &tenant.to_string(), *priority);
            }
            // Job 0 waits; the greatest weight against the smallest, twice over (tenant and job).
            queue.set_status(job(0), QueueStatus::Ready);
            status[0] = QueueStatus::Ready;
            let dearest = jobs.iter().map(|(_, _, cost)| *cost).fold(0.0, f64::max);
            let greatest = weight(9) + 1.0;
            let patience = 2.0 * dearest * jobs.len() as f64 * greatest * greatest;
            let mut waited = 0.0;
            for (number, kind) in flips {
                if number != 0 && number < jobs.len() {
                    status[number] = [
                        QueueStatus::Idle,
                        QueueStatus::Spent,
                        QueueStatus::Busy,
                        QueueStatus::Ready,
                    ][kind];
                    queue.set_status(job(number), status[number]);
                }
                // All may wait for a busy job, but for no other.
                let Some(next) = queue.next() else {
                    let busy = status.iter().position(|status| *status == QueueStatus::Busy);
                    prop_assert!(busy.is_some(), "job 0 is ready, and no job was picked");
                    for (number, status) in status.iter_mut().enumerate() {
                        if *status == QueueStatus::Busy {
                            *status = QueueStatus::Ready;
                            queue.set_status(job(number), QueueStatus::Ready);
                        }
                    }
                    prop_assert!(queue.next().is_some());
                    continue;
                };
                let picked = (0..jobs.len()).find(|number| job(*number) == next).unwrap();
                prop_assert_eq!(status[picked], QueueStatus::Ready);
                queue.serve(next, jobs[picked].2);
                waited = if picked == 0 { 0.0 } else { waited + jobs[picked].2 };
                prop_assert!(waited <= patience, "waited for {}", waited);
            }
        }
    }
}
