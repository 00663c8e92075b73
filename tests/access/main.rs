//! The real program asked by those who may and those who may not, over plain HTTP and over TLS, by the real Prometheus
//! and the real Alertmanager.

mod command_line;
#[path = "../common/mod.rs"]
mod common;
mod neighbours;
mod pairs;
mod renewal;

use std::time::{Duration, Instant};

use common::{World, http};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// Tokens by the role that they have.
pub const READ: &str = "read-3f6b0d1c9a7e4f52";
pub const TRIGGER: &str = "trigger-5c1de2a98b3f4760";
pub const OPERATE: &str = "operate-77b2a4c0d9e81f36";
pub const ADMIN: &str = "admin-e09c4b7d215f83a6";
/// The password of every user.
pub const PASSWORD: &str = "correct horse battery";

/// One pool that nobody else changes: its node does not exist, and it is looked at once a minute.
const CONFIG: &str = "
pools:
  - name: default
    thresholds: {health_check_interval: 60, min_nodes: 1}
    provider: {type: none}
    datastore: {type: none}
    nodes: {static: [{id: n1, address: 'http://127.0.0.1:1'}]}
    scrape: {preset: none}
    alerts: [{name: database, matchers: ['alertname=~\"Vector.*\"'], action: none}]
web:
  tokens:
    - {name: dashboard, role: read, token_file: tokens/read}
    - {name: alertmanager, role: trigger, token_file: tokens/trigger}
    - {name: oncall, role: operate, token_file: tokens/operate}
    - {name: deploy, role: admin, token_file: tokens/admin}
  roles: {prometheus: read, alerts: trigger, boss: admin}
";

/// A controller with four tokens and four users, one of them without a role; not started yet.
pub fn world() -> World {
    let world = World::new(CONFIG);
    std::fs::create_dir(world.path("tokens")).expect("a folder for the tokens");
    for (name, token) in [("read", READ), ("trigger", TRIGGER), ("operate", OPERATE), ("admin", ADMIN)] {
        std::fs::write(world.path(&format!("tokens/{name}")), format!("{token}\n")).expect("a token");
    }
    world
}

/// `basic_auth_users` of a web configuration. A low cost, for the tests' sake.
pub fn users() -> String {
    let hash = bcrypt::hash(PASSWORD, 4).expect("a hash");
    let lines = ["prometheus", "alerts", "boss", "stranger"].map(|name| format!("  {name}: '{hash}'\n"));
    format!("basic_auth_users:\n{}", lines.concat())
}

pub const TLS: &str = "tls_server_config: {cert_file: cert.pem, key_file: key.pem}\n";

/// The same with users and TLS; gives who signs its certificates.
pub fn secured_world() -> (World, Authority) {
    let (mut world, authority) = (world(), Authority::signing());
    authority.issue().write_to(&world);
    std::fs::write(world.path("ca.pem"), authority.pem()).expect("the CA");
    std::fs::write(world.path("web.yml"), format!("{TLS}{}", users())).expect("the web configuration");
    world.args.push(format!("--web.config.file={}", world.path("web.yml").display()));
    (world, authority)
}

/// Starts a controller that speaks TLS, and waits until it has looked at its pool.
pub async fn start(world: &mut World) {
    world.spawn();
    world.url = world.url.replace("http://", "https://");
    let client = client(world);
    let deadline = Instant::now() + Duration::from_secs(60);
    let ready = format!("{}/-/ready", world.url);
    while !client.get(&ready).send().await.is_ok_and(|answer| answer.status() == 200) {
        assert!(world.is_running(), "the controller ended by itself\n{}", world.logs());
        assert!(Instant::now() < deadline, "the controller does not get ready\n{}", world.logs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A client that trusts the authority of this world, with a new connection for each request.
pub fn client(world: &World) -> reqwest::Client {
    drop(http()); // installs what TLS is made with
    let pem = std::fs::read(world.path("ca.pem")).expect("the CA");
    let authority = reqwest::Certificate::from_pem(&pem).expect("the CA's certificate");
    let builder = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(15)).pool_max_idle_per_host(0);
    builder.tls_certs_only([authority]).build().expect("a client")
}

/// Signs certificates for 127.0.0.1.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
pub struct Pair {
    pub certificate: String,
    pub key: String,
    pub der: Vec<u8>,
}

impl Authority {
    pub fn signing() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    pub fn issue(&self) -> Pair {
        let names = vec!["localhost".to_string(), "127.0.0.1".to_string()];
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(names).expect("parameters");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        Pair { certificate: certificate.pem(), key: key.serialize_pem(), der: certificate.der().to_vec() }
    }
}

impl Pair {
    pub fn write_to(&self, world: &World) {
        std::fs::write(world.path("cert.pem"), &self.certificate).expect("the certificate");
        std::fs::write(world.path("key.pem"), &self.key).expect("the key");
    }
}
