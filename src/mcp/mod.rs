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
//! bursar reads terms where the official clients read them: in `structuredContent` of a result with `isError`, otherwise in
//! its first text if that is JSON and nothing else, or in the `data` of a JSON-RPC error with code 402 or -32042. It does not
//! search prose for terms unless you call [`read_prose`](PaidTools::read_prose), because the words of a model are not an
//! invoice. All terms pass the whole policy.
//!
//! # Asking for a price
//!
//! MCP has no way to ask for a price. [`ToolCall::quote`] calls the tool without a payment. **A tool that is free is executed
//! by that**, and you receive its answer.
//!
//! # In the ledger
//!
//! A purchase of the tool `weather` has the origin of the server, the method `CALL` and the path `/mcp://tool/weather`. Limits
//! on a tool and a [`Permission`](crate::policy::Permission) with `path = "/mcp://tool/*"` match that path. The status of the answer
//! is 200, 402 for terms, and 500 for a result with `isError`. Two calls are identical when server, tool and arguments are the
//! same, in any order of keys.

mod answer;
mod call;
mod server;
mod transport;
mod unpaid;

use std::fmt;
use std::time::Duration;

use rmcp::RoleClient;
use rmcp::model::CallToolRequestParams;
use rmcp::service::Peer;

pub use answer::ToolAnswer;
pub use call::ToolCall;
pub use server::Server;
pub use transport::{HttpClient, TransportError, connect};

use crate::payment::{Payer, RetryPolicy};

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
    answer_timeout: Duration,
    timeout: Option<Duration>,
    retry: RetryPolicy,
    prose: bool,
}

impl PaidTools {
    /// Returns the tools behind `peer`, an initialized `rmcp` client. The policy and the ledger know the server as `server`.
    #[must_use]
    pub fn new(peer: Peer<RoleClient>, payer: Payer, server: Server) -> Self {
        Self {
            peer,
            payer,
            server,
            answer_timeout: ANSWER_TIMEOUT,
            timeout: None,
            retry: RetryPolicy::default(),
            prose: false,
        }
    }

    /// Sets how long a tool may take to answer. The default is 60 seconds. A paid answer may take longer by the validity of its
    /// authorization, because the seller settles in that time.
    #[must_use]
    pub const fn answer_timeout(mut self, limit: Duration) -> Self {
        self.answer_timeout = limit;
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

impl fmt::Debug for PaidTools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PaidTools")
            .field("server", &self.server)
            .field("payer", &self.payer)
            .finish_non_exhaustive()
    }
}
