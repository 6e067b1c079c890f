//! API keys: the hosts that receive them, their cost, and the choice between key and payment.
//!
//! bursar sends a key only to its hosts, over https or to an allowed loopback address. It follows no
//! redirect to another origin with a key. No log, error or ledger contains a key.

mod key_source;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue, StatusCode};
use reqwest::Request;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

pub use crate::call_plan::{CallPlan, Comparison, Month, ParsePlanError};
#[cfg(feature = "toml")]
pub(crate) use key_source::open_trusted;
pub use key_source::{EnvKey, FileKey, KeySource, KeySourceError};

use crate::error::{Error, ErrorKind};
use crate::origin::{HostMatch, Origin};
use crate::policy::PolicyError;
use key_source::AnySource;

/// The API keys of a client, by host.
///
/// ```
/// use bursar::{Client, Credential, Credentials, usd};
/// use bursar::credential::{EnvKey, CallPlan, Preference};
///
/// let keys = Credentials::new().host(
///     "api.example.com",
///     Credential::bearer("example", EnvKey::new("EXAMPLE_API_KEY"))
///         .plan(CallPlan::per_call(usd!("0.002")).monthly(usd!("10")).included(1000))
///         .prefer(Preference::KeyFirst),
/// );
/// let client = Client::builder().credentials(keys).build()?;
/// # Ok::<(), bursar::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    keys: Vec<(HostMatch, Arc<Credential>)>,
    mistake: Option<PolicyError>,
}

impl Credentials {
    /// Creates an empty set of keys.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a key for a host.
    ///
    /// `host` is a host such as `api.example.com`, a pattern such as `*.example.com`, or an origin such
    /// as `https://api.example.com:8443`. If several match a request, bursar uses the most specific: an
    /// origin, then a host, then the longest pattern. Among equals it uses the first.
    ///
    /// [`ClientBuilder::build`](crate::ClientBuilder::build) reports a host that is none of these.
    #[must_use]
    pub fn host(mut self, host: &str, credential: Credential) -> Self {
        match host.parse::<HostMatch>() {
            Ok(host) => self.keys.push((host, Arc::new(credential))),
            Err(error) => self.mistake = self.mistake.or(Some(error.into())),
        }
        self
    }

    /// Takes the keys in environment variables from `values`, which gets the name of each variable.
    ///
    /// Use this if your program reads and removes secrets at its start. A key stays in the environment if `values`
    /// returns `None`.
    ///
    /// ```
    /// use bursar::{Credential, Credentials};
    /// use bursar::credential::EnvKey;
    ///
    /// let mut names = Vec::new();
    /// let keys = Credentials::new()
    ///     .host("api.example.com", Credential::bearer("example", EnvKey::new("EXAMPLE_API_KEY")))
    ///     .environment(|name| {
    ///         names.push(name.to_owned());
    ///         Some("from a vault".into())
    ///     });
    /// assert_eq!(names, ["EXAMPLE_API_KEY"]);
    /// ```
    #[must_use]
    pub fn environment(mut self, mut values: impl FnMut(&str) -> Option<SecretString>) -> Self {
        for (_, credential) in &mut self.keys {
            Arc::make_mut(credential).source.supply(&mut values);
        }
        self
    }

    /// Returns the keys with this name, without the others.
    ///
    /// Use it if a program has several keys for one host.
    ///
    /// ```
    /// use bursar::{Credential, Credentials};
    /// use bursar::credential::EnvKey;
    ///
    /// let keys = Credentials::new()
    ///     .host("api.example.com", Credential::bearer("team", EnvKey::new("TEAM_KEY")))
    ///     .host("api.example.com", Credential::bearer("batch", EnvKey::new("BATCH_KEY")));
    /// assert_eq!(keys.only("batch").names().collect::<Vec<_>>(), ["batch"]);
    /// ```
    #[must_use]
    pub fn only(&self, name: &str) -> Self {
        let named = self.keys.iter().filter(|(_, key)| key.name == name);
        Self {
            keys: named.cloned().collect(),
            mistake: self.mistake.clone(),
        }
    }

