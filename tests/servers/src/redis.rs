//! A private Redis server that a test can stop, kill, freeze and roll back to earlier data.

use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::authority::ServerTls;
use crate::guardian::Guardian;
use crate::port::free_port;
use crate::resp::{self, Reply};
use crate::wait::{holds_within, wait_until};

/// The time limit of a start. Redis answers within 50 ms on an idle machine; a busy one needs more.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// The time limit of a stop, in which Redis writes its data.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// The maximum number of starts on new ports, when other processes take the chosen port first.
const START_TRIES: usize = 5;

/// How to start a [`Redis`].
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// When the append-only file is flushed: `always` (the default, which loses no confirmed
    /// write), `everysec` or `no`.
    pub appendfsync: &'static str,
    /// More lines of redis.conf, which override the default ones.
    pub lines: Vec<String>,
    /// The port; a free one if `None`.
    pub port: Option<u16>,
    /// Whether it is a node of a cluster, with a second port for the other nodes.
    pub cluster: bool,
    /// How it speaks TLS on a second port, with clients and with other servers.
    pub tls: Option<ServerTls>,
    /// Additional environment variables.
    pub environment: Vec<(&'static str, PathBuf)>,
}

/// The lines of redis.conf for TLS on a port.
pub(crate) fn tls_lines(tls: &ServerTls, port: u16) -> String {
    let ServerTls { ca, own } = tls;
    format!(
        "tls-port {port}\ntls-ca-cert-file {}\ntls-cert-file {}\ntls-key-file {}\n\
         tls-auth-clients yes\ntls-replication yes\n",
        ca.display(),
        own.cert.display(),
        own.key.display()
    )
}

impl Default for RedisOptions {
    fn default() -> Self {
        let (lines, environment) = (Vec::new(), Vec::new());
        Self { appendfsync: "always", lines, port: None, cluster: false, tls: None, environment }
    }
}

/// The subfolder of the append-only file.
const DATA: &str = "appendonlydir";

/// A copy of a server's data files.
pub struct Data(tempfile::TempDir);

/// Copies a folder that has no subfolders.
fn copy_files(from: &std::path::Path, to: &std::path::Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    for file in std::fs::read_dir(from)? {
        let file = file?;
        std::fs::copy(file.path(), to.join(file.file_name()))?;
    }
    Ok(())
}

/// A private Redis with an append-only file.
pub struct Redis {
    guardian: Guardian,
    port: u16,
    tls_port: Option<u16>,
}

impl Redis {
    /// Starts a Redis that flushes each write before it answers.
    ///
    /// # Panics
    /// When it can't be started, with the end of its log.
    pub fn start() -> Self {
        Self::start_with(&RedisOptions::default())
    }

    /// Starts a Redis with these options.
    ///
    /// # Panics
    /// When it can't be started, with the end of its log.
    pub fn start_with(options: &RedisOptions) -> Self {
        let mut failures = Vec::new();
        for _ in 0..START_TRIES {
            match Self::try_start(options) {
                Ok(redis) => return redis,
                Err(failure) => failures.push(failure),
            }
        }
        panic!("Redis does not start:\n{}", failures.join("\n"));
    }

