//! Against a double of Docker's engine: a small HTTP server on a socket.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::*;

#[derive(Default)]
struct Engine {
    /// By name: what it was created from, and whether it runs.
    containers: BTreeMap<String, (Value, bool)>,
    volumes: BTreeMap<String, Value>,
    ledger: Vec<String>,
}

impl Engine {
    fn answer(&mut self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        self.ledger.push(format!("{method} {path}"));
        let path = path.strip_prefix("/v1.41").expect("the version");
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let gone = || (404, json!({"message": "no such thing"}));
        let network = json!({"Networks": {"bridge": {"IPAddress": "10.9.8.7"}}});
        match (method, &parts[..]) {
            ("GET", ["containers", "json"]) => {
                let asked = query.to_lowercase().contains("vecscale.pool%3ddefault") && query.contains("all=true");
                let all =
                    self.containers.iter().filter(|(_, (of, _))| asked && of["Labels"]["vecscale.pool"] == "default");
                let shown = all.map(|(name, (_, running))| {
                    let state = if *running { "running" } else { "exited" };
                    json!({"Names": [format!("/{name}")], "State": state, "NetworkSettings": network})
                });
                (200, shown.collect())
            }
            ("GET", ["containers", name, "json"]) => match self.containers.get(*name) {
                Some((of, _)) => (200, json!({"Config": of, "NetworkSettings": network})),
                None => gone(),
            },
            ("POST", ["containers", "create"]) => {
                let name = query.strip_prefix("name=").expect("a name").to_string();
                if body["Image"] != "db:1" {
                    return (404, json!({"message": "no such image"}));
                }
                let mount = &body["HostConfig"]["Mounts"][0];
                let volume = mount["Source"].as_str().expect("a volume").to_string();
                self.volumes.insert(volume, mount["VolumeOptions"].clone());
                self.containers.insert(name, (body.clone(), false));
                (201, json!({"Id": "1"}))
            }
            ("POST", ["containers", name, "start"]) => match self.containers.get_mut(*name) {
                Some((_, running)) => (if std::mem::replace(running, true) { 304 } else { 204 }, Value::Null),
                None => gone(),
            },
            ("POST", ["containers", name, "stop"]) => match self.containers.get_mut(*name) {
                Some((_, running)) => (if std::mem::replace(running, false) { 204 } else { 304 }, Value::Null),
                None => gone(),
            },
            ("DELETE", ["containers", name]) => self.containers.remove(*name).map_or_else(gone, |_| (204, Value::Null)),
            ("GET", ["volumes", name]) => self.volumes.get(*name).map_or_else(gone, |of| (200, of.clone())),
            ("DELETE", ["volumes", name]) => self.volumes.remove(*name).map_or_else(gone, |_| (204, Value::Null)),
            _ => (500, json!({"message": "not known to the double"})),
        }
    }
}

async fn serve(mut stream: UnixStream, engine: Arc<Mutex<Engine>>) -> Option<()> {
    let mut text = Vec::new();
    let (head, length) = loop {
        let mut some = [0; 4096];
        let read = stream.read(&mut some).await.ok().filter(|read| *read > 0)?;
        text.extend_from_slice(&some[..read]);
        if let Some(end) = text.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&text[..end]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            break (String::from_utf8_lossy(&text[..end]).into_owned(), end + 4 + length.unwrap_or(0));
        }
    };
    while text.len() < length {
        let mut some = [0; 4096];
        let read = stream.read(&mut some).await.ok().filter(|read| *read > 0)?;
        text.extend_from_slice(&some[..read]);
    }
    let body = text.windows(4).position(|four| four == b"\r\n\r\n").map(|end| &text[end + 4..])?;
    let mut words = head.split_whitespace();
    let (method, path) = (words.next()?, words.next()?);
    let body = serde_json::from_slice(body).unwrap_or_default();
    let (status, answer) = engine.lock().expect("no panic while held").answer(method, path, &body);
    let answer = if answer.is_null() { String::new() } else { answer.to_string() };
    let length =
        if matches!(status, 204 | 304) { String::new() } else { format!("Content-Length: {}\r\n", answer.len()) };
    let answer = format!("HTTP/1.1 {status} Said\r\n{length}Connection: close\r\n\r\n{answer}");
    stream.write_all(answer.as_bytes()).await.ok()
}

