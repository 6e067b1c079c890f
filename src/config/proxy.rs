//! The table `[proxy]` of a configuration file: the routes of `bursar proxy`.

use std::net::SocketAddr;
use std::time::Duration;

use url::Url;

use super::error::{Mistakes, did_you_mean};
use super::policy::{content, contents, tables};
use super::scalar::{Size, Text};
use super::schema;
use crate::credential::Credentials;
use crate::money::Usd;
use crate::origin::Origin;
use crate::text::excerpt;

/// The first segments of the paths that `bursar proxy` answers itself.
const RESERVED: [&str; 3] = ["health", "metrics", "to"];

/// The table `[proxy]`: the settings of `bursar proxy`, a local server that pays for programs in any language.
///
/// ```
/// use bursar::config::Config;
///
/// let config = Config::from_toml(r#"
///     version = 1
///     networks = ["base"]
///
///     [[proxy.route]]
///     path = "/openai"
///     target = "https://api.example.com"
///     agent = "writer"
///     max_price = "0.05 USD"
/// "#)?;
/// let route = &config.proxy.routes[0];
/// assert_eq!((route.path.as_str(), route.target.as_str()), ("/openai", "https://api.example.com/"));
/// assert!(config.proxy.explicit);
/// # Ok::<(), bursar::config::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProxyConfig {
    /// The loopback address to listen on.
    pub listen: Option<SocketAddr>,
    /// Whether a path such as `/to/https/api.example.com/v1` may name a target that `[allow]` lists. The default is true.
    pub explicit: bool,
    /// The largest body of a request, in bytes.
    pub body_limit: Option<u64>,
    /// The routes, in the order of the file.
    pub routes: Vec<ProxyRoute>,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            listen: None,
            explicit: true,
            body_limit: None,
            routes: Vec::new(),
        }
    }
}

/// A route of `bursar proxy`: the requests below a path go to one target.
///
/// ```
/// use bursar::config::ProxyRoute;
///
/// let route = ProxyRoute::new("/openai", "https://api.example.com/v1".parse()?)?;
/// assert_eq!(route.rest("/openai/chat/completions"), Some("/chat/completions"));
/// assert_eq!(route.rest("/openai2"), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProxyRoute {
    /// The path at the proxy, such as `/openai`, or `/` for every path.
    pub path: String,
    /// The base URL of the target. The rest of a path is added to it.
    pub target: Url,
    /// The agent that the ledger records. Without it, this is the name of the program's token.
    pub agent: Option<String>,
    /// The tag of the purchases.
    pub tag: Option<String>,
    /// The highest price of a request.
    pub max_price: Option<Usd>,
    /// The name of the only API key that the route uses. Without it, the API key of the target's host applies.
    pub credential: Option<String>,
    /// The names of the tokens that may use the route. If there are none, every token may.
    pub clients: Vec<String>,
    /// The longest time of a whole call, with payment and body.
    pub timeout: Option<Duration>,
}

impl ProxyRoute {
    /// Returns a route from a path to a base URL, without other settings.
    ///
    /// # Errors
    /// Returns a message if the path is not a plain path such as `/openai` or is one that the proxy answers itself, or if
    /// the target is not an `http` or `https` URL without user, query and fragment.
    pub fn new(path: &str, target: Url) -> Result<Self, String> {
        check_path(path)?;
        check_target(&target)?;
        Ok(Self {
            path: path.to_owned(),
            target,
            agent: None,
            tag: None,
            max_price: None,
            credential: None,
            clients: Vec::new(),
            timeout: None,
        })
    }

    /// Returns the part of a path below the route: empty, or with a slash at its beginning. Returns `None` if the path is
    /// not below the route.
    #[must_use]
    pub fn rest<'p>(&self, path: &'p str) -> Option<&'p str> {
        let rest = path.strip_prefix(self.path.trim_end_matches('/'))?;
        (rest.is_empty() || rest.starts_with('/')).then_some(rest)
    }
}

