//! Paid tools of [Model Context Protocol](https://modelcontextprotocol.io) servers, on the official [`rmcp`] crate
//! (feature `mcp`).
//!
//! A server can demand money in two ways. bursar pays both under one policy and in one ledger:
//!
//! * **A tool has a price** (x402's MCP transport). The first result of the tool carries the terms, the payment travels in
//!   `params._meta["x402/payment"]`, and the receipt comes back in `result._meta["x402/payment-response"]`. [`PaidTools`]
//!   does this over any `rmcp` transport.
//! * **The endpoint answers HTTP 402.** [`connect`] returns an `rmcp` transport whose requests a [`Client`](crate::Client)
//!   sends and pays for.
//!
//! ```no_run
//! use bursar::mcp::{self, PaidTools, Server};
//! use bursar::{Client, Ledger, LocalSigner, Policy, usd};
//! use rmcp::ServiceExt;
//! use serde_json::json;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::builder()
//!     .signer(LocalSigner::from_env("BURSAR_PRIVATE_KEY")?)
//!     .policy(Policy::new().allow_network("base").tool_limits("https://tools.example", "weather", |tool| tool.lifetime(usd!("1"))))
//!     .ledger(Ledger::open("agent.db")?)
//!     .build()?;
//! let url = "https://tools.example/mcp";
//! let service = ().serve(mcp::connect(&client, url)?).await?;
//! let payer = client.payer().ok_or("no wallet")?.clone();
//!
//! let tools = PaidTools::new(service.peer().clone(), payer, Server::at(url)?);
//! let answer = tools.call("weather").arguments(json!({ "city": "Paris" })).max_price(usd!("0.01")).send().await?;
//! println!("{:?} ({})", answer.result().content, answer.payment_status());
//! # Ok(())
//! # }
//! ```
//!
//! # Terms in a result
//!
//! bursar reads terms in these places: in `structuredContent` of a result with `isError`, in `_meta["x402/error"]`, in a text
//! of a result with `isError` if that is JSON and nothing else, or in the `data` of a JSON-RPC error, itself or under a name
//! such as `x402` or `paymentRequirements`. It does not search prose for terms unless you call
//! [`read_prose`](PaidTools::read_prose), because the words of a model are not an invoice. All terms pass the whole policy.
//!
//! # Dialects
//!
//! | The server | bursar shows the payment as |
//! |---|---|
//! | follows x402's MCP transport | an object under `_meta["x402/payment"]` |
//! | has its terms in `_meta["x402/error"]` alone, or a resource `x402://TOOL` (Cloudflare) | base64 text under `_meta["x402/payment"]` |
//! | says `_meta.x402.payment is required` (the npm package `x402-mcp`) | base64 text under `_meta["x402.payment"]` |
//! | answers with another JSON-RPC error than 402 and -32042 | an object, also under `_meta["x402.org/payment"]` |
//! | has its terms in `data.payment[]` (the draft SEP-2007) | nothing: bursar refuses before it signs |
//!
//! If the server repeats its terms as if there were no payment, bursar shows the same authorization in the next form. It has
//! one nonce, so it settles at most once. Receipts are read as an object and as base64 text, under each of these names.
//!
//! # Endpoints that answer 402
//!
//! Only `tools/call` is paid for at the endpoint. A 402 to another method is an error, unless
//! [`Policy::pay_mcp_method`](crate::Policy::pay_mcp_method) names the method. Two calls of a tool are the same request if
//! endpoint, tool and arguments are the same, in any session and with any id. If the server loses its session at the paid
//! request, the call in the next session shows the same payment. [`ToolAnswer::payments`] has every payment of a call.
//!
//! # Asking for a price
//!
//! MCP has no way to ask for a price. [`listed_price`] reads the price that some servers put into their list of tools.
//! [`ToolCall::quote`] calls the tool without a payment. **A tool that is free is executed
//! by that**, and you receive its answer.
//!
//! # In the ledger
//!
//! A purchase of the tool `weather` has the origin of the server, the method `CALL` and the path `/mcp://tool/weather`. Limits
//! on a tool and a [`Permission`](crate::policy::Permission) with `path = "/mcp://tool/*"` match that path. The status of the answer
//! is 200, 402 for terms, and 500 for a result with `isError`. Two calls are identical when server, tool and arguments are the
//! same, in any order of keys.

mod answer;
mod beneath;
mod call;
mod form;
mod listed;
mod request;
mod server;
mod transport;
mod unpaid;

use std::fmt;
use std::time::Duration;

use rmcp::RoleClient;
use rmcp::model::CallToolRequestParams;
use rmcp::service::{ClientInitializeError, Peer, ServiceError};
use rmcp::transport::streamable_http_client::StreamableHttpError;

pub use answer::ToolAnswer;
pub use call::ToolCall;
pub use listed::{ListedPrice, listed_price};
pub use server::Server;
pub use transport::{HttpClient, TransportError, connect};

