//! The file as written and as believed: text -> a checked [`Config`], or every problem at once. Reads the file itself
//! and looks whether the files and programs that it names exist; everything else is pure.
//!
//! Defaults stand beside the code that uses them (`ScalingThresholds::of`, `Policy::of`, the `Default`s of the
//! settings); what is read here only overwrites them.

mod access;
mod alerts;
mod drivers;
mod placement;
mod pool;
mod problem;
mod prometheus;
mod reload;
mod schedules;
mod scrape;
mod section;
mod signals;
#[cfg(test)]
mod tests;
mod web;
mod yaml;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::alerts::Route;
use crate::decide::Policy;
use crate::model::{Machine, Mode, PoolName, Profile, Signal};
use crate::operate::drivers::{DatastoreSettings, ProcessSettings, ProviderSettings, ServiceHookSettings};
use crate::operate::placement::Rules;
use crate::schedule::Window;
use crate::scrape::settings::ScrapeSettings;
use crate::serve::AccessSettings;

pub use problem::{ConfigError, Problem};
use section::{Problems, Section, set};
pub use web::{WebFile, load_web};

/// The whole configuration, checked and complete.
#[derive(Clone, Debug)]
pub struct Config {
    /// For the very first start; later the remembered mode counts.
    pub mode: Mode,
    pub access: AccessSettings,
    /// At least one; names are unique.
    pub pools: Vec<PoolConfig>,
}

/// One pool, checked and complete.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    pub name: PoolName,
    /// A label for now.
    pub region: String,
    pub profile: Profile,
    pub policy: Policy,
    /// How shards are placed.
    pub placement: Rules,
    pub scrape: ScrapeSettings,
    /// The nodes of `nodes.static`, ordered by id; `None`: the provider's list.
    pub nodes: Option<Vec<Machine>>,
    /// The patterns of `nodes.file_sd`, whose files list further nodes.
    pub node_files: Vec<PathBuf>,
    pub provider: ProviderSettings,
    pub datastore: DatastoreSettings,
    /// Scripts that send clients to a node, and away from it.
    pub service_hooks: Option<ServiceHookSettings>,
    /// Which alerts of Alertmanager's belong to which entry of `alerts`.
    pub alert_routes: Vec<Route>,
    /// Scheduled windows, in the order of the file; names are unique.
    pub schedules: Vec<Arc<Window>>,
    /// The thresholds that the file names; all others are the profile's.
    pub threshold_names_from_file: Vec<&'static str>,
}

impl PoolConfig {
    /// Whether anything but the datastore tells which nodes there are.
    pub fn lists_nodes(&self) -> bool {
        self.provider != ProviderSettings::None || self.nodes.is_some() || !self.node_files.is_empty()
    }
}

/// Reads and checks a file. Paths in it are relative to the folder it lies in.
///
/// # Errors
/// Everything that is wrong with it, ready to be shown.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let name = path.display().to_string();
    let text = read_text(path, "`--config.file` names the file; the shipped config.yaml is a start")?;
    parse(&text, &name, path.parent().unwrap_or(Path::new("")))
}

/// The text of a configuration file. `hint` is for whoever named one that cannot be read.
fn read_text(path: &Path, hint: &'static str) -> Result<String, ConfigError> {
    let unreadable = |why: String| ConfigError::Unreadable { name: path.display().to_string(), why, hint };
    let text = read_bounded(path).map_err(|error| unreadable(error.to_string()))?;
    String::from_utf8(text).map_err(|_| unreadable("it is not UTF-8 text".into()))
}

/// What a file holds; of one that is too large a little more than is taken.
///
/// # Errors
/// When it cannot be read.
pub fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    std::fs::File::open(path)?.take(yaml::MAX_BYTES as u64 + 1).read_to_end(&mut text)?;
    Ok(text)
}

/// Checks a text. `name` is what problems call it; `base_dir` is where its relative paths start.
///
/// # Errors
/// Everything that is wrong with it, ready to be shown.
pub fn parse(text: &str, name: &str, base_dir: &Path) -> Result<Config, ConfigError> {
    let tree = yaml::read(text, name)?;
    let problems = Problems::default();
    let config = whole(&Section::root(&tree, &problems), base_dir);
    match (problems.into_list(), config) {
        (problems, Some(config)) if problems.is_empty() => Ok(config),
        (problems, _) => Err(ConfigError::Problems { name: name.into(), problems }),
    }
}

/// `None` only together with a problem.
fn whole(root: &Section<'_>, base_dir: &Path) -> Option<Config> {
    let mut mode = Mode::Observe;
    let autoscaling = root.section("autoscaling");
    set(&mut mode, first_mode(&autoscaling));
    autoscaling.close();
    let access = access::read(&root.section("web"), base_dir);

    let pools = root.required("pools", root.list("pools"), "one pool is enough: `pools: [{name: default}]`");
    let of_pools = "they stand under each of the `pools`";
    root.note_unknown(&[], &[("alerts", of_pools), ("schedules", of_pools)]);
    let pools = pools?;
    if pools.is_empty() {
        root.problem("pools", "is empty", "one pool is enough: `pools: [{name: default}]`");
    }
    let mut seen = BTreeMap::new();
    for item in &pools {
        let name = item.value.get("name").and_then(|name| name.as_str());
        if let Some(first) = name.and_then(|name| seen.insert(name, &item.path)) {
            let what = format!("is the name of {first} too");
            item.problems.add(format!("{}.name", item.path), what, "each pool needs a name of its own");
        }
    }
    let checked: Vec<PoolConfig> = pools.iter().filter_map(|item| pool::read(item, base_dir)).collect();
    (checked.len() == pools.len()).then_some(Config { mode, access: access?, pools: checked })
}

fn first_mode(autoscaling: &Section<'_>) -> Option<Mode> {
    let words = [("observe", Mode::Observe), ("active", Mode::Active)];
    autoscaling.choice("mode", &words, &[])
}

impl Config {
    /// The lines under `file: ok` of `check-config`: two per pool.
    pub fn summary(&self) -> Vec<String> {
        let mode = format!("first start: {}", self.mode.as_str());
        std::iter::once(mode).chain(self.pools.iter().flat_map(PoolConfig::summary)).collect()
    }
}

impl PoolConfig {
    fn summary(&self) -> [String; 2] {
        let t = &self.policy.thresholds;
        let provider = match &self.provider {
            ProviderSettings::Process(ProcessSettings { nodes, qdrant: None, .. }) => {
                format!("process ({nodes} nodes at first)")
            }
            ProviderSettings::Process(ProcessSettings { nodes, qdrant: Some(qdrant), .. }) => {
                format!("process ({nodes} nodes at first, each a {})", qdrant.path.display())
            }
            ProviderSettings::Script(_) => "script".into(),
            ProviderSettings::Http(_) => "http".into(),
            ProviderSettings::None => "none".into(),
        };
        let datastore = match self.datastore {
            DatastoreSettings::Vectornode => "vectornode",
            DatastoreSettings::Qdrant(_) => "qdrant",
            DatastoreSettings::Script(_) => "script",
            DatastoreSettings::None => "none",
        };
        let signals: Vec<&str> = self.scrape.signals().into_iter().map(Signal::name).collect();
        [
            format!(
                "pool {}: profile {}, {} to {} nodes, a check every {} s, provider {provider}, datastore {datastore}",
                self.name,
                self.profile.as_str(),
                t.min_nodes,
                t.max_nodes,
                t.health_check_interval,
            ),
            format!("  signals: {}", if signals.is_empty() { "none".into() } else { signals.join(", ") }),
        ]
    }
}
