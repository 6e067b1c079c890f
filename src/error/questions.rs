//! The questions that `reqwest::Error` answers, too.

use std::error::Error as StdError;

use super::{Error, ErrorKind};

impl Error {
    /// Returns whether the kind is [`ErrorKind::Denied`].
    #[must_use]
    pub fn is_denied(&self) -> bool {
        self.kind() == ErrorKind::Denied
    }

    /// Returns whether the kind is [`ErrorKind::Timeout`].
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.kind() == ErrorKind::Timeout
    }

    /// Returns whether no connection was made, as [`reqwest::Error::is_connect`] does: the name has no address, the server
    /// refused the connection, TLS failed, or the `connect_timeout` passed.
    ///
    /// Money may have moved all the same, if an earlier connection of the call carried the payment: ask
    /// [`payment_status`](Self::payment_status). Beneath a [`PaymentLayer`](crate::tower::PaymentLayer), only services of
    /// reqwest are known to have failed in this way.
    ///
    /// ```
    /// use bursar::Error;
    ///
    /// fn may_help_to_repeat(error: &Error) -> bool {
    ///     error.is_timeout() || error.is_connect()
    /// }
    /// # let _ = may_help_to_repeat;
    /// ```
    #[must_use]
    pub fn is_connect(&self) -> bool {
        self.is_of_network() && self.http_failure().is_some_and(reqwest::Error::is_connect)
    }

    /// Returns whether the request was not answered, as [`reqwest::Error::is_request`] does: no connection was made, it
    /// broke, or the time was up.
    #[must_use]
    pub fn is_request(&self) -> bool {
        self.is_of_network() && !self.is_decode()
    }

    /// Returns whether the body of the answer broke, did not come in time, or is not the expected JSON, as
    /// [`reqwest::Error::is_decode`] does.
    #[must_use]
    pub fn is_decode(&self) -> bool {
        let of_body = |failure: &reqwest::Error| failure.is_decode() || failure.is_body();
        self.kind() == ErrorKind::Body
            || self.is_timeout() && self.http_failure().is_some_and(of_body)
    }

    /// Returns whether the kind is [`ErrorKind::Status`].
    #[must_use]
    pub fn is_status(&self) -> bool {
        self.kind() == ErrorKind::Status
    }

    /// Returns whether the kind is [`ErrorKind::Builder`].
    #[must_use]
    pub fn is_builder(&self) -> bool {
        self.kind() == ErrorKind::Builder
    }

    fn is_of_network(&self) -> bool {
        matches!(self.kind(), ErrorKind::Transport | ErrorKind::Timeout)
    }

    /// Returns the error of the HTTP client, if it is the reason.
    fn http_failure(&self) -> Option<&reqwest::Error> {
        std::iter::successors(StdError::source(self), |error| StdError::source(*error))
            .find_map(|error| error.downcast_ref())
    }
}
