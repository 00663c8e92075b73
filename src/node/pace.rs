//! The node's share of CPU: measured against `--cpu.cores` and enforced by waiting. Reads CPU clocks.
//!
//! Searches, writes and copies take turns; a turn comes when the CPU seconds used so far are paid for by the wall
//! time that has passed. What cannot wait (answering `/health`) is used up front and paid by the next turn.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// What may be saved up while idle, and how far back `usage` looks.
const BURST: Duration = Duration::from_millis(100);
const WINDOW: Duration = Duration::from_secs(2);
/// Turns waited for at once; more are refused.
const LINE: usize = 256;

/// Whose CPU time counts.
pub enum Meter {
    /// The whole process: a node is a process of its own.
    Process,
    /// Only work done in [`Pace::work`]: several nodes share a process, in tests.
    Work(AtomicU64),
}

pub struct Pace {
    cores: f64,
    meter: Meter,
    account: Mutex<Account>,
    /// First come, first served.
    line: tokio::sync::Mutex<()>,
    places: Semaphore,
    past: Mutex<VecDeque<(Instant, Duration)>>,
}

struct Account {
    at: Instant,
    used: Duration,
    /// CPU seconds in hand; negative when used up front.
    balance: f64,
}

/// Too much work is waiting already.
#[derive(Debug)]
pub struct Overloaded;

impl Pace {
    /// `cores` is the share of CPU cores, above 0.
    pub fn new(cores: f64, meter: Meter) -> Pace {
        let used = total(&meter);
        let account = Account { at: Instant::now(), used, balance: cores * BURST.as_secs_f64() };
        let past = VecDeque::from([(account.at, used)]);
        Pace {
            cores,
            meter,
            account: Mutex::new(account),
            line: tokio::sync::Mutex::new(()),
            places: Semaphore::new(LINE),
            past: Mutex::new(past),
        }
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// At once, when too many wait.
    pub async fn turn(&self) -> Result<(), Overloaded> {
        let _place = self.places.try_acquire().map_err(|_| Overloaded)?;
        let _first = self.line.lock().await;
        loop {
            let debt = self.debt();
            if debt <= 0.0 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_secs_f64((debt / self.cores).clamp(0.001, 0.25))).await;
        }
    }

    /// Does a piece of work, some milliseconds long, on the node's account.
    pub fn work<T>(&self, work: impl FnOnce() -> T) -> T {
        let Meter::Work(nanos) = &self.meter else { return work() };
        let before = cpu(ClockId::ThreadCPUTime);
        let done = work();
        nanos.fetch_add((cpu(ClockId::ThreadCPUTime) - before).as_nanos() as u64, Ordering::Relaxed);
        done
    }

    /// CPU seconds that are not yet paid for.
    fn debt(&self) -> f64 {
        let mut account = self.account.lock().expect("no panic while counting");
        let (now, used) = (Instant::now(), total(&self.meter));
        let earned = self.cores * (now - account.at).as_secs_f64();
        let spent = used.saturating_sub(account.used).as_secs_f64();
        let most = self.cores * BURST.as_secs_f64();
        *account = Account { at: now, used, balance: (account.balance + earned - spent).min(most) };
        -account.balance
    }

    /// CPU time over wall time and cores, over the last two seconds: 0..=1.
    pub fn usage(&self) -> f64 {
        let (now, used) = (Instant::now(), total(&self.meter));
        let past = self.past.lock().expect("no panic while counting");
        let (at, before) = past.front().copied().unwrap_or((now, used));
        let wall = (now - at).as_secs_f64();
        if wall <= 0.0 {
            return 0.0;
        }
        // What was used up front may briefly be more than the share: that is as full as it gets.
        (used.saturating_sub(before).as_secs_f64() / (wall * self.cores)).min(1.0)
    }

    /// Notes where the CPU clock stands, four times a second, for [`Pace::usage`].
    pub async fn watch(&self) {
        loop {
            tokio::time::sleep(WINDOW / 8).await;
            let now = Instant::now();
            let mut past = self.past.lock().expect("no panic while counting");
            past.push_back((now, total(&self.meter)));
            while past.len() > 1 && now - past[0].0 > WINDOW {
                past.pop_front();
            }
        }
    }
}

fn total(meter: &Meter) -> Duration {
    match meter {
        Meter::Process => cpu(ClockId::ProcessCPUTime),
        Meter::Work(nanos) => Duration::from_nanos(nanos.load(Ordering::Relaxed)),
    }
}

fn cpu(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_busy_node_gets_its_share_and_no_more() {
        let pace = Pace::new(0.2, Meter::Work(AtomicU64::new(0)));
        let began = Instant::now();
        let mut turns = 0;
        while began.elapsed() < Duration::from_millis(600) {
            pace.turn().await.unwrap();
            pace.work(|| {
                let until = cpu(ClockId::ThreadCPUTime) + Duration::from_millis(2);
                while cpu(ClockId::ThreadCPUTime) < until {
                    std::hint::spin_loop();
                }
            });
            turns += 1;
        }
        let share = total(&pace.meter).as_secs_f64() / began.elapsed().as_secs_f64();
        // The burst of the beginning is 0.02 s of 0.6 s.
        assert!((0.05..0.27).contains(&share), "{share} cores in {turns} turns");
        assert!(pace.usage() > 0.3, "usage {}", pace.usage());
    }

    #[tokio::test]
    async fn a_long_line_refuses() {
        let pace = Pace::new(0.001, Meter::Work(AtomicU64::new(u64::MAX / 4)));
        pace.account.lock().unwrap().balance = -1e6;
        let mut waiting: Vec<_> = (0..LINE).map(|_| Box::pin(pace.turn())).collect();
        for turn in &mut waiting {
            assert!(futures::poll!(turn).is_pending());
        }
        assert!(pace.turn().await.is_err());
    }
}
