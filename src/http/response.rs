//! The payment of a response.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use reqwest::Response;
use serde::de::DeserializeOwned;
use url::Url;

use super::body::broken;
use super::redirect;
use crate::error::{Error, ErrorKind, PaymentStatus};
use crate::money::Usd;
use crate::payment::{PaymentRecord, same_request};
use crate::text::{OwnQuery, excerpt, guarded, quoted, struck};
use crate::x402::{Receipt, SignedPayment};

/// The call by API key that brought a response.
///
/// ```
/// use bursar::ResponseExt;
///
/// fn log(response: &bursar::reqwest::Response) {
///     if let Some(call) = response.api_call() {
///         println!("the key `{}` paid {}", call.credential(), call.cost());
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiCall {
    pub(super) credential: String,
    pub(super) cost: Usd,
}

impl ApiCall {
    /// Returns the name that you gave the [`Credential`](crate::Credential).
    #[must_use]
    pub fn credential(&self) -> &str {
        &self.credential
    }

    /// Returns the declared cost of the call. A call that the seller turned away does not count.
    #[must_use]
    pub const fn cost(&self) -> Usd {
        self.cost
    }
}

/// The mark of a response that a sign-in brought.
#[derive(Clone, Copy, Debug)]
pub(super) struct SignedIn;

/// Puts the payment into the response's extensions.
pub(super) fn attach(mut response: Response, record: PaymentRecord) -> Response {
    response.extensions_mut().insert(record);
    response
}

/// Returns the payment of the response.
pub(crate) fn record(response: &Response) -> Option<&PaymentRecord> {
    response.extensions().get()
}

/// The payment of a [`reqwest::Response`].
///
/// ```
/// use bursar::{PaymentStatus, ResponseExt};
///
/// fn log(response: &bursar::reqwest::Response) {
///     match response.payment_status() {
///         PaymentStatus::NotPaid => println!("free"),
///         PaymentStatus::MaybePaid => println!("signed, and the seller gave no matching receipt"),
///         PaymentStatus::Paid => {
///             if let Some(receipt) = response.receipt() {
///                 println!("paid {} in {}", receipt.amount(), receipt.transaction());
///             }
///         }
///     }
/// }
/// ```
pub trait ResponseExt: sealed::Sealed + Sized {
    /// Returns whether money moved for this response.
    fn payment_status(&self) -> PaymentStatus;

    /// Returns the receipt, if the seller gave one that matches the signed payment.
    fn receipt(&self) -> Option<&Receipt>;

    /// Returns the payment that bursar signed for this response, with or without a receipt.
    fn payment(&self) -> Option<&SignedPayment>;

    /// Returns the call by API key that brought this response, if one did.
    fn api_call(&self) -> Option<&ApiCall>;

    /// Returns whether this is the answer to a sign-in, for which nothing was paid; see
    /// [`Policy::sign_in`](crate::Policy::sign_in).
    fn signed_in(&self) -> bool;

    /// Returns the URL of a redirect that bursar did not follow, because it leads to another origin.
    ///
    /// After a payment, the goods may be there. bursar sends the payment nowhere else. Send a request without
    /// the headers of the first one if you trust the target. The query can hold a secret.
    ///
    /// ```
    /// use bursar::ResponseExt;
    ///
    /// async fn goods(response: bursar::reqwest::Response) -> bursar::reqwest::Result<String> {
    ///     match response.redirect_target() {
    ///         Some(url) => bursar::reqwest::get(url).await?.text().await,
    ///         None => response.text().await,
    ///     }
    /// }
    /// ```
    fn redirect_target(&self) -> Option<Url>;

    /// Returns the URL of [`redirect_target`](Self::redirect_target) for people. The seller wrote it. It does not repeat the
    /// query of the request, and after a call with an API key it has no query at all.
    fn redirect_place(&self) -> Option<String>;

    /// Returns the error of a status of 400 and above, and of a redirect that bursar did not follow. It keeps the payment,
    /// and the seller's words if the seller failed after a payment.
    fn status_error(&self) -> Option<Error>;

    /// Returns the response, or an error for a status of 400 and above, and for a redirect that bursar did not follow.
    ///
    /// Use it in place of [`reqwest::Response::error_for_status`]: this error keeps the payment.
    ///
    /// ```no_run
    /// use bursar::{Client, ResponseExt};
    ///
    /// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let response = client.get("https://api.example.com/report").send().await?;
    /// let text = response.error_for_payment()?.text().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Status`].
    fn error_for_payment(self) -> Result<Self, Error>;

    /// Reads the whole body as text, as [`reqwest::Response::text`] does. The error keeps the payment.
    ///
    /// # Errors
    /// [`ErrorKind::Body`] if the body broke, and [`ErrorKind::Timeout`] if it did not come in time.
    fn read_text(self) -> impl Future<Output = Result<String, Error>> + Send;

    /// Reads the whole body, as [`reqwest::Response::bytes`] does. The error keeps the payment.
    ///
    /// # Errors
    /// As [`read_text`](Self::read_text).
    fn read_bytes(self) -> impl Future<Output = Result<Bytes, Error>> + Send;

