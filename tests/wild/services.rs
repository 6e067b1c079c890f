//! Networks, tokens, and lists of services.
