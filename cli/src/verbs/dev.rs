//! `longshore dev`: runs jobs from standard input or a folder in this process, without services.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use longshore_api::Exposure;
use longshore_producer::{Client, JobDocument};
use longshore_protocol::{DisabledTask, JobSummary};
use tokio::io::{AsyncBufReadExt, BufReader, Stdin};
use tokio::task::JoinSet;

use crate::document;
use crate::embedded::{self, Embedded};
use crate::environment::environment;
use crate::failure::Failure;
use crate::http::{Listener, USUAL_ADDRESS, exposure};
use crate::interrupt::Interrupts;
use crate::local_server;
use crate::output::{Output, job, talk};
use crate::settings::{Flags, FleetFlags, Settings, WorkerFlags};

/// The most jobs at once; others wait on standard input or in the folder.
const MAX_JOBS: usize = 1_000;

/// The interval of the scans of the folder.
const SCAN_INTERVAL: Duration = Duration::from_millis(500);

/// Run a scheduler and a worker here, without services, and feed them jobs
///
/// Reads one job document per line from standard input, or each *.json that appears in a folder,
/// and prints a line for each job that ends. Runs until Ctrl-C; where standard input is a pipe or a
/// file, until that and its jobs have ended. Serves the HTTP API at `http_listen`, by default
/// 127.0.0.1:7700 or, where that is taken, at a free port; documents from a pipe or a file without
/// `http_listen` need none. Results are lost when the process ends: let jobs write them
/// ("results": "file:///…"), or use `longshore run`. Exit code 1 if a job that was read here was
/// refused or did not succeed.
#[derive(Args)]
pub(crate) struct Dev {
    /// Watch this folder in place of standard input; each file is submitted once
    #[arg(long, value_name = "DIR")]
    jobs: Option<PathBuf>,
    /// Read no documents here: run until Ctrl-C what comes over the HTTP API
    #[arg(long, conflicts_with = "jobs")]
    serve: bool,
    #[command(flatten)]
    worker: WorkerFlags,
}

/// The source of a job, and how the job ended or why it was refused.
type FinishedJob = (String, Result<JobSummary, Failure>);

impl Dev {
    pub(crate) async fn perform(self, flags: &Flags, output: &mut Output) -> Result<(), Failure> {
        let settings = Settings::load(flags, &self.worker, &FleetFlags::default(), &environment())?;
        let is_served = self.serve
            || self.jobs.is_some()
            || settings.http_listen.is_some()
            || std::io::stdin().is_terminal();
        let source = match self.serve {
            true => Source::None,
            false => Source::open(self.jobs)?,
        };
        let worker = embedded::worker(&settings, settings.queues.clone(), Duration::ZERO, false)?;
        let known = Known {
            tasks: worker.tasks(),
            disabled: worker.disabled(),
            queues: settings.queues.clone(),
        };
        let mut interrupts = Interrupts::follow()?;
        let listener = is_served.then(|| listen(&settings)).transpose()?;
        let mut fleet = Embedded::start(worker, &settings);
        let client = fleet.client().clone();
        // With certificates a client needs settings anyway.
        let is_plain = |it: &&Listener| it.serves_jobs() && it.url().starts_with("http://");
        let address = listener.as_ref().filter(is_plain).map(Listener::address);
        let server = listener.map(|listener| {
            talk(format_args!("serving the HTTP API at {}", listener.url()));
            fleet.serve(listener)
        });
        let announcement = address.and_then(local_server::announce);
        if announcement.is_some() {
            talk("ready: `longshore submit`, `list`, `status` and others find it by themselves");
        }
        let mut tally = Tally::default();
        let outcome = tokio::select! {
            outcome = feed(source, &client, &known, output, &mut tally) => outcome,
            failure = fleet.broken() => Err(failure),
            () = interrupts.next() => Ok(()),
        };
        drop(announcement);
        if let Some(server) = server {
            server.stop().await;
        }
        fleet.stop(Duration::ZERO).await;
        outcome.and(tally.verdict())
    }
}

/// Listens for the HTTP API.
fn listen(settings: &Settings) -> Result<Listener, Failure> {
    let describe = || {
        longshore_scheduler::metrics::describe();
        longshore_worker::metrics::describe();
    };
    if let Some(address) = settings.http_listen
        && exposure(address, settings) == Exposure::NetworkTls
    {
        return Err(Failure::usage(format!(
            "http_listen: {address} can be reached from other machines, and API tokens need a \
             fleet; listen on 127.0.0.1, or behind a proxy with http_behind_proxy = true"
        )));
    }
    let Some(address) = settings.http_listen else {
        // Another one may run already, so any port will do.
        let any = SocketAddr::new(USUAL_ADDRESS.ip(), 0);
        let usual = Listener::bind(USUAL_ADDRESS, settings, describe);
        return usual.or_else(|_| Listener::bind(any, settings, describe));
    };
    Listener::bind(address, settings, describe)
}

/// The tasks and queues of the worker in this process.
struct Known {
    tasks: Vec<String>,
    disabled: Vec<DisabledTask>,
    queues: Vec<String>,
}

