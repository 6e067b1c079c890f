//! Redirects before and after a payment.
