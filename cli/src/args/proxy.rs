//! `bursar proxy`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bursar::config::ProxyRoute;
use clap::{Args, Subcommand, ValueEnum};

use super::parse::{http_url, seconds};
use super::{PolicyArgs, WalletArgs};

#[derive(Args, Debug)]
pub(crate) struct ProxyCommandArgs {
    #[command(flatten)]
    pub(crate) serve: ProxyArgs,
    #[command(subcommand)]
    pub(crate) command: Option<ProxyCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProxyCommand {
    /// Make a token for a program, and print it; it is shown only now
    ///
    /// Give the token to the program as the API key of its SDK. The file of tokens has only a hash of it. A running proxy
    /// knows the new token at once.
    Token {
        /// The name of the program: letters, digits and `-._`; the ledger records it as the agent
        name: String,
        /// Replace the token of this name; the old one ends at once
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        file: TokenFile,
    },
    /// List the names of the tokens
    Tokens {
        #[command(flatten)]
        file: TokenFile,
    },
    /// End the token of a program; a running proxy refuses it at once
    Revoke {
        /// The name of the program
        name: String,
        #[command(flatten)]
        file: TokenFile,
    },
}

#[derive(Args, Debug)]
pub(crate) struct TokenFile {
    /// The file of tokens; by default proxy-tokens beside the default ledger
    #[arg(long, value_name = "FILE")]
    pub(crate) tokens: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct ProxyArgs {
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    #[command(flatten)]
    pub(crate) wallet: WalletArgs,
    #[command(flatten)]
    pub(crate) file: TokenFile,
    /// Listen on this loopback address; by default the one of the policy file, or else 127.0.0.1:8402
    ///
    /// Port 0 takes a free port. The first line of standard output is the URL of the proxy.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = loopback)]
    pub(crate) listen: Option<SocketAddr>,
    /// Add a route: requests below PATH go to URL; can be repeated
    #[arg(long, value_name = "PATH=URL", value_parser = route)]
    pub(crate) route: Vec<ProxyRoute>,
    /// Allow plain http to the loopback addresses of this machine
    #[arg(long)]
    pub(crate) allow_http_loopback: bool,
    /// Allow targets with private addresses, and proxies
    #[arg(long)]
    pub(crate) allow_private_networks: bool,
    /// Limit the time of each whole call, payment and body included; a route can have its own
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Option<Duration>,
    /// Limit the time until a target begins its answer
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "600")]
    pub(crate) answer_timeout: Duration,
    /// The time for calls to end after SIGTERM or ctrl-c; later ones are abandoned
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "30")]
    pub(crate) stop_timeout: Duration,
    /// Serve at most N calls at once
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) max_calls: u32,
    /// The form of the log on standard error; by default text on a terminal, and JSON elsewhere
    #[arg(long, value_enum)]
    pub(crate) log: Option<LogFormat>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// Parses a loopback address with a port. The proxy holds a wallet.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let expected = "expected an address such as 127.0.0.1:8402";
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    let address: SocketAddr = numeric.parse().map_err(|_| expected.to_owned())?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err("the proxy holds a wallet, and listens on loopback addresses only".to_owned())
    }
}

/// Parses `PATH=URL`.
fn route(text: &str) -> Result<ProxyRoute, String> {
    let (path, target) = text
        .split_once('=')
        .ok_or("expected a path and a URL such as /openai=https://api.example.com")?;
    ProxyRoute::new(path, http_url(target)?)
}