    /// The one Redis that the tests of this process share. It ends with the process.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Redis> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    fn try_start(options: &RedisOptions) -> Result<Self, String> {
        let text = |e: io::Error| e.to_string();
        let port = options.port.map_or_else(free_port, Ok).map_err(text)?;
        let folder = tempfile::Builder::new().prefix("longshore-redis-").tempdir().map_err(text)?;
        let data = folder.path().display();
        let mut conf = format!(
            "bind 127.0.0.1\nport {port}\ndir {data}\nsave \"\"\nappendonly yes\nappendfsync {}\n\
             daemonize no\n",
            options.appendfsync
        );
        if options.cluster {
            // The default is the port plus 10000, which may not be free.
            let bus = free_port().map_err(text)?;
            conf.push_str(&format!(
                "cluster-enabled yes\ncluster-port {bus}\ncluster-config-file nodes.conf\n"
            ));
        }
        let mut tls_port = None;
        if let Some(tls) = &options.tls {
            let port = *tls_port.insert(free_port().map_err(text)?);
            conf.push_str(&tls_lines(tls, port));
            if options.cluster {
                conf.push_str("tls-cluster yes\n");
            }
        }
        for line in &options.lines {
            conf.push_str(line);
            conf.push('\n');
        }
        let file = folder.path().join("redis.conf");
        std::fs::write(&file, conf).map_err(text)?;
        let mut server = Command::new("redis-server");
        server.arg(file).envs(options.environment.iter().cloned());
        let guardian = Guardian::new(folder, &server).map_err(text)?;
        let mut redis = Self { guardian, port, tls_port };
        redis.launch()?;
        Ok(redis)
    }

    /// Starts the process and waits until this process answers.
    fn launch(&mut self) -> Result<(), String> {
        self.guardian.start().map_err(|e| e.to_string())?;
        let mut answers = false;
        holds_within(START_DEADLINE, || {
            answers = self.serves_itself();
            answers || !self.guardian.is_running()
        });
        if answers {
            return Ok(());
        }
        Err(self.guardian.tail(&[]))
    }

    /// Whether this process answers, with its data loaded. Another process may have taken the port.
    fn serves_itself(&self) -> bool {
        let Ok(Reply::Text(info)) = resp::call(self.port, &["INFO"]) else { return false };
        let has = |wanted: &str| info.lines().any(|line| line.trim_end() == wanted);
        has(&format!("process_id:{}", self.pid())) && has("loading:0")
    }

    /// `redis://127.0.0.1:PORT/`
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port for TLS on 127.0.0.1.
    ///
    /// # Panics
    /// When it was started without.
    #[track_caller]
    pub fn tls_port(&self) -> u16 {
        self.tls_port.expect("it was started with TLS")
    }

    /// The process id of the server that runs, or ran last.
    pub fn pid(&self) -> u32 {
        self.guardian.pid().unwrap_or_default()
    }

    /// Sends one command over a connection of its own.
    ///
    /// # Panics
    /// When there is no reply. An error that Redis replies with is returned.
    #[track_caller]
    pub fn call(&self, command: &[&str]) -> Reply {
        resp::call(self.port, command).unwrap_or_else(|e| panic!("{command:?}: {e}"))
    }

    /// Sends one command over a new connection to the Redis on a port of 127.0.0.1, which may be
    /// away.
    ///
    /// # Errors
    /// When there is no reply within a few seconds.
    pub fn ask(port: u16, command: &[&str]) -> io::Result<Reply> {
        resp::call(port, command)
    }

    /// Kills the server with SIGKILL; returns when it is gone. Its data stay.
    ///
    /// # Panics
    /// When the process survives.
    #[track_caller]
    pub fn kill9(&mut self) {
        self.guardian.kill9().unwrap_or_else(|e| panic!("Redis: {e}"));
    }

    /// Stops the server as an administrator would; returns when it is gone. Its data stay.
    ///
    /// # Panics
    /// When the process survives.
    #[track_caller]
    pub fn stop(&mut self) {
        self.guardian.stop(STOP_GRACE).unwrap_or_else(|e| panic!("Redis: {e}"));
    }

    /// Starts the server again on its port and data, after stopping it if it runs.
    ///
    /// # Panics
    /// When it does not start, with the end of its log.
    #[track_caller]
    pub fn restart(&mut self) {
        if self.guardian.is_running() {
            self.stop();
        }
        self.launch().unwrap_or_else(|tail| panic!("Redis does not start again:\n{tail}"));
    }

    /// A copy of the data files as they are now.
    ///
    /// # Panics
    /// When they can't be copied.
    #[track_caller]
    pub fn copy_data(&self) -> Data {
        let copy = tempfile::Builder::new().prefix("longshore-redis-data-").tempdir();
        let copy = copy.unwrap_or_else(|e| panic!("a folder for Redis's data: {e}"));
        copy_files(&self.guardian.folder().join(DATA), &copy.path().join(DATA))
            .unwrap_or_else(|e| panic!("Redis's data: {e}"));
        Data(copy)
    }

    /// Kills the server and starts it with an earlier copy of its data.
    ///
    /// # Panics
    /// When it does not start, with the end of its log.
    #[track_caller]
    pub fn roll_back(&mut self, to: &Data) {
        self.kill9();
        let own = self.guardian.folder().join(DATA);
        std::fs::remove_dir_all(&own)
            .and_then(|()| copy_files(&to.0.path().join(DATA), &own))
            .unwrap_or_else(|e| panic!("Redis's data: {e}"));
        self.restart();
    }

    /// Freezes the process (SIGSTOP): connections stay open, answers don't come.
    ///
    /// # Panics
    /// When the signal can't be sent.
    #[track_caller]
    pub fn freeze(&mut self) {
        self.guardian.signal("STOP").unwrap_or_else(|e| panic!("Redis: {e}"));
    }

    /// Continues a frozen process, and waits until it answers.
    ///
    /// # Panics
    /// When it does not answer again.
    #[track_caller]
    pub fn thaw(&mut self) {
        self.guardian.signal("CONT").unwrap_or_else(|e| panic!("Redis: {e}"));
        wait_until("the thawed Redis answers", START_DEADLINE, || self.serves_itself());
    }
}
