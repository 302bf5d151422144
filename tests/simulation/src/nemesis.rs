//! Chooses the faults of a run, and injects them into processes, links, clocks and the ledger.

use std::sync::Arc;
use std::time::Duration;

use longshore_broker::{Broker, Queue};
use longshore_ledger::{
    Admission, Claim, ClaimParams, DeclareLostParams, Ledger, LossCause, LossEvidence,
};
use longshore_protocol::{ChunkMessage, NodeId, Token};
use tokio::time::Instant;

use crate::checked_ledger::Moment;
use crate::fleet;
use crate::process::{Impairment, Process};
use crate::rng::Rng;
use crate::sabotage::Sabotage;
use crate::workload::unsubmitted;
use crate::world::{FaultRates, World};

/// A fault that the nemesis injects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    KillWorker,
    KillScheduler,
    MassDeath,
    Freeze,
    CutBroker,
    CutLedger,
    CutHeartbeat,
    BrokerOutage,
    LedgerOutage,
    Purge,
    Rollback,
    ClockJump,
    Ghost,
    Forget,
    Drain,
}

impl Fault {
    pub(crate) const ALL: [Self; 15] = [
        Self::KillWorker,
        Self::KillScheduler,
        Self::MassDeath,
        Self::Freeze,
        Self::CutBroker,
        Self::CutLedger,
        Self::CutHeartbeat,
        Self::BrokerOutage,
        Self::LedgerOutage,
        Self::Purge,
        Self::Rollback,
        Self::ClockJump,
        Self::Ghost,
        Self::Forget,
        Self::Drain,
    ];

    /// The name of the fault's counter in the tally.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::KillWorker => "workers killed",
            Self::KillScheduler => "schedulers killed",
            Self::MassDeath => "mass deaths",
            Self::Freeze => "processes frozen",
            Self::CutBroker => "broker links cut",
            Self::CutLedger => "ledger links cut",
            Self::CutHeartbeat => "heartbeat links cut",
            Self::BrokerOutage => "broker outages",
            Self::LedgerOutage => "ledger outages",
            Self::Purge => "queues purged",
            Self::Rollback => "ledger rolled back",
            Self::ClockJump => "clock jumps",
            Self::Ghost => "chunks claimed by ghosts",
            Self::Forget => "living nodes forgotten",
            Self::Drain => "nodes drained",
        }
    }
}

/// The kinds of faults of one run. A few kinds at a time reach deeper states than all at once.
pub(crate) fn some_faults(rng: &Rng) -> Vec<Fault> {
    let share = *rng.pick(&[0, 150, 350, 700]);
    Fault::ALL.into_iter().filter(|_| rng.chance(share)).collect()
}

/// The faults of a run in which servers have outages, and processes and calls have no other faults.
pub(crate) fn outages(rng: &Rng, fault_rates: FaultRates) -> (Vec<Fault>, FaultRates) {
    let mut faults = vec![Fault::LedgerOutage];
    faults.extend(rng.chance(500).then_some(Fault::BrokerOutage));
    faults.extend(rng.chance(300).then_some(Fault::Purge));
    let rates = FaultRates {
        crash_at_call: 0,
        call_lost: 0,
        reply_lost: 0,
        call_late: 0,
        write_late: 0,
        ..fault_rates
    };
    (faults, rates)
}

/// The faults of a run in which only single processes fail, in addition to [`fail_workers_early`]:
/// none stops the schedulers for long.
pub(crate) fn process_faults(rng: &Rng) -> Vec<Fault> {
    let all = [Fault::KillWorker, Fault::KillScheduler, Fault::Drain];
    all.into_iter().filter(|_| rng.chance(400)).collect()
}

