//! Errors as RFC 9457 problem details: what was wrong, where, what to do. Pure.

use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::handle::{Refusal, RefusalKind};
use crate::http::Answer;
use crate::model::{GuardHit, OperationId};
use crate::record::JournalError;

/// After how many seconds a retry of a 503 makes sense.
const RETRY_AFTER_SECS: &str = "5";

/// An error on its way to the client.
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    guards: Vec<GuardHit>,
    operation: Option<OperationId>,
    extra: Option<(&'static str, Value)>,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Problem {
        Problem { status, detail: detail.into(), guards: Vec::new(), operation: None, extra: None, header: None }
    }

    /// Malformed, or a field that does not exist.
    pub fn malformed(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, detail)
    }

    /// Well-formed and not acceptable.
    pub fn unacceptable(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }

    pub fn not_found(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, detail)
    }

    pub fn unavailable(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    /// A member of the problem object beside the standard ones.
    pub fn with(mut self, name: &'static str, value: Value) -> Problem {
        self.extra = Some((name, value));
        self
    }

    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Problem {
        self.header = Some((name, value));
        self
    }

    pub fn into_answer(self) -> Answer {
        let mut body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if self.status == StatusCode::CONFLICT {
            body["guards"] = json!(self.guards);
            body["operation"] = json!(self.operation);
        }
        if let Some((name, value)) = self.extra {
            body[name] = value;
        }
        let mut answer = crate::http::typed(self.status, "application/problem+json", body.to_string());
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECS));
        }
        if let Some((name, value)) = self.header {
            answer.headers_mut().insert(name, value);
        }
        answer
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        let status = match refusal.kind {
            RefusalKind::Conflict => StatusCode::CONFLICT,
            RefusalKind::NotFound => StatusCode::NOT_FOUND,
            RefusalKind::Unacceptable => StatusCode::UNPROCESSABLE_ENTITY,
            RefusalKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        };
        let mut problem = Problem::new(status, refusal.detail);
        problem.guards = refusal.guards;
        problem.operation = refusal.operation;
        problem
    }
}

impl From<JournalError> for Problem {
    fn from(error: JournalError) -> Problem {
        Problem::unavailable(error.to_string())
    }
}
