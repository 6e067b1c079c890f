//! The registrable domains of the hosts in the file, for limits on a domain.
//!
//! The first look at a domain steps from one host below it to the next in an index. Later looks read only the purchases
//! that changed since, also by other processes.

use std::collections::HashMap;

use super::file::{self, File};
use crate::ledger::LedgerError;
use crate::ledger::sql::hosts;
use crate::ledger::sql::query::Part;
use crate::ledger::sql::row::{Cells, reversed};
use crate::limit::DomainsBelow;

/// The domains below each domain that a limit asked for, as of an event.
#[derive(Debug, Default)]
pub(super) struct Domains {
    below: HashMap<String, DomainsBelow>,
    /// The number of the last event that is in `below`.
    read: u64,
}

impl Domains {
    pub(super) fn len(&self) -> usize {
        self.below.len()
    }
}

/// Returns the other domains of the ledger below this one, or `None` if no host can be below it.
pub(super) fn below(file: File<'_>, domain: &str) -> Result<Option<DomainsBelow>, LedgerError> {
    catch_up(file)?;
    if let Some(known) = file.known.borrow().domains.below.get(domain) {
        return Ok(Some(known.clone()));
    }
    if !DomainsBelow::can_have(domain) {
        return Ok(None);
    }
    let mut found = DomainsBelow::default();
    let held = hosts::hosts_below("purchases INDEXED BY held", Part::Held, domain);
    file::each(file.database, held, |line| {
        found.note(domain, &host(&Cells::of(line)?)?);
        Ok(())
    })?;
    let mut last = None;
    loop {
        let next = hosts::host_after("purchases INDEXED BY by_host", Part::Timed, domain, last);
        let next = file::first(file.database, next, |line| host(&Cells::of(line)?))?;
        let Some(next) = next else { break };
        found.note(domain, &next);
        last = Some(next);
    }
    let mut known = file.known.borrow_mut();
    known.domains.below.insert(domain.to_owned(), found.clone());
    Ok(Some(found))
}

/// Notes the hosts of the purchases that changed since the last look.
fn catch_up(file: File<'_>) -> Result<(), LedgerError> {
    let head = file.head()?.events;
    let mut known = file.known.borrow_mut();
    let Domains { below, read } = &mut known.domains;
    if !below.is_empty() && *read < head {
        file::each(file.database, hosts::hosts_since(*read)?, |line| {
            let host = host(&Cells::of(line)?)?;
            for (domain, known) in below.iter_mut() {
                known.note(domain, &host);
            }
            Ok(())
        })?;
    }
    *read = head;
    Ok(())
}

fn host<R: crate::ledger::sql::Row>(cells: &Cells<'_, R>) -> Result<String, LedgerError> {
    Ok(reversed(&cells.string("host_reversed")?))
}
