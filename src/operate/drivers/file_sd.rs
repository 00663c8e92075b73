//! Lists of nodes in files, in Prometheus' file_sd format. IO; what a file says is read by plain functions. One file that
//! cannot be read, and there is no list: who has one from before keeps it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use tokio::sync::Mutex;

use super::Unanswered;
use super::written::plain_address;
use crate::model::{Machine, NodeId, is_name};

/// The endings that Prometheus knows too.
pub const ENDINGS: [&str; 3] = ["json", "yaml", "yml"];

const MAX_BYTES: u64 = 4 << 20;

/// Targets with labels in common. Further keys, and labels that mean nothing here, are the writer's own affair.
#[derive(Deserialize)]
struct Group {
    targets: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// All nodes of all files that match, by id. The last part of a pattern may hold one `*`.
///
/// # Errors
/// When no file is there, one cannot be read, two entries contradict each other, or the reading before has not ended.
pub async fn read(patterns: Vec<PathBuf>, one_at_a_time: &Arc<Mutex<()>>) -> Result<Vec<Machine>, Unanswered> {
    // A file system that hangs would otherwise take one more thread at each look, until the journal has none left.
    let turn = one_at_a_time.clone().try_lock_owned();
    let turn = turn.map_err(|_| Unanswered("file_sd: the files are still being read since the look before".into()))?;
    let reading = tokio::task::spawn_blocking(move || {
        let _turn = turn; // kept to the end of the reading, even if nobody waits for it any more
        read_now(&patterns)
    });
    let read = reading.await.unwrap_or_else(|error| Err(error.to_string()));
    read.map_err(|why| Unanswered(format!("file_sd: {why}")))
}

fn read_now(patterns: &[PathBuf]) -> Result<Vec<Machine>, String> {
    let mut files = BTreeSet::new();
    for pattern in patterns {
        files.extend(matching(pattern)?);
    }
    if files.is_empty() {
        let patterns: Vec<String> = patterns.iter().map(|p| p.display().to_string()).collect();
        return Err(format!("no file matches {}", patterns.join(", ")));
    }
    let mut all = Vec::new();
    for file in files {
        all.extend(one_file(&file).map_err(|why| format!("{}: {why}", file.display()))?);
    }
    without_doubles(all)
}

fn matching(pattern: &Path) -> Result<Vec<PathBuf>, String> {
    let name = pattern.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some((start, end)) = name.split_once('*') else {
        return Ok(vec![pattern.to_path_buf()]);
    };
    let folder = pattern.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let fits = |name: &String| name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end);
    Ok(names.filter(fits).map(|name| folder.join(name)).collect())
}

fn one_file(file: &Path) -> Result<Vec<Machine>, String> {
    if !std::fs::metadata(file).map_err(|error| error.to_string())?.is_file() {
        return Err("it is no regular file".into());
    }
    let mut text = String::new();
    let opened = std::fs::File::open(file).map_err(|error| error.to_string())?;
    opened.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_BYTES {
        return Err(format!("it is larger than {MAX_BYTES} bytes"));
    }
    if text.trim().is_empty() {
        return Err("it is empty: an empty list is written []".into());
    }
    let is_json = file.extension().is_some_and(|ending| ending == "json");
    machines(&text, is_json)
}

/// What the text of one file says.
fn machines(text: &str, is_json: bool) -> Result<Vec<Machine>, String> {
    let first_line = |error: String| error.lines().next().unwrap_or_default().to_string();
    let groups: Vec<Group> = if is_json {
        serde_json::from_str(text).map_err(|error| error.to_string())?
    } else {
        serde_yaml::from_str(text).map_err(|error| first_line(error.to_string()))?
    };
    let mut all = Vec::new();
    for group in groups {
        if group.labels.contains_key("node") && group.targets.len() > 1 {
            return Err(format!("{} targets share the label node: a node is one target", group.targets.len()));
        }
        for target in &group.targets {
            all.push(machine(target, &group.labels)?);
        }
    }
    Ok(all)
}

/// The label `node` is the id; without it the address is, with '-' for what an id cannot hold.
fn machine(target: &str, labels: &BTreeMap<String, String>) -> Result<Machine, String> {
    let id = match labels.get("node") {
        Some(id) => NodeId::new(id),
        None => NodeId::new(target.replace(|c: char| !c.is_ascii_alphanumeric() && c != '.', "-").trim_matches('-')),
    };
    let id = id.map_err(|error| format!("{error}; the label node may name it"))?;
    let scheme = labels.get("__scheme__").map_or("http", String::as_str);
    let address = plain_address(&id, &format!("{scheme}://{target}"))?;
    let zone = labels.get("zone").filter(|zone| !zone.is_empty()).cloned();
    if let Some(zone) = zone.as_ref().filter(|zone| !is_name(zone)) {
        return Err(format!("{id}: the zone {zone:?} is no name"));
    }
    Ok(Machine { id, address, zone, instance: None, ready: None })
}

