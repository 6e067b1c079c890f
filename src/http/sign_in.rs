//! The request again with a sign-in, before anything is bought.

use std::time::Duration;

use http::header::CACHE_CONTROL;
use http::{HeaderValue, StatusCode};
use reqwest::{Request, Response};
use url::Url;

use super::challenge::is_cached;
use super::exchange::{Demand, Exchange};
use super::redirect;
use super::replay::Replay;
use super::response::SignedIn;
use super::transport::HttpTransport;
use crate::error::{Error, ErrorKind};
use crate::payment::{Entry, Payer, Payment};
use crate::request::PurchaseRequest;
use crate::sign_in::SIGN_IN_WITH_X;
use crate::x402::PaymentRequired;

/// The outcome of the first step.
pub(super) enum Entered {
    /// The answer to the sign-in. It is for the caller, and nothing was paid.
    Answer(Response),
    Buy(Box<Order>),
}

/// The terms to pay by, the request, and the earlier payment for it if there is one.
pub(super) type Order = (Box<PaymentRequired>, PurchaseRequest, Option<Box<Payment>>);

impl<T: HttpTransport> Exchange<'_, T> {
    /// Returns whether the seller offers a sign-in that this call has not tried. A caller that signs in itself does not want a
    /// second one.
    pub(super) fn may_enter(&self, required: &PaymentRequired, replay: &Replay) -> bool {
        required.offers_sign_in()
            && !self.signed_in
            && !replay.head().headers().contains_key(SIGN_IN_WITH_X)
    }

    /// Signs in, if the policy allows it. A call does so at most once.
    ///
    /// The request with the sign-in goes to the URL that asked for it, and no further: a redirect within the origin is followed
    /// without the header. If the seller still asks for money, the terms are those of its new answer.
    pub(super) async fn enter(
        &mut self,
        payer: &Payer,
        (required, url): (Box<PaymentRequired>, Url),
        request: PurchaseRequest,
        replay: &mut Replay,
    ) -> Result<Entered, Error> {
        self.signed_in = true;
        let buy =
            |required, request, payment| Ok(Entered::Buy(Box::new((required, request, payment))));
        let header = match payer.enter(&required, &request, &url).await? {
            Entry::SignIn(header) => header,
            Entry::Payment(payment) => return buy(required, request, Some(payment)),
            Entry::Buy => return buy(required, request, None),
        };
        let Some(again) = replay.make() else {
            return buy(required, request, None);
        };
        let answer = self.send_signed_in(again, header, replay).await?;
        match self.demand(answer).await? {
            Demand::None(mut answer) => {
                answer.extensions_mut().insert(SignedIn);
                Ok(Entered::Answer(answer))
            }
            Demand::Payment(required, url) if required.offers().is_empty() => {
                let message = format!(
                    "the seller makes no offer, and does not accept the sign-in of {}",
                    payer.address()
                );
                Err(Error::new(ErrorKind::NotPayable, message)
                    .with_status(StatusCode::PAYMENT_REQUIRED)
                    .at(&url))
            }
            Demand::Payment(required, _) => {
                let request = self.replayable(payer, replay, &required).await?;
                buy(required, request, None)
            }
        }
    }

    async fn send_signed_in(
        &mut self,
        mut request: Request,
        header: HeaderValue,
        replay: &mut Replay,
    ) -> Result<Response, Error> {
        let headers = request.headers_mut();
        headers.insert(SIGN_IN_WITH_X, header);
        // A shared cache must not give this buyer's answer to others.
        headers
            .entry(CACHE_CONTROL)
            .or_insert(HeaderValue::from_static("no-store"));
        let answer = self.send(request, Duration::ZERO).await?;
        let answer = match replay.redirected(&answer) {
            None => redirect::refuse_downgrade(&answer).map(|()| answer)?,
            Some((next, following)) => {
                self.admit(&next)?;
                *replay = following;
                Box::pin(self.ask(next, replay)).await?
            }
        };
        // The terms of a 402 that a cache kept may be old.
        match replay.make().filter(|_| is_cached(&answer)) {
            Some(again) => Box::pin(self.ask_fresh(again, replay)).await,
            None => Ok(answer),
        }
    }
}
