//! The sources of a search, and the code that reads one within its limits.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use http::StatusCode;
use url::Url;

use super::fetch::Fetcher;
use super::listing::Listing;
use super::page::{Next, Page, Skipped};
use super::{Criteria, bazaar, below, mcp_registry, openapi, well_known};
use crate::error::Error;
use crate::http::Client;

/// The number of items to ask for in one page. Bazaars and registries return at most 100.
const PAGE: usize = 100;
/// The number of items to ask a search for, and the length of its query in UTF-16 units. The largest bazaar, that of CDP,
/// refuses more.
const SEARCH_PAGE: usize = 20;
const SEARCH_QUERY: usize = 400;
/// The number of words that bursar asks a registry for, one by one. A registry searches names for one
/// text.
const REGISTRY_WORDS: usize = 3;

/// The kind of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SourceKind {
    /// The bazaar of a facilitator.
    Bazaar,
    /// `/.well-known/x402` of an origin.
    WellKnown,
    /// An OpenAPI document.
    OpenApi,
    /// An MCP registry.
    Registry,
}

impl SourceKind {
    /// Returns the stable name, such as `well_known`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bazaar => "bazaar",
            Self::WellKnown => "well_known",
            Self::OpenApi => "openapi",
            Self::Registry => "registry",
        }
    }
}

impl fmt::Display for SourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A report on a source.
///
/// ```no_run
/// # async fn example(client: bursar::Client) -> Result<(), bursar::Error> {
/// let findings = client.discover().bazaar("https://x402.org/facilitator").find("").run().await?;
/// for source in &findings.sources {
///     println!("{} {}: {} items, {} skipped", source.kind, source.url, source.items, source.skipped.count);
///     if let Some(error) = &source.error {
///         println!("  {error}");
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct SourceReport {
    /// The kind of the source.
    pub kind: SourceKind,
    /// The URL as you gave it.
    pub url: Url,
    /// The number of pages that bursar read.
    pub pages: usize,
    /// The number of items in these pages, including skipped ones.
    pub items: usize,
    /// The items that bursar could not use.
    pub skipped: Skipped,
    /// Whether the list has more pages than bursar read.
    pub more: bool,
    /// The error that ended the reading, if any. Services read before it count.
    pub error: Option<Error>,
}

/// The limits of one source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) pages: usize,
    pub(super) time: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            pages: 10,
            time: Duration::from_secs(20),
        }
    }
}

/// A source of listings.
#[derive(Clone, Debug)]
pub(super) struct Source {
    kind: SourceKind,
    url: Url,
}

/// The listings of a source, and its report.
#[derive(Debug)]
pub(super) struct SourceContents {
    pub(super) listings: Vec<Listing>,
    pub(super) report: SourceReport,
}

impl Source {
    /// Creates a source.
    ///
    /// # Errors
    /// Returns an error if the URL has a user name or password, because bursar would send them.
    pub(super) fn new(kind: SourceKind, url: Url) -> Result<Self, Error> {
        if url.username().is_empty() && url.password().is_none() {
            return Ok(Self { kind, url });
        }
        Err(Error::builder("the URL of a list carries a user name or password").at(&url))
    }

    /// Reads the source up to its end or its limits.
    pub(super) async fn read(
        self,
        client: &Client,
        criteria: &Criteria,
        bounds: Bounds,
    ) -> SourceContents {
        let Self { kind, url } = self;
        let report = SourceReport {
            kind,
            url: url.clone(),
            pages: 0,
            items: 0,
            skipped: Skipped::default(),
            more: false,
            error: None,
        };
        let read = SourceContents {
            listings: Vec::new(),
            report,
        };
        let fetcher = Fetcher::new(client, bounds.time);
        let mut reader = Reader {
            fetcher,
            criteria,
            left: bounds.pages,
            seen: HashSet::new(),
            unfiltered: false,
            read,
        };
        let read = match kind {
            SourceKind::Bazaar => reader.bazaar(&url).await,
            SourceKind::WellKnown => reader.well_known(&url).await,
            SourceKind::OpenApi => reader.openapi(&url).await,
            SourceKind::Registry => reader.registry(&url).await,
        };
        reader.read.report.error = read.err();
        reader.read
    }
}

