//! Which pool a job is in: its queue's, or one of those workers of the queue alone that have its task.
//!
//! Jobs move as workers come, go and change what they can run, and when a job begins to combine results, which is another task.
//! Deliberately absent: who can run what (see `fleet`).

use longshore_protocol::{JobId, NodeId, NodeRecord, Timestamp};

use super::event::Action;
use super::fleet::Fleet;
use super::job::Job;
use super::pool::{Pool, PoolKey};
use super::window::Load;
use super::{Engine, Entry, Known};

impl Job {
    /// Whether the workers that can run what it needs now are not those of its pool.
    pub(super) fn is_misplaced(&self, fleet: &Fleet) -> bool {
        let task = self.task().filter(|task| fleet.lacks(&self.summary.queue, task));
        self.pool.task.as_deref() != task
    }
}

impl Engine {
    /// The pool of what needs this task, if one is known.
    pub(super) fn pool_of(&self, queue: &str, task: Option<&str>) -> PoolKey {
        let task = task.filter(|task| self.fleet.lacks(queue, task));
        PoolKey { queue: queue.to_owned(), task: task.map(str::to_owned) }
    }

    pub(super) fn leave_pool(&mut self, id: JobId, key: &PoolKey, counted: Load) {
        let Some(pool) = self.pools.get_mut(key) else { return };
        pool.shares.leave(id);
        pool.load.replace(counted, Load::default());
        pool.jobs.remove(&id);
        self.touched.insert(key.clone());
        if pool.jobs.is_empty() {
            self.pools.remove(key);
        }
    }

    /// Puts a job of ours where it belongs.
    pub(super) fn join_pool(&mut self, id: JobId) {
        let Some(Entry { known: Known::Ours(job), .. }) = self.jobs.get(&id) else { return };
        let key = self.pool_of(&job.summary.queue, job.task());
        let Some(Entry { known: Known::Ours(job), .. }) = self.jobs.get_mut(&id) else { return };
        let fleet = &self.fleet;
        let pool = self.pools.entry(key.clone()).or_insert_with(|| Pool::new(&key, fleet));
        pool.jobs.insert(id);
        pool.shares.join(id, &job.summary.tenant, job.summary.priority);
        (job.pool, job.counted) = (key, Load::default());
    }

    /// Moves a job of ours if it needs other workers than before. What waits where only the old ones look is published again.
    pub(super) fn change_pool(&mut self, now: Timestamp, id: JobId) {
        let Some(Entry { known: Known::Ours(job), .. }) = self.jobs.get_mut(&id) else { return };
        if !job.is_misplaced(&self.fleet) {
            return;
        }
        if job.summary.queued_chunks > 0 {
            job.doubt(now);
        }
        let (key, counted) = (job.pool.clone(), job.counted);
        self.leave_pool(id, &key, counted);
        self.join_pool(id);
    }

    /// Decides which nodes are out of rotation, of those that are ours to decide about.
    pub(super) fn judge_health(&mut self, now: Timestamp, records: &[NodeRecord]) {
        let Some(ledger_now) = self.ledger_now(now) else { return };
        self.health.observe(ledger_now, records);
        for record in records {
            let id = &record.info.id;
            if !self.fleet.is_alive(id) || !self.is_mine(id.as_str()) {
                continue;
            }
            let may_go = |task: &str| self.fleet.has_others(id, task);
            let verdict = self.health.judge(ledger_now, record, may_go);
            let isolate = verdict.map(|(node, isolated)| Action::Isolate { node, isolated });
            self.actions.extend(isolate);
        }
    }

    /// The nodes whose failures are to use up no attempts of a job, if the ledger was told others: those that are out of rotation
    /// for what it needs.
    pub(super) fn to_absolve(&self, job: &Job) -> Option<Vec<NodeId>> {
        let isolated = self.fleet.isolated(&job.summary.queue, job.task()?);
        let matters = job.is_open() || job.has_failures() || !job.absolved.is_empty();
        (matters && isolated != job.absolved).then_some(isolated)
    }

