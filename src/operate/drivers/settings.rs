//! Which drivers a pool uses, as believed. Pure data.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;

use super::Victim;

#[derive(Clone, Debug, PartialEq)]
pub enum ProviderSettings {
    /// Local processes: of the built-in vector node, or of Qdrant.
    Process(ProcessSettings),
    Script(ScriptSettings),
    Http(HttpSettings),
    /// Nodes come and go by other hands.
    None,
}

/// Limits are those of each node, never the host's, so that numbers mean the same on any machine.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessSettings {
    /// Nodes started on an empty data directory.
    pub nodes: u32,
    /// Share of CPU cores a node may use.
    pub cpu_cores: f64,
    pub memory_limit_bytes: u64,
    pub storage_limit_bytes: u64,
    pub timeout: Duration,
    /// Run in place of the built-in vector node. It has none of the limits above.
    pub qdrant: Option<QdrantProgram>,
}

/// A Qdrant on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QdrantProgram {
    pub path: PathBuf,
    /// Added to the cleared environment: Qdrant's own settings, `QDRANT__…`.
    pub env: BTreeMap<String, String>,
}

impl Default for ProcessSettings {
    fn default() -> Self {
        ProcessSettings {
            nodes: 3,
            cpu_cores: 0.25,
            memory_limit_bytes: 256 << 20,
            storage_limit_bytes: 1 << 30,
            timeout: Duration::from_secs(60),
            qdrant: None,
        }
    }
}

/// Scripts of the user's: argv arrays, never a shell.
#[derive(Clone, Debug, PartialEq)]
pub struct ScriptSettings {
    pub create: Vec<String>,
    pub destroy: Vec<String>,
    pub list: Vec<String>,
    pub timeout: Duration,
    pub victim: Victim,
    /// Added to the cleared environment.
    pub env: BTreeMap<String, String>,
}

impl ScriptSettings {
    /// The longest a creation may take, unless configured.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(900);
}

/// An API of the user's that makes and destroys nodes. It is of one pool: nothing but `base` tells pools apart in a list.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpSettings {
    /// `http(s)://host[:port][/path]`, without user, query and fragment.
    pub base: Url,
    pub timeout: Duration,
    pub victim: Victim,
    /// Sent as `Authorization: Bearer`; the file is read anew for each call.
    pub credentials_file: Option<PathBuf>,
}

impl HttpSettings {
    /// The longest a creation may take, unless configured.
    pub const DEFAULT_TIMEOUT: Duration = ScriptSettings::DEFAULT_TIMEOUT;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatastoreSettings {
    Vectornode,
    Qdrant(QdrantSettings),
    Script(Box<ScriptStoreSettings>),
    /// The nodes hold no data.
    None,
}

/// How the nodes of a Qdrant cluster are asked; where they are, the provider says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QdrantSettings {
    /// Holds the API key; read anew for each request. A read-only key is enough to observe.
    pub api_key_file: Option<PathBuf>,
    /// Certificates of the authorities that are trusted instead of the machine's.
    pub ca_file: Option<PathBuf>,
}

/// Scripts of the user's that tell of a cluster and change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptStoreSettings {
    pub inventory: Vec<String>,
    pub start_move: Vec<String>,
    pub replicate: Vec<String>,
    pub cancel: Vec<String>,
    pub cordon: Vec<String>,
    pub uncordon: Vec<String>,
    pub forget: Vec<String>,
    /// The longest a script may take that changes something: it starts work, and does not wait for its end.
    pub timeout: Duration,
    /// Added to the cleared environment.
    pub env: BTreeMap<String, String>,
}

impl ScriptStoreSettings {
    /// Unless configured.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
}

/// Scripts of the user's that send clients to a node and away from it, such as by a load balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceHookSettings {
    /// Without one there is nothing to do.
    pub out_of_service: Option<Vec<String>>,
    pub in_service: Option<Vec<String>>,
    /// Added to the cleared environment.
    pub env: BTreeMap<String, String>,
}

impl ServiceHookSettings {
    /// The longest that a hook may take.
    pub const TIMEOUT: Duration = Duration::from_secs(60);
}

/// Where drivers keep their files, below the storage path.
#[derive(Clone, Debug)]
pub struct Places {
    pub storage: PathBuf,
}
