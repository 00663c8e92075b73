//! `provider` and `datastore` -> the settings of the drivers. Looks whether the files that they name exist; otherwise
//! pure.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Url;
use serde_json::Value;

use crate::operate::drivers::{
    DatastoreSettings, HttpSettings, ProcessSettings, ProviderSettings, QdrantProgram, QdrantSettings, ScriptSettings,
    ScriptStoreSettings, ServiceHookSettings, Victim,
};

use super::scrape;
use super::section::{Item, Section, set};

/// A creation that takes longer than this will not come any more.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

const OF_SCRIPT: [(&str, &str); 4] = [
    ("create", "it belongs to `type: script`"),
    ("destroy", "it belongs to `type: script`"),
    ("list", "it belongs to `type: script`"),
    ("env", "it belongs to `type: script`, and to `type: process` with a `program`"),
];

const OF_HTTP: [(&str, &str); 2] =
    [("base", "it belongs to `type: http`"), ("authorization", "it belongs to `type: http`")];

const OF_SCRIPT_AND_HTTP: [(&str, &str); 1] = [("victim", "it belongs to `type: script` and `type: http`")];

const OF_PROCESS: [(&str, &str); 5] = [
    ("nodes", "it belongs to `type: process`"),
    ("program", "it belongs to `type: process`"),
    ("cpu_cores", "it belongs to `type: process`, without a `program`"),
    ("memory_limit", "it belongs to `type: process`, without a `program`"),
    ("storage_limit", "it belongs to `type: process`, without a `program`"),
];

#[derive(Clone, Copy)]
enum ProviderType {
    Process,
    Script,
    Http,
    None,
}

/// `None` only together with a problem.
pub(super) fn provider(section: &Section<'_>, base_dir: &Path) -> Option<ProviderSettings> {
    let types = [
        ("process", ProviderType::Process),
        ("script", ProviderType::Script),
        ("http", ProviderType::Http),
        ("none", ProviderType::None),
    ];
    let given = section.choice("type", &types, &["kubernetes"]);
    if given.is_none() && section.has("type") {
        return None; // what else the section may hold depends on the type
    }
    // What belongs to the type itself was asked for by then, and is not noted.
    let of_others = [OF_SCRIPT.as_slice(), &OF_HTTP, &OF_SCRIPT_AND_HTTP, &OF_PROCESS].concat();
    let provider = match given.unwrap_or(ProviderType::Process) {
        ProviderType::Process => process(section).map(ProviderSettings::Process),
        ProviderType::Script => script(section).map(ProviderSettings::Script),
        ProviderType::Http => http(section, base_dir).map(ProviderSettings::Http),
        ProviderType::None => Some(ProviderSettings::None),
    };
    section.note_unknown(&[], &of_others);
    provider
}

/// `None` only together with a problem.
fn process(section: &Section<'_>) -> Option<ProcessSettings> {
    let mut process = ProcessSettings::default();
    set(&mut process.nodes, section.whole("nodes", 1..=100));
    process.timeout = timeout(section, process.timeout);
    if section.has("program") {
        let env = environment(&section.section("env"));
        process.qdrant = Some(QdrantProgram { path: qdrant(section)?, env });
    } else {
        set(&mut process.cpu_cores, section.number("cpu_cores", 0.01..=1024.0));
        set(&mut process.memory_limit_bytes, section.size("memory_limit", 16 << 20));
        set(&mut process.storage_limit_bytes, section.size("storage_limit", 16 << 20));
    }
    Some(process)
}

fn qdrant(section: &Section<'_>) -> Option<PathBuf> {
    let path = PathBuf::from(section.text("program")?);
    let item = section.item("program")?;
    can_be_run(&item, &path);
    Some(path)
}

fn script(section: &Section<'_>) -> Option<ScriptSettings> {
    let timeout = timeout(section, ScriptSettings::DEFAULT_TIMEOUT);
    let victim = victim(section);
    let env = environment(&section.section("env"));
    let (create, destroy, list) = (argv(section, "create"), argv(section, "destroy"), argv(section, "list"));
    Some(ScriptSettings { create: create?, destroy: destroy?, list: list?, timeout, victim, env })
}

fn http(section: &Section<'_>, base_dir: &Path) -> Option<HttpSettings> {
    let timeout = timeout(section, HttpSettings::DEFAULT_TIMEOUT);
    let victim = victim(section);
    let credentials_file = scrape::authorization(section, base_dir).map(|it| it.credentials_file);
    let base = api(section, "base", "https://machines.example/v1");
    Some(HttpSettings { base: base?, timeout, victim, credentials_file })
}

