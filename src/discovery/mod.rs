//! A search for services that can be paid, with their prices and the answer of the policy.
//!
//! [`Discovery`] reads the lists of others: the bazaar of a facilitator, `/.well-known/x402` of an
//! origin, an OpenAPI document with `x-payment-info`, or an MCP registry. [`Query::run`] ranks the
//! services that match. Services that the client's policy would pay come first. Each of the others has
//! the reason against it.
//!
//! A list is advertising. bursar sends nothing to a listed service and pays nothing. No list can widen
//! a limit: when you call a service, its own 402 and your policy decide. A request from
//! [`Service::request`] pays at most the advertised price.
//!
//! ```no_run
//! use bursar::{Client, usd};
//!
//! # async fn example(client: Client) -> Result<(), bursar::Error> {
//! let findings = client
//!     .discover()
//!     .bazaar("https://x402.org/facilitator")
//!     .well_known("https://api.example.com")
//!     .find("weather forecast")
//!     .max_price(usd!("0.01"))
//!     .network("base")
//!     .run()
//!     .await?;
//! for service in &findings.services {
//!     println!("{} {}: {}", service.method, service.url, service.standing);
//! }
//! if let Some(best) = findings.best() {
//!     let response = best.request(&client).send().await?;
//!     println!("{}", response.status());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Limits
//!
//! Lists can be hostile. A page has at most 4 MiB, an item at most 64 KiB, and a source at most 16 MiB,
//! [10 pages](Discovery::pages) and [20 seconds](Discovery::time). bursar skips an item that it cannot
//! read and counts it in [`SourceReport::skipped`]. It follows redirects within the origin only. It
//! connects only over https or to an allowed loopback address, and obeys the client's rule on private
//! addresses. The requests carry no payment and no API key. They do carry the default headers of your
//! [`reqwest::ClientBuilder`].

mod assess;
mod bazaar;
mod fetch;
mod listing;
mod mcp_registry;
mod openapi;
mod page;
mod price;
mod ranking;
mod service;
mod source;
mod well_known;

use std::time::Duration;

use http::Method;
use reqwest::IntoUrl;
use tokio::task::JoinSet;
use url::Url;

pub use assess::Standing;
pub use page::Skipped;
pub use price::Price;
pub use service::{Advertised, Kind, Service, Usage};
pub use source::{SourceKind, SourceReport};

use crate::error::Error;
use crate::http::Client;
use crate::money::{Network, Usd};
use crate::policy::PolicyError;
use ranking::Words;
use source::{Bounds, Source, SourceContents};

#[cfg(fuzzing)]
pub(crate) use source::read_page;

/// The default number of services in [`Findings`].
const LIMIT: usize = 20;
/// The number of services that bursar asks the policy about. Each one needs a read of the ledger.
const MAX_ASSESSED: usize = 256;

/// The sources of a search. See the [module](self) for an example.
#[derive(Debug)]
#[must_use = "nothing is looked for until a query is run"]
pub struct Discovery {
    client: Client,
    sources: Sources,
    bounds: Bounds,
    mistake: Option<Error>,
}

impl Client {
    /// Starts a search for services that can be paid; see [`discovery`](crate::discovery).
    pub fn discover(&self) -> Discovery {
        Discovery::new(self)
    }
}

impl Discovery {
    /// Creates a search with the transport, the connection rules and the policy of this client.
    pub fn new(client: &Client) -> Self {
        Self {
            client: client.clone(),
            sources: Sources::default(),
            bounds: Bounds::default(),
            mistake: None,
        }
    }

    /// Adds the bazaar of a facilitator, by a URL such as `https://x402.org/facilitator`.
    ///
    /// bursar reads `/discovery/search`. It reads `/discovery/resources` if there is no search or the
    /// query has no words. It keeps to the limits of the largest bazaar, that of CDP: a search returns at most
    /// 20 services, and its text is cut to 400 characters.
    pub fn bazaar<U: IntoUrl>(self, facilitator: U) -> Self {
        self.source(SourceKind::Bazaar, facilitator)
    }

    /// Adds the list of an origin: `/.well-known/x402`, or else `/.well-known/x402.json`.
    pub fn well_known<U: IntoUrl>(self, origin: U) -> Self {
        self.source(SourceKind::WellKnown, origin)
    }

