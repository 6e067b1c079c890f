//! One call of a tool: MCP's places for terms, payment and receipt.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use alloy::primitives::keccak256;
use http::StatusCode;
use rmcp::model::{
    CallToolRequestParams, CallToolResult, ErrorData, MetaObject, ProgressToken, RequestMetaObject,
};
use rmcp::service::ServiceError;
use serde_json::{Map, Value};

use super::beneath::Beneath;
use super::form::{self, Form};
use super::unpaid::{self, Demand};
use super::{ANSWER_TIMEOUT, PaidTools, ToolAnswer, request};
use crate::error::{Error, ErrorKind};
use crate::ledger::BodyDigest;
use crate::payment::{
    AfterSigning, Deadline, PaidCall, Payment, Reply, ReplyBody, ReplyHead, SignedTerms, Transport,
    present,
};
use crate::policy::PriceOutcome;
use crate::request::PurchaseRequest;
use crate::request::{PurchaseOptions, purchase_setters};
use crate::text;
use crate::x402::{PaymentRequired, Quote, SettlementResponse, WireError};

/// How much longer than its HTTP request a call waits.
const SLACK: Duration = Duration::from_millis(100);
/// The settings of the time that a call takes.
const LIMITS: &str =
    "`ToolCall::timeout`, `PaidTools::timeout` and `PaidTools::answer_timeout` set the time limit";

/// A call of a tool, to be sent.
///
/// It has the setters of [`PurchaseOptions`].
///
/// ```no_run
/// use bursar::mcp::PaidTools;
/// use bursar::usd;
/// use serde_json::json;
///
/// # async fn example(tools: PaidTools) -> Result<(), bursar::Error> {
/// let answer = tools
///     .call("weather")
///     .arguments(json!({ "city": "Paris" }))
///     .max_price(usd!("0.01"))
///     .send()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a call does nothing until it is sent"]
pub struct ToolCall {
    tools: PaidTools,
    params: CallToolRequestParams,
    options: PurchaseOptions,
    timeout: Option<Duration>,
    arguments_are_an_object: bool,
    watch: Option<ProgressWatch>,
}

/// Receives the progress tokens of a call.
#[derive(Clone)]
struct ProgressWatch(Arc<dyn Fn(&ProgressToken) + Send + Sync>);

impl fmt::Debug for ProgressWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProgressWatch")
    }
}

/// The server's answer to a call.
pub(super) enum ToolReply {
    Result(CallToolResult),
    Error(ErrorData),
}

/// An answer, and the terms in it.
struct Answered {
    reply: ToolReply,
    terms: Option<PaymentRequired>,
}

impl ToolReply {
    fn demand(&self, prose: bool) -> Result<Option<Demand>, Error> {
        match self {
            Self::Result(result) => unpaid::demand(result, prose),
            Self::Error(error) => unpaid::demand_of_error(error),
        }
    }

    fn receipt(&self) -> Option<Result<SettlementResponse, WireError>> {
        form::receipt(match self {
            Self::Result(result) => Ok(result),
            Self::Error(error) => Err(error),
        })
    }

