//! The tables of a configuration file and their keys.
//!
//! A field's type tells how often its key is written: `Value` and `Table` once, `Option` at most once, and
//! `Vec` any number of times, as one value or as an array. `examples/policy.toml` explains each key.

use std::net::SocketAddr;
use std::time::Duration;

use alloy::primitives::Address;
use serde::Deserialize;
use url::Url;

use super::reader::{Table, Value};
use super::scalar::{
    AmountText, AssetText, CallNumber, DollarPeg, ForeignResource, HeaderText, Payee, Percent,
    Size, Status, Text, Version, Wei, Zone,
};
use crate::credential::Preference;
use crate::money::{TransferMethod, Usd};
use crate::policy::{Period, Share, SignIn};
use crate::x402::Scheme;

#[derive(Deserialize)]
pub(super) struct File {
    #[serde(rename = "version")]
    pub(super) _version: Value<Version>,
    pub(super) networks: Vec<Value<Text>>,
    pub(super) mix_testnets: Option<Value<bool>>,
    pub(super) default_limits: Option<Value<bool>>,
    pub(super) unlimited: Option<Value<bool>>,
    pub(super) approval_timeout: Option<Value<Duration>>,
    pub(super) refusal_pause: Option<Value<Duration>>,
    pub(super) warn_at: Vec<Value<Share>>,
    pub(super) mcp_methods: Vec<Value<Text>>,
    pub(super) store_queries: Option<Value<bool>>,
    pub(super) refunds_make_room: Option<Value<bool>>,
    pub(super) freeze: Option<Table<Freeze>>,
    pub(super) global: Option<Table<Scope>>,
    pub(super) each: Option<Table<Each>>,
    pub(super) origin: Vec<Table<Scope>>,
    pub(super) host: Vec<Table<Scope>>,
    pub(super) resource: Vec<Table<Scope>>,
    pub(super) domain: Vec<Table<Scope>>,
    pub(super) payee: Vec<Table<Scope>>,
    pub(super) asset: Vec<Table<Scope>>,
    pub(super) network: Vec<Table<Scope>>,
    pub(super) tag: Vec<Table<Scope>>,
    pub(super) agent: Vec<Table<Scope>>,
    pub(super) allow: Option<Table<Allow>>,
    pub(super) deny: Option<Table<Deny>>,
    pub(super) permit: Vec<Table<Permit>>,
    pub(super) credential: Vec<Table<Credential>>,
    pub(super) chain: Vec<Table<Chain>>,
    pub(super) discovery: Option<Table<Discovery>>,
    pub(super) proxy: Option<Table<Proxy>>,
    pub(super) mcp_server: Vec<Table<McpServer>>,
    pub(super) token: Vec<Table<Token>>,
}

#[derive(Deserialize)]
pub(super) struct Freeze {
    pub(super) file: Value<Text>,
}

/// The limits of a scope. `[global]`, `[[host]]` and `[[origin]]` also have settings.
#[derive(Default, Deserialize)]
pub(super) struct Scope {
    #[serde(rename = "match")]
    pub(super) matched: Option<Value<Text>>,
    pub(super) per_payment: Vec<Value<AmountText>>,
    pub(super) per_hour: Vec<Value<AmountText>>,
    pub(super) per_day: Vec<Value<AmountText>>,
    pub(super) per_month: Vec<Value<AmountText>>,
    pub(super) rolling: Vec<Table<Rolling>>,
    pub(super) calendar: Vec<Table<Calendar>>,
    pub(super) lifetime: Vec<Value<AmountText>>,
    pub(super) exposure: Vec<Value<AmountText>>,
    pub(super) payments: Vec<Table<Count>>,
    pub(super) ask_above: Vec<Value<AmountText>>,
    pub(super) warn_at: Vec<Value<Share>>,
    pub(super) payee: Vec<Value<Payee>>,
    pub(super) max_validity: Option<Value<Duration>>,
    pub(super) max_price_rise: Option<Value<Percent>>,
    pub(super) foreign_resource: Option<Value<ForeignResource>>,
    pub(super) loop_guard: Option<Table<Count>>,
    pub(super) circuit_breaker: Option<Table<Failures>>,
    pub(super) remember_terms: Option<Value<Duration>>,
    pub(super) sign_in: Option<Value<SignIn>>,
    pub(super) schemes: Vec<Value<Scheme>>,
    pub(super) transfer_methods: Vec<Value<TransferMethod>>,
    pub(super) gas_sponsoring: Option<Value<bool>>,
    pub(super) sponsored_transactions: Option<Value<Wei>>,
    pub(super) require_signed_offers: Option<Value<bool>>,
}

#[derive(Deserialize)]
pub(super) struct Rolling {
    pub(super) window: Value<Duration>,
    pub(super) max: Value<AmountText>,
}

#[derive(Deserialize)]
pub(super) struct Calendar {
    pub(super) period: Value<Period>,
    pub(super) zone: Value<Zone>,
    pub(super) max: Value<AmountText>,
}

#[derive(Deserialize)]
pub(super) struct Count {
    pub(super) window: Value<Duration>,
    pub(super) max: Value<u32>,
}

#[derive(Deserialize)]
pub(super) struct Failures {
    pub(super) window: Value<Duration>,
    pub(super) failures: Value<u32>,
}

