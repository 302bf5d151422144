//! Brings trouble: what happens to processes, links, queues, clocks and the ledger itself, until it is told to stop.

use std::sync::Arc;
use std::time::Duration;

use longshore_broker::{Broker, Queue};
use longshore_ledger::{
    Admission, Claim, ClaimParams, DeclareLostParams, Ledger, LossCause, LossEvidence,
};
use longshore_protocol::{ChunkMessage, NodeId, Token};
use tokio::time::Instant;

use crate::dice::Dice;
use crate::fleet;
use crate::process::{Process, Trouble};
use crate::sabotage::Sabotage;
use crate::truth::Moment;
use crate::workload::stranger;
use crate::world::{Weather, World};

/// What can be done to a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    KillWorker,
    KillScheduler,
    MassDeath,
    Freeze,
    CutBroker,
    CutLedger,
    CutHeart,
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
        Self::CutHeart,
        Self::BrokerOutage,
        Self::LedgerOutage,
        Self::Purge,
        Self::Rollback,
        Self::ClockJump,
        Self::Ghost,
        Self::Forget,
        Self::Drain,
    ];

    /// As it is counted.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::KillWorker => "workers killed",
            Self::KillScheduler => "schedulers killed",
            Self::MassDeath => "mass deaths",
            Self::Freeze => "processes frozen",
            Self::CutBroker => "broker links cut",
            Self::CutLedger => "ledger links cut",
            Self::CutHeart => "heart links cut",
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

/// A few kinds of trouble for one run: few at a time go deeper than all at once.
pub(crate) fn some_faults(dice: &Dice) -> Vec<Fault> {
    let share = *dice.pick(&[0, 150, 350, 700]);
    Fault::ALL.into_iter().filter(|_| dice.chance(share)).collect()
}

/// The troubles of a run in which servers are away for a while, and nothing else happens to processes
/// and calls.
pub(crate) fn outages(dice: &Dice, weather: Weather) -> (Vec<Fault>, Weather) {
    let mut faults = vec![Fault::LedgerOutage];
    faults.extend(dice.chance(500).then_some(Fault::BrokerOutage));
    faults.extend(dice.chance(300).then_some(Fault::Purge));
    let fair = Weather { crash_at_call: 0, call_lost: 0, reply_lost: 0, call_late: 0, ..weather };
    (faults, fair)
}

/// Trouble of a run in clear weather, beside what comes right after submissions: nothing that keeps
/// schedulers from their work for long.
pub(crate) fn clear_faults(dice: &Dice) -> Vec<Fault> {
    let all = [Fault::KillWorker, Fault::KillScheduler, Fault::Drain];
    all.into_iter().filter(|_| dice.chance(400)).collect()
}

/// Workers stop within half a second of each submission, those first that hold something of the job.
pub(crate) fn strike_early(world: &Arc<World>) {
    for job in world.jobs.values() {
        let (world, dice, job) = (world.clone(), world.dice.fork(), job.clone());
        tokio::spawn(async move {
            let after = job.submitted_after + dice.millis(0..500);
            tokio::time::sleep_until(world.at(after)).await;
            let victims: Vec<_> = mortals(&world, "worker");
            let held = world.ledger.holders(job.id).await.unwrap_or_default();
            let holds = |it: &&Arc<Process>| {
                held.iter().any(|holder| Some(&holder.node) == it.node().as_ref())
            };
            let holders: Vec<_> = victims.iter().filter(holds).cloned().collect();
            let among = if holders.is_empty() { &victims } else { &holders };
            if among.is_empty() {
                return;
            }
            let victim = dice.pick(among);
            // Several that freeze at once are taken for a trouble that they share.
            let is_frozen = victims.iter().any(|it| it.has(Trouble::Frozen));
            if !is_frozen && dice.chance(300) {
                world.count("workers frozen early");
                trouble(victim.clone(), Trouble::Frozen, world.dead_after + dice.millis(0..4_000));
            } else {
                world.count("workers killed early");
                victim.kill();
            }
        });
    }
}

/// How the calls and messages of one run fare.
pub(crate) fn some_weather(dice: &Dice) -> Weather {
    let maybe = |most: u64| if dice.chance(350) { dice.among(1..most) } else { 0 };
    Weather {
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
    }
}

/// Brings trouble until `until`; then all links are mended by themselves within seconds.
pub(crate) async fn rage(
    world: Arc<World>,
    faults: Vec<Fault>,
    queues: Vec<String>,
    until: Instant,
) {
    if faults.is_empty() {
        return;
    }
    let dice = world.dice.fork();
    let mut past: Vec<Moment> = Vec::new();
    loop {
        tokio::time::sleep(dice.millis(50..1_500)).await;
        if Instant::now() >= until || world.is_violated() {
            return;
        }
        if faults.contains(&Fault::Rollback) {
            past.push(world.moment());
        }
        let fault = *dice.pick(&faults);
        strike(&world, &dice, fault, &queues, &past).await;
        if fault == Fault::Rollback {
            // What is undone has never been: nobody goes back to it.
            past.clear();
        }
    }
}

