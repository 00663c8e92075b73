//! The real Prometheus and the real Alertmanager, as their own configuration has them authenticate.

use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::common::World;
use crate::common::servers::Server;
use crate::common::tools::has;
use crate::{PASSWORD, READ, TRIGGER, client, secured_world, start};

const WAIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn prometheus_scrapes_over_tls_with_a_password_and_with_a_token() {
    if !has("prometheus", "prometheus") {
        return;
    }
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
    let prometheus = Server::prometheus(world.dir.path(), &config.concat()).await;
    for job in ["password", "token"] {
        prometheus.until(&format!("job {job} is up"), &format!("up{{job=\"{job}\"}} == 1")).await;
    }
    prometheus.until("a token that may not read is not let in", r#"up{job="wrong"} == 0"#).await;
    assert!(prometheus.instant(r#"max_over_time(up{job="wrong"}[1h]) == 1"#).await.is_empty(), "{}", world.logs());
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
    if !has("prometheus-alertmanager", "prometheus-alertmanager") {
        return;
    }
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
    let alertmanager = Server::alertmanager(world.dir.path(), "alertmanager", &config.concat()).await;
    for by in ["password", "token"] {
        let before = counted(&world, DELIVERED).await;
        alertmanager.fires(json!({"alertname": "VectorSearchSlow", "by": by})).await;
        let arrived = async |w: &World| (counted(w, DELIVERED).await > before).then_some(());
        world.until(&format!("the notification with a {by}"), WAIT, arrived).await;
    }
}

#[test]
fn promtool_takes_the_example() {
    if !has("promtool", "prometheus") {
        return;
    }
    let example = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/web.yml");
    let said = Command::new("promtool").args(["check", "web-config"]).arg(&example).output();
    let said = said.expect("promtool; Debian's package prometheus brings it");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}
