//! The challenges that this process has answered.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use alloy::primitives::{B256, keccak256};
use url::Url;

use super::challenge::{OLDEST, Refusal};
use crate::clock::{CLOCK_BOUND, Timestamp};

/// The most challenges that a process answers within the time for which it remembers them.
const MOST: usize = 16 * 1024;

/// The hash of the origin and the nonce of each challenge, and the time at which the challenge is too old in any case.
static ANSWERED: Mutex<BTreeMap<B256, Timestamp>> = Mutex::new(BTreeMap::new());

/// Notes that this process answers the challenge, before it is signed. Of two calls with one challenge, one answers it.
pub(crate) fn answer_once(
    url: &Url,
    nonce: &str,
    issued_at: Timestamp,
    now: Timestamp,
) -> Result<(), Refusal> {
    let mut answered = ANSWERED.lock().unwrap_or_else(PoisonError::into_inner);
    note(&mut answered, MOST, (url, nonce), issued_at, now)
}

fn note(
    answered: &mut BTreeMap<B256, Timestamp>,
    most: usize,
    (url, nonce): (&Url, &str),
    issued_at: Timestamp,
    now: Timestamp,
) -> Result<(), Refusal> {
    let origin = url.origin().ascii_serialization();
    let key = keccak256(format!("{origin} {nonce}"));
    if answered.contains_key(&key) {
        return Err(Refusal::Repeated);
    }
    if answered.len() >= most {
        answered.retain(|_, useless_at| *useless_at > now);
    }
    if answered.len() >= most {
        return Err(Refusal::TooMany);
    }
    // The clock can go back by its bound.
    answered.insert(key, issued_at.max(now).after(OLDEST).after(CLOCK_BOUND));
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
        let mut note =
            |url, nonce, issued_at, now| note(&mut answered, 3, (url, nonce), issued_at, now);
        assert_eq!(note(&a, "first", now, now), Ok(()));
        for url in [&a, &again] {
            assert_eq!(note(url, "first", now, now), Err(Refusal::Repeated));
        }
        assert_eq!(note(&b, "first", now, now), Ok(()));
        assert_eq!(note(&a, "second", now, now), Ok(()));
        assert_eq!(note(&a, "third", now, now), Err(Refusal::TooMany));
        let still = now.after(OLDEST);
        assert_eq!(note(&a, "third", still, still), Err(Refusal::TooMany));
        // The first ones are too old to be signed by now.
        let later = now.after(2 * OLDEST);
        assert_eq!(note(&a, "fourth", later, later), Ok(()));
    }
}
