//! The arguments. What is written here is what `--help` says.

use std::path::PathBuf;
use std::time::Duration;

use bursar::reqwest::Method;
use bursar::{Address, B256, CallPlan, Network, PurchaseId, U256, Url, Usd};
use clap::{Args, Parser, Subcommand, ValueEnum};

const EXIT: &str = "\
Exit codes:
  0  done
  1  failed, or an error status, and nothing was signed
  2  the command line, the key or the policy cannot be used; nothing was sent
  3  denied by the policy, and nothing was signed
  4  a signature left, and the outcome is unknown; the money counts as spent
  5  paid, and the call failed";

#[cfg(feature = "mcp-serve")]
const SERVE: &str = "\
In an MCP client's configuration, the key beside it in the environment:
  {
    \"mcpServers\": {
      \"bursar\": {
        \"command\": \"bursar\",
        \"args\": [\"mcp\", \"serve\", \"--policy\", \"/etc/bursar/agent.toml\", \"--agent\", \"researcher\"],
        \"env\": {\"BURSAR_PRIVATE_KEY\": \"...\"}
      }
    }
  }
With --keystore FILE the environment holds BURSAR_KEYSTORE_PASSWORD instead.

Tools:
  pay       fetch a URL and pay for it, if it must be and may be
  quote     what a request would cost, and what the policy says
  budget    each limit with what is used and left
  purchase  what the books hold of one purchase, to resume it
  discover  find services in the lists of the policy file's [discovery]

Policy, key and books are fixed by this command line: nothing that is said over the protocol changes them; a call can
only tighten its own limit. A payment that the policy wants approved is put to the client's user, where the client
supports elicitation; otherwise it is denied. The answer is the client's word.

Standard output carries the protocol alone. The server ends with its standard input; a payment that is still under way
a second later is left, which the books note: the same request takes it up.";

const PAY: &str = "\
The key is read from the environment variable BURSAR_PRIVATE_KEY (64 hexadecimal digits), or from --keystore,
whose password is in BURSAR_KEYSTORE_PASSWORD or asked for on the terminal. It is never an argument.

Limits:
  Without --policy, --max-per-payment and --budget the defaults hold: $0.10 a payment, $5 a rolling day, $1 of
  unresolved payments, 60 payments a minute, the same request 30 times a minute, and no more to an origin that took 3
  payments within 10 minutes and did not deliver. --max-per-payment replaces the first of them. With --budget the
  others do not apply. With --policy the flags tighten the file: all its limits hold, --max-per-payment and --budget hold
  beside them, and --network leaves over those of its networks that are named. The file's API keys are used as it
  says, and a request that it does not permit is not sent. A payment that the policy wants
  approved is asked about on the terminal; where there is none, it is denied.