/// The state of reading one source.
struct Reader<'a> {
    fetcher: Fetcher<'a>,
    criteria: &'a Criteria,
    /// The number of pages that may still be read.
    left: usize,
    /// The hashes of the pages. A list that returns the same page again has ended.
    seen: HashSet<u64>,
    /// Whether the list refuses to be filtered by network.
    unfiltered: bool,
    read: SourceContents,
}

/// A list of several pages.
struct Series<'a> {
    url: Url,
    query: Vec<(&'static str, &'a str)>,
    /// The number of items of one page.
    limit: usize,
    read: fn(&[u8]) -> Result<Page, Error>,
}

/// The position of a page in its list.
enum Place {
    Start,
    Offset(usize),
    Cursor(String),
}

impl Series<'_> {
    fn page(&self, place: &Place) -> Url {
        let mut url = self.url.clone();
        let mut query = url.query_pairs_mut();
        query
            .extend_pairs(&self.query)
            .append_pair("limit", &self.limit.to_string());
        match place {
            Place::Start => {}
            Place::Offset(offset) => drop(query.append_pair("offset", &offset.to_string())),
            Place::Cursor(cursor) => drop(query.append_pair("cursor", cursor)),
        }
        drop(query);
        url
    }

    /// Removes the part of the request that the list refuses: a part of its items, or the filter by network. Returns false
    /// if there is no such part.
    fn ask_for_less(&mut self, error: &Error) -> bool {
        if !is_refusal(error) {
            return false;
        }
        if let Some(limit) = smaller_limit(error.message(), self.limit) {
            self.limit = limit;
            return true;
        }
        let before = self.query.len();
        self.query.retain(|(name, _)| *name != "network");
        self.query.len() < before
    }
}

/// Returns the largest number below `limit` that a refusal names as the limit of a page, or half of `limit`.
fn smaller_limit(refusal: &str, limit: usize) -> Option<usize> {
    let words = refusal.split_once(": ")?.1.to_lowercase();
    if !words.contains("limit") {
        return None;
    }
    let numbers = words.split(|character: char| !character.is_ascii_digit());
    let named = numbers.filter_map(|number| number.parse().ok());
    named
        .filter(|number| (1..limit).contains(number))
        .max()
        .or_else(|| limit.checked_div(2).filter(|half| *half > 0))
}

/// Returns the first words of a text, at most `most` UTF-16 units long. A first word that is longer is cut.
fn cut_words(text: &str, most: usize) -> &str {
    let mut length = 0_usize;
    let longer = text.char_indices().find(|(_, character)| {
        length = length.saturating_add(character.len_utf16());
        length > most
    });
    let Some((end, next)) = longer else {
        return text;
    };
    let cut = text.get(..end).unwrap_or_default();
    match cut.rfind(char::is_whitespace) {
        Some(border) if !next.is_whitespace() => cut.get(..border).unwrap_or(cut).trim_end(),
        _ => cut.trim_end(),
    }
}

