//! Sellers on loopback to test paying HTTP clients and agents against.
//!
//! [`Paywall`] is an x402 seller, version 1 or 2, that runs inside your test. It verifies payments as the official
//! facilitator does and settles them on a simulated chain. It needs no network and no money. It checks signatures with
//! code of its own, so it does not share the mistakes of the client under test.
//!
//! # Test an agent in ten lines
//!
//! 1. Start a paywall with the pages that your agent buys.
//! 2. Let the agent run.
//! 3. Ask the paywall what reached it and what was paid.
//!
//! ```
//! use bursar::{Client, Ledger, LocalSigner, Policy, ResponseExt, usd};
//! use bursar_testing::{Paywall, Route};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let report = Route::get("/report").price(usd!("0.01")).body("the report");
//! let seller = Paywall::builder().route(report).start().await?;
//!
//! let agent = Client::builder()
//!     .signer(LocalSigner::random()?)
//!     .policy(Policy::new().allow_network("base-sepolia").per_payment(usd!("0.05")))
//!     .ledger(Ledger::memory())
//!     .allow_http_loopback(true)
//!     .build()?;
//! let response = agent.get(seller.url("/report")).send().await?;
//!
//! let settled = seller.settlements();
//! assert_eq!(settled.len(), 1);
//! assert_eq!(response.receipt().unwrap().transaction(), settled[0].transaction);
//! assert_eq!(response.text().await?, "the report");
//! # Ok(())
//! # }
//! ```
//!
//! Routes are paid in USDC on Base Sepolia unless you set another token. Every account has unlimited funds unless you
//! set a [balance](PaywallBuilder::balance). Set a [clock](PaywallBuilder::clock) to test expiry.
//!
//! # Test payments through Permit2
//!
//! [`Route::permit2`] sells by `exact` with Permit2. [`Route::upto`] sells by `upto`: the price is a ceiling, and
//! [`Route::charge`] sets the amount that the seller settles. Every account has approved Permit2 unless you set an
//! [allowance](PaywallBuilder::allowance); the seller answers 412 if it is too small. [`Route::sponsors_permits`] and
//! [`Route::sponsors_approvals`] take an approval together with the payment.
//!
//! ```
//! use bursar::usd;
//! use bursar_testing::{Paywall, Route};
//! # fn agent_buys(_: bursar::Url) {}
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! let answer = Route::get("/answer").price(usd!("0.10")).upto().charge(usd!("0.02")).body("42");
//! let seller = Paywall::builder().route(answer).start().await?;
//! agent_buys(seller.url("/answer"));
//! for settlement in seller.settlements() {
//!     // The buyer signed a ceiling of ten cents, and the seller took two.
//!     assert_eq!(settlement.permit.unwrap().amount, 100_000);
//!     assert_eq!(settlement.authorization.value, 20_000);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Test against hostile sellers
//!
//! Put a [`Fault`] on a route, let the agent buy, and count the payments.
//!
//! | The seller … | Use |
//! |---|---|
//! | overcharges, swaps the payee, fakes a token, asks for years of validity | [`Fault::Terms`] with [`FalseTerms`] |
//! | sends terms that are huge, slow, cut off or endless | [`Fault::BreakTerms`] with a [`Breakage`] |
//! | redirects before or after the payment | [`Fault::RedirectBeforeTerms`], [`Fault::RedirectAfterSettle`] |
//! | takes the money and answers with an error | [`Fault::StatusAfterSettle`] |
//! | takes the money, and the answer is lost | [`Fault::BreakAfterSettle`], [`Fault::SettleAfterDisconnect`] |
//! | lies in the receipt | [`Fault::ForgedReceipt`] with a [`Forgery`] |
//! | charges or claims another amount of an `upto` payment | [`Fault::ChargeCeiling`], [`Fault::ChargeAboveCeiling`], [`Fault::ReceiptAmount`], [`Forgery::AboveCeiling`] |
//! | asks again, for another price, payee, method or facilitator | [`Fault::Requote`], [`Fault::RequoteAfterSettle`] |
//! | signs its offers and receipts with another key, for other terms, or too long ago | [`OfferSigner::fault`] with a [`SigningFault`] |
//! | keeps the payment and settles it later | any fault, then [`Paywall::settle_presented`] |
//!
//! ```
//! use bursar::usd;
//! use bursar_testing::{FalseTerms, Fault, Paywall, Route};
//! # async fn my_agent_buys(url: bursar::Url) {
//! #     let signer = bursar::LocalSigner::random().unwrap();
//! #     let policy = bursar::Policy::new().allow_network("base-sepolia");
//! #     let agent = bursar::Client::builder().signer(signer).policy(policy).ledger(bursar::Ledger::memory());
//! #     drop(agent.allow_http_loopback(true).build().unwrap().get(url).send().await);
//! # }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! let faults = [
//!     Fault::Terms(FalseTerms::ExpensiveFirst(1_000)),
//!     Fault::DropAfterSettle,
//!     Fault::RequoteAfterSettle(FalseTerms::Price(2)),
//! ];
//! for fault in faults {
//!     let route = Route::get("/report").price(usd!("0.01")).fault(fault.clone());
//!     let seller = Paywall::builder().route(route).start().await?;
//!     my_agent_buys(seller.url("/report")).await;
//!     // In the worst case the seller kept every payment and settles all of them now.
//!     let transfers = seller.settlements().len() + seller.settle_presented();
//!     assert!(transfers <= 1, "{fault:?} cost {transfers} payments");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Test against sellers with another dialect
//!
//! Honest sellers write the same things in different ways. [`Route::encoding`] changes how terms and receipts are written,
//! [`Route::offers`] states offers byte for byte, [`Route::description`] and [`Route::extension`] make terms long.
//! [`FalseTerms::ProtocolVersion`] with `2` on a route of version 1 is a seller that says version 2 in a body and reads
//! `X-PAYMENT`.
//!
//! # Test against a language model
//! [`OpenAi`] makes the routes of a seller that speaks OpenAI's API, streaming included. `cargo run -p bursar-testing --example
//! openai_seller` starts one for programs in other languages.
//!
//! # Test sign-ins
//! [`Route::sign_in`] lets buyers enter again what they have bought, and [`Route::sign_in_only`] asks for a sign-in alone. A
//! route misbehaves with a [`SignInFault`]. [`Paywall::sign_ins`] returns every sign-in.
//!
//! # Test tools of MCP
//! [`Paywall::tools`] opens an MCP [`ToolServer`] that sells the routes as tools, in a [`Dialect`] of real servers.
//!
//! # Test discovery and reconciliation
//!
//! * [`Bazaar`] lists the [advertisements](Paywall::advertisement) of a paywall. It misbehaves with a [`BazaarFault`].
//! * [`Paywall::node`] opens a JSON-RPC [`Node`] of the simulated chain. It misbehaves with a [`NodeFault`].

