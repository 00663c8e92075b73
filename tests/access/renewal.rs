//! Certificates and passwords that change while everybody goes on asking.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::{World, http};
use crate::{ADMIN, Authority, PASSWORD, Pair, READ, TLS, client, secured_world, start, users};

const WAIT: Duration = Duration::from_secs(20);

/// One handshake and one request; gives the certificate that was shown.
async fn visit(connector: &tokio_rustls::TlsConnector, address: &str) -> Result<Vec<u8>, String> {
    let stream = TcpStream::connect(address).await.map_err(|e| e.to_string())?;
    let name = ServerName::try_from("127.0.0.1").expect("a name");
    let mut stream = connector.connect(name, stream).await.map_err(|e| e.to_string())?;
    let shown = stream.get_ref().1.peer_certificates().expect("a certificate")[0].to_vec();
    let request = format!(
        "GET /autoscaling/status HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {READ}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(|e| e.to_string())?;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await; // some close without saying so
    if answer.starts_with(b"HTTP/1.1 200") { Ok(shown) } else { Err(String::from_utf8_lossy(&answer).into_owned()) }
}

/// Shows a certificate of its own, if it has one.
fn connector(world: &World, own: Option<&Pair>) -> tokio_rustls::TlsConnector {
    drop(http()); // installs what TLS is made with
    let pem = std::fs::read(world.path("ca.pem")).expect("the CA");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&pem).expect("a certificate")).expect("a root");
    let builder = rustls::ClientConfig::builder().with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).expect("a key");
            builder.with_client_auth_cert(vec![own.der.clone().into()], key).expect("a pair")
        }
    };
    tokio_rustls::TlsConnector::from(Arc::new(config))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn certificates_are_renewed_under_load_without_a_failed_handshake() {
    let (mut world, authority) = secured_world();
    start(&mut world).await;
    let (connector, address) = (connector(&world, None), world.url.replace("https://", ""));
    let (over, visits) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let visitors: Vec<_> = (0..4)
        .map(|_| {
            let (connector, address, over, visits) = (connector.clone(), address.clone(), over.clone(), visits.clone());
            tokio::spawn(async move {
                let mut certificates = std::collections::BTreeSet::new();
                while !over.load(Ordering::Relaxed) {
                    certificates.insert(visit(&connector, &address).await.expect("a visit that succeeds"));
                    visits.fetch_add(1, Ordering::Relaxed);
                }
                certificates.len()
            })
        })
        .collect();

    let began = Instant::now();
    let mut last = authority.issue();
    let mut renewals = 0;
    while began.elapsed() < Duration::from_secs(8) {
        last = authority.issue();
        match renewals % 4 {
            3 => std::fs::write(world.path("cert.pem"), "-----BEGIN CERTIFICATE-----\nhalf").expect("half of it"),
            _ => std::fs::write(world.path("cert.pem"), &last.certificate).expect("the certificate"),
        }
        // Whoever writes certificates writes the key a moment later.
        tokio::time::sleep(Duration::from_millis(90)).await;
        last.write_to(&world);
        tokio::time::sleep(Duration::from_millis(110)).await;
        renewals += 1;
    }
    let newest = async |_: &World| (visit(&connector, &address).await.expect("a visit") == last.der).then_some(());
    world.until("the newest certificate", WAIT, newest).await;
    over.store(true, Ordering::Relaxed);
    let mut seen = 0;
    for visitor in visitors {
        seen = seen.max(visitor.await.unwrap_or_else(|error| panic!("{error}\n{}", world.logs())));
    }
    println!("{renewals} renewals, {} visits, {seen} certificates seen by one visitor", visits.load(Ordering::Relaxed));
    assert!(seen > 2, "the certificates were taken on the way, not only at the end\n{}", world.logs());
}

