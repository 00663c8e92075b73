//! Where notifications about one pool arrive: state on disk, then shown, then answered. Never waits for the controller,
//! which reads what is shown. IO (the journal).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::json;
use tokio::sync::Notify;

use super::book::{Book, Changed, Heard};
use super::{Notification, Route};
use crate::model::{Alert, HistoryKind, PoolName, Timestamp};
use crate::record::{Entry, Journal, JournalError};
use crate::telemetry::Telemetry;

/// The name under which the journal has the alerts.
const SAVED: &str = "alerts";
/// Changes that one row of the audit trail lists; more are counted.
const MOST_LISTED: usize = 100;
/// Changes that its sentence names.
const MOST_NAMED: usize = 5;

/// The alerts of one pool.
pub struct Desk {
    pool: PoolName,
    journal: Arc<dyn Journal>,
    telemetry: Telemetry,
    kept: Mutex<Kept>,
    /// Held while the state is written: who waits for it finds, more often than not, that the other wrote his too.
    writing: tokio::sync::Mutex<()>,
    shown: ArcSwap<Vec<Alert>>,
    changed: Notify,
}

struct Kept {
    routes: Vec<Route>,
    book: Book,
    /// Counts changes; `written` is the one that is on disk.
    version: u64,
    written: u64,
    /// Changes that the audit trail does not have yet, with who told them.
    untold: Vec<(String, Changed)>,
}

