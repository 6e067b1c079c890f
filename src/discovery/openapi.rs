//! OpenAPI documents with `x-payment-info`.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use url::Url;

use super::listing::{Listing, Texts, locate, method, text_at, texts_at};
use super::page::{CappedMap, Page, item, json};
use super::price::AdvertisedPrice;
use super::service::Kind;
use crate::error::Error;

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    info: Option<Box<RawValue>>,
    #[serde(default)]
    servers: Option<Box<RawValue>>,
    paths: CappedMap,
}

/// The facts that all operations of a document share.
struct Api {
    url: Url,
    title: Option<String>,
    servers: Value,
}

/// Reads the paid operations of the document at `url`. It ignores free operations.
pub(super) fn read(bytes: &[u8], url: &Url) -> Result<Page, Error> {
    let document: Document = json(bytes, "an OpenAPI document in JSON")?;
    let value =
        |raw: Option<Box<RawValue>>| raw.and_then(|raw| item(&raw).ok()).unwrap_or_default();
    let title = text_at(&value(document.info), "/title").map(ToOwned::to_owned);
    let api = Api {
        url: url.clone(),
        title,
        servers: value(document.servers),
    };
    let mut page = Page::default();
    let CappedMap(paths) = document.paths;
    for (path, raw) in &paths.kept {
        api.path(path, raw, &mut page);
    }
    for _ in paths.kept.len()..paths.seen {
        page.skipped
            .add("paths after the first thousand are not read");
    }
    Ok(page)
}

impl Api {
    fn path(&self, path: &str, raw: &RawValue, page: &mut Page) {
        let shared = match item(raw) {
            Ok(shared) => shared,
            Err(reason) => return page.skipped.add(&reason),
        };
        for (verb, operation) in shared.as_object().into_iter().flatten() {
            let (Some(method), Some(info)) = (method(verb), operation.get("x-payment-info")) else {
                continue;
            };
            page.items = page.items.saturating_add(1);
            match self.operation(path, &shared, operation, info) {
                Ok(listing) => page.listings.push(listing.method(Some(method))),
                Err(reason) => page.skipped.add(&reason),
            }
        }
    }

    fn operation(
        &self,
        path: &str,
        shared: &Value,
        operation: &Value,
        info: &Value,
    ) -> Result<Listing, String> {
        let url = self.locate(path, shared, operation)?;
        let asked = AdvertisedPrice::payment_info(info, &url)?;
        let name = text_at(operation, "/summary").or_else(|| text_at(operation, "/operationId"));
        let mut tags = texts_at(operation, "/tags");
        tags.extend(self.title.as_deref());
        let description =
            text_at(operation, "/description").or_else(|| text_at(shared, "/description"));
        let texts = Texts {
            name,
            description,
            tags,
            ..Texts::default()
        };
        Ok(Listing::new(Kind::Http, url, asked, &texts))
    }

    /// Returns the URL of an operation.
    ///
    /// The path is below the first server of the operation, of its path or of the document. If none
    /// names a server, it is below the document's origin (OpenAPI 3.1, 4.8.1).
    fn locate(&self, path: &str, shared: &Value, operation: &Value) -> Result<Url, String> {
        let places = [
            operation.pointer("/servers/0/url"),
            shared.pointer("/servers/0/url"),
            self.servers.pointer("/0/url"),
        ];
        let server = places
            .into_iter()
            .flatten()
            .find_map(Value::as_str)
            .unwrap_or("/");
        if server.contains('{') {
            return Err(format!("the server `{server}` has variables"));
        }
        let server = locate(server, Some(&self.url))?;
        if !path.starts_with('/') {
            return Err(format!("the path `{path}` does not begin with `/`"));
        }
        locate(
            &format!("{}{path}", server.as_str().trim_end_matches('/')),
            None,
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document() -> Value {
        let paid = json!({ "summary": "The report", "description": "of the day", "tags": ["news"],
            "x-payment-info": { "price": { "amount": "0.01" }, "protocols": [{ "x402": {} }] } });
        json!({ "openapi": "3.1.0", "info": { "title": "Reports" }, "servers": [{ "url": "https://api.example.com/v1/" }],
            "paths": {
                "/report": { "get": paid, "post": { "summary": "free" }, "parameters": [] },
                "/users/{id}": { "delete": paid },
                "/elsewhere": { "servers": [{ "url": "/v2" }], "get": paid },
                "/broken": { "get": { "x-payment-info": { "price": { "amount": "much" } } } },
                "/variable": { "servers": [{ "url": "https://{tenant}.example.com" }], "get": paid },
                "no-slash": { "get": paid },
            } })
    }

    #[test]
    fn paid_operations_are_listed_with_their_servers() {
        let url: Url = "https://docs.example.com/openapi.json".parse().unwrap();
        let page = read(document().to_string().as_bytes(), &url).unwrap();
        let mut seen: Vec<_> = page
            .listings
            .iter()
            .map(|listing| (listing.url.as_str(), listing.needs.is_some()))
            .collect();
        seen.sort_unstable();
        let expected = [
            ("https://api.example.com/v1/report", false),
            ("https://api.example.com/v1/users/{id}", true),
            ("https://docs.example.com/v2/elsewhere", false),
        ];
        let expected =
            expected.map(|(url, needs)| (url.parse::<Url>().unwrap().to_string(), needs));
        assert_eq!(
            seen,
            expected
                .each_ref()
                .map(|(url, needs)| (url.as_str(), *needs))
        );
        assert_eq!((page.items, page.skipped.count), (6, 3));
    }

    #[test]
    fn a_malformed_document_is_an_error() {
        let url: Url = "https://docs.example.com/openapi.json".parse().unwrap();
        for bad in ["openapi: 3.1.0", "{}", "{\"paths\": []}"] {
            assert!(read(bad.as_bytes(), &url).is_err(), "{bad}");
        }
    }
}
