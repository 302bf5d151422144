//! Which worker a verb is about: its id, or the beginning of it.

use longshore_producer::Nodes;
use longshore_protocol::NodeId;

use crate::failure::Failure;

/// The fewest characters by which a worker can be named.
const SHORTEST: usize = 8;

/// How many workers an error names that lists what was meant.
const CANDIDATES: usize = 5;

/// The worker that is meant. An id that no listed worker has is given back as it is, and turns out
/// to be unknown when it is used.
pub(crate) async fn find(nodes: &Nodes, text: &str) -> Result<NodeId, Failure> {
    let nodes = nodes.list().await?;
    let ids: Vec<&str> = nodes.iter().map(|node| node.info.id.as_str()).collect();
    Ok(NodeId::new(choose(&ids, text)?))
}

fn choose<'a>(ids: &[&'a str], text: &'a str) -> Result<&'a str, Failure> {
    if text.len() < SHORTEST || ids.contains(&text) {
        return Ok(text);
    }
    let begin_so: Vec<&str> = ids.iter().copied().filter(|id| id.starts_with(text)).collect();
    match begin_so.as_slice() {
        [] => Ok(text),
        [id] => Ok(id),
        several => {
            let more = if several.len() > CANDIDATES { ", …" } else { "" };
            let listed = several.iter().take(CANDIDATES).copied().collect::<Vec<_>>().join(", ");
            Err(Failure::usage(format!(
                "there are several nodes with an id that begins with `{text}`: {listed}{more}; \
                 write more of the id"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_named_by_the_beginning_of_its_id() {
        let ids = ["quay-0197c7a0-8e7e", "quay-0197c7a0-9f00", "quay", "pier-1"];
        let chosen = |text: &'static str| choose(&ids, text).map_err(|error| error.to_string());
        assert_eq!(chosen("quay-0197c7a0-8").as_deref(), Ok("quay-0197c7a0-8e7e"));
        assert_eq!(chosen("quay").as_deref(), Ok("quay"), "a whole id");
        assert_eq!(chosen("pier").as_deref(), Ok("pier"), "too short to be a beginning");
        assert_eq!(chosen("barge-0197").as_deref(), Ok("barge-0197"), "unknown");
        let error = chosen("quay-0197").expect_err("two begin so");
        assert!(error.contains("quay-0197c7a0-8e7e, quay-0197c7a0-9f00; "), "{error}");
    }
}
