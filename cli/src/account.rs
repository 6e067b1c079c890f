//! `bursar wallet`: create a wallet, and look at its address and balances.

use std::path::Path;

use bursar::money::AssetRegistry;
use bursar::signer::KeyError;
use bursar::{Address, Asset, ChainReader, LocalSigner, Network};
use serde::Serialize;
use serde_json::json;
use tokio::task::JoinSet;

use crate::args::{KeyArgs, NewWallet, WalletAddress, WalletBalance, WalletCommand};
use crate::exit::{Exit, Failure};
use crate::ledger::table;
use crate::payment::network_name;
use crate::secrets::{self, KEY};
use crate::{output, password, wallet};

pub(crate) async fn run(command: WalletCommand) -> Result<Exit, Failure> {
    match command {
        WalletCommand::New(args) => new(args).await,
        WalletCommand::Address(args) => address(&args),
        WalletCommand::Balance(args) => balance(args).await,
        WalletCommand::Approve(args) => crate::approve::run(args).await,
    }
}

async fn new(args: NewWallet) -> Result<Exit, Failure> {
    let file = args.file;
    // Nobody types a password for a file that cannot be written.
    if file.symlink_metadata().is_ok() {
        let message = format!(
            "{} exists already; bursar replaces no file, because it may hold a key",
            file.display()
        );
        return Err(Failure::usage(message));
    }
    let password = match args.password_fd {
        Some(fd) => secrets::password_from(fd)?,
        None => password::choose()?,
    };
    let path = file.clone();
    let created =
        tokio::task::spawn_blocking(move || LocalSigner::create_keystore(path, &password)).await;
    let created = created.map_err(|error| Failure::failed(error.to_string()))?;
    let signer = created.map_err(|error| match error {
        KeyError::EmptyPassword => Failure::usage("the password is empty; choose a longer one"),
        error => Failure::failed(format!("{}: {error}", file.display())),
    })?;
    let address = signer.address();
    let printed = if args.json {
        let object = json!({
            "address": address.to_string(),
            "keystore": file.display().to_string(),
        });
        output::print_json(&object)
    } else {
        output::print(next_steps(address, &file))
    };
    output::finish(printed, Exit::Done)
}

fn next_steps(address: Address, file: &Path) -> String {
    let file = quoted(&file.display().to_string());
    format!(
        "{address}\n\n\
         The key is in {file}, encrypted with your password. Keep a copy of both: nobody\n\
         can restore them. Put only as much money into the wallet as the agent may spend.\n\n\
         Next:\n\
         \x20 1. Get test USDC for this address on Base Sepolia: https://faucet.circle.com\n\
         \x20 2. Look at the balance:\n\
         \x20    bursar wallet balance --keystore {file} --rpc base-sepolia=https://sepolia.base.org\n\
         \x20 3. Pay for something:\n\
         \x20    bursar pay URL --keystore {file} --network base-sepolia --rpc base-sepolia=https://sepolia.base.org\n"
    )
}

/// Quotes the name of a file for a shell, if it needs that.
fn quoted(name: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "_./-".contains(letter);
    if name.chars().all(plain) {
        name.to_owned()
    } else {
        format!("'{}'", name.replace('\'', "'\\''"))
    }
}

fn address(args: &WalletAddress) -> Result<Exit, Failure> {
    let address = address_of(&args.key)?;
    let printed = if args.json {
        output::print_json(&json!({ "address": address.to_string() }))
    } else {
        output::print(format_args!("{address}\n"))
    };
    output::finish(printed, Exit::Done)
}

/// Returns the address, without a password if the keystore names it.
pub(crate) fn address_of(args: &KeyArgs) -> Result<Address, Failure> {
    if let Some(file) = &args.keystore {
        let named = LocalSigner::keystore_address(file)
            .map_err(|error| Failure::usage(format!("--keystore {}: {error}", file.display())))?;
        if let Some(address) = named {
            return Ok(address);
        }
    }
    let signer = wallet::signer(args.keystore.as_deref(), args.key_fd)?;
    signer.map(|signer| signer.address()).ok_or_else(|| {
        Failure::usage(format!(
            "no key is set; set {KEY}, or add --keystore FILE or --key-fd N"
        ))
    })
}

/// The balances of a wallet: the output of `bursar wallet balance --json`.
#[derive(Debug, Serialize)]
struct Balances {
    address: String,
    balances: Vec<Balance>,
}

