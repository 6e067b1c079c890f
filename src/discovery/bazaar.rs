//! A facilitator's bazaar: `GET /discovery/resources` and `/discovery/search` (x402 extension `bazaar`).

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use url::Url;

use super::listing::{Listing, Texts, locate, method, text_at, texts_at};
use super::page::{Capped, Next, Page, item, json};
use super::price::AdvertisedPrice;
use super::service::{Kind, Usage};
use crate::error::{Error, ErrorKind};

#[derive(Deserialize)]
struct Answer {
    /// The items of `/discovery/resources`.
    #[serde(default)]
    items: Option<Capped<Box<RawValue>>>,
    /// The items of `/discovery/search`.
    #[serde(default)]
    resources: Option<Capped<Box<RawValue>>>,
    #[serde(default)]
    pagination: Option<Box<RawValue>>,
}

/// Reads a page of either list.
pub(super) fn read(bytes: &[u8]) -> Result<Page, Error> {
    let answer: Answer = json(bytes, "a bazaar's page")?;
    let items = answer.items.or(answer.resources).ok_or_else(|| {
        Error::new(
            ErrorKind::Malformed,
            "the answer is not a bazaar's page: it has neither `items` nor `resources`",
        )
    })?;
    let pagination = answer
        .pagination
        .and_then(|raw| item(&raw).ok())
        .unwrap_or_default();
    let next = match pagination.get("total").and_then(Value::as_u64) {
        Some(total) => Next::Total(total),
        None => Next::cursor(text_at(&pagination, "/cursor")),
    };
    let mut page = Page::of(items, |item| {
        resource(item, None).map(|listing| vec![listing])
    });
    page.next = next;
    Ok(page)
}

/// Reads one resource. Its URL may be relative to `base`.
pub(super) fn resource(item: &Value, base: Option<&Url>) -> Result<Listing, String> {
    let version = version(item)?;
    let input = input(item);
    let kind = kind(item, input)?;
    let url = locate(written_url(item)?, base)?;
    let accepts = item.get("accepts").unwrap_or(&Value::Null);
    let asked = AdvertisedPrice::offers(version, accepts, &url)?;
    let first = |pointer: &str| text_at(item, pointer);
    let texts = Texts {
        name: first("/serviceName")
            .or_else(|| first("/resource/serviceName"))
            .or_else(|| first("/metadata/name")),
        description: first("/description")
            .or_else(|| first("/resource/description"))
            .or_else(|| first("/metadata/description"))
            .or_else(|| first("/accepts/0/description")),
        tags: ["/tags", "/resource/tags"]
            .iter()
            .flat_map(|pointer| texts_at(item, pointer))
            .collect(),
        mime_type: first("/mimeType")
            .or_else(|| first("/resource/mimeType"))
            .or_else(|| first("/accepts/0/mimeType")),
        input,
    };
    let listed_method = input
        .and_then(|input| text_at(input, "/method"))
        .or_else(|| first("/method"));
    let tool = input
        .and_then(|input| text_at(input, "/toolName"))
        .or_else(|| first("/toolName"));
    let mut listing = Listing::new(kind, url, asked, &texts);
    listing.usage = usage(item);
    Ok(match kind {
        Kind::Http => listing.method(listed_method.and_then(method)),
        Kind::Mcp => listing.tool(tool),
    })
}

/// The length of the longest time, in bytes.
const LONGEST_TIME: usize = 40;

/// Reads the use of a service: the members that CDP's bazaar writes.
fn usage(item: &Value) -> Usage {
    let at = |name: &str| {
        let nested = item.pointer(&format!("/quality/{name}"));
        nested.or_else(|| item.get(name))
    };
    let last_called = at("lastCalledAt").map(|time| match time {
        Value::String(time) => time.clone(),
        time => time.to_string(),
    });
    // A time has no words.
    let is_time = |time: &String| {
        let plain = |byte: u8| byte.is_ascii_digit() || b"-:.+TZ ".contains(&byte);
        (1..=LONGEST_TIME).contains(&time.len()) && time.bytes().all(plain)
    };
    Usage {
        calls: at("l30DaysTotalCalls").and_then(Value::as_u64),
        payers: at("l30DaysUniquePayers").and_then(Value::as_u64),
        last_called: last_called.filter(is_time),
        curated: at("curated").and_then(Value::as_bool).unwrap_or_default(),
    }
}

