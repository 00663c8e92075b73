//! A platform for the script provider: shell scripts that make and remove "nodes" (directories), with a ledger of
//! their own, and one page of statistics that stands for every node. A double: it says what a platform would say.
#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::double::{Double, Trap};
use super::script;

/// What every node's page says.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub cpu: f64,
    pub memory: f64,
    pub searches_per_second: f64,
}

/// How the nodes answer for their page.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Page {
    Whole,
    /// Something else than statistics, with a number where the page has one.
    Garbage,
    /// The head promises more than comes.
    Half,
    /// The connection is closed without a word.
    Nothing,
    /// The connection stays open without a word.
    Silence,
}

pub struct Platform {
    pub dir: PathBuf,
    pub load: Arc<Mutex<Load>>,
    pub page: Arc<Mutex<Page>>,
    pub port: u16,
}

impl Platform {
    /// A platform that runs `nodes` nodes already.
    pub async fn new(dir: &Path, nodes: &[&str], load: Load) -> Platform {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let load = Arc::new(Mutex::new(load));
        let page = Arc::new(Mutex::new(Page::Whole));
        tokio::spawn(answer(listener, load.clone(), page.clone()));
        let platform = Platform { dir: dir.to_path_buf(), load, page, port };
        for folder in ["nodes", "running"] {
            fs::create_dir_all(dir.join(folder)).expect("a folder");
        }
        for node in nodes {
            fs::create_dir_all(dir.join("nodes").join(node)).expect("a node");
        }
        platform.write_scripts();
        platform
    }

    fn write_scripts(&self) {
        let head = r#"#!/bin/sh
# The node comes on stdin and is a plain name; the platform checks that too.
input=$(cat)
node=$(printf '%s' "$input" | sed 's/.*"node":"\([^"]*\)".*/\1/')
case "$node" in ''|*[!A-Za-z0-9._-]*) echo "hostile $node" >> "$DIR/ledger"; exit 20;; esac
# A trap that lies at this place goes off once.
trap_at() {
  mv "$DIR/trap-$what-$1" "$DIR/sprung" 2>/dev/null || return 0
  read -r signal pid < "$DIR/sprung"
  kill -s "$signal" "$pid"
}
"#;
        let alone = |what: &str| {
            format!(
                r#"what={what}
echo "asked {what} $node $VECSCALE_KEY $VECSCALE_FENCE" >> "$DIR/ledger"
mkdir "$DIR/running/$node" 2>/dev/null || echo "concurrent {what} $node" >> "$DIR/ledger"
sleep 0.$((RANDOM_PART % 4 + 1))
trap_at before_effect
"#
            )
            .replace("RANDOM_PART", "$$")
        };
        script(
            &self.dir.join("create"),
            &format!(
                r#"{head}{}code=10
mkdir "$DIR/nodes/$node" 2>/dev/null && {{ echo "made $node" >> "$DIR/ledger"; code=0; }}
trap_at after_effect
sleep 0.1
rmdir "$DIR/running/$node"
trap_at before_answer
printf '{{"id":"%s","address":"http://127.0.0.1:%s"}}' "$node" "$PORT"
trap_at after_answer
exit $code
"#,
                alone("create")
            ),
        );
        script(
            &self.dir.join("destroy"),
            &format!(
                r#"{head}{}code=10
rmdir "$DIR/nodes/$node" 2>/dev/null && {{ echo "removed $node" >> "$DIR/ledger"; code=0; }}
trap_at after_effect
sleep 0.1
rmdir "$DIR/running/$node"
trap_at before_answer
echo '{{}}'
trap_at after_answer
exit $code
"#,
                alone("destroy")
            ),
        );
        script(
            &self.dir.join("list"),
            r#"#!/bin/sh
cat > /dev/null
printf '{"nodes":['
comma=
for path in "$DIR"/nodes/*; do
  [ -d "$path" ] || continue
  printf '%s{"id":"%s","address":"http://127.0.0.1:%s"}' "$comma" "${path##*/}" "$PORT"
  comma=,
done
printf ']}'
"#,
        );
    }

    /// Puts another script in the place of `create`, `destroy` or `list`, in one go: it may be started at any moment.
    pub fn replace(&self, name: &str, text: &str) {
        let fresh = self.dir.join(format!("{name}.new"));
        script(&fresh, text);
        fs::rename(fresh, self.dir.join(name)).expect("the script in its place");
    }

    /// A configuration of one pool over this platform, with one check a second.
    pub fn config(&self, thresholds: &str) -> String {
        let dir = self.dir.display();
        format!(
            r#"
autoscaling: {{mode: active}}
pools:
  - name: default
    thresholds: {{health_check_interval: 1, {thresholds}}}
    scrape:
      preset: none
      signals:
        cpu_usage: {{gauge: 'my_cpu_ratio{{core="all"}}'}}
        memory_usage: {{gauge: my_memory_ratio}}
        storage_usage: {{gauge: my_disk_ratio}}
        query_throughput: {{counter: my_searches_total}}
    provider:
      type: script
      create: ["{dir}/create"]
      destroy: ["{dir}/destroy"]
      list: ["{dir}/list"]
      env: {{DIR: "{dir}", PORT: "{}"}}
      timeout: 20s
    datastore: {{type: none}}
"#,
            self.port
        )
    }

    pub fn nodes(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.dir.join("nodes")).expect("the nodes folder");
        entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
    }

    pub fn ledger(&self) -> Vec<String> {
        fs::read_to_string(self.dir.join("ledger")).unwrap_or_default().lines().map(Into::into).collect()
    }

    /// How often each node was really made, and really removed.
    pub fn effects(&self, what: &str) -> BTreeMap<String, u32> {
        Double::effects(self, what)
    }
}

