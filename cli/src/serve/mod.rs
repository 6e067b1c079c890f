//! `bursar mcp serve`: an MCP server on standard input and output that pays for an agent.
//!
//! The model of the agent sees five tools, and no message shows the key. The command line fixes the key, the policy and the ledger.
//! Add the server to the configuration of an MCP client in any language:
//!
//! ```json
//! {
//!   "mcpServers": {
//!     "bursar": {
//!       "command": "bursar",
//!       "args": ["mcp", "serve", "--policy", "/etc/bursar/agent.toml", "--agent", "researcher"],
//!       "env": { "BURSAR_PRIVATE_KEY": "..." }
//!     }
//!   }
//! }
//! ```
//!
//! Every result begins with `payment`: `not_paid`, `maybe_paid` or `paid`. Text of a seller is under `untrusted` and
//! nowhere else. A cancelled call is abandoned like a dropped future: bursar signs nothing more for it. If bursar has
//! signed already, the purchase is unresolved, and the same request resumes it. A paid answer that nobody took is kept
//! for the next identical call.
//!
//! The agent chooses the tag of a payment. To limit an agent, use limits for agents or global limits, not for tags.

pub(crate) mod approval;
pub(crate) mod budget;
pub(crate) mod call;
pub(crate) mod calls;
pub(crate) mod disconnect;
pub(crate) mod kept;
pub(crate) mod params;
pub(crate) mod purchase;
pub(crate) mod result;
mod tools;
pub(crate) mod untrusted;

use std::sync::Arc;
use std::time::Duration;

use bursar::discovery::{Findings, Sources};
use bursar::ledger::PurchaseKey;
use bursar::{Client, Credentials, Error, PaymentStatus, PriceOutcome, Purchase, ResponseExt, Usd};
use rmcp::model::{CallToolRequestParams, CallToolResponse, CallToolResult, JsonObject, RequestId};
use rmcp::service::{RequestContext, ServerInitializeError};
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::transport::{Transport, stdio_pipes};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::args::Serve;
use crate::discover::DiscoverOutput;
use crate::exit::{Exit, Failure};
use crate::payment::status_name;
use crate::policies;
use crate::wallet;
use approval::CallerApprover;
use budget::BudgetResult;
use call::Purchasing;
use calls::{Caller, Calls, Order, cancelled};
use disconnect::{Disconnect, Watched};
use kept::Answer;
use params::{Identity, Pay, ToolRequest};
use purchase::PurchaseResult;
use result::{Advice, PayResult, to_protocol};
use tools::Tool;

/// The default and the largest number of services that `discover` returns.
const DEFAULT_SERVICES: u8 = 10;
const MAX_SERVICES: u8 = 50;
/// The largest message of a client in bytes.
pub(crate) const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// `bursar mcp serve`.
pub(crate) async fn run(args: &Serve) -> Result<Exit, Failure> {
    let (reader, writer) = stdio_pipes();
    let (reader, disconnect) = Watched::new(reader);
    let server = Arc::new(Server::open(args, disconnect).await?);
    let transport = AsyncRwTransport::new_server(reader, writer).with_max_line_length(MAX_MESSAGE);
    let served = serve(Handler(Arc::clone(&server)), transport).await;
    server.close().await?;
    served
}

pub(crate) async fn serve(
    handler: impl ServerHandler,
    transport: impl Transport<RoleServer> + 'static,
) -> Result<Exit, Failure> {
    let running = match rmcp::serve_server(handler, transport).await {
        Ok(running) => running,
        Err(ServerInitializeError::ConnectionClosed(_)) => return Ok(Exit::Done),
        Err(_) => {
            return Err(Failure::failed(
                "the first message of the client is not the MCP handshake",
            ));
        }
    };
    running
        .waiting()
        .await
        .map_err(|_| Failure::failed("the MCP session broke off"))?;
    Ok(Exit::Done)
}

/// The parts that all calls share. They do not change while the server runs.
struct Server {
    client: Client,
    /// The API keys. A call cannot set the headers that they fill.
    keys: Credentials,
    /// The limit of --max-per-payment, in addition to the policy.
    max_price: Option<Usd>,
    body_limit: usize,
    /// The lists of the policy file.
    sources: Sources,
    /// The time limit of a call that can ask a person. It includes the time for the approval.
    approval_timeout: Duration,
    calls: Arc<Calls<Identity, PayResult>>,
}

/// The number of the only session.
const SESSION: u64 = 0;

/// Handles the messages of the protocol.
struct Handler(Arc<Server>);

