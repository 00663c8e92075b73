//! The body of a webhook, payload version 4 -> what it tells of each alert, or why it is not taken. Pure.
//!
//! Each alert's own status counts: that of the group is "firing" as long as any of them is. Fields that are not known are
//! passed over.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::model::{Rejection, Timestamp};

/// Alerts in one notification.
pub const MOST_ALERTS: usize = 10_000;

/// What one notification tells.
#[derive(Clone, Debug, PartialEq)]
pub struct Notification {
    /// Name of the receiver in Alertmanager's configuration; for people.
    pub receiver: String,
    pub alerts: Vec<Told>,
    /// Alerts that Alertmanager left out (`max_alerts`): nothing is known of them.
    pub truncated: u64,
}

/// What is told of one alert.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// As Alertmanager makes it of the labels: up to 64 characters of `[0-9A-Za-z._-]`.
    pub fingerprint: String,
    pub labels: BTreeMap<String, String>,
    pub starts_at: Timestamp,
    /// `None` while it fires.
    pub ends_at: Option<Timestamp>,
}

/// Why a notification is not taken; none of these is mended by sending it again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the body is no JSON object: {0}")]
    NotJson(String),
    #[error(
        "/version: {0} where \"4\" is needed: this is not Alertmanager's own payload; leave `payload` out of its webhook_config"
    )]
    Version(String),
    #[error("{0}")]
    Malformed(String),
    #[error("/alerts: {0} alerts, at most {MOST_ALERTS} are taken; set `max_alerts` or group them differently")]
    TooMany(usize),
}

