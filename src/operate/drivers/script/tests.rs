//! The contract with real scripts: every exit code, every way to hang, and no second copy.

mod hostile;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::model::{NodeId, OperationId};

const GOOD: &str = r#"cat >/dev/null; echo '{"id":"n1","address":"http://10.0.0.1:6333","instance":"i-7"}'"#;

/// A directory with the three scripts in it.
struct Bench {
    dir: TempDir,
    env: BTreeMap<String, String>,
}

impl Bench {
    fn new(scripts: &[(&str, &str)]) -> Bench {
        let dir = TempDir::new().expect("a directory");
        for name in ["create", "destroy", "list"] {
            let body = scripts.iter().find(|(n, _)| *n == name).map_or("exit 99", |(_, body)| body);
            let path = dir.path().join(name);
            fs::write(&path, format!("#!/bin/sh\ncd '{}'\n{body}\n", dir.path().display())).expect("a script");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("a mode");
        }
        Bench { dir, env: BTreeMap::new() }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn provider(&self) -> ScriptProvider {
        let argv = |name: &str| vec![self.path(name).display().to_string()];
        let settings = ScriptSettings {
            create: argv("create"),
            destroy: argv("destroy"),
            list: argv("list"),
            timeout: Duration::from_secs(60),
            victim: Victim::Any,
            env: self.env.clone(),
        };
        ScriptProvider::new("p".into(), settings, &Places { storage: self.path("storage") })
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }
}

fn node() -> NodeId {
    NodeId::new("n1").expect("a name")
}

fn call(deadline: Duration) -> Call {
    Call {
        pool: "p".into(),
        operation: OperationId("op".into()),
        step: "create",
        key: "op/1".into(),
        fence: 7,
        deadline,
    }
}

async fn create(bench: &Bench) -> Effect<Machine> {
    bench.provider().create(&call(Duration::from_secs(30)), &NewNode::named(node())).await
}

/// Waits for something that a script does, and fails after ten seconds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(10), "{what}: not within 10 s");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn alive(pid: &str) -> bool {
    let state = fs::read_to_string(Path::new("/proc").join(pid.trim()).join("stat")).unwrap_or_default();
    state.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim().starts_with('Z'))
}

