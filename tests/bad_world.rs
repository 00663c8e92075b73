//! A bad world: nodes that answer garbage, half an answer or nothing, scripts that fail, hang or print garbage, a full
//! disk. No node is lost or doubled, nothing is believed that was not said, and the status explains.

mod common;

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};

use common::before::{CALM, Place, WAIT, says};
use common::platform::{Load, Page};
use common::{VECSCALE, World};

/// Would be a scale-up, were it believed.
const HOT: Load = Load { cpu: 0.95, memory: 0.5, searches_per_second: 50.0 };

fn text(value: &Value) -> String {
    value.to_string()
}

// ---- nodes

/// All nodes get hot and answer badly: nothing is done, the status says `gap` for each node, and the headline what that means.
async fn nodes_answer(page: Page, healthy: bool, gap: &str, headline: &str) {
    let place = Place::calm(&[]).await;
    let before = place.picture().await;
    *place.platform.page.lock().unwrap() = page;
    *place.platform.load.lock().unwrap() = HOT;
    let told = async |w: &World| {
        let status = w.status().await;
        let nodes = status["nodes"].as_array()?.clone();
        let all = nodes.iter().all(|n| n["healthy"] == healthy && text(&n["gaps"]).contains(gap));
        (all && status["metrics"]["cpu_usage"].is_null()).then_some(status)
    };
    place.world.until(&format!("every node has the gap {gap:?}, healthy {healthy}"), WAIT, told).await;
    place.checks(3).await;
    let status = place.world.until("it stays so", WAIT, told).await;
    assert_eq!(status["decision"]["decision"], "hold", "{status:#}");
    says(&text(&status["headline"]), &[headline]);
    place.is_as(&before).await;
    let page = place.world.try_get("/metrics").await.expect("the metrics");
    assert!(!page.contains("\nvecscale_cpu_usage_ratio{"), "what is not known has no sample\n{page}");

    *place.platform.load.lock().unwrap() = CALM;
    *place.platform.page.lock().unwrap() = Page::Whole;
    place.until_calm().await;
    place.is_as(&before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_answer_garbage() {
    nodes_answer(Page::Garbage, true, "line 1", "2 nodes, all healthy; active; unknown now: cpu_usage, memory_usage")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_answer_half() {
    nodes_answer(Page::Half, true, "broke off", "2 nodes, all healthy; active; unknown now: cpu_usage, memory_usage")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_answer_nothing() {
    nodes_answer(
        Page::Nothing,
        false,
        "no answer: connection closed",
        "a person must look: partition_suspected: none of 2 nodes answers",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_keep_silent() {
    nodes_answer(
        Page::Silence,
        false,
        "no answer: nothing within",
        "a person must look: partition_suspected: none of 2 nodes answers",
    )
    .await;
}

// ---- scripts

/// Asks for an operation by hand and waits until it has ended or is blocked.
async fn operate(place: &Place, path: &str) -> Value {
    let (code, answer) = place.world.post(path, Some(json!({"reason": "a test"}))).await;
    assert_eq!(code, 202, "{answer}");
    let id = answer["operation"]["id"].as_str().expect("an id").to_string();
    let over = async |w: &World| {
        let operation = w.get(&format!("/autoscaling/operations/{id}")).await;
        (operation["state"] != "running" && operation["state"] != "undoing").then_some(operation)
    };
    place.world.until("the operation ends or is blocked", WAIT, over).await
}

/// The nodes that the platform runs and those that the status shows are these, and no effect came twice.
async fn nodes_are(place: &Place, expected: &[&str]) {
    let machines: Vec<String> = place.platform.nodes().into_iter().collect();
    assert_eq!(machines, expected, "{:#?}", place.platform.ledger());
    let shown = async |w: &World| {
        let status = w.status().await;
        let ids: Vec<&str> = status["nodes"].as_array()?.iter().filter_map(|n| n["id"].as_str()).collect();
        (ids == expected).then_some(())
    };
    place.world.until(&format!("the status shows {expected:?}"), WAIT, shown).await;
    for what in ["made", "removed"] {
        assert!(place.platform.effects(what).values().all(|&n| n == 1), "{:#?}", place.platform.ledger());
    }
}

/// The operation failed with these words, which history and status tell too; nothing stays open.
async fn failed(place: &Place, operation: &Value, words: &[&str]) {
    assert_eq!(operation["state"], "failed", "{operation:#}\n{}", place.world.logs());
    says(operation["detail"].as_str().expect("a detail"), words);
    let history = place.world.get("/autoscaling/history?kind=operation").await;
    says(history["items"][0]["summary"].as_str().expect("a summary"), words);
    let over = async |w: &World| w.status().await["operation"].is_null().then_some(());
    place.world.until("no operation is open", WAIT, over).await;
    let status = place.world.status().await;
    assert_eq!(status["last_operation"]["state"], "failed", "{status:#}");
    says(&text(&status["last_operation"]), words);
}

/// A creation that went wrong fails with these words and leaves no node.
async fn create_fails(script: &str, words: &[&str]) -> Place {
    let short = |config: String| config.replace("timeout: 20s", "timeout: 1s");
    let place = Place::of(World::new(""), &["n1", "n2"], short).await;
    place.platform.replace("create", script);
    let operation = operate(&place, "/autoscaling/scale-up").await;
    failed(&place, &operation, words).await;
    nodes_are(&place, &["n1", "n2"]).await;
    assert!(place.platform.effects("made").is_empty(), "{:#?}", place.platform.ledger());
    place
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_script_that_fails() {
    let words = ["create default-3", "the quota is used up"];
    let place = create_fails("#!/bin/sh\necho 'the quota is used up' >&2\nexit 20\n", &words).await;

    // With the script mended, the next one makes exactly one node, under a name that was never given before.
    place.platform.replace("create", &made_and(""));
    let operation = operate(&place, "/autoscaling/scale-up").await;
    assert_eq!(operation["state"], "succeeded", "{operation:#}\n{}", place.world.logs());
    nodes_are(&place, &["default-4", "n1", "n2"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_script_that_hangs() {
    create_fails("#!/bin/sh\nsleep 600\n", &["create default-3", "not done within 1 s, ended by force"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_script_that_prints_garbage_and_makes_nothing() {
    let words = ["create default-3", "its stdout is not the JSON asked for"];
    create_fails("#!/bin/sh\nprintf 'Segmentation \\377 fault'\n", &words).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_script_with_an_exit_code_of_its_own() {
    create_fails("#!/bin/sh\necho 'Traceback: no module named cloud' >&2\nexit 1\n", &["exit code 1", "Traceback"])
        .await;
}

/// A create script that makes the node, answers as it should, and then does `end`.
fn made_and(end: &str) -> String {
    format!(
        r#"#!/bin/sh
mkdir "$DIR/nodes/$VECSCALE_NODE" && echo "made $VECSCALE_NODE" >> "$DIR/ledger"
printf '{{"id":"%s","address":"http://127.0.0.1:%s"}}' "$VECSCALE_NODE" "$PORT"
{end}
"#
    )
}

/// It made the node and then went astray: the list says that the node is there, so it is not made again.
async fn create_goes_astray(end: &str) {
    let short = |config: String| config.replace("timeout: 20s", "timeout: 1s");
    let place = Place::of(World::new(""), &["n1", "n2"], short).await;
    place.platform.replace("create", &made_and(end));
    let operation = operate(&place, "/autoscaling/scale-up").await;
    assert_eq!(operation["state"], "succeeded", "{operation:#}\n{}", place.world.logs());
    nodes_are(&place, &["default-3", "n1", "n2"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_script_that_makes_the_node_and_hangs() {
    create_goes_astray("sleep 600").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_script_that_makes_the_node_and_prints_garbage() {
    create_goes_astray("echo '<html>'").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destroy_script_that_fails() {
    let place = three().await;
    place.platform.replace("destroy", "#!/bin/sh\necho 'termination protection is on' >&2\nexit 20\n");
    let operation = operate(&place, "/autoscaling/scale-down").await;
    failed(&place, &operation, &["destroy ", "termination protection is on"]).await;
    nodes_are(&place, &["n1", "n2", "n3"]).await;
}

/// Three nodes, of which a person may take one away.
async fn three() -> Place {
    Place::of(World::new(""), &["n1", "n2", "n3"], |config| config).await
}

/// Nobody knows what it did, and the node is still listed: a person must look, and until then nothing else is begun.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destroy_script_that_prints_garbage_and_removes_nothing() {
    let place = three().await;
    place.platform.replace("destroy", "#!/bin/sh\necho '<html>502 Bad Gateway</html>'\nexit 3\n");
    let operation = operate(&place, "/autoscaling/scale-down").await;
    assert_eq!(operation["state"], "blocked", "{operation:#}");
    let words = ["destroy ", "exit code 3", "502 Bad Gateway"];
    says(operation["detail"].as_str().expect("a detail"), &words);
    let blocked = async |w: &World| {
        let status = w.status().await;
        (status["operation"]["state"] == "blocked").then_some(status)
    };
    let status = place.world.until("the status knows", WAIT, blocked).await;
    says(&text(&status["needs_human"]), &["is blocked", "exit code 3", "502 Bad Gateway", "retry"]);
    says(&text(&status["headline"]), &["blocked"]);
    nodes_are(&place, &["n1", "n2", "n3"]).await;
    let (code, answer) = place.world.post("/autoscaling/scale-up", Some(json!({"reason": "another"}))).await;
    assert_eq!(code, 409, "{answer}");
    says(answer["detail"].as_str().expect("a detail"), &["operation_running"]);
}

/// It says nothing clear, but the node is gone from the list: done, and not done again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destroy_script_that_removes_the_node_and_prints_garbage() {
    let place = three().await;
    let gone = r#"rmdir "$DIR/nodes/$VECSCALE_NODE" && echo "removed $VECSCALE_NODE" >> "$DIR/ledger""#;
    place.platform.replace("destroy", &format!("#!/bin/sh\n{gone}\necho '<html>'\nexit 3\n"));
    let operation = operate(&place, "/autoscaling/scale-down").await;
    assert_eq!(operation["state"], "succeeded", "{operation:#}\n{}", place.world.logs());
    assert_eq!(place.platform.effects("removed").len(), 1, "{:#?}", place.platform.ledger());
    let left: Vec<String> = place.platform.nodes().into_iter().collect();
    nodes_are(&place, &left.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

/// Which machines there are is unknown: the nodes known stay, nothing is begun, and the status says what the script did.
async fn list_goes_wrong(script: &str, words: &[&str]) {
    let place = Place::calm(&[]).await;
    let good = fs::read_to_string(place.world.path("list")).expect("the script");
    let before = place.picture().await;
    place.platform.replace("list", script);
    *place.platform.load.lock().unwrap() = HOT;
    let told = async |w: &World| {
        let status = w.status().await;
        let wanted = status["decision"]["wanted"] == "scale_up";
        (wanted && text(&status["guards"]).contains("no_provider")).then_some(status)
    };
    let status = place.world.until("a scale-up is wanted and the provider's silence holds it", WAIT, told).await;
    says(&text(&status["needs_human"]), &["the provider does not answer"]);
    says(&text(&status["needs_human"]), words);
    assert_eq!(status["decision"]["decision"], "hold", "{status:#}");
    let (code, answer) = place.world.post("/autoscaling/scale-up", Some(json!({"reason": "a test"}))).await;
    assert_eq!(code, 409, "{answer}");
    says(answer["detail"].as_str().expect("a detail"), &["no_provider: the provider did not answer"]);
    place.is_as(&before).await;

    *place.platform.load.lock().unwrap() = CALM;
    place.platform.replace("list", &good);
    place.until_calm().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_script_that_fails() {
    list_goes_wrong("#!/bin/sh\necho 'token expired' >&2\nexit 20\n", &["exit code 20", "token expired"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_script_that_hangs() {
    list_goes_wrong("#!/bin/sh\nsleep 30\n", &["no answer within 10 s"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_script_that_prints_garbage() {
    let half = r#"printf '{"nodes":[{"id":"n1","address":"http://127.0.0.1:%s"},' "$PORT""#;
    list_goes_wrong(&format!("#!/bin/sh\n{half}\n"), &["its stdout is not the JSON asked for"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_script_that_lists_no_node_any_more() {
    list_goes_wrong("#!/bin/sh\nprintf '{\"nodes\":[]}'\n", &["no node at all, though it did before"]).await;
}

// ---- a full disk

/// Becomes vecscale with the signal ignored that would end it at a write beyond the limit on file sizes: so that the
/// write fails instead, as on a full disk.
const WITHOUT_SIGXFSZ: &str = "trap '' XFSZ; exec \"$@\"";

fn through_sh(script: &str) -> Vec<String> {
    ["sh", "-c", script, "sh", VECSCALE].map(Into::into).to_vec()
}

/// While nothing can be written, nothing is changed and nothing begun; when there is room again, it goes on by itself.
async fn cannot_write(place: &Place, fill: impl FnOnce(), make_room: impl FnOnce()) {
    let before = place.picture().await;
    fill();
    for (path, body) in [
        ("/autoscaling/thresholds", json!({"max_nodes": 15})),
        ("/autoscaling/stop", json!({})),
        ("/autoscaling/scale-up", json!({"reason": "a test"})),
        ("/autoscaling/nodes/n1/maintenance", json!({"for": "2h"})),
    ] {
        let (code, answer) = place.world.post(path, Some(body)).await;
        assert_eq!(code, 503, "{path}: {answer}");
        let detail = answer["detail"].as_str().expect("a detail");
        says(detail, &["the journal cannot be written", "hint: look for a full disk", "nothing was changed"]);
    }
    *place.platform.load.lock().unwrap() = HOT;
    let errors = async |w: &World| {
        let page = w.try_get("/metrics").await?;
        let line = page.lines().find(|l| l.starts_with("vecscale_journal_errors_total "))?;
        line.rsplit(' ').next()?.parse::<f64>().ok().filter(|&n| n >= 3.0)
    };
    place.world.until("three checks that could not be written down", WAIT, errors).await;
    let status = place.world.status().await;
    says(&text(&status["needs_human"]), &["the journal cannot be written", "full disk"]);
    place.is_as(&before).await;

    make_room();
    let grown = async |w: &World| {
        let status = w.status().await;
        (status["last_operation"]["state"] == "succeeded").then_some(status)
    };
    let status = place.world.until("what waited is done", WAIT, grown).await;
    assert_eq!(status["needs_human"], json!([]), "{status:#}");
    assert!(place.platform.effects("made").values().all(|&n| n == 1), "{:#?}", place.platform.ledger());
}

/// A stand-in for a full disk that needs no rights: from now on no file may grow, not even the log's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_takes_no_writes() {
    let mut world = World::new("");
    world.program = through_sh(WITHOUT_SIGXFSZ);
    let place = Place::of(world, &["n1", "n2"], |config| config).await;
    let pid = Pid::from_raw(place.world.pid() as i32);
    let limit = |bytes| {
        let limit = Rlimit { current: bytes, maximum: None };
        prlimit(pid, Resource::Fsize, limit).expect("a limit on the size of files");
    };
    cannot_write(&place, || limit(Some(0)), || limit(None)).await;
}

/// A real full disk: a small tmpfs that only the controller's own mount namespace has, gone when it ends. Needs the
/// right to make one (root, or user namespaces); where there is none the test above must do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk() {
    let Some(unshare) = ways_to_unshare().find(|way| may_mount(way)) else {
        eprintln!("not run: this machine lets nobody here mount a tmpfs");
        return;
    };
    let mut world = World::new("");
    let storage = world.storage();
    fs::create_dir(&storage).expect("the place of the mount");
    let mount = format!("mount -t tmpfs -o size=2m,mode=700 tmpfs '{}' && exec \"$@\"", storage.display());
    world.program = unshare.into_iter().chain(through_sh(&mount)).collect();
    let place = Place::of(world, &["n1", "n2"], |config| config).await;
    let seen_from_outside = PathBuf::from(format!("/proc/{}/root{}", place.world.pid(), storage.display()));
    let ballast = seen_from_outside.join("ballast");
    let fill = || {
        let mut file = fs::File::create(&ballast).expect("a file on the small disk");
        let full = (0..10_000).find_map(|_| file.write_all(&[0; 512]).err()).expect("the disk is small");
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    };
    cannot_write(&place, fill, || fs::remove_file(&ballast).expect("room again")).await;
}

fn ways_to_unshare() -> impl Iterator<Item = Vec<String>> {
    let way = |words: &[&str]| words.iter().map(ToString::to_string).collect();
    [way(&["unshare", "--mount"]), way(&["unshare", "--mount", "--map-root-user"])].into_iter()
}

fn may_mount(unshare: &[String]) -> bool {
    let dir = tempfile::tempdir().expect("a directory");
    let mut trial = Command::new(&unshare[0]);
    trial.args(&unshare[1..]).args(["mount", "-t", "tmpfs", "tmpfs"]).arg(dir.path());
    trial.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

#[test]
fn a_start_on_a_full_disk() {
    let mut world = World::new("pools: [{name: default}]");
    world.program = through_sh(&format!("ulimit -f 0; {WITHOUT_SIGXFSZ}"));
    let output = world.command().arg("--web.listen-address=127.0.0.1:0").output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    says(&said, &[&world.storage().display().to_string(), "cannot be written", "hint: look for a full disk"]);
    assert!(world.node_pids().is_empty(), "no node is started that could not be written down");
    assert!(!world.storage().join("vecscale.db").exists(), "half a journal is none");

    // With room again, the next start finds nothing in its way.
    world.program = vec![VECSCALE.into()];
    fs::write(world.path("config.yaml"), "pools: [{name: default, provider: {type: none}, datastore: {type: none}, nodes: {static: [{id: n1, address: 'http://127.0.0.1:1'}]}}]")
        .expect("a configuration");
    world.spawn();
    let deadline = std::time::Instant::now() + WAIT;
    while !fs::metadata(world.storage().join("vecscale.db")).is_ok_and(|m| m.len() > 0) {
        assert!(world.is_running() && std::time::Instant::now() < deadline, "{}", world.logs());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(world.stop(), Some(0), "{}", world.logs());
}