impl Double for Platform {
    fn config(&self, thresholds: &str) -> String {
        Platform::config(self, thresholds)
    }

    fn set(&self, trap: &Trap) {
        let at = self.dir.join(format!("trap-{}-{}", trap.call, trap.place.as_str()));
        let _ = fs::remove_file(self.dir.join("sprung")); // of the trap before
        fs::write(at, format!("{} {}\n", trap.signal.as_str(), trap.pid)).expect("a trap");
    }

    fn is_sprung(&self) -> bool {
        self.dir.join("sprung").exists()
    }

    fn nodes(&self) -> BTreeSet<String> {
        Platform::nodes(self)
    }

    fn ledger(&self) -> Vec<String> {
        Platform::ledger(self)
    }
}

pub(super) async fn answer(listener: TcpListener, load: Arc<Mutex<Load>>, behaviour: Arc<Mutex<Page>>) {
    let began = Instant::now();
    let mut searches = (0.0, began);
    let mut kept_waiting = Vec::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await;
        let now = *load.lock().expect("no panic while held");
        searches.0 += now.searches_per_second * searches.1.elapsed().as_secs_f64();
        searches.1 = Instant::now();
        let page = format!(
            "my_cpu_ratio{{core=\"all\"}} {}\nmy_memory_ratio {}\nmy_disk_ratio 0.2\nmy_searches_total {}\n",
            now.cpu, now.memory, searches.0
        );
        let behaviour = *behaviour.lock().expect("no panic while held");
        let (body, promised) = match behaviour {
            Page::Whole => (page.clone(), page.len()),
            Page::Garbage => {
                let garbage = format!("<html>{page}my_cpu_ratio{{core=\"all\"}} lots");
                (garbage.clone(), garbage.len())
            }
            Page::Half => (page.clone(), 2 * page.len()),
            Page::Nothing => continue,
            Page::Silence => {
                kept_waiting.push(stream);
                continue;
            }
        };
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\nconnection: close\r\n";
        let _ = stream.write_all(format!("{head}content-length: {promised}\r\n\r\n{body}").as_bytes()).await;
    }
}
