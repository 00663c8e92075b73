//! What an answer of Qdrant means: a value that was read, a change that was taken up, refused, or left in doubt. Pure.
//!
//! | answer to a change | means |
//! |---|---|
//! | 200 | taken up; whether it is done shows in the cluster only |
//! | 400, 409, 422, 429 | refused, with its reason |
//! | 401, 403 | refused: the key may not do that |
//! | 404 | what was named is not there |
//! | 405 | refused: the node runs alone, not in a cluster |
//! | 500 "leader is not established" | refused: nothing was proposed |
//! | any other 5xx, 408, 3xx, no answer | unknown: it may still be applied, minutes later too |
//! | no connection | nothing was sent |

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::api::{Answer, ApiError};
use crate::operate::drivers::Effect;

/// How much of what Qdrant said goes into an error.
const QUOTED_CHARS: usize = 300;

/// A read that gave no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTold {
    /// Nobody is there.
    #[error("{0}")]
    Closed(String),
    /// Somebody may be there, and does not answer in time.
    #[error("{0}")]
    Hung(String),
    #[error("HTTP {status}: {words}")]
    Refused { status: u16, words: String },
    #[error("its answer cannot be read: {0}")]
    Unreadable(String),
}

/// How a change was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    Accepted,
    Refused(String),
    /// What was to be changed is not there.
    Missing(String),
    Unknown(String),
}

impl Changed {
    /// For a change whose subject must be there.
    pub fn effect(self) -> Effect<()> {
        match self {
            Changed::Accepted => Effect::Done(()),
            Changed::Refused(why) | Changed::Missing(why) => Effect::NoEffect(why),
            Changed::Unknown(why) => Effect::Unknown(why),
        }
    }
}

/// The value in Qdrant's envelope, `{"result": …}`.
///
/// # Errors
/// When there is none; that is never the same as an empty one.
pub fn result<T: DeserializeOwned>(answer: Result<Answer, ApiError>) -> Result<T, NotTold> {
    #[derive(Deserialize)]
    struct Envelope<T> {
        result: T,
    }
    plain::<Envelope<T>>(answer).map(|envelope| envelope.result)
}

/// A value that comes without an envelope.
///
/// # Errors
/// When there is none.
pub fn plain<T: DeserializeOwned>(answer: Result<Answer, ApiError>) -> Result<T, NotTold> {
    let body = ok(answer)?.body;
    serde_json::from_str(&body).map_err(|error| NotTold::Unreadable(shortened(&error.to_string())))
}

/// An answer that says that all is well.
///
/// # Errors
/// With what else it says.
pub fn ok(answer: Result<Answer, ApiError>) -> Result<Answer, NotTold> {
    match answer {
        Ok(answer) if answer.status == 200 => Ok(answer),
        Ok(answer) => Err(NotTold::Refused { status: answer.status, words: said(&answer) }),
        Err(error @ ApiError::NotSent(_)) => Err(NotTold::Closed(error.to_string())),
        Err(error @ ApiError::Lost(_)) => Err(NotTold::Hung(error.to_string())),
    }
}

/// What became of a change.
pub fn changed(answer: Result<Answer, ApiError>) -> Changed {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error @ ApiError::NotSent(_)) => return Changed::Refused(error.to_string()),
        Err(error @ ApiError::Lost(_)) => return Changed::Unknown(error.to_string()),
    };
    let words = said(&answer);
    match answer.status {
        200 => Changed::Accepted,
        404 => Changed::Missing(words),
        405 => Changed::Refused(format!("{words}: start every node with QDRANT__CLUSTER__ENABLED=true")),
        408 => Changed::Unknown(words),
        400..=499 => Changed::Refused(words),
        500 if words.contains("leader is not established") => Changed::Refused(words),
        status => Changed::Unknown(format!("HTTP {status}: {words}")),
    }
}

/// Qdrant's own words, fit for one line.
fn said(answer: &Answer) -> String {
    #[derive(Deserialize)]
    struct Failed {
        status: Status,
    }
    #[derive(Deserialize)]
    struct Status {
        error: String,
    }
    let words = serde_json::from_str::<Failed>(&answer.body).map_or(answer.body.clone(), |failed| failed.status.error);
    let words = shortened(&words);
    match answer.status {
        401 => format!("{words} (`datastore.api_key_file` names the file with the key)"),
        403 => format!("{words} (a read-only key is enough to observe, not to change anything)"),
        _ => words,
    }
}

fn shortened(text: &str) -> String {
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(QUOTED_CHARS).collect()
}