impl Known {
    fn check(&self, document: &JobDocument) -> Result<(), Failure> {
        embedded::check_tasks(document, &self.tasks, &self.disabled)?;
        if self.queues.contains(&document.queue) {
            return Ok(());
        }
        let (queue, queues) = (&document.queue, self.queues.join(", "));
        Err(Failure::usage(format!("queue: no worker takes `{queue}` here; use {queues}")))
    }
}

/// The numbers of jobs that have ended and failed so far.
#[derive(Default)]
struct Tally {
    ended: u64,
    failed: u64,
}

impl Tally {
    fn verdict(&self) -> Result<(), Failure> {
        let Self { ended, failed } = self;
        match failed {
            0 => Ok(()),
            _ => Err(Failure::job_failed(
                None,
                format_args!("{failed} of {ended} jobs have not succeeded"),
            )),
        }
    }
}

async fn feed(
    mut source: Source,
    client: &Client,
    known: &Known,
    output: &mut Output,
    tally: &mut Tally,
) -> Result<(), Failure> {
    let mut running: JoinSet<FinishedJob> = JoinSet::new();
    let mut is_open = true;
    while is_open || !running.is_empty() {
        tokio::select! {
            next = source.next(), if is_open && running.len() < MAX_JOBS => match next? {
                Some((name, document)) => {
                    let client = client.clone();
                    let document =
                        document.and_then(|document| known.check(&document).map(|()| document));
                    running.spawn(async move {
                        let ended = async {
                            let document = document?;
                            let job = client.submit(&document).await?;
                            document::tell_left_out(&job, &document, &format!("{name}: ")).await;
                            Ok(job.wait().await?)
                        };
                        let ended = ended.await;
                        (name, ended)
                    });
                }
                None => is_open = false,
            },
            Some(ended) = running.join_next() => {
                let (name, ended) = ended.map_err(Failure::other)?;
                tally.ended += 1;
                let has_succeeded =
                    ended.as_ref().is_ok_and(|summary| summary.state.is_success());
                tally.failed += u64::from(!has_succeeded);
                match ended {
                    Ok(summary) => job::line(output, &summary, &name)?,
                    Err(failure) => talk(format_args!("{name}: {failure}")),
                }
                output.flush()?;
            }
        }
    }
    Ok(())
}

/// The source of documents.
enum Source {
    /// Standard input; `line` is the part of the next line that was read so far.
    Input {
        input: BufReader<Stdin>,
        line: Vec<u8>,
        number: u64,
    },
    /// No documents are read here.
    None,
    Folder {
        path: PathBuf,
        seen: HashMap<PathBuf, (SystemTime, u64)>,
        found: Vec<PathBuf>,
    },
}

impl Source {
    fn open(folder: Option<PathBuf>) -> Result<Self, Failure> {
        let Some(path) = folder else {
            let input = BufReader::new(tokio::io::stdin());
            return Ok(Self::Input { input, line: Vec::new(), number: 0 });
        };
        std::fs::read_dir(&path).map_err(|error| Failure::unreadable(&path, &error))?;
        Ok(Self::Folder { path, seen: HashMap::new(), found: Vec::new() })
    }

    /// The next document, valid or not, and its name. `None` at the end of standard input.
    async fn next(&mut self) -> Result<Option<(String, Result<JobDocument, Failure>)>, Failure> {
        match self {
            // Bytes, not text: a line that is not UTF-8 is one bad document, and the next may be
            // good.
            Self::Input { input, line, number } => loop {
                input.read_until(b'\n', line).await.map_err(Failure::other)?;
                let line = std::mem::take(line);
                if line.is_empty() {
                    return Ok(None);
                }
                *number += 1;
                if !line.trim_ascii().is_empty() {
                    let name = format!("line {number}");
                    let parsed = JobDocument::parse(&line).map_err(Failure::from);
                    return Ok(Some((name, parsed)));
                }
            },
            Self::None => std::future::pending().await,
            Self::Folder { path, seen, found } => loop {
                if let Some(file) = found.pop() {
                    let name = file.display().to_string();
                    return Ok(Some((name, read(&file))));
                }
                *found = new_files(path, seen)?;
                if found.is_empty() {
                    tokio::time::sleep(SCAN_INTERVAL).await;
                }
            },
        }
    }
}

/// Reads the document in a file. The caller adds the name of the file to errors.
fn read(file: &Path) -> Result<JobDocument, Failure> {
    document::from_file(file).map_err(|failure| {
        let prefix = format!("{}: ", file.display());
        let text = failure.to_string();
        Failure::usage(text.strip_prefix(&prefix).unwrap_or(&text))
    })
}

/// Lists the files that are new or have changed since the last scan, sorted from last to first. A
/// file that was read half-written is listed again. A file with unchanged time and size is not
/// listed, so that its job is not submitted twice.
fn new_files(
    folder: &Path,
    seen: &mut HashMap<PathBuf, (SystemTime, u64)>,
) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error: &std::io::Error| Failure::unreadable(folder, error);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| failed(&error))? {
        let path = entry.map_err(|error| failed(&error))?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        // A file that has vanished needs no report.
        let Ok(metadata) = std::fs::metadata(&path) else {
            continue;
        };
        let state = (metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), metadata.len());
        if metadata.is_file() && seen.insert(path.clone(), state) != Some(state) {
            found.push(path);
        }
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    Ok(found)
}
