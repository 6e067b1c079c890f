//! The API keys of a configuration file. The file has the place of each key, never the key itself.

use secrecy::SecretString;

use super::error::Mistakes;
use super::policy::{content, contents, tables};
use super::reader::{Table, Value};
use super::scalar::{CallNumber, HeaderText, Status, Text};
use super::schema;
use crate::credential::{
    CallPlan, Credential, Credentials, EnvKey, FileKey, KeySource, KeySourceError,
};
use crate::money::Usd;

/// Builds the API keys of the tables `[[credential]]`.
pub(super) fn credentials(file: &schema::File, mistakes: &Mistakes<'_>) -> Credentials {
    let mut keys = Credentials::new();
    for (at, table) in tables(&file.credential) {
        if table.host.is_empty() {
            mistakes.add(at, "[[credential]] needs a key `host`");
        }
        let Some(credential) = credential(at, table, mistakes) else {
            continue;
        };
        for (at, Text(host)) in contents(&table.host) {
            let alone = Credentials::new().host(host, credential.clone());
            match alone.check() {
                Ok(()) => keys = keys.host(host, credential.clone()),
                Err(error) => mistakes.add(at, format!("`host`: {}", error.message())),
            }
        }
        if let Err(error) = keys.check() {
            mistakes.add(at, error.message());
        }
    }
    keys
}

/// Reads how and when a key is sent.
fn credential(
    at: usize,
    table: &schema::Credential,
    mistakes: &Mistakes<'_>,
) -> Option<Credential> {
    let plan = table.plan.as_ref().map(plan_of);
    let mut credential = placed(at, table, mistakes)?;
    if let Some(preference) = content(table.prefer.as_ref()) {
        credential = credential.prefer(*preference);
    }
    if !table.pay_when.is_empty() {
        let statuses = contents(&table.pay_when).map(|(_, Status(status))| *status);
        credential = credential.pay_when(statuses);
    }
    if let Some(pay) = content(table.pay_when_missing.as_ref()) {
        credential = credential.pay_when_missing(*pay);
    }
    if let Some(plan) = plan {
        credential = credential.plan(plan);
    }
    Some(credential)
}

/// Reads the one table of `bearer`, `header`, `basic` and `query`.
fn placed(at: usize, table: &schema::Credential, mistakes: &Mistakes<'_>) -> Option<Credential> {
    let given = [
        ("bearer", table.bearer.as_ref().map(|bearer| bearer.at)),
        ("header", table.header.as_ref().map(|header| header.at)),
        ("basic", table.basic.as_ref().map(|basic| basic.at)),
        ("query", table.query.as_ref().map(|query| query.at)),
    ];
    let mut given = given.iter().filter_map(|(key, at)| Some((key, (*at)?)));
    let Some((first, _)) = given.next() else {
        mistakes.add(
            at,
            "[[credential]] needs one of `bearer`, `header`, `basic` and `query`",
        );
        return None;
    };
    for (other, at) in given {
        mistakes.add(
            at,
            format!("[[credential]] has `{first}` and `{other}`; keep one of them"),
        );
    }
    let source = |at, key, env, file| source(at, key, env, file, mistakes);
    let Text(name) = table.name.content.as_ref()?;
    if let Some(Table { at, content }) = &table.bearer {
        let bearer = content.as_ref()?;
        let source = source(*at, "bearer", &bearer.env, &bearer.file)?;
        return Some(Credential::bearer(name, source));
    }
    if let Some(Table { at, content }) = &table.header {
        let header = content.as_ref()?;
        let source = source(*at, "header", &header.env, &header.file)?;
        let HeaderText(header) = header.name.content.as_ref()?;
        return Some(Credential::header(name, header, source));
    }
    if let Some(Table { at, content }) = &table.basic {
        let basic = content.as_ref()?;
        let source = source(*at, "basic", &basic.env, &basic.file)?;
        let Text(user) = basic.user.content.as_ref()?;
        return Some(Credential::basic(name, user, source));
    }
    let Table { at, content } = table.query.as_ref()?;
    let query = content.as_ref()?;
    let source = source(*at, "query", &query.env, &query.file)?;
    let Text(parameter) = query.name.content.as_ref()?;
    Some(Credential::query(name, parameter, source))
}

/// The place of a key.
enum Source {
    Env(EnvKey),
    File(FileKey),
}

impl KeySource for Source {
    async fn key(&self) -> Result<Option<SecretString>, KeySourceError> {
        match self {
            Self::Env(source) => source.key().await,
            Self::File(source) => source.key().await,
        }
    }

    fn place(&self) -> String {
        match self {
            Self::Env(source) => source.place(),
            Self::File(source) => source.place(),
        }
    }

    fn variable(&self) -> Option<&str> {
        match self {
            Self::Env(source) => source.variable(),
            Self::File(_) => None,
        }
    }
}

fn source(
    at: usize,
    key: &str,
    env: &Option<Value<Text>>,
    file: &Option<Value<Text>>,
    mistakes: &Mistakes<'_>,
) -> Option<Source> {
    match (env, file) {
        (Some(env), None) => {
            let Text(variable) = env.content.as_ref()?;
            Some(Source::Env(EnvKey::new(variable)))
        }
        (None, Some(file)) => {
            let Text(path) = file.content.as_ref()?;
            Some(Source::File(FileKey::new(path)))
        }
        (None, None) => {
            mistakes.add(
                at,
                format!("`{key}` needs a key `env` or `file`: the place of the API key"),
            );
            None
        }
        (Some(_), Some(_)) => {
            mistakes.add(
                at,
                format!("`{key}` has `env` and `file`; keep one of them"),
            );
            None
        }
    }
}

fn plan_of(table: &Table<schema::Plan>) -> CallPlan {
    let Some(table) = &table.content else {
        return CallPlan::default();
    };
    let per_call = content(table.per_call.as_ref());
    let mut plan = CallPlan::per_call(per_call.copied().unwrap_or(Usd::ZERO));
    if let Some(fee) = content(table.monthly.as_ref()) {
        plan = plan.monthly(*fee);
    }
    if let Some(calls) = content(table.included.as_ref()) {
        plan = plan.included(*calls);
    }
    for (_, tier) in tables(&table.tiers) {
        if let (Some(CallNumber(from)), Some(price)) = (&tier.from.content, &tier.per_call.content)
        {
            plan = plan.from_call(*from, *price);
        }
    }
    plan
}
