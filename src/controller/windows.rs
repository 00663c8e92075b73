//! Scheduled windows: what they say now, and the audit trail of their opening and closing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::json;

use crate::decide;
use crate::decide::policy::StepSize;
use crate::model::{HistoryKind, ScalingThresholds, Timestamp};
use crate::record::JournalError;
use crate::schedule::{Ahead, Overlay, Standing};

use super::{Controller, OURSELVES};

/// The name under which the journal has the windows that are open, as last told.
const OPEN_WINDOWS: &str = "open_windows";

/// Open windows as told in the audit trail, by name, with what they ask for.
pub(super) type Told = BTreeMap<String, String>;

impl Controller {
    /// The thresholds that hold now, windows included, and what windows ask for besides.
    pub(super) fn overlay(&self) -> Overlay {
        self.windows.over(self.settings.effective())
    }

    /// What the windows say at an instant, from now on. True when one has opened or closed, or its floor begins to hold.
    pub(super) async fn watch_windows(&mut self, at: Timestamp) -> bool {
        let next = Standing::at(&self.config.schedules, at, &self.ahead(), &self.windows);
        let changed = next.has_changed(&self.windows);
        self.windows = next;
        if let Err(error) = self.tell_windows(at).await {
            self.telemetry.journal_error(&error); // told at the next tick
        }
        changed
    }

    /// A window has changed between two checks: the last look is thought through again, so that a window opens on time. No
    /// streak grows by that. Where the last look does not show the pool as it is, the next one is soon enough.
    pub(super) async fn think_again(&mut self) {
        let shows_the_pool = self.looking.is_none() && self.is_current() && self.reconciled;
        if shows_the_pool && let Err(error) = self.turn(None).await {
            self.telemetry.journal_error(&error);
        }
        self.show();
    }

    /// What was told of open windows before the start.
    pub(super) async fn recall_windows(&mut self) -> Result<(), JournalError> {
        let told: Option<Told> = super::remember::load(self.journal.as_ref(), &self.config, OPEN_WINDOWS).await?;
        self.windows_told = told.unwrap_or_default();
        let now = self.eyes.clock.now();
        self.windows = Standing::at(&self.config.schedules, now, &self.ahead(), &Standing::default());
        Ok(())
    }

    /// One row for each window that has opened, changed or closed since the last row about it, restarts included.
    async fn tell_windows(&mut self, at: Timestamp) -> Result<(), JournalError> {
        let open = self.windows.open();
        let opened = open.iter().filter(|(name, asks)| self.windows_told.get(*name) != Some(asks));
        let opened = opened.map(|(name, asks)| (name.clone(), Some(asks.clone())));
        let closed = self.windows_told.keys().filter(|name| !open.contains_key(*name)).map(|name| (name.clone(), None));
        for (name, asks) in closed.chain(opened).collect::<Vec<_>>() {
            let summary = match &asks {
                Some(asks) => format!("window {name} is open: {asks}"),
                None => format!("window {name} is closed"),
            };
            let mut told = self.windows_told.clone();
            match asks {
                Some(asks) => told.insert(name, asks),
                None => told.remove(&name),
            };
            let entry = self.entry(at, HistoryKind::Setting, OURSELVES, &summary, &json!({"open": told}));
            self.journal.save(&self.pool, OPEN_WINDOWS, &json!(told), Some(entry)).await?;
            self.telemetry.setting_changed(&self.pool, OURSELVES, &summary);
            self.windows_told = told;
        }
        Ok(())
    }

    fn ahead(&self) -> Ahead {
        let ScalingThresholds { scale_up_cooldown, min_nodes, .. } = self.settings.effective();
        let scale_up = self.config.policy.scale_up;
        Ahead {
            lead: decide::lead_time(&self.experience.lead_times, self.eyes.provider.timeout()),
            cooldown: Duration::try_from_secs_f64(scale_up_cooldown).unwrap_or_default(),
            step: if scale_up.step == StepSize::One { 1 } else { scale_up.max_step },
            least: min_nodes,
        }
    }

    /// Names of the thresholds that people have set.
    pub(super) fn overridden(&self) -> BTreeSet<String> {
        self.settings.overrides().iter().map(|change| change.name.clone()).collect()
    }
}
