//! Deliberate bugs: for each invariant at least one build that breaks it, to prove that its checker can fail. None of them
//! touches production code; each is a lie that the wrappers of ledger and broker tell.

/// What is broken, and which invariant has to notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Some commits are confirmed without being written: acknowledged before they are safe. S1.
    ConfirmUnwritten,
    /// Job documents are acknowledged before they are admitted. S1.
    AckDocumentsEarly,
    /// What is set aside, since its files can't be reached, is confirmed and lost. S1.
    LoseWaiting,
    /// The sweep finds nothing, ever. S1.
    NeverSweep,
    /// Nothing is taken from the dead. S13.
    NeverRevoke,
    /// One scheduler takes everything from a dead worker, of the jobs that it knows: its own. S13.
    OneRecovers,
    /// The counters that an audit reads are off by one. S2.
    Miscount,
    /// Commits cover more than what ran. S3.
    SkipSubtasks,
    /// Commits and releases count whatever token they show. S4.
    IgnoreFencing,
    /// Holders are told apart by their epochs; after a rollback an epoch is issued twice. S4.
    EpochsForTokens,
    /// A chunk that comes back from a dead node is a failed attempt of its subtasks. S5.
    ChargeCrashes,
    /// The ledger opens more chunks than `max_parallel` allows. S6.
    ForgetMaxParallel,
    /// Results are filed one index too late. S7.
    ShiftResults,
    /// Result objects are named by what they hold, not by who wrote them. S7.
    ShareResultNames,
    /// A job appears that nobody submitted. S8.
    InventJob,
    /// A pause is confirmed and not kept. S9.
    PauseInName,
    /// Some acknowledgements never arrive, on connections that stay. S10.
    LoseAcks,
    /// A worker that can't beat believes that it does. S11.
    IgnoreMissedHeartbeats,
    /// A worker whose heartbeat failed believes that others have what it holds. S16.
    AssumeRevoked,
    /// A worker does not hear what it must stop. S17.
    IgnoreStops,
    /// Schedulers judge all workers by their own settings. S18.
    IgnoreTerms,
    /// Subscriptions of workers end, as if the broker had been closed. S12.
    EndSubscriptions,
    /// Who cancels a job that is not known yet is told that this is remembered, which it is not. S19.
    ForgetCancels,
    /// Nobody knows on which nodes a subtask has failed. S14.
    ForgetTried,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Self; 24] = [
        Self::ConfirmUnwritten,
        Self::AckDocumentsEarly,
        Self::LoseWaiting,
        Self::NeverSweep,
        Self::NeverRevoke,
        Self::OneRecovers,
        Self::Miscount,
        Self::SkipSubtasks,
        Self::IgnoreFencing,
        Self::EpochsForTokens,
        Self::ChargeCrashes,
        Self::ForgetMaxParallel,
        Self::ShiftResults,
        Self::ShareResultNames,
        Self::InventJob,
        Self::PauseInName,
        Self::LoseAcks,
        Self::IgnoreMissedHeartbeats,
        Self::AssumeRevoked,
        Self::IgnoreStops,
        Self::IgnoreTerms,
        Self::EndSubscriptions,
        Self::ForgetCancels,
        Self::ForgetTried,
    ];

    /// The invariant that notices.
    pub const fn breaks(self) -> &'static str {
        match self {
            Self::ConfirmUnwritten
            | Self::AckDocumentsEarly
            | Self::LoseWaiting
            | Self::NeverSweep => "S1",
            Self::Miscount => "S2",
            Self::SkipSubtasks => "S3",
            Self::IgnoreFencing | Self::EpochsForTokens => "S4",
            Self::ChargeCrashes => "S5",
            Self::ForgetMaxParallel => "S6",
            Self::ShiftResults | Self::ShareResultNames => "S7",
            Self::InventJob => "S8",
            Self::PauseInName => "S9",
            Self::LoseAcks => "S10",
            Self::IgnoreMissedHeartbeats => "S11",
            Self::AssumeRevoked => "S16",
            Self::IgnoreStops => "S17",
            Self::IgnoreTerms => "S18",
            Self::EndSubscriptions => "S12",
            Self::ForgetTried => "S14",
            Self::ForgetCancels => "S19",
            Self::NeverRevoke | Self::OneRecovers => "S13",
        }
    }
}
