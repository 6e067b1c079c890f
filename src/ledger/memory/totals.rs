//! Running totals: what each limit adds up, kept as entries are written, so that no limit reads the books.
//!
//! A window moves with time: its total is kept with the moment it is of, and moved on by what left it since.
//! So each charge is added once and leaves each window once, whatever the books hold.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use alloy::primitives::U256;

use crate::Timestamp;
use crate::ledger::checks::{Measure, Time};
use crate::ledger::purchase::holds;
use crate::ledger::sum::Sum;
use crate::ledger::{Charge, Purchase, State, Tally};
use crate::origin::HostPattern;
use crate::policy::limit::{Scope, Span};

const BEGINNING: Timestamp = Timestamp::from_millis(i64::MIN);
/// Windows of one total whose sums are kept.
const WINDOWS: usize = 8;
/// Starts so near to each other, in milliseconds, are one window that has moved.
const NEAR: u64 = 60_000;

#[derive(Debug, Default)]
pub(super) struct Totals(Vec<Kind>);

/// Totals of one kind of scope, each scope on its own.
#[derive(Debug)]
struct Kind {
    key: Key,
    totals: HashMap<Scope, Total>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    scopes: Scopes,
    measure: Measure,
    time: Time,
}

/// [`Scope`], less whom it is of. Hosts overlap, so each pattern is a kind of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Scopes {
    Global,
    Origin,
    Resource,
    Host(HostPattern),
    Domain,
    Payee,
    Asset,
    Network,
    Request,
    Tag,
    Agent,
}

#[derive(Debug, Default)]
struct Total {
    by_time: BTreeMap<Timestamp, Sum>,
    ever: Sum,
    windows: RefCell<Vec<Window>>,
}

/// All that is after `start`.
#[derive(Clone, Copy, Debug)]
struct Window {
    start: Timestamp,
    sum: Sum,
}

impl Totals {
    pub(super) const fn adds(entry: &Purchase) -> bool {
        match entry.state {
            State::Signed
            | State::Settled
            | State::Rejected
            | State::Unresolved
            | State::ApiCall => true,
            State::Reserved | State::Voided | State::ReleasedByProof => false,
        }
    }

    /// Begins to keep the total, unless it is kept.
    pub(super) fn keep(&mut self, tally: Tally<'_>, purchases: &[Purchase]) {
        let Some((key, _)) = Key::of(tally) else {
            return;
        };
        if self.0.iter().any(|kind| kind.key == key) {
            return;
        }
        let mut kind = Kind {
            key,
            totals: HashMap::new(),
        };
        purchases.iter().for_each(|entry| kind.change(None, entry));
        self.0.push(kind);
    }

    pub(super) fn change(&mut self, known: Option<&Purchase>, next: &Purchase) {
        if known.is_none_or(|known| changes(known, next)) {
            self.0.iter_mut().for_each(|kind| kind.change(known, next));
        }
    }

    /// Each moment with what is of it, oldest first. `None` for what no total is kept of.
    pub(super) fn by_time(
        &self,
        tally: Tally<'_>,
    ) -> Option<impl Iterator<Item = (Timestamp, U256)>> {
        let (key, start) = Key::of(tally)?;
        let kind = self.0.iter().find(|kind| kind.key == key)?;
        let after = start.map_or(Bound::Unbounded, Bound::Excluded);
        let total = kind.totals.get(tally.scope()).into_iter();
        let moments = total.flat_map(move |total| total.by_time.range((after, Bound::Unbounded)));
        Some(moments.map(|(at, sum)| (*at, sum.amount())))
    }

    pub(super) fn of(&self, tally: Tally<'_>) -> Option<Sum> {
        let (key, start) = Key::of(tally)?;
        let kind = self.0.iter().find(|kind| kind.key == key)?;
        let total = kind.totals.get(tally.scope());
        Some(
            total
                .map(|total| start.map_or(total.ever, |start| total.after(start)))
                .unwrap_or_default(),
        )
    }
}

/// Whether any total could be another with `next`.
fn changes(known: &Purchase, next: &Purchase) -> bool {
    let adds = |entry: &Purchase| Totals::adds(entry).then(|| Charge::of(entry, Span::Ever));
    let scopes = |entry: &Purchase| (entry.payee, entry.reserved_at);
    adds(known) != adds(next)
        || (Totals::adds(next)
            && (scopes(known) != scopes(next) || known.fingerprint != next.fingerprint))
}

impl Key {
    /// And where the window starts. `None` for what is read from the entries that are outstanding.
    fn of(tally: Tally<'_>) -> Option<(Self, Option<Timestamp>)> {
        let (time, start) = match tally.span() {
            Span::Outstanding => return None,
            span => Time::of(span, BEGINNING),
        };
        Some((
            Self {
                scopes: Scopes::of(tally.scope()),
                measure: tally.measure(),
                time,
            },
            start,
        ))
    }
}

