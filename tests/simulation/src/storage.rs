//! The result storage as one process sees it: writes may be late or refused.
//!
//! A write that was sent is executed even if the process dies.

use std::sync::Arc;

use async_trait::async_trait;
use longshore_protocol::{JobId, Token};
use longshore_storage::Error;
use longshore_worker::ResultStore;
use tokio::sync::oneshot;

use crate::process::Process;
use crate::sabotage::Sabotage;
use crate::world::World;

/// The location of results outside of the ledger.
pub(crate) const LOCATION: &str = "s3://results/simulated";

/// The connection of one process to the storage.
pub(crate) struct RemoteStore(Arc<Process>);

impl RemoteStore {
    pub(crate) fn new(process: &Arc<Process>) -> Arc<Self> {
        Arc::new(Self(process.clone()))
    }
}

#[async_trait]
impl ResultStore for RemoteStore {
    async fn write(&self, prefix: &str, name: &str, bytes: Vec<u8>) -> Result<String, Error> {
        let process = &self.0;
        process.running().await;
        let world = &process.world;
        if let Some((job, from, token)) = parse(name) {
            world.history.lock().written.insert((job, from, token), lines(&bytes));
        }
        let name = if world.is_sabotaged(Sabotage::ShareResultNames) {
            name.rsplit_once('-').map_or(name, |(without_token, _)| without_token)
        } else {
            name
        };
        let url = format!("{prefix}/{name}");
        if world.happens("result objects refused", |rates| rates.write_refused) {
            return Err(Error::Io { path: url, reason: "no space left".into() });
        }
        let (answer, reply) = oneshot::channel();
        tokio::spawn(carry(world.clone(), url.clone(), bytes, answer));
        let _ = reply.await;
        process.running().await;
        Ok(url)
    }

    async fn read(&self, url: &str) -> Result<Vec<u8>, Error> {
        self.0.running().await;
        let found = self.0.world.objects.lock().get(url).cloned();
        found.ok_or_else(|| Error::NotFound { path: url.to_owned() })
    }

    async fn remove(&self, url: &str) -> Result<(), Error> {
        self.0.running().await;
        if self.0.world.objects.lock().remove(url).is_some() {
            self.0.world.count("result objects removed");
            self.0.world.note(|| format!("{} removes {url}", self.0.name));
        }
        Ok(())
    }

    async fn list(&self, prefix: &str, folder: &str) -> Result<Vec<String>, Error> {
        self.0.running().await;
        let folder = format!("{prefix}/{folder}/");
        let objects = self.0.world.objects.lock();
        Ok(objects.keys().filter(|url| url.starts_with(&folder)).cloned().collect())
    }
}

/// Delivers a write and its answer.
async fn carry(world: Arc<World>, url: String, bytes: Vec<u8>, answer: oneshot::Sender<()>) {
    let mut delay = world.rng.millis(0..20);
    if world.happens("result objects late", |rates| rates.write_late) {
        delay += world.rng.millis(100..6_000);
    }
    tokio::time::sleep(delay).await;
    world.note(|| format!("{url} is written"));
    world.objects.lock().insert(url, bytes);
    let _ = answer.send(());
}

/// Parses the name of an object, `JOB/FROM-TO-TOKEN.jsonl`.
fn parse(name: &str) -> Option<(JobId, u64, Token)> {
    let (job, file) = name.split_once('/')?;
    let mut parts = file.strip_suffix(".jsonl")?.split('-');
    let (from, _to, token) = (parts.next()?, parts.next()?, parts.next()?);
    Some((job.parse().ok()?, from.parse().ok()?, token.parse().ok()?))
}

pub(crate) fn lines(bytes: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect()
}
