//! `bursar mcp serve`: an MCP server on standard input and output that pays for an agent.
//!
//! The agent's model sees five tools and never the key. Policy, key and books are fixed when the server starts. In the
//! configuration of an MCP client, whatever its language:
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
//! Every result begins with `spend`: `none`, `settled` or `unknown`. What a seller wrote is under `untrusted` and nowhere
//! else. A call that is cancelled is left, as a dropped future is: what was not signed never is, and what was signed is
//! booked as unknown and taken up by the same request.
//!
//! The tag of a payment is the agent's choice, so a limit by tag does not bind it; limits by agent and global ones do.

mod answer;
mod approval;
mod hangup;
mod order;
mod tools;

use std::sync::Arc;
use std::time::Duration;

use bursar::discovery::{Findings, Sources};
use bursar::{
    ChannelApprover, Client, Error, Finding, Ledger, Network, PaymentStatus, PendingApproval,
    PriceOutcome, Purchase, PurchaseKey, Usd, reqwest,
};
use rmcp::model::{CallToolRequestParams, CallToolResponse, CallToolResult, JsonObject};
use rmcp::service::{RequestContext, ServerInitializeError};
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::transport::{Transport, stdio_pipes};
use rmcp::{ErrorData, RoleServer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use crate::args::Serve;
use crate::discover;
use crate::exit::{Exit, Failure};
use crate::policies;
use crate::store::Store;
use crate::wallet;
use answer::{Answer, Record};
use approval::{ASKED, Caller, Parked, Waiting, Way};
use hangup::{HangUp, Watched};
use order::{Order, Pay};
use tools::Tool;

/// The most requests at once, those included that wait for an approval.
const CALLS: u32 = 32;
/// How many services are returned, unless the agent says otherwise, and at most.
const FOUND: u8 = 10;
const MOST_FOUND: u8 = 50;
/// The longest message of a client, in bytes.
const MESSAGE: usize = 4 * 1024 * 1024;

/// `bursar mcp serve`.
pub(crate) async fn run(args: &Serve) -> Result<Exit, Failure> {
    let (reader, writer) = stdio_pipes();
    let (reader, hang_up) = Watched::new(reader);
    let desk = Arc::new(Desk::open(args, hang_up).await?);
    let transport = AsyncRwTransport::new_server(reader, writer).with_max_line_length(MESSAGE);
    let served = serve(Server(Arc::clone(&desk)), transport).await;
    desk.close().await?;
    served
}

async fn serve(
    server: Server,
    transport: impl Transport<RoleServer> + 'static,
) -> Result<Exit, Failure> {
    let running = match rmcp::serve_server(server, transport).await {
        Ok(running) => running,
        Err(ServerInitializeError::ConnectionClosed(_)) => return Ok(Exit::Done),
        Err(_) => {
            return Err(Failure::failed(
                "the client began with something else than the MCP handshake",
            ));
        }
    };
    running
        .waiting()
        .await
        .map_err(|_| Failure::failed("the MCP session broke off"))?;
    Ok(Exit::Done)
}

/// What the tools work with: made once, never changed.
struct Desk {
    client: Client,
    ledger: Store,
    /// The operator's ceiling beside the policy.
    max_price: Option<Usd>,
    body_limit: usize,
    /// Where services are looked for: the policy file's lists.
    sources: Sources,
    /// Bounds a call in which somebody may be asked: a person's time is not the seller's.
    asked_timeout: Duration,
    calls: Semaphore,
    waiting: Waiting,
    hang_up: HangUp,
}

/// The desk as the protocol sees it.
struct Server(Arc<Desk>);

impl Desk {
    async fn open(args: &Serve, hang_up: HangUp) -> Result<Self, Failure> {
        let allowance = policies::allowance(&args.policy)?;
        let asked_timeout = args
            .timeout
            .saturating_add(allowance.policy.time_to_approve());
        let asking = |payer: bursar::PayerBuilder| payer.approver(Caller);
        let (payer, ledger) = wallet::paying_as(&args.wallet, allowance.policy, asking).await?;
        let mut client = Client::builder()
            .http(reqwest::Client::builder())
            .credentials(allowance.keys)
            .allow_http_loopback(args.allow_http_loopback)
            .timeout(args.timeout)
            .answer_timeout(args.timeout)
            .payer(payer);
        if !args.allow_private_networks {
            client = client.deny_private_networks();
        }
        Ok(Self {
            client: client.build()?,
            ledger,
            max_price: allowance.max_price,
            body_limit: usize::try_from(args.body_limit).unwrap_or(usize::MAX),
            sources: allowance.sources,
            asked_timeout,
            calls: Semaphore::new(usize::try_from(CALLS).unwrap_or(1)),
            waiting: Waiting::default(),
            hang_up,
        })
    }

    /// Waits until every call has ended or was left, and has the books say so.
    async fn close(&self) -> Result<(), Failure> {
        self.waiting.clear();
        let all = self.calls.acquire_many(CALLS).await;
        drop(all);
        // Asking anything of the books records first what was left.
        self.client.budget().await?;
        Ok(())
    }

    /// Buys, and says how it ended.
    async fn buy(&self, order: Order, way: Way) -> Answer {
        let request = order.on(&self.client);
        let request = if way == Way::Nobody {
            request
        } else {
            request.timeout(self.asked_timeout)
        };
        match request.send().await {
            Ok(response) => Answer::of_response(response, self.body_limit).await,
            Err(error) => Answer::of_error(&error, self.entry(&error).await.as_ref()),
        }
    }

    /// Asks the price; where there is none, the request was executed, and this is its answer.
    async fn price(&self, order: Order) -> Answer {
        // The semaphore is never closed.
        let _permit = self.calls.acquire().await;
        match order.on(&self.client).quote().await {
            Ok(PriceOutcome::Priced(price_check)) => Answer::of_quotation(&price_check),
            Ok(PriceOutcome::Unpriced(response)) => {
                Answer::of_response(response, self.body_limit).await
            }
            Err(error) => Answer::of_error(&error, None),
        }
    }

    /// What the books hold of a purchase that ended in an error after its signature.
    async fn entry(&self, error: &Error) -> Option<Purchase> {
        let id = error
            .purchase_id()
            .filter(|_| error.payment_status() != PaymentStatus::NotPaid)?;
        let key = PurchaseKey::new(self.client.payer()?.address(), id.clone());
        self.ledger.purchase(&key).await.ok().flatten()
    }
}

/// A purchase under way. Dropping it leaves the purchase.
struct RunningCall {
    task: JoinHandle<Answer>,
    questions: mpsc::Receiver<PendingApproval>,
}

impl Drop for RunningCall {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl RunningCall {
    /// Begins to buy. The purchase goes on by itself, so that its time runs while somebody is asked.
    fn begin(desk: &Arc<Desk>, order: Order, way: Way) -> Self {
        let (approver, questions) = ChannelApprover::new(1);
        let asked = (way != Way::Nobody).then_some(approver);
        let desk = Arc::clone(desk);
        let task = tokio::spawn(async move {
            // Let go last, when the purchase has ended or was left. The semaphore is never closed.
            let _permit = desk.calls.acquire().await;
            ASKED.scope(asked, desk.buy(order, way)).await
        });
        Self { task, questions }
    }

    fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// Its end, or a question that has to be asked before it can go on.
    async fn step(&mut self) -> Step {
        tokio::select! {
            ended = &mut self.task => Step::Ended(Box::new(ended.unwrap_or_else(|_| Answer::broken()))),
            Some(question) = self.questions.recv() => Step::Asks(Box::new(question)),
        }
    }
}

enum Step {
    Ended(Box<Answer>),
    Asks(Box<PendingApproval>),
}

impl Server {
    async fn call(
        &self,
        request: CallToolRequestParams,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(tool) = Tool::named(&request.name) else {
            return Err(ErrorData::invalid_params(
                "there is no tool of this name",
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
        let arguments: Pay = match read(request.arguments) {
            Ok(arguments) => arguments,
            Err(wrong) => return Answer::refused("usage", &wrong).result().map(Into::into),
        };
        let purchase = match &request.request_state {
            Some(handle) => match self.resume(handle, &arguments, request.input_responses.as_ref())
            {
                Ok(purchase) => purchase,
                Err(refused) => return refused.result().map(Into::into),
            },
            None => match Order::read(arguments.clone(), self.0.max_price) {
                Ok(order) => RunningCall::begin(&self.0, order, Way::of(context)),
                Err(wrong) => return Answer::refused("usage", &wrong).result().map(Into::into),
            },
        };
        self.conclude(purchase, arguments, context).await
    }

    /// A purchase whose call is made again, with the answer that it waited for.
    fn resume(
        &self,
        handle: &str,
        arguments: &Pay,
        responses: Option<&rmcp::model::InputResponses>,
    ) -> Result<RunningCall, Box<Answer>> {
        let Some(parked) = self.0.waiting.take(handle) else {
            let message =
                "no question waits for this answer: its time was up, or it was answered before";
            return Err(Box::new(Answer::refused("approval", message)));
        };
        if parked.arguments != *arguments {
            return Err(Box::new(Answer::refused(
                "approval",
                "the answer belongs to another call",
            )));
        }
        parked.pending.answer(approval::answer_in(responses));
        Ok(parked.purchase)
    }

    /// Waits for the purchase to end, asking what it asks; leaves it when the call is cancelled.
    async fn conclude(
        &self,
        mut purchase: RunningCall,
        arguments: Pay,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        loop {
            let step = tokio::select! {
                step = purchase.step() => step,
                () = self.given_up(context) => return Err(cancelled()),
            };
            let pending = match step {
                Step::Ended(answer) => return answer.result().map(Into::into),
                Step::Asks(pending) => *pending,
            };
            if Way::of(context) == Way::Again {
                return Ok(self.park(purchase, pending, arguments));
            }
            let asked = pending.request.clone();
            tokio::select! {
                verdict = approval::ask(&context.peer, &asked) => pending.answer(verdict),
                // Nobody waits for the answer any more.
                step = purchase.step() => if let Step::Ended(answer) = step { return answer.result().map(Into::into) },
                () = self.given_up(context) => return Err(cancelled()),
            }
        }
    }

    /// Until nobody waits for the call any more.
    async fn given_up(&self, context: &RequestContext<RoleServer>) {
        tokio::select! {
            () = context.ct.cancelled() => {}
            () = self.0.hang_up.over() => {}
        }
    }

    fn park(
        &self,
        purchase: RunningCall,
        pending: PendingApproval,
        arguments: Pay,
    ) -> CallToolResponse {
        let request = pending.request.clone();
        match self.0.waiting.park(Parked {
            purchase,
            pending,
            arguments,
        }) {
            Ok(handle) => approval::asked_again(&request, handle).into(),
            Err(parked) => {
                drop(parked);
                let refused = Answer::refused("approval", "too many payments wait for an answer");
                refused.result().unwrap_or_default().into()
            }
        }
    }

    async fn quote(
        &self,
        arguments: Option<JsonObject>,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResult, ErrorData> {
        let order = read::<order::Quote>(arguments)
            .and_then(|quote| Order::read(quote.into(), self.0.max_price));
        match order {
            Ok(order) => tokio::select! {
                answer = self.0.price(order) => answer.result(),
                () = self.given_up(context) => Err(cancelled()),
            },
            Err(wrong) => Answer::refused("usage", &wrong).result(),
        }
    }

    async fn budget(&self, arguments: Option<JsonObject>) -> Result<CallToolResult, ErrorData> {
        if let Err(wrong) = read::<order::Budget>(arguments) {
            return Answer::refused("usage", &wrong).result();
        }
        match self.0.client.budget().await {
            Ok(limits) => answer::result(&Budget::new(&self.0, limits), false),
            Err(error) => Answer::of_error(&error, None).result(),
        }
    }

    async fn discover(
        &self,
        arguments: Option<JsonObject>,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResult, ErrorData> {
        let wanted = read::<order::Discover>(arguments).and_then(|wanted| {
            let max = wanted.max_price.as_deref().map(order::price).transpose()?;
            Ok((wanted, max))
        });
        let (wanted, max) = match wanted {
            Ok(wanted) => wanted,
            Err(wrong) => return Answer::refused("usage", &wrong).result(),
        };
        if self.0.sources.is_empty() {
            let message =
                "the operator named no lists to look in: the policy file has no [discovery]";
            return Answer::refused("usage", message).result();
        }
        let limit = usize::from(wanted.limit.unwrap_or(FOUND).clamp(1, MOST_FOUND));
        let query = self
            .0
            .client
            .discover()
            .sources(&self.0.sources)
            .find(&wanted.query)
            .limit(limit);
        let query = match max.into_iter().chain(self.0.max_price).min() {
            Some(max) => query.max_price(max),
            None => query,
        };
        // The semaphore is never closed.
        let _permit = self.0.calls.acquire().await;
        tokio::select! {
            found = query.run() => match found {
                Ok(findings) => answer::result(&Found::from(&findings), false),
                Err(error) => Answer::of_error(&error, None).result(),
            },
            () = self.given_up(context) => Err(cancelled()),
        }
    }

    async fn purchase(&self, arguments: Option<JsonObject>) -> Result<CallToolResult, ErrorData> {
        let id = read::<order::Purchase>(arguments)
            .and_then(|wanted| order::purchase(&wanted.purchase_id));
        let (id, payer) = match (id, self.0.client.payer()) {
            (Ok(id), Some(payer)) => (id, payer.address()),
            (Ok(_), None) => return Answer::refused("no_wallet", "there is no wallet").result(),
            (Err(wrong), _) => return Answer::refused("usage", &wrong).result(),
        };
        match self.0.ledger.purchase(&PurchaseKey::new(payer, id)).await {
            Ok(Some(entry)) => answer::result(&Record::from(&entry), false),
            Ok(None) => {
                Answer::refused("purchase", "the books hold no purchase of this id").result()
            }
            Err(error) => Answer::of_error(&error.into(), None).result(),
        }
    }
}

/// Nobody reads it.
fn cancelled() -> ErrorData {
    ErrorData::internal_error("the call was cancelled", None)
}

/// The result of `discover`.
#[derive(Debug, Serialize)]
struct Found {
    spend: &'static str,
    #[serde(flatten)]
    found: discover::Shown,
}

impl From<&Findings> for Found {
    fn from(findings: &Findings) -> Self {
        Self {
            spend: PaymentStatus::NotPaid.name(),
            found: discover::Shown::from(findings),
        }
    }
}

/// The result of `budget`.
#[derive(Debug, Serialize)]
struct Budget {
    payer: Option<String>,
    networks: Vec<Network>,
    /// Beside the limits, what one payment may cost at most.
    max_per_payment: Option<Usd>,
    limits: Vec<Finding>,
}

impl Budget {
    fn new(desk: &Desk, limits: Vec<Finding>) -> Self {
        let payer = desk.client.payer();
        Self {
            payer: payer.map(|payer| payer.address().to_string()),
            networks: payer
                .map(|payer| payer.policy().payable_networks().collect())
                .unwrap_or_default(),
            max_per_payment: desk.max_price,
            limits,
        }
    }
}

/// Reads a tool's arguments.
fn read<T: DeserializeOwned>(arguments: Option<JsonObject>) -> Result<T, String> {
    serde_json::from_value(arguments.unwrap_or_default().into())
        .map_err(|error| format!("arguments: {error}"))
}
