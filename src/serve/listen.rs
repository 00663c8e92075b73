//! Where the main listener may listen. Pure.

use std::net::SocketAddr;

/// A listener that anyone could reach.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "--web.listen-address {0}: not a loopback address, and whoever reaches it could change the cluster\n    \
     hint: ask callers who they are: `basic_auth_users` or a client certificate (RequireAndVerifyClientCert) in the file of \
     --web.config.file, or `web.tokens` in the configuration; or listen on 127.0.0.1, and use --web.telemetry-address for the \
     read-only pages"
)]
pub struct OpenToAll(SocketAddr);

/// Whether the main listener may listen on `address`; `authenticated` says that changes need a credential there.
///
/// # Errors
/// When it may not: any address but loopback, without authentication.
pub fn check_listen(address: SocketAddr, authenticated: bool) -> Result<(), OpenToAll> {
    if address.ip().to_canonical().is_loopback() || authenticated { Ok(()) } else { Err(OpenToAll(address)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_may_be_open() {
        for (address, open) in [
            ("127.0.0.1:8000", true),
            ("127.9.9.9:0", true),
            ("[::1]:8000", true),
            ("[::ffff:127.0.0.1]:8000", true),
            ("0.0.0.0:8000", false),
            ("[::]:8000", false),
            ("192.168.1.5:8000", false),
            ("[::ffff:10.0.0.1]:8000", false),
        ] {
            let address: SocketAddr = address.parse().expect(address);
            assert_eq!(check_listen(address, false).is_ok(), open, "{address}");
            assert!(check_listen(address, true).is_ok(), "{address} with authentication");
        }
        let why = check_listen("0.0.0.0:8000".parse().unwrap(), false).unwrap_err().to_string();
        assert!(why.contains("0.0.0.0:8000") && why.contains("--web.telemetry-address"), "{why}");
    }
}