#[derive(Deserialize)]
pub(super) struct Each {
    pub(super) origin: Option<Table<Scope>>,
    pub(super) domain: Option<Table<Scope>>,
    pub(super) payee: Option<Table<Scope>>,
    pub(super) asset: Option<Table<Scope>>,
    pub(super) network: Option<Table<Scope>>,
    pub(super) tag: Option<Table<Scope>>,
    pub(super) agent: Option<Table<Scope>>,
}

#[derive(Deserialize)]
pub(super) struct Allow {
    pub(super) hosts: Vec<Value<Text>>,
    pub(super) payees: Vec<Value<Address>>,
    pub(super) assets: Vec<Value<AssetText>>,
}

#[derive(Deserialize)]
pub(super) struct Deny {
    pub(super) hosts: Vec<Value<Text>>,
    pub(super) payees: Vec<Value<Address>>,
    pub(super) assets: Vec<Value<AssetText>>,
    pub(super) networks: Vec<Value<Text>>,
}

#[derive(Deserialize)]
pub(super) struct Permit {
    pub(super) agent: Vec<Value<Text>>,
    pub(super) tag: Vec<Value<Text>>,
    pub(super) host: Vec<Value<Text>>,
    pub(super) method: Vec<Value<Text>>,
    pub(super) path: Vec<Value<Text>>,
}

#[derive(Deserialize)]
pub(super) struct Credential {
    pub(super) name: Value<Text>,
    pub(super) host: Vec<Value<Text>>,
    pub(super) bearer: Option<Table<Bearer>>,
    pub(super) header: Option<Table<Header>>,
    pub(super) basic: Option<Table<Basic>>,
    pub(super) query: Option<Table<Parameter>>,
    pub(super) prefer: Option<Value<Preference>>,
    pub(super) pay_when: Vec<Value<Status>>,
    pub(super) pay_when_missing: Option<Value<bool>>,
    pub(super) plan: Option<Table<Plan>>,
}

#[derive(Deserialize)]
pub(super) struct Bearer {
    pub(super) env: Option<Value<Text>>,
    pub(super) file: Option<Value<Text>>,
}

#[derive(Deserialize)]
pub(super) struct Header {
    pub(super) name: Value<HeaderText>,
    pub(super) env: Option<Value<Text>>,
    pub(super) file: Option<Value<Text>>,
}

#[derive(Deserialize)]
pub(super) struct Basic {
    pub(super) user: Value<Text>,
    pub(super) env: Option<Value<Text>>,
    pub(super) file: Option<Value<Text>>,
}

#[derive(Deserialize)]
pub(super) struct Parameter {
    pub(super) name: Value<Text>,
    pub(super) env: Option<Value<Text>>,
    pub(super) file: Option<Value<Text>>,
}

#[derive(Deserialize)]
pub(super) struct Plan {
    pub(super) monthly: Option<Value<Usd>>,
    pub(super) included: Option<Value<u64>>,
    pub(super) per_call: Option<Value<Usd>>,
    pub(super) tiers: Vec<Table<Tier>>,
}

#[derive(Deserialize)]
pub(super) struct Tier {
    pub(super) from: Value<CallNumber>,
    pub(super) per_call: Value<Usd>,
}

#[derive(Deserialize)]
pub(super) struct Chain {
    pub(super) network: Value<Text>,
    pub(super) rpc: Vec<Value<Url>>,
    pub(super) operator: Option<Value<Text>>,
}

#[derive(Deserialize)]
pub(super) struct Discovery {
    pub(super) bazaar: Vec<Value<Url>>,
    pub(super) well_known: Vec<Value<Url>>,
    pub(super) openapi: Vec<Value<Url>>,
    pub(super) registry: Vec<Value<Url>>,
    pub(super) add_servers: Option<Value<bool>>,
}

#[derive(Deserialize)]
pub(super) struct McpServer {
    pub(super) name: Value<Text>,
    pub(super) url: Option<Value<Url>>,
    pub(super) command: Vec<Value<Text>>,
    pub(super) env: Vec<Value<Text>>,
    pub(super) tools: Vec<Value<Text>>,
    pub(super) tag: Option<Value<Text>>,
    pub(super) max_price: Option<Value<Usd>>,
}

#[derive(Deserialize)]
pub(super) struct Proxy {
    pub(super) listen: Option<Value<SocketAddr>>,
    pub(super) explicit: Option<Value<bool>>,
    pub(super) body_limit: Option<Value<Size>>,
    pub(super) route: Vec<Table<Route>>,
}

#[derive(Deserialize)]
pub(super) struct Route {
    pub(super) path: Value<Text>,
    pub(super) target: Value<Text>,
    pub(super) agent: Option<Value<Text>>,
    pub(super) tag: Option<Value<Text>>,
    pub(super) max_price: Option<Value<Usd>>,
    pub(super) credential: Option<Value<Text>>,
    pub(super) clients: Vec<Value<Text>>,
    pub(super) timeout: Option<Value<Duration>>,
}

#[derive(Deserialize)]
pub(super) struct Token {
    pub(super) network: Value<Text>,
    pub(super) address: Value<Address>,
    pub(super) symbol: Value<Text>,
    pub(super) decimals: Value<u8>,
    pub(super) name: Value<Text>,
    pub(super) version: Value<Text>,
    pub(super) peg: Option<Value<DollarPeg>>,
}
