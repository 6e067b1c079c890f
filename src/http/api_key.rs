//! Requests to a host with an API key: by key, by payment, or by one after the other.

use std::pin::pin;
use std::sync::Arc;

use http::StatusCode;
use reqwest::{Request, Response};
use secrecy::{ExposeSecret, SecretString};

use super::body::PartlyRead;
use super::exchange::{Demand, Exchange};
use super::redirect::{self, MAX_HOPS};
use super::replay::Replay;
use super::response::{ApiCall, ResponseExt};
use super::transport::HttpTransport;
use crate::credential::{Credential, Preference};
use crate::error::{Error, ErrorKind, PaymentStatus};
use crate::money::Usd;
use crate::origin::Origin;
use crate::text::guarding_secret;
use crate::x402::PaymentRequired;

impl<T: HttpTransport> Exchange<'_, T> {
    /// Returns the credential for the origin, unless the request has one of its own.
    pub(super) fn credential(&self, request: &Request) -> Option<Arc<Credential>> {
        let keys = self.keys.filter(|keys| !keys.is_empty())?;
        let credential = keys.shared(&Origin::of(request.url())?)?;
        (credential.preference() != Preference::NeverKey && !credential.is_taken(request))
            .then(|| Arc::clone(credential))
    }

    pub(super) async fn by_key_or_payment(
        &mut self,
        credential: &Credential,
        first: Request,
        mut replay: Replay,
    ) -> Result<Response, Error> {
        let preference = match credential.preference() {
            // Without a payment, the key is the only way.
            Preference::PayFirst | Preference::Cheapest if self.no_payment() => {
                Preference::KeyFirst
            }
            preference => preference,
        };
        match preference {
            Preference::NeverKey => self.by_payment(first, &mut replay).await,
            Preference::NeverPay => {
                let key = self
                    .key(credential)
                    .await?
                    .ok_or_else(|| credential.missing().at(first.url()))?;
                self.call(credential, &key, first, replay).await
            }
            Preference::KeyFirst => self.key_first(credential, first, replay).await,
            Preference::PayFirst => self.pay_first(credential, first, replay).await,
            Preference::Cheapest => match self.cost(credential).await? {
                Usd::ZERO => self.key_first(credential, first, replay).await,
                cost => self.cheapest(credential, cost, first, replay).await,
            },
        }
    }

    async fn key_first(
        &mut self,
        credential: &Credential,
        first: Request,
        mut replay: Replay,
    ) -> Result<Response, Error> {
        let Some(key) = self.key(credential).await? else {
            if credential.pays_when_missing() {
                return self.by_payment(first, &mut replay).await;
            }
            return Err(credential.missing().at(first.url()));
        };
        let answer = self.call(credential, &key, first, replay.twin()).await?;
        if self.no_payment() || !credential.pays_for(answer.status()) {
            return Ok(answer);
        }
        let Some(again) = replay.make() else {
            return Ok(answer);
        };
        let paid = Box::pin(self.by_payment(again, &mut replay));
        let paid = guarding_secret(key.expose_secret(), paid).await;
        either(credential, answer, paid)
    }

    async fn pay_first(
        &mut self,
        credential: &Credential,
        first: Request,
        replay: Replay,
    ) -> Result<Response, Error> {
        let paid = self.by_payment(first, &mut replay.twin()).await;
        let refused = match &paid {
            // A paid answer is final, whatever its status.
            Ok(answer) => {
                answer.payment_status() == PaymentStatus::NotPaid && is_closed(answer.status())
            }
            Err(error) => {
                error.payment_status() == PaymentStatus::NotPaid && is_about_money(error.kind())
            }
        };
        if !refused {
            return paid;
        }
        match (self.key(credential).await?, replay.make()) {
            (Some(key), Some(again)) => self.call(credential, &key, again, replay).await,
            _ => paid,
        }
    }

    /// Takes the cheaper way first, and the other one when the seller turns it away.
    async fn cheapest(
        &mut self,
        credential: &Credential,
        cost: Usd,
        first: Request,
        replay: Replay,
    ) -> Result<Response, Error> {
        let mut asked = replay.twin();
        let response = self.ask_fresh(first, &mut asked).await?;
        let refused = is_closed(response.status());
        let (required, url) = match self.demand(response).await? {
            Demand::None(answer) if !refused => return Ok(answer),
            Demand::None(answer) => {
                return match (self.key(credential).await?, replay.make()) {
                    (Some(key), Some(again)) => self.call(credential, &key, again, replay).await,
                    _ => Ok(answer),
                };
            }
            Demand::Payment(required, url) => (required, url),
        };
        if self.price(&required).is_some_and(|price| price < cost) {
            let paid = self.buy(required, &mut asked, url).await;
            let refused = |error: &Error| {
                error.payment_status() == PaymentStatus::NotPaid && is_about_money(error.kind())
            };
            match (paid, replay.make()) {
                (Err(error), Some(again)) if refused(&error) => match self.key(credential).await? {
                    Some(key) => self.call(credential, &key, again, replay).await,
                    None => Err(error),
                },
                (paid, _) => paid,
            }
        } else {
            let (Some(key), Some(again)) = (self.key(credential).await?, replay.make()) else {
                return self.buy(required, &mut asked, url).await;
            };
            let answer = self.call(credential, &key, again, replay).await?;
            if !credential.pays_for(answer.status()) {
                return Ok(answer);
            }
            let paid = Box::pin(self.buy(required, &mut asked, url));
            let paid = guarding_secret(key.expose_secret(), paid).await;
            either(credential, answer, paid)
        }
    }

    /// Returns the seller's lowest price in dollars, among the offers that bursar can sign for.
    fn price(&self, required: &PaymentRequired) -> Option<Usd> {
        self.payer?.least_price(required)
    }

    /// Returns the key, within the time of one answer.
    async fn key(&self, credential: &Credential) -> Result<Option<SecretString>, Error> {
        let key = self
            .deadline()
            .bound(std::time::Duration::ZERO, pin!(credential.key()))
            .await;
        key.map_err(|error| match error.kind() {
            ErrorKind::Timeout => Error::new(
                ErrorKind::Timeout,
                format!("the key `{}` did not come in time", credential.name()),
            ),
            _ => error,
        })
    }

    /// Returns the cost of the next call of the plan.
    async fn cost(&self, credential: &Credential) -> Result<Usd, Error> {
        match self.payer {
            Some(payer) => payer.cost_of_call(credential).await,
            None => Ok(credential.declared_plan().next_call(0)),
        }
    }

    /// Records the call if there is a ledger, and makes it.
    async fn call(
        &mut self,
        credential: &Credential,
        key: &SecretString,
        first: Request,
        replay: Replay,
    ) -> Result<Response, Error> {
        let recorded = match self.payer {
            Some(payer) => {
                let request = self.purchase_request(&first)?;
                let call = payer.record_call(&request, credential).await?;
                Some((payer, request, call))
            }
            None => None,
        };
        let answer = self.send_keyed(credential, key, first, replay).await;
        let uncounted = match &answer {
            Ok(answer) => Credential::is_turned_away(answer.status()),
            // The key cannot be sent, and did not leave.
            Err(error) => error.kind() == ErrorKind::Credential,
        };
        if let Some((payer, request, call)) = recorded.as_ref().filter(|_| uncounted) {
            payer.take_back_call(request, call).await;
        }
        let mut answer = answer?;
        let cost = match &recorded {
            Some((.., call)) => call.cost(),
            None => credential.declared_plan().next_call(0),
        };
        answer.extensions_mut().insert(ApiCall {
            credential: credential.name().to_owned(),
            cost,
        });
        Ok(answer)
    }

    /// Sends the request with the key, through redirects within the origin.
    async fn send_keyed(
        &mut self,
        credential: &Credential,
        key: &SecretString,
        first: Request,
        replay: Replay,
    ) -> Result<Response, Error> {
        let (mut request, mut replay) = (first, replay);
        for _ in 0..MAX_HOPS {
            self.admit(&request)?;
            let bare = request.url().clone();
            credential.attach(key, &mut request)?;
            let sent = request.url().clone();
            let answer = self
                .send(request, std::time::Duration::ZERO)
                .await
                .map_err(|error| error.instead_at(&bare))?;
            match replay.redirected(&answer) {
                None => {
                    redirect::refuse_downgrade(&answer).map_err(|error| error.instead_at(&bare))?;
                    return if sent == bare {
                        Ok(answer)
                    } else {
                        PartlyRead::new(answer).at(bare).into_response()
                    };
                }
                Some((next, following)) => {
                    (request, replay) = (next, following);
                    // A redirect that repeats the query repeats the key in it.
                    credential.detach(request.url_mut());
                }
            }
        }
        Err(redirect::too_many())
    }
}

/// Whether an answer demands a key.
const fn is_closed(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

/// Chooses the answer for the caller after a key that was turned away and a payment in its place: the answer to the
/// payment, unless it failed and moved no money.
fn either(
    credential: &Credential,
    keyed: Response,
    paid: Result<Response, Error>,
) -> Result<Response, Error> {
    match paid {
        Ok(answer)
            if answer.payment_status() == PaymentStatus::NotPaid
                && !answer.status().is_success() =>
        {
            Ok(keyed)
        }
        Err(error) if error.payment_status() == PaymentStatus::NotPaid => {
            Err(error.after(&format!("the key `{}`", credential.name()), keyed.status()))
        }
        paid => paid,
    }
}

/// Whether the payment is forbidden or impossible.
const fn is_about_money(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Denied
            | ErrorKind::NotPayable
            | ErrorKind::NoWallet
            | ErrorKind::NotReplayable
            | ErrorKind::Signer
    )
}
