//! Permissions: the requests that an agent may send at all, paid or not.

use http::Method;

use super::{Denial, HostMatch, Policy, PolicyError, Rule};
use crate::path::{hides_a_slash, hides_a_step, normalized};
use crate::request::PurchaseRequest;

/// A set of requests that are allowed: by agent, tag, host, method and path.
///
/// A part that you do not set allows everything. Several calls of one setter allow any of the values.
///
/// ```
/// use bursar::Policy;
/// use bursar::policy::Permission;
///
/// let policy = Policy::new()
///     .allow_network("base")
///     .permit(Permission::new().agent("researcher").host("*.example.com").method("GET").path("/v1/**"))
///     .permit(Permission::new().agent("operator"));
/// policy.check()?;
/// # Ok::<(), bursar::policy::PolicyError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Permission {
    agents: Vec<String>,
    tags: Vec<String>,
    hosts: Vec<HostMatch>,
    methods: Vec<Method>,
    paths: Vec<PathPattern>,
    errors: Vec<PolicyError>,
}

impl Permission {
    /// Creates a permission for every request of every agent.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Allows requests of this agent.
    #[must_use]
    pub fn agent(mut self, name: impl Into<String>) -> Self {
        self.agents.push(name.into());
        self
    }

    /// Allows requests with this tag.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Allows requests to a host such as `api.example.com`, a pattern such as `*.example.com`, or an
    /// origin such as `https://api.example.com:8443`.
    #[must_use]
    pub fn host(mut self, host: &str) -> Self {
        match host_match(host) {
            Ok(host) => self.hosts.push(host),
            Err(error) => self.errors.push(error),
        }
        self
    }

    /// Allows requests with this method.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        match method.parse::<Method>() {
            Ok(method) if is_upper(method.as_str()) => self.methods.push(method),
            _ => self.errors.push(PolicyError::Method {
                text: crate::text::excerpt(method),
            }),
        }
        self
    }

    /// Allows requests to a path such as `/search`, or to a pattern of paths.
    ///
    /// `*` matches any characters except a slash, and `**` matches any characters. An escape of a letter, a digit or one
    /// of `-._~` is the same as the character. No pattern matches a path that hides a slash (`%2F`, `%5C`).
    #[must_use]
    pub fn path(mut self, pattern: &str) -> Self {
        match PathPattern::parse(pattern) {
            Some(pattern) => self.paths.push(pattern),
            None => self.errors.push(PolicyError::Path {
                text: crate::text::excerpt(pattern),
            }),
        }
        self
    }

    /// Returns the keys of a configuration file, with their values.
    #[cfg(feature = "toml")]
    pub(super) fn keys(&self) -> [(&'static str, Vec<String>); 5] {
        let hosts = self.hosts.iter().map(|host| match host {
            HostMatch::Origin(origin) => origin.to_string(),
            HostMatch::Host(pattern) => pattern.to_string(),
        });
        [
            ("agent", self.agents.clone()),
            ("tag", self.tags.clone()),
            ("host", hosts.collect()),
            (
                "method",
                self.methods.iter().map(ToString::to_string).collect(),
            ),
            ("path", self.paths.iter().map(PathPattern::text).collect()),
        ]
    }

    fn mistakes(&self) -> &[PolicyError] {
        &self.errors
    }

    fn covers(&self, request: &PurchaseRequest, agent: Option<&str>) -> bool {
        let named = |names: &[String], name: Option<&str>| {
            names.is_empty() || name.is_some_and(|name| names.iter().any(|known| known == name))
        };
        named(&self.agents, agent)
            && named(&self.tags, request.tag_name())
            && (self.hosts.is_empty()
                || self.hosts.iter().any(|host| host.matches(request.origin())))
            && (self.methods.is_empty() || self.methods.contains(request.method()))
            && (self.paths.is_empty()
                || self
                    .paths
                    .iter()
                    .any(|path| path.matches(&request.normalized_path())))
    }
}

impl Policy {
    /// Adds a permission. bursar checks permissions before it sends a request, paid or not.
    ///
    /// A policy without permissions allows every request. With permissions, it refuses every request that
    /// none of them covers.
    #[must_use]
    pub fn permit(mut self, permission: Permission) -> Self {
        self.errors.extend(permission.mistakes().iter().cloned());
        self.permissions.push(permission);
        self
    }

    /// Also pays for this method of MCP servers whose endpoint answers 402, such as `initialize` or `tools/list`.
    ///
    /// bursar pays for `tools/call` only, unless you name another method. This is about requests through
    /// `bursar::mcp::connect`. All limits hold for them.
    ///
    /// ```
    /// use bursar::Policy;
    ///
    /// let policy = Policy::new().allow_network("base").pay_mcp_method("initialize");
    /// # policy.check()?;
    /// # Ok::<(), bursar::policy::PolicyError>(())
    /// ```
    #[must_use]
    pub fn pay_mcp_method(mut self, method: impl Into<String>) -> Self {
        self.mcp_methods.push(method.into());
        self
    }

    /// Returns whether the policy pays for this method of an MCP server.
    #[cfg(feature = "mcp")]
    pub(crate) fn pays_mcp_method(&self, method: &str) -> bool {
        method == crate::request::TOOL_CALL || self.mcp_methods.iter().any(|named| named == method)
    }

    pub(crate) const fn has_permissions(&self) -> bool {
        !self.permissions.is_empty()
    }

