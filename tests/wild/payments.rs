//! Payments that were settled, refused or lost, and are presented again.
