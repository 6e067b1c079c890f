//! SignedPayment tools of [Model Context Protocol](https://modelcontextprotocol.io) servers, on the official
//! [`rmcp`] crate (feature `mcp`).
//!
//! A server can ask for money in two ways, and bursar pays both under one policy and in one set of
//! books:
//!
//! * **A tool has a price** (x402's MCP transport): the tool's first result carries the terms, the
//!   payment travels in `params._meta["x402/payment"]`, the receipt comes back in
//!   `result._meta["x402/payment-response"]`. [`PaidTools`] does this over any `rmcp` transport.
//! * **The endpoint answers HTTP 402**: [`connect`] is an `rmcp` transport whose requests are sent by a
//!   [`Client`](crate::Client), which pays for them.
//!
//! ```no_run
//! use bursar::mcp::{self, PaidTools, Server};
//! use bursar::{Client, LocalSigner, Policy, SqliteLedger, usd};
//! use rmcp::ServiceExt;
//! use serde_json::json;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::builder()
//!     .signer(LocalSigner::from_env("BURSAR_PRIVATE_KEY")?)
//!     .policy(Policy::new().network("base").tool("https://tools.example", "weather", |tool| tool.lifetime(usd!("1"))))
//!     .ledger(SqliteLedger::open("agent.db")?)
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
//! # What is an invoice
//!
//! A result is taken for terms where the official clients take it so: `structuredContent` of a result
//! with `isError`, else its first text if that is JSON and nothing else, or a JSON-RPC error of code 402
//! or -32042 with terms in its `data`. Prose that contains terms is not, unless
//! [`read_prose`](PaidTools::read_prose) is said: a model's words are not an invoice. Whatever is read
//! passes the whole policy.
//!
//! # Asking a price
//!
//! MCP has no way to ask a price: [`ToolCall::quote`] calls the tool without paying. **A tool that turns
//! out to be free is executed by that**, and its answer is returned.
//!
//! # In the books
//!
//! A purchase of the tool `weather` has the server's origin, the method `CALL` and the path
//! `/mcp://tool/weather`: what [`Policy::tool`](crate::Policy::tool) limits and a
//! [`Permission`](crate::Permission) names by `path = "/mcp://tool/*"`. Its status is 200, 402 for terms,
//! and 500 for a result with `isError`. What makes a call the same call is server, tool and arguments,
//! whatever the order of their keys.

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

pub use answer::{Asked, ToolAnswer};
pub use call::ToolCall;
pub use server::Server;
pub use transport::{HttpClient, TransportError, connect};

use crate::{Payer, RetryPolicy};

/// How long a tool may take unless the caller says otherwise.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// The tools of one MCP server, paid for where they ask it and the policy allows it.
///
/// Purchases follow the rules of [`Client`](crate::Client): one nonce each, an uncertain answer asked for
/// again with the same payment, and then by an identical call, until it is certain.
#[derive(Clone)]
pub struct PaidTools {
    peer: Peer<RoleClient>,
    payer: Payer,
    server: Server,
    answer_timeout: Duration,
    retry: RetryPolicy,
    prose: bool,
}

impl PaidTools {
    /// The tools behind `peer`, an initialized `rmcp` client, of the server that the books and the policy
    /// know as `server`.
    #[must_use]
    pub fn new(peer: Peer<RoleClient>, payer: Payer, server: Server) -> Self {
        Self {
            peer,
            payer,
            server,
            answer_timeout: ANSWER_TIMEOUT,
            retry: RetryPolicy::default(),
            prose: false,
        }
    }

    /// How long a tool may take to answer; 60 seconds unless set. A paid answer may take the validity of
    /// its authorization longer, because the seller settles in that time.
    #[must_use]
    pub const fn answer_timeout(mut self, limit: Duration) -> Self {
        self.answer_timeout = limit;
        self
    }

    /// Sets how often a call sends a payment whose outcome is uncertain.
    ///
    /// See [`ClientBuilder::retry_policy`](crate::ClientBuilder::retry_policy).
    #[must_use]
    pub const fn retry_policy(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Also takes terms that stand within other text for terms: for servers that wrap them in words.
    #[must_use]
    pub const fn read_prose(mut self) -> Self {
        self.prose = true;
        self
    }

    /// Begins a call of the tool. Mistakes in it are reported when it is sent.
    pub fn call(&self, tool: impl Into<String>) -> ToolCall {
        ToolCall::new(self.clone(), CallToolRequestParams::new(tool.into()))
    }

    /// Begins a call with all that `rmcp` can say of one.
    pub fn call_with(&self, params: CallToolRequestParams) -> ToolCall {
        ToolCall::new(self.clone(), params)
    }

    /// The server's other abilities.
    #[must_use]
    pub const fn peer(&self) -> &Peer<RoleClient> {
        &self.peer
    }

    /// The wallet with its policy and books.
    #[must_use]
    pub const fn payer(&self) -> &Payer {
        &self.payer
    }

    /// As the books know it.
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
