//! A service as a list describes it, before bursar has checked anything.

use http::Method;
use serde_json::Value;
use url::Url;

use super::price::AdvertisedPrice;
use super::service::{Advertised, Kind, Usage};
use crate::text;

/// The length of the longest URL, in bytes.
const MAX_URL: usize = 2048;
/// The length of the searched part of a description, in characters.
const MAX_SEARCHED: usize = 1024;
/// The length of the longest input description that bursar keeps, in bytes of JSON.
const MAX_INPUT: usize = 4096;
const MAX_TAGS: usize = 8;
/// The methods that a service can have.
const METHODS: [Method; 6] = [
    Method::GET,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::HEAD,
];

/// A listed service.
#[derive(Clone, Debug)]
pub(crate) struct Listing {
    pub(super) kind: Kind,
    pub(super) url: Url,
    /// The method, if the list names one.
    pub(super) method: Option<Method>,
    pub(super) tool: Option<String>,
    pub(super) asked: AdvertisedPrice,
    pub(super) advertised: Advertised,
    pub(super) usage: Usage,
    /// The searched text in lower case: names in `named`, descriptions in `described`.
    pub(super) named: String,
    pub(super) described: String,
    /// Whether a bazaar's own search returned it.
    pub(super) searched: bool,
    /// The values that the caller must add before a call.
    pub(super) needs: Option<String>,
    /// The positions of the sources that list it.
    pub(super) sources: Vec<usize>,
}

/// The texts that describe a service in a list.
#[derive(Debug, Default)]
pub(super) struct Texts<'a> {
    pub(super) name: Option<&'a str>,
    pub(super) description: Option<&'a str>,
    pub(super) tags: Vec<&'a str>,
    pub(super) mime_type: Option<&'a str>,
    pub(super) input: Option<&'a Value>,
}

impl Listing {
    pub(super) fn new(kind: Kind, url: Url, asked: AdvertisedPrice, texts: &Texts<'_>) -> Self {
        let needs = template(&url).map(|part| format!("its URL needs a value for `{part}`"));
        let mut listing = Self {
            kind,
            method: None,
            tool: None,
            asked,
            advertised: Advertised::default(),
            usage: Usage::default(),
            named: String::new(),
            described: String::new(),
            searched: false,
            needs,
            sources: Vec::new(),
            url,
        };
        listing.set_texts(texts);
        listing
    }

    fn set_texts(&mut self, texts: &Texts<'_>) {
        let tags: Vec<&str> = texts.tags.iter().take(MAX_TAGS).copied().collect();
        let host = self.url.host_str().unwrap_or_default();
        let named = [
            texts.name.unwrap_or_default(),
            host,
            self.url.path(),
            &tags.join(" "),
        ]
        .join(" ");
        self.named = cut(&named, MAX_SEARCHED).to_lowercase();
        self.described = cut(texts.description.unwrap_or_default(), MAX_SEARCHED).to_lowercase();
        self.advertised = Advertised {
            name: texts.name.map(text::excerpt),
            description: texts.description.map(text::excerpt),
            tags: tags.into_iter().map(text::excerpt).collect(),
            mime_type: texts.mime_type.map(text::excerpt),
            input: texts
                .input
                .map(Value::to_string)
                .filter(|input| input.len() <= MAX_INPUT)
                .map(text::without_long_hex),
        };
    }

    pub(super) fn method(mut self, method: Option<Method>) -> Self {
        self.method = method;
        self
    }

    pub(super) fn tool(mut self, tool: Option<&str>) -> Self {
        self.tool = tool.map(text::excerpt);
        self.named.push(' ');
        self.named
            .push_str(&cut(tool.unwrap_or_default(), MAX_SEARCHED).to_lowercase());
        self
    }

