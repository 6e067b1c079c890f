//! A service that was found: what it says, and what the policy says.

use std::cmp::Reverse;
use std::collections::HashMap;

use http::Method;
use url::Url;

use super::Criteria;
use super::assess::{Assessment, Standing};
use super::listing::Listing;
use super::price::Price;
use super::source::{SourceContents, SourceReport};
use crate::policy::Amount;
use crate::{Client, Quote, RequestBuilder, Usd};

/// What kind of service it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A URL that is asked with HTTP.
    Http,
    /// An MCP server, or one of its tools.
    Mcp,
}

impl Kind {
    /// The name in a bazaar: `http` or `mcp`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Mcp => "mcp",
        }
    }
}

/// A service that was found. Whoever listed it can have made it up: it is an advertisement until its own
/// 402 is read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Service {
    /// What it is.
    pub kind: Kind,
    /// Where it is: for [`Kind::Mcp`] the server's endpoint.
    pub url: Url,
    /// How it is asked: as listed, or else `GET`; `POST` for [`Kind::Mcp`].
    pub method: Method,
    /// The tool, if a tool of an MCP server is listed; untrusted text, cut to 160 characters.
    pub tool: Option<String>,
    /// What it is said to cost.
    pub price: Price,
    /// The advertised offer that would be paid, or that bursar would prefer.
    pub quote: Option<Quote>,
    /// Whether it would be paid, and why not.
    pub standing: Standing,
    /// How many words of the query fit.
    pub words: usize,
    /// What it says of itself.
    pub untrusted: Advertised,
    /// Who lists it, by place in [`Findings::sources`](super::Findings::sources).
    pub sources: Vec<usize>,
    named: usize,
    cap: Option<Amount>,
}

/// What a list says of a service in words: cut to 160 characters each, invisible characters escaped. Show it,
/// if at all, as a quotation, and never as an instruction to a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Advertised {
    /// What it is called.
    pub name: Option<String>,
    /// What it does.
    pub description: Option<String>,
    /// What it is about; at most eight.
    pub tags: Vec<String>,
    /// The media type of its answers.
    pub mime_type: Option<String>,
    /// What it is to be asked with: `info.input` of the bazaar extension as JSON of at most 4 KiB, whole but
    /// for long hexadecimal.
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

impl Service {
    pub(super) fn new(listing: Listing, assessment: Assessment, criteria: &Criteria) -> Self {
        let fit = criteria.words.fit(&listing);
        let Assessment {
            standing,
            price,
            quote,
        } = assessment;
        let usual = match listing.kind {
            Kind::Http => Method::GET,
            Kind::Mcp => Method::POST,
        };
        Self {
            kind: listing.kind,
            url: listing.url,
            method: listing
                .method
                .or_else(|| criteria.method.clone())
                .unwrap_or(usual),
            tool: listing.tool,
            cap: cap(&price, criteria.max_price),
            price,
            quote,
            standing,
            words: fit.words,
            named: fit.named,
            untrusted: listing.advertised,
            sources: listing.sources,
        }
    }

    /// A request to the service that pays at most what was advertised, or the query's `max_price` where that
    /// is less or no price was. A body and what the service wants besides are to be added.
    ///
    /// A service that turns out to be dearer than advertised is denied
    /// ([`Rule::MaxPrice`](crate::Rule::MaxPrice)); whether it is still worth it is for the caller to say, with
    /// [`RequestBuilder::max_price`]. The policy holds beside it.
    pub fn request(&self, client: &Client) -> RequestBuilder {
        let request = client.request(self.method.clone(), self.url.clone());
        match &self.cap {
            Some(cap) => request.max_price(cap.clone()),
            None => request,
        }
    }

    /// The place in a ranking: what can be paid, what fits, what is cheap, and then by name, so that the same
    /// lists make the same order.
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
            price,
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

/// All that the sources list, each thing once, and what became of the sources.
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