/// Kills or freezes a worker within half a second of each submission, preferably one that holds a
/// chunk of the job.
pub(crate) fn fail_workers_early(world: &Arc<World>) {
    for job in world.jobs.values() {
        let (world, rng, job) = (world.clone(), world.rng.fork(), job.clone());
        tokio::spawn(async move {
            let after = job.submitted_after + rng.millis(0..500);
            tokio::time::sleep_until(world.at(after)).await;
            let victims: Vec<_> = mortals(&world, "worker");
            let held = world.ledger.holders(job.id).await.unwrap_or_default();
            let holds = |process: &&Arc<Process>| {
                held.iter().any(|holder| Some(&holder.node) == process.node().as_ref())
            };
            let holders: Vec<_> = victims.iter().filter(holds).cloned().collect();
            let among = if holders.is_empty() { &victims } else { &holders };
            if among.is_empty() {
                return;
            }
            let victim = rng.pick(among);
            // Several frozen workers at once would count as a fault that they share.
            let is_frozen = victims.iter().any(|victim| victim.has(Impairment::Frozen));
            if !is_frozen && rng.chance(300) {
                world.count("workers frozen early");
                impair(victim.clone(), Impairment::Frozen, world.dead_after + rng.millis(0..4_000));
            } else {
                world.count("workers killed early");
                victim.kill();
            }
        });
    }
}

/// How often the calls and messages of one run fail.
pub(crate) fn some_fault_rates(rng: &Rng) -> FaultRates {
    let maybe = |most: u64| if rng.chance(350) { rng.among(1..most) } else { 0 };
    FaultRates {
        crash_at_call: maybe(6),
        call_lost: maybe(60),
        reply_lost: maybe(60),
        call_late: maybe(40),
        hint_lost: maybe(900),
        message_lost: maybe(300),
        message_doubled: maybe(300),
        message_late: maybe(300),
        confirm_lost: maybe(200),
        publish_refused: maybe(200),
        write_refused: maybe(200),
        files_away: maybe(900),
        write_late: maybe(300),
    }
}

/// Injects faults until `until`. All links recover by themselves within seconds after that.
pub(crate) async fn inject_faults(
    world: Arc<World>,
    faults: Vec<Fault>,
    queues: Vec<String>,
    until: Instant,
) {
    if faults.is_empty() {
        return;
    }
    let rng = world.rng.fork();
    if faults.contains(&Fault::Drain) {
        tokio::spawn(undrain_all(world.clone(), world.rng.fork()));
    }
    let mut past: Vec<Moment> = Vec::new();
    loop {
        tokio::time::sleep(rng.millis(50..1_500)).await;
        if Instant::now() >= until || world.is_violated() {
            return;
        }
        if faults.contains(&Fault::Rollback) {
            past.push(world.moment());
        }
        let fault = *rng.pick(&faults);
        inject(&world, &rng, fault, &queues, &past).await;
        if fault == Fault::Rollback {
            // A state that was rolled back can't be the target of a later rollback.
            past.clear();
        }
    }
}

async fn inject(world: &Arc<World>, rng: &Rng, fault: Fault, queues: &[String], past: &[Moment]) {
    let is_injected = match fault {
        Fault::KillWorker => on_one(world, rng, "worker", |process| process.kill()),
        Fault::KillScheduler => on_one(world, rng, "scheduler", |process| process.kill()),
        Fault::MassDeath => {
            mortals(world, "").iter().for_each(|process| process.kill());
            true
        }
        Fault::Freeze => impair_one(world, rng, "", Impairment::Frozen),
        Fault::CutBroker => impair_one(world, rng, "", Impairment::Broker),
        Fault::CutLedger => impair_one(world, rng, "", Impairment::Ledger),
        Fault::CutHeartbeat => impair_one(world, rng, "worker", Impairment::Heartbeat),
        Fault::BrokerOutage => outage(world, &[Impairment::Broker], span(rng)),
        Fault::LedgerOutage => {
            outage(world, &[Impairment::Ledger, Impairment::Heartbeat], span(rng))
        }
        Fault::Purge => {
            for queue in queues {
                let _ = world.broker.purge(&Queue::Work(queue.clone())).await;
            }
            true
        }
        Fault::Rollback => return roll_back(world, rng, past).await,
        Fault::ClockJump => {
            world.clock.jump(rng.among(0..16_000) as i64 - 8_000);
            true
        }
        Fault::Ghost => claim_as_ghost(world, rng, queues).await.is_some(),
        Fault::Forget => forget(world, rng).await.is_some(),
        Fault::Drain => drain(world, rng).await.is_some(),
    };
    if is_injected {
        world.count(fault.name());
        world.note(|| format!("nemesis: {fault:?}"));
    }
}

/// The living processes whose names begin with `kind`, except those of the application.
fn mortals(world: &World, kind: &str) -> Vec<Arc<Process>> {
    world
        .living()
        .into_iter()
        .filter(|process| process.is_mortal && process.name.starts_with(kind))
        .collect()
}

