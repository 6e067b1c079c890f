//! `bursar networks`: the networks that bursar knows by name, and their tokens.

use bursar::Network;
use bursar::money::{Asset, AssetRegistry, TransferMethod};
use serde::Serialize;

use crate::args::Networks as Args;
use crate::exit::{Exit, Failure};
use crate::{ledger, output};

/// The table, as `--json` prints it.
#[derive(Debug, Serialize)]
struct NetworksOutput {
    networks: Vec<KnownNetwork>,
}

#[derive(Debug, Serialize)]
struct KnownNetwork {
    name: &'static str,
    caip2: String,
    test: bool,
    tokens: Vec<Token>,
}

#[derive(Debug, Serialize)]
struct Token {
    symbol: String,
    address: String,
    decimals: u8,
    /// Whether bursar can sign for the token.
    payable: bool,
}

/// `bursar networks`.
pub(crate) fn run(args: &Args) -> Result<Exit, Failure> {
    let mut networks: Vec<KnownNetwork> = Network::known().map(KnownNetwork::of).collect();
    networks.sort_by_key(|network| (network.test, network.name));
    let printed = if args.json {
        output::print_json(&NetworksOutput { networks })
    } else {
        output::print(table(&networks))
    };
    output::finish(printed, Exit::Done)
}

impl KnownNetwork {
    fn of(network: Network) -> Self {
        let assets = AssetRegistry::stablecoins().iter();
        let here = assets.filter(|asset| asset.network() == network);
        let mut tokens: Vec<Token> = here.map(Token::of).collect();
        tokens.sort_by(|one, other| one.symbol.cmp(&other.symbol));
        Self {
            name: network.name().unwrap_or_default(),
            caip2: network.to_string(),
            test: network.is_testnet(),
            tokens,
        }
    }
}

impl Token {
    fn of(asset: &Asset) -> Self {
        Self {
            symbol: asset.symbol().to_owned(),
            address: asset.address().to_string(),
            decimals: asset.decimals(),
            payable: asset.transfer_method() == TransferMethod::Eip3009,
        }
    }
}

fn table(networks: &[KnownNetwork]) -> String {
    let head = ["NETWORK", "CAIP-2", "MONEY", "TOKEN", "ADDRESS"].map(ToOwned::to_owned);
    let rows = networks.iter().flat_map(|network| {
        let row = |token: &str, address: &str| {
            let money = if network.test { "test" } else { "real" };
            [network.name, &network.caip2, money, token, address].map(ToOwned::to_owned)
        };
        let tokens = network.tokens.iter().map(|token| {
            let note = if token.payable {
                ""
            } else {
                " (not payable: Permit2)"
            };
            row(&token.symbol, &format!("{}{note}", token.address))
        });
        let none = network.tokens.is_empty().then(|| row("-", "-"));
        tokens.chain(none).collect::<Vec<_>>()
    });
    ledger::table(head, rows)
}