    /// Returns whether there are no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns the names of the keys, in the order in which they were added.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.keys
            .iter()
            .map(|(_, credential)| credential.name.as_str())
    }

    /// Returns the key that a request to `origin` would be sent with.
    #[must_use]
    pub fn find(&self, origin: &Origin) -> Option<&Credential> {
        self.shared(origin).map(AsRef::as_ref)
    }

    /// Returns a sentence for each key that is missing or cannot be read at present, such as one whose environment variable is
    /// not set.
    pub async fn missing_keys(&self) -> Vec<Error> {
        let mut missing = Vec::new();
        for (_, credential) in &self.keys {
            match credential.key().await {
                Ok(Some(_)) => {}
                Ok(None) => missing.push(credential.missing()),
                Err(error) => missing.push(error),
            }
        }
        missing
    }

    /// Describes the place of the key of the request's host, such as ``the header `authorization` ``, if the request has a
    /// value there already. bursar sends such a request as it is, without the key.
    ///
    /// Refuse such a request if a stranger wrote it, such as a model. A password in the URL counts as a header, because
    /// reqwest sends it as one.
    ///
    /// ```
    /// use bursar::credential::EnvKey;
    /// use bursar::{Credential, Credentials, reqwest};
    ///
    /// let key = Credential::header("weather", "x-api-key", EnvKey::new("WEATHER_KEY"));
    /// let keys = Credentials::new().host("api.example.com", key);
    /// let url = "https://api.example.com/report".parse()?;
    /// let mut request = reqwest::Request::new(reqwest::Method::GET, url);
    /// assert_eq!(keys.taken_place(&request), None);
    /// request.headers_mut().insert("X-API-Key", "mine".parse()?);
    /// assert_eq!(keys.taken_place(&request).as_deref(), Some("the header `x-api-key`"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn taken_place(&self, request: &Request) -> Option<String> {
        let key = self.find(&Origin::of(request.url())?)?;
        let url = request.url();
        let in_url = !url.username().is_empty() || url.password().is_some();
        let taken = match &key.placement {
            Placement::Bearer | Placement::Basic { .. } if in_url => true,
            Placement::Header(name) => {
                let mut names = request.headers().keys();
                names.any(|other| dashed(other) == dashed(name))
            }
            _ => key.is_taken(request),
        };
        taken.then(|| match &key.placement {
            Placement::Bearer | Placement::Basic { .. } => "the header `authorization`".to_owned(),
            Placement::Header(name) => format!("the header `{name}`"),
            Placement::Query(parameter) => format!("the query parameter `{parameter}`"),
        })
    }

    pub(crate) fn shared(&self, origin: &Origin) -> Option<&Arc<Credential>> {
        let matching = self.keys.iter().filter(|(host, _)| host.matches(origin));
        // `max_by_key` returns the last of equals, so go backwards to get the first.
        let best = matching.rev().max_by_key(|(host, _)| host.specificity());
        best.map(|(_, credential)| credential)
    }

    /// Returns the first mistake that was made with the builder.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if let Some(error) = &self.mistake {
            return Err(error.clone().into());
        }
        for (position, (_, credential)) in self.keys.iter().enumerate() {
            credential.check()?;
            let same = |(_, other): &&(HostMatch, Arc<Credential>)| other.name == credential.name;
            if self
                .keys
                .iter()
                .take(position)
                .any(|earlier| same(&earlier) && earlier.1.plan != credential.plan)
            {
                let message = format!(
                    "the credential `{}` is given twice with different plans",
                    credential.name
                );
                return Err(Error::builder(message));
            }
        }
        Ok(())
    }
}

/// Returns the name of a header with dashes in place of underscores. Many servers take the two for one.
pub(crate) fn dashed(name: &HeaderName) -> Cow<'_, str> {
    if name.as_str().contains('_') {
        name.as_str().replace('_', "-").into()
    } else {
        name.as_str().into()
    }
}

/// An API key: its source, the way to send it, its cost, and the conditions for a payment instead.
///
/// ```
/// use bursar::Credential;
/// use bursar::credential::{FileKey, Preference};
///
/// let credential = Credential::header("weather", "x-api-key", FileKey::new("weather.key"))
///     .prefer(Preference::KeyFirst)
///     .pay_when([402, 429]); // pay if the key's quota is used up
/// assert_eq!(credential.name(), "weather");
/// ```
#[derive(Clone)]
pub struct Credential {
    name: String,
    placement: Placement,
    source: AnySource,
    preference: Preference,
    plan: CallPlan,
    pay_when: Vec<StatusCode>,
    pay_when_missing: bool,
    mistake: Option<String>,
}