/// Applies the fault to a random process of this kind, or to none.
fn on_one(world: &World, rng: &Rng, kind: &str, act: impl FnOnce(&Arc<Process>)) -> bool {
    let victims = mortals(world, kind);
    let victim = victims.get(rng.among(0..8) as usize);
    victim.map(act).is_some()
}

fn impair_one(world: &World, rng: &Rng, kind: &str, by: Impairment) -> bool {
    on_one(world, rng, kind, |process| impair(process.clone(), by, span(rng)))
}

/// A duration between a millisecond and well beyond every time limit.
fn span(rng: &Rng) -> Duration {
    match rng.among(0..3) {
        0 => rng.millis(1..600),
        1 => rng.millis(600..4_000),
        _ => rng.millis(4_000..12_000),
    }
}

fn impair(process: Arc<Process>, by: Impairment, span: Duration) {
    process.begin(by);
    tokio::spawn(async move {
        tokio::time::sleep(span).await;
        process.end(by);
    });
}

fn outage(world: &World, impairments: &[Impairment], span: Duration) -> bool {
    for process in world.living() {
        if impairments.contains(&Impairment::Ledger) {
            process.reset();
        }
        for by in impairments {
            impair(process.clone(), *by, span);
        }
    }
    true
}

async fn roll_back(world: &Arc<World>, rng: &Rng, past: &[Moment]) {
    // Not far: the writes that a replica may miss, or the last seconds of an append-only file.
    let recent = &past[past.len().saturating_sub(3)..];
    world.roll_back(rng.pick(recent)).await;
    if rng.chance(300) {
        // A broker outage at the same time: delivered messages come again soon.
        outage(world, &[Impairment::Broker], rng.millis(1..300));
    }
    tokio::spawn(fleet::resubmit(world.clone()));
    if world.is_sabotaged(Sabotage::InventJob) {
        let _ = world.admit(&invented()).await;
    }
}

/// The admission of a job that was never submitted.
fn invented() -> Admission {
    Admission { queue: "nowhere".into(), ..Admission::plain(unsubmitted(), 1) }
}

/// Takes a message and claims its chunk for a node that is not registered and never reports again.
async fn claim_as_ghost(world: &Arc<World>, rng: &Rng, queues: &[String]) -> Option<()> {
    let queue = Queue::Work(rng.pick(queues).clone());
    let mut messages = world.broker.subscribe(&queue, 1).await;
    let wait = Duration::from_millis(300);
    let delivery = tokio::time::timeout(wait, messages.next()).await.ok().flatten()?;
    let message: ChunkMessage = serde_json::from_slice(&delivery.body).ok()?;
    let bits = [rng.next().to_be_bytes(), rng.next().to_be_bytes()].concat();
    let token = Token::from_bytes(bits.try_into().ok()?);
    let ghost = NodeId::new(format!("ghost-{}", rng.among(0..1_000)));
    let ChunkMessage { job, chunk, epoch, .. } = message;
    let claim = world.claim(job, &ClaimParams::new(chunk, epoch, token, ghost.clone())).await;
    delivery.settle.ack().await;
    matches!(claim, Ok(Claim::Granted(_))).then_some(())
}

async fn forget(world: &World, rng: &Rng) -> Option<()> {
    let nodes = world.ledger.nodes().await.ok()?;
    let node = nodes.get(rng.among(0..6) as usize)?;
    let lost = world
        .ledger
        .declare_lost(&DeclareLostParams::new(
            node.info.id.clone(),
            LossEvidence::Certain,
            LossCause::Left,
        ))
        .await;
    lost.ok().map(|_| ())
}

/// Withdraws all drains now and then, as operators do: a worker that is drained for ever would be
/// missed.
async fn undrain_all(world: Arc<World>, rng: Rng) {
    loop {
        tokio::time::sleep(rng.millis(500..6_000)).await;
        for node in world.ledger.nodes().await.unwrap_or_default() {
            let _ = world.ledger.undrain(&node.info.id).await;
        }
    }
}

async fn drain(world: &World, rng: &Rng) -> Option<()> {
    let nodes = world.ledger.nodes().await.ok()?;
    let node = nodes.get(rng.among(0..6) as usize)?;
    world.ledger.drain(&node.info.id).await.ok().filter(|found| *found).map(|_| ())
}
