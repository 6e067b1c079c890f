//! JSON-RPC over HTTP: one call, bounded in time and size, that either brings a result or says why
//! there is none.

use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::redirect;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use crate::{Error, text};

/// Longest answer that is read.
const MAX_ANSWER: usize = 1024 * 1024;

/// Why an endpoint's answer says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Silence(pub(super) String);

/// An endpoint.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    http: reqwest::Client,
    url: Url,
    name: String,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default, deserialize_with = "present")]
    result: Option<Value>,
    error: Option<Fault>,
}

#[derive(Deserialize)]
struct Fault {
    #[serde(default)]
    message: String,
}

/// `null` is a result: of a transaction that is not known, for example.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl Endpoint {
    pub(super) fn new(url: Url) -> Result<Self, Error> {
        let host = url.host_str().filter(|_| matches!(url.scheme(), "http" | "https"));
        let host = host.ok_or_else(|| Error::builder("a chain endpoint is an http or https URL with a host"))?;
        let name = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let http = reqwest::Client::builder().redirect(redirect::Policy::none()).referer(false);
        Ok(Self { http: http.build().map_err(Error::http)?, url, name })
    }

    /// Host and port: what tells endpoints apart.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) async fn call(&self, method: &str, params: Value, limit: Duration) -> Result<Value, Silence> {
        let answer = tokio::time::timeout(limit, self.exchange(method, params)).await;
        let late = || Silence(format!("no answer to {method} within {} s", limit.as_secs_f32()));
        answer.map_err(|_| late())?.map_err(|Silence(why)| Silence(format!("{method}: {why}")))
    }

    async fn exchange(&self, method: &str, params: Value) -> Result<Value, Silence> {
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        let request = self.http.post(self.url.clone()).header(CONTENT_TYPE, "application/json");
        let sent = request.header(ACCEPT, "application/json").body(call).send().await;
        let mut response = sent.map_err(|_| Silence("no connection".to_owned()))?;
        if !response.status().is_success() {
            return Err(Silence(format!("status {}", response.status().as_u16())));
        }
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => break,
                Err(_) => return Err(Silence("the answer broke off".to_owned())),
            }
            if body.len() > MAX_ANSWER {
                return Err(Silence("the answer is longer than 1 MiB".to_owned()));
            }
        }
        let answer: Answer =
            serde_json::from_slice(&body).map_err(|_| Silence("the answer is not JSON-RPC".to_owned()))?;
        match answer {
            Answer { error: Some(fault), .. } => Err(Silence(text::excerpt(&fault.message))),
            Answer { result: Some(result), error: None } => Ok(result),
            Answer { result: None, error: None } => Err(Silence("the answer has no result".to_owned())),
        }
    }
}
