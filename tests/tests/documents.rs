//! Documents take up memory while their jobs run, and in proportion to their size.

#![expect(clippy::print_stdout, reason = "the figures are for people: --nocapture shows them")]

use std::time::Duration;

use longshore_test_servers::{Rabbit, Redis, wait_until};
use longshore_tests::Fleet;
use serde_json::json;

/// Small items, of which a tree weighs most beside its text.
const ITEMS: usize = 200_000;

const JOBS: usize = 6;

/// What the process has in memory, and the most that it ever had.
fn resident(pid: u32) -> (usize, usize) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let bytes = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).expect("Linux counts it");
        let number = line.split_whitespace().nth(1).and_then(|n| n.parse::<usize>().ok());
        number.expect("a number of KiB") << 10
    };
    (bytes("VmRSS:"), bytes("VmHWM:"))
}

#[test]
fn documents_weigh_what_they_are_long_and_leave_when_their_jobs_have_ended() {
    let (rabbit, redis) = (Rabbit::start(), Redis::start());
    let mut fleet = Fleet::on(&rabbit, &redis);
    fleet.add_scheduler();
    fleet.add_worker(&["--slots", "2", "--unsupervised"]);
    fleet.await_workers(1);
    let document = |first: usize, items| {
        let items: Vec<_> = (0..items).map(|n| json!({"k": first, "n": n})).collect();
        let split = json!({"by": "items", "items": items});
        json!({"task": "noop", "split": split, "results": "discard"})
    };
    let limit = Duration::from_secs(120);
    // What is allocated once, for whatever job comes first.
    fleet.await_end(&fleet.submit(&document(0, 10)), limit);
    let pids = [fleet.schedulers[0].pid(), fleet.workers[0].pid()];
    let before = pids.map(|pid| resident(pid).0);
    let size = document(0, ITEMS).to_string().len();
    for number in 0..JOBS {
        let status = fleet.await_end(&fleet.submit(&document(number, ITEMS)), limit);
        assert_eq!(status["state"], "succeeded", "{status}");
    }
    let grown = |read: fn((usize, usize)) -> usize| {
        [0, 1].map(|at| read(resident(pids[at])).saturating_sub(before[at]))
    };
    let most = grown(|(_, most)| most);
    println!("{JOBS} documents of {size} bytes: scheduler and worker grew by {most:?} at most");
    for most in most {
        // The message, the text that is made of it, the one that goes to the ledger and the one that
        // goes to the journal; and what the allocator makes of that.
        assert!(most < 16 * size, "grew by {most} for documents of {size} bytes");
    }
    wait_until("the documents leave", Duration::from_secs(60), || {
        grown(|(now, _)| now).iter().all(|grown| *grown < JOBS * size)
    });
    println!("{:?} more than before are left", grown(|(now, _)| now));
}
