//! API keys: one that may do everything, one that may read.

use super::cluster::Cluster;
use super::reply::{Refusal, Reply, millis, text};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    pub full: String,
    pub read_only: String,
}

/// Asked without a key.
const OPEN: [&str; 3] = ["/healthz", "/livez", "/readyz"];

impl Cluster {
    /// What is answered instead when `key` (`api-key`, or a bearer token) does not do for the request; `None`: it does.
    pub fn refuses(&self, key: Option<&str>, method: &str, path: &str) -> Option<Reply> {
        let keys = self.keys.as_ref()?;
        let path = path.split('?').next().unwrap_or_default();
        if OPEN.contains(&path) {
            return None;
        }
        match key {
            None => Some(text(401, "Must provide an API key or an Authorization bearer token", millis(2))),
            Some(key) if key == keys.full => None,
            Some(key) if key == keys.read_only && reads(method, path) => None,
            Some(key) if key == keys.read_only => {
                let error = "Forbidden: Global manage access is required".into();
                Some(Refusal { status: 403, error }.after(millis(2)))
            }
            Some(_) => Some(text(401, "Invalid API key or JWT", millis(2))),
        }
    }
}

fn reads(method: &str, path: &str) -> bool {
    let searches = ["/points/count", "/points/query", "/points/search", "/points/scroll"];
    method == "GET" || (method == "POST" && searches.iter().any(|end| path.ends_with(end)))
}
