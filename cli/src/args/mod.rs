//! The arguments of the command. Their comments are the texts that `--help` prints.

mod help;
mod ledger;
#[cfg(any(feature = "mcp", feature = "mcp-serve"))]
mod mcp;
mod parse;
mod policy;
#[cfg(feature = "proxy")]
mod proxy;
mod request;
mod wallet;

use std::path::PathBuf;

use bursar::{Network, Usd};
use clap::{Args, Parser, Subcommand};

use parse::endpoint;

pub(crate) use ledger::{
    Budget, Compare, Format, LedgerCommand, LedgerCommandArgs, LedgerShow, Prune, Reconcile,
    Refund, ReportFormat, Spending, Verify,
};
#[cfg(any(feature = "mcp", feature = "mcp-serve"))]
pub(crate) use mcp::McpCommand;
#[cfg(feature = "mcp-proxy")]
pub(crate) use mcp::Proxy as McpProxyArgs;
#[cfg(feature = "mcp-serve")]
pub(crate) use mcp::Serve;
#[cfg(feature = "mcp")]
pub(crate) use mcp::{McpCall, McpServer, McpTools};
pub(crate) use parse::age;
#[cfg(feature = "mcp-proxy")]
pub(crate) use parse::name_of_host;
pub(crate) use policy::{Explain, PolicyCommand};
#[cfg(feature = "proxy")]
pub(crate) use proxy::{LogFormat, ProxyArgs, ProxyCommand, ProxyCommandArgs, TokenFile};
pub(crate) use request::{Discover, Pay, Quote, RequestArgs};
pub(crate) use wallet::{
    KeyArgs, NewWallet, WalletAddress, WalletApprove, WalletBalance, WalletCommand,
};

