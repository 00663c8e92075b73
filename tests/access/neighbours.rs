//! The real Prometheus and the real Alertmanager, as their own configuration has them authenticate.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::{World, free_port, http};
use crate::{Neighbour, PASSWORD, READ, TRIGGER, client, secured_world, start};

const WAIT: Duration = Duration::from_secs(60);

/// Starts a program with its output in a file of this world.
fn run(world: &World, program: &str, args: &[String]) -> Neighbour {
    let log = std::fs::File::create(world.path(&format!("{program}.log"))).expect("a log");
    let child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}; Debian's package of that name brings it"));
    Neighbour(child)
}

#[tokio::test]
async fn prometheus_scrapes_over_tls_with_a_password_and_with_a_token() {
    let (mut world, _) = secured_world();
    start(&mut world).await;
    std::fs::write(world.path("password"), PASSWORD).expect("the password");
    std::fs::write(world.path("token"), READ).expect("the token");
    std::fs::write(world.path("wrong"), TRIGGER).expect("a token of another role");
    let job = |name: &str, credential: &str| {
        format!(
            "- {{job_name: {name}, scrape_interval: 1s, scheme: https, tls_config: {{ca_file: ca.pem}}, {credential},
     static_configs: [{{targets: ['{}']}}]}}\n",
            world.url.replace("https://", "")
        )
    };
    let config = [
        "scrape_configs:\n".into(),
        job("password", "basic_auth: {username: prometheus, password_file: password}"),
        job("token", "authorization: {credentials_file: token}"),
        job("wrong", "authorization: {credentials_file: wrong}"),
    ];
    std::fs::write(world.path("prometheus.yml"), config.concat()).expect("the configuration");
    let port = free_port();
    let _prometheus = run(
        &world,
        "prometheus",
        &[
            format!("--config.file={}", world.path("prometheus.yml").display()),
            format!("--storage.tsdb.path={}", world.path("tsdb").display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
        ],
    );
    let scraped = async |w: &World| {
        let query = format!("http://127.0.0.1:{port}/api/v1/query?query=sort_desc(up)");
        let answer: Value = http().get(query).send().await.ok()?.json().await.ok()?;
        let up = |job: &str| {
            let rows = answer["data"]["result"].as_array()?;
            rows.iter().find(|row| row["metric"]["job"] == job)?["value"][1].as_str().map(String::from)
        };
        let all = (up("password")?, up("token")?, up("wrong")?);
        assert!(all.2 == "0", "a token that may not read was let in: {answer}\n{}", w.logs());
        (all.0 == "1" && all.1 == "1").then_some(())
    };
    world.until("both jobs are up", WAIT, scraped).await;
}

/// How a notification that was taken is counted: path and code of `http_requests_total`.
const DELIVERED: (&str, u16) = ("/webhooks/alertmanager", 200);

/// How many requests were answered with this path's label and this code.
async fn counted(world: &World, (path, code): (&str, u16)) -> u64 {
    let answer = client(world).get(format!("{}/metrics", world.url)).bearer_auth(READ).send().await.expect("an answer");
    let page = answer.text().await.expect("a page");
    let series = format!("vecscale_http_requests_total{{code=\"{code}\",path=\"{path}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&series)).map_or(0, |count| count.parse().expect("a count"))
}

#[tokio::test]
async fn alertmanager_delivers_over_tls_with_a_password_and_with_a_token() {
    let (mut world, _) = secured_world();
    start(&mut world).await;
    std::fs::write(world.path("password"), PASSWORD).expect("the password");
    std::fs::write(world.path("token"), TRIGGER).expect("the token");
    let receiver = |name: &str, credential: &str| {
        format!(
            "- name: {name}
  webhook_configs:
    - url: {}/webhooks/alertmanager
      http_config: {{tls_config: {{ca_file: ca.pem}}, {credential}}}\n",
            world.url
        )
    };
    let config = [
        "route: {receiver: token, group_wait: 0s, group_interval: 1s, routes: [{matchers: ['by=\"password\"'], receiver: password}]}\n"
            .into(),
        "receivers:\n".into(),
        receiver("password", "basic_auth: {username: alerts, password_file: password}"),
        receiver("token", "authorization: {credentials_file: token}"),
    ];
    std::fs::write(world.path("alertmanager.yml"), config.concat()).expect("the configuration");
    let port = free_port();
    let _alertmanager = run(
        &world,
        "prometheus-alertmanager",
        &[
            format!("--config.file={}", world.path("alertmanager.yml").display()),
            format!("--storage.path={}", world.path("alertmanager").display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
            "--cluster.listen-address=".into(),
        ],
    );
    for by in ["password", "token"] {
        let before = counted(&world, DELIVERED).await;
        let alerts = json!([{"labels": {"alertname": "VectorSearchSlow", "by": by}}]);
        let taken = async |_: &World| {
            let url = format!("http://127.0.0.1:{port}/api/v2/alerts");
            http().post(url).json(&alerts).send().await.ok().filter(|answer| answer.status() == 200)
        };
        world.until("Alertmanager takes an alert", WAIT, taken).await;
        let arrived = async |w: &World| (counted(w, DELIVERED).await > before).then_some(());
        world.until(&format!("the notification with a {by}"), WAIT, arrived).await;
    }
}

#[test]
fn promtool_takes_the_example() {
    let example = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/web.yml");
    let said = Command::new("promtool").args(["check", "web-config"]).arg(&example).output();
    let said = said.expect("promtool; Debian's package prometheus brings it");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}
