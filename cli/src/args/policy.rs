//! `bursar policy`.

use std::path::PathBuf;

use bursar::reqwest::Method;
use bursar::{Address, Network, Url, Usd};
use clap::{Args, Subcommand};

use super::parse::http_url;

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Check a policy file, and show the place of a mistake
    Check {
        /// The policy file
        file: PathBuf,
    },
    /// Show the answer of each rule to an invented payment; exits with 3 if the policy denies it
    Explain(Explain),
}

#[derive(Args, Debug)]
pub(crate) struct Explain {
    /// The policy file
    pub(crate) file: PathBuf,
    /// The URL of the invented request
    #[arg(value_parser = http_url)]
    pub(crate) url: Url,
    /// The price of the request
    #[arg(long, value_name = "USD")]
    pub(crate) price: Usd,
    /// The method of the request
    #[arg(short = 'X', long, value_name = "METHOD", default_value = "GET")]
    pub(crate) method: Method,
    /// The network of the payment; by default the first network of the policy
    #[arg(long, value_name = "NAME|CAIP2")]
    pub(crate) network: Option<Network>,
    /// The payee; by default an invented address
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) payee: Option<Address>,
    /// Use the purchases in this ledger; by default an empty ledger
    #[arg(long, value_name = "PATH")]
    pub(crate) ledger: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