impl Scopes {
    fn of(scope: &Scope) -> Self {
        match scope {
            Scope::Global => Self::Global,
            Scope::Origin(_) => Self::Origin,
            Scope::Resource(..) => Self::Resource,
            Scope::Host(pattern) => Self::Host(pattern.clone()),
            Scope::Domain(_) => Self::Domain,
            Scope::Payee(_) => Self::Payee,
            Scope::Asset(..) => Self::Asset,
            Scope::Network(_) => Self::Network,
            Scope::Request(_) => Self::Request,
            Scope::Tag(_) => Self::Tag,
            Scope::Agent(_) => Self::Agent,
        }
    }

    /// The one scope of this kind that holds the entry.
    fn scope_of(&self, entry: &Purchase) -> Option<Scope> {
        Some(match self {
            Self::Global => Scope::Global,
            Self::Origin => Scope::Origin(entry.origin.clone()),
            Self::Resource => Scope::Resource(
                entry.origin.clone(),
                crate::ledger::purchase::without_query(&entry.path).to_owned(),
            ),
            Self::Host(pattern) => {
                let scope = Scope::Host(pattern.clone());
                return holds(&scope, entry).then_some(scope);
            }
            Self::Domain => Scope::Domain(entry.origin.registrable_domain().to_owned()),
            Self::Payee => Scope::Payee(entry.payee),
            Self::Asset => Scope::Asset(entry.network, entry.asset),
            Self::Network => Scope::Network(entry.network),
            Self::Request => Scope::Request(entry.fingerprint),
            Self::Tag => Scope::Tag(entry.tag.clone()?),
            Self::Agent => Scope::Agent(entry.agent.clone()?),
        })
    }
}

impl Kind {
    fn change(&mut self, known: Option<&Purchase>, next: &Purchase) {
        if let Some((scope, at, amount)) = known.and_then(|known| self.charge(known))
            && let Some(total) = self.totals.get_mut(&scope)
        {
            total.change(at, |sum| sum.minus(amount));
        }
        if let Some((scope, at, amount)) = self.charge(next) {
            self.totals
                .entry(scope)
                .or_default()
                .change(at, |sum| sum.plus(amount));
        }
    }

    fn charge(&self, entry: &Purchase) -> Option<(Scope, Timestamp, U256)> {
        if !Totals::adds(entry) {
            return None;
        }
        let amount = self
            .key
            .measure
            .weigh(&Charge::of(entry, Span::Ever))
            .filter(|amount| !amount.is_zero())?;
        Some((
            self.key.scopes.scope_of(entry)?,
            self.key.time.moment(entry),
            amount,
        ))
    }
}

impl Total {
    fn change(&mut self, at: Timestamp, change: impl Fn(Sum) -> Sum) {
        let sum = change(self.by_time.get(&at).copied().unwrap_or_default());
        if sum.is_zero() {
            self.by_time.remove(&at);
        } else {
            self.by_time.insert(at, sum);
        }
        self.ever = change(self.ever);
        for window in self
            .windows
            .get_mut()
            .iter_mut()
            .filter(|window| at > window.start)
        {
            window.sum = change(window.sum);
        }
    }

    fn after(&self, start: Timestamp) -> Sum {
        if self
            .by_time
            .first_key_value()
            .is_none_or(|(first, _)| *first > start)
        {
            return self.ever;
        }
        let mut windows = self.windows.borrow_mut();
        let distance = |window: &Window| window.start.millis().abs_diff(start.millis());
        let nearest = windows
            .iter()
            .enumerate()
            .min_by_key(|(_, window)| distance(window));
        let moved = match nearest {
            Some((_, window)) => window.moved(start, &self.by_time),
            None => Window {
                start: BEGINNING,
                sum: self.ever,
            }
            .moved(start, &self.by_time),
        };
        let taken = nearest
            .filter(|(_, window)| distance(window) <= NEAR)
            .map(|(place, _)| place);
        let last = nearest
            .map(|(place, _)| place)
            .filter(|_| windows.len() == WINDOWS);
        match taken.or(last).and_then(|place| windows.get_mut(place)) {
            Some(window) => *window = moved,
            None => windows.push(moved),
        }
        moved.sum
    }
}

impl Window {
    fn moved(self, start: Timestamp, by_time: &BTreeMap<Timestamp, Sum>) -> Self {
        let between = |from, to| {
            let charges = by_time.range((Bound::Excluded(from), Bound::Included(to)));
            charges.fold(Sum::default(), |all, (_, sum)| all.plus(*sum))
        };
        let sum = match start.cmp(&self.start) {
            Ordering::Greater => self.sum.minus(between(self.start, start)),
            Ordering::Less => self.sum.plus(between(start, self.start)),
            Ordering::Equal => self.sum,
        };
        Self { start, sum }
    }
}
