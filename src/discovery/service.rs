//! The services of a query's result.

use std::cmp::Reverse;
use std::collections::HashMap;

use http::Method;
use url::Url;

use super::Criteria;
use super::assess::{Assessment, Standing};
use super::listing::Listing;
use super::price::Price;
use super::source::{SourceContents, SourceReport};
use crate::http::{Client, RequestBuilder};
use crate::money::Usd;
use crate::policy::Amount;
use crate::x402::Quote;

/// The kind of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A URL that is called over HTTP.
    Http,
    /// An MCP server, or one of its tools.
    Mcp,
}

impl Kind {
    /// Returns the name of the kind in a bazaar: `http` or `mcp`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Mcp => "mcp",
        }
    }

    /// Returns the method of a service whose list names none.
    pub(super) const fn default_method(self) -> Method {
        match self {
            Self::Http => Method::GET,
            Self::Mcp => Method::POST,
        }
    }
}

/// A service that a list advertises.
///
/// Anyone can list anything. The service's own 402 decides about the payment.
///
/// ```no_run
/// # async fn example(client: bursar::Client) -> Result<(), bursar::Error> {
/// let findings = client.discover().well_known("https://api.example.com").find("report").run().await?;
/// if let Some(service) = findings.best() {
///     println!("{} {} costs {}", service.method, service.url, service.price);
///     let response = service.request(&client).send().await?; // pays at most that price
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Service {
    /// The kind of the service.
    pub kind: Kind,
    /// The URL of the service, or the endpoint of the MCP server.
    pub url: Url,
    /// The method in the list, or else `GET`, or `POST` for [`Kind::Mcp`].
    pub method: Method,
    /// The tool of an MCP server, if the list names one: untrusted text of at most 160 characters.
    pub tool: Option<String>,
    /// The advertised price.
    pub price: Price,
    /// The advertised offer that bursar would choose.
    pub quote: Option<Quote>,
    /// Whether bursar would pay, and the reason if not.
    pub standing: Standing,
    /// The number of words of the query that match.
    pub words: usize,
    /// The texts in the list. They are untrusted.
    pub untrusted: Advertised,
    /// The use of the service as its list reports it.
    pub usage: Usage,
    /// The positions of the sources that list it in [`Findings::sources`](super::Findings::sources).
    pub sources: Vec<usize>,
    named: usize,
    cap: Option<Amount>,
}

/// The texts that describe a service in a list.
///
/// Each text has at most 160 characters, and invisible characters are escaped. If you show a text,
/// mark it as a quotation. Never pass it to a model as an instruction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Advertised {
    /// The name of the service.
    pub name: Option<String>,
    /// The description of the service.
    pub description: Option<String>,
    /// The tags of the service, at most eight.
    pub tags: Vec<String>,
    /// The media type of its answers.
    pub mime_type: Option<String>,
    /// The input of the service: `info.input` of the bazaar extension, as JSON of at most 4 KiB. Long
    /// runs of hexadecimal digits are masked.
    pub input: Option<String>,
}

impl Advertised {
    pub(super) fn complete(&mut self, other: Self) {
        let Self {
            name,
            description,
            tags,
            mime_type,
            input,
        } = other;
        self.name = self.name.take().or(name);
        self.description = self.description.take().or(description);
        self.mime_type = self.mime_type.take().or(mime_type);
        self.input = self.input.take().or(input);
        if self.tags.is_empty() {
            self.tags = tags;
        }
    }
}

/// The use of a service in the last 30 days, as its list reports it. CDP's bazaar does.
///
/// It is advertising: it orders services, and it widens no limit.
///
/// ```
/// use bursar::discovery::Usage;
///
/// assert_eq!(Usage::default().payers, None); // most lists report no use
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// The number of paid calls.
    pub calls: Option<u64>,
    /// The number of different payers.
    pub payers: Option<u64>,
    /// The time of the last call, as the list writes it: at most 40 digits, signs, `T` and `Z`.
    pub last_called: Option<String>,
    /// Whether the list recommends the service.
    pub curated: bool,
}