/// The address of an API. Never shown when it is wrong: it may hold a password.
pub(super) fn api(section: &Section<'_>, key: &'static str, example: &str) -> Option<Url> {
    let text = section.required(key, section.text(key), &format!("such as `{key}: {example}`"))?;
    let plain = |url: &Url| {
        matches!(url.scheme(), "http" | "https")
            && (url.username(), url.password()) == ("", None)
            && (url.query(), url.fragment()) == (None, None)
    };
    let url = Url::parse(text).ok().filter(plain);
    if url.is_none() {
        let hint = format!("such as {example}, without user, query and fragment");
        section.problem(key, "is not the address of an API", hint);
    }
    url
}

fn timeout(section: &Section<'_>, default: Duration) -> Duration {
    section.duration("timeout", Duration::from_secs(1)..=LONGEST).unwrap_or(default)
}

fn victim(section: &Section<'_>) -> Victim {
    section.choice("victim", &[("any", Victim::Any), ("last", Victim::Last)], &[]).unwrap_or_default()
}

/// Program and arguments, started by nobody's shell.
fn argv(section: &Section<'_>, key: &'static str) -> Option<Vec<String>> {
    let item = section.item(key);
    let hint = "a list of program and arguments, such as [\"/etc/vecscale/create-node\"]";
    let argv = section.required(key, item.as_ref().and_then(|i| i.texts()), hint)?;
    let item = item?;
    if argv.iter().any(|text| text.contains('\0')) {
        item.problem("holds a zero byte", "");
    } else {
        can_be_run(&item, Path::new(&argv[0]));
    }
    Some(argv)
}

/// Notes what is wrong with a program: it must be there and executable, and nobody else's.
fn can_be_run(item: &Item<'_>, program: &Path) {
    let shown = program.display();
    if !program.is_absolute() {
        let what = format!("{program:?} is not an absolute path");
        return item.problem(what, "write the program's full path; no shell looks for it");
    }
    match std::fs::metadata(program) {
        Err(error) => {
            item.problem(format!("{shown}: {error}"), "the program must be there before vecscale starts");
        }
        Ok(found) if !found.is_file() => item.problem(format!("{shown} is not a file"), "name the program itself"),
        Ok(found) if found.permissions().mode() & 0o111 == 0 => {
            item.problem(format!("{shown} is not executable"), format!("chmod +x {shown}"));
        }
        Ok(_) => {
            if let Some(place) = writable_by_others(program) {
                let what = format!("{} can be written by others than its owner", place.display());
                item.problem(what, format!("who may write it decides what is run: chmod go-w {}", place.display()));
            }
        }
    }
}

/// The program, or the folder that it or a link to it lies in, if the group or everybody may put another in its place.
/// In a sticky folder, such as /tmp, only the owner of a file may.
fn writable_by_others(program: &Path) -> Option<PathBuf> {
    let target = program.canonicalize().ok()?;
    let mode = |place: &Path| place.metadata().map_or(0, |found| found.permissions().mode());
    let folders = [&target, program].into_iter().filter_map(|file| Some(file.parent()?.to_path_buf()));
    let loose_folder = folders.into_iter().find(|folder| mode(folder) & 0o022 != 0 && mode(folder) & 0o1000 == 0);
    if mode(&target) & 0o022 != 0 { Some(target) } else { loose_folder }
}

/// Variables for the scripts. Their values may be secrets, so no problem shows one.
fn environment(section: &Section<'_>) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    for (name, item) in section.entries() {
        let is_variable = name.len() <= 200
            && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let value = match item.value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(flag) => Some(flag.to_string()),
            _ => None,
        };
        if !is_variable {
            item.problem("is not the name of a variable", "letters, digits and '_', not starting with a digit");
        } else if name.starts_with("VECSCALE_") {
            item.problem("is set by vecscale itself", "choose a name that does not start with VECSCALE_");
        } else if let Some(value) = value.filter(|v| !v.contains('\0')) {
            env.insert(name.to_string(), value);
        } else {
            item.problem("text is needed", "a list or a mapping cannot be a variable");
        }
    }
    env
}

const OF_SCRIPT_STORE: [(&str, &str); 9] = [
    ("inventory", "it belongs to `type: script`"),
    ("move", "it belongs to `type: script`"),
    ("replicate", "it belongs to `type: script`"),
    ("cancel", "it belongs to `type: script`"),
    ("cordon", "it belongs to `type: script`"),
    ("uncordon", "it belongs to `type: script`"),
    ("forget", "it belongs to `type: script`"),
    ("timeout", "it belongs to `type: script`"),
    ("env", "it belongs to `type: script`"),
];

