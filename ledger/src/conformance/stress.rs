//! A stress test of poison detection: some subtasks of a job kill each node that runs them.
//!
//! Nodes run chunks in parallel, commit, die of the guilty subtasks with all chunks that they hold,
//! restart under new names, release chunks, and leave. The next step is drawn from a seed, so a
//! failure can be repeated. In the end exactly the guilty subtasks have failed, each at the cost of
//! at most the promised number of nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use longshore_protocol::state::JobState;
use longshore_protocol::{ChunkId, ChunkMessage, JobId, Token};

use super::harness::{admission, check_audit, job_id, lost, node, ok, token};
use crate::Ledger;
use crate::op::{
    Claim, ClaimParams, Commit, CommitParams, Committed, ErrorsParams, OpenParams, ReleaseParams,
    RevokeParams, SweepParams,
};
use crate::poison::MOST_DEATHS;

/// Far more steps than any run takes.
const MOST_STEPS: u32 = 1_000_000;

/// The job and the cluster.
#[derive(Clone, Debug)]
pub struct Stress {
    /// The number of subtasks.
    pub total: u64,
    /// The number of subtasks of a chunk.
    pub size: u64,
    /// The subtasks that kill their nodes.
    pub guilty: BTreeSet<u64>,
    /// The number of nodes at any time.
    pub nodes: usize,
    /// The number of chunks that a node runs in parallel.
    pub slots: usize,
    /// Whether nodes commit after every subtask of a suspect.
    pub careful: bool,
    /// Whether innocent subtasks take long, so that every other slot is busy when a guilty one
    /// runs: the worst case.
    pub slow: bool,
    /// The most chunks that are open at once.
    pub max_parallel: Option<u64>,
    /// The seed of all other decisions.
    pub seed: u64,
}

/// A chunk on a node.
struct RunningChunk {
    chunk: ChunkId,
    token: Token,
    committed: u64,
    at: u64,
    to: u64,
    careful: bool,
}

struct Cluster<'a> {
    stress: &'a Stress,
    ledger: &'a Arc<dyn Ledger>,
    job: JobId,
    random: u64,
    messages: Vec<ChunkMessage>,
    /// The running chunks of each node, by name.
    nodes: BTreeMap<String, Vec<RunningChunk>>,
    /// The nodes that died (true) or left (false) and whose chunks are not revoked yet.
    lost: Vec<(String, bool)>,
    names: usize,
    tokens: u64,
    deaths: u32,
}

impl Stress {
    /// Runs the job on an empty ledger; returns the number of nodes that died.
    ///
    /// # Panics
    /// When a guilty subtask costs more nodes than promised, an innocent one does not succeed, or
    /// the counts don't balance.
    pub async fn execute(&self, ledger: Arc<dyn Ledger>) -> u32 {
        let mut wanted = admission(1, self.total);
        wanted.max_parallel = self.max_parallel;
        ledger.admit(&wanted).await.expect("admit");
        let mut cluster = Cluster {
            stress: self,
            ledger: &ledger,
            job: job_id(1),
            random: self.seed,
            messages: Vec::new(),
            nodes: BTreeMap::new(),
            lost: Vec::new(),
            names: 0,
            tokens: 0,
            deaths: 0,
        };
        (0..self.nodes).for_each(|_| cluster.start_node());
        for step in 0.. {
            assert!(step < MOST_STEPS, "the job does not end");
            if cluster.step().await {
                break;
            }
        }
        cluster.judge().await;
        cluster.deaths
    }
}

