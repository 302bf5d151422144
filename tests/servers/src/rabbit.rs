//! A private RabbitMQ server that a test can stop, kill, freeze, wipe and control.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::amqp::{self, AmqpAttempt};
use crate::authority::ServerTls;
use crate::guardian::Guardian;
use crate::port::free_port;
use crate::wait::{holds_within, wait_until};

/// A start takes about five seconds on two idle cores, mostly for loading code; a busy machine
/// needs several times that.
const START_DEADLINE: Duration = Duration::from_secs(180);
/// A clean stop flushes queues; it takes a second or two.
const STOP_GRACE: Duration = Duration::from_secs(60);
/// The maximum number of starts on new ports, when other processes take a chosen port first.
const START_TRIES: usize = 3;

/// The folders of the scripts in distributions. Those in `/usr/sbin` of Debian change the user and
/// drop the environment, so they can't be used here.
const SCRIPT_FOLDERS: [&str; 3] =
    ["/usr/lib/rabbitmq/bin", "/opt/rabbitmq/sbin", "/usr/local/lib/rabbitmq/bin"];

/// The folder of all data of the server.
const DATA: &str = "data";

/// Exists only when a test asks for settings that belong there.
const ADVANCED: &str = "advanced.config";

/// By default, epmd, by which Erlang nodes find each other, is started as a daemon that outlives
/// the server. In the foreground it belongs to the server's process group. The epmd of a server
/// that was just killed may hold the port for another moment; a port of another process is given
/// up.
const EPMD_THEN: &str = r#"
epmd -port "$ERL_EPMD_PORT" -address 127.0.0.1 & epmd=$!
tries=50
until epmd -port "$ERL_EPMD_PORT" -names >/dev/null 2>&1; do
  if ! kill -0 "$epmd" 2>/dev/null; then
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || exit 1
    epmd -port "$ERL_EPMD_PORT" -address 127.0.0.1 & epmd=$!
  fi
  sleep 0.02
done
exec "$0"
"#;

/// How to start a [`Rabbit`].
#[derive(Clone, Debug, Default)]
pub struct RabbitOptions {
    /// More lines of rabbitmq.conf, which override the default ones.
    pub lines: Vec<String>,
    /// Settings of the application `rabbit` that can't be set in rabbitmq.conf, as Erlang terms:
    /// `{channel_tick_interval, 500}`.
    pub advanced: Vec<String>,
    /// How it speaks TLS on a second port.
    pub tls: Option<ServerTls>,
    /// The feature flags that are on, where not all of them are.
    pub features: Option<&'static str>,
    /// Whether Erlang's threads have RabbitMQ's default settings, as for users, for measurements.
    /// Starts take longer.
    pub as_shipped: bool,
}

/// A private RabbitMQ with the user `guest`, the virtual host `/` and no plugins.
pub struct Rabbit {
    guardian: Guardian,
    place: Place,
}

/// The settings that distinguish a RabbitMQ from the others on the machine.
struct Place {
    scripts: PathBuf,
    node: String,
    port: u16,
    tls_port: u16,
    dist_port: u16,
    epmd_port: u16,
    /// The feature flags that are on, where not all of them are.
    features: Option<&'static str>,
    /// Whether Erlang's threads have RabbitMQ's default settings.
    as_shipped: bool,
}

impl Rabbit {
    /// Starts a RabbitMQ.
    ///
    /// # Panics
    /// When it can't be started, with the end of its log.
    pub fn start() -> Self {
        Self::start_with(&RabbitOptions::default())
    }

    /// Starts a RabbitMQ 3.x without streams, like after an upgrade from 3.8. Later versions always
    /// have streams.
    ///
    /// # Panics
    /// When it can't be started, with the end of its log.
    pub fn start_without_streams() -> Self {
        let features = "quorum_queue,implicit_default_bindings,virtual_host_metadata,\
                        maintenance_mode_status,user_limits";
        Self::start_with(&RabbitOptions { features: Some(features), ..RabbitOptions::default() })
    }

    /// Starts a RabbitMQ with these options.
    ///
    /// # Panics
    /// When it can't be started, with the end of its log.
    pub fn start_with(options: &RabbitOptions) -> Self {
        let mut failures = Vec::new();
        for _ in 0..START_TRIES {
            match Self::try_start(options) {
                Ok(rabbit) => return rabbit,
                Err(failure) => failures.push(failure),
            }
        }
        panic!("RabbitMQ does not start:\n{}", failures.join("\n"));
    }

