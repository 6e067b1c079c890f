//! The target of a request: by a route of the policy file, or named in the path.

use bursar::config::ProxyRoute;
use bursar::reqwest::StatusCode;
use bursar::{Origin, Policy, Url};

use super::answer::Refusal;
use crate::spelling::{as_servers_read, decoded};

/// The first segment of a path that names its target.
const EXPLICIT: &str = "/to/";

/// A target, and the route that leads to it.
#[derive(Debug)]
pub(super) struct Target<'a> {
    pub(super) url: Url,
    /// `None` for a target that the path names.
    pub(super) route: Option<&'a ProxyRoute>,
}

impl Target<'_> {
    /// Returns the name of the way, for logs and metrics.
    pub(super) fn label(&self) -> &str {
        self.route.map_or("/to", |route| route.path.as_str())
    }
}

/// Finds the target of a path and query. `client` is the name of the program's token.
pub(super) fn find<'a>(
    path: &str,
    query: Option<&str>,
    client: &str,
    routes: &'a [ProxyRoute],
    policy: Option<&Policy>,
) -> Result<Target<'a>, Refusal> {
    if hides_a_step(path) {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "path",
            "the path has a `.`, a `..` or a backslash, and servers disagree about it",
        ));
    }
    if let Some(rest) = path.strip_prefix(EXPLICIT) {
        let url = explicit(rest, query, policy)?;
        let route = route_to(&url, client, routes)?;
        return Ok(Target { url, route });
    }
    let below = routes
        .iter()
        .filter_map(|route| Some((route, route.rest(path)?)));
    let longest = below.max_by_key(|(route, _)| length(route));
    let Some((route, rest)) = longest else {
        let paths: Vec<_> = routes.iter().map(|route| route.path.as_str()).collect();
        let known = if paths.is_empty() {
            "there are no routes".to_owned()
        } else {
            format!("the routes are {}", paths.join(", "))
        };
        return Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "route",
            format!(
                "no route of the proxy has this path; {known}; add a [[proxy.route]] to the policy file"
            ),
        ));
    };
    let read = as_servers_read(path);
    if let Some(hidden) = routes.iter().find(|other| {
        is_below(&as_servers_read(&other.path), &read) && length(other) > length(route)
    }) {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "path",
            format!(
                "some servers read the path as one below the route {}; write it as the route does",
                hidden.path
            ),
        ));
    }
    if !serves(route, client) {
        return Err(no_client_of(route, client));
    }
    let base = route.target.as_str().trim_end_matches('/');
    let below = joined(base, rest, query);
    let url = below.filter(|url| {
        let path = route.target.path().trim_end_matches('/');
        Origin::of(url) == Origin::of(&route.target) && url.path().starts_with(path)
    });
    match url {
        Some(url) => Ok(Target {
            url,
            route: Some(route),
        }),
        None => Err(malformed()),
    }
}

/// The length of a route's path, without the slash of `/`.
fn length(route: &ProxyRoute) -> usize {
    route.path.trim_end_matches('/').len()
}

/// Whether a route serves the program with this token.
fn serves(route: &ProxyRoute, client: &str) -> bool {
    route.clients.is_empty() || route.clients.iter().any(|name| name == client)
}

fn no_client_of(route: &ProxyRoute, client: &str) -> Refusal {
    Refusal::new(
        StatusCode::FORBIDDEN,
        "route",
        format!("the token `{client}` may not use the route {}", route.path),
    )
}

/// Returns the route whose settings hold for a target that a path names: one that leads there and serves the program.
///
/// Without them, a path would evade the agent, the highest price and the clients of the route.
fn route_to<'a>(
    url: &Url,
    client: &str,
    routes: &'a [ProxyRoute],
) -> Result<Option<&'a ProxyRoute>, Refusal> {
    let path = as_servers_read(url.path());
    let leads = |route: &&ProxyRoute| {
        Origin::of(&route.target) == Origin::of(url)
            && is_below(&as_servers_read(route.target.path()), &path)
    };
    let depth = |route: &&ProxyRoute| as_servers_read(route.target.path()).len();
    let leading: Vec<_> = routes.iter().filter(leads).collect();
    let Some(deepest) = leading.iter().map(depth).max() else {
        return Ok(None);
    };
    let mut nearest = leading.iter().filter(|route| depth(route) == deepest);
    match nearest.clone().find(|route| serves(route, client)) {
        Some(route) => Ok(Some(route)),
        None => nearest
            .next()
            .map_or(Ok(None), |route| Err(no_client_of(route, client))),
    }
}

