//! A request to a host that there is a key for: by key, by payment, or by one and then the other.

use std::sync::Arc;

use http::StatusCode;
use reqwest::{Request, Response};
use secrecy::SecretString;

use super::body::Opened;
use super::response::ApiCall;
use super::{Exchange, MAX_HOPS, Priced, Replay, ResponseExt, Transport};
use crate::credential::{Credential, Preference};
use crate::x402::PaymentRequired;
use crate::{Error, ErrorKind, Origin, PaymentStatus, Usd};

impl<W: Transport> Exchange<'_, W> {
    /// The key for the request's origin, unless the caller has put something of its own in its place.
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
            // What may not be paid has the key alone.
            Preference::PayFirst | Preference::Cheapest if self.options.no_payment => {
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
        if self.options.no_payment || !credential.pays_for(answer.status()) {
            return Ok(answer);
        }
        let Some(again) = replay.make() else {
            return Ok(answer);
        };
        let paid = self.by_payment(again, &mut replay).await;
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
            // An answer that was paid for is the answer, whatever it says: it knows what became of the money.
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

    /// By the cheaper of the two, and by the other where that is turned away.
    async fn cheapest(
        &mut self,
        credential: &Credential,
        cost: Usd,
        first: Request,
        replay: Replay,
    ) -> Result<Response, Error> {
        let mut asked = replay.twin();
        let response = self.ask_anew(first, &mut asked).await?;
        let refused = is_closed(response.status());
        let (required, url) = match self.priced(response).await? {
            Priced::Free(answer) if !refused => return Ok(answer),
            Priced::Free(answer) => {
                return match (self.key(credential).await?, replay.make()) {
                    (Some(key), Some(again)) => self.call(credential, &key, again, replay).await,
                    _ => Ok(answer),
                };
            }
            Priced::At(required, url) => (required, url),
        };
        if self.price(&required).is_some_and(|price| price < cost) {
            let paid = self.buy(required, &asked, &url).await;
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
                return self.buy(required, &asked, &url).await;
            };
            let answer = self.call(credential, &key, again, replay).await?;
            if !credential.pays_for(answer.status()) {
                return Ok(answer);
            }
            let paid = self.buy(required, &asked, &url).await;
            either(credential, answer, paid)
        }
    }

    /// The least that the seller asks in dollars, of what can be signed for.
    fn price(&self, required: &PaymentRequired) -> Option<Usd> {
        self.payer?.least_price(required)
    }

    /// The key now, within the time that an answer may take.
    async fn key(&self, credential: &Credential) -> Result<Option<SecretString>, Error> {
        let key = self
            .deadline
            .bound(std::time::Duration::ZERO, credential.key())
            .await;
        key.map_err(|error| match error.kind() {
            ErrorKind::Timeout => Error::new(
                ErrorKind::Timeout,
                format!("the key `{}` did not come in time", credential.name()),
            ),
            _ => error,
        })
    }

    /// What the plan's next call costs.
    async fn cost(&self, credential: &Credential) -> Result<Usd, Error> {
        match self.payer {
            Some(payer) => payer.cost_of_call(credential).await,
            None => Ok(credential.declared_plan().next_call(0)),
        }
    }

    /// Books the call, where there are books, and makes it.
    async fn call(
        &mut self,
        credential: &Credential,
        key: &SecretString,
        first: Request,
        replay: Replay,
    ) -> Result<Response, Error> {
        let booked = match self.payer {
            Some(payer) => {
                let intent = self.intent(&first)?;
                let call = payer.book_call(&intent, credential).await?;
                Some((payer, intent, call))
            }
            None => None,
        };
        let answer = self.send_keyed(credential, key, first, replay).await;
        let uncounted = match &answer {
            Ok(answer) => Credential::is_turned_away(answer.status()),
            // A key that cannot be sent has not left.
            Err(error) => error.kind() == ErrorKind::Credential,
        };
        if let Some((payer, intent, call)) = booked.as_ref().filter(|_| uncounted) {
            payer.unbook_call(intent, call).await;
        }
        let mut answer = answer?;
        let cost = match &booked {
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
                    return if sent == bare {
                        Ok(answer)
                    } else {
                        Opened::new(answer).at(bare).close()
                    };
                }
                Some((next, following)) => {
                    (request, replay) = (next, following);
                    // A seller that keeps the query keeps the key in it.
                    credential.detach(request.url_mut());
                }
            }
        }
        Err(Error::new(
            ErrorKind::Transport,
            format!("more than {MAX_HOPS} redirects"),
        ))
    }
}

/// Whether an answer asks for a key.
const fn is_closed(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

/// Of a key that was turned away and a payment tried in its place, what the caller is told: the
/// payment's answer, unless it brought nothing and moved nothing.
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

/// Whether nothing was paid because it may not or cannot be.
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