    /// The HTTP status that stands for it.
    const fn status(&self, asks: bool) -> StatusCode {
        match self {
            _ if asks => StatusCode::PAYMENT_REQUIRED,
            Self::Result(result) if !matches!(result.is_error, Some(true)) => StatusCode::OK,
            Self::Result(_) | Self::Error(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The hash of its JSON.
    fn digest(&self) -> Option<BodyDigest> {
        let json = match self {
            Self::Result(result) => serde_json::to_vec(result),
            Self::Error(error) => serde_json::to_vec(error),
        };
        let json = json.ok()?;
        let length = u64::try_from(json.len()).unwrap_or(u64::MAX);
        Some(BodyDigest::new(keccak256(&json), length, true))
    }

    fn into_result(self) -> Result<CallToolResult, Error> {
        match self {
            Self::Result(result) => Ok(result),
            Self::Error(error) => {
                Err(Error::new(ErrorKind::Rpc, unpaid::words(&error)).because(error))
            }
        }
    }
}

impl ToolCall {
    pub(super) fn new(tools: PaidTools, params: CallToolRequestParams) -> Self {
        Self {
            tools,
            params,
            options: PurchaseOptions::default(),
            timeout: None,
            arguments_are_an_object: true,
            watch: None,
        }
    }

    /// Sets the arguments of the tool: a JSON object. bursar reports another value when the call is sent.
    pub fn arguments(mut self, arguments: Value) -> Self {
        match arguments {
            Value::Object(arguments) => self.params.arguments = Some(arguments),
            _ => self.arguments_are_an_object = false,
        }
        self
    }

    /// Sets how long the whole call may take, with approval and payment. bursar signs nothing after it.
    pub const fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Calls `watch` with the progress token of each message of this call: the message without a payment, and each one
    /// with it. The `on_progress` of your `rmcp` client handler receives the notifications with these tokens.
    ///
    /// ```no_run
    /// # async fn example(tools: bursar::mcp::PaidTools) -> Result<(), bursar::Error> {
    /// let call = tools.call("render").on_progress_token(|token| println!("progress has the token {token:?}"));
    /// let answer = call.send().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_progress_token(
        mut self,
        watch: impl Fn(&ProgressToken) + Send + Sync + 'static,
    ) -> Self {
        self.watch = Some(ProgressWatch(Arc::new(watch)));
        self
    }

    purchase_setters!();

    /// Replaces all purchase options.
    pub fn options(mut self, options: PurchaseOptions) -> Self {
        self.options = options;
        self
    }

    const fn options_mut(&mut self) -> &mut PurchaseOptions {
        &mut self.options
    }

    /// Calls the tool, and pays if the server demands it and the policy allows it.
    ///
    /// # Errors
    /// Any [`Error`]. Look at its [`payment_status`](Error::payment_status) first. [`ErrorKind::Rpc`] is the server's own
    /// error; the source of the error is rmcp's `ErrorData`. A tool that answers with `isError` is not an error here.
    pub async fn send(self) -> Result<ToolAnswer, Error> {
        let deadline = self.deadline();
        let beneath = Beneath::new(self.merged_options(), false);
        let paying = Box::pin(self.pay(deadline, &beneath));
        let sent = text::guarding(self.tools.server.endpoint(), paying).await;
        sent.map_err(|error| beneath.fail(error))
    }

    async fn pay(&self, deadline: Deadline, beneath: &Beneath) -> Result<ToolAnswer, Error> {
        let request = self.purchase_request(&deadline)?;
        let payer = self.tools.payer.clone();
        payer.permit(&request)?;
        let present = |payment, request, forms: &'static [Form], terms| {
            self.present(payment, request, (deadline, beneath), forms, terms)
        };
        if request.forbids_payment() {
            return self.ask(&deadline, beneath).await?.into_answer(beneath);
        }
        if let Some(payment) = payer.resume_here(&request).await? {
            return present(payment, request, &form::STANDARD, None).await;
        }
        if payer.caches_terms(request.url())
            && let Some(terms) = payer.cached_terms(&request)
        {
            match payer.authorize_cached_terms(&terms, &request).await? {
                Some(payment) => {
                    let terms = Some(SignedTerms::cached(terms));
                    return present(payment, request, &form::STANDARD, terms).await;
                }
                None => payer.remove_cached_terms(&request),
            }
        }
        let reply = self.ask(&deadline, beneath).await?;
        let Some(demand) = reply.demand(self.tools.prose)? else {
            return reply.into_answer(beneath);
        };
        let named = payer.now();
        let payment = payer.obtain(&demand.terms, &request).await?;
        let terms = Some(SignedTerms::named(demand.terms, named));
        present(payment, request, demand.forms, terms).await
    }

    /// Returns the price of the call, and the answer of the policy and the ledger to it. Signs and reserves nothing.
    /// **A tool that is free is executed by this.**
    ///
    /// # Errors
    /// When the server cannot be reached, its terms cannot be read, or the ledger cannot be read.
    pub async fn quote(self) -> Result<PriceOutcome<ToolAnswer>, Error> {
        text::guarding(self.tools.server.endpoint(), Box::pin(self.ask_price())).await
    }

    async fn ask_price(&self) -> Result<PriceOutcome<ToolAnswer>, Error> {
        let deadline = self.deadline();
        let beneath = Beneath::new(self.merged_options(), true);
        let request = self.purchase_request(&deadline)?;
        self.tools.payer.permit(&request)?;
        let reply = self.ask(&deadline, &beneath).await;
        if let Some(price) = beneath.take_price() {
            return Ok(PriceOutcome::Priced(price));
        }
        let reply = reply?;
        match reply.demand(self.tools.prose)? {
            Some(demand) => Ok(PriceOutcome::Priced(Box::new(
                self.tools.payer.quote(demand.terms, &request).await?,
            ))),
            None => reply.into_answer(&beneath).map(PriceOutcome::Unpriced),
        }
    }

    /// The options of the call and, where it has none, those of its tools.
    fn merged_options(&self) -> PurchaseOptions {
        self.options.clone().with_defaults(&self.tools.options)
    }

    fn deadline(&self) -> Deadline {
        // The default of an answer is for calls without any time limit.
        let default = || self.tools.timeout.is_none().then_some(ANSWER_TIMEOUT);
        let answer = self.tools.answer_timeout.or_else(default);
        Deadline::of(self.timeout, self.tools.timeout, answer)
    }

    fn purchase_request(&self, deadline: &Deadline) -> Result<PurchaseRequest, Error> {
        if !self.arguments_are_an_object {
            return Err(Error::builder("the arguments of a tool are a JSON object"));
        }
        let options = self.merged_options();
        options.id()?;
        let arguments = self
            .params
            .arguments
            .clone()
            .map_or_else(|| Value::Object(Map::new()), Value::Object);
        let server = &self.tools.server;
        let request = server.purchase_request(&self.params.name, &arguments)?;
        Ok(request.options(options).until(deadline.end()))
    }

    async fn present(
        &self,
        payment: Box<Payment>,
        request: PurchaseRequest,
        (deadline, beneath): (Deadline, &Beneath),
        forms: &'static [Form],
        terms: Option<SignedTerms>,
    ) -> Result<ToolAnswer, Error> {
        let call = PaidCall {
            request,
            deadline,
            retry: self.tools.retry,
            terms,
        };
        let mut transport = PaidToolCall {
            call: self,
            deadline,
            beneath,
            forms: forms.to_vec(),
            known: forms != form::STANDARD,
        };
        let (answered, record) = Box::pin(present(&mut transport, payment, call)).await?;
        match answered.reply.into_result() {
            Ok(result) => {
                let mut records = vec![record];
                records.extend(beneath.payments());
                Ok(ToolAnswer::new(result, records))
            }
            Err(error) => Err(record.fail(error)),
        }
    }

    /// Calls the tool without a payment.
    async fn ask(&self, deadline: &Deadline, beneath: &Beneath) -> Result<ToolReply, Error> {
        let (params, _) = self.params();
        self.call(params, deadline, Duration::ZERO, beneath).await
    }

    /// The parameters without any payment, and their other `_meta`. Only bursar pays here.
    fn params(&self) -> (CallToolRequestParams, Map<String, Value>) {
        let mut params = self.params.clone();
        let RequestMetaObject(MetaObject(mut meta)) = params.meta.take().unwrap_or_default();
        form::remove_payments(&mut meta);
        if !meta.is_empty() {
            params.meta = Some(RequestMetaObject(MetaObject(meta.clone())));
        }
        (params, meta)
    }

    async fn call(
        &self,
        params: CallToolRequestParams,
        deadline: &Deadline,
        extra: Duration,
        beneath: &Beneath,
    ) -> Result<ToolReply, Error> {
        let limit = deadline.answer_limit(extra);
        // The request beneath ends first, and notes its payment before this call returns.
        let watch = self.watch.as_ref().map(|watch| &*watch.0);
        let beneath = beneath.ending(limit);
        let called = request::call_tool(&self.tools.peer, params, beneath, watch);
        let error = match tokio::time::timeout(limit.saturating_add(SLACK), called).await {
            Ok(Ok(result)) => return Ok(ToolReply::Result(result)),
            Ok(Err(ServiceError::McpError(error))) => return Ok(ToolReply::Error(error)),
            Ok(Err(error)) => failed(error),
            Err(_) => Error::new(
                ErrorKind::Timeout,
                format!("no answer within {} s", limit.as_secs_f32()),
            ),
        };
        Err(match error.kind() {
            ErrorKind::Timeout => error.and(LIMITS),
            _ => error,
        })
    }
}

impl ToolReply {
    /// The answer of a call without a payment in its `_meta`.
    fn into_answer(self, beneath: &Beneath) -> Result<ToolAnswer, Error> {
        Ok(ToolAnswer::new(self.into_result()?, beneath.payments()))
    }
}

/// A call of a tool with a payment in its `_meta`.
struct PaidToolCall<'a> {
    call: &'a ToolCall,
    deadline: Deadline,
    beneath: &'a Beneath,
    /// The forms in which the payment is shown, until the server reads one.
    forms: Vec<Form>,
    /// Whether the forms come from the server's demand.
    known: bool,
}