/// The balance in one token.
#[derive(Debug, Serialize)]
struct Balance {
    network: String,
    caip2: String,
    token: String,
    asset: String,
    /// The decimal number of whole tokens, or `null` if it cannot be read.
    balance: Option<String>,
    /// The number of atomic units.
    units: Option<String>,
    /// With `--allowance`, how much of it Permit2 may move, in whole tokens: `unlimited`, or `null` if it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    permit2_allowance: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Balance {
    async fn read(chain: ChainReader, asset: Asset, address: Address, allowance: bool) -> Self {
        let read = chain.balance(&asset, address).await;
        let allowance = match allowance {
            true => Some(chain.permit2_allowance(&asset, address).await.ok()),
            false => None,
        };
        let units = read.as_ref().ok().map(bursar::TokenAmount::units);
        Self {
            network: network_name(asset.network()),
            caip2: asset.network().to_string(),
            token: asset.symbol().to_owned(),
            asset: asset.address().to_string(),
            balance: units.map(|units| asset.format_units(units)),
            units: units.map(|units| units.to_string()),
            permit2_allowance: allowance.map(|read| read.as_ref().map(allowed)),
            error: read.err().map(|reason| reason.to_string()),
        }
    }
}

/// Returns an allowance in whole tokens. More than half of all numbers is an approval without a limit, of which some tokens
/// count down.
pub(crate) fn allowed(amount: &bursar::TokenAmount) -> String {
    if amount.units().bit(255) {
        "unlimited".to_owned()
    } else {
        amount.asset().format_units(amount.units())
    }
}

async fn balance(args: WalletBalance) -> Result<Exit, Failure> {
    let chain = wallet::chain_of(args.policy.as_deref(), &args.rpc)?;
    let networks: Vec<Network> = chain.networks();
    let tokens = tokens(&networks, args.token.as_deref())?;
    let address = match args.address {
        Some(address) => address,
        None => address_of(&args.key)?,
    };
    let mut reads = JoinSet::new();
    for (order, token) in tokens.into_iter().enumerate() {
        let chain = chain.clone();
        reads.spawn(async move {
            (
                order,
                Balance::read(chain, token, address, args.allowance).await,
            )
        });
    }
    let mut balances = reads.join_all().await;
    balances.sort_by_key(|(order, _)| *order);
    let balances: Vec<Balance> = balances.into_iter().map(|(_, balance)| balance).collect();
    let unread = balances.iter().any(|balance| balance.error.is_some());
    let printed = if args.json {
        output::print_json(&Balances {
            address: address.to_string(),
            balances,
        })
    } else {
        let cells = |balance: &Balance| {
            let amount = balance.balance.clone().or_else(|| balance.error.clone());
            let (network, token) = (balance.network.clone(), balance.token.clone());
            [network, token, amount.unwrap_or_default()]
        };
        let shown = if args.allowance {
            let head = ["NETWORK", "TOKEN", "BALANCE", "PERMIT2 MAY MOVE"].map(ToOwned::to_owned);
            let rows = balances.iter().map(|balance| {
                let [network, token, amount] = cells(balance);
                let allowance = balance.permit2_allowance.clone().flatten();
                let allowance = allowance.unwrap_or_else(|| "unknown".to_owned());
                [network, token, amount, allowance]
            });
            table(head, rows)
        } else {
            let head = ["NETWORK", "TOKEN", "BALANCE"].map(ToOwned::to_owned);
            table(head, balances.iter().map(cells))
        };
        output::print(format_args!("{address}\n{shown}"))
    };
    output::finish(printed, if unread { Exit::Failed } else { Exit::Done })
}

/// Returns the known tokens of the networks.
pub(crate) fn tokens(networks: &[Network], symbol: Option<&str>) -> Result<Vec<Asset>, Failure> {
    let mut tokens = Vec::new();
    for network in networks {
        let known = AssetRegistry::stablecoins().iter();
        let here = known.filter(|asset| asset.network() == *network);
        let wanted = here.filter(|asset| {
            symbol.is_none_or(|symbol| asset.symbol().eq_ignore_ascii_case(symbol))
        });
        let mut found: Vec<Asset> = wanted.cloned().collect();
        if found.is_empty() {
            let token = symbol.unwrap_or("token");
            let message = format!(
                "bursar knows no {token} on {}; `bursar networks` shows the tokens",
                network_name(*network)
            );
            return Err(Failure::usage(message));
        }
        found.sort_by(|one, other| one.symbol().cmp(other.symbol()));
        tokens.extend(found);
    }
    Ok(tokens)
}
