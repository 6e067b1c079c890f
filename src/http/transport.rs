//! Sending HTTP requests, with and without a payment.

use std::future::Future;

use http::header::CACHE_CONTROL;
use http::{HeaderValue, StatusCode};
use reqwest::{Request, Response};

use super::body::PartlyRead;
use super::challenge::Challenge;
use super::exchange::Exchange;
use super::replay::Replay;
use crate::error::{Error, ErrorKind};
use crate::payment::{AfterSigning, Payment, Reply, ReplyBody, ReplyHead, Transport};
use crate::x402::words;

/// How much of the body of a failed paid call bursar reads for its hash, and how long it waits for it.
const EVIDENCE: (usize, std::time::Duration) = (64 * 1024, std::time::Duration::from_secs(2));

/// Sends a request and returns the head of its answer: reqwest itself, or a stack of middleware.
///
/// It must not follow redirects, which would carry a payment header along.
pub(crate) trait HttpTransport: Send + Sync {
    fn send(&mut self, request: Request) -> impl Future<Output = Result<Response, Error>> + Send;
}

/// reqwest alone.
pub(crate) struct ReqwestTransport<'a>(pub(crate) &'a reqwest::Client);

impl HttpTransport for ReqwestTransport<'_> {
    async fn send(&mut self, request: Request) -> Result<Response, Error> {
        self.0.execute(request).await.map_err(Error::http)
    }
}

/// A request that can be sent again, with a payment in its header.
pub(super) struct PaidRequest<'e, 'a, T> {
    pub(super) exchange: &'e mut Exchange<'a, T>,
    pub(super) replay: &'e Replay,
}

impl<T: HttpTransport> PaidRequest<'_, '_, T> {
    fn make(&self, payment: &Payment) -> Result<Request, AfterSigning> {
        let unmade = || Error::new(ErrorKind::NotReplayable, "the body could not be made again");
        let mut request = self.replay.make().ok_or_else(unmade)?;
        let (name, value) = payment.header()?;
        let headers = request.headers_mut();
        headers.insert(name, value);
        headers.extend(payment.version_1_header());
        // A shared cache must not give the paid answer to others.
        headers
            .entry(CACHE_CONTROL)
            .or_insert(HeaderValue::from_static("no-store"));
        Ok(request)
    }
}

impl<T: HttpTransport> Transport for PaidRequest<'_, '_, T> {
    type Answer = Response;

    async fn send_payment(&mut self, payment: &Payment) -> Result<Reply<Response>, AfterSigning> {
        let request = self.make(payment)?;
        let settles = payment.time_to_settle();
        let answer = self.exchange.send(request, settles).await?;
        let head = ReplyHead::http(payment.payment(), answer.status(), answer.headers());
        Ok(Reply { head, answer })
    }

    async fn read_body(
        &mut self,
        status: StatusCode,
        answer: Response,
    ) -> Result<ReplyBody<Response>, AfterSigning> {
        if !status.is_client_error() && !status.is_server_error() {
            return Ok(ReplyBody::unread(answer));
        }
        // Few answers are failures, and the calls that wait for an answer stay small.
        Box::pin(self.read_failure(status, answer)).await
    }
}

impl<T: HttpTransport> PaidRequest<'_, '_, T> {
    /// Reads the beginning of the body of a failure, and the terms of a 402.
    async fn read_failure(
        &self,
        status: StatusCode,
        answer: Response,
    ) -> Result<ReplyBody<Response>, AfterSigning> {
        let (enough, soon) = EVIDENCE;
        let mut answer = PartlyRead::new(answer);
        let soon = self.exchange.deadline().at_most(soon);
        // If the body is late or breaks, the caller receives the part that came, and then the fault.
        drop(tokio::time::timeout(soon, answer.read(enough)).await);
        let (digest, words) = (Some(answer.digest()), words(answer.bytes()));
        let answer = answer.into_response()?;
        if status != StatusCode::PAYMENT_REQUIRED {
            return Ok(ReplyBody {
                terms: None,
                digest,
                words,
                answer: Some(answer),
            });
        }
        // A 402 is not for the caller: a client could pay its terms again.
        let terms = match self.exchange.read_challenge(answer).await {
            Ok(Challenge::Required(terms)) => Some(*terms),
            Ok(Challenge::NotX402(_)) | Err(_) => None,
        };
        Ok(ReplyBody {
            terms,
            digest,
            words,
            answer: None,
        })
    }
}
