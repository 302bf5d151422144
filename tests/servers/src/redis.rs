//! A Redis of one's own.

use std::io;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::guardian::Guardian;
use crate::port::free_port;
use crate::resp::{self, Reply};
use crate::wait::{holds_within, wait_until};

/// Redis answers within 50 ms on an idle machine; loaded ones get much longer.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// Redis writes what it must on SIGTERM within this.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// Starts on new ports before giving up, when others take the chosen port first.
const START_TRIES: usize = 5;

/// How to start a [`Redis`].
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// `always`, `everysec` or `no`: when the append-only file is flushed. The default, `always`,
    /// loses nothing that was answered.
    pub appendfsync: &'static str,
    /// More lines of redis.conf, which win over ours.
    pub lines: Vec<String>,
    /// A fixed port; a free one when `None`.
    pub port: Option<u16>,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self { appendfsync: "always", lines: Vec::new(), port: None }
    }
}

/// A private Redis with an append-only file.
pub struct Redis {
    guardian: Guardian,
    port: u16,
}

impl Redis {
    /// Starts a Redis that flushes each write before it answers.
    ///
    /// # Panics
    /// When it can't be started, with the end of its log.
    pub fn start() -> Self {
        Self::start_with(&RedisOptions::default())
    }

    /// Starts a Redis with options of the test's own.
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
        for line in &options.lines {
            conf.push_str(line);
            conf.push('\n');
        }
        let file = folder.path().join("redis.conf");
        std::fs::write(&file, conf).map_err(text)?;
        let mut server = Command::new("redis-server");
        server.arg(file);
        let guardian = Guardian::new(folder, &server).map_err(text)?;
        let mut redis = Self { guardian, port };
        redis.launch()?;
        Ok(redis)
    }

    /// Starts the process and waits until it is this very process that answers.
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

    /// Whether our process answers, with its data loaded: another one may have taken the port.
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

    /// Stops the process in its tracks (SIGSTOP): connections stay, answers don't come.
    ///
    /// # Panics
    /// When the signal can't be sent.
    #[track_caller]
    pub fn freeze(&mut self) {
        self.guardian.signal("STOP").unwrap_or_else(|e| panic!("Redis: {e}"));
    }

    /// Lets a frozen process go on, and waits until it answers.
    ///
    /// # Panics
    /// When it does not answer again.
    #[track_caller]
    pub fn thaw(&mut self) {
        self.guardian.signal("CONT").unwrap_or_else(|e| panic!("Redis: {e}"));
        wait_until("the thawed Redis answers", START_DEADLINE, || self.serves_itself());
    }
}