async fn strike(world: &Arc<World>, dice: &Dice, fault: Fault, queues: &[String], past: &[Moment]) {
    let struck = match fault {
        Fault::KillWorker => on_one(world, dice, "worker", |process| process.kill()),
        Fault::KillScheduler => on_one(world, dice, "scheduler", |process| process.kill()),
        Fault::MassDeath => {
            mortals(world, "").iter().for_each(|process| process.kill());
            true
        }
        Fault::Freeze => trouble_one(world, dice, "", Trouble::Frozen),
        Fault::CutBroker => trouble_one(world, dice, "", Trouble::Broker),
        Fault::CutLedger => trouble_one(world, dice, "", Trouble::Ledger),
        Fault::CutHeart => trouble_one(world, dice, "worker", Trouble::Heart),
        Fault::BrokerOutage => outage(world, &[Trouble::Broker], span(dice)),
        Fault::LedgerOutage => outage(world, &[Trouble::Ledger, Trouble::Heart], span(dice)),
        Fault::Purge => {
            for queue in queues {
                let _ = world.broker.purge(&Queue::Work(queue.clone())).await;
            }
            true
        }
        Fault::Rollback => return roll_back(world, dice, past).await,
        Fault::ClockJump => {
            world.clock.jump(dice.among(0..16_000) as i64 - 8_000);
            true
        }
        Fault::Ghost => haunt(world, dice, queues).await.is_some(),
        Fault::Forget => forget(world, dice).await.is_some(),
        Fault::Drain => drain(world, dice).await.is_some(),
    };
    if struck {
        world.count(fault.name());
        world.note(|| format!("nemesis: {fault:?}"));
    }
}

/// The living processes whose names begin so, but for those of the application.
fn mortals(world: &World, kind: &str) -> Vec<Arc<Process>> {
    world.living().into_iter().filter(|it| it.mortal && it.name.starts_with(kind)).collect()
}

/// Does it to one of them, if the dice hit one.
fn on_one(world: &World, dice: &Dice, kind: &str, act: impl FnOnce(&Arc<Process>)) -> bool {
    let victims = mortals(world, kind);
    let victim = victims.get(dice.among(0..8) as usize);
    victim.map(act).is_some()
}

fn trouble_one(world: &World, dice: &Dice, kind: &str, kind_of_trouble: Trouble) -> bool {
    on_one(world, dice, kind, |process| trouble(process.clone(), kind_of_trouble, span(dice)))
}

/// From a blip to well past every time limit.
fn span(dice: &Dice) -> Duration {
    match dice.among(0..3) {
        0 => dice.millis(1..600),
        1 => dice.millis(600..4_000),
        _ => dice.millis(4_000..12_000),
    }
}

fn trouble(process: Arc<Process>, trouble: Trouble, span: Duration) {
    process.begin(trouble);
    tokio::spawn(async move {
        tokio::time::sleep(span).await;
        process.end(trouble);
    });
}

fn outage(world: &World, troubles: &[Trouble], span: Duration) -> bool {
    for process in world.living() {
        if troubles.contains(&Trouble::Ledger) {
            process.reset();
        }
        for kind in troubles {
            trouble(process.clone(), *kind, span);
        }
    }
    true
}

async fn roll_back(world: &Arc<World>, dice: &Dice, past: &[Moment]) {
    // Not far: what a replica may miss, or the last second or two of a file.
    let recent = &past[past.len().saturating_sub(3)..];
    world.go_back(dice.pick(recent)).await;
    if dice.chance(300) {
        // Both at once: what was delivered comes again soon.
        outage(world, &[Trouble::Broker], dice.millis(1..300));
    }
    tokio::spawn(fleet::resubmit(world.clone()));
    if world.is_sabotaged(Sabotage::InventJob) {
        let _ = world.admit(&invented()).await;
    }
}

/// A job that nobody submitted.
fn invented() -> Admission {
    Admission { queue: "nowhere".into(), ..Admission::plain(stranger(), 1) }
}

/// Takes a message and claims its chunk under a name that is on no list, and is never heard of again.
async fn haunt(world: &Arc<World>, dice: &Dice, queues: &[String]) -> Option<()> {
    let queue = Queue::Work(dice.pick(queues).clone());
    let mut messages = world.broker.subscribe(&queue, 1).await;
    let wait = Duration::from_millis(300);
    let delivery = tokio::time::timeout(wait, messages.next()).await.ok().flatten()?;
    let message: ChunkMessage = serde_json::from_slice(&delivery.body).ok()?;
    let bits = [dice.next().to_be_bytes(), dice.next().to_be_bytes()].concat();
    let token = Token::from_bytes(bits.try_into().ok()?);
    let ghost = NodeId::new(format!("ghost-{}", dice.among(0..1_000)));
    let ChunkMessage { job, chunk, epoch, .. } = message;
    let claim = world.claim(job, &ClaimParams::new(chunk, epoch, token, ghost.clone())).await;
    delivery.settle.ack().await;
    matches!(claim, Ok(Claim::Granted(_))).then_some(())
}

async fn forget(world: &World, dice: &Dice) -> Option<()> {
    let nodes = world.ledger.nodes().await.ok()?;
    let node = nodes.get(dice.among(0..6) as usize)?;
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

async fn drain(world: &World, dice: &Dice) -> Option<()> {
    let nodes = world.ledger.nodes().await.ok()?;
    let node = nodes.get(dice.among(0..6) as usize)?;
    world.ledger.drain(&node.info.id).await.ok().filter(|found| *found).map(|_| ())
}
