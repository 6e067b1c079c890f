//! Where bursar may sign in.

use std::fmt;

use serde::{Serialize, Serializer};

use super::{HostRules, Policy, Rule};
use crate::limit::Denial;
use crate::origin::Origin;

/// Where bursar signs in when a seller offers it, instead of paying again (sign-in-with-x).
///
/// A sign-in tells the seller which wallet comes back. It costs nothing.
///
/// ```
/// use bursar::Policy;
/// use bursar::policy::SignIn;
///
/// let policy = Policy::new()
///     .allow_network("base")
///     .sign_in(SignIn::Known)
///     .host_limits("tracker.example.com", |host| host.sign_in(SignIn::Never));
/// policy.check()?;
/// # Ok::<(), bursar::policy::PolicyError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SignIn {
    /// bursar never signs in. This is the default.
    #[default]
    Never,
    /// bursar signs in where the seller knows the wallet already: for a path that the wallet has bought at this origin, and,
    /// at an origin from which it has bought something, for a route that asks for a sign-in alone.
    Known,
    /// bursar signs in wherever a seller offers it, also without an earlier purchase.
    Always,
}

impl SignIn {
    /// All choices.
    #[cfg(feature = "toml")]
    pub(crate) const ALL: [Self; 3] = [Self::Never, Self::Known, Self::Always];

    /// Returns the name in a configuration file: `never`, `known` or `always`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Known => "known",
            Self::Always => "always",
        }
    }

    pub(crate) const fn is_never(&self) -> bool {
        matches!(self, Self::Never)
    }

    pub(super) const fn meaning(self) -> &'static str {
        match self {
            Self::Never => "never signs in",
            Self::Known => "signs in first where this wallet has bought the path before",
            Self::Always => "signs in first wherever the seller offers it",
        }
    }
}

impl fmt::Display for SignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for SignIn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl Policy {
    /// Sets where bursar signs in for all hosts. The default is [`SignIn::Never`], because a sign-in tells the seller who
    /// comes back. A host can have a setting of its own.
    #[must_use]
    pub const fn sign_in(mut self, sign_in: SignIn) -> Self {
        self.everywhere.sign_in = Some(sign_in);
        self
    }

    /// Returns where bursar signs in at this origin.
    pub(crate) fn signs_in(&self, origin: &Origin) -> SignIn {
        self.setting(origin, |settings| settings.sign_in)
            .unwrap_or_default()
    }

    /// Returns the denial of a sign-in that no rule about purchases allows or forbids: by the lists of hosts, or by the
    /// setting. A host that is not paid is not told who comes back.
    pub(crate) fn deny_sign_in(&self, origin: &Origin) -> Option<Denial> {
        let host = origin.host();
        if let Some(denial) = self.lists_host(host) {
            return Some(denial);
        }
        self.signs_in(origin).is_never().then(|| {
            let message = format!(
                "the seller asks for a sign-in, and the policy does not sign in to {host}; allow it with \
                 `sign_in = \"always\"` in [global] or in a [[host]] table, or with `Policy::sign_in`"
            );
            Denial::new(Rule::SignIn, message)
        })
    }
}

/// Returns the denial of a sign-in alone at an origin that does not know the wallet.
pub(crate) fn unknown_there(origin: &Origin) -> Denial {
    let message = format!(
        "the seller asks for a sign-in, this wallet has bought nothing at {origin}, and the policy signs in to known sellers \
         only; allow it with `sign_in = \"always\"` in [global] or in a [[host]] table, or with `Policy::sign_in`"
    );
    Denial::new(Rule::SignIn, message)
}

impl HostRules {
    /// Sets where bursar signs in at this host; see [`Policy::sign_in`].
    #[must_use]
    pub const fn sign_in(mut self, sign_in: SignIn) -> Self {
        self.settings.sign_in = Some(sign_in);
        self
    }
}
