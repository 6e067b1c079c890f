//! `[[credential]]`: the API keys of a policy file. The file says where a key is, never the key.

use std::path::Path;

use super::{Fault, Item, Read, Section, document, read_file};
use crate::credential::{CallPlan, Credential, Credentials, EnvKey, FileKey, Preference};
use crate::policy::{PolicyError, host_match};
use crate::{Usd, text};

const DOLLARS: &str = "a text such as \"0.10 USD\"";
const COUNT: &str = "a whole number such as 1000";
const STATUS: &str = "a status from 100 to 999";
const PREFERENCES: [(&str, Preference); 5] = [
    ("key", Preference::KeyFirst),
    ("pay", Preference::PayFirst),
    ("never pay", Preference::NeverPay),
    ("never key", Preference::NeverKey),
    ("cheapest", Preference::Cheapest),
];

impl Credentials {
    /// Reads the API keys of a policy file: its tables `[[credential]]`, as [`Policy::from_toml`]
    /// shows them. The rest of the file must be right too, and is left to it.
    ///
    /// ```
    /// use bursar::Credentials;
    ///
    /// let keys = Credentials::from_toml(r#"
    ///     version = 1
    ///
    ///     [[credential]]
    ///     name = "example"
    ///     host = "api.example.com"
    ///     bearer = { env = "EXAMPLE_API_KEY" }
    ///     prefer = "cheapest"
    ///     plan = { per_call = "0.002 USD" }
    /// "#)?;
    /// assert_eq!(keys.names().collect::<Vec<_>>(), ["example"]);
    /// # Ok::<(), bursar::PolicyError>(())
    /// ```
    ///
    /// # Errors
    /// As [`Policy::from_toml`].
    ///
    /// [`Policy::from_toml`]: crate::Policy::from_toml
    pub fn from_toml(text: &str) -> Result<Self, PolicyError> {
        document(text)
            .map(|file| file.keys)
            .map_err(|fault| fault.locate(text))
    }

    /// Reads the API keys of a policy file; see [`from_toml`](Self::from_toml).
    ///
    /// # Errors
    /// When the file cannot be read, or says what [`from_toml`](Self::from_toml) refuses.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, PolicyError> {
        read_file(path.as_ref(), Self::from_toml)
    }
}

pub(super) fn credentials(root: &mut Section<'_>) -> Read<Credentials> {
    let mut keys = Credentials::new();
    for item in root.each("credential")? {
        let at = item.span.start;
        let mut table = item.section("[[credential]]")?;
        let name = table.need("name")?.text()?;
        let credential = placed(&name, &mut table, at)?;
        let credential = preferred(credential, &mut table)?;
        let hosts = table.need("host")?.each()?;
        for host in hosts {
            let host = host.read(super::TEXT, |text| {
                host_match(text).map(|_| text.to_owned())
            })?;
            keys = keys.host(&host, credential.clone());
        }
        table.finish()?;
        keys.check().map_err(|error| Fault {
            at,
            message: error.to_string(),
        })?;
    }
    Ok(keys)
}

