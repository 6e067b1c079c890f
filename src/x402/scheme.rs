//! Schemes, and the ways in which they move a token.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::money::TransferMethod;
use crate::text;

/// A scheme of x402 that bursar pays by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Scheme {
    /// The seller settles exactly the signed amount.
    Exact,
    /// The seller settles at most the signed amount, which is a ceiling.
    Upto,
}

impl Scheme {
    /// Every scheme.
    pub const ALL: [Self; 2] = [Self::Exact, Self::Upto];

    /// Returns the name, as sellers and policies write it: `exact` or `upto`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Upto => "upto",
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The scheme and the transfer method of a payment: the message that was signed.
///
/// ```
/// use bursar::money::TransferMethod;
/// use bursar::x402::{PaymentMethod, Scheme};
///
/// assert_eq!(PaymentMethod::Upto.scheme(), Scheme::Upto);
/// assert_eq!(PaymentMethod::Upto.transfer_method(), TransferMethod::Permit2);
/// assert_eq!(PaymentMethod::Eip3009.to_string(), "eip3009");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum PaymentMethod {
    /// `exact` by the token's own `transferWithAuthorization` (EIP-3009).
    Eip3009,
    /// `exact` by Permit2.
    Permit2,
    /// `upto`, which is always by Permit2.
    Upto,
}

impl PaymentMethod {
    /// Every method, the preferred one first.
    pub const ALL: [Self; 3] = [Self::Eip3009, Self::Permit2, Self::Upto];

    /// Returns the stable name: `eip3009`, `permit2` or `upto`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Eip3009 => "eip3009",
            Self::Permit2 => "permit2",
            Self::Upto => "upto",
        }
    }

    /// Returns the scheme.
    #[must_use]
    pub const fn scheme(self) -> Scheme {
        match self {
            Self::Eip3009 | Self::Permit2 => Scheme::Exact,
            Self::Upto => Scheme::Upto,
        }
    }

    /// Returns the contract that moves the token.
    #[must_use]
    pub const fn transfer_method(self) -> TransferMethod {
        match self {
            Self::Eip3009 => TransferMethod::Eip3009,
            Self::Permit2 | Self::Upto => TransferMethod::Permit2,
        }
    }

    /// Returns whether two authorizations with the same nonce exclude each other, one by each method.
    ///
    /// The token keeps the nonces of EIP-3009. Permit2 keeps its own, for both schemes.
    pub(crate) fn shares_nonces(self, other: Self) -> bool {
        self.transfer_method() == other.transfer_method()
    }
}

impl fmt::Display for PaymentMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for PaymentMethod {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// The error of a text that is no [`PaymentMethod`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a payment method; expected `eip3009`, `permit2` or `upto`")]
pub struct ParsePaymentMethodError(String);

impl FromStr for PaymentMethod {
    type Err = ParsePaymentMethodError;

    fn from_str(text: &str) -> Result<Self, ParsePaymentMethodError> {
        Self::ALL
            .into_iter()
            .find(|method| method.name() == text)
            .ok_or_else(|| ParsePaymentMethodError(text::excerpt(text)))
    }
}
