//! `bursar mcp`.

use std::time::Duration;

#[cfg(feature = "mcp")]
use bursar::{PurchaseId, Url};
use clap::{Args, Subcommand};

#[cfg(feature = "mcp-proxy")]
use std::net::SocketAddr;

#[cfg(feature = "mcp-proxy")]
use bursar::config::McpServer as Upstream;

#[cfg(feature = "mcp-serve")]
use super::help;
#[cfg(feature = "mcp")]
use super::parse::http_url;
use super::parse::seconds;
#[cfg(feature = "mcp-proxy")]
use super::parse::{loopback, upstream, upstream_command};
use super::{PolicyArgs, WalletArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum McpCommand {
    /// List the tools of a server with the prices that the list names; with --ask, also ask for the others
    #[cfg(feature = "mcp")]
    Tools(McpTools),
    /// Call a tool, and pay if needed and allowed
    ///
    /// The limits, the JSON object and the exit codes are those of `bursar pay`: body contains the result of the tool
    /// as JSON, and status is null. A tool that returns an error is a failed call.
    #[cfg(feature = "mcp")]
    Call(Box<McpCall>),
    /// Run an MCP server on standard input and output that pays for an agent; the protocol never shows the key
    #[cfg(feature = "mcp-serve")]
    #[command(
        after_long_help = help::SERVE,
        after_help = "--help also describes the tools and the configuration of an MCP client."
    )]
    Serve(Box<Serve>),
    /// Run an MCP server in front of other MCP servers: a host sees their tools, and bursar pays for them
    #[cfg(feature = "mcp-proxy")]
    #[command(
        after_long_help = help::MCP_PROXY,
        after_help = "--help also describes the tools and the configuration of an MCP host."
    )]
    Proxy(Box<Proxy>),
}

/// An MCP server over streamable HTTP.
#[cfg(feature = "mcp")]
#[derive(Args, Debug)]
pub(crate) struct McpServer {
    /// The URL of the MCP server, with https unless you set --allow-http-loopback
    #[arg(value_parser = http_url)]
    pub(crate) url: Url,
    /// Allow plain http to the loopback addresses of this machine
    #[arg(long)]
    pub(crate) allow_http_loopback: bool,
    /// Limit the time to open the session, to list the tools, and for each other answer of the server
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Option<Duration>,
}

#[cfg(feature = "mcp")]
#[derive(Args, Debug)]
pub(crate) struct McpTools {
    #[command(flatten)]
    pub(crate) server: McpServer,
    /// Ask for each price that the list does not name with a call without arguments; this executes a free tool, and calls no
    /// tool that says it destroys, and at most 100 tools
    #[arg(long)]
    pub(crate) ask: bool,
    /// Print one JSON object for each tool
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(feature = "mcp")]
#[derive(Args, Debug)]
pub(crate) struct McpCall {
    #[command(flatten)]
    pub(crate) server: McpServer,
    /// The name of the tool
    pub(crate) tool: String,
    /// The arguments of the tool, a JSON object
    #[arg(long, value_name = "JSON", default_value = "{}")]
    pub(crate) args: String,
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    #[command(flatten)]
    pub(crate) wallet: WalletArgs,
    /// Record the purchase with this tag; the policy can limit and permit tags
    #[arg(long)]
    pub(crate) tag: Option<String>,
    /// Name the purchase; all calls with the same id are one purchase, which is paid once
    #[arg(long, value_name = "ID")]
    pub(crate) purchase_id: Option<PurchaseId>,
    /// Buy again even if an identical call is unresolved; without this option, bursar sends its payment again
    #[arg(long)]
    pub(crate) allow_duplicate: bool,
    /// Ask for the price and evaluate the policy, but sign nothing; this executes a free tool
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(feature = "mcp-serve")]
#[derive(Args, Debug)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    #[command(flatten)]
    pub(crate) wallet: WalletArgs,
    /// Allow plain http to the loopback addresses of this machine
    #[arg(long)]
    pub(crate) allow_http_loopback: bool,
    /// Allow private addresses, and proxies
    ///
    /// Without this option, a prompt or a web page cannot make the agent fetch a URL that only this machine can reach.
    #[arg(long)]
    pub(crate) allow_private_networks: bool,
    /// Limit the time of each call, payment and body included; the time for an approval is added to it
    ///
    /// Set it below the time that the MCP client waits. A call that ends by it can be made again, and pays nothing new.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "50")]
    pub(crate) timeout: Duration,
    /// The time that the MCP client waits for a call
    ///
    /// If an answer is later than five sixths of this time, bursar keeps it for 5 minutes. An identical call returns it
    /// with `replayed` and pays nothing, unless the call sets allow_duplicate.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "60")]
    pub(crate) host_timeout: Duration,
    /// Return at most this many bytes of a body
    #[arg(long, value_name = "BYTES", default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1..=4_194_304))]
    pub(crate) body_limit: u32,
}

#[cfg(feature = "mcp-proxy")]
#[derive(Args, Debug)]
pub(crate) struct Proxy {
    /// Offer the tools of the MCP server at this URL: https, or http on a loopback address; can be repeated
    ///
    /// NAME is 1 to 32 of a-z, 0-9 and -. Without NAME=, the host of the URL makes the name. The policy file can name
    /// servers too, with [[mcp_server]].
    #[arg(long, value_name = "NAME=URL", value_parser = upstream)]
    pub(crate) upstream: Vec<Upstream>,
    /// Offer the tools of an MCP server that this program is, on its standard input and output; can be repeated
    ///
    /// The command is split at spaces; text in quotes stays together. No shell reads it. The program receives none of
    /// the environment but the usual variables such as PATH and HOME, and the ones of --pass-env.
    #[arg(long, value_name = "NAME=COMMAND", value_parser = upstream_command)]
    pub(crate) upstream_command: Vec<Upstream>,
    /// Pass this environment variable to the programs of --upstream-command; can be repeated
    #[arg(long, value_name = "VARIABLE")]
    pub(crate) pass_env: Vec<String>,
    /// Ask for each price that a list does not name with a call without arguments; this executes a free tool, and calls
    /// no tool that says it destroys
    #[arg(long)]
    pub(crate) ask_prices: bool,
    /// Serve streamable HTTP at /mcp on this loopback address, such as 127.0.0.1:8402, instead of standard input and
    /// output; port 0 lets the system choose
    ///
    /// Each request needs the header Authorization: Bearer TOKEN. bursar reads the token from the environment variable
    /// BURSAR_MCP_TOKEN. Without it, bursar makes a new token and prints it on standard error.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = loopback)]
    pub(crate) http: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    #[command(flatten)]
    pub(crate) wallet: WalletArgs,
    /// Allow plain http to the loopback addresses of this machine for servers and lists that are found
    #[arg(long)]
    pub(crate) allow_http_loopback: bool,
    /// Allow private addresses, and proxies, for servers that are found
    #[arg(long)]
    pub(crate) allow_private_networks: bool,
    /// Limit the time of each call, payment included; the time for an approval is added to it
    ///
    /// Set it below the time that the MCP host waits. A call that ends by it can be made again, and pays nothing new.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "50")]
    pub(crate) timeout: Duration,
    /// The time that the MCP host waits for a call
    ///
    /// If an answer is later than five sixths of this time, bursar keeps it for 5 minutes. An identical call returns it
    /// and pays nothing.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "60")]
    pub(crate) host_timeout: Duration,
}
