//! The hooks under `deploy/hooks`, run for real against doubles of `ssh`, of Docker's engine and of `kubectl`, each with a
//! ledger of its own: what they do happens once, and what is not theirs or not plain is refused.

#[path = "../common/mod.rs"]
mod common;

mod docker;
mod kubernetes;
mod systemd_ssh;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::tools::has;
use vecscale::model::{Machine, NodeId, OperationId};
use vecscale::operate::drivers::script::ScriptProvider;
use vecscale::operate::drivers::{Call, Effect, NewNode, Places, Provider, ScriptSettings, Victim};

/// One set of hooks, with what they need in their environment.
struct Hooks {
    folder: PathBuf,
    dir: tempfile::TempDir,
    env: BTreeMap<String, String>,
}

/// How a hook ended that was run by itself.
struct Ended {
    code: Option<i32>,
    stderr: String,
}

impl Hooks {
    fn new(name: &str, env: &[(&str, &str)]) -> Hooks {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/hooks").join(name);
        let dir = tempfile::tempdir().expect("a folder");
        let mut all: BTreeMap<String, String> = env.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let bin = dir.path().join("bin");
        fs::create_dir(&bin).expect("a folder");
        let path = std::env::var("PATH").expect("a PATH");
        all.insert("PATH".into(), format!("{}:{path}", bin.display()));
        all.insert("HOOK_STATE".into(), dir.path().join("state").display().to_string());
        all.insert("DOUBLE".into(), dir.path().display().to_string());
        Hooks { folder, dir, env: all }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A program of ours in the place of one that the hooks call.
    fn double(&self, name: &str, text: &str) {
        common::script(&self.path("bin").join(name), text);
    }

    fn ledger(&self) -> Vec<String> {
        fs::read_to_string(self.path("ledger")).unwrap_or_default().lines().map(Into::into).collect()
    }

    fn provider(&self) -> ScriptProvider {
        let argv = |name: &str| vec![self.folder.join(name).display().to_string()];
        let settings = ScriptSettings {
            create: argv("create"),
            destroy: argv("destroy"),
            list: argv("list"),
            timeout: Duration::from_secs(30),
            victim: Victim::Any,
            env: self.env.clone(),
        };
        ScriptProvider::new("default".into(), settings, &Places { storage: self.path("data") })
    }

    async fn create(&self, name: &str, fence: u64, zone: Option<&str>) -> Effect<Machine> {
        let new = NewNode { zone: zone.map(Into::into), ..NewNode::named(node(name)) };
        self.provider().create(&call("create", fence), &new).await
    }

    async fn created(&self, name: &str) -> Machine {
        match self.create(name, 5, None).await {
            Effect::Done(machine) => machine,
            other => panic!("{name}: {other:?}\n{:#?}", self.ledger()),
        }
    }

    async fn destroy(&self, name: &str, fence: u64) -> Effect<()> {
        let machine = Machine { id: node(name), address: "http://h:1".into(), zone: None, instance: None, ready: None };
        self.provider().destroy(&call("destroy", fence), &machine).await
    }

    async fn listed(&self) -> Vec<Machine> {
        self.provider().list().await.unwrap_or_else(|why| panic!("{why}\n{:#?}", self.ledger()))
    }

    async fn names(&self) -> Vec<String> {
        self.listed().await.into_iter().map(|machine| machine.id.to_string()).collect()
    }

    /// Runs one hook by itself, with a node as it never comes from vecscale.
    fn run(&self, hook: &str, node: &str) -> Ended {
        let mut command = Command::new(self.folder.join(hook));
        command.env_clear().envs(&self.env).stdin(Stdio::null());
        command.envs([("VECSCALE_POOL", "default"), ("VECSCALE_KEY", "op/1"), ("VECSCALE_FENCE", "5")]);
        let ended = command.env("VECSCALE_NODE", node).output().expect("a hook");
        Ended { code: ended.status.code(), stderr: String::from_utf8_lossy(&ended.stderr).into_owned() }
    }

    /// What is no name is refused before anybody hears of it.
    fn refuses_what_is_no_name(&self) {
        let before = self.ledger();
        let long = "x".repeat(64);
        for name in ["", "..", "../n1", "-rf", "a b", "$(touch pwned)", "a;b", "a\nb", "a/b", "é", "*", "'", &long] {
            for hook in ["create", "destroy"] {
                let ended = self.run(hook, name);
                assert_eq!(ended.code, Some(20), "{hook} {name:?}: {}", ended.stderr);
                assert!(ended.stderr.contains("not the name of a node"), "{hook} {name:?}: {}", ended.stderr);
            }
        }
        assert_eq!(self.ledger(), before);
    }
}

fn node(name: &str) -> NodeId {
    NodeId::new(name).expect("a name")
}

fn call(step: &'static str, fence: u64) -> Call {
    Call {
        pool: "default".into(),
        operation: OperationId("op".into()),
        step,
        key: "op/1".into(),
        fence,
        deadline: Duration::from_secs(30),
    }
}

/// Refused with no effect, for this reason.
fn refused<T: std::fmt::Debug>(effect: Effect<T>, why: &str) {
    assert!(matches!(&effect, Effect::NoEffect(said) if said.contains(why)), "not refused with {why:?}: {effect:?}");
}

fn all_hooks() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/hooks");
    let folders = ["systemd-ssh", "docker", "kubernetes"].map(|name| root.join(name));
    let of = |folder: &PathBuf| ["create", "destroy", "list"].map(|hook| folder.join(hook));
    folders.iter().flat_map(of).collect()
}

#[test]
fn every_hook_is_plain_shell() {
    for hook in all_hooks() {
        let parsed = Command::new("sh").arg("-n").arg(&hook).status().expect("sh");
        assert!(parsed.success(), "{}", hook.display());
    }
    if has("shellcheck", "shellcheck") {
        let judged = Command::new("shellcheck")
            .args(["--external-sources", "--source-path=SCRIPTDIR", "--shell=sh"])
            .args(all_hooks())
            .output()
            .expect("shellcheck");
        assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stdout));
    }
}
