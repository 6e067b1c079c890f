//! API keys beside payments: whose they are, where they go, and when paying is preferred.
//!
//! A key goes to the hosts it is for and to no other, over https (or an allowed loopback), never
//! through a redirect to another origin, and into no log, error or book.

mod plan;
mod source;

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue, StatusCode};
use reqwest::Request;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

pub use plan::{CallPlan, ParsePlanError};
pub use source::{EnvKey, FileKey, KeySource, KeySourceError};

use crate::policy::{HostMatch, PolicyError, host_match};
use crate::{Error, ErrorKind, Origin};
use source::AnySource;

/// The API keys that a client holds, by host.
///
/// ```
/// use bursar::{Client, Credential, Credentials, EnvKey, CallPlan, Preference, usd};
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
    /// No keys.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A key for a host such as `api.example.com`, a pattern such as `*.example.com`, or an origin such
    /// as `https://api.example.com:8443`. Of several that match, an origin's is used before a host's, a
    /// host's before a pattern's, a longer pattern's before a shorter's; of equals the first.
    #[must_use]
    pub fn host(mut self, host: &str, credential: Credential) -> Self {
        match host_match(host) {
            Ok(host) => self.keys.push((host, Arc::new(credential))),
            Err(error) => self.mistake = self.mistake.or(Some(error)),
        }
        self
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The names of the keys, in the order they were given.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.keys
            .iter()
            .map(|(_, credential)| credential.name.as_str())
    }

    /// The key that a request to `origin` would be sent with.
    #[must_use]
    pub fn find(&self, origin: &Origin) -> Option<&Credential> {
        self.shared(origin).map(AsRef::as_ref)
    }

    pub(crate) fn shared(&self, origin: &Origin) -> Option<&Arc<Credential>> {
        let matching = self.keys.iter().filter(|(host, _)| host.matches(origin));
        // The first of the most specific: `max_by_key` gives the last.
        let best = matching.rev().max_by_key(|(host, _)| host.specificity());
        best.map(|(_, credential)| credential)
    }

    /// The first mistake made in building it.
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

/// One key: where it comes from, how it is sent, what it costs, and when paying is preferred.
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

/// How a key is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Placement {
    Bearer,
    Header(HeaderName),
    Basic { user: String },
    Query(String),
}

/// Whether a host that takes both is called by key or by payment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Preference {
    /// By key; paid where the key is missing or turned away, see [`Credential::pay_when`].
    #[default]
    KeyFirst,
    /// SignedPayment where a price is asked and the policy allows it; by key where not, or where the request
    /// without it is answered 401 or 403.
    PayFirst,
    /// By key only. Without a key nothing is sent, and a 402 is handed up as it is.
    NeverPay,
    /// Without the key: as if there were none.
    NeverKey,
    /// By key if the plan's next call costs at most what the seller asks, else paid. What the plan
    /// includes is not asked about.
    Cheapest,
}

impl Credential {
    /// Answers that turn a key away: not known, exhausted, not allowed, too often.
    const TURNED_AWAY: [StatusCode; 4] = [
        StatusCode::UNAUTHORIZED,
        StatusCode::PAYMENT_REQUIRED,
        StatusCode::FORBIDDEN,
        StatusCode::TOO_MANY_REQUESTS,
    ];

    /// Sent as `Authorization: Bearer`. The name is what the books call the key by; it is no secret.
    #[must_use]
    pub fn bearer(name: impl Into<String>, source: impl KeySource) -> Self {
        Self::new(name.into(), Placement::Bearer, source)
    }

    /// Sent as the value of a header such as `x-api-key`.
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

    /// Sent as the password of HTTP basic authentication.
    #[must_use]
    pub fn basic(name: impl Into<String>, user: impl Into<String>, source: impl KeySource) -> Self {
        Self::new(name.into(), Placement::Basic { user: user.into() }, source)
    }

    /// Sent as a parameter of the query. It is taken out of the response's URL again; the seller's
    /// own logs will hold it.
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

    /// Key or payment; the key first unless set.
    #[must_use]
    pub const fn prefer(mut self, preference: Preference) -> Self {
        self.preference = preference;
        self
    }

    /// What the key's calls cost; nothing unless declared. The books count every call with it, and
    /// the policy's dollar limits hold for it.
    #[must_use]
    pub fn plan(mut self, plan: CallPlan) -> Self {
        self.plan = plan;
        self
    }

    /// The statuses of an answer to the key that are worth a payment: 401, 402, 403 and 429 unless set.
    #[must_use]
    pub fn pay_when(mut self, statuses: impl IntoIterator<Item = u16>) -> Self {
        let read: Result<Vec<_>, _> = statuses.into_iter().map(StatusCode::from_u16).collect();
        match read {
            Ok(statuses) => self.pay_when = statuses,
            Err(_) => self.mistake = Some("pay_when takes statuses from 100 to 999".to_owned()),
        }
        self
    }