impl Server {
    async fn open(args: &Serve, disconnect: Disconnect) -> Result<Self, Failure> {
        let allowance = policies::allowance(&args.policy)?;
        let approval_timeout = args
            .timeout
            .saturating_add(allowance.policy.time_to_approve());
        let with_approver = |payer: bursar::payment::PayerBuilder| payer.approver(CallerApprover);
        let (policy, chain) = (allowance.policy, allowance.chain);
        let payer = wallet::paying_as(&args.wallet, policy, chain, with_approver).await?;
        let mut client = Client::builder()
            .credentials(allowance.keys.clone())
            .allow_http_loopback(args.allow_http_loopback)
            .timeout(args.timeout)
            .answer_timeout(args.timeout)
            .payer(payer);
        if !args.allow_private_networks {
            client = client.deny_private_networks();
        }
        Ok(Self {
            client: client.build()?,
            keys: allowance.keys,
            max_price: allowance.max_price,
            body_limit: usize::try_from(args.body_limit).unwrap_or(usize::MAX),
            sources: allowance.sources,
            approval_timeout,
            calls: Arc::new(Calls::new(args.host_timeout, disconnect)),
        })
    }

    /// Waits until every call has ended or is abandoned, and records abandoned purchases and denials in the ledger.
    async fn close(&self) -> Result<(), Failure> {
        self.calls.close().await;
        wallet::close(&self.client).await
    }

    /// Checks the arguments of a call.
    fn read(&self, arguments: Pay) -> Result<ToolRequest, String> {
        ToolRequest::read(arguments, self.max_price, &self.keys)
    }

    /// Sends a request, and pays if needed and allowed.
    async fn buy(
        &self,
        request: ToolRequest,
        purchasing: Purchasing<Identity, PayResult>,
    ) -> PayResult {
        let request = request.on(&self.client);
        let request = if purchasing.approver.is_none() {
            request
        } else {
            request.timeout(self.approval_timeout)
        };
        match request.send().await {
            Ok(response) => {
                if response.payment().is_some() {
                    purchasing.running.set_answered();
                }
                PayResult::of_response(response, self.body_limit).await
            }
            Err(error) => {
                let purchase = failed_purchase(&self.client, &error).await;
                PayResult::of_error(&error, purchase.as_ref())
            }
        }
    }

    /// Asks for the price of a request. If it has no price, the server has executed it, and the result is its answer.
    async fn price(&self, request: ToolRequest) -> PayResult {
        // The semaphore is never closed.
        let _permit = self.calls.permits.acquire().await;
        match request.on(&self.client).quote().await {
            Ok(PriceOutcome::Priced(price_check)) => PayResult::of_price_check(&price_check),
            Ok(PriceOutcome::Unpriced(response)) => {
                PayResult::of_response(response, self.body_limit).await
            }
            Err(error) => PayResult::of_error(&error, None),
        }
    }
}

/// Returns the purchase of a request that failed after its signature.
pub(crate) async fn failed_purchase(client: &Client, error: &Error) -> Option<Purchase> {
    let id = error
        .purchase_id()
        .filter(|_| error.payment_status() != PaymentStatus::NotPaid)?;
    let payer = client.payer()?;
    let key = PurchaseKey::new(payer.address(), id.clone());
    payer.ledger().purchase(&key).await.ok().flatten()
}

/// Returns the result of looking up the purchase of this id.
pub(crate) async fn look_up(
    client: &Client,
    id: &str,
    advice: &Advice,
) -> Result<CallToolResult, ErrorData> {
    let (id, payer) = match (params::purchase(id), client.payer()) {
        (Ok(id), Some(payer)) => (id, payer),
        (Ok(_), None) => {
            return PayResult::refused("no_wallet", "the server has no wallet").to_protocol();
        }
        (Err(message), _) => return wrong_arguments(&message),
    };
    let key = PurchaseKey::new(payer.address(), id);
    match payer.ledger().purchase(&key).await {
        Ok(Some(purchase)) => to_protocol(&PurchaseResult::new(&purchase, advice), false),
        Ok(None) => {
            PayResult::refused("purchase", "the ledger has no purchase with this id").to_protocol()
        }
        Err(error) => PayResult::of_error(&error.into(), None).to_protocol(),
    }
}

impl Handler {
    async fn call(
        &self,
        request: CallToolRequestParams,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(tool) = Tool::named(&request.name) else {
            return Err(ErrorData::invalid_params(
                "there is no tool with this name",
                None,
            ));
        };
        match tool {
            Tool::Pay => self.pay(request, context).await,
            Tool::Quote => self.quote(request.arguments, context).await.map(Into::into),
            Tool::Budget => self.budget(request.arguments).await.map(Into::into),
            Tool::Purchase => self.purchase(request.arguments).await.map(Into::into),
            Tool::Discover => self
                .discover(request.arguments, context)
                .await
                .map(Into::into),
        }
    }

