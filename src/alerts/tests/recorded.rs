//! Every recorded request of three versions of Alertmanager, byte by byte.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::alerts::{Book, Change, Heard, Matchers, Notification, Refused};
use crate::model::Timestamp;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/alertmanager");

/// Scenario, versions that have it, and what it tells: fingerprints that fire, that are resolved, and how many are left out.
type Scenario = (&'static str, &'static [&'static str], &'static [&'static str], &'static [&'static str], u64);

const ALL: &[&str] = &["0.25.0", "0.28.1", "0.33.1"];
const NEWEST: &[&str] = &["0.33.1"];

const LATENCY: &str = "ca2c83f1abddcc93";
const STORAGE: &str = "a84ae9ffb359d790";
const CPU_1: &str = "60a04d042dd3605c";
const CPU_2: &str = "e196ef7b9b8222a3";
const SKEW: &str = "c590b1b779668b8c";
const MANUAL: &str = "1889cc69f16a9134";

const SCENARIOS: &[Scenario] = &[
    ("firing-single", ALL, &[STORAGE], &[], 0),
    ("firing-grouped", ALL, &[CPU_1, CPU_2], &[], 0),
    ("repeat", ALL, &[CPU_1, CPU_2], &[], 0),
    ("partly-resolved", ALL, &[CPU_1], &[CPU_2], 0),
    ("resolved", ALL, &[], &[CPU_1], 0),
    ("mixed-group", &["0.25.0"], &[LATENCY, STORAGE, CPU_1, CPU_2], &[], 0),
    ("mixed-group", &["0.28.1"], &[SKEW, STORAGE, CPU_1, CPU_2], &[], 0),
    ("mixed-group", NEWEST, &[SKEW, LATENCY, STORAGE, CPU_1, CPU_2, MANUAL], &[], 0),
    ("truncated", ALL, &[LATENCY], &[], 2),
    ("ungrouped", &["0.25.0", "0.33.1"], &[CPU_2], &[], 0),
    ("ungrouped", &["0.28.1"], &[CPU_1], &[], 0),
    ("basic-auth", ALL, &[STORAGE], &[], 0),
    ("bearer", ALL, &[STORAGE], &[], 0),
    ("new-alerts-added", NEWEST, &[SKEW, LATENCY, STORAGE, CPU_1, CPU_2, MANUAL], &[], 0),
    ("utf8-labels", NEWEST, &[SKEW], &[], 0),
    ("manual-amtool", NEWEST, &[MANUAL], &[], 0),
    ("manual-amtool-resolved", NEWEST, &[], &[MANUAL], 0),
];

fn body(name: &str) -> Vec<u8> {
    let path = Path::new(FOLDER).join(name);
    std::fs::read(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

fn read(name: &str) -> Notification {
    Notification::read(&body(name)).unwrap_or_else(|why| panic!("{name}: {why}"))
}

#[test]
fn every_recorded_payload_is_read_for_what_it_says() {
    let mut left: BTreeSet<PathBuf> =
        std::fs::read_dir(FOLDER).expect("the fixtures").map(|entry| entry.expect("an entry").path()).collect();
    left.retain(|path| path.extension().is_some_and(|ext| ext == "json"));
    left.remove(&Path::new(FOLDER).join("requests-index.json"));
    for (scenario, versions, firing, resolved, truncated) in SCENARIOS {
        for version in *versions {
            let name = format!("{version}-{scenario}.json");
            assert!(left.remove(&Path::new(FOLDER).join(&name)), "{name} is told twice, or is not there");
            let notification = read(&name);
            let of = |ended: bool| -> Vec<&str> {
                let all = notification.alerts.iter().filter(|told| told.ends_at.is_some() == ended);
                all.map(|told| told.fingerprint.as_str()).collect()
            };
            assert_eq!((of(false), of(true)), (firing.to_vec(), resolved.to_vec()), "{name}");
            assert_eq!(notification.truncated, *truncated, "{name}");
            assert!(!notification.receiver.is_empty(), "{name}");
        }
    }
    // A body of the operator's own making says nothing that we know.
    let own = "0.33.1-templated-payload.json";
    assert!(left.remove(&Path::new(FOLDER).join(own)));
    assert_eq!(Notification::read(&body(own)), Err(Refused::Version("nothing".into())));
    assert_eq!(left, BTreeSet::new(), "without a test");
}

#[test]
fn labels_in_utf_8_arrive_whole_and_can_be_matched() {
    let told = &read("0.33.1-utf8-labels.json").alerts[0];
    assert_eq!(told.labels["vec.node/zone"], "eu-1a \"café\"\n\\x");
    let matchers = Matchers::parse([r#""vec.node/zone"="eu-1a \"café\"\n\\x""#, "alertname=\"Shard skew\""]);
    assert!(matchers.expect("matchers").match_labels(&told.labels));
}

/// What a version sent to its receiver `scaler`, in the order in which it arrived.
fn sent(version: &str) -> Vec<(Timestamp, String)> {
    let index: Value = serde_json::from_slice(&body("requests-index.json")).expect("JSON");
    let requests = index.as_array().or_else(|| index["requests"].as_array()).expect("a list").clone();
    let mut sent: Vec<(Timestamp, String)> = requests
        .iter()
        .filter(|request| request["alertmanager"] == version)
        .filter(|request| request["path"].as_str().is_some_and(|path| path.ends_with("/scaler")))
        .map(|request| {
            let at = request["received_at"].as_str().and_then(Timestamp::parse).expect("an instant");
            (at, request["file"].as_str().expect("a name").to_string())
        })
        .collect();
    sent.sort();
    sent
}

/// What a book makes of notifications: per alert, how often it was told to begin and to end.
fn told<'n>(notifications: impl Iterator<Item = (Timestamp, &'n String)>) -> BTreeMap<String, (u32, u32)> {
    let (mut book, mut counts) = (Book::default(), BTreeMap::<String, (u32, u32)>::new());
    for (at, name) in notifications {
        for told in &read(name).alerts {
            let heard = book.hear(&"entry".into(), told, at);
            let Heard::Changed(changed) = heard else { continue };
            let count = counts.entry(told.fingerprint.clone()).or_default();
            match changed.change {
                Change::Firing => count.0 += 1,
                Change::Resolved | Change::Expired | Change::Unmatched => count.1 += 1,
            }
        }
    }
    counts
}

#[test]
fn a_whole_recording_is_one_episode_an_alert_also_when_two_send_it() {
    for version in ALL {
        let sent = sent(version);
        assert!(sent.len() >= 5, "{version}: {sent:?}");
        let once = told(sent.iter().map(|(at, name)| (*at, name)));
        assert_eq!((once[CPU_1], once[CPU_2], once[STORAGE]), ((1, 1), (1, 1), (1, 0)), "{version}");
        let twice = told(sent.iter().flat_map(|(at, name)| [(*at, name), (*at, name)]));
        assert_eq!(twice, once, "{version}");
    }
    // Three versions that heard of the same alerts are three senders of one state.
    let mut all: Vec<(Timestamp, String)> = ALL.iter().flat_map(|version| sent(version)).collect();
    all.sort();
    let counts = told(all.iter().map(|(at, name)| (*at, name)));
    assert_eq!((counts[CPU_1], counts[CPU_2], counts[STORAGE]), ((1, 1), (1, 1), (1, 0)));
}
