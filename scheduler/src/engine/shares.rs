//! Whose chunk is next: deficit round robin over tenants, then over the jobs of a tenant, in its
//! continuous form.
//!
//! Round robin with quanta would have to walk many rounds where costs differ as much as here (a
//! chunk of 1 ms beside a chunk of an hour). So nobody walks: each tenant and each job keeps the
//! round in which its deficit is paid, `at`, and whoever is first in that order is next. Work of
//! cost c moves its job on by c / weight. With quanta that shrink to nothing that is the order in
//! which deficit round robin would serve (start-time fair queueing; Goyal, Vin and Cheng, 1996).
//! Everything is O(log n) a chunk.
//!
//! - Cost is work: microseconds of worker time. It is charged by estimate when a chunk is handed
//!   out and corrected when the ledger knows better, so shares are shares of worker time, and what
//!   already runs counts.
//! - The weight of a job is 2^(priority / 2). The weight of a tenant is that of its most urgent job
//!   that has work: a tenant gets no greater share by splitting its work into more jobs.
//! - Who comes back from having had nothing to do starts in the round of whoever is first: no
//!   credit is saved up.
//!
//! Deliberately absent: how much is handed out (see `window`).

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use longshore_protocol::JobId;
use rustc_hash::FxHashMap;

use super::chunk::AIM;

/// Whether a job takes part right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing to hand out.
    Idle,
    /// All that it had is being opened: it keeps its deficit, and whoever is next goes on.
    Spent,
    /// Something to hand out, but a call to the ledger is under way: when it is its turn, the
    /// others wait. That is a matter of a millisecond; passing it over could cost it its turn at
    /// the only slot that frees in an hour.
    Busy,
    /// May be picked.
    Ready,
}

/// A point in the order of service.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Round(f64);

impl Eq for Round {}

impl PartialOrd for Round {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Round {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// How much of its charge a job can get back ahead of all others: a chunk of the size that we aim
/// at.
const MOST_CREDIT_US: f64 = AIM.as_micros() as f64;

type TenantKey = u64;

/// The shares of one queue.
#[derive(Debug, Default)]
pub(super) struct Shares {
    names: FxHashMap<String, TenantKey>,
    tenants: FxHashMap<TenantKey, Tenant>,
    jobs: FxHashMap<JobId, Member>,
    /// Tenants with a job that is ready or busy.
    order: BTreeSet<(Round, TenantKey)>,
    /// The round of the latest pick.
    round: f64,
    next_key: TenantKey,
}

#[derive(Debug)]
struct Tenant {
    name: String,
    at: f64,
    /// How many jobs it has, with or without work.
    members: usize,
    /// How many of its jobs have work, by priority.
    backlogged: BTreeMap<u8, usize>,
    order: BTreeSet<(Round, JobId)>,
    round: f64,
}

#[derive(Debug)]
struct Member {
    tenant: TenantKey,
    priority: u8,
    at: f64,
    standing: Standing,
}

/// The weight of a priority: two steps double the share.
pub(super) fn weight(priority: u8) -> f64 {
    (f64::from(priority) / 2.0).exp2()
}

impl Tenant {
    fn weight(&self) -> f64 {
        // A tenant without waiting work is still charged for what runs; then its weight hardly
        // matters.
        self.backlogged
            .last_key_value()
            .map_or_else(|| weight(5), |(priority, _)| weight(*priority))
    }
}

impl Shares {
    /// A job joins, without work yet. Does nothing if it is there.
    pub(super) fn join(&mut self, job: JobId, tenant: &str, priority: u8) {
        if self.jobs.contains_key(&job) {
            return;
        }
        let key = *self.names.entry(tenant.to_owned()).or_insert_with(|| {
            self.next_key += 1;
            self.next_key
        });
        let round = self.round;
        let entry = self.tenants.entry(key).or_insert_with(|| Tenant {
            name: tenant.to_owned(),
            at: round,
            members: 0,
            backlogged: BTreeMap::new(),
            order: BTreeSet::new(),
            round: 0.0,
        });
        entry.members += 1;
        let member = Member { tenant: key, priority, at: entry.round, standing: Standing::Idle };
        self.jobs.insert(job, member);
    }

    /// A job leaves; a tenant without jobs is forgotten.
    pub(super) fn leave(&mut self, job: JobId) {
        self.stand(job, Standing::Idle);
        let Some(member) = self.jobs.remove(&job) else { return };
        let tenant = self.tenants.get_mut(&member.tenant).expect("a member's tenant is kept");
        tenant.members -= 1;
        if tenant.members == 0 {
            self.names.remove(&tenant.name);
            self.tenants.remove(&member.tenant);
        }
    }