    /// Adds the operations with `x-payment-info` of an OpenAPI document in JSON.
    ///
    /// `url` is the document's URL, or an origin with a document at `/openapi.json`.
    pub fn openapi<U: IntoUrl>(self, url: U) -> Self {
        self.source(SourceKind::OpenApi, url)
    }

    /// Adds an MCP registry with the official API, such as `https://registry.modelcontextprotocol.io`.
    ///
    /// bursar reads `/v0.1/servers`, or else `/v0/servers`.
    pub fn registry<U: IntoUrl>(self, registry: U) -> Self {
        self.source(SourceKind::Registry, registry)
    }

    /// Adds the sources of a policy file.
    pub fn sources(mut self, sources: &Sources) -> Self {
        self.sources.0.extend_from_slice(&sources.0);
        self
    }

    /// Sets the number of pages to read from a source. The default is 10.
    pub const fn pages(mut self, most: usize) -> Self {
        self.bounds.pages = most;
        self
    }

    /// Sets the time limit of a source, for all its pages. The default is 20 seconds.
    pub const fn time(mut self, limit: Duration) -> Self {
        self.bounds.time = limit;
        self
    }

    /// Creates a query for services that match these words. An empty text matches every service.
    ///
    /// A word matches the beginning of a word in the service's URL or description, in upper or lower
    /// case. bursar leaves out a service that matches no word, unless a bazaar's own search returned
    /// it.
    pub fn find(self, words: &str) -> Query {
        let criteria = Criteria {
            words: Words::of(words),
            text: words.trim().to_owned(),
            ..Criteria::default()
        };
        Query {
            discovery: self,
            criteria,
            limit: LIMIT,
        }
    }

    fn source<U: IntoUrl>(mut self, kind: SourceKind, url: U) -> Self {
        if let Err(error) = url
            .into_url()
            .map_err(Error::http)
            .and_then(|url| self.sources.add(kind, url))
        {
            self.mistake.get_or_insert(error);
        }
        self
    }
}

/// The places to look for services, from a policy file.
#[derive(Clone, Debug, Default)]
pub struct Sources(Vec<Source>);

impl Sources {
    /// Returns whether there are no sources.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a source.
    ///
    /// # Errors
    /// Returns an error if the URL has a user name or password, because bursar would send them.
    pub(crate) fn add(&mut self, kind: SourceKind, url: Url) -> Result<(), Error> {
        self.0.push(Source::new(kind, url)?);
        Ok(())
    }
}

/// The criteria of a query.
#[derive(Clone, Debug, Default)]
pub(crate) struct Criteria {
    pub(crate) text: String,
    pub(crate) words: Words,
    pub(crate) max_price: Option<Usd>,
    pub(crate) network: Option<Network>,
    pub(crate) method: Option<Method>,
    pub(crate) kind: Option<Kind>,
}

/// A query for services. [`run`](Self::run) reports a mistake in it.
#[derive(Debug)]
#[must_use = "a query does nothing until it is run"]
pub struct Query {
    discovery: Discovery,
    criteria: Criteria,
    limit: usize,
}

impl Query {
    /// Denies services with a higher advertised price. They stay in the list.
    pub const fn max_price(mut self, max: Usd) -> Self {
        self.criteria.max_price = Some(max);
        self
    }

    /// Considers only offers on this network, which is a name or CAIP-2.
    pub fn network<N>(mut self, network: N) -> Self
    where
        N: TryInto<Network>,
        N::Error: Into<PolicyError>,
    {
        match network.try_into() {
            Ok(network) => self.criteria.network = Some(network),
            Err(error) => drop(
                self.discovery
                    .mistake
                    .get_or_insert(Error::from(error.into())),
            ),
        }
        self
    }

    /// Leaves out MCP servers and HTTP services with another known method.
    pub fn method(mut self, method: Method) -> Self {
        self.criteria.method = Some(method);
        self
    }

    /// Leaves out services of the other kind.
    pub const fn only(mut self, kind: Kind) -> Self {
        self.criteria.kind = Some(kind);
        self
    }

    /// Sets the number of services in the result. The default is 20, the maximum is 256.
    pub const fn limit(mut self, most: usize) -> Self {
        self.limit = most;
        self
    }

