//! How often a signed payment is sent while its outcome is uncertain.

use std::time::Duration;

/// How often bursar sends a signed payment in one call, and how long it waits in between.
///
/// bursar sends the same payment again, byte for byte, while the answer leaves open whether the seller
/// settled it: after a timeout or a broken connection, after a status of 5xx, 408, 425 or 429 without
/// a matching receipt, and after a settlement that the seller calls pending. Every attempt carries the
/// same authorization, so at most one of them can settle.
///
/// bursar stops earlier when the authorization has expired, when the time for the call is up, when
/// paying is frozen, or when the seller sends a `Retry-After` of more than 10 seconds.
///
/// ```
/// use std::time::Duration;
/// use bursar::{Client, RetryPolicy};
///
/// let client = Client::builder()
///     .retry_policy(RetryPolicy { attempts: 5, initial_backoff: Duration::from_millis(100) })
///     .build()?;
/// # Ok::<(), bursar::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a caller writes it as a literal")]
pub struct RetryPolicy {
    /// The most times that one call sends the payment, the first included. The default is 3.
    pub attempts: u32,
    /// The longest wait before the second attempt. Each further wait is four times as long, and each is
    /// shortened at random by up to a half. The default is 250 milliseconds.
    pub initial_backoff: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 3,
            initial_backoff: Duration::from_millis(250),
        }
    }
}

impl RetryPolicy {
    /// Returns a policy that sends a payment once. An uncertain outcome then stays unresolved until the
    /// next identical request presents the payment again, or the chain is asked.
    #[must_use]
    pub const fn once() -> Self {
        Self {
            attempts: 1,
            initial_backoff: Duration::ZERO,
        }
    }

    /// Returns the wait after the given number of attempts, or `None` when no attempt is left.
    ///
    /// The wait is random between half of its length and all of it, so that clients that failed together
    /// do not come back together.
    pub(crate) fn backoff(self, attempts: u32) -> Option<Duration> {
        if attempts >= self.attempts {
            return None;
        }
        let longest = self
            .initial_backoff
            .saturating_mul(4_u32.saturating_pow(attempts.saturating_sub(1)));
        let mut random = [0_u8];
        let [random] = match getrandom::fill(&mut random) {
            Ok(()) => random,
            // Without randomness the wait is as long as it can be.
            Err(_) => [u8::MAX],
        };
        let share = 256_u32.saturating_add(u32::from(random));
        let wait = longest.saturating_mul(share).checked_div(512);
        Some(wait.unwrap_or(longest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wait_is_four_times_as_long_and_the_last_attempt_has_none() {
        let policy = RetryPolicy {
            attempts: 3,
            initial_backoff: Duration::from_millis(100),
        };
        let first = policy.backoff(1).unwrap();
        assert!(
            (Duration::from_millis(50)..=Duration::from_millis(100)).contains(&first),
            "{first:?}"
        );
        let second = policy.backoff(2).unwrap();
        assert!(
            (Duration::from_millis(200)..=Duration::from_millis(400)).contains(&second),
            "{second:?}"
        );
        assert_eq!(policy.backoff(3), None);
        assert_eq!(RetryPolicy::once().backoff(1), None);
    }
}
