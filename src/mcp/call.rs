//! One call of a tool, from the first asking to the answer that is handed back: as `exchange` does it
//! over HTTP, with MCP's places for terms, payment and receipt.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode};
use rmcp::model::{
    CallToolRequestParams, CallToolResult, ErrorData, MetaObject, RequestMetaObject,
};
use rmcp::service::ServiceError;
use rmcp::transport::streamable_http_client::StreamableHttpError;
use secrecy::ExposeSecret;
use serde_json::{Map, Value};
use tracing::Instrument;

use super::{Asked, PaidTools, ToolAnswer, unpaid};
use crate::exchange::{Refusal, while_held};
use crate::ledger::PurchaseId;
use crate::payer::{Intent, Outcome, Payment};
use crate::policy::Amount;
use crate::receipt::Claim;
use crate::x402::{self, PaymentRequired, SettlementResponse};
use crate::{Error, ErrorKind, PaymentStatus, text};

/// Where a payment stands in `params._meta`.
const PAYMENT: &str = "x402/payment";
/// Where a receipt stands in `result._meta`.
const RECEIPT: &str = "x402/payment-response";

/// A call of a tool, to be sent.
#[derive(Clone, Debug)]
#[must_use = "a call does nothing until it is sent"]
pub struct ToolCall {
    tools: PaidTools,
    params: CallToolRequestParams,
    max_price: Option<Amount>,
    purchase_id: Option<PurchaseId>,
    tag: Option<String>,
    duplicate: bool,
    new_terms: bool,
    mistake: Option<String>,
}

/// What the server said.
enum Reply {
    Result(CallToolResult),
    Error(ErrorData),
}

impl Reply {
    /// The terms in it, if it asks for a payment.
    fn terms(&self, prose: bool) -> Result<Option<PaymentRequired>, Error> {
        match self {
            Self::Result(result) => unpaid::terms(result, prose),
            Self::Error(error) => unpaid::terms_of_error(error),
        }
    }

    /// The receipt, as a header of HTTP would carry it.
    fn receipt(&self) -> HeaderMap {
        let Self::Result(result) = self else {
            return HeaderMap::new();
        };
        let receipt = result
            .meta
            .as_ref()
            .and_then(|meta| meta.0.get(RECEIPT))
            .filter(|receipt| !receipt.is_null());
        let value = receipt.map(|receipt| {
            HeaderValue::from_str(&x402::encode_header(receipt.to_string().as_bytes()))
        });
        let name = x402::PAYMENT_RESPONSE;
        value
            .and_then(Result::ok)
            .map(|value| HeaderMap::from_iter([(name, value)]))
            .unwrap_or_default()
    }

