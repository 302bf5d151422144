//! Runs with a nemesis: what all of them share, from the servers to the checks.
//!
//! The runs are one big job, many jobs of all kinds, kills right after submissions, restarts, a
//! fail-over of Redis, and poison.
//!
//! This command is the long run. The seed is printed, and repeats the same faults in the same
//! order:
//!
//! ```text
//! LONGSHORE_CHAOS_MINUTES=10 LONGSHORE_CHAOS_SEED=42 \
//!     cargo test -p longshore-chaos --features services -- --nocapture --test-threads 1
//! ```

#![expect(clippy::print_stdout, reason = "the figures are for people: --nocapture shows them")]

mod big_job;
mod early_kills;
mod everything;
mod failover;
mod poison;
mod restarts;

use std::time::Instant;

use longshore_chaos::checker::Violation;
use longshore_chaos::cluster::{Cluster, Role};
use longshore_chaos::nemesis::{
    DEAD_AFTER, Deck, FaultLog, ServiceFault, break_processes, break_services,
};
use longshore_chaos::report::{Baseline, RunConfig, examine};
use longshore_test_servers::{Rabbit, Redis, RedisOptions};

/// A run with a nemesis: servers, and a cluster of two schedulers and some workers.
struct NemesisRun {
    config: RunConfig,
    rabbit: Rabbit,
    redis: Redis,
    cluster: Cluster,
}

impl NemesisRun {
    /// Starts a cluster whose settings suit the short and long faults of the nemesis.
    fn start(config: RunConfig, slots: u32, workers: [Role; 4]) -> Self {
        let mut run = Self::with_empty_cluster(config, slots);
        let dead_after = format!("{}ms", DEAD_AFTER.as_millis());
        run.cluster.set("LONGSHORE_DEAD_AFTER", &dead_after);
        run.cluster.set("LONGSHORE_HEARTBEAT", "500ms");
        run.cluster.set("LONGSHORE_GRACE", "2s");
        run.add(&workers);
        run
    }

    /// Starts the servers, with an empty cluster.
    fn with_empty_cluster(config: RunConfig, slots: u32) -> Self {
        println!("LONGSHORE_CHAOS_SEED={}", config.seed);
        // `DEBUG SLEEP` has to be allowed.
        let lines = vec!["enable-debug-command local".to_owned()];
        let redis = Redis::start_with(&RedisOptions { lines, ..RedisOptions::default() });
        let rabbit = Rabbit::start();
        let mut cluster = Cluster::on(&rabbit, &redis);
        cluster.set("LONGSHORE_SLOTS", &slots.to_string());
        Self { config, rabbit, redis, cluster }
    }

    /// Adds two schedulers, and a worker of each of these roles.
    fn add(&mut self, workers: &[Role]) {
        self.cluster.add(Role::Scheduler, 2);
        workers.iter().for_each(|role| self.cluster.add(*role, 1));
    }

    fn baseline(&self) -> Baseline {
        Baseline::of(&self.cluster, &self.rabbit, &self.redis)
    }

    /// Injects faults while `work` runs; returns the faults of the servers.
    fn break_during(
        &mut self,
        deck: Deck<ServiceFault>,
        work: impl FnOnce(&Cluster, Instant),
    ) -> FaultLog {
        let Self { config, rabbit, redis, cluster } = self;
        let end = Instant::now() + config.length;
        let mut members = std::mem::take(&mut cluster.members);
        let namespace = cluster.namespace().to_owned();
        let (processes, services) = std::thread::scope(|scope| {
            let processes = scope.spawn(|| break_processes(&mut members, config.seed, end));
            let services = scope.spawn(|| break_services(rabbit, redis, &namespace, deck, end));
            work(cluster, end);
            (processes.join().expect("a nemesis"), services.join().expect("a nemesis"))
        });
        cluster.members = members;
        println!("process faults:\n{}", processes.lines.join("\n"));
        println!("service faults:\n{}", services.lines.join("\n"));
        services
    }

    /// Waits until all jobs have ended and runs all checks.
    #[track_caller]
    fn check(&self, before: &Baseline) {
        let history = self.cluster.history();
        history.intents.keys().for_each(|job| self.cluster.await_end(*job));
        let report = examine(&self.cluster, &self.rabbit, &self.redis, before);
        println!("{}", report.summary);
        let seed = self.config.seed;
        assert_eq!(report.violations, Vec::<Violation>::new(), "LONGSHORE_CHAOS_SEED={seed}");
    }
}
