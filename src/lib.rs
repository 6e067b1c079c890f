//! An HTTP client that pays.
//!
//! bursar wraps [`reqwest`]. When a server answers `402 Payment Required` ([x402](https://www.x402.org)), bursar checks your spending
//! policy, reserves the amount in a crash-safe ledger, signs a USDC authorization, and sends the request again. You receive the response
//! and a receipt.
//!
//! ```no_run
//! # #[cfg(feature = "sqlite")]
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use bursar::{Client, Ledger, LocalSigner, Policy, ResponseExt, usd};
//!
//! let client = Client::builder()
//!     .signer(LocalSigner::from_env("BURSAR_PRIVATE_KEY")?)
//!     .policy(
//!         Policy::new()
//!             .allow_network("base")
//!             .per_payment(usd!("0.05"))
//!             .per_day(usd!("5"))
//!             .host_limits("api.example.com", |host| host.per_day(usd!("1"))),
//!     )
//!     .ledger(Ledger::open("agent.db")?)
//!     .build()?;
//!
//! let response = client.get("https://api.example.com/report").max_price(usd!("0.02")).send().await?;
//! println!("{} ({})", response.status(), response.payment_status());
//! # Ok(())
//! # }
//! ```
//!
//! Start with the [`guide`]: its first chapter leads from an empty directory to a paid answer, without an account.
//!
//! # Guarantees
//!
//! * bursar signs exactly the payment that the policy allowed and the ledger recorded.
//! * The ledger checks every limit and reserves the amount in one atomic step, before a signature exists. A denied payment is never
//!   signed.
//! * All authorizations for a purchase share one nonce, so at most one of them can settle.
//! * A signed payment counts as spent until the chain proves that it was not and cannot be used.
//! * The contract, the decimals and the signing domain of a token come from bursar's registry, never from the seller.
//! * A payment goes only to the origin that asked for it, over `https`, and through no redirect.
//! * Keys and signatures appear in no `Debug` output, error, log or export.
//!
//! `SECURITY.md` in the repository lists each guarantee with the test that shows it, and the limits of these guarantees.
//!
//! # Where to look
//!
//! | To | See |
//! |---|---|
//! | learn bursar from the beginning | [`guide`] |
//! | send requests and read responses | [`Client`], [`RequestBuilder`], [`ResponseExt`] |
//! | know whether money moved | [`PaymentStatus`], [`Error::payment_status`], [`Receipt`] |
//! | set limits and rules | [`Policy`], [`Denial`], [`approval::Approver`] |
//! | keep and read purchases | [`Ledger`], [`Purchase`] |
//! | hold the key | [`Signer`], [`LocalSigner`], [`signer_fn`] |
//! | use API keys together with payments | [`Credentials`] |
//! | ask the chain, and know the balance | [`chain::ChainReader`], [`ClientBuilder::chain`] |
//! | find services | [`discovery`] |
//! | see the spending | [`report`] |
//! | collect metrics and logs | [`telemetry`] |
//! | pay over another transport | [`Payer`], `middleware`, `mcp` |
//! | test your program | the package `bursar-testing` |
//! | pay on the command line | the package `bursar-cli` |
//!
//! # Features
//!
//! | Feature | Default | Adds |
//! |---|---|---|
//! | `rustls`, `http2`, `json`, `query`, `form`, `stream` | yes | the features of reqwest with the same names |
//! | `native-tls`, `multipart`, `gzip` | no | the features of reqwest with the same names |
//! | `sqlite` | yes | ledgers in a file |
//! | `postgres` | no | ledgers in a PostgreSQL database |
//! | `toml` | yes | policy files |
//! | `keystore` | no | encrypted key files |
//! | `alloy-signer` | no | signers of the alloy crates, such as KMS and Ledger |
//! | `secp256k1` | no | signatures by libsecp256k1, which is faster and written in C |
//! | `middleware` | no | payments in a `reqwest-middleware` stack |
//! | `tower` | no | the client as a `tower` service, and payments for any HTTP service |
//! | `mcp` | no | paid tools of MCP servers |
//!
//! # Not supported
//!
//! bursar pays with the x402 schemes `exact` and `upto` on EVM networks, over EIP-3009 and, where the policy allows it, over
//! Permit2. It supports no Solana, no payment channels (`batch-settlement`) and no escrow (`auth-capture`).

#![cfg_attr(docsrs, feature(doc_cfg))]
// The compiler looks through the whole HTTP client to see that a future can be sent to another thread, which is deeper than its
// default limit in some orders of evaluation.
#![recursion_limit = "256"]

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
mod path;
pub mod payment;
mod permit2;
pub mod policy;
pub mod prelude;
pub mod primitives;
pub mod request;
pub mod signer;
pub mod telemetry;
pub mod text;
#[cfg(feature = "tower")]
pub mod tower;
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