    /// Chunks that were sent to one worker stay with it though others have nothing to do. Those of jobs that only some workers
    /// can run are sent anew while one of these is idle.
    pub(super) fn level(&mut self, now: Timestamp) {
        let has_idle = |key: &PoolKey| {
            let infos = self.fleet.takers(key).1;
            infos.iter().filter_map(|id| self.fleet.info(id)).any(|info| info.busy < info.slots)
        };
        let uneven = |(key, pool): &(&PoolKey, &Pool)| {
            key.task.is_some() && pool.load.waiting > 0 && has_idle(key)
        };
        let jobs = self.pools.iter().filter(uneven).flat_map(|(_, pool)| &pool.jobs).copied();
        for id in jobs.collect::<Vec<_>>() {
            if let Some(Entry { known: Known::Ours(job), .. }) = self.jobs.get_mut(&id)
                && job.summary.queued_chunks > 0
            {
                job.doubt_once(now);
                self.reconsider(now, id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::simulation::World;
    use super::super::tests::ends;

    #[test]
    fn what_some_workers_lack_runs_on_the_others_and_never_reaches_them() {
        let mut world = World::new(3, 2);
        world.give_tasks(1, &["other"]);
        world.run_for(100);
        let job = world.submit(400, 20_000, "");
        ends(&mut world, 3_000, job);
        let summary = world.summary(job);
        assert_eq!((world.refused(1), summary.attempts), (0, 400));
    }

    #[test]
    fn a_task_that_nobody_has_waits_for_it_and_blocks_nobody() {
        let mut world = World::new(2, 2);
        world.run_for(100);
        let waits = world.submit_task("other", 40, 1_000, r#","priority":9"#);
        let goes = world.submit(400, 1_000, "");
        ends(&mut world, 3_000, goes);
        let summary = world.summary(waits);
        assert_eq!((summary.counts.waiting, world.refused(0) + world.refused(1)), (40, 0));
        world.give_tasks(0, &["noop", "other"]);
        ends(&mut world, 3_000, waits);
        assert_eq!(world.refused(1), 0);
    }

    #[test]
    fn what_waits_for_a_node_that_lost_the_task_goes_to_another() {
        let mut world = World::new(2, 2);
        world.run_for(100);
        let job = world.submit(40, 100_000, "");
        world.run_for(300);
        world.give_tasks(1, &[]);
        ends(&mut world, 5_000, job);
        // Until its next heartbeat tells, it gives back what it gets, and that is sent again 50 ms later.
        assert!(world.refused(1) <= 200, "{} times", world.refused(1));
        assert_eq!(world.summary(job).attempts, 40);
    }

    #[test]
    fn what_was_sent_to_a_busy_node_goes_to_an_idle_one() {
        let mut world = World::new(3, 1);
        world.give_tasks(2, &[]);
        world.slow_down(0, 10_000);
        world.non_speculative = vec!["noop".into()];
        world.run_for(100);
        let job = world.submit(21, 50_000, r#","chunk":1"#);
        world.run_until(4_000, "all but the slow one's", |world| {
            world.summary(job).counts.done == 20
        });
    }

    #[test]
    fn a_job_whose_reduce_only_some_can_run_ends() {
        let mut world = World::new(2, 2);
        world.give_tasks(1, &["noop", "sum"]);
        world.run_for(100);
        let job = world.submit(40, 1_000, r#","reduce":{"task":"sum","fan_in":4}"#);
        ends(&mut world, 5_000, job);
        assert_eq!(world.refused(0), 0);
    }

    #[test]
    fn nodes_on_which_everything_fails_ruin_nothing_and_are_isolated() {
        for holes in 1..=3 {
            let mut world = World::new(5, 2);
            (0..holes).for_each(|node| world.make_hole(node, true));
            world.run_for(100);
            let job = world.submit(1_500, 20_000, "");
            ends(&mut world, 30_000, job);
            assert_eq!(world.summary(job).counts.failed, 0);
            let isolated = world.isolated();
            assert_eq!(isolated.len(), holes, "{isolated:?}");
            // Nothing fails there any more, but for what they are tried with.
            let before = isolated;
            let next = world.submit(1_500, 20_000, "");
            ends(&mut world, 8_000, next);
            for ((_, before), (node, after)) in before.iter().zip(world.isolated()) {
                assert!(after - before <= 200, "{} failed on {node}", after - before);
            }
        }
    }

    #[test]
    fn what_fails_everywhere_fails_with_as_many_attempts_as_ever_and_isolates_nobody() {
        let mut world = World::new(4, 2);
        (0..4).for_each(|node| world.make_hole(node, true));
        world.run_for(100);
        let job = world.submit(200, 20_000, "");
        world.run_until(20_000, "the job's end", |world| world.summary(job).state.is_terminal());
        let summary = world.summary(job);
        assert_eq!((summary.counts.failed, summary.attempts), (200, 600));
        assert_eq!(world.isolated(), []);
    }

    #[test]
    fn a_node_that_is_well_again_is_readmitted() {
        let mut world = World::new(3, 2);
        world.make_hole(0, true);
        world.run_for(100);
        let job = world.submit(1_000_000, 20_000, "");
        world.run_until(20_000, "the verdict", |world| world.isolated().len() == 1);
        world.make_hole(0, false);
        world.run_until(20_000, "the readmission", |world| world.isolated().is_empty());
        assert_eq!(world.summary(job).counts.failed, 0);
    }

    #[test]
    fn a_retry_goes_to_another_node_than_the_one_that_failed() {
        let mut world = World::new(2, 1);
        world.make_hole(0, true);
        world.run_for(100);
        // Too few to be evidence.
        for _ in 0..20 {
            let job = world.submit(2, 1_000, r#","chunk":1"#);
            ends(&mut world, 2_000, job);
            let summary = world.summary(job);
            assert!(summary.attempts <= 4, "{} attempts", summary.attempts);
        }
    }
}
