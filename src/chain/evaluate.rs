//! The evaluation of the endpoints' reports. It reads no clock and sends nothing.

use super::answer::{Answer, Endpoint, Proof, ProofKind, Reason, Settlement};
use super::endpoint::{Charge, EndpointReport, Gap, Observation, State};
use super::{Question, Rules};
use crate::clock::Timestamp;

/// The time that a block may be ahead of the local clock, in seconds.
const AHEAD: u64 = 900;
/// The time after the expiry of a permit for which bursar waits for endpoints that do not show its charge yet, in seconds.
const PATIENCE: u64 = 3600;

/// An endpoint's report and its observation.
type Seen<'a> = (&'a EndpointReport, &'a Observation);

pub(super) fn evaluate(
    question: &Question,
    reports: &[EndpointReport],
    rules: Rules,
    now: Timestamp,
) -> Answer {
    let seen = observations(reports);
    if let Some((one, other)) = contradiction(&seen) {
        return cannot_tell(Reason::Disagreement(one.to_owned(), other.to_owned()));
    }
    if let Some(settlement) = seen.iter().find_map(settlement) {
        return Answer::Settled(settlement);
    }
    if let Some(answer) = spent(question, reports, &seen, rules, now) {
        return answer;
    }
    not_settled(question, &seen, rules, now).unwrap_or_else(|reason| {
        // Return an endpoint's failure only if no endpoint has an observation.
        let failure = reports
            .iter()
            .find_map(|report| report.observation.as_ref().err());
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

/// Returns all observations. A party can occur twice.
fn observations(reports: &[EndpointReport]) -> Vec<Seen<'_>> {
    let seen = |report: &'_ EndpointReport| report.observation.is_ok();
    let pairs = reports.iter().filter(|report| seen(report));
    pairs
        .filter_map(|report| Some((report, report.observation.as_ref().ok()?)))
        .collect()
}

/// Returns two endpoints that contradict each other.
fn contradiction<'a>(seen: &[Seen<'a>]) -> Option<(&'a str, &'a str)> {
    let pairs = seen.iter().enumerate().flat_map(|(index, one)| {
        let others = seen.iter().skip(index.saturating_add(1));
        others.map(move |other| (one, other))
    });
    let mut wrong =
        pairs.filter(|(one, other)| contradict(one.1, other.1) || contradict(other.1, one.1));
    let (one, other) = wrong.next()?;
    Some((&one.0.host, &other.0.host))
}