/// The place of a key in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Placement {
    Bearer,
    Header(HeaderName),
    Basic { user: String },
    Query(String),
}

/// The choice between key and payment, for a host that accepts both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Preference {
    /// Sends the key. Pays if the key is missing or refused; see [`Credential::pay_when`].
    #[default]
    KeyFirst,
    /// Pays if the seller asks for a price and the policy allows it. Otherwise sends the key. Also
    /// sends the key if the request without it is answered with 401 or 403.
    PayFirst,
    /// Sends the key and never pays. Without a key it sends nothing and returns an error. Returns a
    /// 402 as it is.
    ///
    /// This is a rule of the host. bursar also denies the payment of a request that brings its own `Authorization`, and
    /// of a tool that the [payer](crate::Client::payer) of the client calls on this host.
    NeverPay,
    /// Never sends the key.
    NeverKey,
    /// Sends the key if the plan's next call costs at most the seller's price. Otherwise pays. Asks
    /// for no price if the next call is free.
    Cheapest,
}

impl Credential {
    /// The statuses of an answer that refuses a key: unknown, exhausted, forbidden, or too many calls.
    const TURNED_AWAY: [StatusCode; 4] = [
        StatusCode::UNAUTHORIZED,
        StatusCode::PAYMENT_REQUIRED,
        StatusCode::FORBIDDEN,
        StatusCode::TOO_MANY_REQUESTS,
    ];

    /// Creates a key that is sent as `Authorization: Bearer`.
    ///
    /// `name` identifies the key in the ledger and in errors. It is not secret.
    #[must_use]
    pub fn bearer(name: impl Into<String>, source: impl KeySource) -> Self {
        Self::new(name.into(), Placement::Bearer, source)
    }

    /// Creates a key that is sent in a header such as `x-api-key`.
    ///
    /// [`ClientBuilder::build`](crate::ClientBuilder::build) reports an invalid header name.
    #[must_use]
    pub fn header(name: impl Into<String>, header: &str, source: impl KeySource) -> Self {
        match header.parse::<HeaderName>() {
            Ok(header) => Self::new(name.into(), Placement::Header(header), source),
            Err(_) => {
                let mut credential = Self::new(name.into(), Placement::Bearer, source);
                credential.mistake = Some(format!(
                    "`{}` is not a header's name",
                    crate::text::excerpt(header)
                ));
                credential
            }
        }
    }

    /// Creates a key that is sent as the password of HTTP basic authentication.
    #[must_use]
    pub fn basic(name: impl Into<String>, user: impl Into<String>, source: impl KeySource) -> Self {
        Self::new(name.into(), Placement::Basic { user: user.into() }, source)
    }

    /// Creates a key that is sent as a query parameter.
    ///
    /// bursar removes it from the response's URL. The seller's logs can still contain it. Prefer a
    /// header.
    #[must_use]
    pub fn query(
        name: impl Into<String>,
        parameter: impl Into<String>,
        source: impl KeySource,
    ) -> Self {
        Self::new(name.into(), Placement::Query(parameter.into()), source)
    }

    fn new(name: String, placement: Placement, source: impl KeySource) -> Self {
        Self {
            name,
            placement,
            source: AnySource::new(source),
            preference: Preference::default(),
            plan: CallPlan::default(),
            pay_when: Self::TURNED_AWAY.to_vec(),
            pay_when_missing: true,
            mistake: None,
        }
    }

    /// Sets the choice between key and payment. The default is [`Preference::KeyFirst`].
    #[must_use]
    pub const fn prefer(mut self, preference: Preference) -> Self {
        self.preference = preference;
        self
    }

    /// Declares the cost of the key's calls. The default is zero.
    ///
    /// The ledger records every call with its cost, and the policy's dollar limits apply to it.
    #[must_use]
    pub fn plan(mut self, plan: CallPlan) -> Self {
        self.plan = plan;
        self
    }

