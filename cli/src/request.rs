//! The request of the command line, with the options of curl.

use std::io::Read;

use bursar::reqwest::Method;
use bursar::reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use bursar::{Client, Credentials, Payer, RequestBuilder, Url};
use bytes::Bytes;

use crate::args::RequestArgs;
use crate::exit::Failure;

/// The `User-Agent` of the command.
pub(crate) const AGENT: &str = concat!("bursar/", env!("CARGO_PKG_VERSION"));

/// A request that bursar can send several times.
pub(crate) struct Prepared {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Option<Bytes>,
    tag: Option<String>,
}

impl Prepared {
    /// Reads the headers and the body. Standard input is read only here, and only once.
    pub(crate) fn read(args: &RequestArgs) -> Result<Self, Failure> {
        let body = body(&args.data)?;
        let method = args.method.clone().unwrap_or(if body.is_some() {
            Method::POST
        } else {
            Method::GET
        });
        let headers = headers(&args.header, body.is_some())?;
        Ok(Self {
            method,
            url: args.url.clone(),
            headers,
            body,
            tag: args.tag.clone(),
        })
    }

    /// Returns the request for one call.
    pub(crate) fn on(&self, client: &Client) -> RequestBuilder {
        let mut request = client
            .request(self.method.clone(), self.url.clone())
            .headers(self.headers.clone());
        if let Some(tag) = &self.tag {
            request = request.tag(tag);
        }
        match &self.body {
            Some(body) => request.body(body.clone()),
            None => request,
        }
    }
}

/// Builds the client from the options. Without a payer, it cannot pay.
pub(crate) fn client(
    args: &RequestArgs,
    payer: Option<Payer>,
    keys: Credentials,
) -> Result<Client, Failure> {
    let mut client = Client::builder()
        .credentials(keys)
        .allow_http_loopback(args.allow_http_loopback);
    if let Some(limit) = args.timeout {
        client = client.timeout(limit).answer_timeout(limit);
    }
    if let Some(payer) = payer {
        client = client.payer(payer);
    }
    Ok(client.build()?)
}

fn body(data: &[String]) -> Result<Option<Bytes>, Failure> {
    if data.is_empty() {
        return Ok(None);
    }
    let parts: Vec<Vec<u8>> = data
        .iter()
        .map(|part| piece(part))
        .collect::<Result<_, _>>()?;
    Ok(Some(parts.join(&b'&').into()))
}

fn piece(data: &str) -> Result<Vec<u8>, Failure> {
    let Some(file) = data.strip_prefix('@') else {
        return Ok(data.as_bytes().to_vec());
    };
    let read = if file == "-" {
        let mut bytes = Vec::new();
        std::io::stdin()
            .lock()
            .read_to_end(&mut bytes)
            .map(|_| bytes)
    } else {
        std::fs::read(file)
    };
    read.map_err(|error| Failure::usage(format!("--data {data}: cannot be read: {error}")))
}

fn headers(given: &[String], has_body: bool) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    let mut removed = Vec::new();
    for (index, line) in given.iter().enumerate() {
        match header(line) {
            Some((name, Some(value))) => drop(headers.append(name, value)),
            Some((name, None)) => removed.push(name),
            // The line can contain a secret, so the message does not repeat it.
            None => {
                let place = index.saturating_add(1);
                return Err(Failure::usage(format!(
                    "header {place}: expected a form like `Name: value`"
                )));
            }
        }
    }
    let form = HeaderValue::from_static("application/x-www-form-urlencoded");
    for (name, value) in [
        (USER_AGENT, Some(HeaderValue::from_static(AGENT))),
        (CONTENT_TYPE, has_body.then_some(form)),
    ] {
        if let Some(value) = value.filter(|_| !removed.contains(&name)) {
            headers.entry(name).or_insert(value);
        }
    }
    Ok(headers)
}

/// Returns the name of a header and its value. A header without a value is to be removed.
fn header(line: &str) -> Option<(HeaderName, Option<HeaderValue>)> {
    if let Some(name) = line.strip_suffix(';').filter(|name| !name.contains(':')) {
        return Some((
            name.trim().parse().ok()?,
            Some(HeaderValue::from_static("")),
        ));
    }
    let (name, value) = line.split_once(':')?;
    let value = value.trim();
    let value = if value.is_empty() {
        None
    } else {
        Some(value.parse().ok()?)
    };
    Some((name.trim().parse().ok()?, value))
}
