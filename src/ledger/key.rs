//! The full name of a purchase.

use alloy::primitives::Address;

use crate::eip3009::PurchaseId;

/// The full name of a purchase in a ledger: the payer and the id.
///
/// An id is bought once, whatever payer signs: while the purchase of one payer counts, another payer
/// that shares the ledger cannot buy under its id. After a purchase was voided or released, it can.
///
/// ```
/// use bursar::Address;
/// use bursar::ledger::PurchaseKey;
///
/// let payer = Address::repeat_byte(0xAB);
/// let key = PurchaseKey::new(payer, "order-1".parse()?);
/// assert_eq!((key.payer, key.id.as_str()), (payer, "order-1"));
/// # Ok::<(), bursar::ledger::PurchaseIdError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PurchaseKey {
    /// The address that pays.
    pub payer: Address,
    /// The id.
    pub id: PurchaseId,
}

impl PurchaseKey {
    /// Returns the key of the purchase `id` of `payer`.
    #[must_use]
    pub const fn new(payer: Address, id: PurchaseId) -> Self {
        Self { payer, id }
    }
}