#[tokio::test]
async fn a_broken_file_changes_nothing_and_a_whole_one_everything() {
    let (mut world, _) = secured_world();
    start(&mut world).await;
    let client = client(&world);
    let status = async |w: &World, user: &str| {
        let url = format!("{}/autoscaling/status", w.url);
        client.get(url).basic_auth(user, Some(PASSWORD)).send().await.expect("an answer").status().as_u16()
    };
    assert_eq!(status(&world, "prometheus").await, 200);

    std::fs::write(world.path("web.yml"), "basic_auth_users: {prometheus: not a hash}\n").expect("a broken file");
    let told = async |w: &World| w.logs().contains("what was in force stays").then_some(());
    world.until("the refusal in the log", WAIT, told).await;
    let fine = async |w: &World| {
        let page = client.get(format!("{}/metrics", w.url)).basic_auth("prometheus", Some(PASSWORD)).send().await;
        page.expect("an answer").text().await.expect("a page").contains("vecscale_web_config_last_reload_successful 1")
    };
    assert!(!fine(&world).await, "the series tells of it too");
    let (logs, refused) = (world.logs(), "basic_auth_users.prometheus: is not a bcrypt hash");
    assert!(logs.contains(refused) && !logs.contains("not a hash\\"), "{logs}");
    assert_eq!(status(&world, "prometheus").await, 200, "{}", world.logs());
    std::fs::write(world.path("web.yml"), format!("{TLS}{} # mended", users())).expect("a whole file");
    world.until("the series at 1 again", WAIT, async |w: &World| fine(w).await.then_some(())).await;
    let history = client.get(format!("{}/autoscaling/history", world.url)).bearer_auth(READ).send().await;
    let history = history.expect("an answer").text().await.expect("rows");
    assert_eq!(history.matches("TLS and credentials taken anew").count(), 1, "{history}");

    let renewed = format!("{TLS}http_server_config: {{headers: {{X-Frame-Options: deny}}}}\n{}", users());
    std::fs::write(world.path("web.yml"), renewed.replace("prometheus", "someone")).expect("a file");
    let gone = async |w: &World| (status(w, "prometheus").await == 401).then_some(());
    world.until("the user is gone", WAIT, gone).await;
    let answer = client.get(format!("{}/-/healthy", world.url)).send().await.expect("an answer");
    assert_eq!(answer.headers()["x-frame-options"], "deny");

    std::fs::write(world.path("tokens/read"), "another-token-0123456789").expect("a renewed token");
    let by_token = async |w: &World| {
        let url = format!("{}/autoscaling/status", w.url);
        let answer = client.get(url).bearer_auth("another-token-0123456789").send().await.expect("an answer");
        (answer.status() == 200).then_some(())
    };
    world.until("the renewed token is known", WAIT, by_token).await;
    let old = client.get(format!("{}/autoscaling/status", world.url)).bearer_auth(READ).send().await;
    assert_eq!(old.expect("an answer").status(), 401, "the old token is known no more");
}

#[tokio::test]
async fn other_tokens_come_with_a_reload() {
    let (mut world, _) = secured_world();
    world.args.push("--web.enable-lifecycle".into());
    start(&mut world).await;
    let client = client(&world);
    let config = std::fs::read_to_string(world.path("config.yaml")).expect("the configuration");
    let reloaded = async |text: &str| {
        std::fs::write(world.path("config.yaml"), text).expect("the configuration");
        let answer = client.post(format!("{}/-/reload", world.url)).bearer_auth(ADMIN).send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("a text"))
    };
    let status = async || {
        let request = client.get(format!("{}/autoscaling/status", world.url)).bearer_auth(READ);
        request.send().await.expect("an answer").status().as_u16()
    };
    let (code, said) = reloaded(&config.replace("token_file: tokens/read", "token_file: absent")).await;
    assert!(code == 500 && said.contains("web.tokens[0].token_file: "), "{said}");
    assert_eq!(status().await, 200, "a refused reload changes nothing");
    let (code, said) =
        reloaded(&config.replace("    - {name: dashboard, role: read, token_file: tokens/read}\n", "")).await;
    assert!(code == 200 && said.contains("web: changed"), "{said}");
    assert_eq!(status().await, 401, "at once");
}

#[tokio::test]
async fn only_whom_the_ca_has_signed_gets_past_the_handshake() {
    let (mut world, authority) = secured_world();
    let demanding = TLS.replace('}', ", client_ca_file: ca.pem, client_auth_type: RequireAndVerifyClientCert}");
    std::fs::write(world.path("web.yml"), &demanding).expect("the web configuration");
    world.spawn();
    let address = world.url.replace("http://", "");
    let listening = async |w: &World| w.logs().contains("listening").then_some(());
    world.until("it listens", WAIT, listening).await;
    for (of, gets_in) in [(Some(&authority), true), (Some(&Authority::signing()), false), (None, false)] {
        let certificate = of.map(|of| of.issue());
        let seen = visit(&connector(&world, certificate.as_ref()), &address).await;
        assert_eq!(seen.is_ok(), gets_in, "{seen:?}\n{}", world.logs());
    }

    let own = authority.issue(); // for localhost and 127.0.0.1
    for (names, gets_in) in
        [("[10.0.0.1, ocalhost]", false), ("[10.0.0.1, 127.0.0.1]", true), ("[]", false), ("[localhost]", true)]
    {
        let named = demanding.replace('}', &format!(", client_allowed_sans: {names}}}"));
        std::fs::write(world.path("web.yml"), named).expect("the web configuration");
        let in_force = async |w: &World| {
            let seen = visit(&connector(w, Some(&own)), &address).await;
            (seen.is_ok() == gets_in).then_some(())
        };
        world.until(&format!("names {names} let it in: {gets_in}"), WAIT, in_force).await;
    }
}

