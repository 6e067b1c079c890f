//! `bursar ledger`, and the commands that only read a ledger.

use std::path::PathBuf;

use bursar::credential::CallPlan;
use bursar::ledger::State;
use bursar::primitives::{B256, U256};
use bursar::{Network, PurchaseId};
use clap::{Args, Subcommand, ValueEnum};

use super::parse::{endpoint, state};
use super::{LedgerArgs, PolicyArgs, WalletArgs};

#[derive(Args, Debug)]
pub(crate) struct LedgerCommandArgs {
    #[command(flatten)]
    pub(crate) show: LedgerShow,
    #[command(subcommand)]
    pub(crate) command: Option<LedgerCommand>,
}

#[derive(Args, Debug)]
pub(crate) struct LedgerShow {
    #[command(flatten)]
    pub(crate) ledger: LedgerArgs,
    /// The format of the list
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
    /// Show purchases since this date (UTC), or since this time in RFC 3339
    #[arg(long, value_name = "DATE")]
    pub(crate) since: Option<String>,
    /// Show purchases before this date (UTC), or before this time in RFC 3339
    #[arg(long, value_name = "DATE")]
    pub(crate) until: Option<String>,
    /// Show purchases from this host, or from a pattern such as *.example.com
    #[arg(long)]
    pub(crate) host: Option<String>,
    /// Show purchases with this tag
    #[arg(long)]
    pub(crate) tag: Option<String>,
    /// Show purchases by this agent
    #[arg(long, value_name = "NAME")]
    pub(crate) agent: Option<String>,
    /// Show purchases in this state, such as unresolved
    #[arg(long, value_parser = state)]
    pub(crate) state: Option<State>,
    /// Show the last N of these purchases
    #[arg(long, visible_alias = "limit", value_name = "N")]
    pub(crate) last: Option<usize>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Format {
    Table,
    Csv,
    Jsonl,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LedgerCommand {
    /// Ask the chain about every purchase whose result is unknown; exits with 1 if an answer is missing
    ///
    /// If the chain shows a payment, the purchase becomes settled. If the chain proves that a payment did not and cannot
    /// happen, because the authorization expired unused or was cancelled, the purchase becomes released_by_proof and no
    /// longer counts against the limits. All other purchases stay as they are.
    Reconcile(Reconcile),
    /// Look for changes that bursar did not make; exits with 1 if there are any
    Verify(Verify),
    /// Print everything that the ledger stores about a purchase as JSON, for a dispute
    Evidence {
        /// The id of the purchase
        purchase: PurchaseId,
        #[command(flatten)]
        ledger: LedgerArgs,
    },
    /// Record money that came back for a purchase; bursar does not check the transaction
    Refund(Refund),
    /// Sign a cancellation of the payment for a purchase, and print the transaction to send to the chain
    Cancel {
        /// The id of the purchase
        purchase: PurchaseId,
        #[command(flatten)]
        wallet: WalletArgs,
    },
    /// Move the seller's terms and answers of old, finished purchases to a file, so that the ledger grows less
    ///
    /// The file has one purchase as JSON on each line. The ledger keeps id, amount, times, state and transactions, so limits and
    /// reports do not change, and no id is bought again. It deletes the stored payment, and keeps the SHA-256 hash of the
    /// line. Unresolved purchases stay whole. Run it on a schedule, after `bursar ledger reconcile`.
    Prune(Prune),
    /// Copy the ledger to FILE while programs pay; do not copy a ledger with cp
    ///
    /// The copy has two files, FILE and FILE-head. You can read it with the other commands. bursar pays nothing from it
    /// until it is restored, because each copy of a ledger would allow the whole budget.
    Backup {
        /// The new file, which must not exist
        file: PathBuf,
        #[command(flatten)]
        ledger: LedgerArgs,
    },
    /// Make FILE the ledger on purpose, although it is an older copy or its witness is missing
    ///
    /// Stop all programs that use the ledger first. The files of the present ledger are renamed to end in .replaced. If FILE
    /// is the ledger itself, it is accepted as it is. A restored ledger does not know of the purchases after the copy, so
    /// its limits count too little: freeze it until these payments have expired, and lower the limits.
    Restore {
        /// A copy that `bursar ledger backup` made, or the ledger itself
        file: PathBuf,
        #[command(flatten)]
        ledger: LedgerArgs,
    },
    /// Stop all payments of every program that uses this ledger
    Freeze {
        /// The reason, which every denied payment shows
        reason: String,
        #[command(flatten)]
        ledger: LedgerArgs,
    },
    /// Allow payments again
    Unfreeze {
        #[command(flatten)]
        ledger: LedgerArgs,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Reconcile {
    #[command(flatten)]
    pub(crate) ledger: LedgerArgs,
    /// Ask this JSON-RPC endpoint, such as base=https://mainnet.base.org; to release money, endpoints of two domains must agree
    #[arg(long, value_name = "NETWORK=URL", required_unless_present = "policy", value_parser = endpoint)]
    pub(crate) rpc: Vec<(Network, String)>,
    /// Ask the endpoints in the tables [[chain]] of this policy file
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Release money if one endpoint alone proves it; use this only with your own node
    #[arg(long)]
    pub(crate) trust_single_endpoint: bool,
    /// Treat a block as final if N blocks follow it, on chains that do not report final blocks
    #[arg(long, value_name = "N")]
    pub(crate) confirmations: Option<u64>,
    /// Print one JSON object for each purchase
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Verify {
    #[command(flatten)]
    pub(crate) ledger: LedgerArgs,
    /// A head that an earlier run printed; finds a ledger that was cut off or rewritten since
    #[arg(long, value_name = "HASH")]
    pub(crate) head: Option<B256>,
}

#[derive(Args, Debug)]
pub(crate) struct Prune {
    /// Prune purchases from before this date, this time in RFC 3339, or this age, such as 90d
    #[arg(long, value_name = "TIME")]
    pub(crate) before: String,
    /// The new file, which must not exist; it is created only if there is something to prune
    #[arg(long, value_name = "FILE")]
    pub(crate) export: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) ledger: LedgerArgs,
}

#[derive(Args, Debug)]
pub(crate) struct Refund {
    /// The id of the purchase
    pub(crate) purchase: PurchaseId,
    /// The transaction of the refund
    #[arg(long, value_name = "HASH")]
    pub(crate) transaction: B256,
    /// The amount, in atomic units of the token of the purchase
    #[arg(long, value_name = "UNITS")]
    pub(crate) value: U256,
    #[command(flatten)]
    pub(crate) ledger: LedgerArgs,
}

#[derive(Args, Debug)]
pub(crate) struct Budget {
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    #[command(flatten)]
    pub(crate) ledger: LedgerArgs,
    /// Print one JSON object for each limit
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Spending {
    /// Count from this date, or from this time in RFC 3339
    #[arg(long, value_name = "DATE")]
    pub(crate) since: Option<String>,
    /// Count up to this date or time, which is itself not counted
    #[arg(long, value_name = "DATE")]
    pub(crate) until: Option<String>,
    /// Count the last N calendar days, today included
    #[arg(long, value_name = "N", conflicts_with = "since", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) days: Option<u32>,
    /// Count only this host, or a pattern such as *.example.com
    #[arg(long)]
    pub(crate) host: Option<String>,
    /// Count only this tag
    #[arg(long)]
    pub(crate) tag: Option<String>,
    /// Count only this agent
    #[arg(long, value_name = "NAME")]
    pub(crate) agent: Option<String>,
    /// The time zone of the days, such as Europe/Berlin; by default that of the first calendar limit, or UTC
    #[arg(long)]
    pub(crate) zone: Option<String>,
    /// The format of the report
    #[arg(long, value_enum, default_value_t = ReportFormat::Table)]
    pub(crate) format: ReportFormat,
    /// Serve the page on 127.0.0.1 until you stop the command; it refreshes itself, and the printed URL has its token
    #[arg(long, conflicts_with_all = ["format", "out"])]
    pub(crate) serve: bool,
    /// Serve on this port; by default the system chooses a free one
    #[arg(
        long,
        value_name = "PORT",
        requires = "serve",
        default_value_t = 0,
        hide_default_value = true
    )]
    pub(crate) port: u16,
    /// Refresh the served page every N seconds
    #[arg(long, value_name = "N", requires = "serve", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) refresh: u32,
    /// Write the report to FILE
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
    /// The price of the plan for one calendar month (UTC) in dollars; you can leave out parts
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
