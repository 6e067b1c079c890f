//! The two messages that a payment can consist of.

use alloy::primitives::{Address, B256, U256};

use super::{PermitTransfer, TransferAuthorization};
use crate::money::{Asset, TokenAmount};

/// The message that a signer signs for a payment.
#[derive(Clone, Debug)]
pub(crate) enum Authorization {
    /// A transfer by the token itself (EIP-3009).
    Transfer(TransferAuthorization),
    /// A transfer by Permit2.
    Permit(PermitTransfer),
}

impl Authorization {
    pub(crate) const fn asset(&self) -> &Asset {
        match self {
            Self::Transfer(transfer) => transfer.asset(),
            Self::Permit(permit) => permit.asset(),
        }
    }

    pub(crate) const fn from(&self) -> Address {
        match self {
            Self::Transfer(transfer) => transfer.from(),
            Self::Permit(permit) => permit.from(),
        }
    }

    pub(crate) const fn to(&self) -> Address {
        match self {
            Self::Transfer(transfer) => transfer.to(),
            Self::Permit(permit) => permit.to(),
        }
    }

    const fn value(&self) -> U256 {
        match self {
            Self::Transfer(transfer) => transfer.value(),
            Self::Permit(permit) => permit.value(),
        }
    }

    /// Returns the largest amount that the message can move.
    pub(crate) fn amount(&self) -> TokenAmount {
        TokenAmount::from_units(self.asset().clone(), self.value())
    }

    /// Returns the nonce. The nonce of a permit is the same number as an unsigned integer.
    pub(crate) const fn nonce(&self) -> B256 {
        match self {
            Self::Transfer(transfer) => transfer.nonce(),
            Self::Permit(permit) => B256::new(permit.nonce().to_be_bytes()),
        }
    }

    /// Returns the first second in which the message can no longer be used, in Unix seconds.
    pub(crate) const fn valid_before(&self) -> u64 {
        match self {
            Self::Transfer(transfer) => transfer.valid_before(),
            Self::Permit(permit) => permit.valid_before(),
        }
    }

    pub(crate) fn digest(&self) -> B256 {
        match self {
            Self::Transfer(transfer) => transfer.digest(),
            Self::Permit(permit) => permit.digest(),
        }
    }
}

impl From<TransferAuthorization> for Authorization {
    fn from(transfer: TransferAuthorization) -> Self {
        Self::Transfer(transfer)
    }
}

impl From<PermitTransfer> for Authorization {
    fn from(permit: PermitTransfer) -> Self {
        Self::Permit(permit)
    }
}