/// Returns `x402Version`, or derives it from the form of the offers if it is missing.
fn version(item: &Value) -> Result<u64, String> {
    match item.get("x402Version") {
        None | Some(Value::Null) => {
            let old = item.pointer("/accepts/0/maxAmountRequired").is_some();
            Ok(if old { 1 } else { 2 })
        }
        Some(version) => match version.as_u64() {
            Some(version @ (1 | 2)) => Ok(version),
            _ => Err(format!(
                "x402Version {version} is not supported; expected 1 or 2"
            )),
        },
    }
}

/// Returns the input of the service: from the extension (version 2) or the first offer (version 1).
fn input(item: &Value) -> Option<&Value> {
    let places = [
        "/extensions/bazaar/info/input",
        "/accepts/0/outputSchema/input",
        "/metadata/input",
        "/input",
    ];
    places
        .iter()
        .find_map(|pointer| item.pointer(pointer))
        .filter(|input| input.is_object())
}

fn kind(item: &Value, input: Option<&Value>) -> Result<Kind, String> {
    let written = text_at(item, "/type")
        .or_else(|| input.and_then(|input| text_at(input, "/type")))
        .unwrap_or("http");
    match written {
        "http" => Ok(Kind::Http),
        "mcp" => Ok(Kind::Mcp),
        other => Err(format!(
            "type `{other}` is not supported; expected `http` or `mcp`"
        )),
    }
}

fn written_url(item: &Value) -> Result<&str, String> {
    let places = [
        "/resource",
        "/resource/url",
        "/resourceUrl",
        "/url",
        "/accepts/0/resource",
    ];
    places
        .iter()
        .find_map(|pointer| text_at(item, pointer))
        .ok_or_else(|| "an item names no URL".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_versions_are_read_from_one_page() {
        let v1 = json!({ "resource": "https://a.example/old", "type": "http", "x402Version": 1, "accepts": [{
            "scheme": "exact", "network": "base", "maxAmountRequired": "10000", "resource": "https://a.example/old",
            "description": "the old one", "payTo": "0x209693Bc6afc0C5328bA36FaF03C514EF312287C",
            "maxTimeoutSeconds": 60, "asset": "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913",
            "outputSchema": { "input": { "type": "http", "method": "post" } } }] });
        let v2 = json!({ "resource": "https://a.example/new", "type": "http", "x402Version": 2, "accepts": [],
            "description": "the new one", "lastUpdated": 1_703_123_456, "tags": ["news"], "extensions": { "bazaar":
            { "info": { "input": { "type": "http", "method": "GET" } } } } });
        let bytes = json!({ "x402Version": 2, "items": [v1, 7, v2, { "resource": "ftp://x" }],
            "pagination": { "limit": 4, "offset": 0, "total": 9 } });
        let page = read(bytes.to_string().as_bytes()).unwrap();
        let seen: Vec<_> = page
            .listings
            .iter()
            .map(|listing| (listing.url.path(), listing.method.clone().unwrap()))
            .collect();
        assert_eq!(
            seen,
            [("/old", http::Method::POST), ("/new", http::Method::GET)]
        );
        assert_eq!(
            (page.items, page.skipped.count, page.next),
            (4, 2, Next::Total(9))
        );
        assert!(
            matches!(&page.listings[0].asked, AdvertisedPrice::Offers(required) if required.version().number() == 1)
        );
        assert_eq!(
            page.listings[0].advertised.description.as_deref(),
            Some("the old one")
        );
    }

    #[test]
    fn a_tool_has_a_name_and_needs_a_server_url() {
        let input = json!({ "type": "mcp", "toolName": "forecast", "inputSchema": {} });
        let item = json!({ "resource": "https://mcp.example/mcp", "type": "mcp", "accepts": [],
            "extensions": { "bazaar": { "info": { "input": input } } } });
        let listing = resource(&item, None).unwrap();
        assert_eq!(
            (listing.kind, listing.tool.as_deref()),
            (Kind::Mcp, Some("forecast"))
        );
        let nowhere = json!({ "resource": "mcp://tool/forecast", "type": "mcp", "accepts": [] });
        assert!(
            resource(&nowhere, None)
                .unwrap_err()
                .contains("mcp://tool/forecast")
        );
    }

    #[test]
    fn a_malformed_page_is_an_error() {
        for bad in ["", "[]", "{}", "{\"items\": 7}", "<html>"] {
            assert_eq!(
                read(bad.as_bytes()).unwrap_err().kind(),
                ErrorKind::Malformed,
                "{bad}"
            );
        }
    }
}
