//! What becomes of what KMS tells.

/// What became of a notice of KMS, or of the request that should have brought one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeOutcome {
    /// It was told to the loops.
    Accepted,
    /// It had come before.
    Duplicate,
    /// It is about something else.
    Ignored,
    /// The request was not JSON.
    Malformed,
    /// The request was too large or too slow, or broke off.
    Unreadable,
    /// Whoever sent the request did not show that it may.
    Unauthorised,
    /// Too many requests came.
    Limited,
    /// The caches were not filled yet.
    NotReady,
}

impl NoticeOutcome {
    /// Every outcome.
    pub(super) const ALL: [Self; 8] = [
        Self::Accepted,
        Self::Duplicate,
        Self::Ignored,
        Self::Malformed,
        Self::Unreadable,
        Self::Unauthorised,
        Self::Limited,
        Self::NotReady,
    ];

    /// The word in the metric.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::Ignored => "ignored",
            Self::Malformed => "malformed",
            Self::Unreadable => "unreadable",
            Self::Unauthorised => "unauthorised",
            Self::Limited => "limited",
            Self::NotReady => "not_ready",
        }
    }
}

/// What became of an object that a notice names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HintResult {
    /// It is due.
    Due,
    /// It was due by a hint already.
    Merged,
    /// Its store is missing, or does not let it read the secret.
    NotAllowed,
    /// A loop was too far behind to look at the notice at all, or more came than a replica can pass on.
    Lost,
}

impl HintResult {
    /// Every result.
    pub(super) const ALL: [Self; 4] = [Self::Due, Self::Merged, Self::NotAllowed, Self::Lost];

    /// The word in the metric.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Due => "due",
            Self::Merged => "merged",
            Self::NotAllowed => "not_allowed",
            Self::Lost => "lost",
        }
    }
}
