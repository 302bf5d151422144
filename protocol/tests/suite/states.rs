//! The tables of transitions of jobs and chunks and of the predicates of states, every cell.

use longshore_protocol::state::{ChunkEvent, ChunkRefusal, ChunkState, JobEvent, JobState};
use longshore_protocol::{Epoch, NodeId, Timestamp, Token};

/// A row a state, a column an event, in the order of `ALL`; `-` is an error. Paused jobs were
/// reducing.
const JOBS: &str = "
            | start    | reduce   | succeed   | fail   | pause  | resume   | cancel    | retry
  queued    | running  | reducing | succeeded | failed | paused | queued   | cancelled | -
  running   | running  | reducing | succeeded | failed | paused | running  | cancelled | running
  reducing  | reducing | -        | succeeded | failed | paused | reducing | cancelled | -
  paused    | -        | -        | succeeded | failed | paused | reducing | cancelled | paused
  succeeded | -        | -        | -         | -      | -      | -        | -         | -
  failed    | -        | -        | -         | -      | -      | -        | -         | running
  cancelled | -        | -        | -         | -      | -      | -        | cancelled | -
  rejected  | -        | -        | -         | -      | -      | -        | -         | -
";

fn cells(line: &str) -> Vec<&str> {
    line.split('|').map(str::trim).collect()
}

#[test]
fn every_event_leads_every_job_where_the_table_says() {
    let mut lines = JOBS.lines().skip(1);
    let header = cells(lines.next().expect("a header"));
    assert_eq!(header[1..], JobEvent::ALL.map(JobEvent::as_str));
    for (state, line) in JobState::ALL.into_iter().zip(lines.by_ref()) {
        let row = cells(line);
        assert_eq!(row[0], state.as_str());
        for (event, expected) in JobEvent::ALL.into_iter().zip(&row[1..]) {
            let found = state.on(event, JobState::Reducing);
            let word = found.map_or("-", JobState::as_str);
            assert_eq!(word, *expected, "a job that is {state}, on {event}");
            if let Err(error) = found {
                assert_eq!(error.to_string(), format!("a job that is {state} can't {event}"));
            }
        }
    }
    assert_eq!(lines.next(), None);
}

/// A row a state, a column a predicate, in the order of `ALL` and of `PREDICATES`.
const PREDICATES: &str = "
            | TERMINAL | SUCCEEDED | ACCEPTED | PAUSED | FEEDS | ACCEPTS_CLAIMS | IN_PROGRESS
  queued    | -        | -         | yes      | -      | yes   | yes            | -
  running   | -        | -         | yes      | -      | yes   | yes            | yes
  reducing  | -        | -         | yes      | -      | yes   | yes            | yes
  paused    | -        | -         | yes      | yes    | -     | -              | -
  succeeded | yes      | yes       | yes      | -      | -     | -              | -
  failed    | yes      | -         | yes      | -      | -     | -              | -
  cancelled | yes      | -         | yes      | -      | -     | -              | -
  rejected  | yes      | -         | -        | -      | -     | -              | -
";

#[test]
fn every_predicate_of_a_state_holds_where_the_table_says() {
    let mut lines = PREDICATES.lines().skip(1);
    let header = cells(lines.next().expect("a header"));
    assert_eq!(header[1..], JobState::PREDICATES.map(|(name, _)| name));
    for (state, line) in JobState::ALL.into_iter().zip(lines) {
        let found = JobState::PREDICATES.map(|(_, holds)| if holds(state) { "yes" } else { "-" });
        assert_eq!(cells(line)[1..], found, "{state}");
    }
}

#[test]
fn claims_are_accepted_where_a_job_may_start() {
    for state in JobState::ALL {
        let starts = state.on(JobEvent::Start, JobState::Queued).is_ok();
        assert_eq!(state.accepts_claims(), starts, "{state}");
    }
}

#[test]
fn a_resumed_job_goes_back_to_where_it_was_paused() {
    for state in [JobState::Queued, JobState::Running, JobState::Reducing] {
        assert_eq!(JobState::Paused.on(JobEvent::Resume, state), Ok(state));
    }
}

#[test]
fn only_a_retry_leaves_an_ended_job() {
    for state in JobState::ALL.into_iter().filter(|state| state.is_terminal()) {
        for event in JobEvent::ALL.into_iter().filter(|event| *event != JobEvent::Retry) {
            let found = state.on(event, JobState::Running);
            assert!(found.is_err() || found == Ok(state), "{state} on {event}: {found:?}");
        }
    }
}

#[test]
fn states_are_written_and_read_as_the_same_words() {
    for state in JobState::ALL {
        assert_eq!(state.as_str().parse(), Ok(state));
        assert_eq!(serde_json::to_value(state).ok(), Some(state.as_str().into()));
    }
    let error = "Running".parse::<JobState>().expect_err("words are lower case");
    assert_eq!(error.to_string(), "unknown state `Running`");
}

const MINE: Token = Token::from_bytes([1; 16]);
const OTHER: Token = Token::from_bytes([2; 16]);
const EPOCH: Epoch = Epoch(7);

fn queued(due: u64) -> ChunkState {
    ChunkState::Queued { due: Timestamp::from_millis(due) }
}

fn running(token: Token, node: &str) -> ChunkState {
    ChunkState::Running { token, node: NodeId::new(node) }
}

fn claim(epoch: u64, token: Token, node: &str) -> ChunkEvent {
    ChunkEvent::Claim { epoch: Epoch(epoch), token, node: NodeId::new(node) }
}

fn release(token: Token) -> ChunkEvent {
    ChunkEvent::Released { token, due: Timestamp::from_millis(9) }
}

#[track_caller]
fn chunk<const N: usize>(
    state: &ChunkState,
    cases: [(ChunkEvent, Result<ChunkState, ChunkRefusal>); N],
) {
    for (event, expected) in cases {
        assert_eq!(state.clone().on(EPOCH, event.clone()), expected, "{state:?} on {event:?}");
    }
}

#[test]
fn a_queued_chunk_is_granted_for_the_current_message() {
    chunk(
        &queued(5),
        [
            (claim(7, MINE, "a"), Ok(running(MINE, "a"))),
            (claim(6, MINE, "a"), Err(ChunkRefusal::Stale)),
            (claim(8, MINE, "a"), Err(ChunkRefusal::Stale)),
        ],
    );
}

#[test]
fn a_chunk_without_a_holder_takes_no_commit_and_no_release() {
    chunk(
        &queued(5),
        [
            (release(MINE), Err(ChunkRefusal::Fenced)),
            (ChunkEvent::Commit { token: MINE }, Err(ChunkRefusal::Fenced)),
        ],
    );
}

#[test]
fn a_running_chunk_is_its_holders_alone() {
    let held = running(MINE, "a");
    chunk(
        &held,
        [
            (claim(7, MINE, "a"), Ok(held.clone())),
            (claim(7, OTHER, "b"), Err(ChunkRefusal::Stale)),
            (claim(6, OTHER, "b"), Err(ChunkRefusal::Stale)),
            (release(MINE), Ok(queued(9))),
            (release(OTHER), Err(ChunkRefusal::Fenced)),
            (ChunkEvent::Commit { token: MINE }, Ok(held.clone())),
            (ChunkEvent::Commit { token: OTHER }, Err(ChunkRefusal::Fenced)),
        ],
    );
}
