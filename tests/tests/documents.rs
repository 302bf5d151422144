//! Job documents use memory in proportion to their size, and release it when their jobs have ended.

#![expect(clippy::print_stdout, reason = "the figures are for people: --nocapture shows them")]

use std::time::Duration;

use longshore_test_servers::{Rabbit, Redis, wait_until};
use longshore_tests::Fleet;
use serde_json::json;

/// The number of items: small ones, whose parsed form is largest in proportion to their text.
const ITEMS: usize = 200_000;

const JOBS: usize = 6;

/// The current and the peak resident memory of a process, in bytes.
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
fn documents_use_memory_in_proportion_to_their_size_and_release_it() {
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
    // The first job causes the allocations that happen once.
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
        // The message, its text, the text for the ledger and the text for the journal, and the
        // overhead of the allocator.
        assert!(most < 16 * size, "grew by {most} for documents of {size} bytes");
    }
    wait_until("the memory of the documents is released", Duration::from_secs(60), || {
        grown(|(now, _)| now).iter().all(|grown| *grown < JOBS * size)
    });
    println!("{:?} more than before are left", grown(|(now, _)| now));
}
