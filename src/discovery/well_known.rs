//! The list of an origin: `/.well-known/x402` and the draft `/.well-known/x402.json`.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use url::Url;

use super::bazaar;
use super::listing::{Listing, Texts, locate, method};
use super::page::{Capped, Page, json};
use super::price::AdvertisedPrice;
use super::service::Kind;
use crate::error::{Error, ErrorKind};

#[derive(Deserialize)]
struct Manifest {
    /// URLs, or methods with URLs.
    #[serde(default)]
    resources: Option<Capped<Box<RawValue>>>,
    /// Resources in the form of a bazaar.
    #[serde(default)]
    items: Option<Capped<Box<RawValue>>>,
}

/// Reads the list at `url`. The URLs in it may be relative to `url`.
pub(super) fn read(bytes: &[u8], url: &Url) -> Result<Page, Error> {
    let manifest: Manifest = json(bytes, "a list of resources")?;
    let items = manifest.resources.or(manifest.items).ok_or_else(|| {
        Error::new(
            ErrorKind::Malformed,
            "the answer is not a list of resources: it has neither `resources` nor `items`",
        )
    })?;
    Ok(Page::of(items, |item| {
        resource(item, url).map(|listing| vec![listing])
    }))
}

fn resource(item: &Value, base: &Url) -> Result<Listing, String> {
    match item {
        Value::String(written) => {
            let (listed_method, written) = match written.split_once(' ') {
                Some((verb, rest)) if method(verb).is_some() => (method(verb), rest.trim()),
                _ => (None, written.as_str()),
            };
            Ok(Listing::new(
                Kind::Http,
                locate(written, Some(base))?,
                AdvertisedPrice::Nothing,
                &Texts::default(),
            )
            .method(listed_method))
        }
        Value::Object(_) => bazaar::resource(item, Some(base)),
        _ => Err("an item is neither a URL nor an object".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn urls_may_be_relative_and_have_a_method() {
        let url: Url = "https://api.example.com/.well-known/x402".parse().unwrap();
        let manifest = json!({ "version": 1, "resources": [
            "https://api.example.com/report", "POST /search", "/plain", 7, "mailto:me@example.com",
            { "url": "/costly", "method": "put", "accepts": [] },
        ] });
        let page = read(manifest.to_string().as_bytes(), &url).unwrap();
        let seen: Vec<_> = page
            .listings
            .iter()
            .map(|listing| {
                (
                    listing.url.path(),
                    listing.method.as_ref().map(http::Method::as_str),
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("/report", None),
                ("/search", Some("POST")),
                ("/plain", None),
                ("/costly", Some("PUT"))
            ]
        );
        assert_eq!(page.skipped.count, 2);
    }
}
