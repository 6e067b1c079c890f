//! The answer, from what the endpoints said. Pure.

use super::answer::{Answer, Grounds, Proof, Reason, Settlement, Witness};
use super::endpoint::{EndpointReport, Gap, Observation, State};
use super::{Question, Rules};
use crate::Timestamp;

/// How far a block's time may be ahead of our clock, in seconds.
const AHEAD: u64 = 900;

/// A witness and what it saw.
type Seen<'a> = (&'a str, &'a Observation);

pub(super) fn judge(
    question: &Question,
    testimonies: &[EndpointReport],
    rules: Rules,
    now: Timestamp,
) -> Answer {
    let seen = sights(testimonies);
    if let Some((one, other)) = contradiction(&seen) {
        return cannot_tell(Reason::Disagreement(one.to_owned(), other.to_owned()));
    }
    if let Some(settlement) = seen.iter().find_map(settlement) {
        return Answer::Settled(settlement);
    }
    not_settled(question, &seen, rules, now).unwrap_or_else(|reason| {
        // What an endpoint could not say is told only when the others said nothing either.
        let failure = testimonies
            .iter()
            .find_map(|testimony| testimony.sight.as_ref().err());
        cannot_tell(if seen.is_empty() {
            failure.cloned().unwrap_or(Reason::NoEndpoint)
        } else {
            reason
        })
    })
}

const fn cannot_tell(reason: Reason) -> Answer {
    Answer::CannotTell { reason }
}

/// All that was seen, of hosts that may come twice.
fn sights(testimonies: &[EndpointReport]) -> Vec<Seen<'_>> {
    let seen = |testimony: &'_ EndpointReport| testimony.sight.is_ok();
    let pairs = testimonies.iter().filter(|testimony| seen(testimony));
    pairs
        .filter_map(|testimony| Some((testimony.host.as_str(), testimony.sight.as_ref().ok()?)))
        .collect()
}

/// Two that cannot both be right.
fn contradiction<'a>(seen: &[Seen<'a>]) -> Option<(&'a str, &'a str)> {
    let pairs = seen.iter().enumerate().flat_map(|(index, one)| {
        let others = seen.iter().skip(index.saturating_add(1));
        others.map(move |other| (one, other))
    });
    let mut wrong =
        pairs.filter(|(one, other)| contradict(one.1, other.1) || contradict(other.1, one.1));
    wrong.next().map(|(one, other)| (one.0, other.0))
}

/// Whether `one` denies what `other` says. Final blocks do not change: of one number there is one,
/// and what is used in one is used in all that follow.
fn contradict(one: &Observation, other: &Observation) -> bool {
    let fork = one.head.number == other.head.number && one.head != other.head;
    let denial = match (one.state, other.state) {
        (State::Unused, State::Settled { block, .. } | State::Canceled { block }) => {
            one.head.number >= block
        }
        (State::Unused, State::Used(_)) => one.head.number >= other.head.number,
        (State::Settled { .. }, State::Canceled { .. }) => true,
        (
            State::Settled { transaction, .. },
            State::Settled {
                transaction: another,
                ..
            },
        ) => transaction != another,
        _ => false,
    };
    fork || denial
}

fn settlement((host, sight): &Seen<'_>) -> Option<Settlement> {
    match sight.state {
        State::Settled {
            transaction,
            block,
            value,
        } => Some(Settlement {
            transaction,
            block,
            value,
            host: (*host).to_owned(),
        }),
        _ => None,
    }
}

/// The proof that it was not settled, if every sight allows it and enough support it.
fn not_settled(
    question: &Question,
    seen: &[Seen<'_>],
    rules: Rules,
    now: Timestamp,
) -> Result<Answer, Reason> {
    if let Some(gap) = seen.iter().find_map(|(_, sight)| gap(sight.state)) {
        return Err(gap);
    }
    let canceled = seen
        .iter()
        .any(|(_, sight)| matches!(sight.state, State::Canceled { .. }));
    let grounds = if canceled {
        Grounds::Canceled
    } else {
        Grounds::Expired
    };
    let mut witnesses: Vec<Witness> = Vec::new();
    let mut doubt = None;
    for (host, sight) in seen {
        match supports(question, sight, grounds, rules, now) {
            Ok(()) if witnesses.iter().any(|witness| witness.host == *host) => {}
            Ok(()) => witnesses.push(Witness {
                host: (*host).to_owned(),
                head: sight.head,
            }),
            Err(reason) => doubt = doubt.or(Some(reason)),
        }
    }
    let (found, required) = (witnesses.len(), rules.witnesses);
    if found >= required {
        return Ok(Answer::NotSettled(Proof { grounds, witnesses }));
    }
    Err(doubt.unwrap_or(Reason::TooFewWitnesses { found, required }))
}

const fn gap(state: State) -> Option<Reason> {
    match state {
        State::Used(Gap::NoLog) => Some(Reason::UsedUnexplained),
        State::Used(Gap::OtherTransfer) => Some(Reason::OtherTransfer),
        State::Used(Gap::Reorged) => Some(Reason::Reorged),
        _ => None,
    }
}

/// Whether a sight is proof by itself, on these grounds.
fn supports(
    question: &Question,
    sight: &Observation,
    grounds: Grounds,
    rules: Rules,
    now: Timestamp,
) -> Result<(), Reason> {
    let dead = question.valid_before.saturating_add(rules.margin);
    match (grounds, sight.state) {
        (Grounds::Canceled, State::Canceled { .. }) => Ok(()),
        // It has not seen the cancellation yet.
        (Grounds::Canceled, _) => Err(Reason::BlockTooOld),
        (Grounds::Expired, _) if sight.head.timestamp > now.secs().saturating_add(AHEAD) => {
            Err(Reason::BlockOfTheFuture)
        }
        (Grounds::Expired, _) if sight.head.timestamp > dead => Ok(()),
        (Grounds::Expired, _) if now.secs() > dead => Err(Reason::BlockTooOld),
        (Grounds::Expired, _) => Err(Reason::NotExpired),
    }
}
