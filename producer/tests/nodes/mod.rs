//! What a client does with workers, on any ledger; the test plays the worker and the scheduler.

use std::sync::Arc;

use longshore_ledger::{BeatParams, IsolateParams, Ledger};
use longshore_producer::{Error, ErrorKind, Nodes, Problem};
use longshore_protocol::{Isolation, NodeId, NodeInfo, Timestamp};

/// Lists, drains and readmits a worker, and one that does not exist. No other worker may beat.
pub(crate) async fn are_listed_drained_and_readmitted(ledger: Arc<dyn Ledger>) {
    let nodes = Nodes::new(Arc::clone(&ledger));
    let listed = async || nodes.list().await.expect("a list");
    assert_eq!(listed().await, []);

    let info = NodeInfo { tasks: vec!["t".into()], ..NodeInfo::new(NodeId::new("n")) };
    let beat = async || {
        let beat = ledger.beat(&BeatParams::new(info.clone(), [])).await;
        beat.expect("a heartbeat")
    };
    assert!(!beat().await.drain);
    let found = listed().await;
    assert_eq!(found.iter().map(|node| node.info.as_ref()).collect::<Vec<_>>(), [&info]);
    assert!(nodes.now().await.expect("a time") >= found[0].beat_at);

    let (since, until) = (Timestamp::from_millis(1), Timestamp::from_millis(2));
    let isolation = Isolation { task: "t".into(), since, until, cleared: 3, done: 1, times: 1 };
    let params = IsolateParams::new(info.id.clone(), [isolation.clone()]);
    assert!(ledger.isolate(&params).await.expect("isolated"));
    assert_eq!(listed().await[0].isolated, [isolation]);
    nodes.readmit(&info.id).await.expect("readmitted");
    assert_eq!(listed().await[0].isolated, []);

    nodes.drain(&info.id).await.expect("asked to drain");
    assert!(beat().await.drain);

    let absent = NodeId::new("absent");
    for answer in [nodes.drain(&absent).await, nodes.readmit(&absent).await] {
        let error = answer.expect_err("no such node");
        assert!(matches!(&error, Error::NodeNotFound(node) if *node == absent), "{error:?}");
        assert_eq!(error.to_string(), "no such node: absent");
        let problem = Problem::from(&error);
        assert_eq!((problem.kind, problem.node), (ErrorKind::NotFound, Some(absent.clone())));
    }
    assert_eq!(listed().await.len(), 1, "nothing else has changed");
}