const OF_QDRANT: [(&str, &str); 2] =
    [("api_key_file", "it belongs to `type: qdrant`"), ("tls_config", "it belongs to `type: qdrant`")];

/// A file that must be there.
pub(super) fn existing(section: &Section<'_>, key: &'static str, base_dir: &Path) -> Option<PathBuf> {
    let path = base_dir.join(section.text(key)?);
    if let Err(error) = std::fs::File::open(&path) {
        section.problem(key, format!("{}: {error}", path.display()), "the file must be there and readable");
    }
    Some(path)
}

const OF_STORES: [(&str, &str); 2] = [
    ("out_of_service", "it belongs to a datastore that holds data"),
    ("in_service", "it belongs to a datastore that holds data"),
];

/// A script that starts work has to return soon: the step itself waits two minutes for it.
const LONGEST_CALL: Duration = Duration::from_secs(110);

/// `None` only together with a problem.
pub(super) fn datastore(section: &Section<'_>, base_dir: &Path) -> Option<DatastoreSettings> {
    let types = [
        ("vectornode", DatastoreType::Vectornode),
        ("qdrant", DatastoreType::Qdrant),
        ("script", DatastoreType::Script),
        ("none", DatastoreType::None),
    ];
    let given = section.choice("type", &types, &[]);
    if given.is_none() && section.has("type") {
        return None;
    }
    match given.unwrap_or(DatastoreType::Vectornode) {
        DatastoreType::Vectornode => {
            section.note_unknown(&[], &[OF_SCRIPT_STORE.as_slice(), &OF_QDRANT].concat());
            Some(DatastoreSettings::Vectornode)
        }
        DatastoreType::Qdrant => {
            let tls = section.section("tls_config");
            let settings = QdrantSettings {
                api_key_file: existing(section, "api_key_file", base_dir),
                ca_file: existing(&tls, "ca_file", base_dir),
            };
            tls.close();
            let key = ("api_key", "put the secret into a file and name it in `api_key_file`");
            section.note_unknown(&[], &[OF_SCRIPT_STORE.as_slice(), &[key]].concat());
            Some(DatastoreSettings::Qdrant(settings))
        }
        DatastoreType::Script => {
            let store = script_store(section);
            section.note_unknown(&[], &OF_QDRANT);
            store.map(|store| DatastoreSettings::Script(Box::new(store)))
        }
        DatastoreType::None => {
            section.note_unknown(&[], &[OF_SCRIPT_STORE.as_slice(), &OF_QDRANT, &OF_STORES].concat());
            Some(DatastoreSettings::None)
        }
    }
}

#[derive(Clone, Copy)]
enum DatastoreType {
    Vectornode,
    Qdrant,
    Script,
    None,
}

fn script_store(section: &Section<'_>) -> Option<ScriptStoreSettings> {
    let mut timeout = ScriptStoreSettings::DEFAULT_TIMEOUT;
    set(&mut timeout, section.duration("timeout", Duration::from_secs(1)..=LONGEST_CALL));
    let env = environment(&section.section("env"));
    let (inventory, forget) = (argv(section, "inventory"), argv(section, "forget"));
    let (start_move, replicate, cancel) = (argv(section, "move"), argv(section, "replicate"), argv(section, "cancel"));
    let (cordon, uncordon) = (argv(section, "cordon"), argv(section, "uncordon"));
    Some(ScriptStoreSettings {
        inventory: inventory?,
        start_move: start_move?,
        replicate: replicate?,
        cancel: cancel?,
        cordon: cordon?,
        uncordon: uncordon?,
        forget: forget?,
        timeout,
        env,
    })
}

/// The hooks around a datastore of any type that holds data. To be read before the datastore, whose other keys depend on
/// its type; that of scripts reads `env` itself.
pub(super) fn service_hooks(section: &Section<'_>) -> Option<ServiceHookSettings> {
    let kind = section.item("type").and_then(|item| item.value.as_str());
    if kind == Some("none") || !(section.has("out_of_service") || section.has("in_service")) {
        return None;
    }
    let hook = |key| section.has(key).then(|| argv(section, key)).flatten();
    let (out_of_service, in_service) = (hook("out_of_service"), hook("in_service"));
    let env = if kind == Some("script") { BTreeMap::new() } else { environment(&section.section("env")) };
    Some(ServiceHookSettings { out_of_service, in_service, env })
}