    /// Returns the denial of a request that no permission covers, or whose path hides a step to another path.
    pub(crate) fn forbids(&self, request: &PurchaseRequest, agent: Option<&str>) -> Option<Denial> {
        if !request.is_tool_call() && hides_a_step(request.url().path()) {
            let message =
                "the path hides `..` or a control character, and servers disagree about it";
            return Some(Denial::new(Rule::Permission, message));
        }
        if self.permissions.is_empty()
            || self
                .permissions
                .iter()
                .any(|permission| permission.covers(request, agent))
        {
            return None;
        }
        let by = |what: &str, name: Option<&str>| match name {
            Some(name) => format!("{what} `{}`", crate::text::excerpt(name)),
            None => format!("no {what}"),
        };
        let message = format!(
            "no permission of the policy covers {} {}{} ({}, {})",
            request.method(),
            request.origin(),
            crate::text::shown_path(request.url().path()),
            by("agent", agent),
            by("tag", request.tag_name()),
        );
        Some(Denial::new(Rule::Permission, message))
    }
}

/// Reads a host, a pattern of hosts, or an origin.
pub(crate) fn host_match(text: &str) -> Result<HostMatch, PolicyError> {
    Ok(text.parse::<HostMatch>()?)
}

/// Methods are case-sensitive (RFC 9110, 9.1), and a `get` in a policy is a mistake.
fn is_upper(method: &str) -> bool {
    !method.bytes().any(|byte| byte.is_ascii_lowercase())
}

/// A path with `*` and `**`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PathPattern(Vec<Piece>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    Byte(u8),
    /// Any run without a slash.
    Segment,
    /// Any run.
    Rest,
}

impl PathPattern {
    fn parse(text: &str) -> Option<Self> {
        let plain = text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#'));
        if !text.starts_with('/') || !plain {
            return None;
        }
        let text = normalized(text);
        let mut pieces = Vec::with_capacity(text.len());
        let mut bytes = text.bytes().peekable();
        while let Some(byte) = bytes.next() {
            pieces.push(match byte {
                b'*' if bytes.next_if_eq(&b'*').is_some() => Piece::Rest,
                b'*' => Piece::Segment,
                byte => Piece::Byte(byte),
            });
        }
        Some(Self(pieces))
    }

    #[cfg(feature = "toml")]
    fn text(&self) -> String {
        let pieces = self.0.iter().map(|piece| match piece {
            Piece::Byte(byte) => char::from(*byte).to_string(),
            Piece::Segment => "*".to_owned(),
            Piece::Rest => "**".to_owned(),
        });
        pieces.collect()
    }

    /// In time of pattern times path, whatever the pattern.
    fn matches(&self, path: &str) -> bool {
        if hides_a_slash(path) {
            return false;
        }
        // Which numbers of leading bytes of the path the pieces so far can stand for.
        let bytes = path.as_bytes();
        let mut reached = vec![false; bytes.len().saturating_add(1)];
        if let Some(start) = reached.first_mut() {
            *start = true;
        }
        for piece in &self.0 {
            let mut next = vec![false; reached.len()];
            let mut open = false;
            for (at, (slot, before)) in next.iter_mut().zip(&reached).enumerate() {
                let last = at.checked_sub(1).and_then(|last| bytes.get(last));
                let came = at
                    .checked_sub(1)
                    .and_then(|last| reached.get(last))
                    .copied()
                    .unwrap_or(false);
                open = match piece {
                    Piece::Byte(_) => false,
                    Piece::Segment => *before || (open && last != Some(&b'/')),
                    Piece::Rest => *before || open,
                };
                *slot = match piece {
                    Piece::Byte(byte) => came && last == Some(byte),
                    Piece::Segment | Piece::Rest => open,
                };
            }
            reached = next;
        }
        reached.last() == Some(&true)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn covers(pattern: &str, path: &str) -> bool {
        PathPattern::parse(pattern).unwrap().matches(path)
    }

    #[test]
    fn patterns_stay_within_their_segment_unless_told() {
        for (pattern, path, expected) in [
            ("/search", "/search", true),
            ("/search", "/search/", false),
            ("/search", "/searches", false),
            ("/v1/*", "/v1/report", true),
            ("/v1/*", "/v1/", true),
            ("/v1/*", "/v1", false),
            ("/v1/*", "/v1/report/admin", false),
            ("/v1/**", "/v1/report/admin", true),
            ("/*/report", "/v1/report", true),
            ("/*/report", "/v1/x/report", false),
            ("/**/report", "/v1/x/report", true),
            ("/a*c/**z", "/abc/x/y/z", true),
            ("/v1/**", "/v1/..%2fadmin", false),
            ("/v1/*", "/v1/%5Cadmin", false),
            ("/**", "/", true),
        ] {
            assert_eq!(covers(pattern, path), expected, "{pattern} {path}");
        }
        for mistake in ["", "search", "/a b", "/a?b", "/a#b", "/ä"] {
            assert_eq!(PathPattern::parse(mistake), None, "{mistake}");
        }
    }

    /// As it reads, in exponential time.
    fn naive(pattern: &str, path: &str) -> bool {
        if let Some(rest) = pattern.strip_prefix("**") {
            return (0..=path.len()).any(|end| naive(rest, &path[end..]));
        }
        if let Some(rest) = pattern.strip_prefix('*') {
            let end = path.find('/').unwrap_or(path.len());
            return (0..=end).any(|end| naive(rest, &path[end..]));
        }
        match (pattern.chars().next(), path.chars().next()) {
            (None, None) => true,
            (Some(one), Some(other)) if one == other => naive(&pattern[1..], &path[1..]),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matching_is_what_it_reads(pattern in "/[ab/*]{0,7}", path in "/[ab/]{0,7}") {
            // Three stars are read as two and one, which the reference does too.
            prop_assert_eq!(covers(&pattern, &path), naive(&pattern, &path));
        }
    }
}
