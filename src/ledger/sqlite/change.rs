//! The changes of a file, each within a transaction that has the write lock.

use rusqlite::Connection;

use super::file::{self, File};
use super::view::View;
use crate::clock::Timestamp;
use crate::ledger::denials::DenialCount;
use crate::ledger::one_step::Step;
use crate::ledger::sql::denials as counts;
use crate::ledger::sql::query;
use crate::ledger::sql::scope::of_check;
use crate::ledger::{
    LedgerError, Obtained, Plan, Purchase, PurchaseKey, Reservation, Reserved, Resumed, Resumption,
    SignsInStep, Transition,
};
use crate::limit::LimitCheck;

/// A purchase that every limit allowed, before it is written.
struct Allowed {
    purchase: Box<Purchase>,
    stored: Option<Purchase>,
    /// Holds of others that lapsed.
    lapsed: Vec<Purchase>,
}

/// Looks the purchase up and checks every limit. Writes nothing.
///
/// The transaction takes the write lock before it reads, so no other hold is written between the
/// checks and this one.
fn allow(
    file: File<'_>,
    reservation: &Reservation,
) -> Result<Result<Allowed, Reserved>, LedgerError> {
    let known = file::read(file.database, query::with_id(&reservation.purchase.id))?;
    let (stored, plan) = reservation.plan(known);
    let mut purchase = match plan {
        Plan::Hold(purchase) => purchase,
        Plan::Answer(answer) => return Ok(Err(answer)),
    };
    prepare(file, &reservation.checks)?;
    let view = View::new(file, reservation.checks.now(), stored.as_ref())?;
    if let Some(denial) = reservation.checks.deny(&view)? {
        return Ok(Err(Reserved::Denied(Box::new(denial))));
    }
    let lapsed = view.into_lapsed();
    purchase.seq = match &stored {
        Some(stored) => stored.seq,
        None => file.next_seq()?,
    };
    Ok(Ok(Allowed {
        purchase,
        stored,
        lapsed,
    }))
}

/// Writes a purchase that was allowed, after the holds of others that lapsed.
fn hold(
    file: File<'_>,
    reservation: &Reservation,
    (stored, lapsed): (Option<&Purchase>, &[Purchase]),
    purchase: &Purchase,
) -> Result<(), LedgerError> {
    for lapsed in lapsed {
        if let Some(voided) = reservation.lapse(lapsed) {
            file.write(&voided, Some(lapsed))?;
        }
    }
    file.write(purchase, stored)?;
    reservation.note_held(purchase);
    Ok(())
}

pub(super) fn reserve(file: File<'_>, reservation: &Reservation) -> Result<Reserved, LedgerError> {
    let Allowed {
        purchase,
        stored,
        lapsed,
    } = match allow(file, reservation)? {
        Ok(allowed) => allowed,
        Err(answer) => return Ok(answer),
    };
    hold(file, reservation, (stored.as_ref(), &lapsed), &purchase)?;
    Ok(Reserved::Held(purchase))
}

/// As [`reserve`], and signs before it writes. The caller gets the signature after the commit.
pub(super) fn buy(
    file: File<'_>,
    reservation: &Reservation,
    signer: &dyn SignsInStep,
) -> Result<Obtained, LedgerError> {
    let Allowed {
        purchase,
        stored,
        lapsed,
    } = match allow(file, reservation)? {
        Ok(allowed) => allowed,
        Err(answer) => return Ok(Obtained::NotHeld(answer)),
    };
    let before = (stored.as_ref(), lapsed.as_slice());
    match Step::sign(purchase, signer)? {
        Step::Signed(signed) => {
            hold(file, reservation, before, &signed.purchase)?;
            Ok(Obtained::Signed(signed))
        }
        Step::Held(held) => {
            hold(file, reservation, before, &held)?;
            Ok(Obtained::Unsigned(held))
        }
        Step::Abandoned => Ok(Obtained::Abandoned),
    }
}

pub(super) fn record(
    file: File<'_>,
    purchase: &PurchaseKey,
    transition: &Transition,
    now: Timestamp,
) -> Result<(), LedgerError> {
    let stored = file
        .find(purchase)?
        .ok_or_else(|| LedgerError::UnknownPurchase(purchase.id.clone()))?;
    let mut next = stored.clone();
    next.apply(transition, now)?;
    if stored.is_void() && !next.is_void() {
        // It counts again. A power cut must not lose that.
        file.known.borrow_mut().require_sync();
    }
    file.write(&next, Some(&stored))
}

pub(super) fn resume(file: File<'_>, wanted: &Resumption) -> Result<Resumed, LedgerError> {
    let found = resumable(file.database, wanted)?;
    let Resumed::Again(stored) = found else {
        return Ok(found);
    };
    let resumed = wanted.leased(&stored);
    file.write(&resumed, Some(&stored))?;
    Ok(Resumed::Again(Box::new(resumed)))
}

/// Chooses among the stored purchases of the same request.
pub(super) fn resumable(
    connection: &Connection,
    wanted: &Resumption,
) -> Result<Resumed, LedgerError> {
    let candidates = query::undelivered("purchases INDEXED BY undelivered", wanted);
    Ok(wanted.choose(file::read(connection, candidates)?))
}

pub(super) fn count(file: File<'_>, denials: &[DenialCount]) -> Result<(), LedgerError> {
    let mut denials = denials.iter();
    denials.try_for_each(|more| file::execute(file.database, counts::add(more)?))
}

/// Creates the indices that the checks need, unless the file has them.
pub(super) fn prepare(file: File<'_>, checks: &LimitCheck) -> Result<(), LedgerError> {
    of_check(checks).try_for_each(|name| file.ensure_index(name))
}
