//! The time that a call may take.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::Instant;
use tokio::time::error::Elapsed;

use crate::error::{Error, ErrorKind};

/// How long an answer may take if the caller sets no bound at all.
///
/// reqwest has no bound, and a model that answers in one piece needs minutes. This bound only ends calls that would never
/// end. The SDKs of model providers have the same one.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);

/// The longest timer that a call waits for at once.
///
/// tokio wakes its driver by a system call for a timer that ends before all others. The call that presents a payment renews its
/// lease as often, so that the timer of neither answer ends before that of the other.
pub(crate) const TIMER: Duration = Duration::from_secs(5);

/// The time that a call may take: a bound for the whole call, and one for each answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    whole: Option<Instant>,
    /// The time of the whole call, for the text of an error.
    limit: Option<Duration>,
    answer: Duration,
}

impl Deadline {
    /// The bounds that hold when a request, its client and bursar's default each name one.
    ///
    /// The request's own time limit is the only bound of its call. A time limit of the client replaces bursar's default for
    /// an answer, and not an answer's bound that the caller has set.
    pub(crate) fn of(
        request: Option<Duration>,
        client: Option<Duration>,
        answer: Option<Duration>,
    ) -> Self {
        match (request, client, answer) {
            (Some(limit), ..) | (None, Some(limit), None) => Self::new(Some(limit), Duration::MAX),
            (None, limit, answer) => Self::new(limit, answer.unwrap_or(ANSWER_TIMEOUT)),
        }
    }

    fn new(whole: Option<Duration>, answer: Duration) -> Self {
        Self {
            whole: whole.and_then(|limit| Instant::now().checked_add(limit)),
            limit: whole,
            answer,
        }
    }

    /// When the whole call must be over.
    pub(crate) const fn end(&self) -> Option<Instant> {
        self.whole
    }

    pub(crate) fn remaining(&self) -> Option<Duration> {
        self.whole
            .map(|end| end.saturating_duration_since(Instant::now()))
    }

    /// The given time, or less if the call ends before.
    pub(crate) fn at_most(&self, limit: Duration) -> Duration {
        self.remaining().map_or(limit, |left| left.min(limit))
    }

    /// The time of one answer and `extra`, and not beyond the end of the call.
    pub(crate) fn answer_limit(&self, extra: Duration) -> Duration {
        self.at_most(self.answer.saturating_add(extra))
    }

    /// Awaits `work` for the time of one answer and `extra`, and not beyond the end of the call. The error of a bound names
    /// its setting.
    pub(crate) async fn bound<T>(
        &self,
        extra: Duration,
        work: Pin<&mut impl Future<Output = Result<T, Error>>>,
    ) -> Result<T, Error> {
        match in_time(self.answer_limit(extra), TIMER, work).await {
            // reqwest has the same end of the call, and may notice it first.
            Ok(Err(error)) if error.is_timeout() && self.is_over() => {
                Err(self.late().because(error))
            }
            Ok(done) => done,
            Err(_) if self.is_over() => Err(self.late()),
            Err(_) => Err(Error::new(
                ErrorKind::Timeout,
                format!(
                    "no answer within {} s; to wait longer, set `answer_timeout`, or the `timeout` of the request",
                    self.answer.saturating_add(extra).as_secs_f32()
                ),
            )),
        }
    }

    fn is_over(&self) -> bool {
        self.remaining().is_some_and(|left| left.is_zero())
    }

    fn late(&self) -> Error {
        let limit = self.limit.unwrap_or_default().as_secs_f32();
        let message = format!("no answer within {limit} s; to wait longer, set `timeout`");
        Error::new(ErrorKind::Timeout, message)
    }
}

/// Awaits `work` for this time, by timers that are at most `longest` long.
async fn in_time<T>(
    limit: Duration,
    longest: Duration,
    mut work: Pin<&mut impl Future<Output = T>>,
) -> Result<T, Elapsed> {
    let end = Instant::now().checked_add(limit);
    loop {
        let left = end.map_or(Duration::MAX, |end| {
            end.saturating_duration_since(Instant::now())
        });
        match tokio::time::timeout(left.min(longest), work.as_mut()).await {
            Err(_) if left > longest => {}
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[test]
    fn the_time_limit_of_a_request_is_its_only_bound_and_that_of_a_client_replaces_the_default() {
        let seconds = Duration::from_secs;
        let some = |limit| Some(seconds(limit));
        for (request, client, answer, bounds) in [
            (None, None, None, (None, ANSWER_TIMEOUT)),
            (None, None, some(5), (None, seconds(5))),
            (None, some(900), None, (some(900), Duration::MAX)),
            (None, some(900), some(5), (some(900), seconds(5))),
            (some(900), some(3), some(5), (some(900), Duration::MAX)),
            (some(1), some(3), some(5), (some(1), Duration::MAX)),
        ] {
            let deadline = Deadline::of(request, client, answer);
            assert_eq!((deadline.limit, deadline.answer), bounds);
        }
    }

    #[tokio::test]
    async fn an_answer_is_awaited_for_its_whole_time_though_the_timers_are_shorter() {
        let timer = Duration::from_millis(2);
        let limit = timer
            .saturating_mul(4)
            .saturating_add(Duration::from_millis(1));
        let start = Instant::now();
        let never = pin!(std::future::pending::<()>());
        assert!(in_time(limit, timer, never).await.is_err());
        assert!(start.elapsed() >= limit);
        for limit in [Duration::from_secs(60), Duration::MAX] {
            let late = pin!(tokio::time::sleep(timer.saturating_mul(3)));
            assert!(in_time(limit, timer, late).await.is_ok());
        }
    }
}