    /// Returns whether both describe the same service, as far as they tell.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let methods = self.method.as_ref().zip(other.method.as_ref());
        self.kind == other.kind
            && self.url == other.url
            && self.tool == other.tool
            && methods.is_none_or(|(one, other)| one == other)
    }

    /// Adds facts that only the other has. If both have a fact, the first source wins.
    pub(super) fn complete(&mut self, other: Self) {
        self.method = self.method.take().or(other.method);
        if matches!(self.asked, AdvertisedPrice::Nothing) {
            self.asked = other.asked;
        }
        self.advertised.complete(other.advertised);
        if self.usage == Usage::default() {
            self.usage = other.usage;
        }
        self.searched |= other.searched;
        self.named = cut(&format!("{} {}", self.named, other.named), MAX_SEARCHED).to_owned();
        self.described = cut(
            &format!("{} {}", self.described, other.described),
            MAX_SEARCHED,
        )
        .to_owned();
        self.sources.extend(other.sources);
        self.sources.dedup();
    }
}

/// Returns at most `most` characters of the text.
fn cut(text: &str, most: usize) -> &str {
    text.char_indices()
        .nth(most)
        .and_then(|(end, _)| text.get(..end))
        .unwrap_or(text)
}

/// Returns the string at a JSON pointer, unless it is empty.
pub(super) fn text_at<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value
        .pointer(pointer)?
        .as_str()
        .filter(|text| !text.is_empty())
}

/// Returns the strings of the list at a JSON pointer.
pub(super) fn texts_at<'a>(value: &'a Value, pointer: &str) -> Vec<&'a str> {
    let list = value.pointer(pointer).and_then(Value::as_array);
    list.map(|list| list.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default()
}

/// Returns the method with this name, in upper or lower case.
pub(super) fn method(name: &str) -> Option<Method> {
    METHODS
        .iter()
        .find(|method| method.as_str().eq_ignore_ascii_case(name))
        .cloned()
}

/// Parses the `http` or `https` URL of a service, which may be relative to `base`.
pub(super) fn locate(written: &str, base: Option<&Url>) -> Result<Url, String> {
    if written.len() > MAX_URL {
        return Err(format!("a URL is longer than {MAX_URL} bytes"));
    }
    let parsed = match base {
        Some(base) => base.join(written),
        None => Url::parse(written),
    };
    let mut url = parsed.map_err(|error| format!("`{written}` is not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(format!("`{written}` is not an http or https URL"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a URL has a user name or password".to_owned());
    }
    url.set_fragment(None);
    Ok(url)
}

/// Returns the first placeholder in the path: `:id`, `{id}` or `[id]`.
fn template(url: &Url) -> Option<String> {
    let segments = url.path_segments()?;
    let plain = |segment: &str| {
        segment
            .replace("%7B", "{")
            .replace("%7D", "}")
            .replace("%5B", "[")
            .replace("%5D", "]")
    };
    let is_template = |segment: &String| {
        let named = segment
            .strip_prefix(':')
            .is_some_and(|name| name.starts_with(|first: char| first.is_alphabetic()));
        named || segment.contains('{') || segment.starts_with('[')
    };
    segments
        .map(plain)
        .find(is_template)
        .map(|segment| text::excerpt(&segment))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_http_and_has_no_password() {
        let base: Url = "https://api.example.com/.well-known/x402".parse().unwrap();
        assert_eq!(
            locate("/report#top", Some(&base)).unwrap().as_str(),
            "https://api.example.com/report"
        );
        for bad in [
            "mcp://tool/report",
            "javascript:alert(1)",
            "/report",
            "https://me:secret@api.example.com/",
            "",
        ] {
            let reason = locate(bad, None).unwrap_err();
            assert!(!reason.contains("secret"), "{reason}");
        }
        assert!(
            locate(
                &format!("https://api.example.com/{}", "x".repeat(MAX_URL)),
                None
            )
            .is_err()
        );
    }

    #[test]
    fn placeholders_in_a_path_are_found() {
        for (url, part) in [
            ("https://a.example/users/:id", Some(":id")),
            ("https://a.example/users/{id}/posts", Some("{id}")),
            ("https://a.example/users/[id]", Some("[id]")),
            ("https://a.example/at/12:30", None),
            ("https://a.example/report?q={x}", None),
        ] {
            assert_eq!(template(&url.parse().unwrap()).as_deref(), part, "{url}");
        }
    }
}