impl Cluster<'_> {
    /// Splitmix64.
    fn draw(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    fn start_node(&mut self) {
        self.names += 1;
        self.nodes.insert(format!("n{}", self.names), Vec::new());
    }

    fn a_node(&mut self) -> String {
        let at = self.draw(self.nodes.len() as u64) as usize;
        self.nodes.keys().nth(at).expect("the cluster is never empty").clone()
    }

    /// Takes one random step; returns whether the job has ended.
    async fn step(&mut self) -> bool {
        match self.draw(100) {
            0..=9 => return self.sweep_and_open().await,
            10..=39 => self.claim().await,
            40..=94 => return self.run().await,
            95 => self.release().await,
            96 => self.leave(),
            _ => self.revoke().await,
        }
        false
    }

    /// Does a scheduler's part; returns whether the job has ended.
    async fn sweep_and_open(&mut self) -> bool {
        let within = Duration::from_secs(3_600);
        let swept =
            self.ledger.sweep(self.job, &SweepParams::new(1_000, within)).await.expect("sweep");
        let swept = swept.expect("the job is kept");
        self.messages.extend(swept.publish);
        if self.messages.len() < 2 * self.stress.nodes * self.stress.slots {
            let open = OpenParams::new(4, self.stress.size, within);
            self.messages.extend(self.ledger.open(self.job, &open).await.expect("open"));
        }
        swept.summary.state.is_terminal()
    }

    async fn claim(&mut self) {
        let name = self.a_node();
        if self.nodes[&name].len() >= self.stress.slots || self.messages.is_empty() {
            return;
        }
        let at = self.draw(self.messages.len() as u64) as usize;
        let ChunkMessage { chunk, epoch, .. } = self.messages.remove(at);
        self.tokens += 1;
        let token = token(self.tokens);
        let claim =
            self.ledger.claim(self.job, &ClaimParams::new(chunk, epoch, token, node(&name))).await;
        let Claim::Granted(grant) = claim.expect("claim") else { return };
        let careful = self.stress.careful && grant.is_suspect();
        let (committed, at, to) = (grant.from, grant.from, grant.to);
        let runs = self.nodes.get_mut(&name).expect("it was just named");
        runs.push(RunningChunk { chunk, token, committed, at, to, careful });
        let running = self.ledger.job(self.job).await.expect("job").expect("kept").running_chunks;
        assert!(self.stress.max_parallel.is_none_or(|most| running <= most), "{running} run");
    }

    /// Runs some subtasks of a chunk on some node; returns whether the job has ended.
    async fn run(&mut self) -> bool {
        let name = self.a_node();
        let held = self.nodes[&name].len() as u64;
        if held == 0 {
            return false;
        }
        let slot = self.draw(held) as usize;
        let rests = self.stress.slow && self.draw(8) != 0;
        let (some, commits) = (self.draw(self.stress.size / 2 + 1) + 1, self.draw(2) == 0);
        let run = &mut self.nodes.get_mut(&name).expect("it was just named")[slot];
        let stop = (run.at + some).min(run.to);
        let killer = self.stress.guilty.range(run.at..stop).next().copied();
        if rests && killer.is_none() {
            return false;
        }
        run.at = killer.unwrap_or(stop);
        let mut ended = false;
        if (killer.is_none() && (commits || run.at == run.to)) || run.careful {
            let count = run.at - run.committed;
            let runs = if count == 0 { vec![] } else { vec![ok(count)] };
            let commit = Commit::new(run.committed, runs, Duration::ZERO);
            let answer = self
                .ledger
                .commit(self.job, &CommitParams::new(run.chunk, run.token, commit.clone()))
                .await;
            let Ok(Committed::Settled { state }) = answer else { panic!("{answer:?}") };
            run.committed = run.at;
            ended = state.is_terminal();
        }
        if killer.is_some() {
            self.nodes.remove(&name);
            self.lost.push((name, true));
            self.deaths += 1;
            self.start_node();
        } else if run.at == run.to {
            self.nodes.get_mut(&name).expect("it was just named").remove(slot);
        }
        ended
    }

    async fn release(&mut self) {
        let name = self.a_node();
        if let Some(run) = self.nodes.get_mut(&name).and_then(Vec::pop) {
            self.ledger
                .release(self.job, &ReleaseParams::new(run.chunk, run.token))
                .await
                .expect("release");
        }
    }

    fn leave(&mut self) {
        let name = self.a_node();
        self.nodes.remove(&name);
        self.lost.push((name, false));
        self.start_node();
    }

    async fn revoke(&mut self) {
        if !self.lost.is_empty() {
            let at = self.draw(self.lost.len() as u64) as usize;
            let (name, died) = self.lost.swap_remove(at);
            self.ledger
                .revoke(self.job, &RevokeParams::new(node(&name), lost(died)))
                .await
                .expect("revoke");
        }
    }

    async fn judge(&self) {
        let Stress { total, guilty, .. } = self.stress;
        let count = guilty.len() as u64;
        let summary = self.ledger.job(self.job).await.expect("job").expect("it is kept");
        let expected = if count == 0 { JobState::Succeeded } else { JobState::Failed };
        assert_eq!(summary.state, expected, "{:?}", self.stress);
        let counts = summary.counts;
        assert_eq!((counts.done, counts.failed), (total - count, count), "{:?}", self.stress);
        let errors =
            self.ledger.errors(self.job, &ErrorsParams::new(0, 1_000)).await.expect("errors");
        let failed: BTreeSet<u64> = errors.iter().map(|entry| entry.index).collect();
        assert_eq!(failed, *guilty, "{:?}", self.stress);
        let most = MOST_DEATHS * count as u32;
        assert!(self.deaths <= most, "{} nodes died: {:?}", self.deaths, self.stress);
        for entry in errors {
            let told = entry.deaths.iter().map(|death| death.node.as_str());
            let nodes: BTreeSet<&str> = told.collect();
            assert_eq!(nodes.len(), entry.deaths.len(), "a node dies once: {entry:?}");
            assert!(nodes.iter().all(|name| !self.nodes.contains_key(*name)), "{entry:?}");
        }
        assert_eq!(u64::from(summary.crashes == 0), u64::from(count == 0));
        check_audit(self.ledger, self.job).await;
    }
}
