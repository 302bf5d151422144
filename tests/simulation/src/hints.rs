//! The ledger's hints on their way to one process: some are lost, and a cut line loses all.

use std::sync::Arc;

use async_trait::async_trait;
use longshore_ledger::{Event, Events};

use crate::process::{Impairment, Process};

/// The hints that reach one process.
pub(crate) struct RemoteEvents {
    pub(crate) process: Arc<Process>,
    pub(crate) line: Impairment,
    pub(crate) real: Box<dyn Events>,
}

#[async_trait]
impl Events for RemoteEvents {
    async fn next(&mut self) -> Event {
        loop {
            let event = self.real.next().await;
            self.process.running().await;
            let world = &self.process.world;
            if self.process.has(self.line) {
                world.count("hints cut off");
                self.process.without(self.line).await;
                return Event::Gap;
            }
            if !world.happens("hints lost", |rates| rates.hint_lost) {
                return event;
            }
        }
    }
}
