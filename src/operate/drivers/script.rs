//! Provider by scripts of the user's: JSON in, JSON and an exit code out. What a script says beyond the contract is
//! "unknown", and no two scripts ever work on one node at a time, not even over a crash of the controller.

mod run;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};

use self::run::{Ran, Script};
use super::written::{created, creation, listed};
use super::{Call, Effect, NewNode, Places, Provider, ScriptSettings, Unanswered, Victim};
use crate::model::{Machine, NodeId, PoolName};

/// A list is asked for at every check: it has to be quick.
const LIST_DEADLINE: Duration = Duration::from_secs(30);

/// Makes, destroys and lists nodes by running scripts.
pub struct ScriptProvider {
    pool: PoolName,
    settings: ScriptSettings,
    /// Where the locks of running scripts are.
    locks: PathBuf,
}

/// Why a script was not started.
enum NotStarted {
    /// A script for this node is still running, of this controller or of one before.
    Running,
    Failed(String),
}

impl ScriptProvider {
    pub fn new(pool: PoolName, settings: ScriptSettings, places: &Places) -> ScriptProvider {
        ScriptProvider { pool, settings, locks: places.storage.join("scripts") }
    }

    fn environment(&self, call: Option<(&Call, &NodeId)>) -> BTreeMap<String, String> {
        let kept = ["PATH", "HOME", "LANG"].map(|name| std::env::var(name).ok().map(|value| (name.to_string(), value)));
        let mut environment: BTreeMap<String, String> = kept.into_iter().flatten().collect();
        environment.extend(self.settings.env.clone());
        environment.insert("VECSCALE_CONTRACT".into(), "1".into());
        environment.insert("VECSCALE_POOL".into(), self.pool.to_string());
        if let Some((call, node)) = call {
            environment.insert("VECSCALE_OPERATION".into(), call.operation.to_string());
            environment.insert("VECSCALE_STEP".into(), call.step.into());
            environment.insert("VECSCALE_KEY".into(), call.key.clone());
            environment.insert("VECSCALE_FENCE".into(), call.fence.to_string());
            environment.insert("VECSCALE_NODE".into(), node.to_string());
        }
        environment
    }

    /// Runs a script that changes something. Its stdin is the lock file of the node with the input in it: so the
    /// script holds the lock for as long as it lives, whatever becomes of the controller, and no write to it can block.
    async fn change(&self, argv: &[String], call: &Call, mut lock: Lock, input: &Value) -> Result<Ran, NotStarted> {
        let stdin = lock.filled(input).map_err(|e| NotStarted::Failed(e.to_string()))?;
        let script = Script {
            argv,
            environment: self.environment(Some((call, &lock.node))),
            deadline: call.deadline,
            keep: run::KEEP,
        };
        let ran = script.run(stdin.into(), None).await.map_err(NotStarted::Failed)?;
        lock.ended(ran.code);
        Ok(ran)
    }

    fn take(&self, call: &Call, node: &NodeId) -> Result<Lock, NotStarted> {
        let path = self.locks.join(format!("{:016x}.lock", hash(&format!("{}/{node}", call.pool))));
        let failed = |e: io::Error| NotStarted::Failed(format!("{}: {e}", path.display()));
        DirBuilder::new().recursive(true).mode(0o700).create(&self.locks).map_err(failed)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(NotStarted::Running),
            Err(e) => return Err(failed(e.into())),
        }
        let unfinished = file.metadata().map_err(failed)?.len() > 0;
        Ok(Lock { node: node.clone(), path, file, unfinished })
    }
}

/// The right to run a script on one node. Other processes see it as held until the script has ended too.
struct Lock {
    node: NodeId,
    path: PathBuf,
    file: File,
    /// A script of before ended without a clear word: nobody knows what it did.
    unfinished: bool,
}