/// Whether a path lies at or below another one, both as [`as_servers_read`] returns them.
fn is_below(above: &str, path: &str) -> bool {
    path.strip_prefix(above)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Reads `SCHEME/HOST[:PORT]/PATH`.
fn explicit(rest: &str, query: Option<&str>, policy: Option<&Policy>) -> Result<Url, Refusal> {
    let form = || {
        Refusal::new(
            StatusCode::NOT_FOUND,
            "route",
            "expected a path such as /to/https/api.example.com/v1/models",
        )
    };
    let Some(policy) = policy else {
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "route",
            "the policy file does not let a path name its target (`explicit = false`)",
        ));
    };
    let (scheme, rest) = rest.split_once('/').ok_or_else(form)?;
    if !matches!(scheme, "https" | "http") {
        return Err(form());
    }
    let place = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(place);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    if authority.is_empty() || !authority.bytes().all(plain) {
        return Err(form());
    }
    let url = joined(&format!("{scheme}://{authority}"), path, query).ok_or_else(form)?;
    let origin = Origin::of(&url).ok_or_else(form)?;
    if !policy.names_host(origin.host()) {
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "route",
            format!(
                "the policy does not name the host {}; add it to `hosts` of [allow], or add a [[proxy.route]]",
                origin.host()
            ),
        ));
    }
    Ok(url)
}

fn joined(base: &str, path: &str, query: Option<&str>) -> Option<Url> {
    let mut text = format!("{base}{path}");
    if let Some(query) = query {
        text.push('?');
        text.push_str(query);
    }
    text.parse().ok()
}

fn malformed() -> Refusal {
    Refusal::new(
        StatusCode::BAD_REQUEST,
        "path",
        "the path leads out of the route",
    )
}

