//! Warnings before a limit has no room.

use super::Payer;
use crate::ledger::Reservation;
use crate::money::TokenAmount;
use crate::request::PurchaseRequest;
use crate::telemetry::{Event, EventKind};

impl Payer {
    /// Emits an event for each limit that the reservation took past a share. The ledger has made it.
    pub(super) fn warn_of_limits(
        &self,
        request: &PurchaseRequest,
        reservation: &Reservation,
        amount: &TokenAmount,
    ) {
        for (share, status) in self.inner.ledger.warnings(reservation) {
            let kind = EventKind::LimitWarning { share };
            let warning = self.event(kind, request);
            self.emit(&Event {
                purchase: Some(&reservation.purchase.id),
                amount: Some(amount),
                limit: Some(&status),
                ..warning
            });
        }
    }
}
