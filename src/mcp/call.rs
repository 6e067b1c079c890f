//! One call of a tool: MCP's places for terms, payment and receipt.

use std::time::Duration;

use alloy::primitives::keccak256;
use http::StatusCode;
use rmcp::model::{
    CallToolRequestParams, CallToolResult, ErrorData, MetaObject, RequestMetaObject,
};
use rmcp::service::ServiceError;
use rmcp::transport::streamable_http_client::StreamableHttpError;
use secrecy::ExposeSecret;
use serde_json::{Map, Value};

use super::{PaidTools, ToolAnswer, unpaid};
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
use crate::x402::{PaymentRequired, SettlementResponse, WireError};

/// The place of a payment in `params._meta`.
const PAYMENT: &str = "x402/payment";
/// The place of a receipt in `result._meta`.
const RECEIPT: &str = "x402/payment-response";

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
}

/// The server's answer to a call.
enum ToolReply {
    Result(CallToolResult),
    Error(ErrorData),
}

/// An answer, and the terms in it.
struct Answered {
    reply: ToolReply,
    terms: Option<PaymentRequired>,
}

impl ToolReply {
    /// The terms in it, if it demands a payment.
    fn terms(&self, prose: bool) -> Result<Option<PaymentRequired>, Error> {
        match self {
            Self::Result(result) => unpaid::terms(result, prose),
            Self::Error(error) => unpaid::terms_of_error(error),
        }
    }

    fn receipt(&self) -> Option<Result<SettlementResponse, WireError>> {
        let Self::Result(result) = self else {
            return None;
        };
        let receipt = result.meta.as_ref()?.0.get(RECEIPT)?;
        let json = receipt.to_string();
        (!receipt.is_null()).then(|| SettlementResponse::from_json(json.as_bytes()))
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
            Self::Error(error) => Err(Error::new(ErrorKind::Rpc, unpaid::words(&error))),
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
    /// error. A tool that answers with `isError` is not an error here.
    pub async fn send(self) -> Result<ToolAnswer, Error> {
        let deadline = self.deadline();
        let request = self.purchase_request(&deadline)?;
        let payer = self.tools.payer.clone();
        payer.permit(&request)?;
        if request.forbids_payment() {
            return self.ask(&deadline).await?.into_answer();
        }
        if let Some(payment) = payer.resume_here(&request).await? {
            return self.present(payment, request, deadline, None).await;
        }
        if payer.caches_terms(request.url())
            && let Some(terms) = payer.cached_terms(&request)
        {
            match payer.authorize_cached_terms(&terms, &request).await? {
                Some(payment) => {
                    let terms = Some(SignedTerms::cached(terms));
                    return self.present(payment, request, deadline, terms).await;
                }
                None => payer.remove_cached_terms(&request),
            }
        }
        let reply = self.ask(&deadline).await?;
        let Some(required) = reply.terms(self.tools.prose)? else {
            return reply.into_answer();
        };
        let named = payer.now();
        let payment = payer.authorize(&required, &request).await?;
        let terms = Some(SignedTerms::named(required, named));
        self.present(payment, request, deadline, terms).await
    }

    /// Returns the price of the call, and the answer of the policy and the ledger to it. Signs and reserves nothing.
    /// **A tool that is free is executed by this.**
    ///
    /// # Errors
    /// When the server cannot be reached, its terms cannot be read, or the ledger cannot be read.
    pub async fn quote(self) -> Result<PriceOutcome<ToolAnswer>, Error> {
        let deadline = self.deadline();
        let request = self.purchase_request(&deadline)?;
        self.tools.payer.permit(&request)?;
        let reply = self.ask(&deadline).await?;
        match reply.terms(self.tools.prose)? {
            Some(required) => Ok(PriceOutcome::Priced(Box::new(
                self.tools.payer.quote(required, &request).await?,
            ))),
            None => reply.into_answer().map(PriceOutcome::Unpriced),
        }
    }

    fn deadline(&self) -> Deadline {
        let whole = self.timeout.or(self.tools.timeout);
        Deadline::new(whole, self.tools.answer_timeout)
    }

    fn purchase_request(&self, deadline: &Deadline) -> Result<PurchaseRequest, Error> {
        if !self.arguments_are_an_object {
            return Err(Error::builder("the arguments of a tool are a JSON object"));
        }
        self.options.id()?;
        let arguments = self
            .params
            .arguments
            .clone()
            .map_or_else(|| Value::Object(Map::new()), Value::Object);
        let server = &self.tools.server;
        let request = server.purchase_request(&self.params.name, &arguments)?;
        Ok(request.options(self.options.clone()).until(deadline.end()))
    }

    async fn present(
        &self,
        payment: Payment,
        request: PurchaseRequest,
        deadline: Deadline,
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
        };
        let (answered, record) = Box::pin(present(&mut transport, payment, call)).await?;
        match answered.reply.into_result() {
            Ok(result) => Ok(ToolAnswer::new(result, Some(record))),
            Err(error) => Err(record.fail(error)),
        }
    }

    /// Calls the tool without a payment.
    async fn ask(&self, deadline: &Deadline) -> Result<ToolReply, Error> {
        let (params, _) = self.params();
        self.call(params, deadline, Duration::ZERO).await
    }

    /// The parameters without any payment, and their other `_meta`. Only bursar pays here.
    fn params(&self) -> (CallToolRequestParams, Map<String, Value>) {
        let mut params = self.params.clone();
        let RequestMetaObject(MetaObject(mut meta)) = params.meta.take().unwrap_or_default();
        meta.remove(PAYMENT);
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
    ) -> Result<ToolReply, Error> {
        let called = async {
            match self.tools.peer.call_tool(params).await {
                Ok(result) => Ok(ToolReply::Result(result)),
                Err(ServiceError::McpError(error)) => Ok(ToolReply::Error(error)),
                Err(error) => Err(failed(error)),
            }
        };
        deadline.bound(extra, called).await
    }
}

impl ToolReply {
    /// The answer of a call without a payment.
    fn into_answer(self) -> Result<ToolAnswer, Error> {
        Ok(ToolAnswer::new(self.into_result()?, None))
    }
}

/// A call of a tool with a payment in its `_meta`.
struct PaidToolCall<'a> {
    call: &'a ToolCall,
    deadline: Deadline,
}

impl Transport for PaidToolCall<'_> {
    type Answer = Answered;

    async fn send_payment(&mut self, payment: &Payment) -> Result<Reply<Answered>, AfterSigning> {
        let (mut params, mut meta) = self.call.params();
        let json = payment.json()?;
        let value = serde_json::from_str(json.expose_secret()).map_err(|_| payment.damaged())?;
        meta.insert(PAYMENT.to_owned(), value);
        params.meta = Some(RequestMetaObject(MetaObject(meta)));
        let settles = payment.time_to_settle();
        let reply = self.call.call(params, &self.deadline, settles).await?;
        // Terms that cannot be read do not refuse this payment.
        let terms = reply.terms(self.call.tools.prose).ok().flatten();
        let status = reply.status(terms.is_some());
        let head = ReplyHead::of_call(payment.payment(), status, reply.receipt());
        Ok(Reply {
            head,
            answer: Answered { reply, terms },
        })
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
fn failed(error: ServiceError) -> Error {
    if let ServiceError::TransportSend(sent) = &error
        && let Some(StreamableHttpError::Client(inner)) = sent
            .error
            .downcast_ref::<StreamableHttpError<super::TransportError>>()
    {
        return inner.again();
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
