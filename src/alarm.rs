//! An alarm clock: a tick at the beginning of each minute, so that a window opens on time and not only at the next check.
//! What is open is calculated anew at each tick; a tick that is lost or late only delays. In UTC, for the scheduler keeps
//! to the offset that a zone had when the job was made. IO.

use anyhow::Context;
use tokio::sync::mpsc::Sender;
use tokio_cron_scheduler::{Job, JobScheduler};

/// Seconds first.
const EACH_MINUTE: &str = "0 * * * * *";

/// Ticks until it is stopped.
pub struct Alarm(JobScheduler);

impl Alarm {
    /// Ticks for all of these from now on. Who has not taken the tick before gets none.
    ///
    /// # Errors
    /// When the scheduler does not start.
    pub async fn start(sleepers: Vec<Sender<()>>) -> anyhow::Result<Alarm> {
        let wake = move |_, _| {
            for sleeper in &sleepers {
                let _ = sleeper.try_send(()); // still awake, or gone
            }
        };
        let scheduler = JobScheduler::new().await.context("the scheduler of ticks")?;
        scheduler.add(Job::new(EACH_MINUTE, wake)?).await.context("the job of ticks")?;
        scheduler.start().await.context("the scheduler of ticks")?;
        Ok(Alarm(scheduler))
    }

    pub async fn stop(mut self) {
        if let Err(error) = self.0.shutdown().await {
            tracing::warn!(%error, "the scheduler of ticks could not be stopped");
        }
    }
}