    /// Reads all sources at the same time and ranks the services.
    ///
    /// It sends nothing to the services, signs nothing and reserves nothing. If a source fails, its
    /// report in [`Findings::sources`] has the error, and the services read before count.
    ///
    /// # Errors
    /// Returns an error if the query has a mistake or no source, or if the ledger cannot be read.
    pub async fn run(self) -> Result<Findings, Error> {
        let Self {
            discovery:
                Discovery {
                    client,
                    sources,
                    bounds,
                    mistake,
                },
            criteria,
            limit,
        } = self;
        if let Some(mistake) = mistake {
            return Err(mistake);
        }
        if sources.is_empty() {
            return Err(Error::builder(
                "there is nowhere to look; add a bazaar, an origin or a registry",
            ));
        }
        let contents = read(&client, sources.0, &criteria, bounds).await?;
        let (listings, reports) = service::merged(contents);
        let fitting = ranking::fitting(listings, &criteria);
        let found = fitting.len();
        let stopped = match client.payer() {
            Some(payer) => payer.stopped().await?,
            None => None,
        };
        let mut services = Vec::new();
        for listing in fitting.into_iter().take(MAX_ASSESSED) {
            let assessment = assess::assess(&client, &criteria, &listing, stopped.as_ref()).await?;
            services.push(Service::new(listing, assessment, &criteria));
        }
        services.sort_by_cached_key(Service::place);
        services.truncate(limit);
        let left_out = found.saturating_sub(services.len());
        Ok(Findings {
            services,
            sources: reports,
            left_out,
        })
    }
}

/// Reads the sources at the same time and returns their contents in the order of the sources.
async fn read(
    client: &Client,
    sources: Vec<Source>,
    criteria: &Criteria,
    bounds: Bounds,
) -> Result<Vec<SourceContents>, Error> {
    let mut tasks = JoinSet::new();
    for (place, source) in sources.into_iter().enumerate() {
        let (client, criteria) = (client.clone(), criteria.clone());
        drop(tasks.spawn(async move { (place, source.read(&client, &criteria, bounds).await) }));
    }
    let mut contents = Vec::new();
    while let Some(done) = tasks.join_next().await {
        contents.push(
            done.map_err(|error| Error::builder("reading a source ended early").because(error))?,
        );
    }
    contents.sort_by_key(|(place, _)| *place);
    Ok(contents.into_iter().map(|(_, read)| read).collect())
}

/// The result of a query.
#[derive(Debug)]
#[non_exhaustive]
pub struct Findings {
    /// The services that match, most useful first: by [`Standing`], then by the number of matching
    /// words, then by [`Usage`], then by price.
    pub services: Vec<Service>,
    /// A report on each source, in the order of the sources.
    pub sources: Vec<SourceReport>,
    /// The number of services that match and are not in `services`.
    pub left_out: usize,
}

impl Findings {
    /// Returns the services that bursar would pay at the advertised price, some after an approval.
    pub fn payable(&self) -> impl Iterator<Item = &Service> {
        self.services
            .iter()
            .filter(|service| service.standing.is_payable())
    }

    /// Returns the first service, if bursar would pay it at the advertised price without an approval.
    #[must_use]
    pub fn best(&self) -> Option<&Service> {
        self.services
            .first()
            .filter(|service| matches!(service.standing, Standing::Payable))
    }
}

/// Returns the URL with `path` appended to its path once, and without a query.
fn below(url: &Url, path: &str) -> Url {
    let mut url = url.clone();
    let base = url.path().trim_end_matches('/').to_owned();
    if !base.ends_with(path) {
        url.set_path(&format!("{base}{path}"));
    }
    url.set_query(None);
    url.set_fragment(None);
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_appended_to_a_base_once() {
        for (base, whole) in [
            ("https://a.example", "https://a.example/discovery/resources"),
            (
                "https://a.example/facilitator/?x=1#y",
                "https://a.example/facilitator/discovery/resources",
            ),
            (
                "https://a.example/discovery/resources",
                "https://a.example/discovery/resources",
            ),
        ] {
            assert_eq!(
                below(&base.parse().unwrap(), "/discovery/resources").as_str(),
                whole
            );
        }
    }
}
