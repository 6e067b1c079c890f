//! Slow sellers, and the caller's own timeout.