    /// Whether a key that is not there is worth a payment; it is unless set.
    #[must_use]
    pub const fn pay_when_missing(mut self, pay: bool) -> Self {
        self.pay_when_missing = pay;
        self
    }

    /// What the books call the key by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Key or payment.
    #[must_use]
    pub const fn preference(&self) -> Preference {
        self.preference
    }

    /// What its calls are declared to cost.
    #[must_use]
    pub const fn declared_plan(&self) -> &CallPlan {
        &self.plan
    }

    fn check(&self) -> Result<(), Error> {
        if self.name.is_empty() {
            return Err(Error::builder(
                "a credential needs a name: the books keep its calls under it",
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

    /// The key now.
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

    /// Whether the caller has put something of its own where the key would go.
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

    /// Takes a key out of a URL that a redirect repeats it in, so that it is neither sent twice nor shown.
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

    /// Puts the key into a request to one of its hosts.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SecretString {
        SecretString::from("s3cret".to_owned())
    }

    fn sent(credential: &Credential, url: &str) -> Request {
        let mut request = Request::new(http::Method::GET, url.parse().unwrap());
        credential.attach(&key(), &mut request).unwrap();
        request
    }

    #[test]
    fn a_key_stands_where_it_belongs_and_is_not_shown() {
        let bearer = Credential::bearer("b", key());
        let request = sent(&bearer, "https://a.example/x");
        assert_eq!(request.headers()["authorization"], "Bearer s3cret");
        assert!(request.headers()["authorization"].is_sensitive());
        assert!(!format!("{request:?} {bearer:?}").contains("s3cret"));
        let request = sent(
            &Credential::header("h", "x-api-key", key()),
            "https://a.example/x",
        );
        assert_eq!(request.headers()["x-api-key"], "s3cret");
        // RFC 7617: `user:s3cret`.
        let request = sent(
            &Credential::basic("c", "user", key()),
            "https://a.example/x",
        );
        assert_eq!(request.headers()["authorization"], "Basic dXNlcjpzM2NyZXQ=");
        let query = Credential::query("q", "key", key());
        assert_eq!(
            sent(&query, "https://a.example/x?a=1").url().as_str(),
            "https://a.example/x?a=1&key=s3cret"
        );
        assert_eq!(
            sent(&query, "https://a.example/x?key=old&a=1")
                .url()
                .query(),
            Some("a=1&key=s3cret")
        );
        assert_eq!(
            sent(&query, "https://a.example/x?a=%20b+c").url().query(),
            Some("a=%20b+c&key=s3cret")
        );
    }

    #[test]
    fn the_most_specific_key_is_used_and_no_other_host_gets_one() {
        let keys = Credentials::new()
            .host("*.example.com", Credential::bearer("all", key()))
            .host("*.eu.example.com", Credential::bearer("eu", key()))
            .host("api.example.com", Credential::bearer("host", key()))
            .host("api.example.com", Credential::bearer("second", key()))
            .host(
                "https://api.example.com:8443",
                Credential::bearer("origin", key()),
            );
        keys.check().unwrap();
        let name = |origin: &str| keys.find(&origin.parse().unwrap()).map(Credential::name);
        assert_eq!(name("https://api.example.com"), Some("host"));
        assert_eq!(name("https://api.example.com:8443"), Some("origin"));
        assert_eq!(name("https://b.eu.example.com"), Some("eu"));
        assert_eq!(name("https://b.example.com"), Some("all"));
        for other in [
            "https://example.com",
            "https://api.example.com.evil.example",
            "https://notexample.com",
        ] {
            assert_eq!(name(other), None, "{other}");
        }
    }

    #[test]
    fn mistakes_are_told_when_the_client_is_built() {
        let mistakes = [
            Credentials::new().host("not a host", Credential::bearer("x", key())),
            Credentials::new().host("a.example", Credential::bearer("", key())),
            Credentials::new().host("a.example", Credential::header("x", "not a header", key())),
            Credentials::new().host("a.example", Credential::bearer("x", key()).pay_when([4])),
            Credentials::new()
                .host("a.example", Credential::bearer("x", key()))
                .host(
                    "b.example",
                    Credential::bearer("x", key()).plan(CallPlan::per_call(crate::usd!("1"))),
                ),
        ];
        for mistake in mistakes {
            assert_eq!(
                mistake.check().unwrap_err().kind(),
                ErrorKind::Builder,
                "{mistake:?}"
            );
        }
        let lines = Credential::bearer("x", SecretString::from("a\nb".to_owned()));
        let mut request = Request::new(http::Method::GET, "https://a.example".parse().unwrap());
        let broken = lines
            .attach(&SecretString::from("a\nb".to_owned()), &mut request)
            .unwrap_err();
        assert_eq!(broken.kind(), ErrorKind::Credential);
        assert!(!request.headers().contains_key(AUTHORIZATION));
    }
}
