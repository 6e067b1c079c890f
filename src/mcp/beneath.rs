//! The HTTP requests beneath one call of a tool.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rmcp::model::{ClientJsonRpcMessage, GetExtensions};
use tokio::time::Instant;

use crate::error::{Error, PaymentStatus};
use crate::payment::PaymentRecord;
use crate::policy::PriceCheck;
use crate::request::PurchaseOptions;

/// One call of a tool, as [`HttpClient`](super::HttpClient) sees it: it travels in the extensions of the message, and
/// never over the wire.
#[derive(Clone, Debug)]
pub(super) struct Beneath {
    pub(super) options: PurchaseOptions,
    /// Whether the endpoint is only asked for its price.
    pub(super) quotes: bool,
    /// The end of this attempt at the call.
    pub(super) end: Option<Instant>,
    found: Arc<Mutex<Found>>,
}

/// Everything that the HTTP requests of the call found.
#[derive(Debug, Default)]
struct Found {
    payments: Vec<PaymentRecord>,
    price: Option<Box<PriceCheck>>,
}

impl Beneath {
    pub(super) fn new(options: PurchaseOptions, quotes: bool) -> Self {
        Self {
            options,
            quotes,
            end: None,
            found: Arc::default(),
        }
    }

    /// The same call, for an attempt that ends after this time.
    pub(super) fn ending(&self, limit: Duration) -> Self {
        Self {
            end: Instant::now().checked_add(limit),
            ..self.clone()
        }
    }

    /// The call that a message belongs to.
    pub(super) fn of(message: &ClientJsonRpcMessage) -> Option<Self> {
        match message {
            ClientJsonRpcMessage::Request(request) => request.request.extensions().get().cloned(),
            _ => None,
        }
    }

    fn found<T>(&self, with: impl FnOnce(&mut Found) -> T) -> T {
        with(&mut self.found.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds a payment. Of two answers to one payment, the one with a receipt counts.
    pub(super) fn add(&self, record: PaymentRecord) {
        self.found(|found| {
            let same = |known: &&mut PaymentRecord| known.payment().nonce == record.payment().nonce;
            match found.payments.iter_mut().find(same) {
                Some(known) if known.receipt().is_some() && record.receipt().is_none() => {}
                Some(known) => *known = record,
                None => found.payments.push(record),
            }
        });
    }

    pub(super) fn payments(&self) -> Vec<PaymentRecord> {
        self.found(|found| found.payments.clone())
    }

    pub(super) fn set_price(&self, price: Box<PriceCheck>) {
        self.found(|found| found.price = Some(price));
    }

    pub(super) fn take_price(&self) -> Option<Box<PriceCheck>> {
        self.found(|found| found.price.take())
    }

    /// Attributes an error of the call to the payments, unless it knows of one.
    pub(super) fn fail(&self, error: Error) -> Error {
        if error.payment_status() != PaymentStatus::NotPaid {
            return error;
        }
        let payments = self.payments();
        let settled = payments.iter().find(|record| record.receipt().is_some());
        match settled.or(payments.last()) {
            Some(record) => record.fail(error),
            None => error,
        }
    }
}
