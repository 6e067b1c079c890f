//! `bursar pay`, `bursar quote` and `bursar discover`.

use std::path::PathBuf;
use std::time::Duration;

use bursar::reqwest::Method;
use bursar::{PurchaseId, Url, Usd};
use clap::Args;

use super::parse::{http_url, seconds};
use super::{PolicyArgs, WalletArgs};

#[derive(Args, Debug)]
pub(crate) struct Pay {
    #[command(flatten)]
    pub(crate) request: RequestArgs,
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    #[command(flatten)]
    pub(crate) wallet: WalletArgs,
    /// Write the body to FILE, or to standard output if FILE is `-`
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Follow a redirect to another origin: a plain GET there, without a payment and without the headers of the request
    ///
    /// Without this option, bursar prints the target of the redirect. A paid request then exits with 6.
    #[arg(long)]
    pub(crate) location: bool,
    /// Name the purchase; all requests with the same id are one purchase, which is paid once
    #[arg(long, value_name = "ID")]
    pub(crate) purchase_id: Option<PurchaseId>,
    /// Buy again even if an identical request is unresolved; without this option, bursar sends its payment again
    #[arg(long)]
    pub(crate) allow_duplicate: bool,
    /// Send N requests, one after the other; stop at the first failure
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) repeat: u32,
    /// Ask for the price and evaluate the policy, but sign nothing: exits with 0 if it would be paid, 3 if denied
    ///
    /// bursar sends the request without a payment. If the request needs no payment, the server executes it, and bursar
    /// does not show the body. No key is needed. With --json, the object has the additional member quote, the object
    /// that `bursar quote --json` prints.
    #[arg(long, conflicts_with = "repeat")]
    pub(crate) dry_run: bool,
    /// Print one JSON object for each request
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
    /// Words that describe the service; without them, all services are listed
    pub(crate) query: Vec<String>,
    /// Search the bazaar of a facilitator, by the URL of the facilitator; this and the next three can be repeated
    #[arg(long, value_name = "URL", value_parser = http_url)]
    pub(crate) bazaar: Vec<Url>,
    /// Search the list /.well-known/x402 of an origin
    #[arg(long, value_name = "ORIGIN", value_parser = http_url)]
    pub(crate) well_known: Vec<Url>,
    /// Search an OpenAPI document with x-payment-info; for an origin, its /openapi.json
    #[arg(long, value_name = "URL", value_parser = http_url)]
    pub(crate) openapi: Vec<Url>,
    /// Search an MCP registry, such as https://registry.modelcontextprotocol.io
    #[arg(long, value_name = "URL", value_parser = http_url)]
    pub(crate) registry: Vec<Url>,
    /// Deny services that advertise a higher price
    #[arg(long, value_name = "USD")]
    pub(crate) max_price: Option<Usd>,
    /// Leave out services that are known to use another method
    #[arg(short = 'X', long, value_name = "METHOD")]
    pub(crate) method: Option<Method>,
    /// List at most N services
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) limit: usize,
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    #[command(flatten)]
    pub(crate) wallet: WalletArgs,
    /// Allow plain http to the loopback addresses of this machine
    #[arg(long)]
    pub(crate) allow_http_loopback: bool,
    /// Limit the time for reading each list
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Option<Duration>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// The request.
#[derive(Args, Debug)]
pub(crate) struct RequestArgs {
    /// The URL, with https unless you set --allow-http-loopback
    #[arg(value_parser = http_url)]
    pub(crate) url: Url,
    /// The method; by default GET, or POST with --data
    #[arg(short = 'X', long, value_name = "METHOD")]
    pub(crate) method: Option<Method>,
    /// Add a header, `Name: value`; `Name:` removes a default header, `Name;` sends an empty value
    #[arg(short = 'H', long, value_name = "HEADER")]
    pub(crate) header: Vec<String>,
    /// Send this body; `@FILE` sends the bytes of a file, `@-` standard input. Several are joined by `&`
    ///
    /// The content type is application/x-www-form-urlencoded unless a header sets another one.
    #[arg(short, long, value_name = "DATA", allow_hyphen_values = true)]
    pub(crate) data: Vec<String>,
    /// Allow plain http to the loopback addresses of this machine
    #[arg(long)]
    pub(crate) allow_http_loopback: bool,
    /// Record the purchase with this tag; the policy can limit and permit tags
    #[arg(long)]
    pub(crate) tag: Option<String>,
    /// Limit the time of the whole call, payment and body included
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Option<Duration>,
}