impl Refused {
    pub fn rejection(&self) -> Rejection {
        match self {
            Refused::NotJson(_) => Rejection::NotJson,
            Refused::Version(_) => Rejection::Version,
            Refused::Malformed(_) => Rejection::Malformed,
            Refused::TooMany(_) => Rejection::TooManyAlerts,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    #[serde(default)]
    receiver: String,
    #[serde(default)]
    truncated_alerts: u64,
    alerts: Vec<Alert>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Alert {
    status: Status,
    labels: BTreeMap<String, String>,
    starts_at: Timestamp,
    ends_at: Option<Timestamp>,
    fingerprint: String,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Status {
    Firing,
    Resolved,
}

/// Read before the rest: of another version nothing else is known.
#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    version: Value,
}

impl Notification {
    /// Reads a body.
    ///
    /// # Errors
    /// When it is not a notification of payload version 4 as Alertmanager sends it.
    pub fn read(body: &[u8]) -> Result<Notification, Refused> {
        let head: Head = serde_json::from_slice(body).map_err(|why| Refused::NotJson(words(&why)))?;
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err(Refused::NotJson("it is a list".into()));
        }
        if head.version != "4" {
            let shown: String = head.version.to_string().chars().take(40).collect();
            return Err(Refused::Version(if head.version.is_null() { "nothing".into() } else { shown }));
        }
        let payload: Payload = serde_json::from_slice(body).map_err(|why| Refused::Malformed(words(&why)))?;
        if payload.alerts.len() > MOST_ALERTS {
            return Err(Refused::TooMany(payload.alerts.len()));
        }
        let alerts = payload.alerts.into_iter().enumerate().map(|(at, alert)| told(at, alert));
        Ok(Notification {
            receiver: payload.receiver,
            alerts: alerts.collect::<Result<_, _>>()?,
            truncated: payload.truncated_alerts,
        })
    }
}

/// At most 200 characters, for the reader quotes what it was sent.
fn words(why: &serde_json::Error) -> String {
    why.to_string().chars().take(200).collect()
}

fn told(at: usize, alert: Alert) -> Result<Told, Refused> {
    let Alert { status, labels, starts_at, ends_at, fingerprint } = alert;
    if !crate::model::is_name(&fingerprint) {
        let what = "it is not one that Alertmanager makes, such as \"60a04d042dd3605c\"";
        return Err(Refused::Malformed(format!("/alerts/{at}/fingerprint: {what}")));
    }
    // A firing alert has the year 1 as its end. What has ended has ended no earlier than it began.
    let ends_at = (status == Status::Resolved).then(|| ends_at.map_or(starts_at, |end| end.max(starts_at)));
    Ok(Told { fingerprint, labels, starts_at, ends_at })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn alert() -> Value {
        json!({"status": "firing", "labels": {"alertname": "A"}, "annotations": {}, "startsAt": "2026-11-23T17:35:43.291Z",
            "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "", "fingerprint": "ca2c83f1abddcc93"})
    }

    fn payload(alerts: Value) -> Value {
        json!({"version": "4", "receiver": "scaler", "status": "firing", "alerts": alerts, "truncatedAlerts": 0})
    }

    /// The payload with another value at a place; `null` removes what is there.
    fn with(place: &str, value: Value) -> String {
        let mut body = payload(json!([alert()]));
        let (parent, key) = place.rsplit_once('/').expect("a pointer");
        let object = body.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object");
        if value.is_null() {
            object.remove(key)
        } else {
            object.insert(key.into(), value)
        };
        body.to_string()
    }

    #[test]
    fn malformed_ones_are_refused_with_a_reason() {
        let cases = [
            ("", "no JSON object: EOF"),
            ("nonsense", "no JSON object: expected"),
            ("[]", "no JSON object"),
            (r#"["4"]"#, "no JSON object: it is a list"),
            ("null", "no JSON object"),
            ("{\"version\": \"4\"", "no JSON object: EOF"),
            (r#"{"version": "4", "alerts": []} x"#, "no JSON object: trailing"),
            (r#"{"version": "4", "version": "4"}"#, "duplicate field `version`"),
            ("\u{feff}{}", "no JSON object"),
            ("{}", "/version: nothing where"),
            (r#"{"action": "up", "count": 2}"#, "leave `payload` out"),
            (&with("/version", json!("3")), "/version: \"3\" where"),
            (&with("/version", json!(4)), "/version: 4 where"),
            (&with("/version", json!("x".repeat(10_000))), "where \"4\" is needed"),
            (&with("/alerts", Value::Null), "missing field `alerts`"),
            (&with("/alerts", json!({})), "invalid type: map"),
            (&with("/alerts/0/status", Value::Null), "missing field `status`"),
            (&with("/alerts/0/status", json!("pending")), "unknown variant `pending`"),
            (&with("/alerts/0/labels", Value::Null), "missing field `labels`"),
            (&with("/alerts/0/labels/alertname", json!(1)), "invalid type: integer"),
            (&with("/alerts/0/startsAt", Value::Null), "missing field `startsAt`"),
            (&with("/alerts/0/startsAt", json!("yesterday")), "not an RFC 3339 time: yesterday"),
            (&with("/alerts/0/startsAt", json!(1764000000)), "invalid type: integer"),
            (&with("/alerts/0/startsAt", json!("x".repeat(10_000))), "not an RFC 3339 time: xxx"),
            (&with("/alerts/0/endsAt", json!("soon")), "not an RFC 3339 time: soon"),
            (&with("/alerts/0/fingerprint", Value::Null), "missing field `fingerprint`"),
            (&with("/alerts/0/fingerprint", json!("")), "/alerts/0/fingerprint: it is not one"),
            (&with("/alerts/0/fingerprint", json!("../../etc")), "/alerts/0/fingerprint: it is not one"),
            (&with("/truncatedAlerts", json!(-1)), "invalid value: integer `-1`"),
        ];
        for (body, says) in cases {
            let refused = Notification::read(body.as_bytes()).expect_err(body).to_string();
            assert!(refused.contains(says), "{body}: {refused}");
            assert!(refused.len() < 300, "{refused}");
        }
        let many = payload(Value::Array(vec![alert(); MOST_ALERTS + 1])).to_string();
        assert_eq!(Notification::read(many.as_bytes()), Err(Refused::TooMany(MOST_ALERTS + 1)));
        assert!(matches!(Notification::read(b"{\"version\": \"\xff\"}"), Err(Refused::NotJson(_))));
        let deep = format!("{{\"version\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(matches!(Notification::read(deep.as_bytes()), Err(Refused::NotJson(_))));
    }

    #[test]
    fn what_is_left_out_or_added_does_no_harm() {
        for body in [
            with("/receiver", Value::Null),
            with("/truncatedAlerts", Value::Null),
            with("/status", Value::Null),
            with("/alerts/0/endsAt", Value::Null),
            with("/alerts/0/annotations", Value::Null),
            with("/notification_reason", json!("first notification")),
            with("/alerts/0/new", json!({"deep": [1, 2]})),
        ] {
            let read = Notification::read(body.as_bytes()).unwrap_or_else(|why| panic!("{body}: {why}"));
            assert_eq!((read.alerts.len(), read.alerts[0].ends_at), (1, None), "{body}");
        }
        assert_eq!(Notification::read(payload(json!([])).to_string().as_bytes()).map(|n| n.alerts), Ok(vec![]));
    }

    #[test]
    fn times_with_any_fraction_and_zone() {
        for (text, millis) in [
            ("2026-11-23T17:35:43Z", 1_795_455_343_000),
            ("2026-11-23T17:35:43.291Z", 1_795_455_343_291),
            ("2026-11-23T17:35:43.291555444Z", 1_795_455_343_291),
            ("2026-11-23T18:35:43.2+01:00", 1_795_455_343_200),
        ] {
            let read = Notification::read(with("/alerts/0/startsAt", json!(text)).as_bytes()).expect(text);
            assert_eq!(read.alerts[0].starts_at, Timestamp::from_millis(millis), "{text}");
        }
    }

    #[test]
    fn an_end_before_the_start_is_the_start() {
        let mut one = alert();
        (one["status"], one["endsAt"]) = (json!("resolved"), json!("0001-01-01T00:00:00Z"));
        let read = Notification::read(payload(json!([one])).to_string().as_bytes()).expect("a notification");
        assert_eq!(read.alerts[0].ends_at, Some(read.alerts[0].starts_at));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) {
            let _ = Notification::read(&bytes);
        }

        /// Real payloads with some bytes exchanged.
        #[test]
        fn nor_do_damaged_ones(at in 0usize..2_000, byte: u8, cut in 0usize..2_000) {
            let mut bytes = include_bytes!("../../tests/fixtures/alertmanager/0.33.1-utf8-labels.json").to_vec();
            let length = bytes.len();
            bytes[at % length] = byte;
            let _ = Notification::read(&bytes);
            bytes.truncate(cut);
            let _ = Notification::read(&bytes);
        }
    }
}