/// Returns whether `one` contradicts `other`.
///
/// Final blocks do not change: one number has one block, and a nonce that is used in one block is
/// used in all later ones.
fn contradict(one: &Observation, other: &Observation) -> bool {
    let fork = one.head.number == other.head.number && one.head != other.head;
    let denial = match (&one.state, &other.state) {
        (
            State::Unused,
            State::Settled { block, .. } | State::Canceled { block } | State::Spent { block, .. },
        ) => one.head.number >= *block,
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

fn settlement((report, observation): &Seen<'_>) -> Option<Settlement> {
    match observation.state {
        State::Settled {
            transaction,
            block,
            value,
        } => Some(Settlement {
            transaction: Some(transaction),
            block,
            value,
            host: report.host.clone(),
        }),
        _ => None,
    }
}

/// Returns the answer about a used nonce of Permit2, or `None` if no endpoint reports it as used.
///
/// One endpoint is enough for the settlement, at the signed value. A smaller charge gives room back, so it needs as many
/// parties as a proof that nothing was settled.
fn spent(
    question: &Question,
    reports: &[EndpointReport],
    seen: &[Seen<'_>],
    rules: Rules,
    now: Timestamp,
) -> Option<Answer> {
    let (first, used_by) = seen.iter().find_map(|(report, seen)| match seen.state {
        State::Spent { block, .. } => Some((report, block)),
        _ => None,
    })?;
    let mut known: Vec<&str> = Vec::new();
    let mut later: Vec<&str> = Vec::new();
    let mut settlement = Settlement {
        transaction: None,
        block: used_by,
        value: question.value,
        host: first.host.clone(),
    };
    let mut most = None;
    for report in reports {
        let party = report.party.as_str();
        let parties = match report.observation.as_ref().map(|seen| &seen.state) {
            Ok(State::Spent {
                block,
                charge: Charge::AtMost { transaction, units },
            }) => {
                if most.is_none_or(|most| most < *units) {
                    most = Some(*units);
                    settlement.transaction = Some(*transaction);
                    settlement.block = *block;
                    settlement.value = question.value.min(*units);
                    settlement.host.clone_from(&report.host);
                }
                &mut known
            }
            Ok(State::Spent {
                charge: Charge::Unknown,
                ..
            }) => continue,
            // Its final block is older, or it gave no answer.
            _ => &mut later,
        };
        if !parties.contains(&party) {
            parties.push(party);
        }
    }
    let (found, required) = (known.len(), rules.required_endpoints);
    if found >= required {
        return Some(Answer::Settled(settlement));
    }
    let others = later.iter().filter(|party| !known.contains(party)).count();
    let is_early = now.secs() <= question.valid_before.saturating_add(PATIENCE);
    if question.claimed.is_some() && is_early && found.saturating_add(others) >= required {
        return Some(cannot_tell(Reason::ChargeUnknown { found, required }));
    }
    settlement.transaction = None;
    settlement.value = question.value;
    Some(Answer::Settled(settlement))
}

/// Returns the proof that the payment was not settled, if every observation permits it and enough
/// endpoints confirm it.
fn not_settled(
    question: &Question,
    seen: &[Seen<'_>],
    rules: Rules,
    now: Timestamp,
) -> Result<Answer, Reason> {
    if let Some(gap) = seen
        .iter()
        .find_map(|(_, observation)| gap(&observation.state))
    {
        return Err(gap);
    }
    let canceled = seen
        .iter()
        .any(|(_, observation)| matches!(observation.state, State::Canceled { .. }));
    let kind = if canceled {
        ProofKind::Canceled
    } else {
        ProofKind::Expired
    };
    let mut endpoints: Vec<Endpoint> = Vec::new();
    let mut parties = Vec::new();
    let mut doubt = None;
    for (report, observation) in seen {
        match supports(question, observation, kind, rules, now) {
            Ok(()) if parties.contains(&&report.party) => {}
            Ok(()) => {
                parties.push(&report.party);
                endpoints.push(Endpoint {
                    host: report.host.clone(),
                    head: observation.head,
                });
            }
            Err(reason) => doubt = doubt.or(Some(reason)),
        }
    }
    let (found, required) = (endpoints.len(), rules.required_endpoints);
    if found >= required {
        return Ok(Answer::NotSettled(Proof { kind, endpoints }));
    }
    Err(doubt.unwrap_or(Reason::TooFewEndpoints { found, required }))
}

fn gap(state: &State) -> Option<Reason> {
    let State::Used(gap) = state else {
        return None;
    };
    Some(match gap {
        Gap::NoLog => Reason::UsedUnexplained,
        Gap::OtherTransfer => Reason::OtherTransfer,
        Gap::Reorged => Reason::Reorged,
        Gap::Unsearched(reason) => (**reason).clone(),
    })
}

/// Returns whether an observation confirms a proof of this kind.
fn supports(
    question: &Question,
    observation: &Observation,
    kind: ProofKind,
    rules: Rules,
    now: Timestamp,
) -> Result<(), Reason> {
    let dead = question.valid_before.saturating_add(rules.margin);
    match (kind, &observation.state) {
        (ProofKind::Canceled, State::Canceled { .. }) => Ok(()),
        // The endpoint's final block is older than the cancellation.
        (ProofKind::Canceled, _) => Err(Reason::BlockTooOld),
        (ProofKind::Expired, _)
            if observation.head.timestamp > now.secs().saturating_add(AHEAD) =>
        {
            Err(Reason::BlockOfTheFuture)
        }
        (ProofKind::Expired, _) if observation.head.timestamp > dead => Ok(()),
        (ProofKind::Expired, _) if now.secs() > dead => Err(Reason::BlockTooOld),
        (ProofKind::Expired, _) => Err(Reason::NotExpired),
    }
}
