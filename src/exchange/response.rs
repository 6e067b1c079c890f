//! What a response tells about money.

use reqwest::Response;

use crate::payer::{Outcome, Payment};
use crate::x402::{Receipt, SignedPayment};
use crate::{Error, ErrorKind, PaymentStatus, Usd};

/// The key that brought a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiCall {
    pub(super) credential: String,
    pub(super) cost: Usd,
}

impl ApiCall {
    /// The key's name, as [`Credential`](crate::Credential) was given it.
    #[must_use]
    pub fn credential(&self) -> &str {
        &self.credential
    }

    /// What the call is declared to cost. One that was turned away is not counted.
    #[must_use]
    pub const fn cost(&self) -> Usd {
        self.cost
    }
}

/// The payment that belongs to a response; kept in its extensions.
#[derive(Clone, Debug)]
pub(crate) struct Settlement {
    paid: SignedPayment,
    receipt: Option<Box<Receipt>>,
}

impl Settlement {
    pub(crate) fn attach(mut response: Response, payment: &Payment, outcome: Outcome) -> Response {
        let receipt = match outcome {
            Outcome::Settled(receipt) => Some(receipt),
            Outcome::Refused { .. } | Outcome::Unresolved { .. } => None,
        };
        response.extensions_mut().insert(Self {
            paid: payment.payment().clone(),
            receipt,
        });
        response
    }

    fn of(response: &Response) -> Option<&Self> {
        response.extensions().get()
    }
}

/// What a [`reqwest::Response`] tells about money.
///
/// ```
/// use bursar::{ResponseExt, PaymentStatus};
///
/// fn tell(response: &reqwest::Response) {
///     match response.payment_status() {
///         PaymentStatus::NotPaid => println!("free"),
///         PaymentStatus::MaybePaid => println!("paid, but the seller gave no receipt that matches"),
///         PaymentStatus::Paid => println!("paid in {}", response.receipt().unwrap().transaction()),
///     }
/// }
/// ```
pub trait ResponseExt: sealed::Sealed + Sized {
    /// The receipt, if the seller gave one that matches what was signed.
    fn receipt(&self) -> Option<&Receipt>;

    /// What was signed for this response, with or without a receipt.
    fn payment(&self) -> Option<&SignedPayment>;

    /// The API key that brought it, if one did.
    fn api_call(&self) -> Option<&ApiCall>;

    /// What became of the money.
    fn payment_status(&self) -> PaymentStatus;

    /// The response, or an error for a status of 400 and above: like
    /// [`reqwest::Response::error_for_status`], and the error knows what was spent.
    ///
    /// # Errors
    /// [`ErrorKind::Status`].
    fn error_for_payment(self) -> Result<Self, Error>;
}

impl ResponseExt for Response {
    fn receipt(&self) -> Option<&Receipt> {
        Settlement::of(self)?.receipt.as_deref()
    }

    fn api_call(&self) -> Option<&ApiCall> {
        self.extensions().get()
    }

    fn payment(&self) -> Option<&SignedPayment> {
        Settlement::of(self).map(|settlement| &settlement.paid)
    }

    fn payment_status(&self) -> PaymentStatus {
        match Settlement::of(self) {
            None => PaymentStatus::NotPaid,
            Some(Settlement { receipt: None, .. }) => PaymentStatus::MaybePaid,
            Some(Settlement {
                receipt: Some(_), ..
            }) => PaymentStatus::Paid,
        }
    }

    fn error_for_payment(self) -> Result<Self, Error> {
        let status = self.status();
        if !status.is_client_error() && !status.is_server_error() {
            return Ok(self);
        }
        let mut error = Error::new(ErrorKind::Status, format!("the answer is {status}"))
            .with_status(status)
            .spent(self.payment_status())
            .at(self.url());
        if let Some(paid) = self.payment() {
            error = error.of_payment(paid);
        }
        match self.receipt() {
            Some(receipt) => Err(error.with_receipt(receipt.clone())),
            None => Err(error),
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
