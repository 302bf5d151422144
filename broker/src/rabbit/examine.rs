//! The checks of RabbitMQ in `longshore doctor`: reachable, version, login, publish, queue.
//!
//! They run one after another, so that the first one that fails is named.

use tokio::net::TcpStream;
use tokio::time::timeout;

use longshore_protocol::{ErrorKind, Finding, Severity};

use crate::Queue;

use super::Config;
use super::address::Address;
use super::failure::{ACCESS_REFUSED, Failure, NOT_ALLOWED, NOT_FOUND};
use super::greeting::{Greeting, greet};
use super::session::Session;
use super::topology::Topology;

/// The oldest version that has quorum queues as Longshore needs them.
const OLDEST: (u32, u32) = (3, 10);

pub(crate) async fn examine(
    address: &Address,
    config: &Config,
    topology: &Topology,
    pools: &[String],
) -> Vec<Finding> {
    let mut findings = Vec::new();
    match reach(address, config).await {
        Ok(reached) => findings.extend(reached),
        Err(finding) => return vec![finding],
    }
    let session = match Box::pin(Session::open(address, config, "doctor")).await {
        Ok(session) => session,
        Err(failure) => {
            findings.push(refused(address, &failure));
            return findings;
        }
    };
    let user = &address.uri.authority.userinfo.username;
    let vhost = &address.uri.vhost;
    findings.push(fine("rabbitmq.login", format!("user `{user}` on virtual host `{vhost}`")));
    let work = pools.iter().map(|pool| Queue::Work(pool.clone()));
    for queue in [Queue::Jobs, Queue::Waiting, Queue::Dead, Queue::Journal].into_iter().chain(work)
    {
        findings.push(examine_queue(&session, topology, &queue).await);
    }
    // Last, since a blocked connection can't be used for anything else.
    findings.extend(publish(address, &session, topology).await);
    session.close().await;
    findings
}

/// Connects over TCP, then reads the greeting.
async fn reach(address: &Address, config: &Config) -> Result<Vec<Finding>, Finding> {
    let limit = config.timeouts.connect;
    let check = "rabbitmq.reachable";
    let target = address.host_and_port();
    let stream = match timeout(limit, TcpStream::connect(target)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {limit:?}")),
    };
    let remedy = "start RabbitMQ, or correct host and port in amqp_url";
    let mut stream = stream.map_err(|found| wrong(check, format!("{address}: {found}"), remedy))?;
    let reached = fine(check, address.to_string());
    if address.is_tls() {
        let found = "not checked over TLS".to_owned();
        return Ok(vec![reached, fine("rabbitmq.version", found)]);
    }
    let greeting = match timeout(limit, greet(&mut stream)).await {
        Ok(Ok(greeting)) => Ok(greeting),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("accepts connections, but sends no greeting within {limit:?}")),
    };
    let remedy = "see whether RabbitMQ is what listens there, and whether it hangs";
    let greeting = greeting
        .map_err(|found| wrong("rabbitmq.handshake", format!("{address}: {found}"), remedy))?;
    Ok(vec![reached, version(&greeting)])
}

fn version(greeting: &Greeting) -> Finding {
    let found = format!("{} {}", greeting.product, greeting.version);
    let check = "rabbitmq.version";
    if greeting.product != "RabbitMQ" {
        let remedy = "Longshore is tested with RabbitMQ only";
        return finding(Severity::Warning, check, found, remedy);
    }
    let mut numbers = greeting.version.split(['.', '-', '+']).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) < OLDEST => {
            let remedy = format!("upgrade RabbitMQ to {}.{} or later", OLDEST.0, OLDEST.1);
            wrong(check, found, &remedy)
        }
        _ => fine(check, found),
    }
}

fn refused(address: &Address, failure: &Failure) -> Finding {
    let found = format!("{address}: {}", address.explain(failure));
    if failure.kind() == ErrorKind::BadCertificate {
        let remedy = "see the section on TLS in docs/rabbitmq.md";
        return wrong("rabbitmq.certificate", found, remedy);
    }
    match failure {
        Failure::Expelled { code: ACCESS_REFUSED, .. } => {
            wrong("rabbitmq.login", found, "correct user and password in amqp_url")
        }
        Failure::Expelled { code: NOT_ALLOWED, .. } => {
            let remedy = "correct the virtual host in amqp_url, or create it and allow the user \
                          on it: rabbitmqctl add_vhost, rabbitmqctl set_permissions";
            wrong("rabbitmq.vhost", found, remedy)
        }
        _ => wrong("rabbitmq.handshake", found, "see RabbitMQ's log"),
    }
}

