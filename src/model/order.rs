//! What is ordered about an operation that is open. Pure data.

/// One order, with who gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub what: Verb,
    /// `api 127.0.0.1`, or `vecscale` for a decision that needs the operation out of its way.
    pub who: String,
    pub reason: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Ends it after the transfer in flight; what can be undone is undone.
    Cancel,
    /// No further effect is begun until it is resumed, over restarts too.
    Pause,
    Resume,
    /// A blocked operation looks again at the step that it is blocked at.
    Retry,
    /// A person says how the step in doubt came out.
    Resolve(Verdict),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It happened.
    Done,
    /// It did not.
    Absent,
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Done => "done",
            Verdict::Absent => "absent",
        }
    }
}
