//! An HTTP client for programs that pay.
//!
//! bursar looks and feels like [`reqwest`]. When a seller answers `402 Payment Required` with
//! [x402](https://www.x402.org) terms, it asks its policy and its books whether this may be bought,
//! signs an EIP-3009 USDC authorization with the agent's wallet, sends the request again and hands
//! back the response with a receipt.
//!
//! ```no_run
//! # #[cfg(feature = "sqlite")]
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use bursar::{Client, Ledger, LocalSigner, Policy, ResponseExt, usd};
//!
//! let client = Client::builder()
//!     .signer(LocalSigner::from_env("BURSAR_PRIVATE_KEY")?)
//!     .policy(Policy::new().allow_network("base").per_payment(usd!("0.05")))
//!     .ledger(Ledger::open("agent.db")?)
//!     .build()?;
//! let response = client.get("https://api.example.com/report").send().await?;
//! println!("{} ({})", response.status(), response.payment_status());
//! # Ok(())
//! # }
//! ```
//!
//! # What holds
//!
//! * What is signed is what the policy saw and what the books say.
//! * Every limit is checked and held in one atomic step, before a signature exists. A denial never
//!   calls the signer.
//! * One purchase has one nonce, so that all that is ever signed for it excludes itself on the chain.
//! * A signed authorization counts as spent from before it leaves. No word of a server frees it.
//! * Token, decimals and EIP-712 domain come from the [`AssetRegistry`], never from the wire.
//! * A payment goes to the origin that asked for it, over https, never through a redirect.
//! * Keys and signatures are in no `Debug`, error, log or export.
//!
//! # Where to start
//!
//! | for | see |
//! |---|---|
//! | how to do a thing, task by task | [`guide`] |
//! | requests and responses | [`Client`], [`RequestBuilder`], [`ResponseExt`] |
//! | what became of the money | [`PaymentStatus`], [`Error::payment_status`], [`Receipt`] |
//! | limits and rules | [`Policy`], [`Denial`], [`Approver`] |
//! | ledger | [`Ledger`], [`Purchase`], [`Filter`] |
//! | keys | [`Signer`], [`LocalSigner`], [`signer_fn`] |
//! | what the chain says | [`chain::ChainReader`], [`CancelAuthorization`] |
//! | finding services | [`discovery`], [`Client::discover`] |
//! | where the money went | [`report::Report`], `bursar report` |
//! | metrics and logs | [`telemetry`] |
//! | other transports | [`Payer`], `middleware`, `mcp` |
//! | tests of your agent | `bursar_testing::Paywall`, in the crate `bursar-testing` |
//!
//! # Features
//!
//! Default: `rustls`, `http2`, `json`, `query`, `form`, `stream` (as reqwest's),
//! `sqlite` (books in a file), `toml` (policy files). Others: `multipart`, `native-tls`, `gzip`,
//! `secp256k1` (libsecp256k1 signs, which is faster and in C), `keystore`
//! (encrypted key files), `postgres` (books in a database), `alloy-signer` (KMS, Ledger, Turnkey,
//! …), `middleware` (reqwest-middleware), `mcp` (paid tools).
//!
//! Two more crates go with this one: `bursar-cli` is the `bursar` command, and `bursar-testing` has a
//! paywall on loopback.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod call_plan;
pub mod chain;
mod clock;
#[cfg(feature = "toml")]
pub mod config;
mod credential;
pub mod discovery;
mod eip3009;
mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod guide;
mod http;
mod json_text;
mod ledger;
mod limit;
#[cfg(feature = "mcp")]
pub mod mcp;
#[cfg(feature = "middleware")]
pub mod middleware;
mod money;
mod origin;
mod payment;
mod policy;
mod request;
mod signer;
pub mod telemetry;
mod text;
#[cfg(test)]
mod vectors;
mod x402;

pub use self::http::{ApiCall, Client, ClientBuilder, Request, RequestBuilder, ResponseExt};
pub use alloy::primitives::{Address, B256, U256, address};
pub use chain::ChainReader;
pub use clock::{Clock, SystemClock, Timestamp};
pub use credential::{
    CallPlan, Comparison, Credential, Credentials, EnvKey, FileKey, KeySource, KeySourceError,
    Month, ParsePlanError, Preference,
};
pub use error::{Error, ErrorKind, PaymentStatus};
pub use ledger::report;
pub use ledger::{
    BodyDigest, ClaimedReceipt, Evidence, EvidenceAuthorization, EvidenceRequest, Filter, Freeze,
    Ledger, LedgerError, LedgerFault, Purchase, PurchaseId, PurchaseIdError, PurchaseKey,
    Reconciled, Refund, SellerAnswer, State, Verification, write_csv, write_jsonl,
};
pub use money::{
    Asset, AssetRegistry, Network, ParseNetworkError, ParseUsdError, TokenAmount, TransferMethod,
    Usd,
};
pub use origin::{HostPattern, Origin, ParseHostError, ParseOriginError};
pub use payment::{FreezeSwitch, Outcome, Payer, PayerBuilder, Payment, RetryPolicy};
pub use policy::{
    Amount, Answer, ApprovalRequest, Approver, ApproverFn, AskingPrice, ChannelApprover, Denial,
    Explanation, HostRules, LimitCheck, LimitStatus, Limits, PendingApproval, Period, Permission,
    Policy, PolicyError, PriceCheck, PriceOutcome, PricedOffer, Quantity, Rule, Scope,
    TerminalApprover, Untrusted, Verdict, approve_fn,
};
pub use request::{PurchaseOptions, PurchaseRequest, PurchaseRequestError};
#[cfg(feature = "alloy-signer")]
pub use signer::AlloySigner;
pub use signer::{
    AccountKind, CancelAuthorization, KeyError, LocalSigner, Signature, SignedCancellation, Signer,
    SignerError, SignerFn, TransferAuthorization, signer_fn,
};
pub use text::excerpt;
pub use x402::{
    Flow, Offer, PaymentRequired, Quote, Receipt, SettlementResponse, SignedPayment, Unpayable,
    Version, WireError,
};

/// The README's code, compiled.
#[cfg(all(doctest, feature = "sqlite"))]
#[doc = include_str!("../README.md")]
#[derive(Debug)]
pub struct Readme;

pub use reqwest;
pub use secrecy;
pub use url::Url;
