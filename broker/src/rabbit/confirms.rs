//! Which publish each confirm and each returned message belongs to.
//!
//! lapin attaches a returned message to whichever confirm resolves next, often another publish's. It always resolves
//! before or together with the confirm of the message that was returned, or hangs in a chain of other returned
//! messages. So: as long as a message is known to be returned whose own confirm has not arrived, nobody is answered; once
//! none is, every returned message has been seen. Returned messages are rare and their confirms follow at once.
//!
//! Deliberately absent: lapin, tasks and clocks. Feed it what arrives, ask it what is known.

use std::collections::{HashMap, HashSet};

/// What identifies a message on its way: its id and its routing key.
pub(crate) type Label = (String, String);

/// What became of a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Confirmed,
    Unroutable,
    Unknown(String),
}

/// The confirms of one channel. `T` is whom to answer.
pub(crate) struct Confirms<T> {
    in_flight: HashMap<Label, usize>,
    returned: HashSet<Label>,
    arrived: Vec<(Label, T, Verdict)>,
}

impl<T> Confirms<T> {
    pub(crate) fn new() -> Self {
        Self { in_flight: HashMap::new(), returned: HashSet::new(), arrived: Vec::new() }
    }

    pub(crate) fn sent(&mut self, label: Label) {
        *self.in_flight.entry(label).or_default() += 1;
    }

    /// A confirm has arrived for a message, with a returned message attached that may be another.
    pub(crate) fn arrived(&mut self, label: Label, whom: T, verdict: Verdict, with: Option<Label>) {
        if let Some(count) = self.in_flight.get_mut(&label) {
            *count -= 1;
            if *count == 0 {
                self.in_flight.remove(&label);
            }
        }
        self.arrived.push((label, whom, verdict));
        self.returned.extend(with);
    }

    /// What is known by now. Call it when everything that arrived has been told.
    pub(crate) fn known(&mut self) -> Vec<(T, Verdict)> {
        if self.returned.iter().any(|label| self.in_flight.contains_key(label)) {
            return Vec::new();
        }
        let returned = std::mem::take(&mut self.returned);
        let arrived = std::mem::take(&mut self.arrived);
        let judged = arrived.into_iter().map(|(label, whom, verdict)| {
            // RabbitMQ returns a message before it confirms it, so a nack of the same one can't follow.
            let unroutable = verdict == Verdict::Confirmed && returned.contains(&label);
            (whom, if unroutable { Verdict::Unroutable } else { verdict })
        });
        judged.collect()
    }

    /// Everybody whose confirm has arrived but who was not answered yet, because the session ended first.
    pub(crate) fn give_up(self) -> impl Iterator<Item = T> {
        self.arrived.into_iter().map(|(_, whom, _)| whom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(id: &str) -> Label {
        (id.to_owned(), "queue".to_owned())
    }

    /// Steps are `a` (a's confirm), `a:b` (a's confirm with b's return attached), `!a` (a's nack) and `?` (who is known).
    #[track_caller]
    fn check(sent: &str, steps: &str, expected: &str) {
        let mut confirms = Confirms::new();
        sent.split_whitespace().for_each(|id| confirms.sent(label(id)));
        let mut heard = Vec::new();
        for step in steps.split_whitespace() {
            if step == "?" {
                let mut known: Vec<String> = confirms.known().iter().map(shown).collect();
                known.sort();
                heard.push(known.join(","));
                continue;
            }
            let (own, with) = step.split_once(':').map_or((step, None), |(a, b)| (a, Some(b)));
            let (id, verdict) = match own.strip_prefix('!') {
                Some(id) => (id, Verdict::Unknown("nack".to_owned())),
                None => (own, Verdict::Confirmed),
            };
            confirms.arrived(label(id), id.to_owned(), verdict, with.map(label));
        }
        assert_eq!(heard.join(" | "), expected, "{steps}");
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
    fn a_return_on_another_message_s_confirm_waits_for_its_own() {
        // `a` carries b's return: nobody is answered until b's confirm has arrived.
        check("a b c", "a:b ? c ? b ?", " |  | a,b=back,c");
        check("a b", "b a:b ?", "a,b=back");
    }

    #[test]
    fn returns_that_are_attached_crosswise_are_told_apart() {
        check("a b c", "a:b ? b:a ? c ?", " | a=back,b=back | c");
        check("a b c", "c:a ? a:b ? b ?", " |  | a=back,b=back,c");
    }

    #[test]
    fn two_messages_of_the_same_name_share_their_fate() {
        check("a a", "a:a ? a ?", " | a=back,a=back");
        check("a a", "a a ?", "a,a");
    }

    #[test]
    fn a_return_that_nobody_waits_for_holds_nobody_up() {
        check("a", "a:stranger ?", "a");
    }
}