/// An HTTP client that pays: it answers 402 Payment Required with an x402 payment, within your limits.
#[derive(Debug, Parser)]
#[command(name = "bursar", version, after_help = help::EXIT_CODES, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Send a request, and pay if needed and allowed
    #[command(
        after_long_help = help::PAY,
        after_help = "--help also describes the limits, the JSON and the exit codes."
    )]
    Pay(Pay),
    /// Show the price of a request and the decision of the policy; signs nothing
    ///
    /// bursar sends the request without a payment. If the request needs no payment, the server executes it. With
    /// --policy or --network, the policy evaluates each offer against the current ledger. The exit code is 0 if bursar
    /// can read the price, even if the policy denies it. `bursar pay --dry-run` exits with 3 if the policy denies it.
    Quote(Quote),
    /// Find services that take x402 payments; calls and pays none of them
    ///
    /// The lists contain advertisements. The real price is the price that a service asks for when you call it. With
    /// --policy or --network, the policy evaluates each advertised price against the current ledger. If you name no
    /// list, bursar reads the lists of the policy file. Pass the column ARGUMENTS to `bursar pay`, or to
    /// `bursar mcp call` if the column METHOD is mcp. The exit code is 1 if no service was found, or if bursar can read no
    /// list.
    Discover(Discover),
    /// Show the networks that bursar knows by name, with their tokens
    ///
    /// Every EVM network can be named by its CAIP-2 identifier. Add a token of another network with a [[token]] table of
    /// a policy file.
    Networks(Networks),
    /// Show all purchases in the ledger, oldest first; or check and maintain the ledger
    #[command(args_conflicts_with_subcommands = true)]
    Ledger(LedgerCommandArgs),
    /// Show each limit with the used and the remaining amount
    ///
    /// Limits that count each origin, payee and so on separately are not shown. `bursar policy explain --ledger` shows
    /// them for one request.
    Budget(Budget),
    /// Show sums by day, host, payee, tag and agent, as tables or as a page with charts
    ///
    /// The report counts purchases and calls with API keys, and how often which rule denied payments to which host. The
    /// page of --format html is one file. Open it in a browser: bursar report --format html --out spending.html
    ///
    /// With --serve, bursar prints the URL of a page that refreshes itself. Only this machine reaches it, and only with the
    /// token in the URL.
    Report(Spending),
    /// Compare the cost of a host with the price of a plan
    ///
    /// bursar reads all calls to the host from the ledger: payments, and calls with an API key. It prints the sums for
    /// each month and in total, and the number of calls in a month from which the plan is cheaper.
    Compare(Compare),
    /// Call paid tools over the Model Context Protocol, or pay for an agent
    #[cfg(any(feature = "mcp", feature = "mcp-serve"))]
    #[command(subcommand)]
    Mcp(McpCommand),
    /// Run a local HTTP server that pays for programs in any language; or manage their tokens
    #[cfg(feature = "proxy")]
    #[command(
        args_conflicts_with_subcommands = true,
        after_long_help = help::PROXY,
        after_help = "--help also describes routes, tokens, headers and statuses."
    )]
    Proxy(Box<ProxyCommandArgs>),
    /// Write, check and explain policy files
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Create a wallet, and show its address and balances
    #[command(subcommand)]
    Wallet(WalletCommand),
    /// Print the script that completes the command in a shell
    ///
    /// bash: bursar completions bash > ~/.local/share/bash-completion/completions/bursar. zsh: write it to _bursar in a
    /// directory of $fpath. fish: write it to ~/.config/fish/completions/bursar.fish.
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Networks {
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// The limits and the networks.
#[derive(Args, Debug)]
pub(crate) struct PolicyArgs {
    /// Read the policy from a TOML file
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Limit one payment
    #[arg(long, value_name = "USD")]
    pub(crate) max_per_payment: Option<Usd>,
    /// Limit the sum of everything in the ledger, in addition to all other limits
    #[arg(long, value_name = "USD")]
    pub(crate) budget: Option<Usd>,
    /// Remove the default limits, which hold without --policy; needs --budget, or --unlimited
    #[arg(long, conflicts_with = "policy")]
    pub(crate) no_default_limits: bool,
    /// Remove the default limits, and need no other limits; the brakes against loops and failing sellers remain
    #[arg(long, conflicts_with = "policy")]
    pub(crate) unlimited: bool,
    /// Pay on this network, such as base or eip155:8453; can be repeated
    #[arg(long, value_name = "NAME|CAIP2")]
    pub(crate) network: Vec<Network>,
}

/// The key and the ledger.
#[derive(Args, Debug)]
pub(crate) struct WalletArgs {
    /// Read the key from an encrypted keystore file instead of BURSAR_PRIVATE_KEY
    #[arg(long, value_name = "FILE")]
    pub(crate) keystore: Option<PathBuf>,
    /// Read the key from this inherited file descriptor, to its end: 64 hexadecimal digits
    ///
    /// With a shell: bursar mcp serve --key-fd 3 3< <(pass show wallet)
    #[arg(long, value_name = "N", conflicts_with = "keystore", value_parser = clap::value_parser!(u16).range(3..))]
    pub(crate) key_fd: Option<u16>,
    /// Record purchases under this name of an agent; the policy can limit and permit agents
    #[arg(long, value_name = "NAME")]
    pub(crate) agent: Option<String>,
    /// Read the balance of the wallet before signing, from this JSON-RPC endpoint, such as
    /// base=https://mainnet.base.org; can be repeated
    ///
    /// bursar signs nothing that the wallet cannot cover. If no endpoint answers within three seconds, it pays all the
    /// same. A server also asks the endpoints about payments that expired without a result, every five minutes;
    /// endpoints of two domains must agree that such a payment was not settled.
    #[arg(long, value_name = "NETWORK=URL", value_parser = endpoint)]
    pub(crate) rpc: Vec<(Network, String)>,
    #[command(flatten)]
    pub(crate) ledger: LedgerArgs,
}

#[derive(Args, Debug)]
pub(crate) struct LedgerArgs {
    /// Use the ledger in this SQLite file, or `:memory:` to keep nothing; by default a file in the user's state directory
    ///
    /// A URL such as postgres://user:password@host/database names a PostgreSQL database (feature `postgres`). Without
    /// this option, bursar reads the path or URL from the environment variable BURSAR_LEDGER. Use the variable to keep a
    /// password off the command line. bursar notes the newest purchase of a database in the state directory, and refuses
    /// a database that lost it. Add bursar_witness=FILE to the URL to note it elsewhere.
    ///
    /// The default is $XDG_STATE_HOME/bursar/ledger.db or ~/.local/state/bursar/ledger.db; on macOS
    /// ~/Library/Application Support/bursar/ledger.db, on Windows %LOCALAPPDATA%\bursar\ledger.db.
    #[arg(long, value_name = "PATH")]
    pub(crate) ledger: Option<PathBuf>,
    /// Fail if the ledger does not exist yet; use this in jobs, where a mistyped path would begin all limits again
    #[arg(long)]
    pub(crate) no_new_ledger: bool,
    /// Use a ledger on a file system that other machines can use, such as NFS; only if this machine alone uses it
    #[arg(long)]
    pub(crate) allow_shared_file_system: bool,
}
