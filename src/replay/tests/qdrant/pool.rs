//! The way to a site on which requests fail as told, and the controller may die before and after each that changes
//! something.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use fastrand::Rng;
use http::Method;
use tokio::time::sleep;

use super::site::Site;
use crate::model::Machine;
use crate::operate::drivers::qdrant::Qdrant;
use crate::operate::drivers::qdrant::api::{Answer, Api, ApiError, Request};
use crate::operate::drivers::{Call, Datastore, Effect, NewNode, Provider, Unanswered};
use crate::replay::Fault;
use crate::replay::faults::{Crash, Faults};
use crate::replay::mortal::{Witness, Written};
use crate::replay::tests::bench::Scene;

pub struct Pool {
    pub site: Arc<Site>,
    crash: Crash,
    faults: Mutex<(Faults, Rng)>,
}

/// What is told instead of what became of a change.
struct Instead<T> {
    refused: T,
    /// Nobody knows.
    lost: T,
    /// How long whoever asks waits for an answer.
    patience: Duration,
}

impl Pool {
    pub fn new(site: Site, seed: u64) -> Arc<Pool> {
        let faults = Mutex::new((Faults::default(), Rng::with_seed(seed)));
        Arc::new(Pool { site: Arc::new(site), crash: Crash::default(), faults })
    }

    fn faults(&self) -> MutexGuard<'_, (Faults, Rng)> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One call that changes something. What comes late, or twice, comes whoever is alive by then.
    async fn change<T, F>(&self, name: &'static str, on: &str, deed: impl Fn() -> F, instead: Instead<T>) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        self.crash.point().await;
        let fault = {
            let (faults, rng) = &mut *self.faults();
            faults.of_call(rng, name, "")
        };
        let told = fault.map(|fault| format!(" ({fault:?})")).unwrap_or_default();
        self.site.tells(format!("{name} {on}{told}"));
        let later = |after: Duration| {
            self.site.books().has_echoes = true;
            let deed = deed();
            tokio::spawn(async move {
                sleep(after).await;
                deed.await
            });
        };
        let told = match fault {
            None => deed().await,
            Some(Fault::Refuse | Fault::Wrong | Fault::InProgress) => instead.refused,
            Some(Fault::Lose | Fault::Hang) => {
                sleep(instead.patience).await;
                instead.lost
            }
            Some(Fault::LoseAnswer) => {
                deed().await;
                instead.lost
            }
            Some(Fault::Late(after)) => {
                later(after);
                instead.lost
            }
            Some(Fault::Slow(after)) => {
                sleep(after).await;
                deed().await
            }
            Some(Fault::Double(after)) => {
                let told = deed().await;
                later(after);
                told
            }
        };
        self.crash.point().await;
        told
    }
}

/// The kind of request, and what it is about.
fn named(request: &Request) -> (&'static str, String) {
    let body = request.body.as_ref();
    let order = body.and_then(|body| body.as_object()?.keys().next().cloned()).unwrap_or_default();
    let name = match (order.as_str(), &request.method) {
        (_, &Method::DELETE) => "remove peer",
        ("replicate_shard", _) => "replicate",
        ("drop_replica", _) => "drop",
        ("abort_transfer", _) => "abort",
        ("peers", _) => "keep cordons",
        _ => "keep names",
    };
    (name, format!("{} {}", request.path, body.map(ToString::to_string).unwrap_or_default()))
}

#[async_trait]
impl Api for Pool {
    async fn ask(&self, address: &str, request: Request) -> Result<Answer, ApiError> {
        if request.method == Method::GET {
            return self.site.wire.ask(address, request).await;
        }
        let error = "Service internal error: Failed to propose operation: leader is not established within 10s";
        let refused = Answer { status: 500, body: serde_json::json!({"status": {"error": error}}).to_string() };
        let (refused, lost) = (Ok(refused), Err(ApiError::Lost("connection reset".into())));
        let instead = Instead { refused, lost, patience: request.timeout };
        let (name, on) = named(&request);
        let deed = || {
            let (site, address, request) = (self.site.clone(), address.to_string(), request.clone());
            async move { site.asks(&address, request).await }
        };
        self.change(name, &on, deed, instead).await
    }
}

fn instead<T>() -> Instead<Effect<T>> {
    let (refused, lost) = (Effect::NoEffect("refused".into()), Effect::Unknown("connection reset".into()));
    Instead { refused, lost, patience: Duration::from_secs(30) }
}

#[async_trait]
impl Provider for Pool {
    async fn list(&self) -> Result<Vec<Machine>, Unanswered> {
        Ok(self.site.books().machines.values().cloned().collect())
    }

    async fn create(&self, call: &Call, new: &NewNode) -> Effect<Machine> {
        let deed = || {
            let (site, fence, new) = (self.site.clone(), call.fence, new.clone());
            async move { site.creates(fence, &new) }
        };
        self.change("create", new.id.as_str(), deed, instead()).await
    }

    async fn destroy(&self, call: &Call, machine: &Machine) -> Effect<()> {
        let deed = || {
            let (site, fence, id) = (self.site.clone(), call.fence, machine.id.clone());
            async move { site.destroys(fence, &id) }
        };
        self.change("destroy", machine.id.as_str(), deed, instead()).await
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(60)
    }
}

impl Witness for Pool {
    fn crash(&self) -> &Crash {
        &self.crash
    }

    fn wrote(&self, _fence: u64, what: Written<'_>) {
        if let Written::Opened(operation) | Written::Updated(operation, _) = what {
            self.site.books().operation = Some(operation.clone());
        }
    }
}

impl Scene for Pool {
    /// A driver that remembers nothing of the one before.
    fn reach(self: &Arc<Pool>) -> (Arc<dyn Provider>, Arc<dyn Datastore>) {
        (self.clone(), Arc::new(Qdrant::new(self.clone(), self.clone())))
    }

    fn set_faults(&self, set: impl FnOnce(&mut Faults)) {
        set(&mut self.faults().0);
    }

    fn ledger(&self) -> Vec<String> {
        self.site.books().ledger.clone()
    }

    fn check(&self) -> Result<(), String> {
        self.site.check()
    }
}
