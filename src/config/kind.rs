//! The scopes of limits in a configuration file.

/// The scopes that have tables of their own.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Origin,
    Host,
    Resource,
    Domain,
    Payee,
    Asset,
    Network,
    Tag,
    Agent,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Origin => "origin",
            Self::Host => "host",
            Self::Resource => "resource",
            Self::Domain => "domain",
            Self::Payee => "payee",
            Self::Asset => "asset",
            Self::Network => "network",
            Self::Tag => "tag",
            Self::Agent => "agent",
        }
    }

    pub(super) fn title(self) -> String {
        format!("[[{}]]", self.name())
    }
}
