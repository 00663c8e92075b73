//! How every script of a pool is called, a provider's or a datastore's: its environment, its lock, its deadline, and
//! what its exit code means.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::oneshot;

use super::lock::{self, Lock, NotTaken};
use super::run::{self, Input, Ran, Script};
use crate::model::{NodeId, PoolName, ShardId};
use crate::operate::drivers::{Call, Effect, Places, Unanswered};

/// A read is asked for at every check: it has to be quick.
const READ_DEADLINE: Duration = Duration::from_secs(30);

/// What the scripts of one pool have in common.
pub struct Scripts {
    pool: PoolName,
    /// Added to the cleared environment.
    env: BTreeMap<String, String>,
    /// Where the locks of running scripts are.
    locks: PathBuf,
}

/// What a call works on: no two scripts ever work on one at a time.
#[derive(Clone, Copy)]
pub enum Subject<'a> {
    Node(&'a NodeId),
    Shard(&'a ShardId),
}

/// A script that changes something.
pub struct Order<'a> {
    pub argv: &'a [String],
    pub call: &'a Call,
    pub subject: Subject<'a>,
    pub input: &'a Value,
    /// The longest it may run, if the step allows so much.
    pub limit: Duration,
}

/// Where the locks are, of all pools.
pub fn folder(places: &Places) -> PathBuf {
    places.storage.join("scripts")
}

impl Scripts {
    pub fn new(pool: PoolName, env: BTreeMap<String, String>, places: &Places) -> Scripts {
        Scripts { pool, env, locks: folder(places) }
    }

    pub fn pool(&self) -> &PoolName {
        &self.pool
    }

    fn environment(&self, order: Option<&Order<'_>>) -> BTreeMap<String, String> {
        let kept = ["PATH", "HOME", "LANG"].map(|name| std::env::var(name).ok().map(|value| (name.to_string(), value)));
        let mut environment: BTreeMap<String, String> = kept.into_iter().flatten().collect();
        environment.extend(self.env.clone());
        environment.insert("VECSCALE_CONTRACT".into(), "1".into());
        environment.insert("VECSCALE_POOL".into(), self.pool.to_string());
        if let Some(Order { call, subject, .. }) = order {
            environment.insert("VECSCALE_OPERATION".into(), call.operation.to_string());
            environment.insert("VECSCALE_STEP".into(), call.step.into());
            environment.insert("VECSCALE_KEY".into(), call.key.clone());
            environment.insert("VECSCALE_FENCE".into(), call.fence.to_string());
            if let Subject::Node(node) = subject {
                environment.insert("VECSCALE_NODE".into(), node.to_string());
            }
        }
        environment
    }

    /// Runs a script that only reads, and gives what it printed. A task of its own ends it in time, should its caller
    /// not wait so long.
    ///
    /// # Errors
    /// Whatever is not a clear answer, in words that name the script.
    pub async fn read(&self, argv: &[String], input: &Value) -> Result<Vec<u8>, String> {
        let failed = |why: String| format!("script {:?}: {why}", argv.first());
        let (argv, environment) = (argv.to_vec(), self.environment(None));
        let script = Script { argv, environment, deadline: READ_DEADLINE, keep: run::KEEP_LIST };
        let input = Input::Text(input.to_string());
        let ran = tokio::spawn(async move { script.run(input).await }).await;
        let ran = ran.unwrap_or_else(|_| Err("its task has ended".into())).map_err(&failed)?;
        match ran.code {
            Some(0) => Ok(ran.stdout),
            Some(code) => Err(failed(ran.said(&format!("exit code {code}")))),
            None => Err(failed(ran.said(&ran.ending))),
        }
    }

    /// Runs a script that changes something; `parse` reads what it printed when it is done. After a script that ended
    /// without a clear word `already` is asked first, and what it finds is taken for done.
    pub async fn change<T>(
        &self,
        order: Order<'_>,
        already: impl Future<Output = Result<Option<T>, Unanswered>> + Send,
        parse: impl Fn(&[u8]) -> Result<T, String> + Send,
    ) -> Effect<T> {
        let lock = match self.take(&order).await {
            Ok(lock) => lock,
            Err(NotTaken::Held) => return Effect::InProgress,
            Err(NotTaken::Failed(why)) => return Effect::NoEffect(not_started(&why)),
        };
        if lock.unfinished {
            match already.await {
                Ok(Some(found)) => {
                    lock.ended(Some(10));
                    return Effect::Done(found);
                }
                Ok(None) => {}
                Err(why) => return Effect::Unknown(format!("an earlier run ended without a word, and now: {why}")),
            }
        }
        match self.run(&order, lock).await {
            None => Effect::Unknown("nobody knows how the script ended".into()),
            Some(Err(why)) => Effect::NoEffect(not_started(&why)),
            Some(Ok(ran)) => match ran.code {
                Some(0 | 10) => parse(&ran.stdout).map_or_else(Effect::Unknown, Effect::Done),
                Some(11) => Effect::InProgress,
                Some(20) => Effect::NoEffect(ran.said("failed with no effect")),
                Some(code) => Effect::Unknown(ran.said(&format!("exit code {code}"))),
                None => Effect::Unknown(ran.said(&ran.ending)),
            },
        }
    }

    async fn take(&self, order: &Order<'_>) -> Result<Lock, NotTaken> {
        let pool = &self.pool;
        let subject = match order.subject {
            Subject::Node(node) => format!("{pool}/{node}"),
            Subject::Shard(shard) => format!("{pool}/{shard}"),
        };
        Lock::take(&self.locks, &subject).await
    }

    /// Runs it in a task of its own, so that its deadline is kept even when nobody waits for it any more.
    async fn run(&self, order: &Order<'_>, mut lock: Lock) -> Option<Result<Ran, String>> {
        let script = Script {
            argv: order.argv.to_vec(),
            environment: self.environment(Some(order)),
            deadline: order.call.deadline.min(order.limit),
            keep: run::KEEP,
        };
        let stdin = lock.filled(&order.call.key, script.deadline, order.input);
        let stdin = match stdin {
            Ok(stdin) => stdin,
            Err(e) => return Some(Err(format!("{}: {e}", lock.path().display()))),
        };
        let (answer, answered) = oneshot::channel();
        tokio::spawn(async move {
            let ran = script.run(Input::Locked(stdin, lock.path().into())).await;
            let code = match &ran {
                Err(_) => Some(20), // never started
                Ok(ran) => ran.code,
            };
            // A word that nobody hears is none: the next call is to look first.
            if !answer.is_closed() {
                lock.ended(code);
            }
            let path = lock.path().to_path_buf();
            drop(lock);
            // What it left in the background may go on, but not for longer than the script itself.
            let works_on = !matches!(code, None | Some(0 | 10 | 20)) && lock::is_held(&path).await;
            let _ = answer.send(ran);
            if works_on {
                lock::guard(path).await;
            }
        });
        answered.await.ok()
    }
}

fn not_started(why: &str) -> String {
    format!("the script could not be started: {why}")
}

/// Guards the scripts that a controller of before left running, and keeps what this process was itself started with
/// from those to come. Call it once, before any script is started.
pub async fn prepare(storage: &Path) {
    run::seal_descriptors();
    lock::adopt(&folder(&Places { storage: storage.into() })).await;
}
