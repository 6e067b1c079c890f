//! MCP registries: `GET /v0.1/servers` and the older `/v0/servers` of the official registry API.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::listing::{Listing, Texts, locate, text_at, texts_at};
use super::page::{Capped, Next, Page, item, json};
use super::price::AdvertisedPrice;
use super::service::Kind;
use crate::error::Error;

/// The place of the official registry's own status of a server.
const OFFICIAL: &str = "/_meta/io.modelcontextprotocol.registry~1official/status";

#[derive(Deserialize)]
struct Answer {
    servers: Capped<Box<RawValue>>,
    #[serde(default)]
    metadata: Option<Box<RawValue>>,
}

/// Reads a page of servers.
pub(super) fn read(bytes: &[u8]) -> Result<Page, Error> {
    let answer: Answer = json(bytes, "a registry's page")?;
    let metadata = answer
        .metadata
        .and_then(|raw| item(&raw).ok())
        .unwrap_or_default();
    let cursor = text_at(&metadata, "/nextCursor").or_else(|| text_at(&metadata, "/next_cursor"));
    let mut page = Page::of(answer.servers, |item| {
        server(item).map(|listing| vec![listing])
    });
    page.next = Next::cursor(cursor);
    Ok(page)
}

/// Reads one server. Uses its streamable endpoint if it has several.
fn server(item: &Value) -> Result<Listing, String> {
    // Since v0.1, and in later v0, an item wraps the published server and adds the registry's facts.
    let server = item.get("server").unwrap_or(item);
    let status = text_at(item, OFFICIAL)
        .or_else(|| text_at(server, OFFICIAL))
        .or_else(|| text_at(server, "/status"));
    if status == Some("deleted") {
        return Err("a server is deleted".to_owned());
    }
    let remotes = server
        .get("remotes")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let streamable =
        |remote: &&Value| transport(remote).is_some_and(|kind| kind.contains("streamable"));
    let remote = remotes.iter().find(streamable).or_else(|| remotes.first());
    let remote = remote.ok_or("a server has no URL; it runs on its user's machine")?;
    let written = text_at(remote, "/url").ok_or("a server's remote has no URL")?;
    if written.contains('{') {
        return Err("a server's URL has variables".to_owned());
    }
    let texts = Texts {
        name: text_at(server, "/title").or_else(|| text_at(server, "/name")),
        description: text_at(server, "/description"),
        tags: texts_at(server, "/tags"),
        ..Texts::default()
    };
    let mut listing = Listing::new(
        Kind::Mcp,
        locate(written, None)?,
        AdvertisedPrice::Nothing,
        &texts,
    );
    if let Some(name) = secret_header(remote) {
        listing.needs = Some(format!(
            "it needs the header `{}`",
            crate::text::excerpt(name)
        ));
    }
    Ok(listing)
}

fn transport(remote: &Value) -> Option<&str> {
    ["/type", "/transport_type", "/transport"]
        .iter()
        .find_map(|pointer| text_at(remote, pointer))
}

/// Returns the name of a required secret header, which only the server's owner can provide.
fn secret_header(remote: &Value) -> Option<&str> {
    let headers = remote.get("headers")?.as_array()?;
    let is =
        |header: &Value, field: &str| header.get(field).and_then(Value::as_bool).unwrap_or(false);
    let secret = headers.iter().find(|header| {
        (is(header, "isRequired") || is(header, "is_required"))
            && (is(header, "isSecret") || is(header, "is_secret"))
    });
    text_at(secret?, "/name")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn wrapped_and_bare_servers_are_read() {
        let wrapped = json!({ "server": { "name": "io.example/weather", "description": "Forecasts", "version": "1.0.0",
            "remotes": [{ "type": "sse", "url": "https://w.example/sse" },
                        { "type": "streamable-http", "url": "https://w.example/mcp" }] },
            "_meta": { "io.modelcontextprotocol.registry/official": { "status": "active", "isLatest": true } } });
        let bare = json!({ "name": "io.example/news", "remotes": [{ "transport_type": "sse", "url": "https://n.example/sse",
            "headers": [{ "name": "X-Key", "is_required": true, "is_secret": true }] }] });
        let local = json!({ "server": { "name": "io.example/local", "packages": [{}] } });
        let gone = json!({ "server": { "name": "io.example/gone", "remotes": [{ "url": "https://g.example/" }] },
            "_meta": { "io.modelcontextprotocol.registry/official": { "status": "deleted" } } });
        let templated = json!({ "server": { "name": "t", "remotes": [{ "url": "https://{tenant}.example/mcp" }] } });
        let bytes = json!({ "servers": [wrapped, bare, local, gone, templated, null],
            "metadata": { "nextCursor": "io.example/next", "count": 6 } });
        let page = read(bytes.to_string().as_bytes()).unwrap();
        let seen: Vec<_> = page
            .listings
            .iter()
            .map(|listing| (listing.url.as_str(), listing.needs.is_some()))
            .collect();
        assert_eq!(
            seen,
            [
                ("https://w.example/mcp", false),
                ("https://n.example/sse", true)
            ]
        );
        assert_eq!(
            (page.skipped.count, page.next),
            (4, Next::Cursor("io.example/next".to_owned()))
        );
    }
}