Output:
  The answer's body goes to standard output or to --output as it arrives, of an error status too. Standard error has
  one line about the money. --json prints one object a request on its own line instead:
    {\"status\":200|null, \"spend\":\"none\"|\"settled\"|\"unknown\",
     \"paid\":{\"amount\",\"asset\",\"network\",\"payTo\",\"nonce\",\"validBefore\"}|null,
     \"receipt\":{\"success\",\"transaction\",\"network\",\"payer\"}|null,
     \"body\":\"at most 64 KiB\", \"error\":{\"kind\",\"message\"}|null}
  paid is what was signed: amount in atomic units as a decimal string, asset the token's address, network in CAIP-2,
  validBefore in Unix seconds. A call by an API key has a further member, called: {\"credential\",\"usd\"}, the key's name
  and the declared cost. spend is settled only when a receipt names the transaction and matches network and
  payer of what was signed; receipt.transaction is its hash. Content without such a receipt is delivered as unknown.
  Of a longer body the rest is left unread, unless --output takes it.

Exit codes:
  0  done
  1  failed, or an error status, and nothing was signed
  2  the command line, the key or the policy cannot be used; nothing was sent
  3  denied by the policy, and nothing was signed in this request
  4  a signature left, and the outcome is unknown: also when content came without a matching receipt
  5  paid, and the call failed: an error status, or a body that broke off

  Once a signature has left, a failed call is 4 or 5, whatever the seller claims. --repeat stops at the first failure:
  3 when the policy ended the run, whatever was paid before; otherwise 4 when any of its payments is unknown, and 5
  instead of 1 when any was paid.";

/// An HTTP client that pays: it answers 402 Payment Required with an x402 payment, within your limits.
#[derive(Debug, Parser)]
#[command(name = "bursar", version, after_help = EXIT, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Send a request, and pay for it if it must be and may be
    #[command(after_long_help = PAY, after_help = "With --help: limits, the JSON and the exit codes.")]
    Pay(Pay),
    /// Show what a request would cost and what the policy says to each offer; signs nothing
    ///
    /// The request is sent without payment; where it needs none, it is executed. With --policy or --network each offer
    /// is judged, with the books as they are. Exits 0 when the price could be read, whatever the policy says to it;
    /// pay --dry-run exits 3 when it would be denied.
    Quote(Quote),
    /// Find services that are paid by x402, and what the policy says to each; asks and pays none of them
    ///
    /// What the lists say is advertising, and what a service asks when it is called decides. With --policy or --network
    /// each is judged, with the books as they are. Without any list the policy file's own are read. The columns METHOD and ARGUMENTS are what `bursar pay` is to be given,
    /// or `bursar mcp call` for an MCP server. Exits 1 when no list could be read.
    Discover(Discover),
    /// Show the books: every purchase, oldest first; or check, compare and use them
    #[command(args_conflicts_with_subcommands = true)]
    Ledger(LedgerCommandArgs),
    /// Show how much of each limit is used and left
    ///
    /// Limits kept for each origin, payee and so on are left out: `bursar policy explain --ledger` shows them for one
    /// request.
    Budget(Budget),
    /// Show where the money went: by day, host, payee, tag and agent, as tables or as a page with charts
    ///
    /// Counted are purchases and calls by key; what the policy refused is not in the books. The page of --format html is
    /// complete in itself, and opens in a browser: bursar report --format html --out spending.html.
    Report(Spending),
    /// Show what a host cost by payment and by key, and what a plan would have cost instead
    ///
    /// From the books, of all calls to the host, with the arithmetic: by month, in all, and from how many calls a month
    /// the plan is cheaper than paying was.
    Compare(Compare),
    /// SignedPayment tools over the Model Context Protocol
    #[cfg(any(feature = "mcp", feature = "mcp-serve"))]
    #[command(subcommand)]
    Mcp(McpCommand),
    /// Check and explain policy files
    #[command(subcommand)]
    Policy(PolicyCommand),
}

#[cfg(any(feature = "mcp", feature = "mcp-serve"))]
#[derive(Debug, Subcommand)]
pub(crate) enum McpCommand {
    /// List a server's tools; with --ask, their prices
    #[cfg(feature = "mcp")]
    Tools(McpTools),
    /// Call a tool, and pay for it if it must be and may be
    ///
    /// Limits, the line of --json and the exit codes are those of `bursar pay`: body holds the tool's result as JSON, and
    /// status is null. A tool that answers with an error is a failed call.
    #[cfg(feature = "mcp")]
    Call(Box<McpCall>),
    #[cfg(feature = "mcp-serve")]
    /// Be an MCP server on standard input and output that pays for an agent, which never holds the key
    #[command(after_long_help = SERVE, after_help = "With --help: the tools, and how to configure an MCP client.")]
    Serve(Serve),
}

/// An MCP server over streamable HTTP.
#[cfg(feature = "mcp")]
#[derive(Args, Debug)]
pub(crate) struct McpServer {
    /// The endpoint, https unless --allow-http-loopback
    #[arg(value_parser = http_url)]
    pub(crate) url: Url,
    /// Allow plain http to this machine's loopback
    #[arg(long)]
    pub(crate) allow_http_loopback: bool,
    /// Bound each answer of the server
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Option<Duration>,
}

#[cfg(feature = "mcp")]
#[derive(Args, Debug)]
pub(crate) struct McpTools {
    #[command(flatten)]
    pub(crate) server: McpServer,
    /// Ask each tool's price by calling it without arguments: one that is free is executed by that
    #[arg(long)]
    pub(crate) ask: bool,
    /// Print one JSON object a tool
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(feature = "mcp")]
#[derive(Args, Debug)]
pub(crate) struct McpCall {
    #[command(flatten)]
    pub(crate) server: McpServer,
    /// The tool
    pub(crate) tool: String,
    /// Its arguments, a JSON object
    #[arg(long, value_name = "JSON", default_value = "{}")]
    pub(crate) args: String,
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    #[command(flatten)]
    pub(crate) wallet: WalletArgs,
    /// Book it under this tag, which the policy may limit and permit
    #[arg(long)]
    pub(crate) tag: Option<String>,
    /// Buy under this id: a second call with it is the same purchase, and paid once
    #[arg(long, value_name = "ID")]
    pub(crate) purchase_id: Option<PurchaseId>,
    /// Buy again even while an identical call is unresolved, whose payment would else be presented again
    #[arg(long)]
    pub(crate) allow_duplicate: bool,
    /// Ask for the price and judge it, but sign nothing; a tool that is free is executed
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
    /// Allow plain http to this machine's loopback
    #[arg(long)]
    pub(crate) allow_http_loopback: bool,
    /// Allow addresses that are not public, and proxies
    ///
    /// Without it, an agent cannot be talked into fetching what only this machine can reach.
    #[arg(long)]
    pub(crate) allow_private_networks: bool,
    /// Bound each call, payment and body included; the time to approve comes on top
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "120")]
    pub(crate) timeout: Duration,
    /// Hand over at most this much of a body
    #[arg(long, value_name = "BYTES", default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1..=4_194_304))]
    pub(crate) body_limit: u32,
}

