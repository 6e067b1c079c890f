//! Finding services that can be paid: who sells what, for how much, and whether the policy would buy it.
//!
//! [`Discovery`] reads what others list: a facilitator's bazaar, an origin's own `/.well-known/x402`, an
//! OpenAPI document with `x-payment-info`, an MCP registry. [`Query::run`] ranks what fits: what the
//! client's policy would pay first, and of everything else why not.
//!
//! All of it is advertising. Nothing that is found is asked, nothing is paid, and no list can widen a
//! limit: the 402 of the service decides when it is called, under the policy as ever. What
//! [`Service::request`] makes pays at most what was advertised.
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
//! # Bounds
//!
//! Lists are hostile until read. A page is at most 4 MiB, a source at most 16 MiB, [10 pages](Discovery::pages)
//! and [20 seconds](Discovery::time); an item is at most 64 KiB. Items are read one by one: one that cannot be
//! read is skipped, counted, and its reason kept ([`SourceReport::skipped`]). Redirects are followed within the
//! origin only, https or an allowed loopback is required and private addresses are refused where the client
//! refuses them. The requests carry no payment. What the caller's [`reqwest::ClientBuilder`] adds to every request
//! is in these too.

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
pub use service::{Advertised, Kind, Service};
pub use source::{SourceKind, SourceReport};

use crate::{Client, Error, Network, PolicyError, Usd};
use ranking::Words;
use source::{Bounds, Source, SourceContents};

#[cfg(fuzzing)]
pub(crate) use source::read_page;

/// Services that are listed by [`Findings`] unless the query says otherwise.
const LIMIT: usize = 20;
/// Candidates that the policy is asked about: each costs a look into the books.
const MAX_ASSESSED: usize = 256;

/// Where to look for services. See the [module](self) for an example.
#[derive(Debug)]
#[must_use = "nothing is looked for until a query is run"]
pub struct Discovery {
    client: Client,
    sources: Sources,
    bounds: Bounds,
    mistake: Option<Error>,
}

impl Client {
    /// Starts a search for services that can be paid. See [`discovery`](crate::discovery).
    pub fn discover(&self) -> Discovery {
        Discovery::new(self)
    }
}

impl Discovery {
    /// Looks with this client: its transport, its rules on where requests may go, and its policy.
    pub fn new(client: &Client) -> Self {
        Self {
            client: client.clone(),
            sources: Sources::default(),
            bounds: Bounds::default(),
            mistake: None,
        }
    }

    /// Adds a facilitator's bazaar by the facilitator's URL, such as `https://x402.org/facilitator`.
    ///
    /// `/discovery/search` is asked, and `/discovery/resources` where there is no such thing or no words
    /// are looked for.
    pub fn bazaar<U: IntoUrl>(self, facilitator: U) -> Self {
        self.source(SourceKind::Bazaar, facilitator)
    }

    /// Adds what an origin lists in its `/.well-known/x402`, or else `/.well-known/x402.json`.
    pub fn well_known<U: IntoUrl>(self, origin: U) -> Self {
        self.source(SourceKind::WellKnown, origin)
    }

    /// Adds the operations with `x-payment-info` of an OpenAPI document in JSON: by its URL, or by an
    /// origin, whose `/openapi.json` is read.
    pub fn openapi<U: IntoUrl>(self, url: U) -> Self {
        self.source(SourceKind::OpenApi, url)
    }

    /// Adds an MCP registry with the official registry API, such as
    /// `https://registry.modelcontextprotocol.io`: `/v0.1/servers`, or `/v0/servers` where that is missing.
    pub fn registry<U: IntoUrl>(self, registry: U) -> Self {
        self.source(SourceKind::Registry, registry)
    }

    /// Adds sources that were read from a policy file.
    pub fn sources(mut self, sources: &Sources) -> Self {
        self.sources.0.extend_from_slice(&sources.0);
        self
    }

    /// How many pages of a source are read; 10 unless set.
    pub const fn pages(mut self, most: usize) -> Self {
        self.bounds.pages = most;
        self
    }

    /// How long a source may take, all its pages together; 20 seconds unless set.
    pub const fn time(mut self, limit: Duration) -> Self {
        self.bounds.time = limit;
        self
    }

    /// Looks for services that these words fit; for all, when there are none.
    ///
    /// Words are compared with the beginnings of the words in what a service says of itself and in its
    /// URL, in any case. A service that none of them fits is left out, unless a bazaar's own search named
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

/// Places to look for services, as a policy file names them.
#[derive(Clone, Debug, Default)]
pub struct Sources(Vec<Source>);

impl Sources {
    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// # Errors
    /// When the URL carries a user name or password, which would be sent.
    pub(crate) fn add(&mut self, kind: SourceKind, url: Url) -> Result<(), Error> {
        self.0.push(Source::new(kind, url)?);
        Ok(())
    }
}

/// What is looked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Criteria {
    pub(crate) text: String,
    pub(crate) words: Words,
    pub(crate) max_price: Option<Usd>,
    pub(crate) network: Option<Network>,
    pub(crate) method: Option<Method>,
    pub(crate) kind: Option<Kind>,
}

/// A query under construction; mistakes in it are reported when it is run.
#[derive(Debug)]
#[must_use = "a query does nothing until it is run"]
pub struct Query {
    discovery: Discovery,
    criteria: Criteria,
    limit: usize,
}

impl Query {
    /// Leaves over what is advertised for at most this much; dearer services are listed as denied.
    pub const fn max_price(mut self, max: Usd) -> Self {
        self.criteria.max_price = Some(max);
        self
    }

    /// Leaves over offers on this network, by name or CAIP-2.
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

    /// Leaves out HTTP services that are known to have another method, and MCP servers.
    pub fn method(mut self, method: Method) -> Self {
        self.criteria.method = Some(method);
        self
    }

    /// Leaves out services of the other kind.
    pub const fn only(mut self, kind: Kind) -> Self {
        self.criteria.kind = Some(kind);
        self
    }

    /// Lists at most so many services; 20 unless set, 256 at most.
    pub const fn limit(mut self, most: usize) -> Self {
        self.limit = most;
        self
    }

    /// Reads all sources, at once, and ranks what was found. Sends nothing to the services, signs nothing
    /// and holds nothing.
    ///
    /// A source that fails is reported in [`Findings::sources`], with what was read before.
    ///
    /// # Errors
    /// A mistake in the query, no source at all, or books that cannot be read.
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
                "there is nowhere to look; name a bazaar, an origin or a registry",
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

/// Reads the sources at once, and returns what they list in the order they were named.
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

/// What was found.
#[derive(Debug)]
#[non_exhaustive]
pub struct Findings {
    /// What fits, the most useful first: by [`Standing`], then by how many of the words fit, then by
    /// price.
    pub services: Vec<Service>,
    /// What became of each source, in the order they were named.
    pub sources: Vec<SourceReport>,
    /// How many more services fit and are not listed.
    pub left_out: usize,
}

impl Findings {
    /// The services that would be paid at the advertised price, or after somebody was asked.
    pub fn payable(&self) -> impl Iterator<Item = &Service> {
        self.services
            .iter()
            .filter(|service| service.standing.is_payable())
    }

    /// The first service that would be paid at the advertised price, nobody being asked.
    #[must_use]
    pub fn best(&self) -> Option<&Service> {
        self.services
            .first()
            .filter(|service| matches!(service.standing, Standing::Payable))
    }
}

/// A URL with another path and no query: `path` below what the URL has, once.
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
    fn paths_are_put_below_a_base_once() {
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
