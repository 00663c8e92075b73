//! Scripts that hang, hide, flood or lie, under a real controller: one node at most is made, nobody of theirs is left
//! running, and the controller stays small.

mod common;

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use common::before::{Place, WAIT};
use common::{VECSCALE, World, signal};

/// What every script that makes its node does first.
const MAKE: &str = r#"mkdir "$DIR/nodes/$VECSCALE_NODE" && echo "made $VECSCALE_NODE" >> "$DIR/ledger"
printf '{"id":"%s","address":"http://127.0.0.1:%s"}' "$VECSCALE_NODE" "$PORT""#;

/// Hides a process that ignores TERM in a session of its own, holding the script's output, and hangs likewise.
const HIDE_AND_HANG: &str = r#"setsid sh -c 'trap "" TERM; while :; do sleep 0.2; done' &
trap "" TERM
while :; do sleep 0.2; done"#;

/// The first run does `first`, all others make the node as they should.
fn first(first: &str) -> String {
    format!(
        "#!/bin/sh\necho \"run $$\" >> \"$DIR/ledger\"\nif mkdir \"$DIR/first\" 2>/dev/null; then\n{first}\nfi\n{MAKE}\n"
    )
}

async fn place(timeout: &str) -> Place {
    let change = |config: String| config.replace("timeout: 20s", timeout).replace("max_nodes: 4", "max_nodes: 9");
    Place::of(World::new(""), &["n1", "n2"], change).await
}

async fn grow(place: &Place) -> String {
    let (code, answer) = place.world.post("/autoscaling/scale-up", Some(json!({"reason": "a test"}))).await;
    assert_eq!(code, 202, "{answer}");
    answer["operation"]["id"].as_str().expect("an id").into()
}

async fn ended(place: &Place, id: &str) -> Value {
    let over = async |w: &World| {
        let operation = w.get(&format!("/autoscaling/operations/{id}")).await;
        (!operation["ended_at"].is_null() || operation["state"] == "blocked").then_some(operation)
    };
    place.world.until("the operation is over", WAIT, over).await
}

/// One more node, made once.
async fn grew(place: &Place, id: &str, nodes: usize) {
    let operation = ended(place, id).await;
    assert_eq!(operation["state"], "succeeded", "{operation:#}\n{}", place.world.logs());
    assert_eq!(place.platform.nodes().len(), nodes, "{:#?}", place.platform.ledger());
    let made = place.platform.effects("made");
    assert!(made.len() == nodes - 2 && made.values().all(|&n| n == 1), "{:#?}", place.platform.ledger());
}

/// Processes that have this world's scripts' environment.
fn processes(place: &Place) -> Vec<u32> {
    let mark = format!("DIR={}", place.platform.dir.display());
    let numbers = fs::read_dir("/proc").expect("the processes").flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers
        .filter(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|&byte| byte == 0).any(|variable| variable == mark.as_bytes())
        })
        .collect()
}

