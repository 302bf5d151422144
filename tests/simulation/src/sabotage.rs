//! Deliberate bugs, at least one for each invariant, which prove that its checker can fail.
//!
//! No bug is in production code; the wrappers of ledger and broker give wrong answers.

/// A deliberate bug, and the invariant that must notice it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Some commits are confirmed without being written. S1.
    ConfirmUnwritten,
    /// Job documents are acknowledged before they are admitted. S1.
    AckDocumentsEarly,
    /// Documents set aside because their files can't be reached are confirmed and lost. S1.
    LoseWaiting,
    /// The sweep never finds anything. S1.
    NeverSweep,
    /// Chunks of dead workers are not revoked. S13.
    NeverRevoke,
    /// One scheduler revokes all chunks of a dead worker, but only of the jobs that it owns. S13.
    OneRecovers,
    /// The counters that an audit reads are off by one. S2.
    Miscount,
    /// Commits cover subtasks that did not run. S3.
    SkipSubtasks,
    /// Commits and releases count with any token. S4.
    IgnoreFencing,
    /// Holders are identified by epochs instead of tokens; after a rollback an epoch is issued
    /// twice. S4.
    EpochsForTokens,
    /// A chunk revoked from a dead node counts as a failed attempt of its subtasks. S5.
    ChargeCrashes,
    /// The ledger opens more chunks than `max_parallel` allows. S6.
    ForgetMaxParallel,
    /// Results are stored one index too high. S7.
    ShiftResults,
    /// The names of result objects lack the token of the claim that wrote them. S7.
    ShareResultNames,
    /// A job appears that was not submitted. S8.
    InventJob,
    /// A pause is confirmed without effect. S9.
    PauseWithoutEffect,
    /// Some acknowledgements never arrive, on connections that stay open. S10.
    LoseAcks,
    /// A worker whose heartbeats fail believes that they succeed. S11.
    IgnoreMissedHeartbeats,
    /// A worker whose heartbeat failed believes that its chunks were revoked. S16.
    AssumeRevoked,
    /// A worker does not learn which chunks to stop. S17.
    IgnoreStops,
    /// Schedulers apply their own `dead_after` to all workers. S18.
    IgnoreTerms,
    /// Subscriptions of workers end, as if the broker had been closed. S12.
    EndSubscriptions,
    /// The cancel of a job that is not known yet is confirmed and forgotten. S19.
    ForgetCancels,
    /// The nodes on which a subtask has failed are not recorded. S14.
    ForgetTried,
    /// What blocks jobs is confirmed without being written. S20.
    ForgetReasons,
}

impl Sabotage {
    /// All deliberate bugs.
    pub const ALL: [Self; 25] = [
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
        Self::PauseWithoutEffect,
        Self::LoseAcks,
        Self::IgnoreMissedHeartbeats,
        Self::AssumeRevoked,
        Self::IgnoreStops,
        Self::IgnoreTerms,
        Self::EndSubscriptions,
        Self::ForgetCancels,
        Self::ForgetTried,
        Self::ForgetReasons,
    ];

    /// The invariant that notices the bug.
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
            Self::PauseWithoutEffect => "S9",
            Self::LoseAcks => "S10",
            Self::IgnoreMissedHeartbeats => "S11",
            Self::AssumeRevoked => "S16",
            Self::IgnoreStops => "S17",
            Self::IgnoreTerms => "S18",
            Self::EndSubscriptions => "S12",
            Self::ForgetTried => "S14",
            Self::ForgetCancels => "S19",
            Self::ForgetReasons => "S20",
            Self::NeverRevoke | Self::OneRecovers => "S13",
        }
    }
}
