//! Decides the outcome of each publish from the confirms and returned messages of one channel.
//!
//! lapin attaches a returned message to whichever confirm resolves next, which often is another
//! publish's. That confirm always resolves before or together with the confirm of the returned
//! message, or the returned message is part of a chain of other returned messages. Therefore no
//! publish is answered while a message is known to be returned whose own confirm has not arrived;
//! once there is none, every returned message has been seen. Returned messages are rare, and their
//! confirms follow at once.
//!
//! Deliberately absent: lapin, tasks and clocks. The caller passes in what arrives, and asks for
//! what is known.

use std::collections::{HashMap, HashSet};

use super::failure::Failure;

/// Identifies a message in flight: its id and its routing key.
pub(crate) type Label = (String, String);

/// The outcome of a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Confirmed,
    Unroutable,
    Unknown(Failure),
}

/// The confirms of one channel. `T` is the publish to answer.
pub(crate) struct Confirms<T> {
    in_flight: HashMap<Label, usize>,
    returned: HashSet<Label>,
    confirmed: Vec<(Label, T, Verdict)>,
}

impl<T> Confirms<T> {
    pub(crate) fn new() -> Self {
        Self { in_flight: HashMap::new(), returned: HashSet::new(), confirmed: Vec::new() }
    }

    pub(crate) fn sent(&mut self, label: Label) {
        *self.in_flight.entry(label).or_default() += 1;
    }

    /// The confirm of a message has arrived; the returned message that is attached to it may be
    /// another one.
    pub(crate) fn arrived(
        &mut self,
        label: Label,
        publish: T,
        verdict: Verdict,
        returned: Option<Label>,
    ) {
        if let Some(count) = self.in_flight.get_mut(&label) {
            *count -= 1;
            if *count == 0 {
                self.in_flight.remove(&label);
            }
        }
        self.confirmed.push((label, publish, verdict));
        self.returned.extend(returned);
    }

    /// The publishes whose outcome is known. Call it when everything that arrived has been passed
    /// in.
    pub(crate) fn known(&mut self) -> Vec<(T, Verdict)> {
        if self.returned.iter().any(|label| self.in_flight.contains_key(label)) {
            return Vec::new();
        }
        let returned = std::mem::take(&mut self.returned);
        let confirmed = std::mem::take(&mut self.confirmed);
        let known = confirmed.into_iter().map(|(label, publish, verdict)| {
            // RabbitMQ confirms a message that it returned, so a nack can't follow the return.
            let unroutable = verdict == Verdict::Confirmed && returned.contains(&label);
            (publish, if unroutable { Verdict::Unroutable } else { verdict })
        });
        known.collect()
    }

    /// The publishes whose confirm has arrived but which were not answered before the session
    /// ended.
    pub(crate) fn give_up(self) -> impl Iterator<Item = T> {
        self.confirmed.into_iter().map(|(_, publish, _)| publish)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(id: &str) -> Label {
        (id.to_owned(), "queue".to_owned())
    }

    /// Steps are `a` (a's confirm), `a:b` (a's confirm with b's return attached), `!a` (a's nack)
    /// and `?` (the publishes whose outcome is known).
    #[track_caller]
    fn check(sent: &str, steps: &str, expected: &str) {
        let mut confirms = Confirms::new();
        sent.split_whitespace().for_each(|id| confirms.sent(label(id)));
        let mut answers = Vec::new();
        for step in steps.split_whitespace() {
            if step == "?" {
                let mut known: Vec<String> = confirms.known().iter().map(shown).collect();
                known.sort();
                answers.push(known.join(","));
                continue;
            }
            let (own, with) = step.split_once(':').map_or((step, None), |(a, b)| (a, Some(b)));
            let (id, verdict) = match own.strip_prefix('!') {
                Some(id) => (id, Verdict::Unknown(Failure::closed("nack"))),
                None => (own, Verdict::Confirmed),
            };
            confirms.arrived(label(id), id.to_owned(), verdict, with.map(label));
        }
        assert_eq!(answers.join(" | "), expected, "{steps}");
    }

    fn shown((id, verdict): &(String, Verdict)) -> String {
        match verdict {
            Verdict::Confirmed => id.clone(),
            Verdict::Unroutable => format!("{id}=back"),
            Verdict::Unknown(_) => format!("{id}=unknown"),
        }
    }

    #[test]
    fn each_publish_gets_its_own_answer() {
        check("a b", "a ? b ?", "a | b");
        check("a b", "a:a ? b ?", "a=back | b");
        check("a b", "!a b ?", "a=unknown,b");
    }

    #[test]
    fn a_return_attached_to_another_message_s_confirm_waits_for_its_own() {
        // `a` carries b's return: no publish is answered until b's confirm has arrived.
        check("a b c", "a:b ? c ? b ?", " |  | a,b=back,c");
        check("a b", "b a:b ?", "a,b=back");
    }

    #[test]
    fn returns_that_are_attached_crosswise_are_matched_to_their_messages() {
        check("a b c", "a:b ? b:a ? c ?", " | a=back,b=back | c");
        check("a b c", "c:a ? a:b ? b ?", " |  | a=back,b=back,c");
    }

    #[test]
    fn two_messages_with_the_same_label_share_an_outcome() {
        check("a a", "a:a ? a ?", " | a=back,a=back");
        check("a a", "a a ?", "a,a");
    }

    #[test]
    fn a_return_of_an_unknown_message_delays_no_answer() {
        check("a", "a:stranger ?", "a");
    }
}
