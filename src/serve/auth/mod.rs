//! Who may call, and over which wire. Two sources, both read anew when they change: `--web.config.file`, in the format
//! that Prometheus and its exporters share (TLS, headers, users with passwords), and `web` of the configuration (bearer
//! tokens, and the roles of the users). Ours has a place of its own because the shared format refuses foreign keys: one
//! of them, and no other program could read the file any more.

mod credentials;
mod keeper;
mod roles;
mod settings;
pub(crate) mod tls;

pub use credentials::{Caller, read_token};
pub use keeper::{InForce, Keeper};
pub use roles::{Role, needed};
pub use settings::{AccessSettings, PasswordHash, TokenDigest, TokenSettings, TokenSource, WebSettings};
