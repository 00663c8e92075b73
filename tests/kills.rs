//! The controller is hit in the middle of scale-ups and scale-downs: killed, stopped for a while, or asked to end; at
//! seeded instants, and by the platform itself at exact places of its calls. Over scripts, over an API and over the embedded
//! cluster nothing is lost, nothing is made twice, and each effect has one row in the audit trail.
//!
//! `VECSCALE_KILLS` sets how many hits there are in all (default 10); at the end a table tells them.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use common::double::{Double, Hand, Place, Trap};
use common::machines::Machines;
use common::platform::{Load, Platform};
use common::{EMBEDDED, Vectors, World, signal};
use futures::StreamExt;
use rustix::process::Signal;
use serde_json::{Value, json};

const WAIT: Duration = Duration::from_secs(120);
/// Hits per world: it grows and shrinks in turns.
const PER_WORLD: usize = 4;
/// Where in [`hits`] those on the embedded cluster are.
const EMBEDDED_HITS: usize = 2;

/// One hit.
#[derive(Clone, Copy, Debug)]
struct Hit {
    number: usize,
    hand: Hand,
    place: At,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum At {
    /// At a seeded instant of the operation.
    Instant,
    /// By the double, within its call.
    Place(Place),
}

/// Of three hits, one goes to scripts and one to an API, where each hand meets each place, and one to the embedded cluster.
fn hits() -> [Vec<Hit>; 3] {
    let all: usize = std::env::var("VECSCALE_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(10);
    let places = [At::Place(Place::BeforeEffect), At::Instant, At::Place(Place::AfterEffect)];
    let places = [&places[..], &[At::Place(Place::AfterAnswer), At::Place(Place::BeforeAnswer)]].concat();
    // 3 hands and 5 places: 15 in a row are all pairs.
    [0, 1, 2].map(|over| {
        let hit = |(n, number): (usize, usize)| {
            let place = if over == EMBEDDED_HITS { At::Instant } else { places[n % places.len()] };
            Hit { number, hand: Hand::ALL[n % 3], place }
        };
        (over..all).step_by(3).enumerate().map(hit).collect()
    })
}

/// Kind of world, hand and place.
type Kind = (&'static str, Hand, At);

/// What came through, by kind: for each hit the seconds from it to the operation's end.
#[derive(Default)]
struct Survived(std::sync::Mutex<BTreeMap<Kind, Vec<f64>>>);

impl Survived {
    fn add(&self, world: &'static str, hit: Hit, took: Duration) {
        let mut rows = self.0.lock().expect("no panic while adding");
        rows.entry((world, hit.hand, hit.place)).or_default().push(took.as_secs_f64());
        eprintln!("hit {} survived: {world}, {} at {}", hit.number + 1, hit.hand.as_str(), place(hit.place));
    }

    fn table(&self) -> String {
        let rows = self.0.lock().expect("no panic while adding");
        let mut said = format!(
            "{:<10} {:<6} {:<14} {:>5}   {}\n",
            "over", "signal", "at", "hits", "seconds to the end, mean and most"
        );
        for ((world, hand, at), took) in rows.iter() {
            let (mean, most) = (took.iter().sum::<f64>() / took.len() as f64, took.iter().copied().fold(0.0, f64::max));
            let (hand, at) = (hand.as_str(), place(*at));
            said.push_str(&format!("{world:<10} {hand:<6} {at:<14} {:>5}   {mean:.1} {most:.1}\n", took.len()));
        }
        let all: usize = rows.values().map(Vec::len).sum();
        said + &format!("{all} hits, all survived: no effect twice, no orphan, no two calls at once, one row each\n")
    }
}

fn place(at: At) -> &'static str {
    match at {
        At::Instant => "any instant",
        At::Place(place) => place.as_str(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_hits_the_controller_nothing_is_lost_or_made_twice() {
    let [scripts, api, embedded] = hits();
    let survived = Survived::default();
    let over_scripts = futures::stream::iter(scripts.chunks(PER_WORLD))
        .then(|hits| over_a_double("scripts", platform, hits, &survived))
        .collect::<Vec<()>>();
    let over_an_api = futures::stream::iter(api.chunks(PER_WORLD))
        .then(|hits| over_a_double("api", machines, hits, &survived))
        .collect::<Vec<()>>();
    let over_the_cluster = futures::stream::iter(embedded.chunks(PER_WORLD))
        .then(|hits| over_the_embedded_cluster(hits, &survived))
        .collect::<Vec<()>>();
    futures::join!(over_scripts, over_an_api, over_the_cluster);
    eprintln!("\n{}", survived.table());
}

async fn platform(dir: &Path) -> Platform {
    Platform::new(dir, &["n1", "n2"], Load { cpu: 0.4, memory: 0.4, searches_per_second: 50.0 }).await
}

async fn machines(_: &Path) -> Machines {
    Machines::new(&["n1", "n2"], Load { cpu: 0.4, memory: 0.4, searches_per_second: 50.0 }).await
}

/// Two nodes on a platform that was made by `make`, up to three, and back, with a hit each time.
async fn over_a_double<D: Double>(
    name: &'static str,
    make: impl AsyncFn(&Path) -> D,
    hits: &[Hit],
    survived: &Survived,
) {
    let mut world = World::new("");
    let double = make(world.dir.path()).await;
    let config = double.config("min_nodes: 2, max_nodes: 4, scale_up_cooldown: 0, scale_down_cooldown: 0");
    std::fs::write(world.path("config.yaml"), config).expect("the configuration");
    world.start().await;
    world.settled(2).await;
    let (mut grown, mut shrunk) = (0, 0);
    for (n, hit) in hits.iter().enumerate() {
        let (path, call, longest, nodes) = match n % 2 {
            0 => ("/autoscaling/scale-up", "create", 5.0, 3),
            _ => ("/autoscaling/scale-down", "destroy", 3.0, 2),
        };
        let id = match hit.place {
            At::Instant => {
                let id = begin(&world, path).await;
                tokio::time::sleep(instant(hit, longest)).await;
                send(&world, hit.hand);
                id
            }
            At::Place(place) => {
                double.set(&Trap { call, place, signal: hit.hand, pid: world.pid() });
                let id = begin(&world, path).await;
                world.until("the trap goes off", WAIT, async |_| double.is_sprung().then_some(())).await;
                id
            }
        };
        let took = recover(&mut world, hit, &id, nodes).await;
        if nodes == 3 {
            grown += 1
        } else {
            shrunk += 1
        }
        let ledger = double.ledger();
        let what = format!("after {hit:?}: {ledger:#?}\n{}", world.logs());
        for (what_was, times) in [("made", grown), ("removed", shrunk)] {
            let effects = double.effects(what_was);
            assert!(effects.values().all(|&n| n == 1), "{what_was} twice {what}");
            assert_eq!(effects.len(), times, "{what_was} {what}");
        }
        assert!(!ledger.iter().any(|l| l.starts_with("concurrent")), "{what}");
        assert_eq!(double.nodes().len(), nodes, "an orphan {what}");
        let rows = rows_per_effect(&world).await;
        assert!(rows.values().all(|&n| n == 1), "{rows:#?} {what}");
        let told = |step: &str| rows.keys().filter(|(name, _)| name == step).count();
        assert_eq!((told("create"), told("destroy")), (grown, shrunk), "{rows:#?} {what}");
        survived.add(name, *hit, took);
    }
    assert_eq!(world.stop(), Some(0));
}

/// Three embedded nodes with vectors, up to four, and back, with a hit each time.
async fn over_the_embedded_cluster(hits: &[Hit], survived: &Survived) {
    let mut world = World::new(&EMBEDDED.replace("THRESHOLDS", "min_nodes: 3, max_nodes: 5"));
    world.start().await;
    world.settled(3).await;
    let vectors = Vectors::fill(&world, 600).await;
    let before = vectors.digest().await;
    for (n, hit) in hits.iter().enumerate() {
        let (path, nodes) = match n % 2 {
            0 => ("/autoscaling/scale-up", 4),
            _ => ("/autoscaling/scale-down", 3),
        };
        let id = begin(&world, path).await;
        tokio::time::sleep(instant(hit, 12.0)).await;
        send(&world, hit.hand);
        let took = recover(&mut world, hit, &id, nodes).await;
        vectors.follow(&world).await;
        assert_eq!(vectors.digest().await, before, "after {hit:?}\n{}", world.logs());
        assert_eq!(world.node_pids().len(), nodes, "an orphan process after {hit:?}");
        let directories = std::fs::read_dir(world.storage().join("default/nodes")).expect("the nodes");
        let left = directories.filter(|e| e.as_ref().is_ok_and(|e| e.path().join("node.json").exists())).count();
        assert_eq!(left, nodes, "a left-over directory after {hit:?}");
        let rows = rows_per_effect(&world).await;
        assert!(!rows.is_empty() && rows.values().all(|&n| n == 1), "after {hit:?}: {rows:#?}");
        survived.add("embedded", *hit, took);
    }
    assert_eq!(world.stop(), Some(0));
}

/// Instants spread over the whole operation, the same for the same hit.
fn instant(hit: &Hit, longest_secs: f64) -> Duration {
    Duration::from_secs_f64(longest_secs * fastrand::Rng::with_seed(hit.number as u64).f64())
}

fn send(world: &World, hand: Hand) {
    signal(world.pid(), hand.signal());
}

/// Asks for an operation; gives its id.
async fn begin(world: &World, path: &str) -> String {
    let accepted = async |w: &World| {
        let (code, answer) = w.post(path, Some(json!({"reason": "the kill test"}))).await;
        (code == 202).then_some(answer)
    };
    let asked = world.until("the operation is accepted", WAIT, accepted).await;
    asked["operation"]["id"].as_str().expect("an id").to_string()
}

/// After the hit: the controller goes on or is started again, and the operation ends as if nothing had been. Gives the
/// time that took.
async fn recover(world: &mut World, hit: &Hit, id: &str, nodes: usize) -> Duration {
    let hit_at = Instant::now();
    match hit.hand {
        Hand::Kill => {
            let ended = world.ended().await;
            assert_eq!(ended.code(), None, "{hit:?}: it ended by itself\n{}", world.logs());
            world.start().await;
        }
        Hand::Term => {
            let ended = world.ended().await;
            assert_eq!(ended.code(), Some(0), "{hit:?}\n{}", world.logs());
            world.start().await;
        }
        Hand::Stop => {
            world.refuses_a_second().await;
            tokio::time::sleep(instant(hit, 4.0)).await;
            signal(world.pid(), Signal::CONT);
        }
    }
    let ended = async |w: &World| {
        let operation: Value =
            serde_json::from_str(&w.try_get(&format!("/autoscaling/operations/{id}")).await?).ok()?;
        let state = operation["state"].as_str()?.to_string();
        assert_ne!(state, "blocked", "{hit:?}: {operation}\n{}", w.logs());
        (state == "succeeded").then_some(())
    };
    world.until(&format!("{hit:?}: the operation ended well"), WAIT, ended).await;
    let took = hit_at.elapsed();
    world.settled(nodes).await;
    took
}

/// Each effect that the journal tells of, by step and key, and how many rows of the audit trail say that it was done.
async fn rows_per_effect(world: &World) -> BTreeMap<(String, String), usize> {
    let history = world.get("/autoscaling/history?kind=step&limit=1000").await;
    let mut rows = BTreeMap::new();
    for item in history["items"].as_array().expect("a list") {
        let step = &item["detail"]["step"];
        if step["state"] == "done" {
            let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("no step: {item}")).to_string();
            *rows.entry((text(&step["step"]), text(&step["key"]))).or_default() += 1;
        }
    }
    rows
}
