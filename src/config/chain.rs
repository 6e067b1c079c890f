//! The tables `[[chain]]` of a configuration file: JSON-RPC endpoints.

use super::error::Mistakes;
use super::policy::{content, contents, tables};
use super::scalar::Text;
use super::{schema, token};
use crate::chain::ChainReader;
use crate::text::excerpt;

/// Builds the reader of all endpoints, or `None` if the file has none.
pub(super) fn reader(file: &schema::File, mistakes: &Mistakes<'_>) -> Option<ChainReader> {
    let mut reader = None;
    for (at, table) in tables(&file.chain) {
        let name = table.network.content.as_ref();
        let network = name.and_then(|Text(name)| {
            mistakes.check(table.network.at, "network", token::network(name))
        });
        let operator = content(table.operator.as_ref()).map(|Text(operator)| operator.as_str());
        if table.rpc.is_empty() {
            mistakes.add(at, "[[chain]] needs a key `rpc`");
        }
        for (at, url) in contents(&table.rpc) {
            let Some(network) = network else { continue };
            let known = reader.take().unwrap_or_else(ChainReader::new);
            let added = match operator {
                Some(operator) => {
                    known
                        .clone()
                        .endpoint_operated_by(network, url.as_str(), operator)
                }
                None => known.clone().endpoint(network, url.as_str()),
            };
            // The error does not repeat the URL, which can have a key.
            let added = added.map_err(|error| excerpt(&error.to_string()));
            reader = Some(mistakes.check(at, "rpc", added).unwrap_or(known));
        }
    }
    reader
}
