//! The nemesis: one misfortune after the other, drawn from a seed.
//!
//! Two of them work at the same time. One strikes members of the crew, one a second, and heals each after its time; the other
//! strikes the servers, one after the other, since a restart takes as long as it takes. Each has a deck of misfortunes that is
//! shuffled and dealt to its end before it is shuffled again, so that a run that is long enough has seen them all.
//!
//! A pause here is what the misfortune is about, never a wait for something to happen.

use std::fmt::Debug;
use std::thread::sleep;
use std::time::{Duration, Instant};

use longshore_test_servers::{Rabbit, Redis};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};

use crate::crew::{Member, Role};
use crate::link::{Lane, Link, Weather};

/// The silence after which a node counts as dead, as runs with a nemesis set it; it is also how long an answer of Redis may take.
pub const DEAD_AFTER: Duration = Duration::from_secs(2);

/// Shorter than every timeout, and longer.
const SHORT: Duration = Duration::from_millis(DEAD_AFTER.as_millis() as u64 * 6 / 10);
const LONG: Duration = Duration::from_secs(DEAD_AFTER.as_secs() * 3);

/// What a slow link adds to each direction.
const DELAY: Duration = Duration::from_millis(30);

/// From the end of one mishap of a server to the next: without servers nobody works, and what does not work can't be broken.
const RESPITE: Duration = Duration::from_secs(4);

/// Between two blows.
const PACE: Duration = Duration::from_secs(1);

/// What can befall a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// SIGKILL; started again after a while.
    Kill,
    /// SIGTERM; started again once it has left.
    Leave,
    /// SIGSTOP for so long.
    Freeze(Duration),
    /// All its connections to RabbitMQ are reset.
    ResetRabbit,
    /// All its connections to Redis are reset.
    ResetRedis,
    /// No byte passes between it and RabbitMQ for so long.
    CutRabbit(Duration),
    /// No byte passes between it and Redis for so long.
    CutRedis(Duration),
    /// It hears both servers, and they don't hear it.
    Mute(Duration),
    /// Both servers hear it, and it does not hear them.
    Deafen(Duration),
    /// Both its links are slow.
    Slow(Duration),
}

/// Of a deck, so many blows are kills: the fleet is there to survive them.
const KILLS: usize = 10;

/// The rest of a deck.
const BLOWS: [Blow; 14] = [
    Blow::Leave,
    Blow::Freeze(SHORT),
    Blow::Freeze(LONG),
    Blow::ResetRabbit,
    Blow::ResetRedis,
    Blow::CutRabbit(SHORT),
    Blow::CutRabbit(LONG),
    Blow::CutRedis(SHORT),
    Blow::CutRedis(LONG),
    Blow::Mute(SHORT),
    Blow::Mute(LONG),
    Blow::Deafen(SHORT),
    Blow::Deafen(LONG),
    Blow::Slow(LONG),
];

/// What can befall a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// RabbitMQ is killed and starts with its data.
    RabbitKill,
    /// RabbitMQ is stopped and starts with its data.
    RabbitRestart,
    /// RabbitMQ is killed and starts with nothing.
    RabbitWipe,
    /// RabbitMQ stands still for so long.
    RabbitFreeze(Duration),
    /// The messages of the work queue are thrown away.
    Purge,
    /// The work queue is deleted.
    Delete,
    /// RabbitMQ takes itself to be out of memory.
    MemoryAlarm,
    /// RabbitMQ takes itself to be out of disk space.
    DiskAlarm,
    /// Redis is killed and starts with its data.
    RedisKill,
    /// Redis is stopped and starts with its data.
    RedisRestart,
    /// Redis stands still for so long.
    RedisFreeze(Duration),
    /// Redis answers nobody for a while, by its own doing.
    RedisSleep,
    /// Redis drops all its clients.
    RedisHangup,
    /// Redis forgets its functions.
    FunctionFlush,
    /// Redis refuses writes, out of memory.
    OutOfMemory,
    /// Redis forgets everything. What is in RabbitMQ's journal is put back, so this goes with everything but a wipe of RabbitMQ.
    Flushall,
}