    /// Sets the statuses of an answer to the key after which bursar pays. The default is 401, 402, 403
    /// and 429.
    #[must_use]
    pub fn pay_when(mut self, statuses: impl IntoIterator<Item = u16>) -> Self {
        let read: Result<Vec<_>, _> = statuses.into_iter().map(StatusCode::from_u16).collect();
        match read {
            Ok(statuses) => self.pay_when = statuses,
            Err(_) => self.mistake = Some("pay_when takes statuses from 100 to 999".to_owned()),
        }
        self
    }

    /// Sets whether bursar pays if the key is missing. The default is `true`.
    #[must_use]
    pub const fn pay_when_missing(mut self, pay: bool) -> Self {
        self.pay_when_missing = pay;
        self
    }

    /// Returns the name of the key in the ledger.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the choice between key and payment.
    #[must_use]
    pub const fn preference(&self) -> Preference {
        self.preference
    }

    /// Returns the declared cost of the key's calls.
    #[must_use]
    pub const fn declared_plan(&self) -> &CallPlan {
        &self.plan
    }

    fn check(&self) -> Result<(), Error> {
        if self.name.is_empty() {
            return Err(Error::builder(
                "a credential needs a name: the ledger records its calls under it",
            ));
        }
        match &self.mistake {
            Some(mistake) => Err(Error::builder(format!(
                "credential `{}`: {mistake}",
                self.name
            ))),
            None => Ok(()),
        }
    }

    pub(crate) fn is_turned_away(status: StatusCode) -> bool {
        Self::TURNED_AWAY.contains(&status)
    }

    pub(crate) fn pays_for(&self, status: StatusCode) -> bool {
        self.pay_when.contains(&status)
    }

    pub(crate) const fn pays_when_missing(&self) -> bool {
        self.pay_when_missing
    }

    /// Reads the key from its source.
    pub(crate) async fn key(&self) -> Result<Option<SecretString>, Error> {
        let key = self.source.key().await;
        key.map_err(|error| {
            Error::new(
                ErrorKind::Credential,
                format!("the key `{}` cannot be read: {error}", self.name),
            )
            .because(error)
        })
    }

    pub(crate) fn missing(&self) -> Error {
        Error::new(
            ErrorKind::Credential,
            format!("there is no key `{}`: {}", self.name, self.source.place()),
        )
    }

    /// Returns whether the request already has a value in the key's place.
    pub(crate) fn is_taken(&self, request: &Request) -> bool {
        match &self.placement {
            Placement::Bearer | Placement::Basic { .. } => {
                request.headers().contains_key(AUTHORIZATION)
            }
            Placement::Header(name) => request.headers().contains_key(name),
            Placement::Query(parameter) => request
                .url()
                .query_pairs()
                .any(|(name, _)| name == parameter.as_str()),
        }
    }

    /// Removes the key from a URL. A redirect can repeat it there.
    pub(crate) fn detach(&self, url: &mut Url) {
        let Placement::Query(parameter) = &self.placement else {
            return;
        };
        let others: Vec<(String, String)> = url
            .query_pairs()
            .filter(|(name, _)| name != parameter.as_str())
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        if others.len() == url.query_pairs().count() {
            return;
        }
        url.set_query(None);
        if !others.is_empty() {
            url.query_pairs_mut().extend_pairs(others);
        }
    }

    /// Adds the key to a request.
    pub(crate) fn attach(&self, key: &SecretString, request: &mut Request) -> Result<(), Error> {
        let key = key.expose_secret();
        let (header, value) = match &self.placement {
            Placement::Bearer => (AUTHORIZATION, format!("Bearer {key}")),
            Placement::Header(name) => (name.clone(), key.to_owned()),
            Placement::Basic { user } => (
                AUTHORIZATION,
                format!("Basic {}", STANDARD.encode(format!("{user}:{key}"))),
            ),
            Placement::Query(parameter) => {
                self.detach(request.url_mut());
                request
                    .url_mut()
                    .query_pairs_mut()
                    .append_pair(parameter, key);
                return Ok(());
            }
        };
        let mut value = SecretString::from(value)
            .expose_secret()
            .parse::<HeaderValue>()
            .map_err(|_| {
                let message = format!(
                    "the key `{}` has characters that a header cannot carry",
                    self.name
                );
                Error::new(ErrorKind::Credential, message)
            })?;
        value.set_sensitive(true);
        request.headers_mut().insert(header, value);
        Ok(())
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("name", &self.name)
            .field("placement", &self.placement)
            .field("preference", &self.preference)
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}