#[tokio::test]
async fn every_exit_code_has_its_meaning() {
    let json = r#"echo '{"id":"n1","address":"http://a:1"}'"#;
    let cases = [
        ("done", format!("{json}; exit 0"), "Done"),
        ("already done", format!("{json}; exit 10"), "Done"),
        ("in progress", "exit 11".into(), "InProgress"),
        ("no effect", "echo no quota >&2; exit 20".into(), "NoEffect"),
        ("failed", "echo boom >&2; exit 1".into(), "Unknown"),
        ("another code", format!("{json}; exit 21"), "Unknown"),
        ("killed", format!("{json}; kill -9 $$"), "Unknown"),
        ("done without a word", "exit 0".into(), "Unknown"),
        ("already done without a word", "exit 10".into(), "Unknown"),
        ("garbage", "echo created n1".into(), "Unknown"),
        ("half", r#"printf '{"id":"n1","addr'"#.into(), "Unknown"),
        ("another node", r#"echo '{"id":"n2","address":"http://a:1"}'"#.into(), "Unknown"),
        ("no name", r#"echo '{"id":"../n1","address":"http://a:1"}'"#.into(), "Unknown"),
        ("no address", r#"echo '{"id":"n1","address":"file:///etc"}'"#.into(), "Unknown"),
        ("unknown keys", r#"echo '{"id":"n1","address":"http://a:1","more":{}}'"#.into(), "Done"),
    ];
    for (what, body, expected) in cases {
        let found = create(&Bench::new(&[("create", &body)])).await;
        let found = format!("{found:?}");
        assert!(found.starts_with(expected), "{what}: {found}");
        if body.contains("no quota") || body.contains("boom") {
            assert!(found.contains("no quota") || found.contains("boom"), "{what}: {found}");
        }
    }
    let missing = Bench::new(&[]);
    fs::remove_file(missing.path("create")).expect("a script");
    assert!(matches!(create(&missing).await, Effect::NoEffect(_)), "what was not started had no effect");
}

#[tokio::test]
async fn a_script_gets_json_and_a_clean_environment() {
    let mut bench = Bench::new(&[("create", "cat > input; env > environment; exit 20")]);
    bench.env.insert("TOKEN_FILE".into(), "/run/secret; $(touch x)".into());
    bench.env.insert("VECSCALE_NODE".into(), "another".into());
    let effect = bench
        .provider()
        .create(
            &call(Duration::from_secs(30)),
            &NewNode { zone: Some("$(touch pwned)\n\"'".into()), ..NewNode::named(node()) },
        )
        .await;
    assert!(matches!(effect, Effect::NoEffect(_)), "{effect:?}");
    let input: Value = serde_json::from_str(&bench.read("input")).expect("JSON");
    let expected = json!({"contract": 1, "pool": "p", "node": "n1", "operation": "op", "zone": "$(touch pwned)\n\"'"});
    assert_eq!(input, expected);
    let environment = bench.read("environment");
    let shells = ["PWD=", "OLDPWD=", "SHLVL=", "_="];
    let lines = environment.lines().filter(|line| !shells.iter().any(|own| line.starts_with(own)));
    let mut names: Vec<&str> = lines.filter_map(|line| line.split('=').next()).collect();
    names.retain(|name| !["PATH", "HOME", "LANG"].contains(name));
    names.sort_unstable();
    let expected = ["TOKEN_FILE", "VECSCALE_CONTRACT", "VECSCALE_FENCE", "VECSCALE_KEY", "VECSCALE_NODE"];
    assert_eq!(names[..5], expected);
    assert_eq!(names[5..], ["VECSCALE_OPERATION", "VECSCALE_POOL", "VECSCALE_STEP"]);
    assert!(environment.contains("VECSCALE_FENCE=7\n") && environment.contains("VECSCALE_KEY=op/1\n"));
    assert!(environment.contains("VECSCALE_NODE=n1\n"), "the contract's names are not to be overridden");
    assert!(!bench.path("pwned").exists() && !bench.path("x").exists(), "a text became code");
}

#[tokio::test]
async fn destroy_names_exactly_one_node() {
    let bench = Bench::new(&[("destroy", "cat > input; exit 10")]);
    let address = "http://10.0.0.1:6333".to_string();
    let machine = Machine { id: node(), address, zone: None, instance: Some("i-7".into()), ready: None };
    assert_eq!(bench.provider().destroy(&call(Duration::from_secs(30)), &machine).await, Effect::Done(()));
    let input: Value = serde_json::from_str(&bench.read("input")).expect("JSON");
    assert_eq!((&input["node"], &input["address"]), (&json!("n1"), &json!("http://10.0.0.1:6333")));
}

#[tokio::test]
async fn a_list_is_taken_whole_or_not_at_all() {
    let two = r#"{"nodes":[{"id":"n2","address":"http://b:1","ready":true},{"id":"n1","address":"http://a:1"}]}"#;
    let good = Bench::new(&[("list", &format!("cat > input; echo '{two}'"))]);
    let machines = good.provider().list().await.expect("a list");
    assert_eq!(machines.iter().map(|m| m.id.as_str()).collect::<Vec<_>>(), ["n1", "n2"]);
    assert_eq!(serde_json::from_str::<Value>(&good.read("input")).expect("JSON")["pool"], json!("p"));
    let empty = Bench::new(&[("list", r#"echo '{"nodes":[]}'"#)]);
    assert_eq!(empty.provider().list().await, Ok(vec![]), "what an empty list means is for the caller");
    for (what, body) in [
        ("fails", format!("echo '{two}'; exit 1")),
        ("says nothing", "exit 0".into()),
        ("garbage", "echo n1 n2".into()),
        ("no nodes", "echo '{}'".into()),
        (
            "one bad entry",
            r#"echo '{"nodes":[{"id":"n1","address":"http://a:1"},{"id":"-n2","address":"http://b:1"}]}'"#.into(),
        ),
        (
            "one twice",
            r#"echo '{"nodes":[{"id":"n1","address":"http://a:1"},{"id":"n1","address":"http://b:1"}]}'"#.into(),
        ),
        ("not finished", "exit 11".into()),
    ] {
        let answer = Bench::new(&[("list", &body)]).provider().list().await;
        assert!(answer.is_err(), "{what}: {answer:?}");
    }
    let long = r#"awk 'BEGIN{printf "{\"nodes\":["; for(i=0;i<5000;i++) printf "%s{\"id\":\"n%d\",\"address\":\"http://h%d:1\"}", i?",":"", i, i; print "]}"}'"#;
    assert_eq!(Bench::new(&[("list", long)]).provider().list().await.expect("a long list").len(), 5000);
}

#[tokio::test]
async fn the_end_of_the_script_counts_not_the_end_of_its_output() {
    let bench = Bench::new(&[("create", &format!("{GOOD}\nsleep 20 & echo $! > child; exit 0"))]);
    let began = Instant::now();
    let effect = create(&bench).await;
    assert!(matches!(effect, Effect::Done(_)), "{effect:?}");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    let child = rustix::process::Pid::from_raw(bench.read("child").trim().parse().expect("a pid")).expect("a pid");
    assert!(alive(&child.as_raw_nonzero().to_string()), "what a script leaves running is its own affair");
    let _ = rustix::process::kill_process(child, rustix::process::Signal::KILL);
}

#[tokio::test]
async fn much_output_is_read_and_not_kept() {
    let bench = Bench::new(&[("create", "head -c 100000000 /dev/zero | tr '\\0' x; echo the end >&2; exit 20")]);
    let effect = create(&bench).await;
    assert!(matches!(&effect, Effect::NoEffect(why) if why.contains("the end") && why.len() < 1000), "{effect:?}");
}

#[tokio::test]
async fn what_a_script_prints_is_fit_for_one_line() {
    let bench = Bench::new(&[("create", "printf 'a\\033[31mred\\nline\\000' >&2; exit 3")]);
    let Effect::Unknown(why) = create(&bench).await else { panic!("exit code 3 is unknown") };
    assert!(!why.chars().any(char::is_control), "{why:?}");
}

#[tokio::test]
async fn a_script_of_a_dead_controller_is_waited_for_and_never_doubled() {
    let body = "echo run >> runs; while [ ! -e go ]; do sleep 0.02; done; touch made; exit 0";
    let list =
        r#"if [ -e made ]; then echo '{"nodes":[{"id":"n1","address":"http://a:1"}]}'; else echo '{"nodes":[]}'; fi"#;
    let bench = Bench::new(&[("create", body), ("list", list), ("destroy", "touch destroyed; exit 0")]);
    let (first, second) = (bench.provider(), bench.provider());
    let asked =
        tokio::spawn(async move { first.create(&call(Duration::from_secs(30)), &NewNode::named(node())).await });
    until("the script", || bench.path("runs").exists()).await;
    asked.abort(); // as good as dead: nobody waits for the script any more
    let _ = asked.await;
    for _ in 0..5 {
        let effect = second.create(&call(Duration::from_secs(30)), &NewNode::named(node())).await;
        assert_eq!(effect, Effect::InProgress);
    }
    let machine = Machine { id: node(), address: String::new(), zone: None, instance: None, ready: None };
    assert_eq!(second.destroy(&call(Duration::from_secs(30)), &machine).await, Effect::InProgress);
    fs::write(bench.path("go"), b"").expect("a file");
    let began = Instant::now();
    let made = loop {
        match second.create(&call(Duration::from_secs(30)), &NewNode::named(node())).await {
            Effect::InProgress if began.elapsed() < Duration::from_secs(10) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            other => break other,
        }
    };
    assert!(matches!(made, Effect::Done(ref machine) if machine.address == "http://a:1"), "{made:?}");
    assert_eq!(bench.read("runs"), "run\n", "the script ran twice");
    assert!(!bench.path("destroyed").exists());
}

#[tokio::test]
async fn a_destroy_in_doubt_is_looked_at_first() {
    let other = r#"echo '{"nodes":[{"id":"n2","address":"http://a:1"}]}'"#;
    let there = r#"echo '{"nodes":[{"id":"n1","address":"http://a:1"},{"id":"n2","address":"http://a:1"}]}'"#;
    // The list after a destroy that ended with code 1; how often the script ran in the end; the second answer.
    for (what, list, runs, expected) in [
        ("it is gone", other, 1, "Done"),
        ("it is there still", there, 2, "Unknown"),
        ("nobody can say", "exit 1", 1, "Unknown"),
        ("an empty list says nothing", r#"echo '{"nodes":[]}'"#, 2, "Unknown"),
    ] {
        let bench = Bench::new(&[("destroy", "echo run >> runs; exit 1"), ("list", list)]);
        let machine = Machine { id: node(), address: String::new(), zone: None, instance: None, ready: None };
        let destroy = || async { bench.provider().destroy(&call(Duration::from_secs(30)), &machine).await };
        assert!(matches!(destroy().await, Effect::Unknown(_)), "{what}");
        let second = format!("{:?}", destroy().await);
        assert!(second.starts_with(expected), "{what}: {second}");
        assert_eq!(bench.read("runs").lines().count(), runs, "{what}");
    }
}

#[tokio::test]
async fn in_progress_is_a_clear_word_and_asked_again() {
    let bench = Bench::new(&[
        ("create", "echo run >> runs; [ $(wc -l < runs) -ge 3 ] || exit 11\n".to_string().as_str()),
        ("list", "echo asked >> lists; exit 1"),
    ]);
    for _ in 0..2 {
        assert_eq!(create(&bench).await, Effect::InProgress);
    }
    assert!(matches!(create(&bench).await, Effect::Unknown(_)), "the third time it says done, but not what");
    assert_eq!((bench.read("runs").lines().count(), bench.read("lists").as_str()), (3, ""));
}

#[tokio::test]
async fn whoever_was_given_the_lock_later_is_not_ended_with_the_script_before() {
    let bench = Bench::new(&[]);
    let lock = bench.path("lock");
    for has_passed_on in [true, false] {
        let stdin = fs::File::create(&lock).expect("a file");
        let mut command = tokio::process::Command::new("sleep");
        let mut holder = command.arg("60").stdin(stdin).process_group(0).kill_on_drop(true).spawn().expect("sleep");
        assert_eq!(end::Traces::of_lock(&lock, [].into(), move || has_passed_on).end().await, 0);
        let ended = holder.try_wait().expect("a child of ours").is_some();
        assert_eq!(ended, !has_passed_on);
    }
}