fn check_path(path: &str) -> Result<(), String> {
    let shown = excerpt(path);
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-._~".contains(letter);
    let Some(segments) = path.strip_prefix('/') else {
        return Err(format!(
            "`{shown}` is not a path; write one such as `/openai`"
        ));
    };
    if segments.is_empty() {
        return Ok(());
    }
    for segment in segments.split('/') {
        if matches!(segment, "" | "." | "..") || !segment.chars().all(plain) {
            return Err(format!(
                "`{shown}` is not a plain path; write letters, digits and `-._~`, without a slash at the end"
            ));
        }
    }
    let first = segments.split('/').next().unwrap_or_default();
    if RESERVED.contains(&first) {
        return Err(format!(
            "the proxy answers `/{first}` itself; choose another path"
        ));
    }
    Ok(())
}

fn check_target(target: &Url) -> Result<(), String> {
    let origin = Origin::of(target).ok_or("the target is not an http or https URL with a host")?;
    if origin.scheme() != "https" && !origin.is_loopback() {
        return Err("plain http is for the loopback only; write https".to_owned());
    }
    let has_user = !target.username().is_empty() || target.password().is_some();
    if has_user || target.query().is_some() || target.fragment().is_some() {
        return Err(
            "the target has a user, a query or a fragment; write a base URL such as `https://api.example.com/v1`, \
             and put keys into [[credential]]"
                .to_owned(),
        );
    }
    Ok(())
}

fn read_target(text: &str) -> Result<Url, String> {
    let target = text.parse().map_err(|error| {
        format!("{error}; write a base URL such as `https://api.example.com/v1`")
    })?;
    check_target(&target)?;
    Ok(target)
}

/// Builds the settings of the proxy.
pub(super) fn proxy(
    file: &schema::File,
    keys: &Credentials,
    mistakes: &Mistakes<'_>,
) -> ProxyConfig {
    let mut proxy = ProxyConfig::default();
    for (_, table) in tables(&file.proxy) {
        if let Some(listen) = &table.listen
            && let Some(address) = listen.content
        {
            if !address.ip().is_loopback() {
                mistakes.add(
                    listen.at,
                    "`listen`: the proxy holds a wallet and listens on loopback only; write one such as \
                     `127.0.0.1:8402`",
                );
            }
            proxy.listen = Some(address);
        }
        if let Some(explicit) = content(table.explicit.as_ref()) {
            proxy.explicit = *explicit;
        }
        proxy.body_limit = content(table.body_limit.as_ref()).map(|Size(bytes)| *bytes);
        for (at, table) in tables(&table.route) {
            let Some(route) = route(table, keys, mistakes) else {
                continue;
            };
            if proxy.routes.iter().any(|other| other.path == route.path) {
                mistakes.add(
                    table.path.at,
                    format!("`path`: another route has the path `{}`", route.path),
                );
            }
            if route.clients.is_empty() && !table.clients.is_empty() {
                // Each name has a mistake. The route must not become one for all clients.
                mistakes.add(at, "`clients` names no token");
            }
            proxy.routes.push(route);
        }
    }
    proxy
}

fn route(table: &schema::Route, keys: &Credentials, mistakes: &Mistakes<'_>) -> Option<ProxyRoute> {
    let path = table.path.content.as_ref();
    let path = path.and_then(|Text(path)| {
        let checked = check_path(path).map(|()| path);
        mistakes.check(table.path.at, "path", checked)
    });
    let target =
        table.target.content.as_ref().and_then(|Text(target)| {
            mistakes.check(table.target.at, "target", read_target(target))
        });
    if let Some(credential) = &table.credential
        && let Some(Text(name)) = &credential.content
        && !keys.names().any(|known| known == name)
    {
        let advice = did_you_mean(name, keys.names());
        let name = excerpt(name);
        mistakes.add(
            credential.at,
            format!("`credential`: no [[credential]] has the name `{name}`{advice}"),
        );
    }
    let text = |value| content(value).map(|Text(text): &Text| text.clone());
    let route = ProxyRoute::new(path?, target?).ok()?;
    Some(ProxyRoute {
        agent: text(table.agent.as_ref()),
        tag: text(table.tag.as_ref()),
        max_price: content(table.max_price.as_ref()).copied(),
        credential: text(table.credential.as_ref()),
        clients: contents(&table.clients)
            .map(|(_, Text(name))| name.clone())
            .collect(),
        timeout: content(table.timeout.as_ref()).copied(),
        ..route
    })
}
