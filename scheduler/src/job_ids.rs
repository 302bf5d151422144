//! Derives the id of a job whose document has none, from the id of its message where there is one.

use longshore_protocol::{Digest, JobDocument, JobId};
use uuid::Uuid;

use crate::engine::ring;

/// The id of the job. A message that is delivered twice has to give the same job, so its
/// `message_id` decides: a UUID is the id, and from any other text together with the document an id
/// is derived (several applications may number their messages from 1). A message without
/// `message_id` is a new job each time.
pub(crate) fn choose(document: &JobDocument, message_id: Option<&str>) -> JobId {
    let uuid = match message_id {
        None | Some("") => Uuid::now_v7(),
        Some(text) => match Uuid::try_parse(text) {
            Ok(uuid) if !uuid.is_nil() => uuid,
            _ => derive(text, &document.digest()),
        },
    };
    JobId::from_uuid(uuid)
}

fn derive(text: &str, digest: &Digest) -> Uuid {
    let seed = format!("{digest} {text}");
    let halves = [ring::hash(seed.as_bytes()), ring::hash(format!("{seed} again").as_bytes())];
    let bytes: Vec<u8> = halves.iter().flat_map(|half| half.to_be_bytes()).collect();
    let bytes = bytes.try_into().expect("two halves of 8 bytes");
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(end: u32) -> JobDocument {
        let json = format!(r#"{{"task":"noop","split":{{"by":"range","start":0,"end":{end}}}}}"#);
        JobDocument::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn a_message_id_that_is_a_uuid_is_the_id_of_the_job() {
        let uuid = "0193a0c5-7e1c-7000-8000-000000000001";
        assert_eq!(choose(&document(1), Some(uuid)).to_string(), uuid);
    }

    #[test]
    fn another_message_id_gives_the_same_job_each_time() {
        let first = choose(&document(1), Some("17"));
        assert_eq!(first, choose(&document(1), Some("17")));
        assert_ne!(first, choose(&document(1), Some("18")));
        assert_ne!(
            first,
            choose(&document(2), Some("17")),
            "another application also counts from 1"
        );
        assert_eq!(first.as_uuid().get_version_num(), 8);
    }

    #[test]
    fn a_message_without_message_id_is_a_new_job() {
        assert_ne!(choose(&document(1), None), choose(&document(1), None));
        let nil = Uuid::nil().to_string();
        assert_ne!(choose(&document(1), Some(&nil)).as_uuid(), Uuid::nil());
    }
}
