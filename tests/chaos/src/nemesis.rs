//! The nemesis: the faults of processes and services, and the loops that inject them at random.
//!
//! The choice is drawn from a seed. Two loops run at the same time. One injects a fault into a
//! member of the cluster each second and ends each fault after its time. The other injects faults
//! into the servers, one after another. Each has a deck of faults that is shuffled and dealt to its
//! end before it is shuffled again, so that a long run has every fault.
//!
//! A sleep here is the duration of a fault, never a wait for an event.

use std::fmt::Debug;
use std::thread::sleep;
use std::time::{Duration, Instant};

use longshore_test_servers::{Rabbit, Redis};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};

use crate::cluster::{Member, Role};
use crate::link::{Direction, Link, LinkState};

/// `dead_after` in runs with a nemesis; an answer of Redis may take as long.
pub const DEAD_AFTER: Duration = Duration::from_secs(2);

/// One duration shorter than every timeout, and one longer.
const SHORT: Duration = Duration::from_millis(DEAD_AFTER.as_millis() as u64 * 6 / 10);
const LONG: Duration = Duration::from_secs(DEAD_AFTER.as_secs() * 3);

/// What a slow link adds to each direction.
const DELAY: Duration = Duration::from_millis(30);

/// The time between two service faults, in which the fleet can work.
const SERVICE_PAUSE: Duration = Duration::from_secs(4);

/// The time between two process faults.
const FAULT_INTERVAL: Duration = Duration::from_secs(1);

/// A fault of a member of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessFault {
    /// SIGKILL, and a restart after a while.
    Kill,
    /// SIGTERM, and a restart.
    Terminate,
    /// SIGSTOP for this time.
    Freeze(Duration),
    /// All its connections to RabbitMQ are reset.
    ResetRabbit,
    /// All its connections to Redis are reset.
    ResetRedis,
    /// Its link to RabbitMQ passes nothing for this time.
    CutRabbit(Duration),
    /// Its link to Redis passes nothing for this time.
    CutRedis(Duration),
    /// It receives from both servers, but they receive nothing from it.
    Mute(Duration),
    /// Both servers receive from it, but it receives nothing from them.
    Deafen(Duration),
    /// Both its links are slow for this time.
    Slow(Duration),
}

/// The number of kills in a deck, which are the most important faults.
const KILLS: usize = 10;

/// The other faults of a deck.
const OTHER_FAULTS: [ProcessFault; 14] = [
    ProcessFault::Terminate,
    ProcessFault::Freeze(SHORT),
    ProcessFault::Freeze(LONG),
    ProcessFault::ResetRabbit,
    ProcessFault::ResetRedis,
    ProcessFault::CutRabbit(SHORT),
    ProcessFault::CutRabbit(LONG),
    ProcessFault::CutRedis(SHORT),
    ProcessFault::CutRedis(LONG),
    ProcessFault::Mute(SHORT),
    ProcessFault::Mute(LONG),
    ProcessFault::Deafen(SHORT),
    ProcessFault::Deafen(LONG),
    ProcessFault::Slow(LONG),
];

/// A fault of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceFault {
    /// RabbitMQ is killed and starts with its data.
    RabbitKill,
    /// RabbitMQ is stopped and starts with its data.
    RabbitRestart,
    /// RabbitMQ is killed and starts with nothing.
    RabbitWipe,
    /// RabbitMQ is frozen for this time.
    RabbitFreeze(Duration),
    /// The work queue is purged.
    Purge,
    /// The work queue is deleted.
    Delete,
    /// RabbitMQ raises its memory alarm.
    MemoryAlarm,
    /// RabbitMQ raises its disk alarm.
    DiskAlarm,
    /// Redis is killed and starts with its data.
    RedisKill,
    /// Redis is stopped and starts with its data.
    RedisRestart,
    /// Redis is frozen for this time.
    RedisFreeze(Duration),
    /// Redis answers nothing for a while (`DEBUG SLEEP`).
    RedisSleep,
    /// Redis closes all client connections.
    RedisHangup,
    /// Redis drops its functions.
    FunctionFlush,
    /// Redis refuses writes because it is out of memory.
    OutOfMemory,
    /// Redis loses all data. The journal in RabbitMQ restores it, so this must not be combined with
    /// a wipe of RabbitMQ.
    Flushall,
}

