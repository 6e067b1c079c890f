//! Where lists are, and reading one to its end or its bounds.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use http::StatusCode;
use url::Url;

use super::fetch::Fetcher;
use super::listing::Listing;
use super::page::{Next, Page, Skipped};
use super::{Criteria, bazaar, below, mcp_registry, openapi, well_known};
use crate::{Client, Error};

/// Items that are asked for in one page: as many as bazaars and registries give.
const PAGE: &str = "100";
/// Words that a registry is asked for, one after the other: it compares them with names as they stand.
const REGISTRY_WORDS: usize = 3;

/// What kind of list it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SourceKind {
    /// A facilitator's bazaar.
    Bazaar,
    /// An origin's `/.well-known/x402`.
    WellKnown,
    /// An OpenAPI document.
    OpenApi,
    /// An MCP registry.
    Registry,
}

impl SourceKind {
    /// The stable name, such as `well_known`.
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

/// What became of a source.
#[derive(Debug)]
#[non_exhaustive]
pub struct SourceReport {
    /// What kind of list it is.
    pub kind: SourceKind,
    /// As it was named.
    pub url: Url,
    /// How many pages were read.
    pub pages: usize,
    /// How many items they had, those skipped included.
    pub items: usize,
    /// What could not be used.
    pub skipped: Skipped,
    /// Whether the list went on when its bound of pages was reached.
    pub more: bool,
    /// Why reading ended early; what was read before is used.
    pub error: Option<Error>,
}

/// What may be read of one source.
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

/// A list to be read.
#[derive(Clone, Debug)]
pub(super) struct Source {
    kind: SourceKind,
    url: Url,
}

/// What was read of a source.
#[derive(Debug)]
pub(super) struct SourceContents {
    pub(super) listings: Vec<Listing>,
    pub(super) report: SourceReport,
}

impl Source {
    /// # Errors
    /// When the URL carries a user name or password, which would be sent.
    pub(super) fn new(kind: SourceKind, url: Url) -> Result<Self, Error> {
        if url.username().is_empty() && url.password().is_none() {
            return Ok(Self { kind, url });
        }
        Err(Error::builder("the URL of a list carries a user name or password").at(&url))
    }

    /// Reads the list, as far as the bounds and the list itself allow.
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

/// Reads one source.
struct Reader<'a> {
    fetcher: Fetcher<'a>,
    criteria: &'a Criteria,
    /// Pages that may still be read.
    left: usize,
    /// The pages that were read already: a list that repeats itself has ended.
    seen: HashSet<u64>,
    read: SourceContents,
}

/// A list in pages.
struct Series<'a> {
    url: Url,
    query: Vec<(&'static str, &'a str)>,
    read: fn(&[u8]) -> Result<Page, Error>,
}

/// A page's place in its list.
enum Place {
    Start,
    Offset(usize),
    Cursor(String),
}

impl Series<'_> {
    fn page(&self, place: &Place) -> Url {
        let mut url = self.url.clone();
        let mut query = url.query_pairs_mut();
        query.extend_pairs(&self.query).append_pair("limit", PAGE);
        match place {
            Place::Start => {}
            Place::Offset(offset) => drop(query.append_pair("offset", &offset.to_string())),
            Place::Cursor(cursor) => drop(query.append_pair("cursor", cursor)),
        }
        drop(query);
        url
    }
}

impl Reader<'_> {
    /// The search, if words are looked for and there is one; else the list.
    async fn bazaar(&mut self, url: &Url) -> Result<(), Error> {
        if !self.criteria.words.is_empty() {
            let text = self.criteria.text.as_str();
            let searched = self
                .resources(below(url, "/discovery/search"), Some(("query", text)))
                .await;
            self.read
                .listings
                .iter_mut()
                .for_each(|listing| listing.searched = true);
            match searched {
                Err(error) if is_missing(&error) => {}
                searched => return searched,
            }
        }
        self.resources(below(url, "/discovery/resources"), None)
            .await
    }

    /// One of a bazaar's two lists. Filters compare texts, so a network is asked for as both versions write it.
    async fn resources(
        &mut self,
        url: Url,
        query: Option<(&'static str, &str)>,
    ) -> Result<(), Error> {
        let criteria = self.criteria;
        let mut query: Vec<(&'static str, &str)> = query.into_iter().collect();
        query.extend(criteria.kind.map(|kind| ("type", kind.name())));
        let Some(network) = criteria.network else {
            return self
                .series(&Series {
                    url,
                    query,
                    read: bazaar::read,
                })
                .await;
        };
        let caip2 = network.to_string();
        for written in [Some(caip2.as_str()), network.name()].into_iter().flatten() {
            let query = query
                .iter()
                .copied()
                .chain([("network", written)])
                .collect();
            self.series(&Series {
                url: url.clone(),
                query,
                read: bazaar::read,
            })
            .await?;
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

    /// By each of the first words, and all of it where none is found: a registry compares one text with names.
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
                read: mcp_registry::read,
            };
            match self.series(&new).await {
                Err(error) if is_missing(&error) => {}
                done => return done,
            }
        }
        self.series(&Series {
            url: below(url, "/v0/servers"),
            query,
            read: mcp_registry::read,
        })
        .await
    }

    /// Reads page after page until the list ends, repeats itself or reaches its bound.
    async fn series(&mut self, series: &Series<'_>) -> Result<(), Error> {
        let mut place = Place::Start;
        let mut offset = 0_usize;
        while self.left > 0 {
            let url = series.page(&place);
            let bytes = self.fetcher.get(&url).await?;
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

    /// Reads a list that has no pages.
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

    /// Keeps what a page holds, and tells whether it is another page than those before.
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

/// Whether there is nothing of the kind at a place: another may be tried.
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

/// A path of the URL's origin.
fn at_origin(url: &Url, path: &str) -> Url {
    let mut url = url.clone();
    url.set_path(path);
    url.set_query(None);
    url.set_fragment(None);
    url
}

/// What a page of any kind of list comes to, read as if it came from `https://list.example`.
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
