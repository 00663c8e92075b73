//! The only reader of the wall clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::model::Timestamp;

/// Gives the present instant.
pub trait Clock: Send + Sync {
    fn now(&self) -> Timestamp;
}

/// The machine's wall clock.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Timestamp::from_millis(since.as_millis() as i64)
    }
}

/// A clock that starts at an instant and advances with tokio's time, so that paused time pauses it too.
#[cfg(test)]
pub struct TokioClock {
    start: Timestamp,
    began: tokio::time::Instant,
}

#[cfg(test)]
impl TokioClock {
    pub fn starting_at(start: Timestamp) -> std::sync::Arc<TokioClock> {
        std::sync::Arc::new(TokioClock { start, began: tokio::time::Instant::now() })
    }
}

#[cfg(test)]
impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        self.start.plus(self.began.elapsed())
    }
}