/// Whether some server takes a part of the path for a step to another path, also if it is encoded up to three times.
fn hides_a_step(path: &str) -> bool {
    let mut text = path.to_owned();
    for _ in 0..4 {
        let is_step = |segment: &str| {
            let name = segment.split(';').next().unwrap_or_default();
            matches!(name, "." | "..")
        };
        if text.contains(['\\', '\0', '\r', '\n']) || text.split('/').any(is_step) {
            return true;
        }
        let decoded = decoded(&text);
        if decoded == text {
            return false;
        }
        text = decoded;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes() -> Vec<ProxyRoute> {
        [
            ("/openai", "https://api.example.com/v1"),
            ("/openai/beta", "https://beta.example.com"),
        ]
        .map(|(path, target)| ProxyRoute::new(path, target.parse().unwrap()).unwrap())
        .to_vec()
    }

    fn url(path: &str, query: Option<&str>) -> Result<String, u16> {
        let policy = Policy::new()
            .allow_host("*.example.com")
            .allow_host("127.0.0.1");
        find(path, query, "me", &routes(), Some(&policy))
            .map(|target| target.url.to_string())
            .map_err(|refusal| refusal.status.as_u16())
    }

    #[test]
    fn the_longest_route_of_a_path_leads_to_its_target() {
        for (path, query, target) in [
            ("/openai/chat", None, "https://api.example.com/v1/chat"),
            (
                "/openai/chat",
                Some("a=b%2F"),
                "https://api.example.com/v1/chat?a=b%2F",
            ),
            ("/openai", None, "https://api.example.com/v1"),
            ("/openai/", None, "https://api.example.com/v1/"),
            ("/openai/beta/x", None, "https://beta.example.com/x"),
            ("/openai/betax", None, "https://api.example.com/v1/betax"),
            ("/openai/a%2Fb", None, "https://api.example.com/v1/a%2Fb"),
            (
                "/openai//evil.example/x",
                None,
                "https://api.example.com/v1//evil.example/x",
            ),
            (
                "/openai/@evil.example",
                None,
                "https://api.example.com/v1/@evil.example",
            ),
        ] {
            assert_eq!(url(path, query).as_deref(), Ok(target), "{path}");
        }
    }

    #[test]
    fn a_path_names_a_target_that_the_policy_names() {
        for (path, target) in [
            (
                "/to/https/api.example.com/v1/x",
                "https://api.example.com/v1/x",
            ),
            ("/to/https/api.example.com", "https://api.example.com/"),
            (
                "/to/https/api.example.com:8443/x",
                "https://api.example.com:8443/x",
            ),
            ("/to/http/127.0.0.1:9/x", "http://127.0.0.1:9/x"),
        ] {
            assert_eq!(url(path, None).as_deref(), Ok(target), "{path}");
        }
    }

    #[test]
    fn a_path_that_leads_elsewhere_has_no_target() {
        for (path, status) in [
            ("/openai2/x", 404),
            ("/", 404),
            ("/openai/../to/x", 400),
            ("/openai/%2e%2e/x", 400),
            ("/openai/%252e%252e/x", 400),
            ("/openai/..%2f..%2fadmin", 400),
            ("/openai/..;/x", 400),
            ("/openai/a\\b", 400),
            ("/openai/a%5cb", 400),
            ("/openai/%0d%0ax", 400),
            ("/to/https/evil.example/x", 403),
            ("/to/https/example.com.evil.example/x", 403),
            ("/to/https/api.example.com@evil.example/x", 404),
            ("/to/https/evil.example%2f.example.com/x", 404),
            ("/to/ftp/api.example.com/x", 404),
            ("/to/https//x", 404),
            ("/to/https", 404),
            ("/to/https/[::1]/x", 403),
        ] {
            assert_eq!(url(path, None), Err(status), "{path}");
        }
        let none = find("/to/https/api.example.com/x", None, "me", &[], None);
        assert_eq!(none.unwrap_err().status.as_u16(), 403);
        let empty = Policy::new();
        let closed = find("/to/https/api.example.com/x", None, "me", &[], Some(&empty));
        assert_eq!(closed.unwrap_err().status.as_u16(), 403);
    }

    #[test]
    fn a_route_for_some_clients_refuses_the_others() {
        let config = "version = 1\n[[proxy.route]]\npath = \"/a\"\ntarget = \"https://a.example\"\nclients = \"me\"";
        let config = bursar::config::Config::from_toml(config).unwrap();
        let status = |client| {
            let found = find("/a/x", None, client, &config.proxy.routes, None);
            found.map(|_| ()).map_err(|refusal| refusal.status.as_u16())
        };
        assert_eq!((status("me"), status("you")), (Ok(()), Err(403)));
    }

    /// Routes with a part that is for the token `boss` and costs little.
    fn parts() -> Vec<ProxyRoute> {
        let config = "version = 1\n\
            [[proxy.route]]\npath = \"/shop\"\ntarget = \"https://a.example/v1\"\n\
            [[proxy.route]]\npath = \"/shop/admin\"\ntarget = \"https://a.example/v1/admin\"\nclients = \"boss\"\n\
            [[proxy.route]]\npath = \"/b\"\ntarget = \"https://b.example\"\nmax_price = \"0.01 USD\"\n";
        bursar::config::Config::from_toml(config)
            .unwrap()
            .proxy
            .routes
    }

    #[test]
    fn another_spelling_of_a_path_does_not_evade_its_route() {
        let routes = parts();
        let of = |path: &str, client: &str| {
            let found = find(path, None, client, &routes, None);
            found
                .map(|target| target.route.unwrap().path.clone())
                .map_err(|refusal| refusal.status.as_u16())
        };
        for path in [
            "/shop/%61dmin/x",
            "/shop/%2561dmin",
            "/shop//admin/x",
            "/shop/ADMIN",
            "/shop/admin;a=1/x",
            "/shop/;/admin",
            "/shop/%2Fadmin/x",
        ] {
            assert_eq!(of(path, "me"), Err(400), "{path}");
        }
        assert_eq!(of("/shop/admin/x", "me"), Err(403));
        assert_eq!(of("/shop/admin/%61", "boss").as_deref(), Ok("/shop/admin"));
        for path in [
            "/shop/administration",
            "/shop/x/admin",
            "/shop/%61",
            "/shop",
        ] {
            assert_eq!(of(path, "me").as_deref(), Ok("/shop"), "{path}");
        }
    }

    #[test]
    fn a_path_that_names_the_target_of_a_route_has_the_settings_of_the_route() {
        let routes = parts();
        let hosts = ["a.example", "b.example", "c.example"];
        let policy = hosts
            .iter()
            .fold(Policy::new(), |policy, host| policy.allow_host(host));
        let of = |path: &str, client: &str| {
            let found = find(path, None, client, &routes, Some(&policy));
            found
                .map(|target| target.route.map(|route| route.path.clone()))
                .map_err(|refusal| refusal.status.as_u16())
        };
        let named = |path: &str| Ok(Some(path.to_owned()));
        assert_eq!(of("/to/https/b.example/x", "me"), named("/b"));
        assert_eq!(of("/to/https/B.example:443", "me"), named("/b"));
        assert_eq!(of("/to/https/a.example/v1/x", "me"), named("/shop"));
        for path in ["admin/x", "%61dmin/x", "ADMIN", "/admin", "admin;x"] {
            let path = format!("/to/https/a.example/v1/{path}");
            assert_eq!(of(&path, "me"), Err(403), "{path}");
            assert_eq!(of(&path, "boss"), named("/shop/admin"), "{path}");
        }
        for path in [
            "a.example/v2",
            "a.example/v11",
            "a.example:8443/v1",
            "c.example/v1",
        ] {
            assert_eq!(of(&format!("/to/https/{path}"), "me"), Ok(None), "{path}");
        }
    }
}