#[derive(Args, Debug)]
pub(crate) struct Pay {
    #[command(flatten)]
    pub(crate) request: RequestArgs,
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    #[command(flatten)]
    pub(crate) wallet: WalletArgs,
    /// Write the body to FILE, `-` for standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Buy under this id: a second request with it is the same purchase, and paid once
    #[arg(long, value_name = "ID")]
    pub(crate) purchase_id: Option<PurchaseId>,
    /// Buy again even while an identical request is unresolved, whose payment would else be presented again
    #[arg(long)]
    pub(crate) allow_duplicate: bool,
    /// Send N requests, one after the other, on one budget; stops at the first failure
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) repeat: u32,
    /// Ask for the price and judge it, but sign nothing: exits 0 if it would be paid, 3 if denied
    ///
    /// The request is sent without payment; where it needs none, it is executed, and its body is not shown. Needs no
    /// key. With --json the object has a further member, quote, as `bursar quote --json` prints it.
    #[arg(long, conflicts_with = "repeat")]
    pub(crate) dry_run: bool,
    /// Print one JSON object a request
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Quote {
    #[command(flatten)]
    pub(crate) request: RequestArgs,
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    #[command(flatten)]
    pub(crate) wallet: WalletArgs,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Discover {
    /// What to look for; everything that is listed without it
    pub(crate) query: Vec<String>,
    /// Look in a facilitator's bazaar, by the facilitator's URL; can be repeated, as all of these
    #[arg(long, value_name = "URL", value_parser = http_url)]
    pub(crate) bazaar: Vec<Url>,
    /// Look in an origin's /.well-known/x402
    #[arg(long, value_name = "ORIGIN", value_parser = http_url)]
    pub(crate) well_known: Vec<Url>,
    /// Look in an OpenAPI document with x-payment-info; an origin's /openapi.json
    #[arg(long, value_name = "URL", value_parser = http_url)]
    pub(crate) openapi: Vec<Url>,
    /// Look in an MCP registry, such as https://registry.modelcontextprotocol.io
    #[arg(long, value_name = "URL", value_parser = http_url)]
    pub(crate) registry: Vec<Url>,
    /// Deny what is advertised for more than this
    #[arg(long, value_name = "USD")]
    pub(crate) max_price: Option<Usd>,
    /// Leave out what is known to have another method
    #[arg(short = 'X', long, value_name = "METHOD")]
    pub(crate) method: Option<Method>,
    /// List at most so many services
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) limit: usize,
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    #[command(flatten)]
    pub(crate) wallet: WalletArgs,
    /// Allow plain http to this machine's loopback
    #[arg(long)]
    pub(crate) allow_http_loopback: bool,
    /// Bound the reading of each list
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Option<Duration>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is sent.
#[derive(Args, Debug)]
pub(crate) struct RequestArgs {
    /// The URL, https unless --allow-http-loopback
    #[arg(value_parser = http_url)]
    pub(crate) url: Url,
    /// The method; GET, or POST with --data
    #[arg(short = 'X', long, value_name = "METHOD")]
    pub(crate) method: Option<Method>,
    /// Add a header, `Name: value`; `Name:` leaves out bursar's own, `Name;` sends it empty
    #[arg(short = 'H', long, value_name = "HEADER")]
    pub(crate) header: Vec<String>,
    /// Send this body; `@FILE` a file's bytes as they are, `@-` standard input. Several are joined by `&`
    ///
    /// It is sent as application/x-www-form-urlencoded unless a header says otherwise.
    #[arg(short, long, value_name = "DATA", allow_hyphen_values = true)]
    pub(crate) data: Vec<String>,
    /// Allow plain http to this machine's loopback
    #[arg(long)]
    pub(crate) allow_http_loopback: bool,
    /// Book it under this tag, which the policy may limit and permit
    #[arg(long)]
    pub(crate) tag: Option<String>,
    /// Bound the whole call, payment and body included
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Option<Duration>,
}

/// What may be bought.
#[derive(Args, Debug)]
pub(crate) struct PolicyArgs {
    /// Take the policy from a TOML file
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Pay at most this much in one payment
    #[arg(long, value_name = "USD")]
    pub(crate) max_per_payment: Option<Usd>,
    /// Pay at most this much over the lifetime of this ledger
    #[arg(long, value_name = "USD")]
    pub(crate) budget: Option<Usd>,
    /// Pay on this network, such as base or eip155:8453; can be repeated
    #[arg(long, value_name = "NAME|CAIP2")]
    pub(crate) network: Vec<Network>,
}

/// Who pays, and where it is written down.
#[derive(Args, Debug)]
pub(crate) struct WalletArgs {
    /// Take the key from an encrypted keystore file instead of BURSAR_PRIVATE_KEY
    #[arg(long, value_name = "FILE")]
    pub(crate) keystore: Option<PathBuf>,
    /// Book it under this agent's name, which the policy may limit and permit
    #[arg(long, value_name = "NAME")]
    pub(crate) agent: Option<String>,
    #[command(flatten)]
    pub(crate) ledger: LedgerArgs,
}

#[derive(Args, Debug)]
pub(crate) struct LedgerArgs {
    /// Keep the books in this SQLite file, `:memory:` for none that last; in the user's state directory by default
    ///
    /// A URL such as postgres://user:password@host/database names a PostgreSQL server's (feature `postgres`). Without
    /// the option the environment variable BURSAR_LEDGER says where, which keeps a password off the command line.
    ///
    /// The default is $XDG_STATE_HOME/bursar/ledger.db or ~/.local/state/bursar/ledger.db; on macOS
    /// ~/Library/Application Support/bursar/ledger.db, on Windows %LOCALAPPDATA%\bursar\ledger.db.
    #[arg(long, value_name = "PATH")]
    pub(crate) ledger: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct LedgerShow {
    #[command(flatten)]
    pub(crate) ledger: LedgerArgs,
    /// How to write the purchases
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

#[derive(Args, Debug)]
pub(crate) struct LedgerCommandArgs {
    #[command(flatten)]
    pub(crate) show: LedgerShow,
    #[command(subcommand)]
    pub(crate) command: Option<LedgerCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LedgerCommand {
    /// Ask the chain about every purchase that only it can tell of; exits 1 where it cannot tell
    ///
    /// What the chain shows as paid is confirmed. What it proves unpaid, because the authorization expired unused or
    /// was cancelled, is released: the money counts no more. All else stays as it is.
    Reconcile(Reconcile),
    /// Look for anything that was changed by other means than bursar; exits 1 if something was
    Verify(Verify),
    /// Print everything that the books know of a purchase as JSON, for a dispute
    Evidence {
        /// The purchase
        purchase: PurchaseId,
        #[command(flatten)]
        ledger: LedgerArgs,
    },
    /// Book money that came back for a purchase, on your word
    Refund(Refund),
    /// Sign a cancellation of what was signed for a purchase, and print what is to be sent to the chain
    Cancel {
        /// The purchase
        purchase: PurchaseId,
        #[command(flatten)]
        wallet: WalletArgs,
    },
    /// Stop all paying from these books, by every program that keeps them
    Stop {
        /// Why, for whoever is denied
        reason: String,
        #[command(flatten)]
        ledger: LedgerArgs,
    },
    /// Lift the order to stop
    Go {
        #[command(flatten)]
        ledger: LedgerArgs,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Reconcile {
    #[command(flatten)]
    pub(crate) ledger: LedgerArgs,
    /// Ask this JSON-RPC endpoint, such as base=https://mainnet.base.org; two of different hosts are needed to release
    #[arg(long, value_name = "NETWORK=URL", required = true, value_parser = endpoint)]
    pub(crate) rpc: Vec<(Network, String)>,
    /// Release on the word of one endpoint: for your own node
    #[arg(long)]
    pub(crate) trust_single_endpoint: bool,
    /// Take a block for final that has N after it, on chains that do not say which are
    #[arg(long, value_name = "N")]
    pub(crate) confirmations: Option<u64>,
    /// Print one JSON object a purchase
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Verify {
    #[command(flatten)]
    pub(crate) ledger: LedgerArgs,
    /// A head that was printed before, which must still be in the chain: finds books that were cut or written anew
    #[arg(long, value_name = "HASH")]
    pub(crate) head: Option<B256>,
}

#[derive(Args, Debug)]
pub(crate) struct Refund {
    /// The purchase
    pub(crate) purchase: PurchaseId,
    /// The transaction that brought the money
    #[arg(long, value_name = "HASH")]
    pub(crate) transaction: B256,
    /// How much, in atomic units of the purchase's token
    #[arg(long, value_name = "UNITS")]
    pub(crate) value: U256,
    #[command(flatten)]
    pub(crate) ledger: LedgerArgs,
}

fn endpoint(text: &str) -> Result<(Network, String), String> {
    let (network, url) = text
        .split_once('=')
        .ok_or("expected a form like base=https://mainnet.base.org")?;
    Ok((
        network
            .parse()
            .map_err(|error: bursar::ParseNetworkError| error.to_string())?,
        url.to_owned(),
    ))
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Format {
    Table,
    Csv,
    Jsonl,
}

#[derive(Args, Debug)]
pub(crate) struct Budget {
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    #[command(flatten)]
    pub(crate) ledger: LedgerArgs,
    /// Print one JSON object a limit
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Spending {
    /// Leave out what was bought before this date, which is counted itself, or before this moment in RFC 3339
    #[arg(long, value_name = "DATE")]
    pub(crate) since: Option<String>,
    /// Leave out what was bought from this date on, or from this moment on
    #[arg(long, value_name = "DATE")]
    pub(crate) until: Option<String>,
    /// Only the last N calendar days, today included
    #[arg(long, value_name = "N", conflicts_with = "since", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) days: Option<u32>,
    /// Only this host, or a pattern such as *.example.com
    #[arg(long)]
    pub(crate) host: Option<String>,
    /// Only this tag
    #[arg(long)]
    pub(crate) tag: Option<String>,
    /// Only this agent
    #[arg(long, value_name = "NAME")]
    pub(crate) agent: Option<String>,
    /// Count days in this time zone, such as Europe/Berlin; that of the policy's first calendar limit by default, or UTC
    #[arg(long)]
    pub(crate) zone: Option<String>,
    /// How to write it
    #[arg(long, value_enum, default_value_t = ReportFormat::Table)]
    pub(crate) format: ReportFormat,
    /// Write it to FILE
    #[arg(short, long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    #[command(flatten)]
    pub(crate) ledger: LedgerArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ReportFormat {
    Table,
    Csv,
    Json,
    Html,
}

#[derive(Args, Debug)]
pub(crate) struct Compare {
    /// A host such as api.example.com, a pattern such as *.example.com, or an origin
    pub(crate) host: String,
    /// What the provider of a key would bill in a calendar month (UTC), in dollars; each part can be left out
    #[arg(
        long,
        value_name = "monthly=USD,included=CALLS,per-call=USD,from-CALL=USD"
    )]
    pub(crate) plan: CallPlan,
    #[command(flatten)]
    pub(crate) ledger: LedgerArgs,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Say whether a policy file can be used, and where it is wrong
    Check {
        /// The file
        file: PathBuf,
    },
    /// Show what each rule says to a payment that nobody asked for; exits 3 if it would be denied
    Explain(Explain),
}

#[derive(Args, Debug)]
pub(crate) struct Explain {
    /// The policy file
    pub(crate) file: PathBuf,
    /// The URL that would be bought
    #[arg(value_parser = http_url)]
    pub(crate) url: Url,
    /// Its price
    #[arg(long, value_name = "USD")]
    pub(crate) price: Usd,
    /// The request's method
    #[arg(short = 'X', long, value_name = "METHOD", default_value = "GET")]
    pub(crate) method: Method,
    /// The network that would be paid on; the first of the policy by default
    #[arg(long, value_name = "NAME|CAIP2")]
    pub(crate) network: Option<Network>,
    /// The payee; an invented one by default
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) payee: Option<Address>,
    /// Ask with these books as they are; with empty ones by default
    #[arg(long, value_name = "PATH")]
    pub(crate) ledger: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

fn http_url(text: &str) -> Result<Url, String> {
    let expected = "expected a URL such as https://api.example.com/report";
    match text.parse::<Url>() {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        Ok(_) => Err(expected.to_owned()),
        Err(error) => Err(format!("{error}; {expected}")),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text
        .parse()
        .map_err(|_| "expected a number of seconds such as 30 or 2.5".to_owned())?;
    match Duration::try_from_secs_f64(number) {
        Ok(limit) if !limit.is_zero() => Ok(limit),
        _ => Err("expected more than no time, and less than eternity".to_owned()),
    }
}