/// One of `bearer`, `header`, `basic` and `query`.
fn placed(name: &str, table: &mut Section<'_>, at: usize) -> Read<Credential> {
    let mut found = None;
    let mut once = |credential: Credential| match found.replace(credential) {
        None => Ok(()),
        Some(_) => Err(Fault {
            at,
            message: format!("`{name}` is placed twice; a key is sent in one way"),
        }),
    };
    if let Some(item) = table.take("bearer") {
        let mut place = item.section("`bearer`")?;
        once(match source(&mut place)? {
            Source::Env(key) => Credential::bearer(name, key),
            Source::File(key) => Credential::bearer(name, key),
        })?;
        place.finish()?;
    }
    if let Some(item) = table.take("header") {
        let mut place = item.section("`header`")?;
        let header = place.need("name")?.read(super::TEXT, |text| {
            text.parse::<http::HeaderName>()
                .map(|_| text.to_owned())
                .map_err(|_| "not a header's name")
        })?;
        once(match source(&mut place)? {
            Source::Env(key) => Credential::header(name, &header, key),
            Source::File(key) => Credential::header(name, &header, key),
        })?;
        place.finish()?;
    }
    if let Some(item) = table.take("basic") {
        let mut place = item.section("`basic`")?;
        let user = place.need("user")?.text()?;
        once(match source(&mut place)? {
            Source::Env(key) => Credential::basic(name, user, key),
            Source::File(key) => Credential::basic(name, user, key),
        })?;
        place.finish()?;
    }
    if let Some(item) = table.take("query") {
        let mut place = item.section("`query`")?;
        let parameter = place.need("name")?.text()?;
        once(match source(&mut place)? {
            Source::Env(key) => Credential::query(name, parameter, key),
            Source::File(key) => Credential::query(name, parameter, key),
        })?;
        place.finish()?;
    }
    let message =
        || "[[credential]] needs one of `bearer`, `header`, `basic` and `query`".to_owned();
    found.ok_or_else(|| Fault {
        at,
        message: message(),
    })
}

enum Source {
    Env(EnvKey),
    File(FileKey),
}

/// `env` or `file`.
fn source(place: &mut Section<'_>) -> Read<Source> {
    let at = place.span.start;
    match (place.take("env"), place.take("file")) {
        (Some(variable), None) => Ok(Source::Env(EnvKey::new(variable.text()?))),
        (None, Some(path)) => Ok(Source::File(FileKey::new(path.text()?))),
        _ => Err(Fault {
            at,
            message: format!("{} needs `env` or `file`: where the key is", place.title),
        }),
    }
}

fn preferred(mut credential: Credential, table: &mut Section<'_>) -> Read<Credential> {
    if let Some(item) = table.take("prefer") {
        credential = credential.prefer(item.choice(&PREFERENCES)?);
    }
    let statuses = table.each("pay_when")?.into_iter().map(|item| {
        let at = item.span.start;
        let status = item.number::<u16>(STATUS)?;
        let message = || format!("`pay_when` must be {STATUS}");
        (100..1000)
            .contains(&status)
            .then_some(status)
            .ok_or_else(|| Fault {
                at,
                message: message(),
            })
    });
    let statuses = statuses.collect::<Read<Vec<u16>>>()?;
    if !statuses.is_empty() {
        credential = credential.pay_when(statuses);
    }
    if let Some(item) = table.take("pay_when_missing") {
        credential = credential.pay_when_missing(item.flag()?);
    }
    if let Some(item) = table.take("plan") {
        credential = credential.plan(plan(item)?);
    }
    Ok(credential)
}

fn plan(item: Item<'_>) -> Read<CallPlan> {
    let mut table = item.section("`plan`")?;
    let mut plan = CallPlan::per_call(table.take("per_call").map_or(Ok(Usd::ZERO), dollars)?);
    if let Some(item) = table.take("monthly") {
        plan = plan.monthly(dollars(item)?);
    }
    if let Some(item) = table.take("included") {
        plan = plan.included(item.number(COUNT)?);
    }
    for item in table.each("tiers")? {
        let mut tier = item.section("`tiers`")?;
        let from = tier.need("from")?;
        let at = from.span.start;
        let number: u64 = from.number(COUNT)?;
        if number == 0 {
            return Err(Fault {
                at,
                message: "calls are counted from 1".to_owned(),
            });
        }
        plan = plan.from_call(number, dollars(tier.need("per_call")?)?);
        tier.finish()?;
    }
    table.finish()?;
    Ok(plan)
}

fn dollars(item: Item<'_>) -> Read<Usd> {
    item.read(DOLLARS, |text| {
        let written = text.starts_with('$') || text.ends_with(" USD");
        let shown = || text::excerpt(text);
        if !written {
            return Err(format!(
                "`{}` does not say that it is dollars; write it like `0.10 USD`",
                shown()
            ));
        }
        text.parse::<Usd>()
            .map_err(|error| format!("`{}` is {error}", shown()))
    })
}