    /// The one RabbitMQ that the tests of this process share. It ends with the process.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Rabbit> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    fn try_start(options: &RabbitOptions) -> Result<Self, String> {
        let text = |e: io::Error| e.to_string();
        let folder =
            tempfile::Builder::new().prefix("longshore-rabbit-").tempdir().map_err(text)?;
        let RabbitOptions { features, as_shipped, .. } = *options;
        let place = Place { features, as_shipped, ..Place::choose().map_err(text)? };
        place.furnish(folder.path(), options).map_err(text)?;
        let mut server = Command::new("sh");
        server.args(["-c", EPMD_THEN]).arg(place.scripts.join("rabbitmq-server"));
        place.environment(folder.path(), &mut server);
        let guardian = Guardian::new(folder, &server).map_err(text)?;
        let mut rabbit = Self { guardian, place };
        rabbit.launch()?;
        Ok(rabbit)
    }

    /// Starts the process and waits until this process serves.
    fn launch(&mut self) -> Result<(), String> {
        let log = self.log();
        let seen = fs::metadata(&log).map_or(0, |file| file.len());
        self.guardian.start().map_err(|e| e.to_string())?;
        let mut serves = false;
        holds_within(START_DEADLINE, || {
            // The log shows whether this server or another one has the port.
            serves = says_complete(&log, seen) && amqp::log_in(self.place.port).is_ok();
            serves || !self.guardian.is_running()
        });
        if serves {
            return Ok(());
        }
        Err(self.guardian.tail(&[log]))
    }

    fn log(&self) -> PathBuf {
        log_in(self.guardian.folder())
    }

    /// `amqp://guest:guest@127.0.0.1:PORT/%2f`
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.place.port)
    }

    /// The AMQP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.place.port
    }

    /// The AMQP port for TLS on 127.0.0.1, where nobody listens unless it was started with TLS.
    pub fn tls_port(&self) -> u16 {
        self.place.tls_port
    }

    /// The process id of the server that runs, or ran last.
    pub fn pid(&self) -> u32 {
        self.guardian.pid().unwrap_or_default()
    }

    /// Tries something as a user of the virtual host `/`; the error is the server's refusal.
    ///
    /// # Panics
    /// When the server does not take the login.
    pub fn attempt(&self, user: &str, password: &str, what: AmqpAttempt<'_>) -> Result<(), String> {
        let tried = amqp::attempt(self.place.port, (user, password), what);
        tried.unwrap_or_else(|e| panic!("{what:?} as {user}: {e}"))
    }

    /// Runs `rabbitmqctl` with these arguments against this server and returns what it printed.
    ///
    /// # Panics
    /// When it fails, with its output.
    #[track_caller]
    pub fn ctl(&self, arguments: &[&str]) -> String {
        self.try_ctl(arguments).unwrap_or_else(|failure| panic!("{failure}"))
    }

    /// Runs a `rabbitmqctl` command that may fail, such as deleting a queue that other processes
    /// declare and delete.
    ///
    /// # Errors
    /// When it fails, with its output.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn try_ctl(&self, arguments: &[&str]) -> Result<String, String> {
        let mut ctl = Command::new(self.place.scripts.join("rabbitmqctl"));
        self.place.environment(self.guardian.folder(), &mut ctl);
        ctl.args(["--quiet", "--node", &self.place.node]).args(arguments);
        let output = ctl.output().unwrap_or_else(|e| panic!("rabbitmqctl: {e}"));
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(printed);
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        Err(format!("rabbitmqctl {arguments:?}: {}\n{printed}{complaint}", output.status))
    }

    /// Closes all connections and listeners; the Erlang VM keeps running.
    ///
    /// # Panics
    /// When `rabbitmqctl` fails.
    #[track_caller]
    pub fn stop_app(&self) {
        self.ctl(&["stop_app"]);
    }

    /// Reverts [`Rabbit::stop_app`]; returns when the server serves again.
    ///
    /// # Panics
    /// When it does not serve again.
    #[track_caller]
    pub fn start_app(&self) {
        self.ctl(&["start_app"]);
        self.await_serving();
    }

    /// Kills the server with SIGKILL; returns when it is gone. Its data stay.
    ///
    /// # Panics
    /// When the process survives.
    #[track_caller]
    pub fn kill9(&mut self) {
        self.guardian.kill9().unwrap_or_else(|e| panic!("RabbitMQ: {e}"));
    }

    /// Stops the server as an administrator would; returns when it is gone. Its data stay.
    ///
    /// # Panics
    /// When the process survives.
    #[track_caller]
    pub fn stop(&mut self) {
        self.guardian.stop(STOP_GRACE).unwrap_or_else(|e| panic!("RabbitMQ: {e}"));
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
        self.launch().unwrap_or_else(|tail| panic!("RabbitMQ does not start again:\n{tail}"));
    }

    /// Kills the server and starts it without its data (queues, messages, policies) on the same
    /// port.
    ///
    /// # Panics
    /// When it does not start, with the end of its log.
    #[track_caller]
    pub fn wipe(&mut self) {
        self.kill9();
        fs::remove_dir_all(self.guardian.folder().join(DATA))
            .unwrap_or_else(|e| panic!("RabbitMQ's data can't be removed: {e}"));
        self.restart();
    }

    /// The log of the server.
    pub fn log_text(&self) -> String {
        let bytes = fs::read(self.log()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Freezes the process (SIGSTOP): connections stay open, answers don't come.
    ///
    /// # Panics
    /// When the signal can't be sent.
    #[track_caller]
    pub fn freeze(&mut self) {
        self.guardian.signal("STOP").unwrap_or_else(|e| panic!("RabbitMQ: {e}"));
    }

    /// Continues a frozen process, and waits until it serves.
    ///
    /// # Panics
    /// When it does not serve again.
    #[track_caller]
    pub fn thaw(&mut self) {
        self.guardian.signal("CONT").unwrap_or_else(|e| panic!("RabbitMQ: {e}"));
        self.await_serving();
    }

    #[track_caller]
    fn await_serving(&self) {
        wait_until("RabbitMQ serves", START_DEADLINE, || amqp::log_in(self.place.port).is_ok());
    }
}

impl Place {
    fn choose() -> io::Result<Self> {
        let mut folders = SCRIPT_FOLDERS.iter().map(Path::new);
        let scripts = folders.find(|folder| folder.join("rabbitmq-server").exists());
        let scripts = scripts.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("no rabbitmq-server in {SCRIPT_FOLDERS:?}; `./test` installs it"),
            )
        })?;
        let port = free_port()?;
        Ok(Self {
            scripts: scripts.to_owned(),
            // A new port, because another process may have taken the old one.
            node: format!("longshore-{}-{port}@localhost", std::process::id()),
            port,
            tls_port: free_port()?,
            dist_port: free_port()?,
            epmd_port: free_port()?,
            features: None,
            as_shipped: false,
        })
    }

    /// Writes the configuration, and the Erlang cookie, which only its owner may read.
    fn furnish(&self, folder: &Path, options: &RabbitOptions) -> io::Result<()> {
        let mut conf = format!(
            "listeners.tcp.local = 127.0.0.1:{}\n\
             disk_free_limit.absolute = 50MB\n\
             vm_memory_high_watermark.absolute = 1GB\n\
             log.console = false\n\
             log.file.level = info\n",
            self.port
        );
        if let Some(ServerTls { ca, own }) = &options.tls {
            conf.push_str(&format!(
                "listeners.ssl.local = 127.0.0.1:{}\n\
                 ssl_options.cacertfile = {}\n\
                 ssl_options.certfile = {}\n\
                 ssl_options.keyfile = {}\n\
                 ssl_options.verify = verify_peer\n\
                 ssl_options.fail_if_no_peer_cert = true\n",
                self.tls_port,
                ca.display(),
                own.cert.display(),
                own.key.display()
            ));
        }
        for line in &options.lines {
            conf.push_str(line);
            conf.push('\n');
        }
        fs::write(folder.join("rabbitmq.conf"), conf)?;
        if !options.advanced.is_empty() {
            let settings = options.advanced.join(",");
            fs::write(folder.join(ADVANCED), format!("[{{rabbit,[{settings}]}}].\n"))?;
        }
        fs::write(folder.join("enabled_plugins"), "[].\n")?;
        let cookie = folder.join(".erlang.cookie");
        fs::write(&cookie, "longshore")?;
        fs::set_permissions(&cookie, fs::Permissions::from_mode(0o400))
    }

    fn environment(&self, folder: &Path, command: &mut Command) {
        let own = |name: &str| folder.join(name);
        command
            .env("HOME", folder)
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            // All Erlang programs of this server use the running epmd.
            .env("ERL_FLAGS", "-start_epmd false")
            .env("RABBITMQ_NODENAME", &self.node)
            .env("RABBITMQ_NODE_PORT", self.port.to_string())
            .env("RABBITMQ_DIST_PORT", self.dist_port.to_string())
            .env("RABBITMQ_MNESIA_BASE", own(DATA))
            .env("RABBITMQ_LOG_BASE", own("log"))
            .env("RABBITMQ_LOGS", log_in(folder))
            .env("RABBITMQ_PID_FILE", own("pid"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", own("enabled_plugins"))
            .env("RABBITMQ_CONFIG_FILE", own("rabbitmq.conf"))
            // The settings of the machine must not apply.
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", own(ADVANCED))
            // Makes the script replace itself by the server instead of waiting for it.
            .env("RUNNING_UNDER_SYSTEMD", "true")
            .env_remove("NOTIFY_SOCKET")
            // Many tests may run rabbitmqctl at once; the default range is enough for ten.
            .env("RABBITMQ_CTL_DIST_PORT_MIN", "35672")
            .env("RABBITMQ_CTL_DIST_PORT_MAX", "36671");
        if !self.as_shipped {
            command.env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+S 2:2 +A 4");
            // Loading code alternates between Erlang's schedulers, and RabbitMQ's default `none`
            // lets them sleep at each change: on a virtual machine a start then takes 10 to 16 s
            // instead of 5. Idle, the server still uses less than 1% of a core.
            command.env("RABBITMQ_SCHEDULER_BUSY_WAIT_THRESHOLD", "medium");
        }
        if let Some(features) = self.features {
            command.env("RABBITMQ_FEATURE_FLAGS", features);
        }
    }
}

fn log_in(folder: &Path) -> PathBuf {
    folder.join("log").join("rabbit.log")
}

/// Whether the log says, after its first `seen` bytes, that the server is up.
fn says_complete(log: &Path, seen: u64) -> bool {
    let Ok(text) = fs::read(log) else { return false };
    let fresh = text.get(usize::try_from(seen).unwrap_or(usize::MAX)..).unwrap_or_default();
    String::from_utf8_lossy(fresh).contains("Server startup complete")
}
