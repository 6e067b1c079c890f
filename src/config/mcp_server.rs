//! The MCP servers of a configuration file.

use std::collections::HashSet;

use url::Url;

use super::error::Mistakes;
use super::policy::{content, contents, tables};
use super::scalar::Text;
use super::schema;
use crate::money::Usd;
use crate::origin::Origin;

/// The most characters of the name of a server.
const LONGEST_NAME: usize = 32;

/// An MCP server that `bursar mcp proxy` calls: a table `[[mcp_server]]`.
///
/// ```
/// use bursar::config::{Config, McpServerPlace};
/// use bursar::usd;
///
/// let config = Config::from_toml(r#"
///     version = 1
///     networks = ["base"]
///
///     [[mcp_server]]
///     name = "weather"
///     url = "https://tools.example/mcp"
///     tools = ["forecast"]
///     max_price = "0.05 USD"
/// "#)?;
/// let server = &config.mcp_servers[0];
/// assert_eq!(server.name, "weather");
/// assert!(matches!(server.place, McpServerPlace::Url(_)));
/// assert_eq!(server.max_price, Some(usd!("0.05")));
/// # Ok::<(), bursar::config::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct McpServer {
    /// The name: 1 to 32 of `a-z`, `0-9` and `-`.
    pub name: String,
    /// The place of the server.
    pub place: McpServerPlace,
    /// The names of the tools that may be used. An empty list allows every tool.
    pub tools: Vec<String>,
    /// The tag of each purchase.
    pub tag: Option<String>,
    /// The limit of each payment in dollars, in addition to the policy.
    pub max_price: Option<Usd>,
}

/// The place of an MCP server.
///
/// ```
/// use bursar::config::McpServerPlace;
///
/// fn describe(place: &McpServerPlace) -> String {
///     match place {
///         McpServerPlace::Url(url) => url.to_string(),
///         McpServerPlace::Command { program, .. } => format!("the program {program}"),
///         _ => "another place".to_owned(),
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum McpServerPlace {
    /// An endpoint for streamable HTTP: https, or http on a loopback address.
    Url(Url),
    /// A program that speaks the protocol on its standard input and output.
    Command {
        /// The program.
        program: String,
        /// Its arguments.
        args: Vec<String>,
        /// The environment variables that it receives, in addition to the usual ones such as `PATH` and `HOME`.
        env: Vec<String>,
    },
}

impl McpServer {
    /// Returns the server of this name at this place, with all its tools.
    ///
    /// # Errors
    /// Returns the reason if the name is not 1 to 32 of `a-z`, `0-9` and `-`, or if the URL is neither https nor on
    /// loopback.
    pub fn new(name: &str, place: McpServerPlace) -> Result<Self, String> {
        let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        let edge = name.starts_with('-') || name.ends_with('-');
        if !(1..=LONGEST_NAME).contains(&name.len()) || !name.bytes().all(plain) || edge {
            return Err(format!(
                "the name of an MCP server is 1 to {LONGEST_NAME} of a-z, 0-9 and -, such as `weather`"
            ));
        }
        if let McpServerPlace::Url(url) = &place {
            let loopback = Origin::of(url).is_some_and(|origin| origin.is_loopback());
            match url.scheme() {
                "https" => {}
                "http" if loopback => {}
                _ => {
                    return Err(
                        "the URL of an MCP server is https, or http on a loopback address"
                            .to_owned(),
                    );
                }
            }
        }
        Ok(Self {
            name: name.to_owned(),
            place,
            tools: Vec::new(),
            tag: None,
            max_price: None,
        })
    }
}

/// Builds the servers of the tables `[[mcp_server]]`.
pub(super) fn servers(file: &schema::File, mistakes: &Mistakes<'_>) -> Vec<McpServer> {
    let (mut servers, mut names) = (Vec::new(), HashSet::new());
    for (at, table) in tables(&file.mcp_server) {
        let Some(server) = server(at, table, mistakes) else {
            continue;
        };
        if names.insert(server.name.clone()) {
            servers.push(server);
        } else {
            let message = format!("`name`: there is already an MCP server `{}`", server.name);
            mistakes.add(table.name.at, message);
        }
    }
    servers
}

fn server(at: usize, table: &schema::McpServer, mistakes: &Mistakes<'_>) -> Option<McpServer> {
    let texts = |values| contents(values).map(|(_, Text(text))| text.clone());
    let mut command = texts(&table.command);
    let place = match (&table.url, command.next()) {
        (Some(url), None) if table.command.is_empty() => {
            McpServerPlace::Url(url.content.as_ref()?.clone())
        }
        (None, Some(program)) => McpServerPlace::Command {
            program,
            args: command.collect(),
            env: texts(&table.env).collect(),
        },
        (None, None) if !table.command.is_empty() => return None,
        (None, None) => {
            mistakes.add(at, "[[mcp_server]] needs a key `url` or `command`");
            return None;
        }
        (Some(_), _) => {
            mistakes.add(
                at,
                "[[mcp_server]] has `url` and `command`; keep one of them",
            );
            return None;
        }
    };
    if let (McpServerPlace::Url(_), Some(env)) = (&place, table.env.first()) {
        mistakes.add(env.at, "`env` belongs to a server with a `command`");
    }
    let Text(name) = table.name.content.as_ref()?;
    let server = match McpServer::new(name, place) {
        Ok(server) => server,
        Err(message) => {
            let name_is_wrong = message.starts_with("the name");
            let url = table.url.as_ref().filter(|_| !name_is_wrong);
            let (at, key) = url.map_or((table.name.at, "name"), |url| (url.at, "url"));
            mistakes.add(at, format!("`{key}`: {message}"));
            return None;
        }
    };
    Some(McpServer {
        tools: texts(&table.tools).collect(),
        tag: content(table.tag.as_ref()).map(|Text(tag)| tag.clone()),
        max_price: content(table.max_price.as_ref()).copied(),
        ..server
    })
}