impl PaidToolCall<'_> {
    /// Shows the payment in one form.
    async fn show(&self, payment: &Payment, form: Form) -> Result<ToolReply, AfterSigning> {
        let (mut params, mut meta) = self.call.params();
        form.insert(payment, &mut meta)?;
        params.meta = Some(RequestMetaObject(MetaObject(meta)));
        let settles = payment.time_to_settle();
        let reply = self
            .call
            .call(params, &self.deadline, settles, self.beneath)
            .await?;
        Ok(reply)
    }

    /// Whether the server still offers the offer that the payment was signed for.
    fn offers_again(&self, payment: &Payment, terms: &PaymentRequired) -> bool {
        let signed = payment.payment();
        let assets = self.call.tools.payer.policy().asset_registry();
        let mut quotes = Quote::read_all(terms, &assets).into_iter().flatten();
        quotes.any(|quote| quote.amount() == signed.amount && quote.pay_to() == signed.pay_to)
    }

    /// Takes the next form to show, if the answer repeats the demand as if there were no payment.
    fn next_form(&mut self, payment: &Payment, reply: &ToolReply, demand: &Demand) -> bool {
        let repeats = reply.receipt().is_none()
            && form::saw_no_payment(&demand.terms)
            && self.offers_again(payment, &demand.terms);
        if !repeats {
            return false;
        }
        if !self.known {
            // The payment was signed before this demand, which names other forms.
            self.known = true;
            let shown = self.forms.first().copied();
            let others = demand.forms.iter().filter(|form| Some(**form) != shown);
            self.forms = shown.into_iter().chain(others.copied()).collect();
        }
        if self.forms.len() > 1 {
            self.forms.remove(0);
            return true;
        }
        false
    }
}

