//! Who may ask at all: the names under which we are reached, and foreign web pages kept from changing anything. Pure.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::uri::Authority;
use http::{HeaderMap, StatusCode, Uri, header};

use super::problem::Problem;

/// The scheme and authority of `--web.external-url`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalUrl {
    scheme: String,
    authority: Authority,
}

impl ExternalUrl {
    /// # Errors
    /// When `text` is no absolute http or https URL.
    pub fn parse(text: &str) -> Result<ExternalUrl, String> {
        let wrong = || format!("{text:?} is not an absolute URL, such as https://vecscale.example.com");
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let scheme = uri.scheme_str().filter(|s| matches!(*s, "http" | "https")).ok_or_else(wrong)?;
        let authority = uri.authority().filter(|a| !a.as_str().contains('@')).ok_or_else(wrong)?;
        Ok(ExternalUrl { scheme: scheme.into(), authority: authority.clone() })
    }

    fn is_named_by(&self, host: &str) -> bool {
        self.authority.host().eq_ignore_ascii_case(host)
    }

    fn is_origin(&self, scheme: &str, authority: &Authority) -> bool {
        scheme.eq_ignore_ascii_case(&self.scheme)
            && authority.host().eq_ignore_ascii_case(self.authority.host())
            && port_of(scheme, authority) == port_of(scheme, &self.authority)
    }
}

fn port_of(scheme: &str, authority: &Authority) -> u16 {
    authority.port_u16().unwrap_or(if scheme.eq_ignore_ascii_case("https") { 443 } else { 80 })
}

/// Refuses a request that was sent to a name that is not ours: a web page could make a browser send it (DNS rebinding).
///
/// # Errors
/// 421 for a foreign name, 400 for none or an unreadable one.
pub fn check_host(uri: &Uri, headers: &HeaderMap, external: Option<&ExternalUrl>) -> Result<(), Problem> {
    let host = host(uri, headers)?;
    if is_local(host.host()) || external.is_some_and(|url| url.is_named_by(host.host())) {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::MISDIRECTED_REQUEST,
        format!(
            "Host {:?} is not this program's: use localhost or 127.0.0.1, or start it with --web.external-url naming that host",
            shortened(host.as_str())
        ),
    ))
}

/// Keeps web pages of other sites from changing anything through a browser on this machine, or with the password that a
/// browser remembers. `scheme` is what the listener speaks.
///
/// # Errors
/// 403 when the request says that it comes from another origin.
pub fn check_origin(
    uri: &Uri,
    headers: &HeaderMap,
    scheme: &str,
    external: Option<&ExternalUrl>,
) -> Result<(), Problem> {
    let foreign = |what: String| {
        Problem::new(
            StatusCode::FORBIDDEN,
            format!(
                "{what}: a web page of another origin may change nothing here; use curl, or a page that this program serves"
            ),
        )
    };
    for site in headers.get_all("sec-fetch-site") {
        if !matches!(site.as_bytes(), b"same-origin" | b"none") {
            return Err(foreign(format!("Sec-Fetch-Site {:?}", shortened(&String::from_utf8_lossy(site.as_bytes())))));
        }
    }
    for origin in headers.get_all(header::ORIGIN) {
        let text = String::from_utf8_lossy(origin.as_bytes());
        let ours = host(uri, headers)?;
        if !is_ours(&text, &ours, scheme, external) {
            return Err(foreign(format!("Origin {:?}", shortened(&text))));
        }
    }
    Ok(())
}

/// An origin is ours when it is the very host and port that the request went to, or the external URL's.
fn is_ours(origin: &str, host: &Authority, spoken: &str, external: Option<&ExternalUrl>) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let Ok(authority) = authority.parse::<Authority>() else { return false };
    let same =
        authority.host().eq_ignore_ascii_case(host.host()) && port_of(scheme, &authority) == port_of(scheme, host);
    (same && scheme.eq_ignore_ascii_case(spoken)) || external.is_some_and(|url| url.is_origin(scheme, &authority))
}