    /// Reads the whole body as JSON, as `reqwest::Response::json` does. The error keeps the payment.
    ///
    /// ```no_run
    /// use bursar::{Client, PaymentStatus, ResponseExt};
    ///
    /// # async fn example(client: Client) -> Result<(), bursar::Error> {
    /// let response = client.get("https://api.example.com/report").send().await?;
    /// let report = response.error_for_payment()?.read_json::<Vec<String>>().await;
    /// if let Err(error) = &report && error.payment_status() == PaymentStatus::Paid {
    ///     eprintln!("paid for a report that cannot be read: {error}");
    /// }
    /// # report.map(drop)
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`read_text`](Self::read_text), and [`ErrorKind::Body`] if the body is not the JSON of a `T`.
    fn read_json<T: DeserializeOwned>(self) -> impl Future<Output = Result<T, Error>> + Send;

    /// Reads the next piece of the body, or returns `None` at its end, as [`reqwest::Response::chunk`] does. The error keeps
    /// the payment.
    ///
    /// # Errors
    /// As [`read_text`](Self::read_text).
    fn read_chunk(&mut self) -> impl Future<Output = Result<Option<Bytes>, Error>> + Send;
}

impl ResponseExt for Response {
    fn payment_status(&self) -> PaymentStatus {
        record(self).map_or(PaymentStatus::NotPaid, PaymentRecord::status)
    }

    fn receipt(&self) -> Option<&Receipt> {
        record(self)?.receipt()
    }

    fn payment(&self) -> Option<&SignedPayment> {
        record(self).map(PaymentRecord::payment)
    }

    fn api_call(&self) -> Option<&ApiCall> {
        self.extensions().get()
    }

    fn signed_in(&self) -> bool {
        self.extensions().get::<SignedIn>().is_some()
    }

    fn redirect_target(&self) -> Option<Url> {
        redirect::target(self)
    }

    fn redirect_place(&self) -> Option<String> {
        let mut target = redirect::target(self)?;
        if self.api_call().is_some() {
            target.set_query(None);
        }
        Some(guarded(redirect::own_query(self), || {
            struck(target.as_str()).into_owned()
        }))
    }

    fn status_error(&self) -> Option<Error> {
        let status = self.status();
        let failed = status.is_client_error() || status.is_server_error();
        let advice = redirect::advice(self);
        if !failed && advice.is_none() {
            return None;
        }
        let paid = record(self);
        let words = paid.and_then(PaymentRecord::words);
        let mut message = format!("the answer is {status}");
        if let Some(words) = words {
            message.push_str(": ");
            message.push_str(&quoted(words));
        }
        if let Some(advice) = advice {
            message.push_str(", ");
            message.push_str(&advice);
        }
        let error = Error::new(ErrorKind::Status, message)
            .with_status(status)
            .with_reason(words.map(ToOwned::to_owned));
        Some(match paid {
            Some(record) if failed => record.fail(error.and(&same_request(record.payment()))),
            Some(record) => record.fail(error),
            None => error,
        })
    }

    fn error_for_payment(self) -> Result<Self, Error> {
        match self.status_error() {
            Some(error) => {
                let own = redirect::own_query(&self);
                Err(guarded(own, || error.at(self.url())))
            }
            None => Ok(self),
        }
    }

    async fn read_text(self) -> Result<String, Error> {
        let reading = Reading::of(&self);
        let read = self.text().await;
        read.map_err(|fault| reading.fail(|| broken(fault)))
    }

    async fn read_bytes(self) -> Result<Bytes, Error> {
        let reading = Reading::of(&self);
        let read = self.bytes().await;
        read.map_err(|fault| reading.fail(|| broken(fault)))
    }

    async fn read_json<T: DeserializeOwned>(self) -> Result<T, Error> {
        let reading = Reading::of(&self);
        let body = self.bytes().await;
        let body = body.map_err(|fault| reading.clone().fail(|| broken(fault)))?;
        serde_json::from_slice(&body).map_err(|error| {
            reading.fail(|| {
                // The error can repeat words of the seller.
                let error = excerpt(&error.to_string());
                let message = format!("the body of the answer is not the expected JSON: {error}");
                Error::new(ErrorKind::Body, message)
            })
        })
    }

    async fn read_chunk(&mut self) -> Result<Option<Bytes>, Error> {
        match self.chunk().await {
            Ok(chunk) => Ok(chunk),
            Err(fault) => Err(Reading::of(self).fail(|| broken(fault))),
        }
    }
}

/// The part of a response that an error of its body needs.
#[derive(Clone)]
struct Reading {
    url: Url,
    own: Option<Arc<OwnQuery>>,
    record: Option<PaymentRecord>,
}

impl Reading {
    fn of(response: &Response) -> Self {
        Self {
            url: response.url().clone(),
            own: redirect::own_query(response),
            record: record(response).cloned(),
        }
    }

    fn fail(self, error: impl FnOnce() -> Error) -> Error {
        let error = guarded(self.own, || error().at(&self.url));
        match self.record {
            Some(record) => record.fail(error),
            None => error,
        }
    }
}

mod sealed {
    #[expect(
        unnameable_types,
        reason = "the trait is for reqwest's responses alone"
    )]
    pub trait Sealed {}
    impl Sealed for reqwest::Response {}
}