    async fn pay(
        &self,
        request: CallToolRequestParams,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let caller = Caller {
            session: SESSION,
            context,
        };
        let order = |arguments| {
            let refused = |message: String| Box::new(PayResult::refused("usage", &message));
            let request = read::<Pay>(arguments)
                .and_then(|arguments| self.0.read(arguments))
                .map_err(refused)?;
            let server = Arc::clone(&self.0);
            Ok(Order {
                identity: request.identity(),
                allow_duplicate: request.allows_duplicate(),
                buy: move |purchasing| async move { server.buy(request, purchasing).await },
            })
        };
        self.0.calls.conduct(request, caller, order).await
    }

    fn cancelled(&self, request: &RequestId) {
        self.0.calls.cancelled(SESSION, request);
    }

    /// Waits until the client has cancelled the call or has disconnected.
    async fn abandoned(&self, context: &RequestContext<RoleServer>) {
        self.0.calls.abandoned(context).await;
    }

    async fn quote(
        &self,
        arguments: Option<JsonObject>,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResult, ErrorData> {
        let request = read::<params::Quote>(arguments).and_then(|quote| self.0.read(quote.into()));
        match request {
            Ok(request) => tokio::select! {
                result = self.0.price(request) => result.to_protocol(),
                () = self.abandoned(context) => Err(cancelled()),
            },
            Err(message) => wrong_arguments(&message),
        }
    }

    async fn budget(&self, arguments: Option<JsonObject>) -> Result<CallToolResult, ErrorData> {
        if let Err(message) = read::<params::Budget>(arguments) {
            return wrong_arguments(&message);
        }
        match self.0.client.budget().await {
            Ok(limits) => {
                let result = BudgetResult::new(&self.0.client, self.0.max_price, limits);
                to_protocol(&result, false)
            }
            Err(error) => PayResult::of_error(&error, None).to_protocol(),
        }
    }

    async fn discover(
        &self,
        arguments: Option<JsonObject>,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResult, ErrorData> {
        let arguments = read::<params::Discover>(arguments).and_then(|arguments| {
            let max_price = arguments.max_price.as_deref();
            let max_price = max_price.map(params::price).transpose()?;
            Ok((arguments, max_price))
        });
        let (arguments, max_price) = match arguments {
            Ok(arguments) => arguments,
            Err(message) => return wrong_arguments(&message),
        };
        if self.0.sources.is_empty() {
            return wrong_arguments(
                "there are no lists to search, because the policy file has no section [discovery]",
            );
        }
        let limit = arguments.limit.unwrap_or(DEFAULT_SERVICES);
        let query = self
            .0
            .client
            .discover()
            .sources(&self.0.sources)
            .find(&arguments.query)
            .limit(usize::from(limit.clamp(1, MAX_SERVICES)));
        let query = match max_price.into_iter().chain(self.0.max_price).min() {
            Some(max) => query.max_price(max),
            None => query,
        };
        // The semaphore is never closed.
        let _permit = self.0.calls.permits.acquire().await;
        tokio::select! {
            found = query.run() => match found {
                Ok(findings) => to_protocol(&DiscoverResult::from(&findings), false),
                Err(error) => PayResult::of_error(&error, None).to_protocol(),
            },
            () = self.abandoned(context) => Err(cancelled()),
        }
    }

    async fn purchase(&self, arguments: Option<JsonObject>) -> Result<CallToolResult, ErrorData> {
        match read::<params::Purchase>(arguments) {
            Ok(arguments) => look_up(&self.0.client, &arguments.purchase_id, &result::PAY).await,
            Err(message) => wrong_arguments(&message),
        }
    }
}

/// The result of a call with arguments that cannot be used.
pub(crate) fn wrong_arguments(message: &str) -> Result<CallToolResult, ErrorData> {
    PayResult::refused("usage", message).to_protocol()
}

/// The result of `discover`.
#[derive(Debug, Serialize)]
pub(crate) struct DiscoverResult {
    #[serde(serialize_with = "status_name")]
    payment: PaymentStatus,
    #[serde(flatten)]
    found: DiscoverOutput,
}

impl From<&Findings> for DiscoverResult {
    fn from(findings: &Findings) -> Self {
        Self {
            payment: PaymentStatus::NotPaid,
            found: DiscoverOutput::from(findings),
        }
    }
}

/// Reads the arguments of a tool.
pub(crate) fn read<T: DeserializeOwned>(arguments: Option<JsonObject>) -> Result<T, String> {
    serde_json::from_value(arguments.unwrap_or_default().into())
        .map_err(|error| format!("arguments: {error}"))
}