fn hooks() -> Option<(Hooks, Arc<Mutex<Engine>>)> {
    if !has("curl", "curl") || !has("jq", "jq") {
        return None;
    }
    let mut hooks = Hooks::new("docker", &[("IMAGE", "db:1"), ("DATA_PATH", "/data")]);
    let socket = hooks.path("engine.sock");
    hooks.env.insert("SOCKET".into(), socket.display().to_string());
    let (listener, engine) = (UnixListener::bind(&socket).expect("a socket"), Arc::new(Mutex::new(Engine::default())));
    let served = engine.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, served.clone()));
        }
    });
    Some((hooks, engine))
}

fn asked(engine: &Mutex<Engine>, what: &str) -> usize {
    engine.lock().unwrap().ledger.iter().filter(|line| line.starts_with(what)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_is_made_once_and_goes_with_its_volume() {
    let Some((hooks, engine)) = hooks() else { return };
    assert_eq!(hooks.names().await, [""; 0]);
    let machine = hooks.created("default-1").await;
    assert_eq!(machine.address, "http://10.9.8.7:6333");
    assert_eq!(hooks.created("default-1").await, machine);
    assert_eq!(asked(&engine, "POST /v1.41/containers/create"), 1, "asked twice, made once");
    let listed = hooks.listed().await;
    assert_eq!((listed.len(), listed[0].ready, &listed[0].address), (1, Some(true), &machine.address));
    engine.lock().unwrap().containers.get_mut("default-1").unwrap().1 = false;
    assert_eq!(hooks.listed().await[0].ready, Some(false), "stopped is not gone");

    refused(hooks.create("default-2", 4, None).await, "fence 4 is behind 5");
    refused(hooks.destroy("default-1", 4).await, "fence 4 is behind 5");
    assert_eq!(engine.lock().unwrap().volumes.len(), 1);
    assert_eq!(hooks.destroy("default-1", 6).await, Effect::Done(()));
    assert!(engine.lock().unwrap().containers.is_empty() && engine.lock().unwrap().volumes.is_empty());
    let before = engine.lock().unwrap().ledger.len();
    hooks.refuses_what_is_no_name();
    assert_eq!(engine.lock().unwrap().ledger.len(), before);
    assert_eq!(hooks.destroy("default-1", 6).await, Effect::Done(()), "gone already");
    assert_eq!(asked(&engine, "DELETE"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_ours_is_left_alone() {
    let Some((hooks, engine)) = hooks() else { return };
    let theirs = json!({"Labels": {"vecscale.pool": "another"}});
    engine.lock().unwrap().containers.insert("default-1".into(), (theirs.clone(), true));
    engine.lock().unwrap().volumes.insert("default-2".into(), theirs);
    refused(hooks.create("default-1", 5, None).await, "is not of pool default");
    refused(hooks.destroy("default-1", 5).await, "is not of pool default");
    assert_eq!(hooks.destroy("default-2", 5).await, Effect::Done(()), "there is no such node");
    assert_eq!(hooks.names().await, [""; 0]);
    assert_eq!((asked(&engine, "DELETE"), asked(&engine, "POST")), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_says_no_or_nothing() {
    let Some((mut hooks, engine)) = hooks() else { return };
    hooks.env.insert("IMAGE".into(), "gone:1".into());
    refused(hooks.create("default-1", 5, None).await, "no such image");
    assert!(engine.lock().unwrap().containers.is_empty());
    hooks.env.insert("SOCKET".into(), hooks.path("nobody.sock").display().to_string());
    refused(hooks.create("default-1", 5, None).await, "the engine does not answer");
    assert!(hooks.provider().list().await.is_err(), "silence is no empty list");
}
