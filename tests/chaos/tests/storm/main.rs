//! Under a nemesis: one big job, many jobs of every kind, kills right after submissions, restarts
//! of everything, a fail-over, poison.
//!
//! The long run is one command; the seed is printed, and repeats the same misfortunes in the same order:
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
use longshore_chaos::crew::{Crew, Role};
use longshore_chaos::inquest::{Baseline, Course, inquest};
use longshore_chaos::nemesis::{DEAD_AFTER, Deck, Diary, Mishap, torment_crew, torment_servers};
use longshore_test_servers::{Rabbit, Redis, RedisOptions};

/// Servers and a crew of two schedulers and some workers, in the open.
struct Storm {
    course: Course,
    rabbit: Rabbit,
    redis: Redis,
    crew: Crew,
}

impl Storm {
    /// With settings for a nemesis that silences members for long and briefly.
    fn gather(course: Course, slots: u32, workers: [Role; 4]) -> Self {
        let mut storm = Self::open(course, slots);
        let dead_after = format!("{}ms", DEAD_AFTER.as_millis());
        storm.crew.set("LONGSHORE_DEAD_AFTER", &dead_after);
        storm.crew.set("LONGSHORE_HEARTBEAT", "500ms");
        storm.crew.set("LONGSHORE_GRACE", "2s");
        storm.hire(&workers);
        storm
    }

    /// Servers, and nobody on them yet.
    fn open(course: Course, slots: u32) -> Self {
        println!("LONGSHORE_CHAOS_SEED={}", course.seed);
        // `DEBUG SLEEP` has to be allowed.
        let lines = vec!["enable-debug-command local".to_owned()];
        let redis = Redis::start_with(&RedisOptions { lines, ..RedisOptions::default() });
        let rabbit = Rabbit::start();
        let mut crew = Crew::on(&rabbit, &redis);
        crew.set("LONGSHORE_SLOTS", &slots.to_string());
        Self { course, rabbit, redis, crew }
    }

    /// Two schedulers, and a worker of each of these kinds.
    fn hire(&mut self, workers: &[Role]) {
        self.crew.hire(Role::Scheduler, 2);
        workers.iter().for_each(|role| self.crew.hire(*role, 1));
    }

    fn baseline(&self) -> Baseline {
        Baseline::of(&self.crew, &self.rabbit, &self.redis)
    }

    /// Lets the nemesis loose while `work` goes on; gives what happened to the servers.
    fn rage(&mut self, deck: Deck<Mishap>, work: impl FnOnce(&Crew, Instant)) -> Diary {
        let Self { course, rabbit, redis, crew } = self;
        let end = Instant::now() + course.length;
        let mut members = std::mem::take(&mut crew.members);
        let namespace = crew.namespace().to_owned();
        let (of_crew, of_servers) = std::thread::scope(|scope| {
            let to_crew = scope.spawn(|| torment_crew(&mut members, course.seed, end));
            let to_servers = scope.spawn(|| torment_servers(rabbit, redis, &namespace, deck, end));
            work(crew, end);
            (to_crew.join().expect("a nemesis"), to_servers.join().expect("a nemesis"))
        });
        crew.members = members;
        println!("to the crew:\n{}", of_crew.lines.join("\n"));
        println!("to the servers:\n{}", of_servers.lines.join("\n"));
        of_servers
    }

    /// Judges when all is quiet again.
    #[track_caller]
    fn judge(&self, before: &Baseline) {
        let history = self.crew.history();
        history.intents.keys().for_each(|job| self.crew.await_end(*job));
        let found = inquest(&self.crew, &self.rabbit, &self.redis, before);
        println!("{}", found.report);
        let seed = self.course.seed;
        assert_eq!(found.violations, Vec::<Violation>::new(), "LONGSHORE_CHAOS_SEED={seed}");
    }
}