impl Desk {
    /// The alerts as they were when they were last written. Where the entries are others by now, what that changes is
    /// shown once it is written down, which the next check does before it thinks.
    ///
    /// # Errors
    /// When the journal cannot be read, or what it has is not understood.
    pub async fn open(
        pool: PoolName,
        routes: Vec<Route>,
        journal: Arc<dyn Journal>,
        telemetry: Telemetry,
    ) -> Result<Desk, JournalError> {
        let book: Book = match journal.load(&pool, SAVED).await? {
            None => Book::default(),
            Some(saved) => serde_json::from_value(saved).map_err(|why| {
                JournalError::Unreadable(format!("the saved alerts of pool {pool} are not understood: {why}"))
            })?,
        };
        let shown = ArcSwap::from_pointee(book.alerts().cloned().collect());
        let mut kept = Kept { routes: Vec::new(), book, version: 0, written: 0, untold: Vec::new() };
        kept.route(&pool, routes);
        Ok(Desk {
            pool,
            journal,
            telemetry,
            shown,
            kept: Mutex::new(kept),
            writing: tokio::sync::Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// Takes in what a notification tells of this pool; gives the places of the alerts that matched an entry. When it
    /// returns, the state of these is on disk.
    ///
    /// # Errors
    /// When the journal cannot be written; the same notification may come again.
    pub async fn hear(
        self: &Arc<Self>,
        notification: &Notification,
        who: &str,
        now: Timestamp,
    ) -> Result<Vec<usize>, JournalError> {
        let mut matched = Vec::new();
        let mut full = 0;
        {
            let Kept { routes, book, version, untold, .. } = &mut *self.kept();
            book.make_room();
            for (at, told) in notification.alerts.iter().enumerate() {
                for route in routes.iter().filter(|route| route.is_for(&self.pool, &told.labels)) {
                    if matched.last() != Some(&at) {
                        matched.push(at);
                    }
                    match book.hear(&route.entry, told, now) {
                        Heard::Nothing => {}
                        Heard::Full => full += 1,
                        Heard::Noted => *version += 1,
                        Heard::Changed(changed) => {
                            *version += 1;
                            untold.push((who.into(), changed));
                        }
                    }
                }
            }
        }
        if full > 0 {
            self.telemetry.alerts_dropped(&self.pool, full);
        }
        if !matched.is_empty() {
            self.settle(now).await?;
        }
        Ok(matched)
    }

    /// Ends what was not heard of for too long; `expires` as [`Book::expire`] has it.
    ///
    /// # Errors
    /// When the journal cannot be written; it is tried again with the next change.
    pub async fn expire(
        self: &Arc<Self>,
        now: Timestamp,
        expires: impl Fn(&str) -> Option<Duration>,
    ) -> Result<(), JournalError> {
        {
            let mut kept = self.kept();
            let before = kept.book.count();
            let over = kept.book.expire(now, expires);
            if !over.is_empty() || kept.book.count() != before {
                kept.version += 1;
            }
            kept.untold.extend(over.into_iter().map(by_ourselves));
        }
        self.settle(now).await
    }

    /// Other entries from now on, also for the alerts that are known. One that no entry was for is not: it is heard of with
    /// the next notification.
    ///
    /// # Errors
    /// When the journal cannot be written; it is tried again with the next change or check.
    pub async fn route(self: &Arc<Self>, routes: Vec<Route>, now: Timestamp) -> Result<(), JournalError> {
        self.kept().route(&self.pool, routes);
        self.settle(now).await
    }

    /// The alerts as they are on disk.
    pub fn shown(&self) -> Arc<Vec<Alert>> {
        self.shown.load_full()
    }

    /// Resolves once [`Desk::shown`] has changed since the last time.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Writes what is not written yet. In a task of its own: a client that hangs up must not leave it half done.
    async fn settle(self: &Arc<Self>, now: Timestamp) -> Result<(), JournalError> {
        if self.kept().is_written() {
            return Ok(());
        }
        let written = tokio::spawn(self.clone().write(now)).await;
        written.unwrap_or_else(|gone| Err(JournalError::Unwritable(format!("the writing of alerts ended: {gone}"))))
    }

    async fn write(self: Arc<Self>, now: Timestamp) -> Result<(), JournalError> {
        let _turn = self.writing.lock().await;
        let (book, version, untold) = {
            let kept = self.kept();
            if kept.is_written() {
                return Ok(()); // by whoever had the turn before
            }
            (kept.book.clone(), kept.version, kept.untold.clone())
        };
        let entry = self.entry(&untold, now);
        let summary = entry.as_ref().map(|entry| entry.summary.clone());
        self.journal.save(&self.pool, SAVED, &json!(book), entry).await?;
        {
            let mut kept = self.kept();
            kept.written = version;
            kept.untold.drain(..untold.len());
        }
        self.shown.store(Arc::new(book.alerts().cloned().collect()));
        self.changed.notify_one();
        if let Some(summary) = summary {
            self.telemetry.alerts_changed(&self.pool, &summary);
        }
        Ok(())
    }

    /// The row of the audit trail for these changes.
    fn entry(&self, untold: &[(String, Changed)], now: Timestamp) -> Option<Entry> {
        let mut who: Vec<&str> = untold.iter().map(|(who, _)| who.as_str()).collect();
        who.sort_unstable();
        who.dedup();
        let listed: Vec<&Changed> = untold.iter().take(MOST_LISTED).map(|(_, changed)| changed).collect();
        (!untold.is_empty()).then(|| Entry {
            at: now,
            pool: self.pool.clone(),
            kind: HistoryKind::Alert,
            who: who.join(", "),
            summary: summary(untold),
            detail: json!({"changes": listed, "count": untold.len()}),
        })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn is_written(&self) -> bool {
        self.version == self.written
    }

    fn route(&mut self, pool: &PoolName, routes: Vec<Route>) {
        let before = self.book.clone();
        let changes = self.book.rebook(pool, &routes);
        self.routes = routes;
        self.untold.extend(changes.into_iter().map(by_ourselves));
        if self.book != before {
            self.version += 1;
        }
    }
}

fn by_ourselves(changed: Changed) -> (String, Changed) {
    ("vecscale".into(), changed)
}

/// "slow-search firing (VectorSearchSlow ca2c83f1abddcc93); and 3 more".
fn summary(untold: &[(String, Changed)]) -> String {
    let named = untold.iter().take(MOST_NAMED).map(|(_, Changed { change, alert })| {
        format!("{} {} ({} {})", alert.entry, change.as_str(), alert.alertname, alert.fingerprint)
    });
    let named: Vec<String> = named.collect();
    match untold.len().saturating_sub(MOST_NAMED) {
        0 => named.join("; "),
        more => format!("{}; and {more} more", named.join("; ")),
    }
}
