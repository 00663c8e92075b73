//! Scripts and texts that mean no good, or do none: whatever they do, an outcome that nobody knows is told as unknown,
//! and nobody of theirs is left.

use proptest::prelude::*;

use super::*;

#[tokio::test]
async fn a_script_that_hangs_is_ended_with_all_its_children() {
    // The script dies by TERM; the child that ignores TERM dies with the group.
    let body = "(trap '' TERM; echo $$ > child; while :; do sleep 0.1; done) & echo $$ > parent; \
                sh -c 'trap \"\" TERM; echo $$ > stubborn; while :; do sleep 0.1; done' & wait";
    let bench = Bench::new(&[("create", body)]);
    let began = Instant::now();
    let effect = bench.provider().create(&call(Duration::from_secs(1)), &NewNode::named(node())).await;
    assert!(matches!(&effect, Effect::Unknown(why) if why.contains("not done within 1 s")), "{effect:?}");
    assert!(began.elapsed() > Duration::from_secs(10), "a child has its grace too: {:?}", began.elapsed());
    for name in ["parent", "stubborn"] {
        let pid = bench.read(name);
        until(name, || !alive(&pid)).await;
    }
}

#[tokio::test]
async fn term_is_enough_for_those_that_heed_it() {
    let bench = Bench::new(&[("create", "trap 'echo bye > said; exit 0' TERM; echo $$ > parent; sleep 60 & wait")]);
    let began = Instant::now();
    let effect = bench.provider().create(&call(Duration::from_secs(1)), &NewNode::named(node())).await;
    assert!(matches!(effect, Effect::Unknown(_)), "{effect:?}");
    assert!(began.elapsed() < Duration::from_secs(8), "nobody is waited for who is gone: {:?}", began.elapsed());
    assert_eq!(bench.read("said"), "bye\n", "it had its chance to clean up");
}

/// A child in a session of its own is no member of the group: it is known by the lock, or by the output that it holds.
#[tokio::test]
async fn a_child_in_its_own_session_is_ended_too() {
    for (what, child) in [
        ("holds the lock", "setsid sleep 300 <&3 >/dev/null 2>&1 &"),
        ("holds the output", "setsid sleep 300 </dev/null 3<&- &"),
        ("ignores TERM", "setsid sh -c 'trap \"\" TERM; while :; do sleep 0.2; done' <&3 &"),
    ] {
        let body = format!("exec 3<&0; {child}\necho $! > child; sleep 300");
        let bench = Bench::new(&[("create", &body)]);
        let effect = bench.provider().create(&call(Duration::from_secs(1)), &NewNode::named(node())).await;
        assert!(matches!(&effect, Effect::Unknown(why) if !why.contains("could not be ended")), "{what}: {effect:?}");
        let pid = bench.read("child");
        assert!(!pid.is_empty() && !alive(&pid), "{what}: {pid} is left");
    }
}

/// Each of these lives for a moment only and starts the next, in a session of its own: signals to one of them come late.
#[tokio::test]
async fn one_that_runs_away_is_caught() {
    let bench = Bench::new(&[("create", "exec 3<&0; setsid ./walk & sleep 300")]);
    let step = "trap '' TERM; echo step >> steps; sleep 0.05; setsid ./walk &";
    fs::write(bench.path("walk"), format!("#!/bin/sh\n{step}\n")).expect("a script");
    fs::set_permissions(bench.path("walk"), fs::Permissions::from_mode(0o700)).expect("a mode");
    let effect = bench.provider().create(&call(Duration::from_secs(1)), &NewNode::named(node())).await;
    assert!(matches!(&effect, Effect::Unknown(why) if !why.contains("could not be ended")), "{effect:?}");
    let steps = || bench.read("steps").lines().count();
    let before = steps();
    assert!(before > 3, "{before} steps");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(steps(), before, "it walks on");
}