mod answer;
mod bazaar;
mod body;
mod breakage;
mod chain;
mod encoding;
mod false_terms;
mod fault;
mod faulty_stream;
mod handler;
mod headers;
mod node;
mod openai;
mod payment;
mod paywall;
mod permit;
mod route;
mod seller;
mod server;
mod sign_in;
mod signed;
mod sponsorship;
mod terms;
mod tools;
mod transaction;
mod typed_data;
mod verify;

pub use bazaar::{Bazaar, BazaarBuilder, BazaarFault};
pub use breakage::Breakage;
#[doc(no_inline)]
pub use bursar::x402::PaymentMethod;
pub use chain::{Approval, CancelError, Cancellation, Settlement};
pub use encoding::Encoding;
pub use false_terms::FalseTerms;
pub use fault::{Fault, Forgery};
pub use handler::{Answer, Gate};
pub use node::{Node, NodeFault};
pub use openai::{ChatMessage, ChatReply, ChatRequest, OpenAi};
pub use payment::{Authorization, PresentedPayment, ReceivedRequest};
pub use paywall::{Paywall, PaywallBuilder};
pub use permit::Permit;
pub use route::Route;
pub use sign_in::{SignIn, SignInFault};
pub use signed::{OfferSigner, SigningFault};
pub use tools::{Dialect, ToolServer};
