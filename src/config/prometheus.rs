//! `scrape.prometheus` and `scrape.health` -> what is asked of which server. Looks whether the files that they name
//! exist; otherwise pure.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::model::Signal;
use crate::scrape::prometheus::{Asking, Credentials, Query, ServerSettings};

use super::drivers::existing;
use super::section::Section;
use super::{drivers, scrape, signals};

/// `section` is `scrape`; `signals` are those that name a query. `None` where nothing is asked, or with a problem.
pub(super) fn read(
    section: &Section<'_>,
    signals: BTreeMap<Signal, Query>,
    interval: Duration,
    base_dir: &Path,
) -> Option<Asking> {
    let health = health(section);
    let is_asked = !signals.is_empty() || health.is_some();
    if !section.has("prometheus") {
        if is_asked {
            let hint = "name the server: `prometheus: {url: \"http://prometheus.example:9090\"}`";
            section.problem("prometheus", "is missing, and there are queries", hint);
        }
        return None;
    }
    let server = server(&section.section("prometheus"), interval, base_dir);
    // A query that was refused is no reason to say that there is none.
    if !is_asked && section.problems.is_empty() {
        let hint = "give a signal as `promql`, or leave the server out";
        section.problem("prometheus", "is asked for nothing", hint);
    }
    Some(Asking { server: server?, signals, health })
}

/// The query that tells which nodes are well.
fn health(section: &Section<'_>) -> Option<Query> {
    if !section.has("health") {
        return None;
    }
    let entry = section.section("health");
    let query = signals::query(&entry);
    let hint = "the label that names the node, such as `node_label: instance`";
    let label = entry.required("node_label", query.as_ref().and_then(|q| q.node_label.clone()), hint);
    entry.close();
    Some(Query { node_label: Some(label?), ..query? })
}

fn server(section: &Section<'_>, interval: Duration, base_dir: &Path) -> Option<ServerSettings> {
    let url = drivers::api(section, "url", "http://prometheus.example:9090");
    let hint = "the answers must be there before the next check begins";
    let timeout = scrape::timeout(section, ServerSettings::DEFAULT_TIMEOUT, interval, hint);
    if section.has("authorization") && section.has("basic_auth") {
        section.problem("basic_auth", "stands beside authorization", "a request has one of both");
    }
    let bearer = scrape::authorization(section, base_dir)
        .map(|it| Credentials::Bearer { credentials_file: it.credentials_file });
    let credentials = bearer.or_else(|| basic_auth(section, base_dir));
    let tls = section.section("tls_config");
    let ca_file = existing(&tls, "ca_file", base_dir);
    tls.close();
    section.note_unknown(&[], &[("ca_file", "it stands under `tls_config`, as in Prometheus' own configuration")]);
    Some(ServerSettings { url: url?, timeout, credentials, ca_file })
}

fn basic_auth(section: &Section<'_>, base_dir: &Path) -> Option<Credentials> {
    if !section.has("basic_auth") {
        return None;
    }
    let basic = section.section("basic_auth");
    let username = basic.required("username", basic.text("username"), "the name of the user");
    let password =
        basic.required("password_file", existing(&basic, "password_file", base_dir), "a file with the password");
    basic.note_unknown(&[], &[("password", "put the secret into a file and name it in `password_file`")]);
    Some(Credentials::Basic { username: username?.into(), password_file: password? })
}
