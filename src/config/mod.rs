//! Configuration files: a policy, API keys, JSON-RPC endpoints, discovery sources and the routes of a proxy in one TOML file.
//!
//! [`Config::from_file`] reads a file once. It checks the whole file and reports all mistakes, each with its
//! line.
//!
//! ```no_run
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use bursar::config::Config;
//! use bursar::{Client, LocalSigner, Ledger};
//!
//! let config = Config::from_file("agent.toml")?;
//! let client = Client::builder()
//!     .signer(LocalSigner::from_env("BURSAR_PRIVATE_KEY")?)
//!     .policy(config.policy)
//!     .credentials(config.credentials)
//!     .ledger(Ledger::memory())
//!     .build()?;
//! let found = client.discover().sources(&config.sources).find("weather").run();
//! # Ok(())
//! # }
//! ```
//!
//! # Format
//!
//! | Value | Form |
//! |---|---|
//! | an amount | `"0.10 USD"`, `"$0.10"`, or `"2.5 EURC@base"` for units of a token |
//! | a time | `"90s"`, `"5m"`, `"24h"`, `"7d"` |
//! | a share of a limit | `"80%"` or `0.8` |
//! | a network | `"base"` or `"eip155:8453"` |
//! | a token | `"USDC@base"` or `"0x…@base"` |
//!
//! A key that takes several values takes one value or an array. An unknown key is a mistake. This file has
//! every key, and the repository has it as `examples/policy.toml`:
//!
//! ```toml
#![doc = include_str!("../../examples/policy.toml")]
//! ```

mod chain;
mod credentials;
mod error;
mod kind;
mod mcp_server;
mod policy;
mod proxy;
mod reader;
mod scalar;
mod schema;
mod token;

use std::path::Path;

use serde::Deserialize;
use toml::de::DeTable;

pub use error::{ConfigError, Mistake};
pub use mcp_server::{McpServer, McpServerPlace};
pub use proxy::{ProxyConfig, ProxyRoute};

use crate::chain::ChainReader;
use crate::credential::{Credentials, open_trusted};
use crate::discovery::{SourceKind, Sources};
use crate::policy::Policy;
use error::Mistakes;
use reader::{Reader, Table};