    fn status(&self, terms: Option<&PaymentRequired>) -> StatusCode {
        match self {
            _ if terms.is_some() => StatusCode::PAYMENT_REQUIRED,
            Self::Result(result) if result.is_error != Some(true) => StatusCode::OK,
            Self::Result(_) | Self::Error(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl ToolCall {
    pub(super) const fn new(tools: PaidTools, params: CallToolRequestParams) -> Self {
        Self {
            tools,
            params,
            max_price: None,
            purchase_id: None,
            tag: None,
            duplicate: false,
            new_terms: false,
            mistake: None,
        }
    }

    /// The tool's arguments: a JSON object.
    pub fn arguments(mut self, arguments: Value) -> Self {
        match arguments {
            Value::Object(arguments) => self.params.arguments = Some(arguments),
            _ => self.mistake = Some("the arguments of a tool are a JSON object".to_owned()),
        }
        self
    }

    /// Does not pay more than this, whatever the policy allows.
    pub fn max_price(mut self, max: impl Into<Amount>) -> Self {
        self.max_price = Some(max.into());
        self
    }

    /// Buys under your own id; see [`RequestBuilder::purchase_id`](crate::RequestBuilder::purchase_id).
    pub fn purchase_id(mut self, id: &str) -> Self {
        match id.parse() {
            Ok(id) => self.purchase_id = Some(id),
            Err(error) => self.mistake = Some(crate::PurchaseIdError::to_string(&error)),
        }
        self
    }

    /// Books the payment under a tag, which the policy may limit.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tag = Some(tag.into());
        self
    }

    /// Buys again even while an identical call is unresolved.
    pub const fn allow_duplicate(mut self) -> Self {
        self.duplicate = true;
        self
    }

    /// See [`RequestBuilder::accept_new_terms`](crate::RequestBuilder::accept_new_terms).
    pub const fn accept_new_terms(mut self) -> Self {
        self.new_terms = true;
        self
    }

    /// Calls the tool, paying if it must be and may be.
    ///
    /// # Errors
    /// Any [`Error`]; ask its [`spend`](Error::payment_status) first. [`ErrorKind::Rpc`] is the server's own
    /// error. A tool that answers with `isError` is no error here.
    pub async fn send(self) -> Result<ToolAnswer, Error> {
        let intent = self.intent()?;
        let payer = self.tools.payer.clone();
        payer.permit(&intent)?;
        if let Some(payment) = payer.resume_here(&intent).await? {
            return self.present(payment, intent).await;
        }
        let reply = self.ask(None, self.tools.answer_timeout).await?;
        let Some(required) = reply.terms(self.tools.prose)? else {
            return free(reply);
        };
        let payment = payer.authorize(&required, &intent).await?;
        self.present(payment, intent).await
    }

    /// What the tool costs, and what the policy and the books say to it. Nothing is signed and nothing
    /// is held. **A tool that is free is executed by this.**
    ///
    /// # Errors
    /// The server cannot be reached, its terms cannot be read, or the books cannot be used.
    pub async fn quote(self) -> Result<Asked, Error> {
        let intent = self.intent()?;
        self.tools.payer.permit(&intent)?;
        let reply = self.ask(None, self.tools.answer_timeout).await?;
        match reply.terms(self.tools.prose)? {
            Some(required) => Ok(Asked::Priced(Box::new(
                self.tools.payer.quote(required, &intent).await?,
            ))),
            None => Ok(Asked::Executed(Box::new(free(reply)?))),
        }
    }

    fn intent(&self) -> Result<Intent, Error> {
        if let Some(mistake) = &self.mistake {
            return Err(Error::builder(mistake.clone()));
        }
        let arguments = self
            .params
            .arguments
            .clone()
            .map_or_else(|| Value::Object(Map::new()), Value::Object);
        let mut intent = self.tools.server.intent(&self.params.name, &arguments)?;
        if let Some(id) = &self.purchase_id {
            intent = intent.purchase_id(id.clone());
        }
        if let Some(tag) = &self.tag {
            intent = intent.tag(tag.clone());
        }
        if let Some(max) = &self.max_price {
            intent = intent.max_price(max.clone());
        }
        Ok(if self.duplicate {
            intent.allow_duplicate()
        } else {
            intent
        })
    }

    /// Presents the payment until the answer is certain or patience ends, and concludes it.
    async fn present(&self, payment: Payment, intent: Intent) -> Result<ToolAnswer, Error> {
        let mut payment = payment;
        let mut requotes = u8::from(self.new_terms);
        loop {
            let reply = match self.deliver(&payment).await {
                Ok(reply) => reply,
                Err(error) => {
                    payment.lost(&error.to_string()).await;
                    return Err(error
                        .spent(payment.payment_status())
                        .of_payment(payment.payment()));
                }
            };
            // Terms that cannot be read ask for a payment all the same, and say nothing of this one.
            let terms = reply.terms(self.tools.prose).ok().flatten();
            let status = reply.status(terms.as_ref());
            let outcome = payment
                .conclude(status, &reply.receipt(), terms.as_ref())
                .await;
            match (outcome, terms) {
                (Outcome::Refused { pending: false, .. }, Some(terms)) if requotes > 0 => {
                    requotes = requotes.saturating_sub(1);
                    let again = intent
                        .clone()
                        .purchase_id(payment.payment().purchase.clone());
                    let (earlier, spend) = (payment.payment().clone(), payment.payment_status());
                    let changed = self.tools.payer.requote(&terms, &again).await;
                    payment = changed.map_err(|error| error.spent(spend).of_payment(&earlier))?;
                }
                (Outcome::Refused { reason, pending }, terms) => {
                    return Err(Refusal {
                        status,
                        reason,
                        pending,
                        new_terms: terms.is_some(),
                    }
                    .of(&payment));
                }
                (outcome, Some(_)) => {
                    let message = "the seller asks again for what its own receipt says is paid";
                    let error = Error::new(ErrorKind::Rejected, message).with_status(status);
                    return Err(settled(error, &payment, outcome));
                }
                (outcome, None) => return handed_up(reply, &payment, outcome),
            }
        }
    }

    /// Presents the payment, and again while the answer is uncertain and patience lasts. A refusal that
    /// follows an uncertain answer tells nothing new: the uncertain answer stands.
    async fn deliver(&self, payment: &Payment) -> Result<Reply, Error> {
        let mut earlier: Option<Result<Reply, Error>> = None;
        let mut presented = 0_u32;
        loop {
            let limit = self
                .tools
                .answer_timeout
                .saturating_add(Duration::from_secs(payment.window()));
            presented = presented.saturating_add(1);
            let span = payment.presenting(presented);
            let answer = while_held(payment, self.ask(Some(payment), limit))
                .instrument(span)
                .await;
            if let Some(earlier) = earlier.take()
                && answer
                    .as_ref()
                    .is_ok_and(|reply| is_refusal(reply, payment, self.tools.prose))
            {
                return earlier;
            }
            let Some(pause) = self.pause(&answer, payment, presented).await else {
                return answer;
            };
            if payment.hold_on().await.is_err() {
                return answer;
            }
            earlier = Some(answer);
            tokio::time::sleep(pause).await;
        }
    }

    /// How long to wait before the payment is presented again, if it is to be.
    async fn pause(
        &self,
        answer: &Result<Reply, Error>,
        payment: &Payment,
        presented: u32,
    ) -> Option<Duration> {
        let uncertain = match answer {
            Err(error) => matches!(error.kind(), ErrorKind::Transport | ErrorKind::Timeout),
            Ok(reply) => is_pending(reply),
        };
        let pause = self
            .tools
            .retry
            .backoff(presented)
            .filter(|_| uncertain && !self.tools.peer.is_transport_closed())?;
        let still_valid = Duration::from_secs(payment.window()) > pause;
        let stopped = !matches!(self.tools.payer.stopped().await, Ok(None));
        (still_valid && !stopped).then_some(pause)
    }

    /// Calls the tool, with a payment if there is one.
    async fn ask(&self, payment: Option<&Payment>, limit: Duration) -> Result<Reply, Error> {
        let mut params = self.params.clone();
        let RequestMetaObject(MetaObject(mut meta)) = params.meta.take().unwrap_or_default();
        // Nobody but bursar pays here.
        meta.remove(PAYMENT);
        if let Some(payment) = payment {
            let json = payment.json()?;
            let value = serde_json::from_str(json.expose_secret());
            let damaged = |_| {
                Error::new(ErrorKind::Ledger, "the stored payment is damaged")
                    .spent(PaymentStatus::MaybePaid)
            };
            meta.insert(PAYMENT.to_owned(), value.map_err(damaged)?);
        }
        if !meta.is_empty() {
            params.meta = Some(RequestMetaObject(MetaObject(meta)));
        }
        let late = || {
            Error::new(
                ErrorKind::Timeout,
                format!("no answer within {} s", limit.as_secs()),
            )
        };
        match tokio::time::timeout(limit, self.tools.peer.call_tool(params)).await {
            Err(_) => Err(late()),
            Ok(Ok(result)) => Ok(Reply::Result(result)),
            Ok(Err(ServiceError::McpError(error))) => Ok(Reply::Error(error)),
            Ok(Err(error)) => Err(failed(error)),
        }
    }
}

/// The answer of a call that was not paid for.
fn free(reply: Reply) -> Result<ToolAnswer, Error> {
    match reply {
        Reply::Result(result) => Ok(ToolAnswer {
            result,
            paid: None,
            receipt: None,
        }),
        Reply::Error(error) => Err(Error::new(ErrorKind::Rpc, unpaid::words(&error))),
    }
}

/// The answer of a call that was paid for, or may have been.
fn handed_up(reply: Reply, payment: &Payment, outcome: Outcome) -> Result<ToolAnswer, Error> {
    let result = match reply {
        Reply::Result(result) => result,
        Reply::Error(error) => {
            return Err(settled(
                Error::new(ErrorKind::Rpc, unpaid::words(&error)),
                payment,
                outcome,
            ));
        }
    };
    let receipt = match outcome {
        Outcome::Settled(receipt) => Some(receipt),
        Outcome::Refused { .. } | Outcome::Unresolved { .. } => None,
    };
    Ok(ToolAnswer {
        result,
        paid: Some(Box::new(payment.payment().clone())),
        receipt,
    })
}

fn settled(error: Error, payment: &Payment, outcome: Outcome) -> Error {
    let error = error.of_payment(payment.payment());
    match outcome {
        Outcome::Settled(receipt) => error.spent(PaymentStatus::Paid).with_receipt(*receipt),
        Outcome::Refused { .. } | Outcome::Unresolved { .. } => {
            error.spent(payment.payment_status())
        }
    }
}

fn is_refusal(reply: &Reply, payment: &Payment, prose: bool) -> bool {
    let asks = reply.terms(prose).is_ok_and(|terms| terms.is_some());
    asks && !is_pending(reply)
        && !matches!(
            Claim::read(payment.payment(), &reply.receipt()),
            Claim::Matching(_)
        )
}

fn is_pending(reply: &Reply) -> bool {
    matches!(SettlementResponse::from_headers(&reply.receipt()), Some(Ok(claim)) if claim.is_pending())
}

/// What kept the call from being answered. Where bursar's own client sent it, its error says more.
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
