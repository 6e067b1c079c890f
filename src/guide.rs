//! The guide: short chapters, to be read from front to back.
//!
//! | | Chapter | Read it to |
//! |---|---|---|
//! | 1 | [From nothing to the first payment](chapter_01_first_payment) | make a first purchase on your own machine, then with test money |
//! | 2 | [One purchase, step by step](chapter_02_one_purchase) | understand each step between the request and the receipt |
//! | 3 | [Errors](chapter_03_errors) | know after each error whether money may have moved |
//! | 4 | [Policies](chapter_04_policies) | set limits, lists, approvals and permissions |
//! | 5 | [Signers and keys](chapter_05_signers) | choose the place that holds the private key |
//! | 6 | [Ledgers and teams](chapter_06_ledgers) | keep purchases, and share one budget among many programs |
//! | 7 | [Many calls at once](chapter_07_concurrency) | send hundreds of paid requests together |
//! | 8 | [Retries and lost answers](chapter_08_retries) | pay once, however often a request is repeated |
//! | 9 | [Testing an agent](chapter_09_testing) | test your program against honest and hostile sellers |
//! | 10 | [Existing reqwest code](chapter_10_reqwest) | add payments to code that uses reqwest |
//! | 11 | [MCP](chapter_11_mcp) | pay for tools of MCP servers, and serve agents in any language |
//! | 12 | [Discovery](chapter_12_discovery) | find services and call one |
//! | 13 | [API keys](chapter_13_api_keys) | use API keys together with payments |
//! | 14 | [Operating for months](chapter_14_operating) | reconcile, report, freeze, and rotate keys |
//! | 15 | [The command](chapter_15_command) | use `bursar` on the command line and read its JSON |
//! | 16 | [Glossary](chapter_16_glossary) | look up a word |
//! | 17 | [Paying twice by accident](chapter_17_paying_twice) | find the ordinary code that costs money twice |
//! | 18 | [Any program: the proxy](chapter_18_proxy) | pay for programs in Python, JavaScript and other languages |
//! | 19 | [Paid tools in any MCP host](chapter_19_mcp_proxy) | put `bursar mcp proxy` in front of paid MCP servers |
//! | 20 | [Frameworks](chapter_20_frameworks) | pay from async-openai, rig, tower and reqwest-middleware |
//! | 21 | [A wallet that knows its balance](chapter_21_wallet) | create a wallet, get test money, and pay on Base Sepolia |
//!
//! Every Rust example in the guide is compiled by the tests. Many of them also run, against a seller
//! on loopback.

#[doc = include_str!("guide/01_first_payment.md")]
pub mod chapter_01_first_payment {}

#[doc = include_str!("guide/02_one_purchase.md")]
pub mod chapter_02_one_purchase {}

#[doc = include_str!("guide/03_errors.md")]
pub mod chapter_03_errors {}

#[doc = include_str!("guide/04_policies.md")]
#[doc = "```toml"]
#[doc = include_str!("../examples/policy.toml")]
#[doc = "```"]
pub mod chapter_04_policies {}

#[doc = include_str!("guide/05_signers.md")]
pub mod chapter_05_signers {}

#[doc = include_str!("guide/06_ledgers.md")]
pub mod chapter_06_ledgers {}

#[doc = include_str!("guide/07_concurrency.md")]
pub mod chapter_07_concurrency {}

#[doc = include_str!("guide/08_retries.md")]
pub mod chapter_08_retries {}

#[doc = include_str!("guide/09_testing.md")]
pub mod chapter_09_testing {}

#[doc = include_str!("guide/10_reqwest.md")]
#[doc = "# The module before\n\n```rust,no_run"]
#[doc = include_str!("../examples/from_reqwest/before.rs")]
#[doc = "```\n\n# The module after\n\n```rust,no_run"]
#[doc = include_str!("../examples/from_reqwest/after.rs")]
#[doc = "```"]
pub mod chapter_10_reqwest {}

#[doc = include_str!("guide/11_mcp.md")]
pub mod chapter_11_mcp {}

#[doc = include_str!("guide/12_discovery.md")]
pub mod chapter_12_discovery {}

#[doc = include_str!("guide/13_api_keys.md")]
pub mod chapter_13_api_keys {}

#[doc = include_str!("guide/14_operating.md")]
pub mod chapter_14_operating {}

#[doc = include_str!("guide/15_command.md")]
pub mod chapter_15_command {}

#[doc = include_str!("guide/16_glossary.md")]
pub mod chapter_16_glossary {}

#[doc = include_str!("guide/17_paying_twice.md")]
pub mod chapter_17_paying_twice {}

#[doc = include_str!("guide/18_proxy.md")]
pub mod chapter_18_proxy {}
#[doc = include_str!("guide/19_mcp_proxy.md")]
pub mod chapter_19_mcp_proxy {}
#[doc = include_str!("guide/20_frameworks.md")]
pub mod chapter_20_frameworks {}
#[doc = include_str!("guide/21_wallet.md")]
pub mod chapter_21_wallet {}
