//! `[discovery]`: where a policy file says that services are looked for.

use std::path::Path;

use url::Url;

use super::{Read, Section, document, read_file};
use crate::discovery::{SourceKind, Sources};
use crate::policy::PolicyError;

const URL: &str = "a URL such as \"https://x402.org/facilitator\"";
/// The keys of the table, each for one URL or a list.
const KEYS: [(&str, SourceKind); 4] = [
    ("bazaar", SourceKind::Bazaar),
    ("well_known", SourceKind::WellKnown),
    ("openapi", SourceKind::OpenApi),
    ("registry", SourceKind::Registry),
];

impl Sources {
    /// Reads where services are looked for from a policy file: its table `[discovery]`, as
    /// [`Policy::from_toml`] shows it. The rest of the file must be right too, and is left to it.
    ///
    /// ```
    /// use bursar::discovery::Sources;
    ///
    /// let sources = Sources::from_toml(r#"
    ///     version = 1
    ///
    ///     [discovery]
    ///     bazaar = "https://x402.org/facilitator"
    ///     well_known = ["https://api.example.com", "https://data.example.org"]
    /// "#)?;
    /// assert!(!sources.is_empty());
    /// # Ok::<(), bursar::PolicyError>(())
    /// ```
    ///
    /// # Errors
    /// As [`Policy::from_toml`].
    ///
    /// [`Policy::from_toml`]: crate::Policy::from_toml
    pub fn from_toml(text: &str) -> Result<Self, PolicyError> {
        document(text)
            .map(|file| file.sources)
            .map_err(|fault| fault.locate(text))
    }

    /// Reads where services are looked for from a policy file; see [`from_toml`](Self::from_toml).
    ///
    /// # Errors
    /// When the file cannot be read, or says what [`from_toml`](Self::from_toml) refuses.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, PolicyError> {
        read_file(path.as_ref(), Self::from_toml)
    }
}

pub(super) fn sources(root: &mut Section<'_>) -> Read<Sources> {
    let mut sources = Sources::default();
    let mut table = root.table("discovery", "[discovery]")?;
    for (key, kind) in KEYS {
        for item in table.each(key)? {
            item.read(URL, |text| {
                let url: Url = text
                    .parse()
                    .map_err(|error: url::ParseError| error.to_string())?;
                sources
                    .add(kind, url)
                    .map_err(|error| error.message().to_owned())
            })?;
        }
    }
    table.finish()?;
    Ok(sources)
}