/// The same node may be listed twice; two that share an id or an address may not.
///
/// # Errors
/// When they do.
pub fn without_doubles(mut all: Vec<Machine>) -> Result<Vec<Machine>, String> {
    all.sort_by(|a, b| a.id.cmp(&b.id));
    all.dedup();
    if let Some(pair) = all.windows(2).find(|pair| pair[0].id == pair[1].id) {
        return Err(format!("{} is listed twice, at {} and {}", pair[0].id, pair[0].address, pair[1].address));
    }
    let mut addresses = BTreeMap::new();
    for machine in &all {
        if let Some(other) = addresses.insert(&machine.address, &machine.id) {
            return Err(format!("{other} and {} are both at {}", machine.id, machine.address));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_files_say() {
        let plain = |text: &str, is_json: bool| {
            machines(text, is_json).and_then(without_doubles).map(|all| {
                let shown = |m: &Machine| format!("{} {} {}", m.id, m.address, m.zone.as_deref().unwrap_or("-"));
                all.iter().map(shown).collect::<Vec<_>>().join(", ")
            })
        };
        let good = [
            ("none", "[]", ""),
            ("an address is an id", r#"[{"targets": ["10.0.0.1:6333"]}]"#, "10.0.0.1-6333 http://10.0.0.1:6333 -"),
            ("IPv6 too", r#"[{"targets": ["[fd00::1]:80"]}]"#, "fd00--1--80 http://[fd00::1]:80 -"),
            (
                "what we serve ourselves can be read",
                r#"[{"targets": ["h:1"], "labels": {"node": "n1", "pool": "p", "zone": "a", "__scheme__": "https"}}]"#,
                "n1 https://h:1 a",
            ),
            (
                "several in a group",
                r#"[{"targets": ["h:2", "h:1"], "labels": {"zone": "a"}, "source": "x"}]"#,
                "h-1 http://h:1 a, h-2 http://h:2 a",
            ),
            ("twice the same", r#"[{"targets": ["h:1"]}, {"targets": ["h:1"]}]"#, "h-1 http://h:1 -"),
        ];
        for (what, text, expected) in good {
            assert_eq!(plain(text, true).as_deref(), Ok(expected), "{what}");
            assert_eq!(plain(text, false).as_deref(), Ok(expected), "{what}, as YAML");
        }
        let yaml = "- targets: ['h:1']\n  labels:\n    node: n1\n    zone: a\n- targets:\n    - h:2\n";
        assert_eq!(plain(yaml, false).as_deref(), Ok("h-2 http://h:2 -, n1 http://h:1 a"));
        let bad = [
            ("half of it", r#"[{"targets": ["h:1"#, "EOF"),
            ("no list", r#"{"targets": ["h:1"]}"#, "expected a sequence"),
            ("no targets", r#"[{"labels": {}}]"#, "missing field `targets`"),
            ("an id for two", r#"[{"targets": ["h:1", "h:2"], "labels": {"node": "n"}}]"#, "2 targets share"),
            ("no id", r#"[{"targets": ["h:1"], "labels": {"node": "../x"}}]"#, "is not a node id"),
            ("no address", r#"[{"targets": ["h:1/metrics"]}]"#, "is no address"),
            ("a user", r#"[{"targets": ["u:p@h:1"]}]"#, "is no address"),
            ("a scheme", r#"[{"targets": ["h:1"], "labels": {"__scheme__": "file"}}]"#, "is no address"),
            ("nothing", r#"[{"targets": [""]}]"#, "is not a node id"),
            ("a zone", r#"[{"targets": ["h:1"], "labels": {"zone": "a b"}}]"#, "is no name"),
            (
                "one id, two places",
                r#"[{"targets": ["h:1"], "labels": {"node": "n"}}, {"targets": ["h:2"], "labels": {"node": "n"}}]"#,
                "n is listed twice",
            ),
            (
                "one place, two ids",
                r#"[{"targets": ["h:1"], "labels": {"node": "n"}}, {"targets": ["h:1"]}]"#,
                "are both at http://h:1",
            ),
        ];
        for (what, text, says) in bad {
            let why = plain(text, true).expect_err(what);
            assert!(why.contains(says), "{what}: {why}");
        }
        assert!(plain("- targets: [h:1]\n  labels: {", false).is_err());
    }

    #[tokio::test]
    async fn files_are_read_as_they_are_now() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str| folder.path().join(name);
        let patterns = vec![file("*.json"), file("more.yml")];
        let ids = async || {
            let read = read(patterns.clone(), &Arc::default()).await.map_err(|error| error.to_string());
            read.map(|all| all.iter().map(|m| m.id.to_string()).collect::<Vec<_>>().join(" "))
        };
        let fails = async |says: &str| {
            let why = ids().await.expect_err(says);
            assert!(why.contains(says), "{why}");
        };
        fails("more.yml: No such file").await;
        std::fs::write(file("more.yml"), "- targets: ['c:1']").expect("a file");
        assert_eq!(ids().await.as_deref(), Ok("c-1"), "a pattern need not match");
        std::fs::write(file("a.json"), r#"[{"targets": ["a:1"]}]"#).expect("a file");
        std::fs::write(file("b.txt"), "no list").expect("a file");
        assert_eq!(ids().await.as_deref(), Ok("a-1 c-1"));
        std::fs::write(file("a.json"), r#"[{"targets": ["a:"#).expect("half a file");
        fails("a.json: EOF").await;
        std::fs::write(file("a.json"), "").expect("an empty file");
        fails("a.json: it is empty").await;
        std::fs::write(file("a.json"), "[]").expect("an empty list");
        assert_eq!(ids().await.as_deref(), Ok("c-1"));
        std::fs::remove_file(file("a.json")).expect("it was there");
        assert_eq!(ids().await.as_deref(), Ok("c-1"));
        std::fs::create_dir(file("d.json")).expect("a folder");
        fails("d.json: it is no regular file").await;
        let hangs: Arc<Mutex<()>> = Arc::default();
        let _turn = hangs.clone().try_lock_owned().expect("its turn");
        let waits = read(patterns.clone(), &hangs).await.expect_err("one at a time").to_string();
        assert!(waits.contains("still being read"), "{waits}");
        let nothing = read(vec![file("*.yaml")], &Arc::default()).await.expect_err("no file").to_string();
        assert!(nothing.starts_with("file_sd: no file matches /"), "{nothing}");
    }
}
