//! The challenges that this process has answered.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use alloy::primitives::{B256, keccak256};
use url::Url;

use super::challenge::{OLDEST, Refusal};
use crate::clock::{CLOCK_BOUND, Timestamp};

/// The most challenges that a process answers within the time for which it remembers them: of one origin, and of all.
const MOST: Most = Most {
    of_one: 16 * 1024,
    of_all: 128 * 1024,
};

struct Most {
    of_one: usize,
    of_all: usize,
}

/// The answered challenges by the hash of their origin: the hash of each nonce, and the time at which the challenge is too
/// old in any case.
type Answered = BTreeMap<B256, BTreeMap<B256, Timestamp>>;

static ANSWERED: Mutex<Answered> = Mutex::new(BTreeMap::new());

/// Notes that this process answers the challenge, before it is signed. Of two calls with one challenge, one answers it.
pub(crate) fn answer_once(
    url: &Url,
    nonce: &str,
    issued_at: Timestamp,
    now: Timestamp,
) -> Result<(), Refusal> {
    let mut answered = ANSWERED.lock().unwrap_or_else(PoisonError::into_inner);
    note(&mut answered, &MOST, (url, nonce), issued_at, now)
}

fn note(
    answered: &mut Answered,
    most: &Most,
    (url, nonce): (&Url, &str),
    issued_at: Timestamp,
    now: Timestamp,
) -> Result<(), Refusal> {
    let origin = keccak256(url.origin().ascii_serialization());
    let nonce = keccak256(nonce);
    let of_one = |answered: &Answered| answered.get(&origin).map_or(0, BTreeMap::len);
    let of_all = |answered: &Answered| answered.values().map(BTreeMap::len).sum::<usize>();
    let is_full = |answered: &Answered| {
        // One origin alone cannot keep bursar from signing in to others.
        of_one(answered) >= most.of_one || of_all(answered) >= most.of_all
    };
    let nonces = answered.get(&origin);
    if nonces.is_some_and(|nonces| nonces.contains_key(&nonce)) {
        return Err(Refusal::Repeated);
    }
    if is_full(answered) {
        answered.retain(|_, nonces| {
            nonces.retain(|_, useless_at| *useless_at > now);
            !nonces.is_empty()
        });
    }
    if is_full(answered) {
        return Err(Refusal::TooMany);
    }
    // The clock can go back by its bound.
    let useless_at = issued_at.max(now).after(OLDEST).after(CLOCK_BOUND);
    answered
        .entry(origin)
        .or_default()
        .insert(nonce, useless_at);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_of_an_origin_is_answered_once() {
        let now = Timestamp::from_secs(1_740_672_094);
        let [a, again, b] = [
            "https://a.example/x",
            "https://a.example/y",
            "https://b.example/x",
        ]
        .map(|url| url.parse::<Url>().unwrap());
        let mut answered = BTreeMap::new();
        let most = Most {
            of_one: 2,
            of_all: 3,
        };
        let mut note =
            |url, nonce, issued_at, now| note(&mut answered, &most, (url, nonce), issued_at, now);
        assert_eq!(note(&a, "first", now, now), Ok(()));
        for url in [&a, &again] {
            assert_eq!(note(url, "first", now, now), Err(Refusal::Repeated));
        }
        assert_eq!(note(&a, "second", now, now), Ok(()));
        assert_eq!(note(&a, "third", now, now), Err(Refusal::TooMany));
        // Another origin has room of its own.
        assert_eq!(note(&b, "first", now, now), Ok(()));
        assert_eq!(note(&b, "second", now, now), Err(Refusal::TooMany));
        let still = now.after(OLDEST);
        assert_eq!(note(&a, "third", still, still), Err(Refusal::TooMany));
        // The first ones are too old to be signed by now.
        let later = now.after(2 * OLDEST);
        assert_eq!(note(&a, "fourth", later, later), Ok(()));
    }
}