impl Reader<'_> {
    /// Reads the search, or the list if there is no search or the query has no words.
    ///
    /// If the search refuses the query, this reads the list and reports the refusal.
    async fn bazaar(&mut self, url: &Url) -> Result<(), Error> {
        let criteria = self.criteria;
        let mut refusal = Ok(());
        if !criteria.words.is_empty() {
            // `type` is no parameter of CDP's search.
            let query = vec![("query", cut_words(&criteria.text, SEARCH_QUERY))];
            let searched = self
                .resources(below(url, "/discovery/search"), query, SEARCH_PAGE)
                .await;
            self.read
                .listings
                .iter_mut()
                .for_each(|listing| listing.searched = true);
            match searched {
                Err(error) if is_refusal(&error) => refusal = Err(error),
                Err(error) if is_missing(&error) => {}
                searched => return searched,
            }
        }
        let query = criteria.kind.map(|kind| ("type", kind.name()));
        let query = query.into_iter().collect();
        self.resources(below(url, "/discovery/resources"), query, PAGE)
            .await
            .and(refusal)
    }

    /// Reads one of a bazaar's two lists.
    ///
    /// A bazaar compares networks as text, so this asks for the CAIP-2 identifier and for the name.
    async fn resources(
        &mut self,
        url: Url,
        query: Vec<(&'static str, &str)>,
        limit: usize,
    ) -> Result<(), Error> {
        let network = self.criteria.network;
        let caip2 = network.map(|network| network.to_string());
        let name = network.and_then(|network| network.name());
        let written: Vec<&str> = caip2.as_deref().into_iter().chain(name).collect();
        for place in 0..written.len().max(1) {
            if place > 0 && self.unfiltered {
                break;
            }
            let network = written.get(place).map(|written| ("network", *written));
            let series = Series {
                url: url.clone(),
                query: query.iter().copied().chain(network).collect(),
                limit,
                read: bazaar::read,
            };
            self.series(series).await?;
        }
        Ok(())
    }

    async fn well_known(&mut self, url: &Url) -> Result<(), Error> {
        let [first, second] =
            ["/.well-known/x402", "/.well-known/x402.json"].map(|path| at_origin(url, path));
        let read = |bytes: &[u8], url: &Url| well_known::read(bytes, url);
        match self.document(&first, read).await {
            Err(error) if is_missing(&error) => self.document(&second, read).await,
            done => done,
        }
    }

    async fn openapi(&mut self, url: &Url) -> Result<(), Error> {
        let url = if url.path() == "/" {
            at_origin(url, "/openapi.json")
        } else {
            url.clone()
        };
        self.document(&url, openapi::read).await
    }

    /// Asks a registry for each of the first words, and for everything if that finds nothing.
    async fn registry(&mut self, url: &Url) -> Result<(), Error> {
        let criteria = self.criteria;
        for word in criteria.words.iter().take(REGISTRY_WORDS) {
            self.servers(url, Some(word)).await?;
        }
        if self.read.listings.is_empty() {
            self.servers(url, None).await
        } else {
            Ok(())
        }
    }

    async fn servers(&mut self, url: &Url, word: Option<&str>) -> Result<(), Error> {
        let mut query = vec![("version", "latest")];
        query.extend(word.map(|word| ("search", word)));
        let old = url.path().trim_end_matches('/').ends_with("/v0/servers");
        if !old {
            let new = Series {
                url: below(url, "/v0.1/servers"),
                query: query.clone(),
                limit: PAGE,
                read: mcp_registry::read,
            };
            match self.series(new).await {
                Err(error) if is_missing(&error) => {}
                done => return done,
            }
        }
        self.series(Series {
            url: below(url, "/v0/servers"),
            query,
            limit: PAGE,
            read: mcp_registry::read,
        })
        .await
    }

    /// Reads pages until the list ends or repeats itself, or the limit is reached. Asks for less, once, if the list refuses
    /// the first request.
    async fn series(&mut self, mut series: Series<'_>) -> Result<(), Error> {
        let mut asked_for_less = false;
        let mut place = Place::Start;
        let mut offset = 0_usize;
        while self.left > 0 {
            let url = series.page(&place);
            let bytes = match self.fetcher.get(&url).await {
                Err(error)
                    if matches!(place, Place::Start)
                        && !std::mem::replace(&mut asked_for_less, true)
                        && series.ask_for_less(&error) =>
                {
                    self.unfiltered |= !series.query.iter().any(|(name, _)| *name == "network");
                    continue;
                }
                answer => answer?,
            };
            let page = (series.read)(&bytes).map_err(|error| error.at(&url))?;
            let next = page.next.clone();
            let items = page.items;
            offset = offset.saturating_add(items);
            self.left = self.left.saturating_sub(1);
            let fresh = self.take(page);
            place = match next {
                _ if items == 0 || !fresh => return Ok(()),
                Next::Total(total) if u64::try_from(offset).is_ok_and(|offset| offset < total) => {
                    Place::Offset(offset)
                }
                Next::Cursor(cursor) => Place::Cursor(cursor),
                Next::End | Next::Total(_) => return Ok(()),
            };
        }
        self.read.report.more = true;
        Ok(())
    }

    /// Reads a list of one page.
    async fn document(
        &mut self,
        url: &Url,
        read: impl Fn(&[u8], &Url) -> Result<Page, Error>,
    ) -> Result<(), Error> {
        let bytes = self.fetcher.get(url).await?;
        let page = read(&bytes, url).map_err(|error| error.at(url))?;
        self.take(page);
        Ok(())
    }

    /// Keeps the contents of a page. Returns whether the page is new.
    fn take(&mut self, page: Page) -> bool {
        if !self.seen.insert(page.digest) {
            return false;
        }
        let SourceContents { listings, report } = &mut self.read;
        report.pages = report.pages.saturating_add(1);
        report.items = report.items.saturating_add(page.items);
        report.skipped.extend(page.skipped);
        listings.extend(page.listings);
        true
    }
}

