//! The headers of x402, written out here so that the paywall does not share the client's mistakes.

use http::HeaderName;

/// The response header that carries version 2's terms.
pub(crate) const PAYMENT_REQUIRED: HeaderName = HeaderName::from_static("payment-required");
/// The request header that carries version 2's payment.
pub(crate) const PAYMENT_SIGNATURE: HeaderName = HeaderName::from_static("payment-signature");
/// The request header that carries version 1's payment.
pub(crate) const X_PAYMENT: HeaderName = HeaderName::from_static("x-payment");
/// The response headers that carry a receipt: version 2's, and version 1's.
pub(crate) const RECEIPTS: [HeaderName; 2] = [
    HeaderName::from_static("payment-response"),
    HeaderName::from_static("x-payment-response"),
];