impl Transport for PaidToolCall<'_> {
    type Answer = Answered;

    async fn send_payment(&mut self, payment: &Payment) -> Result<Reply<Answered>, AfterSigning> {
        let mut form = self.forms.first().copied().unwrap_or(Form::Object);
        loop {
            let reply = self.show(payment, form).await?;
            // Terms that cannot be read do not refuse this payment.
            let demand = reply.demand(self.call.tools.prose).ok().flatten();
            if let Some(demand) = &demand
                && self.next_form(payment, &reply, demand)
            {
                form = self.forms.first().copied().unwrap_or(form);
                continue;
            }
            let terms = demand.map(|demand| demand.terms);
            let status = reply.status(terms.is_some());
            let head = ReplyHead::of_call(payment.payment(), status, reply.receipt());
            return Ok(Reply {
                head,
                answer: Answered { reply, terms },
            });
        }
    }

    async fn read_body(
        &mut self,
        status: StatusCode,
        answer: Answered,
    ) -> Result<ReplyBody<Answered>, AfterSigning> {
        let Answered { reply, terms } = answer;
        let failed = status.is_server_error();
        Ok(ReplyBody {
            digest: if failed { reply.digest() } else { None },
            words: None,
            answer: terms.is_none().then_some(Answered { reply, terms: None }),
            terms,
        })
    }

    fn is_closed(&self) -> bool {
        self.call.tools.peer.is_transport_closed()
    }
}

/// The error of a call without an answer. An error of bursar's own client says more than rmcp's.
pub(super) fn failed(error: ServiceError) -> Error {
    if let Some(inner) = super::error(&error) {
        return inner;
    }
    let kind = match &error {
        ServiceError::Timeout { .. } => ErrorKind::Timeout,
        ServiceError::UnexpectedResponse | ServiceError::InputRequiredRoundsExceeded { .. } => {
            ErrorKind::Rpc
        }
        _ => ErrorKind::Transport,
    };
    Error::new(
        kind,
        format!(
            "the MCP server did not answer: {}",
            text::excerpt(&error.to_string())
        ),
    )
    .because(error)
}