/// Returns whether the list exists and does not take the request as it is.
fn is_refusal(error: &Error) -> bool {
    let refusals = [StatusCode::BAD_REQUEST, StatusCode::UNPROCESSABLE_ENTITY];
    error
        .status()
        .is_some_and(|status| refusals.contains(&status))
}

/// Returns whether the answer means that there is no such list, so that another path may work.
fn is_missing(error: &Error) -> bool {
    let missing = [
        StatusCode::BAD_REQUEST,
        StatusCode::NOT_FOUND,
        StatusCode::METHOD_NOT_ALLOWED,
        StatusCode::GONE,
        StatusCode::UNPROCESSABLE_ENTITY,
        StatusCode::NOT_IMPLEMENTED,
    ];
    error
        .status()
        .is_some_and(|status| missing.contains(&status))
}

/// Returns the URL of a path of the same origin.
fn at_origin(url: &Url, path: &str) -> Url {
    let mut url = url.clone();
    url.set_path(path);
    url.set_query(None);
    url.set_fragment(None);
    url
}

/// Reads a page of any kind as if it came from `https://list.example`.
#[cfg(fuzzing)]
pub(crate) fn read_page(kind: SourceKind, bytes: &[u8]) -> Option<crate::fuzzing::Listed> {
    let url = Url::parse("https://list.example/").ok()?;
    let page = match kind {
        SourceKind::Bazaar => bazaar::read(bytes),
        SourceKind::WellKnown => well_known::read(bytes, &url),
        SourceKind::OpenApi => openapi::read(bytes, &url),
        SourceKind::Registry => mcp_registry::read(bytes),
    };
    let page = page.ok()?;
    let services = page.listings.into_iter().map(|listing| {
        let fit = super::Words::of(&listing.described).fit(&listing);
        (listing.url, listing.advertised, fit.words)
    });
    Some(crate::fuzzing::Listed {
        items: page.items,
        skipped: page.skipped,
        services: services.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_cut_at_a_word() {
        assert_eq!(cut_words("weather", 7), "weather");
        assert_eq!(cut_words("weather forecast", 15), "weather");
        assert_eq!(cut_words("weather forecast", 7), "weather");
        assert_eq!(cut_words("weather forecast", 8), "weather");
        assert_eq!(cut_words("weather", 3), "wea");
        assert_eq!(cut_words("天気予報", 2), "天気");
        assert_eq!(cut_words("a🌧🌧", 4), "a🌧");
        let long = "é".repeat(401);
        assert_eq!(cut_words(&long, 400).chars().count(), 400);
    }

    #[test]
    fn a_refusal_names_the_limit_of_a_page() {
        for (words, smaller) in [
            ("limit must be at most 20", Some(20)),
            ("\"limit\" must be between 1 and 50", Some(50)),
            ("Limit too large", Some(50)),
            ("unknown parameter `network`", None),
        ] {
            let message = format!("the list answers 400 Bad Request: {words}");
            assert_eq!(smaller_limit(&message, 100), smaller, "{words}");
        }
        assert_eq!(smaller_limit("the list answers 400: limit", 1), None);
    }
}
