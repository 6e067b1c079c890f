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

/// Parses an age such as `90d`.
pub(crate) fn age(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let count: u64 = text.strip_suffix(unit)?.parse().ok()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return None,
    };
    count.checked_mul(seconds).map(Duration::from_secs)
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

/// Parses a loopback address with a port.
#[cfg(feature = "mcp-proxy")]
pub(super) fn loopback(text: &str) -> Result<std::net::SocketAddr, String> {
    let address: std::net::SocketAddr = text
        .replacen("localhost:", "127.0.0.1:", 1)
        .parse()
        .map_err(|_| "expected an address and a port such as 127.0.0.1:8402".to_owned())?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err("expected a loopback address such as 127.0.0.1: a server with a wallet is not for a network".to_owned())
    }
}

/// Parses `NAME=URL`, or a URL whose host makes the name.
#[cfg(feature = "mcp-proxy")]
pub(super) fn upstream(text: &str) -> Result<bursar::config::McpServer, String> {
    use bursar::config::{McpServer, McpServerPlace};

    let (name, url) = match text.split_once('=') {
        Some((name, url)) if !name.contains(':') => (Some(name), url),
        _ => (None, text),
    };
    let url = http_url(url)?;
    let derived = name_of_host(&url);
    McpServer::new(name.unwrap_or(&derived), McpServerPlace::Url(url))
}

/// Returns a name for the server at a URL.
#[cfg(feature = "mcp-proxy")]
pub(crate) fn name_of_host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
    let plain = |byte: char| {
        if byte.is_ascii_alphanumeric() {
            byte
        } else {
            '-'
        }
    };
    let name: String = host.chars().map(plain).take(24).collect();
    match name.trim_matches('-') {
        "" => "server".to_owned(),
        name => name.to_owned(),
    }
}

/// Parses `NAME=COMMAND`.
#[cfg(feature = "mcp-proxy")]
pub(super) fn upstream_command(text: &str) -> Result<bursar::config::McpServer, String> {
    use bursar::config::{McpServer, McpServerPlace};

    let expected = "expected a name and a command such as files=\"uvx paid-files --root /srv\"";
    let (name, command) = text.split_once('=').ok_or(expected)?;
    let mut words = words(command)?.into_iter();
    let program = words.next().ok_or(expected)?;
    let place = McpServerPlace::Command {
        program,
        args: words.collect(),
        env: Vec::new(),
    };
    McpServer::new(name, place)
}

/// Splits a command at spaces. Text in single or double quotes stays together.
#[cfg(feature = "mcp-proxy")]
fn words(command: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for character in command.chars() {
        match quote {
            Some(end) if character == end => quote = None,
            None if matches!(character, '"' | '\'') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            None if character.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    if let Some(quote) = quote {
        return Err(format!("the command has a {quote} without its end"));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(all(test, feature = "mcp-proxy"))]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_split_at_spaces_outside_quotes() {
        for (command, expected) in [
            ("a b  c", vec!["a", "b", "c"]),
            ("a 'b c' \"d 'e\"f", vec!["a", "b c", "d 'ef"]),
            ("a ''", vec!["a", ""]),
            ("C:\\x.exe y", vec!["C:\\x.exe", "y"]),
            ("  ", vec![]),
        ] {
            assert_eq!(
                words(command),
                Ok(expected.iter().map(ToString::to_string).collect())
            );
        }
        assert!(words("a 'b").is_err());
    }

    #[test]
    fn the_host_of_a_url_makes_the_name_of_its_server() {
        for (text, name) in [
            ("https://Tools.example/mcp?a=b", "tools-example"),
            ("http://127.0.0.1:8/mcp", "127-0-0-1"),
            ("http://[::1]:8/mcp", "1"),
            ("paid=https://tools.example/mcp", "paid"),
        ] {
            assert_eq!(
                upstream(text).map(|server| server.name),
                Ok(name.to_owned())
            );
        }
        for wrong in [
            "a_b=https://a.example",
            "a=http://a.example",
            "a=ftp://a.example",
            "a",
            "=https://a.example",
        ] {
            assert!(upstream(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_a_loopback_address_can_be_served() {
        for text in ["127.0.0.1:0", "[::1]:8402", "localhost:8402", "127.8.0.1:1"] {
            assert!(loopback(text).is_ok(), "{text}");
        }
        for text in [
            "0.0.0.0:1",
            "[::]:1",
            "192.168.0.1:1",
            "127.0.0.1",
            "example.com:1",
        ] {
            assert!(loopback(text).is_err(), "{text}");
        }
    }
}