/// Publishes a message that is routed to no queue: RabbitMQ announces that it blocks a connection
/// only once that connection publishes.
async fn publish(address: &Address, session: &Session, topology: &Topology) -> Option<Finding> {
    let check = "rabbitmq.publish";
    let mut blocked = session.blocked();
    let outcome = tokio::select! {
        outcome = topology.probe(session) => outcome,
        reason = blocked.wait_for(Option::is_some) => {
            let reason = reason.ok().and_then(|reason| reason.clone()).unwrap_or_default();
            let found = format!("{address} accepts no messages: {reason}");
            let remedy = "free memory or disk space on RabbitMQ's machine, or raise its limits \
                          (vm_memory_high_watermark, disk_free_limit); `rabbitmq-diagnostics \
                          alarms` tells more";
            return Some(wrong(check, found, remedy));
        }
        failure = session.watch("doctor") => Err(failure),
    };
    match outcome {
        Ok(()) => Some(fine(check, "confirmed".to_owned())),
        // Workers publish nothing, so their user needs no permission to. A scheduler creates a
        // missing exchange.
        Err(Failure::Refused { code: ACCESS_REFUSED | NOT_FOUND, .. }) => None,
        Err(failure) => {
            let remedy = "see RabbitMQ's log";
            Some(wrong(check, format!("{address}: {failure}"), remedy))
        }
    }
}

async fn examine_queue(session: &Session, topology: &Topology, queue: &Queue) -> Finding {
    let name = topology.name(queue);
    let check = "rabbitmq.queue";
    let depth = match topology.depth(session, queue).await {
        Ok(depth) => depth,
        // The queue is declared, but its node is away. RabbitMQ uses the code of a missing queue,
        // and only the text differs.
        Err(Failure::Refused { code: NOT_FOUND, text }) if text.contains("inaccessible") => {
            let remedy = format!(
                "start the node of the queue; if it runs, the queue was lost when it was killed: \
                 rabbitmqctl delete_queue {name}"
            );
            return wrong(check, text, &remedy);
        }
        Err(Failure::Refused { code: NOT_FOUND, .. }) => {
            return fine(check, format!("{name} does not exist yet; the first use creates it"));
        }
        Err(failure) => {
            let remedy = "see RabbitMQ's log, and the permissions in docs/rabbitmq.md";
            return wrong(check, format!("{name}: {failure}"), remedy);
        }
    };
    let kind = topology.kind(queue);
    let (ready, consumers) = (depth.ready, depth.consumers);
    let found = format!("{name}: {ready} ready, {consumers} consumers");
    match topology.is_of_its_kind(session, queue).await {
        Ok(false) => {
            let remedy =
                format!("works as it is; to have a {kind} queue, delete this one when idle");
            finding(Severity::Warning, check, format!("{found}, but not declared {kind}"), &remedy)
        }
        Ok(true) => assess(queue, &found, kind, ready, consumers),
        // A user without the permission to declare can't find out the kind.
        Err(_) => assess(queue, &found, "kind unknown", ready, consumers),
    }
}

/// Judges the queue by its messages and consumers.
fn assess(queue: &Queue, found: &str, kind: &str, ready: u64, consumers: u64) -> Finding {
    let found = format!("{found}, {kind}");
    let check = "rabbitmq.queue";
    match queue {
        Queue::Dead if ready > 0 => {
            let remedy =
                "`longshore dead list` says why; requeue or purge them with `longshore dead`";
            finding(Severity::Warning, check, found, remedy)
        }
        Queue::Waiting if ready > 0 => {
            let remedy = "these job documents name files or buckets that can't be reached now; \
                          `longshore status JOB` and the schedulers' log say which";
            finding(Severity::Warning, check, found, remedy)
        }
        Queue::Jobs if consumers == 0 && ready > 0 => {
            finding(Severity::Warning, check, found, "start a scheduler: longshore scheduler")
        }
        Queue::Work(pool) if consumers == 0 && ready > 0 => {
            let remedy = format!("start a worker that serves the queue `{pool}`");
            finding(Severity::Warning, check, found, &remedy)
        }
        _ => fine(check, found),
    }
}

fn fine(check: &str, found: String) -> Finding {
    finding(Severity::Ok, check, found, "")
}

fn wrong(check: &str, found: String, remedy: &str) -> Finding {
    finding(Severity::Error, check, found, remedy)
}

fn finding(severity: Severity, check: &str, found: String, remedy: &str) -> Finding {
    Finding { severity, check: check.to_owned(), found, remedy: remedy.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(product: &str, number: &str, expected: Severity) {
        let (product, number) = (product.to_owned(), number.to_owned());
        let found = version(&Greeting { product, version: number });
        assert_eq!(found.severity, expected, "{found:?}");
        assert_eq!(found.remedy.is_empty(), expected == Severity::Ok, "{found:?}");
    }

    #[test]
    fn old_and_foreign_servers_are_reported() {
        check("RabbitMQ", "3.10.8", Severity::Ok);
        check("RabbitMQ", "4.1.0-rc.1", Severity::Ok);
        check("RabbitMQ", "3.9.27", Severity::Error);
        check("LavinMQ", "2.0.0", Severity::Warning);
    }
}
