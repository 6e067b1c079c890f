//! The time that a call may take.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, ErrorKind};

/// The time that a call may take: a bound for the whole call, and one for each answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    whole: Option<Instant>,
    answer: Duration,
}

impl Deadline {
    pub(crate) fn new(whole: Option<Duration>, answer: Duration) -> Self {
        Self {
            whole: whole.and_then(|limit| Instant::now().checked_add(limit)),
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

    /// Awaits `work` for the time of one answer and `extra`, and not beyond the end of the call.
    pub(crate) async fn bound<T>(
        &self,
        extra: Duration,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let limit = self.at_most(self.answer.saturating_add(extra));
        let late = || {
            Error::new(
                ErrorKind::Timeout,
                format!("no answer within {} s", limit.as_secs_f32()),
            )
        };
        tokio::time::timeout(limit, work)
            .await
            .unwrap_or_else(|_| Err(late()))
    }
}
