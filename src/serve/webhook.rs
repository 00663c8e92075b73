//! Alertmanager's webhook, payload version 4: each alert goes to the pools that it matches, and the answer is sent once
//! they have it on disk. No controller is asked.
//!
//! Alertmanager gives up a notification at any 4xx until its group changes, and tries again after 503.

use http::StatusCode;
use serde_json::json;

use super::Server;
use super::input::{Query, check_json};
use super::layers::Call;
use super::problem::Problem;
use crate::alerts::Notification;
use crate::http::{Answer, BodyError, json as json_answer};
use crate::model::Rejection;
use crate::record::JournalError;

impl Server {
    pub(super) async fn alertmanager(&self, call: &Call) -> Result<Answer, Problem> {
        let rejected = |reason: Rejection, problem: Problem| {
            self.telemetry.alerts_rejected(reason, problem.detail());
            problem
        };
        Query::read(call.head.uri.query(), &[]).map_err(|why| rejected(Rejection::Malformed, why))?;
        check_json(&call.head.headers).map_err(|why| rejected(Rejection::ContentType, why))?;
        let notification = Notification::read(&call.body)
            .map_err(|why| rejected(why.rejection(), Problem::malformed(why.to_string())))?;
        let unmatched = self.hear(&notification, &call.who()).await.map_err(|error| {
            self.telemetry.journal_error(&error);
            rejected(Rejection::Unavailable, Problem::from(error))
        })?;
        let alerts = &notification.alerts;
        let resolved = alerts.iter().filter(|told| told.ends_at.is_some()).count() as u64;
        let counts = [alerts.len() as u64 - resolved, resolved, unmatched, notification.truncated];
        self.telemetry.alerts_received(&notification.receiver, counts, self.clock.now());
        Ok(json_answer(StatusCode::OK, &json!({"received": alerts.len(), "unmatched": unmatched})))
    }

    /// Gives how many of the alerts belong to no pool.
    async fn hear(&self, notification: &Notification, who: &str) -> Result<u64, JournalError> {
        let now = self.clock.now();
        let mut matched = vec![false; notification.alerts.len()];
        for pool in self.pools.values() {
            for at in pool.alerts.hear(notification, who, now).await? {
                matched[at] = true;
            }
        }
        Ok(matched.into_iter().filter(|matched| !matched).count() as u64)
    }

    /// A notification whose body did not come whole.
    pub(super) fn unread_notification(&self, error: BodyError) {
        let reason = match error {
            BodyError::TooLarge(_) => Rejection::TooLarge,
            BodyError::TooSlow | BodyError::Broken => Rejection::Incomplete,
        };
        self.telemetry.alerts_rejected(reason, &error.to_string());
    }
}
