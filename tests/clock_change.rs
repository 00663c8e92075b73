//! The real program over both changes of the clock, with Debian's libfaketime for a wall clock: in the night when Berlin
//! skips from 02:00 to 03:00, and in the one when it shows 02:00 to 03:00 twice.

mod common;

use std::time::Duration;

use common::tools::has;
use common::{EMBEDDED, World};
use serde_json::Value;

/// `$LIB` is the loader's to fill in.
const LIBRARY: &str = "/usr/$LIB/faketime/libfaketimeMT.so.1";
const SOON: Duration = Duration::from_secs(40);

/// Its windows, by the clock of Berlin; one pool of nodes that are looked at each second, and one that is looked at so
/// seldom that only a tick can open a window there.
fn config() -> String {
    let windows = "
    schedules:
      - {name: early, start: '30 2 * * *', end: '30 3 * * *', timezone: Europe/Berlin, min_nodes: 4, ahead: false}
      - {name: shift, from: '2026-03-29T02:30', to: '2026-03-29T03:00:15', timezone: Europe/Berlin, freeze: all}
";
    let seldom = "
  - name: seldom
    thresholds: {health_check_interval: 1h}
    provider: {type: none}
    datastore: {type: none}
    nodes: {static: [{id: n1, address: 'http://127.0.0.1:1'}]}
    scrape: {preset: none}";
    format!("{}{windows}{seldom}{windows}", EMBEDDED.replace("THRESHOLDS", "min_nodes: 3, max_nodes: 6"))
}

/// The program, whose wall clock shows this at its start and then runs on; what waits is not touched.
async fn started_at(utc: &str) -> Option<World> {
    if !has("faketime", "faketime") {
        return None;
    }
    let mut world = World::new(&config());
    let clock = [
        format!("LD_PRELOAD={LIBRARY}"),
        format!("FAKETIME=@{utc}"),
        "FAKETIME_DONT_FAKE_MONOTONIC=1".into(),
        "TZ=UTC".into(),
    ];
    world.program.splice(0..0, std::iter::once("env".into()).chain(clock));
    world.start().await;
    Some(world)
}

/// One window of a pool, when it is open or not, as wanted.
async fn window_when(world: &World, pool: &str, name: &str, open: bool) -> Value {
    let what = format!("window {name} of {pool} is {}", if open { "open" } else { "closed" });
    let path = format!("/autoscaling/status?pool={pool}");
    let found = async |w: &World| {
        let status = w.get(&path).await;
        let windows = status["windows"].as_array()?.clone();
        windows.into_iter().find(|window| window["name"] == name && window["open"] == open)
    };
    world.until(&what, SOON, found).await
}

async fn told(world: &World, pool: &str) -> Vec<(String, String)> {
    let rows = world.get(&format!("/autoscaling/history?pool={pool}&kind=setting")).await;
    let told = |row: &Value| Some((row["at"].as_str()?.get(..19)?.to_string(), row["summary"].as_str()?.to_string()));
    rows["items"].as_array().expect("rows").iter().filter_map(told).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_that_begins_in_the_hour_that_is_skipped_opens_as_the_clock_has_jumped() {
    let Some(mut world) = started_at("2026-03-29 00:59:48").await else { return };
    for pool in ["default", "seldom"] {
        let early = window_when(&world, pool, "early", false).await;
        assert_eq!(early["next"], "2026-03-29T01:00:00.000Z", "{early}");
    }
    for pool in ["default", "seldom"] {
        let early = window_when(&world, pool, "early", true).await;
        assert_eq!(
            (&early["since"], &early["next"]),
            (&"2026-03-29T01:00:00.000Z".into(), &"2026-03-29T01:30:00.000Z".into())
        );
        let (at, _) =
            told(&world, pool).await.into_iter().rfind(|(_, what)| what.contains("early is open")).expect("a row");
        assert!(("2026-03-29T01:00:00".."2026-03-29T01:00:03").contains(&at.as_str()), "{pool}: told at {at}");
    }
    window_when(&world, "default", "shift", true).await;
    let held = world.get("/autoscaling/status?pool=default").await;
    assert_eq!(held["nodes"].as_array().map(Vec::len), Some(3), "frozen: {}", held["headline"]);
    window_when(&world, "default", "shift", false).await;
    let grown = async |w: &World| {
        let status = w.get("/autoscaling/status?pool=default").await;
        (status["metrics"]["healthy_nodes"] == 4).then_some(status)
    };
    let status = world.until("four nodes", Duration::from_secs(90), grown).await;
    assert_eq!(status["sources"]["min_nodes"]["by"], "early", "{}", status["sources"]);
    let page = world.try_get("/metrics").await.expect("the page");
    for series in [
        "vecscale_window_active{pool=\"default\",window=\"early\"} 1",
        "vecscale_window_active{pool=\"default\",window=\"shift\"} 0",
        "vecscale_window_next_transition_timestamp_seconds{pool=\"seldom\",window=\"early\"} 1774747800",
    ] {
        assert!(page.contains(series), "{series}\n{page}");
    }
    assert_eq!(world.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_over_the_hour_that_is_shown_twice_stays_open() {
    let Some(mut world) = started_at("2026-10-25 00:59:52").await else { return };
    let open = window_when(&world, "seldom", "early", true).await;
    assert_eq!(
        (&open["since"], &open["next"]),
        (&"2026-10-25T00:30:00.000Z".into(), &"2026-10-25T02:30:00.000Z".into())
    );
    let past_the_hour = async |w: &World| {
        let status = w.get("/autoscaling/status?pool=default").await;
        (status["at"].as_str()? > "2026-10-25T01:00:03").then_some(status)
    };
    let status = world.until("the clock is set back", SOON, past_the_hour).await;
    assert_eq!((&status["windows"][0]["open"], &status["thresholds"]["min_nodes"]), (&true.into(), &4.into()));
    for pool in ["default", "seldom"] {
        let rows = told(&world, pool).await;
        assert_eq!(rows.len(), 1, "{pool}: {rows:?}");
    }
    assert_eq!(world.stop(), Some(0));
}
