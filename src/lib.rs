//! An HTTP client for programs that pay.
//!
//! bursar looks and feels like [`reqwest`]. When a seller answers `402 Payment Required` with
//! [x402](https://www.x402.org) terms, it asks its policy and its books whether this may be bought,
//! signs an EIP-3009 USDC authorization with the agent's wallet, sends the request again and hands
//! back the response with a receipt.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod asset;
mod client;
mod clock;
mod error;
mod exchange;
mod ledger;
#[cfg(feature = "middleware")]
pub mod middleware;
mod money;
mod network;
mod origin;
mod payer;
mod policy;
mod quote;
mod receipt;
mod signer;
#[cfg(feature = "testing")]
pub mod testing;
mod text;
#[cfg(test)]
mod vectors;
mod x402;

pub use alloy::primitives::{Address, B256, U256, address};
pub use asset::{Asset, AssetRegistry, TokenAmount, TransferMethod};
pub use client::{Client, ClientBuilder, Request, RequestBuilder};
pub use clock::{Clock, SystemClock, Timestamp};
pub use error::{Error, ErrorKind, Spend};
pub use exchange::{Quoted, ResponseExt};
#[cfg(feature = "sqlite")]
pub use ledger::SqliteLedger;
pub use ledger::{
    Books, Charge, Checks, Entry, Filter, Finding, Ledger, LedgerError, MemoryLedger, PurchaseId, PurchaseIdError,
    PurchaseKey, Reservation, Reserved, State, Transition, write_csv, write_jsonl,
};
pub use money::{ParseUsdError, Usd};
pub use network::{Network, ParseNetworkError};
pub use origin::{HostPattern, Origin, ParseHostError, ParseOriginError};
pub use payer::{Intent, Outcome, Payer, PayerBuilder, Payment, Quotation, QuotedOffer};
pub use policy::{
    Amount, Answer, ApprovalRequest, Approver, ApproverFn, ChannelApprover, Denial, Explanation, HostRules,
    Hypothetical, Limits, PendingApproval, Period, Policy, PolicyError, Quantity, Rule, Scope, Span, TerminalApprover,
    Untrusted, Verdict, approve_fn,
};
pub use quote::{Flow, Quote, Unpayable};
pub use receipt::{Paid, Receipt};
#[cfg(feature = "alloy-signer")]
pub use signer::AlloySigner;
pub use signer::{
    AccountKind, KeyError, LocalSigner, Signature, Signer, SignerError, SignerFn, TransferAuthorization, signer_fn,
};
pub use x402::{Offer, PaymentRequired, SettlementResponse, Version, WireError};

/// The README's code, compiled.
#[cfg(all(doctest, feature = "sqlite"))]
#[doc = include_str!("../README.md")]
#[derive(Debug)]
pub struct Readme;

pub use reqwest;
pub use secrecy;
pub use url::Url;
