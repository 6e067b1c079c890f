//! Parsers of single arguments.

use std::time::Duration;

use bursar::ledger::State;
use bursar::{Network, Url};

/// Parses an absolute URL with the scheme http or https.
pub(super) fn http_url(text: &str) -> Result<Url, String> {
    let expected = "expected a URL such as https://api.example.com/report";
    match text.parse::<Url>() {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        Ok(_) => Err(expected.to_owned()),
        Err(error) => Err(format!("{error}; {expected}")),
    }
}

/// Parses a number of seconds greater than 0.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text
        .parse()
        .map_err(|_| "expected a number of seconds such as 30 or 2.5".to_owned())?;
    match Duration::try_from_secs_f64(number) {
        Ok(limit) if !limit.is_zero() => Ok(limit),
        _ => Err("expected a number of seconds greater than 0, such as 30 or 2.5".to_owned()),
    }
}

/// Parses `NETWORK=URL`, a JSON-RPC endpoint of a network.
pub(super) fn endpoint(text: &str) -> Result<(Network, String), String> {
    // Without a network, the text before an equals sign is a URL, which can hold a key.
    let (network, url) = text
        .split_once('=')
        .filter(|(network, _)| !network.contains("://"))
        .ok_or("expected a network and a URL such as base=https://mainnet.base.org")?;
    Ok((
        network
            .parse()
            .map_err(|error: bursar::money::ParseNetworkError| error.to_string())?,
        url.to_owned(),
    ))
}

/// Parses the state of a purchase.
pub(super) fn state(text: &str) -> Result<State, String> {
    let named = State::ALL.into_iter().find(|state| state.name() == text);
    named.ok_or_else(|| {
        let names = State::ALL.map(State::name).join(", ");
        format!("expected one of {names}")
    })
}