impl Usage {
    /// Returns the position in the order of usefulness: services in use, then services without a report, then services
    /// that nobody calls.
    pub(super) fn rank(&self) -> u8 {
        let counts = [self.calls, self.payers];
        if self.curated || counts.iter().flatten().any(|count| *count > 0) {
            0
        } else if counts.iter().any(Option::is_some) {
            2
        } else {
            1
        }
    }
}

impl Service {
    pub(super) fn new(listing: Listing, assessment: Assessment, criteria: &Criteria) -> Self {
        let fit = criteria.words.fit(&listing);
        let Assessment {
            standing,
            price,
            quote,
        } = assessment;
        Self {
            kind: listing.kind,
            url: listing.url,
            method: listing
                .method
                .or_else(|| criteria.method.clone())
                .unwrap_or(listing.kind.default_method()),
            tool: listing.tool,
            cap: cap(&price, criteria.max_price),
            price,
            quote,
            standing,
            words: fit.words,
            named: fit.named,
            untrusted: listing.advertised,
            usage: listing.usage,
            sources: listing.sources,
        }
    }

    /// Creates a request that pays at most the advertised price.
    ///
    /// It pays at most the query's `max_price` if that is lower, or if there is no advertised price. Add
    /// a body and other parts that the service needs.
    ///
    /// If the service asks for more, bursar denies the payment with
    /// [`Rule::MaxPrice`](crate::policy::Rule::MaxPrice). Call [`RequestBuilder::max_price`] to allow more. The
    /// limits of the policy apply too.
    pub fn request(&self, client: &Client) -> RequestBuilder {
        let request = client.request(self.method.clone(), self.url.clone());
        match &self.cap {
            Some(cap) => request.max_price(cap.clone()),
            None => request,
        }
    }

    /// Returns a key that sorts services: by standing, words, use, price, payers and words in names, and then by
    /// name, so that the same lists have the same order.
    pub(super) fn place(&self) -> impl Ord + use<> {
        let price = self.price.dollars().unwrap_or(Usd::MAX);
        let name = (
            self.url.to_string(),
            self.method.to_string(),
            self.tool.clone(),
        );
        (
            self.standing.rank(),
            Reverse(self.words),
            self.usage.rank(),
            price,
            Reverse((self.usage.payers, self.usage.calls)),
            Reverse(self.named),
            name,
        )
    }
}

fn cap(price: &Price, max: Option<Usd>) -> Option<Amount> {
    match (price.dollars(), max) {
        (Some(dollars), Some(max)) => Some(dollars.min(max).into()),
        (Some(dollars), None) => Some(dollars.into()),
        (None, Some(max)) => Some(max.into()),
        (None, None) => match price {
            Price::Token(amount) => Some(amount.clone().into()),
            _ => None,
        },
    }
}

/// Merges the lists of all sources, with one listing for each service.
pub(super) fn merged(contents: Vec<SourceContents>) -> (Vec<Listing>, Vec<SourceReport>) {
    let mut merged: Vec<Listing> = Vec::new();
    let mut places: HashMap<(Kind, Url, Option<String>), Vec<usize>> = HashMap::new();
    let mut reports = Vec::new();
    for (source, read) in contents.into_iter().enumerate() {
        reports.push(read.report);
        for mut listing in read.listings {
            listing.sources = vec![source];
            let here = places
                .entry((listing.kind, listing.url.clone(), listing.tool.clone()))
                .or_default();
            let same = here.iter().copied().find(|place| {
                merged
                    .get(*place)
                    .is_some_and(|known| known.is_same(&listing))
            });
            match same.and_then(|place| merged.get_mut(place)) {
                Some(known) => known.complete(listing),
                None => {
                    here.push(merged.len());
                    merged.push(listing);
                }
            }
        }
    }
    (merged, reports)
}
