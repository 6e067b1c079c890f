//! Policies in TOML.