/// All service faults except the loss of all data of Redis.
pub fn service_faults() -> Vec<ServiceFault> {
    vec![
        ServiceFault::RabbitKill,
        ServiceFault::RabbitRestart,
        ServiceFault::RabbitWipe,
        ServiceFault::RabbitFreeze(SHORT),
        ServiceFault::RabbitFreeze(LONG),
        ServiceFault::Purge,
        ServiceFault::Delete,
        ServiceFault::MemoryAlarm,
        ServiceFault::DiskAlarm,
        ServiceFault::RedisKill,
        ServiceFault::RedisRestart,
        ServiceFault::RedisFreeze(SHORT),
        ServiceFault::RedisFreeze(LONG),
        ServiceFault::RedisSleep,
        ServiceFault::RedisHangup,
        ServiceFault::FunctionFlush,
        ServiceFault::OutOfMemory,
    ]
}

/// A shuffled deck of faults, dealt one by one.
#[derive(Debug)]
pub struct Deck<T> {
    all: Vec<T>,
    left: Vec<T>,
    rng: StdRng,
}

impl<T: Clone> Deck<T> {
    /// A deck of these faults, which is shuffled again when all have been dealt.
    pub fn new(all: Vec<T>, seed: u64) -> Self {
        Self { all, left: Vec::new(), rng: StdRng::seed_from_u64(seed) }
    }

    /// The same deck, with these faults first.
    #[must_use]
    pub fn after(mut self, first: &[T]) -> Self {
        self.left = first.iter().rev().cloned().collect();
        self
    }

    fn deal(&mut self) -> T {
        if self.left.is_empty() {
            self.left.clone_from(&self.all);
            self.left.shuffle(&mut self.rng);
        }
        self.left.pop().expect("a deck is not empty")
    }
}

/// A log of injected faults, for people.
#[derive(Clone, Debug)]
pub struct FaultLog {
    begun: Instant,
    /// One line for each fault.
    pub lines: Vec<String>,
}

impl FaultLog {
    fn new() -> Self {
        Self { begun: Instant::now(), lines: Vec::new() }
    }

    fn note(&mut self, what: &dyn Debug, member: &str) {
        let at = self.begun.elapsed().as_secs_f64();
        self.lines.push(format!("{at:6.1} s  {what:?} {member}"));
    }
}

/// Injects a process fault each second until `end`, then ends all faults.
pub fn break_processes(members: &mut [Member], seed: u64, end: Instant) -> FaultLog {
    let mut deck = Deck::new([&[ProcessFault::Kill; KILLS][..], &OTHER_FAULTS].concat(), seed);
    let mut active: Vec<(Instant, usize, ProcessFault)> = Vec::new();
    let mut log = FaultLog::new();
    while Instant::now() < end {
        let now = Instant::now();
        let due: Vec<_> = active.extract_if(.., |(until, ..)| *until <= now).collect();
        due.into_iter().for_each(|(_, who, fault)| end_fault(&mut members[who], fault));
        let sound: Vec<usize> = (0..members.len())
            .filter(|who| active.iter().all(|(_, faulty, _)| faulty != who))
            .collect();
        // At least one worker and one scheduler stay sound.
        let is_scheduler = |who: &usize| members[*who].role == Role::Scheduler;
        let (schedulers, workers): (Vec<usize>, Vec<usize>) =
            sound.into_iter().partition(is_scheduler);
        let choice: Vec<usize> =
            [schedulers, workers].into_iter().filter(|kind| kind.len() > 1).flatten().collect();
        if let Some(&who) = choice.choose(&mut deck.rng) {
            let fault = deck.deal();
            log.note(&fault, &members[who].name);
            let lasts = inject(&mut members[who], fault, &mut deck.rng);
            active.push((Instant::now() + lasts, who, fault));
        }
        sleep(FAULT_INTERVAL.saturating_sub(now.elapsed()));
    }
    active.into_iter().for_each(|(_, who, fault)| end_fault(&mut members[who], fault));
    log
}