/// The authority that the request was sent to; a request target in absolute form counts before the header.
fn host(uri: &Uri, headers: &HeaderMap) -> Result<Authority, Problem> {
    if let Some(authority) = uri.authority() {
        return Ok(authority.clone());
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let text = match (hosts.next(), hosts.next()) {
        (Some(one), None) => one.to_str().ok(),
        _ => return Err(Problem::malformed("exactly one Host header is needed")),
    };
    text.and_then(|t| t.parse::<Authority>().ok())
        .filter(|a| !a.as_str().contains('@'))
        .ok_or_else(|| Problem::malformed("the Host header is not a host with an optional port"))
}

fn is_local(host: &str) -> bool {
    let v6 = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
        || v6.is_some_and(|h| h.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_loopback()))
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (http::HeaderName::from_static(n), v.parse().expect("a header value"))).collect()
    }

    fn path() -> Uri {
        Uri::from_static("/autoscaling/start")
    }

    #[test]
    fn only_local_names_and_the_external_one_are_ours() {
        let external = ExternalUrl::parse("https://scale.example.com/x").expect("a URL");
        for (host, status) in [
            ("localhost", None),
            ("LocalHost:8000", None),
            ("127.0.0.1:8000", None),
            ("127.255.0.9", None),
            ("[::1]:8000", None),
            ("scale.example.com", None),
            ("scale.example.com:8443", None),
            ("evil.example.com", Some(421)),
            ("localhost.evil.com", Some(421)),
            ("127.0.0.1.evil.com", Some(421)),
            ("0.0.0.0:8000", Some(421)),
            ("10.0.0.1", Some(421)),
            ("a b", Some(400)),
            ("evil.com@localhost", Some(400)),
            ("", Some(400)),
        ] {
            let got = check_host(&path(), &headers(&[("host", host)]), Some(&external));
            let got = got.err().map(|p| p.into_answer().status().as_u16());
            assert_eq!(got, status, "{host:?}");
        }
        assert!(check_host(&path(), &HeaderMap::new(), None).is_err(), "no Host at all");
        let absolute = Uri::from_static("http://evil.example.com/autoscaling/start");
        assert!(check_host(&absolute, &headers(&[("host", "localhost")]), None).is_err(), "absolute form");
    }

    #[test]
    fn a_foreign_origin_is_refused() {
        let external = ExternalUrl::parse("https://scale.example.com").expect("a URL");
        for (name, value, allowed) in [
            ("origin", "http://localhost:8000", true),
            ("origin", "http://LOCALHOST:8000", true),
            ("origin", "https://scale.example.com", true),
            ("origin", "https://scale.example.com:443", true),
            ("origin", "http://localhost:3000", false),
            ("origin", "http://localhost", false),
            ("origin", "https://localhost:8000", false),
            ("origin", "http://scale.example.com", false),
            ("origin", "https://evil.example.com", false),
            ("origin", "null", false),
            ("sec-fetch-site", "same-origin", true),
            ("sec-fetch-site", "none", true),
            ("sec-fetch-site", "same-site", false),
            ("sec-fetch-site", "cross-site", false),
        ] {
            let headers = headers(&[("host", "localhost:8000"), (name, value)]);
            assert_eq!(check_origin(&path(), &headers, "http", Some(&external)).is_ok(), allowed, "{name}: {value}");
        }
        assert!(
            check_origin(&path(), &headers(&[("host", "localhost:8000")]), "http", None).is_ok(),
            "curl sends no Origin"
        );
        for (origin, allowed) in
            [("https://10.0.0.1", true), ("https://10.0.0.1:443", true), ("http://10.0.0.1", false)]
        {
            let headers = headers(&[("host", "10.0.0.1"), ("origin", origin)]);
            assert_eq!(check_origin(&path(), &headers, "https", None).is_ok(), allowed, "{origin} over TLS");
        }
    }

    #[test]
    fn an_external_url_is_absolute() {
        for text in ["", "scale.example.com", "/x", "ftp://scale.example.com", "https://u:p@scale.example.com"] {
            assert!(ExternalUrl::parse(text).is_err(), "{text:?}");
        }
    }
}
