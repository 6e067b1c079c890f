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
    /// Write a commented policy to start with; overwrites nothing
    Init {
        /// The new file, which must not exist
        file: PathBuf,
        /// Allow this network, such as base or base-sepolia; can be repeated
        #[arg(long, value_name = "NAME|CAIP2", default_value = "base-sepolia")]
        network: Vec<Network>,
    },
    /// Show a policy with all its defaults, as a policy file that has the same effect
    ///
    /// API keys and lists of services are no part of the policy, and are not shown.
    Effective {
        /// The policy file
        file: PathBuf,
        /// Print one JSON object with the same keys
        #[arg(long)]
        json: bool,
    },
    /// Show the answer of each rule to an invented payment; exits with 3 if the policy denies it
    Explain(Box<Explain>),
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
    /// The agent of the payment, such as the name of a token of `bursar proxy`
    #[arg(long, value_name = "NAME")]
    pub(crate) agent: Option<String>,
    /// The tag of the payment
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Option<String>,
    /// The payee; by default an invented address
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) payee: Option<Address>,
    /// Read the balance of this wallet from the endpoints in the tables [[chain]] of the file
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) payer: Option<Address>,
    /// Use the purchases in this ledger; by default an empty ledger
    #[arg(long, value_name = "PATH")]
    pub(crate) ledger: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