impl Lock {
    /// A handle that reads the input from its start.
    fn filled(&mut self, input: &Value) -> io::Result<File> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(input.to_string().as_bytes())?;
        self.file.rewind()?;
        self.file.try_clone()
    }

    /// After a clear word the next script starts from nothing; after any other the file stays as a warning.
    fn ended(&self, code: Option<i32>) {
        let _ = match code {
            Some(0 | 10 | 20) => fs::remove_file(&self.path),
            // Work that goes on in the background may still hold the lock.
            Some(11) => self.file.set_len(0),
            _ => Ok(()),
        };
    }
}

/// FNV-1a: a name for a file, from a text that must not be one.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// The exit codes of the contract.
fn effect(ran: Result<Ran, NotStarted>) -> Effect<Vec<u8>> {
    match ran {
        Err(NotStarted::Running) => Effect::InProgress,
        Err(NotStarted::Failed(why)) => Effect::NoEffect(format!("the script could not be started: {why}")),
        Ok(ran) => match ran.code {
            Some(0 | 10) => Effect::Done(ran.stdout),
            Some(11) => Effect::InProgress,
            Some(20) => Effect::NoEffect(ran.said("failed with no effect")),
            Some(code) => Effect::Unknown(ran.said(&format!("exit code {code}"))),
            None => Effect::Unknown(ran.said(&ran.ending)),
        },
    }
}

#[async_trait]
impl Provider for ScriptProvider {
    async fn list(&self) -> Result<Vec<Machine>, Unanswered> {
        let failed = |why: String| Unanswered(format!("list script {:?}: {why}", self.settings.list.first()));
        let (argv, environment) = (&self.settings.list, self.environment(None));
        let script = Script { argv, environment, deadline: LIST_DEADLINE, keep: run::KEEP_LIST };
        let input = json!({"contract": 1, "pool": self.pool}).to_string();
        let ran = script.run(std::process::Stdio::piped(), Some(input)).await.map_err(failed)?;
        match ran.code {
            Some(0) => listed("its stdout", &ran.stdout).map_err(failed),
            Some(code) => Err(failed(ran.said(&format!("exit code {code}")))),
            None => Err(failed(ran.said(&ran.ending))),
        }
    }

    async fn create(&self, call: &Call, new: &NewNode) -> Effect<Machine> {
        let node = &new.id;
        let lock = match self.take(call, node) {
            Ok(lock) => lock,
            Err(NotStarted::Running) => return Effect::InProgress,
            Err(NotStarted::Failed(why)) => return Effect::NoEffect(why),
        };
        if lock.unfinished {
            match self.list().await {
                Ok(machines) => {
                    if let Some(machine) = machines.into_iter().find(|machine| machine.id == *node) {
                        lock.ended(Some(10));
                        return Effect::Done(machine);
                    }
                }
                Err(why) => return Effect::Unknown(format!("an earlier run ended without a word, and now: {why}")),
            }
        }
        match effect(self.change(&self.settings.create, call, lock, &creation(call, new)).await) {
            Effect::Done(stdout) => created("its stdout", &stdout, node).map_or_else(Effect::Unknown, Effect::Done),
            Effect::InProgress => Effect::InProgress,
            Effect::NoEffect(why) => Effect::NoEffect(why),
            Effect::Unknown(why) => Effect::Unknown(why),
        }
    }

    async fn destroy(&self, call: &Call, machine: &Machine) -> Effect<()> {
        let mut input = json!({
            "contract": 1, "pool": call.pool, "node": machine.id, "address": machine.address,
            "operation": call.operation,
        });
        if let Some(instance) = &machine.instance {
            input["instance"] = instance.as_str().into();
        }
        let ran = match self.take(call, &machine.id) {
            Ok(lock) => self.change(&self.settings.destroy, call, lock, &input).await,
            Err(why) => Err(why),
        };
        effect(ran).map(drop)
    }

    fn victim(&self) -> Victim {
        self.settings.victim
    }

    fn timeout(&self) -> Duration {
        self.settings.timeout
    }
}

#[cfg(test)]
mod tests;