/// Scripts that list the nodes come and go: what is there twice in a row is left over.
async fn nobody_is_left(place: &Place) {
    let began = Instant::now();
    let mut left = processes(place);
    while !left.is_empty() {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = processes(place);
        left.retain(|pid| now.contains(pid));
        if began.elapsed() > Duration::from_secs(10) {
            left.iter().for_each(|pid| signal(*pid, Signal::KILL));
            panic!("processes are left: {left:?}\n{:#?}", place.platform.ledger());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_hangs_and_hides_is_ended_and_the_next_makes_the_node() {
    let place = place("timeout: 1s").await;
    place.platform.replace("create", &first(HIDE_AND_HANG));
    let id = grow(&place).await;
    grew(&place, &id, 3).await;
    nobody_is_left(&place).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_hangs_when_it_is_done_is_ended_and_not_repeated() {
    let place = place("timeout: 1s").await;
    place.platform.replace("create", &format!("#!/bin/sh\n{MAKE}\n{HIDE_AND_HANG}\n"));
    let id = grow(&place).await;
    grew(&place, &id, 3).await;
    nobody_is_left(&place).await;
}

/// E-03: the controller dies, the script lives on. The next controller waits for it, ends it when its time is over,
/// and only then runs another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_outlives_its_controller_is_adopted_with_its_deadline() {
    let mut place = place("timeout: 8s").await;
    place.platform.replace("create", &first(&format!("echo $$ > \"$DIR/pid\"\n{HIDE_AND_HANG}")));
    let id = grow(&place).await;
    let runs = async |_: &World| fs::read_to_string(place.platform.dir.join("pid")).ok()?.trim().parse::<u32>().ok();
    let pid = place.world.until("the script runs", WAIT, runs).await;
    let began = Instant::now();
    place.world.kill();
    assert!(processes(&place).contains(&pid), "it outlives the controller");
    place.world.start().await;
    let gone = async |_: &World| (!processes(&place).contains(&pid)).then_some(began.elapsed());
    let took = place.world.until("the adopted script is ended", WAIT, gone).await;
    let within = Duration::from_secs(7)..Duration::from_secs(8 + 10 + 4);
    assert!(within.contains(&took), "deadline and grace are those of its start: {took:?}");
    grew(&place, &id, 3).await;
    nobody_is_left(&place).await;
    let runs = place.platform.ledger().iter().filter(|line| line.starts_with("run ")).count();
    assert_eq!(runs, 2, "{:#?}", place.platform.ledger());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_that_make_the_node_and_then_lie_are_looked_after() {
    let place = place("timeout: 20s").await;
    for (i, end) in [
        "kill -9 $$",
        "exit 137",
        r#"echo '{"id":"n1","address":"http://127.0.0.1:1"}'"#,
        "exec >&- <&- 2>&-; exit 3",
        "printf '\\000\\377\\033]0;title\\007'; exit 0",
    ]
    .into_iter()
    .enumerate()
    {
        place.platform.replace("create", &format!("#!/bin/sh\n{MAKE}\n{end}\n"));
        let id = grow(&place).await;
        grew(&place, &id, 3 + i).await;
    }
    nobody_is_left(&place).await;
}

/// The most memory that the controller ever had, in KiB.
fn peak(place: &Place) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", place.world.pid())).expect("its status");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a peak");
    line.split_whitespace().nth(1).expect("a number").parse().expect("KiB")
}

/// E-05.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_prints_a_gibibyte_leaves_the_controller_small() {
    let place = place("timeout: 90s").await;
    place.platform.replace("create", &format!("#!/bin/sh\n{MAKE}\nhead -c 1073741824 /dev/zero\nexit 0\n"));
    let before = peak(&place);
    let id = grow(&place).await;
    grew(&place, &id, 3).await;
    let grown = peak(&place) - before;
    eprintln!("1 GiB of output: the peak grew by {grown} KiB");
    assert!(grown < 8 << 10, "{grown} KiB more");
}

/// E-09: whatever the controller itself was started with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_inherits_three_descriptors() {
    let mut world = World::new("");
    world.program = ["sh", "-c", "exec 7</dev/null 8</dev/null; exec \"$@\"", "sh", VECSCALE].map(Into::into).to_vec();
    let place = Place::of(world, &["n1", "n2"], |config| config).await;
    assert!(fs::exists(format!("/proc/{}/fd/7", place.world.pid())).expect("its descriptors"));
    let listed = "exec 9>&1 >\"$DIR/fds\"; ls /proc/$$/fd; exec >&9 9>&-";
    place.platform.replace("create", &format!("#!/bin/sh\n{listed}\n{MAKE}\n"));
    let id = grow(&place).await;
    grew(&place, &id, 3).await;
    let fds = fs::read_to_string(place.platform.dir.join("fds")).expect("the list");
    let mut fds: Vec<u32> = fds.lines().filter_map(|fd| fd.parse().ok()).collect();
    fds.sort_unstable();
    assert_eq!(fds, [0, 1, 2, 9, 10], "9 is the script's own, 10 the shell's for the script");
}
