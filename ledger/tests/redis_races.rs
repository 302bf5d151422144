//! Operations of several round trips, paused halfway while another operation runs.

use std::sync::Arc;
use std::time::Duration;

use longshore_ledger::redis::{Config, RedisLedger};
use longshore_ledger::{Admission, Admitted, Ledger};
use longshore_protocol::JobId;
use longshore_test_servers::Redis;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(20);

/// A proxy to Redis that delays the first command of a kind.
struct Gate {
    url: String,
    /// Set when a command is delayed.
    reached: Arc<Semaphore>,
    /// Set when the command may go on.
    open: Arc<Semaphore>,
}

impl Gate {
    async fn before(command: &'static str, redis: &Redis) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let (reached, open) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let (tell, wait, target) = (reached.clone(), open.clone(), redis.port());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server =
                    TcpStream::connect(("127.0.0.1", target)).await.expect("Redis is there");
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                tokio::spawn(async move {
                    let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
                });
                let (tell, wait) = (tell.clone(), wait.clone());
                tokio::spawn(async move {
                    let mut bytes = vec![0; 1 << 16];
                    while let Ok(read @ 1..) = from_client.read(&mut bytes).await {
                        if String::from_utf8_lossy(&bytes[..read]).contains(command) {
                            tell.add_permits(1);
                            wait.acquire().await.expect("never closed").forget();
                        }
                        if to_server.write_all(&bytes[..read]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { url: format!("redis://127.0.0.1:{port}/"), reached, open }
    }
}

fn connect(url: &str) -> RedisLedger {
    let config = Config { response_timeout: DEADLINE, ..Config::new(url, "race") };
    RedisLedger::connect(config).unwrap_or_else(|e| panic!("{url}: {e}"))
}

fn admission(job: JobId) -> Admission {
    Admission::plain(job, 3)
}

/// As after the loss of a ledger: one scheduler archives an absent job, another one restores it.
#[tokio::test]
async fn a_job_that_is_restored_while_its_id_is_archived_is_listed() {
    let redis = Redis::start();
    let job: JobId = "00000000-0000-4000-8000-000000000001".parse().expect("a UUID");
    let gate = Gate::before("ZREM", &redis).await;
    let (slow, quick) = (connect(&gate.url), connect(&redis.url()));
    let archiving = tokio::spawn(async move { slow.archive(job).await });
    let reached = timeout(DEADLINE, gate.reached.acquire()).await.expect("archive comes so far");
    reached.expect("never closed").forget();
    let admitted = quick.admit(&admission(job)).await.expect("Redis is there");
    assert!(matches!(admitted, Admitted::Accepted { .. }), "{admitted:?}");
    gate.open.add_permits(Semaphore::MAX_PERMITS / 2);
    archiving.await.expect("no panic").expect("Redis is there");
    assert_eq!(quick.active_jobs().await.expect("Redis is there"), [job]);
}
