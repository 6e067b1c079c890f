//! The time that a call may take.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, ErrorKind};

/// How long an answer may take if the caller sets no bound at all.
///
/// reqwest has no bound, and a model that answers in one piece needs minutes. This bound only ends calls that would never
/// end. The SDKs of model providers have the same one.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);

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
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(self.answer_limit(extra), work).await {
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

#[cfg(test)]
mod tests {
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
}
