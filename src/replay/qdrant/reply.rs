//! What a node answers, and when.

use std::time::Duration;

use serde_json::{Value, json};

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Answer(Answer),
    /// The node is hung: it takes the request and never says a word.
    Never,
    /// The connection is closed without an answer.
    Closed,
    /// Nobody listens there.
    Refused,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// How long after the request.
    pub after: Duration,
    pub status: u16,
    pub body: Body,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    Json(Value),
    /// Qdrant writes some answers as plain text.
    Text(String),
}

impl Body {
    /// As it is sent.
    pub fn text(&self) -> String {
        match self {
            Body::Json(value) => value.to_string(),
            Body::Text(text) => text.clone(),
        }
    }
}

impl Reply {
    /// The answer, where there is one.
    pub fn answer(self) -> Option<Answer> {
        match self {
            Reply::Answer(answer) => Some(answer),
            Reply::Never | Reply::Closed | Reply::Refused => None,
        }
    }
}

pub(super) const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(super) fn ok(result: Value, after: Duration) -> Reply {
    let body = json!({"result": result, "status": "ok", "time": after.as_secs_f64()});
    Reply::Answer(Answer { after, status: 200, body: Body::Json(body) })
}

pub(super) fn text(status: u16, said: impl Into<String>, after: Duration) -> Reply {
    Reply::Answer(Answer { after, status, body: Body::Text(said.into()) })
}

/// Why something is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub status: u16,
    pub error: String,
}

impl Refusal {
    pub fn bad(error: impl Into<String>) -> Refusal {
        Refusal { status: 400, error: format!("Bad request: {}", error.into()) }
    }

    pub fn internal(error: impl Into<String>) -> Refusal {
        Refusal { status: 500, error: format!("Service internal error: {}", error.into()) }
    }

    pub fn no_collection(name: &str) -> Refusal {
        Refusal { status: 404, error: format!("Not found: Collection `{name}` doesn't exist!") }
    }

    pub fn after(self, after: Duration) -> Reply {
        let body = json!({"status": {"error": self.error}, "time": after.as_secs_f64()});
        Reply::Answer(Answer { after, status: self.status, body: Body::Json(body) })
    }
}
