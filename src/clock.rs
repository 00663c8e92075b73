//! The only reader of the wall clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
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

/// A clock that starts at an instant and advances with tokio's time, so that paused time pauses it too. Like any wall
/// clock it can be set.
pub struct TokioClock {
    start: Timestamp,
    began: tokio::time::Instant,
    /// Milliseconds by which it was set forwards, backwards when negative.
    set_by: AtomicI64,
}

impl TokioClock {
    pub fn starting_at(start: Timestamp) -> Arc<TokioClock> {
        Arc::new(TokioClock { start, began: tokio::time::Instant::now(), set_by: AtomicI64::new(0) })
    }

    /// Sets it forwards by so many milliseconds, backwards when negative; waiting goes on as if nothing had happened.
    pub fn set_by(&self, millis: i64) {
        self.set_by.fetch_add(millis, Ordering::Relaxed);
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        let by_itself = self.start.plus(self.began.elapsed());
        Timestamp::from_millis(by_itself.millis() + self.set_by.load(Ordering::Relaxed))
    }
}