/// Everything that a server must survive while the other one has lost nothing.
pub fn mishaps() -> Vec<Mishap> {
    vec![
        Mishap::RabbitKill,
        Mishap::RabbitRestart,
        Mishap::RabbitWipe,
        Mishap::RabbitFreeze(SHORT),
        Mishap::RabbitFreeze(LONG),
        Mishap::Purge,
        Mishap::Delete,
        Mishap::MemoryAlarm,
        Mishap::DiskAlarm,
        Mishap::RedisKill,
        Mishap::RedisRestart,
        Mishap::RedisFreeze(SHORT),
        Mishap::RedisFreeze(LONG),
        Mishap::RedisSleep,
        Mishap::RedisHangup,
        Mishap::FunctionFlush,
        Mishap::OutOfMemory,
    ]
}

/// Misfortunes, dealt one by one.
#[derive(Debug)]
pub struct Deck<T> {
    all: Vec<T>,
    left: Vec<T>,
    rng: StdRng,
}

impl<T: Clone> Deck<T> {
    /// All of these, shuffled, and again when they have all been dealt.
    pub fn new(all: Vec<T>, seed: u64) -> Self {
        Self { all, left: Vec::new(), rng: StdRng::seed_from_u64(seed) }
    }

    /// The same, after these.
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

/// What happened when, for people.
#[derive(Clone, Debug)]
pub struct Diary {
    begun: Instant,
    /// One line a strike.
    pub lines: Vec<String>,
}

impl Diary {
    fn new() -> Self {
        Self { begun: Instant::now(), lines: Vec::new() }
    }