use crate::payment::{Payer, RetryPolicy};
use crate::request::PurchaseOptions;

/// How long a tool may take unless [`PaidTools::answer_timeout`] sets another limit.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// The tools of one MCP server, paid for when the server demands it and the policy allows it.
///
/// Purchases follow the rules of [`Client`](crate::Client): one nonce each, and an uncertain payment is presented again, by
/// the same call and then by an identical one. A transport over [`connect`] also obeys `Retry-After`.
#[derive(Clone)]
pub struct PaidTools {
    peer: Peer<RoleClient>,
    payer: Payer,
    server: Server,
    answer_timeout: Option<Duration>,
    timeout: Option<Duration>,
    retry: RetryPolicy,
    options: PurchaseOptions,
    prose: bool,
}

impl PaidTools {
    /// Returns the tools behind `peer`, an initialized `rmcp` client. The policy and the ledger know the server as `server`.
    ///
    /// Take the payer from [`Client::payer`](crate::Client::payer). It knows the hosts whose API key says
    /// [`NeverPay`](crate::credential::Preference::NeverPay).
    #[must_use]
    pub fn new(peer: Peer<RoleClient>, payer: Payer, server: Server) -> Self {
        Self {
            peer,
            payer,
            server,
            answer_timeout: None,
            timeout: None,
            retry: RetryPolicy::default(),
            options: PurchaseOptions::default(),
            prose: false,
        }
    }

    /// Sets how long a tool may take to answer. The default is 60 seconds, or the longer time of [`timeout`](Self::timeout). A
    /// paid answer may take longer by the validity of its authorization, because the seller settles in that time.
    ///
    /// The [timeout](ToolCall::timeout) of a call replaces it if that is longer.
    #[must_use]
    pub const fn answer_timeout(mut self, limit: Duration) -> Self {
        self.answer_timeout = Some(limit);
        self
    }

    /// Sets how long a whole call may take, with approval and payment. There is no limit by default. bursar signs nothing after
    /// it. A call can have a [timeout](ToolCall::timeout) of its own.
    #[must_use]
    pub const fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Sets how often a call sends a payment whose outcome is uncertain; see [`RetryPolicy`].
    #[must_use]
    pub const fn retry_policy(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Sets the options of all calls. The options of a call win, member by member; see
    /// [`PurchaseOptions::with_defaults`].
    #[must_use]
    pub fn default_options(mut self, options: PurchaseOptions) -> Self {
        self.options = options;
        self
    }

    /// Returns a handle with these options for all of its calls, for example for one agent. They win over those of this
    /// handle, member by member.
    #[must_use]
    pub fn with_options(&self, options: PurchaseOptions) -> Self {
        Self {
            options: options.with_defaults(&self.options),
            ..self.clone()
        }
    }

    /// Also reads terms inside other text, for servers that wrap them in words.
    #[must_use]
    pub const fn read_prose(mut self) -> Self {
        self.prose = true;
        self
    }

    /// Begins a call of the tool. An error in its parts is reported when you send it.
    pub fn call(&self, tool: impl Into<String>) -> ToolCall {
        ToolCall::new(self.clone(), CallToolRequestParams::new(tool.into()))
    }

    /// Begins a call with all parameters of `rmcp`.
    pub fn call_with(&self, params: CallToolRequestParams) -> ToolCall {
        ToolCall::new(self.clone(), params)
    }

    /// Returns the `rmcp` client, for everything else that the server offers.
    #[must_use]
    pub const fn peer(&self) -> &Peer<RoleClient> {
        &self.peer
    }

    /// Returns the payer.
    #[must_use]
    pub const fn payer(&self) -> &Payer {
        &self.payer
    }

    /// Returns the server, as the policy and the ledger know it.
    #[must_use]
    pub const fn server(&self) -> &Server {
        &self.server
    }
}

/// Returns bursar's error inside an error of `rmcp`, if a request through [`connect`] failed with one.
///
/// ```
/// use bursar::mcp;
/// use rmcp::service::ServiceError;
///
/// fn was_denied(error: &ServiceError) -> bool {
///     mcp::error(error).is_some_and(|error| error.is_denied())
/// }
/// ```
#[must_use]
pub fn error(error: &(dyn std::error::Error + 'static)) -> Option<crate::Error> {
    type Http = StreamableHttpError<TransportError>;
    let inner: &(dyn std::error::Error + 'static) = match error.downcast_ref() {
        Some(ClientInitializeError::TransportError { error, .. }) => &*error.error,
        _ => match error.downcast_ref() {
            Some(ServiceError::TransportSend(error)) => &*error.error,
            _ => error,
        },
    };
    match inner.downcast_ref::<Http>() {
        Some(StreamableHttpError::Client(error)) => Some(error.again()),
        _ => None,
    }
}

impl fmt::Debug for PaidTools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PaidTools")
            .field("server", &self.server)
            .field("payer", &self.payer)
            .finish_non_exhaustive()
    }
}
