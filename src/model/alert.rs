//! What Alertmanager last said of one alert, kept as a state: it fires, or it does not. Pure data.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// What a firing alert asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertAction {
    ScaleUp,
    ScaleDown,
    /// Nothing automatic is begun while it fires; replacing goes on.
    Hold,
    /// Only shown and recorded.
    None,
}

impl AlertAction {
    pub const ALL: [AlertAction; 4] =
        [AlertAction::ScaleUp, AlertAction::ScaleDown, AlertAction::Hold, AlertAction::None];

    pub fn as_str(self) -> &'static str {
        match self {
            AlertAction::ScaleUp => "scale_up",
            AlertAction::ScaleDown => "scale_down",
            AlertAction::Hold => "hold",
            AlertAction::None => "none",
        }
    }
}

/// One of Alertmanager's alerts, under the entry of the configuration that it matches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// Name of the entry under `alerts`.
    pub entry: Arc<str>,
    /// Alertmanager's own: the same for the same labels, from every peer.
    pub fingerprint: Arc<str>,
    /// The label `alertname`, shortened; for people.
    pub alertname: Arc<str>,
    /// Latest start that any notification told. With the fingerprint it names one firing: an episode.
    pub starts_at: Timestamp,
    /// Latest end that any notification told, unless it fires again since. An alert fires while its start is later than this.
    pub ends_at: Option<Timestamp>,
    /// First notification of this episode.
    pub first_heard: Timestamp,
    /// Last notification about this episode, to within ten seconds.
    pub last_heard: Timestamp,
    /// Nobody has said for too long that it still fires.
    pub expired: bool,
}

impl Alert {
    pub fn is_firing(&self) -> bool {
        !self.expired && self.ends_at.is_none_or(|end| self.starts_at > end)
    }

    /// Since when it fires by our own clock: a start that lies in the future counts from when it was heard.
    pub fn since(&self) -> Timestamp {
        self.starts_at.min(self.first_heard)
    }
}

/// An entry of the configuration as it stands now; shown as `alerts`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlertStanding {
    pub name: Arc<str>,
    pub action: AlertAction,
    /// Nodes that a scale-up adds.
    pub nodes: u32,
    /// Whether it asks again after the cooldown, as long as it fires.
    pub repeat: bool,
    #[serde(with = "super::time::seconds")]
    pub expires: Duration,
    /// How many alerts of this entry fire.
    pub firing: u32,
    /// The longest-firing ones, twenty at most.
    pub episodes: Vec<Episode>,
}

/// One firing alert.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Episode {
    pub alertname: Arc<str>,
    pub fingerprint: Arc<str>,
    pub starts_at: Timestamp,
    pub first_heard: Timestamp,
    pub last_heard: Timestamp,
    /// When it counts as over unless it is heard of again.
    pub expires_at: Timestamp,
    /// What it does now, or why nothing: "asks for scale_up", "answered by decision 17 …".
    pub standing: String,
}

/// Why a notification was not taken; a closed label set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    ContentType,
    TooLarge,
    /// The body came too slowly, or broke off.
    Incomplete,
    NotJson,
    Version,
    Malformed,
    TooManyAlerts,
    /// The journal could not be written: a retry makes sense.
    Unavailable,
}

impl Rejection {
    pub const ALL: [Rejection; 8] = [
        Rejection::ContentType,
        Rejection::TooLarge,
        Rejection::Incomplete,
        Rejection::NotJson,
        Rejection::Version,
        Rejection::Malformed,
        Rejection::TooManyAlerts,
        Rejection::Unavailable,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Rejection::ContentType => "content_type",
            Rejection::TooLarge => "too_large",
            Rejection::Incomplete => "incomplete",
            Rejection::NotJson => "not_json",
            Rejection::Version => "version",
            Rejection::Malformed => "malformed",
            Rejection::TooManyAlerts => "too_many_alerts",
            Rejection::Unavailable => "unavailable",
        }
    }
}