    fn note(&mut self, what: &dyn Debug, whom: &str) {
        let at = self.begun.elapsed().as_secs_f64();
        self.lines.push(format!("{at:6.1} s  {what:?} {whom}"));
    }
}

/// Strikes a member a second until `end`, and leaves everybody well.
pub fn torment_crew(members: &mut [Member], seed: u64, end: Instant) -> Diary {
    let mut deck = Deck::new([&[Blow::Kill; KILLS][..], &BLOWS].concat(), seed);
    let mut suffering: Vec<(Instant, usize, Blow)> = Vec::new();
    let mut diary = Diary::new();
    while Instant::now() < end {
        let now = Instant::now();
        let due: Vec<_> = suffering.extract_if(.., |(until, ..)| *until <= now).collect();
        due.into_iter().for_each(|(_, who, blow)| heal(&mut members[who], blow));
        let well: Vec<usize> = (0..members.len())
            .filter(|who| suffering.iter().all(|(_, sufferer, _)| sufferer != who))
            .collect();
        // Somebody is always left to do the work, and a scheduler to see to it.
        let is_scheduler = |who: &usize| members[*who].role == Role::Scheduler;
        let (schedulers, workers): (Vec<usize>, Vec<usize>) =
            well.into_iter().partition(is_scheduler);
        let choice: Vec<usize> =
            [schedulers, workers].into_iter().filter(|kind| kind.len() > 1).flatten().collect();
        if let Some(&who) = choice.choose(&mut deck.rng) {
            let blow = deck.deal();
            diary.note(&blow, &members[who].name);
            let lasts = strike(&mut members[who], blow, &mut deck.rng);
            suffering.push((Instant::now() + lasts, who, blow));
        }
        sleep(PACE.saturating_sub(now.elapsed()));
    }
    suffering.into_iter().for_each(|(_, who, blow)| heal(&mut members[who], blow));
    diary
}

/// Does it; gives how long it lasts.
fn strike(member: &mut Member, blow: Blow, rng: &mut StdRng) -> Duration {
    match blow {
        Blow::Kill => {
            member.kill();
            PACE.mul_f64(rng.random_range(0.0..2.0))
        }
        Blow::Leave => {
            member.ask_to_leave();
            LONG
        }
        Blow::Freeze(time) => {
            member.freeze();
            time
        }
        Blow::ResetRabbit => {
            member.rabbit.reset();
            Duration::ZERO
        }
        Blow::ResetRedis => {
            member.redis.iter().for_each(Link::reset);
            Duration::ZERO
        }
        Blow::CutRabbit(time) => {
            member.set_links(Weather::CUT, Weather::FAIR);
            time
        }
        Blow::CutRedis(time) => {
            member.set_links(Weather::FAIR, Weather::CUT);
            time
        }
        Blow::Mute(time) => {
            let mute = Weather { out: Lane::Stuck, back: Lane::Flows };
            member.set_links(mute, mute);
            time
        }
        Blow::Deafen(time) => {
            let deaf = Weather { out: Lane::Flows, back: Lane::Stuck };
            member.set_links(deaf, deaf);
            time
        }
        Blow::Slow(time) => {
            member.set_links(Weather::slow(DELAY), Weather::slow(DELAY));
            time
        }
    }
}

fn heal(member: &mut Member, blow: Blow) {
    match blow {
        Blow::Kill | Blow::Leave => member.start_again(),
        Blow::Freeze(_) => member.thaw(),
        _ => member.mend(),
    }
}

/// Strikes a server again and again until `end`, with a pause in between, and leaves both well.
pub fn torment_servers(
    rabbit: &mut Rabbit,
    redis: &mut Redis,
    namespace: &str,
    mut deck: Deck<Mishap>,
    end: Instant,
) -> Diary {
    let mut diary = Diary::new();
    while Instant::now() + RESPITE < end {
        sleep(RESPITE);
        let mishap = deck.deal();
        diary.note(&mishap, "");
        suffer(rabbit, redis, namespace, mishap);
    }
    diary
}

fn suffer(rabbit: &mut Rabbit, redis: &mut Redis, namespace: &str, mishap: Mishap) {
    let work = format!("{namespace}.work.default");
    match mishap {
        Mishap::RabbitKill => {
            rabbit.kill9();
            rabbit.restart();
        }
        Mishap::RabbitRestart => rabbit.restart(),
        Mishap::RabbitWipe => rabbit.wipe(),
        Mishap::RabbitFreeze(time) => {
            rabbit.freeze();
            sleep(time);
            rabbit.thaw();
        }
        // The queue may be missing for a moment: then there is nothing to throw away.
        Mishap::Purge => drop(rabbit.try_ctl(&["purge_queue", &work])),
        Mishap::Delete => drop(rabbit.try_ctl(&["delete_queue", &work])),
        Mishap::MemoryAlarm => {
            rabbit.ctl(&["set_vm_memory_high_watermark", "0.000001"]);
            sleep(PACE);
            rabbit.ctl(&["set_vm_memory_high_watermark", "0.4"]);
        }
        Mishap::DiskAlarm => {
            rabbit.ctl(&["set_disk_free_limit", "100000GB"]);
            sleep(PACE);
            rabbit.ctl(&["set_disk_free_limit", "50MB"]);
        }
        Mishap::RedisKill => {
            redis.kill9();
            redis.restart();
        }
        Mishap::RedisRestart => redis.restart(),
        Mishap::RedisFreeze(time) => {
            redis.freeze();
            sleep(time);
            redis.thaw();
        }
        Mishap::RedisSleep => {
            let seconds = SHORT.as_secs_f64().to_string();
            redis.call(&["DEBUG", "SLEEP", &seconds]);
        }
        Mishap::RedisHangup => drop(redis.call(&["CLIENT", "KILL", "TYPE", "normal"])),
        Mishap::FunctionFlush => drop(redis.call(&["FUNCTION", "FLUSH"])),
        Mishap::OutOfMemory => {
            redis.call(&["CONFIG", "SET", "maxmemory", "1"]);
            sleep(2 * PACE);
            redis.call(&["CONFIG", "SET", "maxmemory", "0"]);
        }
        Mishap::Flushall => drop(redis.call(&["FLUSHALL"])),
    }
}