    /// Changes whether a job takes part.
    pub(super) fn stand(&mut self, job: JobId, standing: Standing) {
        let Some(member) = self.jobs.get_mut(&job) else { return };
        if member.standing == standing {
            return;
        }
        let tenant = self.tenants.get_mut(&member.tenant).expect("a member's tenant is kept");
        leave_order(&mut self.order, tenant, member, job);
        let (was, is) = (member.standing != Standing::Idle, standing != Standing::Idle);
        if !was && is {
            member.at = member.at.max(start(&tenant.order, tenant.round));
            if tenant.backlogged.is_empty() {
                tenant.at = tenant.at.max(start(&self.order, self.round));
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
        member.standing = standing;
        enter_order(&mut self.order, tenant, member, job);
    }

    /// A call to the ledger is under way about this job: if it was ready, the others wait when it
    /// is its turn.
    pub(super) fn hold(&mut self, job: JobId) {
        if self.jobs.get(&job).is_some_and(|member| member.standing == Standing::Ready) {
            self.stand(job, Standing::Busy);
        }
    }

    /// Whose chunk is next; `None` if nobody has work, or the next one is busy.
    pub(super) fn next(&self) -> Option<JobId> {
        let (_, key) = self.order.first()?;
        let (_, job) = self.tenants[key].order.first()?;
        (self.jobs[job].standing == Standing::Ready).then_some(*job)
    }

    /// A chunk of the job that [`Self::next`] gave is handed out, at an estimated cost.
    pub(super) fn serve(&mut self, job: JobId, cost_us: f64) {
        let Some(member) = self.jobs.get(&job) else { return };
        let tenant = self.tenants.get_mut(&member.tenant).expect("a member's tenant is kept");
        (self.round, tenant.round) = (tenant.at, member.at);
        self.charge(job, cost_us);
    }

    /// A job has used more (or, if negative, less) than it was charged for. What is paid back does
    /// not put it far before everybody else: they may have come while it stood back, and owe it
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

/// Where an order begins.
fn first<K: Ord>(order: &BTreeSet<(Round, K)>) -> Option<f64> {
    order.first().map(|(at, _)| at.0)
}

/// Where a newcomer starts: just before whoever is first.
fn start<K: Ord>(order: &BTreeSet<(Round, K)>, round: f64) -> f64 {
    first(order).map_or(round, f64::next_down)
}

/// `at`, moved on by `by`; moved back no further than to `credit` before the first of the others.
fn moved(at: f64, by: f64, others: Option<f64>, credit: f64) -> f64 {
    match others {
        Some(others) if by < 0.0 => (at + by).max(at.min(others - credit)),
        _ => at + by,
    }
}

fn leave_order(
    order: &mut BTreeSet<(Round, TenantKey)>,
    tenant: &mut Tenant,
    member: &Member,
    job: JobId,
) {
    order.remove(&(Round(tenant.at), member.tenant));
    tenant.order.remove(&(Round(member.at), job));
}

fn enter_order(
    order: &mut BTreeSet<(Round, TenantKey)>,
    tenant: &mut Tenant,
    member: &Member,
    job: JobId,
) {
    if matches!(member.standing, Standing::Ready | Standing::Busy) {
        tenant.order.insert((Round(member.at), job));
    }
    if !tenant.order.is_empty() {
        order.insert((Round(tenant.at), member.tenant));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn job(number: usize) -> JobId {
        JobId::from_uuid(uuid::Uuid::from_u128(number as u128 + 1))
    }

    /// Jobs as (tenant, priority, cost of a chunk in µs); gives the work that each received of
    /// `work_us` in all.
    fn served(jobs: &[(&str, u8, f64)], work_us: f64) -> Vec<f64> {
        let mut shares = Shares::default();
        for (number, (tenant, priority, _)) in jobs.iter().enumerate() {
            shares.join(job(number), tenant, *priority);
            shares.stand(job(number), Standing::Ready);
        }
        let mut received = vec![0.0; jobs.len()];
        while received.iter().sum::<f64>() < work_us {
            let next = shares.next().expect("all of them always have work");
            let number = (0..jobs.len()).find(|number| job(*number) == next).unwrap();
            shares.serve(next, jobs[number].2);
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
    fn shares_are_of_work_not_of_chunks() {
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
    fn who_comes_late_is_next_and_gets_no_arrears() {
        let mut shares = Shares::default();
        shares.join(job(0), "a", 5);
        shares.stand(job(0), Standing::Ready);
        for _ in 0..1_000 {
            shares.serve(job(0), 100.0);
        }
        shares.join(job(1), "b", 5);
        shares.stand(job(1), Standing::Ready);
        let order: Vec<bool> = (0..6)
            .map(|_| {
                let next = shares.next().unwrap();
                shares.serve(next, 100.0);
                next == job(1)
            })
            .collect();
        assert!(order[0], "the newcomer is first");
        assert!(order.iter().filter(|newcomer| **newcomer).count() <= 4, "{order:?}");
    }

    #[test]
    fn who_holds_all_the_slots_pays_for_what_runs() {
        let mut shares = Shares::default();
        for number in 0..2 {
            shares.join(job(number), "a", 5);
            shares.stand(job(number), Standing::Ready);
        }
        shares.charge(job(0), 1_000.0);
        for _ in 0..10 {
            assert_eq!(shares.next(), Some(job(1)));
            shares.serve(job(1), 100.0);
        }
        shares.serve(job(1), 100.0);
        assert_eq!(shares.next(), Some(job(0)));
    }

    #[track_caller]
    fn returns_with_its_deficit(standing: Standing) {
        let mut shares = Shares::default();
        for number in 0..2 {
            shares.join(job(number), "a", 5);
            shares.stand(job(number), Standing::Ready);
        }
        shares.stand(job(0), standing);
        for _ in 0..5 {
            shares.serve(job(1), 100.0);
        }
        shares.stand(job(0), Standing::Ready);
        for _ in 0..5 {
            assert_eq!(shares.next(), Some(job(0)));
            shares.serve(job(0), 100.0);
        }
    }

    #[test]
    fn who_is_busy_or_spent_keeps_its_deficit() {
        returns_with_its_deficit(Standing::Busy);
        returns_with_its_deficit(Standing::Spent);
    }

    #[test]
    fn the_others_wait_for_who_is_busy_but_not_for_who_is_spent() {
        let mut shares = Shares::default();
        for number in 0..2 {
            shares.join(job(number), "a", 5);
            shares.stand(job(number), Standing::Ready);
        }
        shares.hold(job(0));
        assert_eq!(shares.next(), None);
        shares.stand(job(0), Standing::Spent);
        assert_eq!(shares.next(), Some(job(1)));
    }

    #[test]
    fn nothing_is_left_of_those_who_left() {
        let mut shares = Shares::default();
        for number in 0..100 {
            shares.join(job(number), &format!("tenant-{}", number % 7), 5);
            shares.stand(job(number), Standing::Ready);
        }
        for number in 0..100 {
            shares.leave(job(number));
        }
        assert_eq!(shares.next(), None);
        assert!(shares.tenants.is_empty() && shares.names.is_empty() && shares.jobs.is_empty());
    }

    proptest! {
        /// Work conserving: as long as anybody is ready, somebody is picked, and it is somebody who
        /// is ready. No starvation: a job that stays ready is picked before the others together
        /// have received more than its weight entitles them to.
        #[test]
        fn whoever_is_ready_is_served_and_nobody_starves(
            jobs in prop::collection::vec((0..4usize, 0..10u8, 1.0..1_000.0f64), 1..20),
            flips in prop::collection::vec((0..20usize, 0..4usize), 0..400),
        ) {
            let mut shares = Shares::default();
            let mut standing = vec![Standing::Idle; jobs.len()];
            for (number, (tenant, priority, _)) in jobs.iter().enumerate() {
                shares.join(job(number), &tenant.to_string(), *priority);
            }
            // Job 0 is the patient one; greatest weight against smallest, twice over (tenant and
            // job).
            shares.stand(job(0), Standing::Ready);
            standing[0] = Standing::Ready;
            let dearest = jobs.iter().map(|(_, _, cost)| *cost).fold(0.0, f64::max);
            let patience = 2.0 * dearest * jobs.len() as f64 * (weight(9) + 1.0) * (weight(9) + 1.0);
            let mut waited = 0.0;
            for (number, kind) in flips {
                if number != 0 && number < jobs.len() {
                    standing[number] = [Standing::Idle, Standing::Spent, Standing::Busy, Standing::Ready][kind];
                    shares.stand(job(number), standing[number]);
                }
                // Everybody may wait for who is busy, but for nobody else.
                let Some(next) = shares.next() else {
                    let busy = standing.iter().position(|standing| *standing == Standing::Busy);
                    prop_assert!(busy.is_some(), "job 0 is ready, and nobody was picked");
                    for (number, standing) in standing.iter_mut().enumerate() {
                        if *standing == Standing::Busy {
                            *standing = Standing::Ready;
                            shares.stand(job(number), Standing::Ready);
                        }
                    }
                    prop_assert!(shares.next().is_some());
                    continue;
                };
                let picked = (0..jobs.len()).find(|number| job(*number) == next).unwrap();
                prop_assert_eq!(standing[picked], Standing::Ready);
                shares.serve(next, jobs[picked].2);
                waited = if picked == 0 { 0.0 } else { waited + jobs[picked].2 };
                prop_assert!(waited <= patience, "waited for {}", waited);
            }
        }
    }
}
