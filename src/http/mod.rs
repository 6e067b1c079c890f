//! HTTP: the client, its requests, and the way of one request to its seller.

mod api_key;
mod body;
mod builder;
mod challenge;
mod client;
mod egress;
mod exchange;
mod loopback;
mod redirect;
mod replay;
mod request_builder;
mod reqwest_settings;
mod response;
mod settings;
mod sign_in;
mod transport;

pub use builder::ClientBuilder;
#[cfg(feature = "middleware")]
pub(crate) use builder::without_redirects;
pub use client::Client;
#[cfg(feature = "middleware")]
pub(crate) use egress::EgressRules;
#[cfg(any(feature = "middleware", feature = "tower"))]
pub(crate) use exchange::Exchange;
#[cfg(feature = "mcp")]
pub(crate) use redirect::advice as redirect_advice;
pub use request_builder::{Request, RequestBuilder};
#[cfg(feature = "mcp")]
pub(crate) use response::record;
pub use response::{ApiCall, ResponseExt};
#[cfg(any(feature = "middleware", feature = "tower"))]
pub(crate) use settings::{CallSettings, call_setters};
#[cfg(any(feature = "middleware", feature = "tower"))]
pub(crate) use transport::HttpTransport;