/// The content of a configuration file.
///
/// ```
/// use bursar::config::Config;
///
/// let config = Config::from_toml(r#"
///     version = 1
///     networks = ["base"]
///
///     [global]
///     per_payment = "0.05 USD"
///     per_day = "5 USD"
///
///     [[credential]]
///     name = "example"
///     host = "api.example.com"
///     bearer = { env = "EXAMPLE_API_KEY" }
///
///     [discovery]
///     bazaar = "https://x402.org/facilitator"
/// "#)?;
/// config.policy.check()?;
/// assert_eq!(config.credentials.names().collect::<Vec<_>>(), ["example"]);
/// assert!(!config.sources.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The limits and rules. A file without `networks` allows no network: add one in code.
    pub policy: Policy,
    /// The API keys of the tables `[[credential]]`.
    pub credentials: Credentials,
    /// The places to look for services, from the table `[discovery]`.
    pub sources: Sources,
    /// The JSON-RPC endpoints of the tables `[[chain]]`, for [`ClientBuilder::chain`](crate::ClientBuilder::chain).
    pub chain: Option<ChainReader>,
    /// The settings of `bursar proxy`, from the table `[proxy]`.
    pub proxy: ProxyConfig,
    /// The MCP servers of the tables `[[mcp_server]]`, which `bursar mcp proxy` calls.
    pub mcp_servers: Vec<McpServer>,
    /// Whether `bursar mcp proxy` may add MCP servers that it found in `sources`: `add_servers` in `[discovery]`.
    pub add_servers: bool,
}

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// Returns [`ConfigError::Unreadable`] if the file cannot be read or, on Unix, every user can write it, and [`ConfigError::Invalid`] with every
    /// mistake if the file has mistakes.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let text = open_trusted(path)
            .and_then(std::io::read_to_string)
            .map_err(|error| ConfigError::Unreadable {
                path: path.to_owned(),
                reason: error.to_string(),
            })?;
        Self::from_toml(&text).map_err(|error| error.in_file(path))
    }

    /// Reads the text of a configuration file.
    ///
    /// ```
    /// use bursar::config::Config;
    ///
    /// let error = Config::from_toml("version = 1\nnetwrks = [\"base\"]").unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "line 2, column 1: unknown key `netwrks` in the file; did you mean `networks`?",
    /// );
    /// ```
    ///
    /// # Errors
    /// Returns [`ConfigError::Invalid`] with every mistake if the text has mistakes. If it is not TOML, only
    /// the errors of its grammar are reported.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let mistakes = Mistakes::new(text);
        let (document, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let at = error.span().map_or(0, |span| span.start);
            mistakes.add(at, error.message());
        }
        if !errors.is_empty() {
            return Err(mistakes.into_error());
        }
        let reader = Reader::new(&mistakes, document.into_inner());
        let file = match Table::<schema::File>::deserialize(reader) {
            Ok(file) => file.content,
            Err(flaw) => {
                mistakes.add(0, flaw.to_string());
                None
            }
        };
        let Some(file) = file else {
            return Err(mistakes.into_error());
        };
        let credentials = credentials::credentials(&file, &mistakes);
        let config = Self {
            policy: policy::policy(&file, &mistakes),
            sources: sources(&file, &mistakes),
            chain: chain::reader(&file, &mistakes),
            proxy: proxy::proxy(&file, &credentials, &mistakes),
            mcp_servers: mcp_server::servers(&file, &mistakes),
            add_servers: policy::tables(&file.discovery)
                .any(|(_, table)| policy::content(table.add_servers.as_ref()) == Some(&true)),
            credentials,
        };
        if mistakes.is_empty() {
            Ok(config)
        } else {
            Err(mistakes.into_error())
        }
    }
}

/// Builds the places to look for services.
fn sources(file: &schema::File, mistakes: &Mistakes<'_>) -> Sources {
    let mut sources = Sources::default();
    for (_, table) in policy::tables(&file.discovery) {
        for (key, kind, urls) in [
            ("bazaar", SourceKind::Bazaar, &table.bazaar),
            ("well_known", SourceKind::WellKnown, &table.well_known),
            ("openapi", SourceKind::OpenApi, &table.openapi),
            ("registry", SourceKind::Registry, &table.registry),
        ] {
            for (at, url) in policy::contents(urls) {
                if let Err(error) = sources.add(kind, url.clone()) {
                    mistakes.add(at, format!("`{key}`: {}", error.message()));
                }
            }
        }
    }
    sources
}

impl Policy {
    /// Reads the policy of a configuration file.
    ///
    /// This is a shortcut for [`Config::from_file`], which also returns API keys and discovery sources.
    ///
    /// ```no_run
    /// use bursar::Policy;
    ///
    /// let policy = Policy::from_file("agent.toml")?;
    /// # Ok::<(), bursar::config::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// Returns the errors of [`Config::from_file`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        Config::from_file(path).map(|config| config.policy)
    }

    /// Reads the policy from the text of a configuration file.
    ///
    /// ```
    /// use bursar::{Policy, usd};
    ///
    /// let policy = Policy::from_toml(r#"
    ///     version = 1
    ///     networks = ["base"]
    ///
    ///     [[host]]
    ///     match = "*.example.com"
    ///     per_day = "1 USD"
    ///     payee = "pinned"
    /// "#)?;
    /// // A program can add to the policy.
    /// policy.per_payment(usd!("0.05")).check()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Returns the errors of [`Config::from_toml`].
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        Config::from_toml(text).map(|config| config.policy)
    }
}
