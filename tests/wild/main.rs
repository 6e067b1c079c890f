//! Sellers and hosts as public reports describe them: each test repeats one report with its smallest input.
//!
//! `tests/wild/README.md` maps each report to its tests.

mod payments;
mod redirects;
mod services;
mod terms;
mod time;
#[cfg(feature = "mcp")]
mod tool_calls;
mod words;