/// Injects a fault; returns how long it lasts.
fn inject(member: &mut Member, fault: ProcessFault, rng: &mut StdRng) -> Duration {
    match fault {
        ProcessFault::Kill => {
            member.kill();
            FAULT_INTERVAL.mul_f64(rng.random_range(0.0..2.0))
        }
        ProcessFault::Terminate => {
            member.terminate();
            LONG
        }
        ProcessFault::Freeze(time) => {
            member.freeze();
            time
        }
        ProcessFault::ResetRabbit => {
            member.rabbit.reset();
            Duration::ZERO
        }
        ProcessFault::ResetRedis => {
            member.redis.iter().for_each(Link::reset);
            Duration::ZERO
        }
        ProcessFault::CutRabbit(time) => {
            member.set_links(LinkState::CUT, LinkState::OPEN);
            time
        }
        ProcessFault::CutRedis(time) => {
            member.set_links(LinkState::OPEN, LinkState::CUT);
            time
        }
        ProcessFault::Mute(time) => {
            let mute = LinkState { to_server: Direction::Stuck, to_process: Direction::Flows };
            member.set_links(mute, mute);
            time
        }
        ProcessFault::Deafen(time) => {
            let deaf = LinkState { to_server: Direction::Flows, to_process: Direction::Stuck };
            member.set_links(deaf, deaf);
            time
        }
        ProcessFault::Slow(time) => {
            member.set_links(LinkState::slow(DELAY), LinkState::slow(DELAY));
            time
        }
    }
}

fn end_fault(member: &mut Member, fault: ProcessFault) {
    match fault {
        ProcessFault::Kill | ProcessFault::Terminate => member.restart(),
        ProcessFault::Freeze(_) => member.thaw(),
        _ => member.open_links(),
    }
}

/// Injects service faults until `end`, with pauses in between. Both servers are sound afterwards.
pub fn break_services(
    rabbit: &mut Rabbit,
    redis: &mut Redis,
    namespace: &str,
    mut deck: Deck<ServiceFault>,
    end: Instant,
) -> FaultLog {
    let mut log = FaultLog::new();
    while Instant::now() + SERVICE_PAUSE < end {
        sleep(SERVICE_PAUSE);
        let fault = deck.deal();
        log.note(&fault, "");
        inject_service_fault(rabbit, redis, namespace, fault);
    }
    log
}

fn inject_service_fault(
    rabbit: &mut Rabbit,
    redis: &mut Redis,
    namespace: &str,
    fault: ServiceFault,
) {
    let work = format!("{namespace}.work.default");
    match fault {
        ServiceFault::RabbitKill => {
            rabbit.kill9();
            rabbit.restart();
        }
        ServiceFault::RabbitRestart => rabbit.restart(),
        ServiceFault::RabbitWipe => rabbit.wipe(),
        ServiceFault::RabbitFreeze(time) => {
            rabbit.freeze();
            sleep(time);
            rabbit.thaw();
        }
        // The queue may be missing for a moment; then there is nothing to purge.
        ServiceFault::Purge => drop(rabbit.try_ctl(&["purge_queue", &work])),
        ServiceFault::Delete => drop(rabbit.try_ctl(&["delete_queue", &work])),
        ServiceFault::MemoryAlarm => {
            rabbit.ctl(&["set_vm_memory_high_watermark", "0.000001"]);
            sleep(FAULT_INTERVAL);
            rabbit.ctl(&["set_vm_memory_high_watermark", "0.4"]);
        }
        ServiceFault::DiskAlarm => {
            rabbit.ctl(&["set_disk_free_limit", "100000GB"]);
            sleep(FAULT_INTERVAL);
            rabbit.ctl(&["set_disk_free_limit", "50MB"]);
        }
        ServiceFault::RedisKill => {
            redis.kill9();
            redis.restart();
        }
        ServiceFault::RedisRestart => redis.restart(),
        ServiceFault::RedisFreeze(time) => {
            redis.freeze();
            sleep(time);
            redis.thaw();
        }
        ServiceFault::RedisSleep => {
            let seconds = SHORT.as_secs_f64().to_string();
            redis.call(&["DEBUG", "SLEEP", &seconds]);
        }
        ServiceFault::RedisHangup => drop(redis.call(&["CLIENT", "KILL", "TYPE", "normal"])),
        ServiceFault::FunctionFlush => drop(redis.call(&["FUNCTION", "FLUSH"])),
        ServiceFault::OutOfMemory => {
            redis.call(&["CONFIG", "SET", "maxmemory", "1"]);
            sleep(2 * FAULT_INTERVAL);
            redis.call(&["CONFIG", "SET", "maxmemory", "0"]);
        }
        ServiceFault::Flushall => drop(redis.call(&["FLUSHALL"])),
    }
}
