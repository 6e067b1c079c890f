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
pub mod clock;
#[cfg(feature = "toml")]
pub mod config;
pub mod credential;
pub mod discovery;
mod eip3009;
mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod guide;
mod http;
mod json_text;
pub mod ledger;
mod limit;
#[cfg(feature = "mcp")]
pub mod mcp;
#[cfg(feature = "middleware")]
pub mod middleware;
pub mod money;
pub mod origin;
pub mod payment;
pub mod policy;
pub mod prelude;
pub mod primitives;
pub mod request;
pub mod signer;
pub mod telemetry;
pub mod text;
#[cfg(test)]
mod vectors;
pub mod x402;

#[doc(inline)]
pub use ledger::report;
#[doc(inline)]
pub use policy::approval;

pub use self::http::{ApiCall, Client, ClientBuilder, Request, RequestBuilder, ResponseExt};
pub use chain::ChainReader;
pub use clock::Timestamp;
pub use credential::{Credential, Credentials};
pub use eip3009::PurchaseId;
pub use error::{Error, ErrorKind, PaymentStatus};
pub use ledger::{Ledger, Purchase};
pub use limit::Denial;
pub use money::{Asset, Network, TokenAmount, Usd};
pub use origin::Origin;
pub use payment::{FreezeSwitch, Payer, RetryPolicy};
pub use policy::{Policy, PriceCheck, PriceOutcome};
pub use primitives::Address;
pub use request::{PurchaseOptions, PurchaseRequest};
pub use signer::{LocalSigner, Signer, signer_fn};
pub use x402::{Receipt, SignedPayment};

/// The README's code, compiled.
#[cfg(all(doctest, feature = "sqlite"))]
#[doc = include_str!("../README.md")]
#[derive(Debug)]
pub struct Readme;

pub use reqwest;
pub use secrecy;
pub use url::Url;