/// What the next controller does with a script that the one before left running.
#[tokio::test]
async fn an_adopted_script_is_held_to_the_deadline_that_it_was_started_with() {
    let bench = Bench::new(&[("create", "echo run >> runs; exec sleep 300"), ("list", r#"echo '{"nodes":[]}'"#)]);
    // As a controller leaves it: the script holds the lock as its stdin, the record is beside it, nobody waits.
    let locks = bench.path("storage").join("scripts");
    let Ok(mut lock) = lock::Lock::take(&locks, "p/n1").await else { panic!("the lock is free") };
    let stdin = lock.filled("op/1", Duration::from_secs(2), &json!({})).expect("a lock file");
    let mut script = std::process::Command::new(bench.path("create"));
    let mut child = std::os::unix::process::CommandExt::process_group(&mut script, 0).stdin(stdin).spawn().expect("sh");
    drop((lock, script));
    let began = Instant::now();
    calls::prepare(&bench.path("storage")).await;
    let provider = bench.provider();
    let asked = || async { provider.create(&call(Duration::from_secs(1)), &NewNode::named(node())).await };
    while began.elapsed() < Duration::from_millis(1500) {
        assert_eq!(asked().await, Effect::InProgress);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let status = tokio::task::spawn_blocking(move || child.wait()).await.expect("a thread").expect("its end");
    assert!(!status.success() && began.elapsed() < Duration::from_secs(8), "{status} after {:?}", began.elapsed());
    assert_eq!(bench.read("runs"), "run\n");
    // What it did is looked at before anything is repeated.
    let found = Bench::new(&[("list", r#"echo '{"nodes":[{"id":"n1","address":"http://a:1"}]}'"#)]);
    fs::copy(found.path("list"), bench.path("list")).expect("another list");
    let effect = asked().await;
    assert!(matches!(effect, Effect::Done(_)), "{effect:?}");
    assert_eq!(bench.read("runs"), "run\n", "it was there already");
}

#[tokio::test]
async fn a_start_that_may_succeed_a_little_later_is_tried_again() {
    let bench = Bench::new(&[("create", GOOD)]);
    // A program that is open for writing cannot be started: one of the lacks that pass.
    let writing = fs::OpenOptions::new().append(true).open(bench.path("create")).expect("the script");
    let asked = tokio::spawn({
        let provider = bench.provider();
        async move { provider.create(&call(Duration::from_secs(30)), &NewNode::named(node())).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!asked.is_finished());
    drop(writing);
    let effect = asked.await.expect("no panic");
    assert!(matches!(effect, Effect::Done(_)), "{effect:?}");
}

#[tokio::test]
async fn a_script_sees_its_three_descriptors_and_no_other() {
    run::seal_descriptors(); // those that the tests were started with
    let bench = Bench::new(&[("create", "exec > fds; ls /proc/$$/fd; exit 20")]);
    let effect = create(&bench).await;
    assert!(matches!(effect, Effect::NoEffect(_)), "{effect:?}");
    let fds: Vec<u32> = bench.read("fds").lines().filter_map(|fd| fd.parse().ok()).collect();
    // The shell itself keeps its script open, at 10 or above.
    assert_eq!(fds.iter().filter(|fd| **fd < 10).collect::<Vec<_>>(), [&0, &1, &2], "{fds:?}");
    assert!(fds.len() <= 4, "{fds:?}");
}

#[tokio::test]
async fn closed_ends_disturb_nobody() {
    for (what, body, expected) in [
        ("stdin unread", "exec <&-; echo '{\"id\":\"n1\",\"address\":\"http://a:1\"}'", "Done"),
        ("stdout closed", "exec >&-; sleep 0.2; exit 20", "NoEffect"),
        ("all closed", "exec <&- >&- 2>&-; sleep 0.2; exit 10", "Unknown"),
    ] {
        let found = format!("{:?}", create(&Bench::new(&[("create", body)])).await);
        assert!(found.starts_with(expected), "{what}: {found}");
    }
}

/// Texts that have been somebody's undoing, and any others.
fn hostile() -> impl Strategy<Value = String> {
    let known = [
        "$(touch pwned)",
        "`touch pwned`",
        "'; touch pwned; '",
        "\"",
        "../../etc/passwd",
        "-rf",
        "a\nb",
        "a\0b",
        "%s%n",
    ];
    prop_oneof![
        proptest::sample::select(known.map(String::from).to_vec()),
        ".{0,200}",
        Just("x".repeat(10_000)),
        proptest::collection::vec(any::<char>(), 0..50).prop_map(|chars| chars.into_iter().collect()),
    ]
}

/// What a script sees of itself besides its input: arguments and environment, as the kernel has them.
const LEDGER: &str = "cat > input; cat /proc/$$/cmdline /proc/$$/environ > seen; exit 20";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// E-07: a text reaches a script in its input, whole, and nowhere else.
    #[test]
    fn a_text_becomes_no_argument_path_or_variable(text in hostile(), other in hostile()) {
        prop_assert!(NodeId::new(&text).is_err() || text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)));
        let bench = Bench::new(&[("create", LEDGER), ("destroy", LEDGER)]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let seen = |new: NewNode, machine: Machine| {
            runtime.block_on(async {
                let call = call(Duration::from_secs(30));
                let made = bench.provider().create(&call, &new).await;
                let created = (bench.read("input"), fs::read(bench.path("seen")).expect("a ledger"));
                let removed = bench.provider().destroy(&call, &machine).await;
                assert!(matches!((&made, &removed), (Effect::NoEffect(_), Effect::NoEffect(_))), "{made:?} {removed:?}");
                (created, (bench.read("input"), fs::read(bench.path("seen")).expect("a ledger")))
            })
        };
        let machine = |address: &str, instance: &str| Machine {
            id: node(), address: address.into(), zone: None, instance: Some(instance.into()), ready: None,
        };
        let plain = seen(NewNode { zone: Some("a".into()), ..NewNode::named(node()) }, machine("b", "c"));
        let files = |bench: &Bench| fs::read_dir(bench.dir.path()).expect("the folder").count();
        let before = files(&bench);
        let found = seen(NewNode { zone: Some(text.clone()), ..NewNode::named(node()) }, machine(&text, &other));
        prop_assert_eq!(&found.0.1, &plain.0.1);
        prop_assert_eq!(&found.1.1, &plain.1.1);
        let input = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
        prop_assert_eq!(&input(&found.0.0)["zone"], &json!(text));
        prop_assert_eq!(&input(&found.1.0)["address"], &json!(text));
        prop_assert_eq!(&input(&found.1.0)["instance"], &json!(other));
        prop_assert_eq!(files(&bench), before, "a text became a file");
    }
}

#[tokio::test]
async fn a_script_that_ignores_term_is_killed() {
    let bench = Bench::new(&[("create", "trap '' TERM; echo $$ > parent; while :; do sleep 0.1; done")]);
    let effect = bench.provider().create(&call(Duration::from_secs(1)), &NewNode::named(node())).await;
    assert!(matches!(effect, Effect::Unknown(_)), "{effect:?}");
    let pid = bench.read("parent");
    until("the script", || !alive(&pid)).await;
}