/// A connection that stays open while other things change.
struct Line(tokio_rustls::client::TlsStream<TcpStream>);

impl Line {
    async fn open(connector: &tokio_rustls::TlsConnector, address: &str) -> Line {
        let stream = TcpStream::connect(address).await.expect("a connection");
        let name = ServerName::try_from("127.0.0.1").expect("a name");
        Line(connector.connect(name, stream).await.expect("a handshake"))
    }

    /// The head of the answer, in small letters.
    async fn ask(&mut self, line: &str) -> String {
        let request = format!("{line} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        self.0.write_all(request.as_bytes()).await.expect("a request");
        let mut answer = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&answer).to_lowercase();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.split("content-length: ").nth(1).expect("a length").lines().next();
                if body.len() >= length.expect("a line").parse::<usize>().expect("a number") {
                    return head.into();
                }
            }
            assert_ne!(self.0.read_buf(&mut answer).await.expect("more"), 0, "cut off after {text:?}");
        }
    }

    /// Asks until something else than "200, and go on" is answered: that, and whether the connection ended.
    async fn until_told_otherwise(mut self, world: &World) -> (String, bool) {
        let deadline = Instant::now() + WAIT;
        loop {
            let head = self.ask("GET /autoscaling/thresholds").await;
            if !head.starts_with("http/1.1 200") || head.contains("connection: close") {
                return (head, self.0.read_u8().await.is_err());
            }
            assert!(Instant::now() < deadline, "still in\n{}", world.logs());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Here a certificate is all that anybody is asked for, and who is in may do everything.
#[tokio::test]
async fn an_open_connection_keeps_no_right_that_a_new_one_would_not_get() {
    let (mut world, authority) = secured_world();
    let without_tokens = crate::CONFIG.split("web:").next().expect("the pools");
    std::fs::write(world.path("config.yaml"), without_tokens).expect("the configuration");
    std::fs::write(world.path("clients.pem"), authority.pem()).expect("the clients' CA");
    std::fs::write(world.path("web.yml"), TLS).expect("the web configuration");
    start(&mut world).await;
    let address = world.url.replace("https://", "");
    let (nobody, own) = (connector(&world, None), connector(&world, Some(&authority.issue())));
    let write = |name: &str, text: &str| std::fs::write(world.path(name), text).expect(name);
    let refused = |(head, ended): (String, bool)| {
        assert!(head.starts_with("http/1.1 401") && head.contains("connection: close") && ended, "{head}");
    };

    let mut line = Line::open(&nobody, &address).await;
    assert!(line.ask("POST /autoscaling/stop").await.starts_with("http/1.1 200"), "{}", world.logs());
    let demanding = TLS.replace('}', ", client_ca_file: clients.pem, client_auth_type: RequireAndVerifyClientCert}");
    write("web.yml", &demanding);
    refused(line.until_told_otherwise(&world).await);

    let line = Line::open(&own, &address).await;
    write("web.yml", &format!("{demanding}http_server_config: {{headers: {{X-Frame-Options: deny}}}}\n"));
    let (head, ended) = line.until_told_otherwise(&world).await;
    assert!(head.starts_with("http/1.1 200") && ended, "who is still let in connects anew, without a refusal: {head}");

    let line = Line::open(&own, &address).await;
    write("web.yml", &demanding.replace('}', ", client_allowed_sans: [elsewhere]}"));
    refused(line.until_told_otherwise(&world).await);
    write("web.yml", &demanding);
    let let_in = async |_: &World| visit(&own, &address).await.ok();
    world.until("any name is let in again", WAIT, let_in).await;

    let line = Line::open(&own, &address).await;
    write("clients.pem", &Authority::signing().pem());
    refused(line.until_told_otherwise(&world).await);
}

#[tokio::test]
async fn plain_http_to_a_tls_port_is_told_so() {
    let (mut world, _) = secured_world();
    start(&mut world).await;
    let mut stream = TcpStream::connect(world.url.replace("https://", "")).await.expect("a connection");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.0 400 ") && answer.contains("HTTP request to an HTTPS server"), "{answer}");
}
