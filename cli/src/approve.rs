//! `bursar wallet approve`: the approval of Permit2.

use std::time::Duration;

use bursar::chain::Reason;
use bursar::primitives::U256;
use bursar::signer::Approval;
use bursar::{Address, Asset, ChainReader, LocalSigner, Network, Signer};
use serde_json::{Value, json};

use crate::account::{address_of, tokens};
use crate::args::WalletApprove;
use crate::exit::{Exit, Failure};
use crate::payment::network_name;
use crate::{output, wallet};

/// The time between two questions about the receipt, and how many there are.
const BETWEEN: Duration = Duration::from_secs(1);
const QUESTIONS: u32 = 180;
const GWEI: u128 = 1_000_000_000;
/// The contract that is approved, on every network.
const PERMIT2: Address = bursar::primitives::address!("000000000022D473030F116dDEE9F6B43aC78BA3");

pub(crate) async fn run(args: WalletApprove) -> Result<Exit, Failure> {
    let network = args.network;
    let asset = tokens(&[network], Some(&args.token))?.remove(0);
    let units = units(&args, &asset)?;
    let chain = args.rpc.as_deref().map(|rpc| reader(network, rpc));
    let chain = chain.transpose()?;
    if !args.send {
        // Without a key, nobody knows the address. The transaction is the same.
        let owner = address_of(&args.key).ok();
        return finish(&args, &described(&asset, units, owner), None);
    }
    let chain = chain.ok_or_else(|| Failure::usage("--send needs --rpc URL"))?;
    let signer = wallet::signer(args.key.keystore.as_deref(), args.key.key_fd)?;
    let signer = signer.ok_or_else(|| {
        Failure::usage(
            "no key is set; set BURSAR_PRIVATE_KEY, or add --key-fd N or --keystore FILE",
        )
    })?;
    let description = described(&asset, units, Some(signer.address()));
    let hash = send(&args, &chain, &signer, &asset, units).await?;
    finish(&args, &description, Some(&hash))
}

/// Returns the amount in atomic units.
fn units(args: &WalletApprove, asset: &Asset) -> Result<U256, Failure> {
    if args.amount == "max" {
        return if args.unlimited {
            Ok(U256::MAX)
        } else {
            Err(Failure::usage(
                "--amount max lets Permit2 move every token of this kind that the wallet has or will have, without an \
                 end; approve the amount that you are ready to spend, or add --unlimited if you mean it",
            ))
        };
    }
    if args.unlimited {
        return Err(Failure::usage("--unlimited belongs to --amount max"));
    }
    asset.parse_units(&args.amount).ok_or_else(|| {
        Failure::usage(format!(
            "--amount: expected whole {} with at most {} decimals, such as 5 or 0.25",
            asset.symbol(),
            asset.decimals(),
        ))
    })
}

/// Returns the reader of an endpoint: `URL`, or `NETWORK=URL` with the same network.
fn reader(network: Network, rpc: &str) -> Result<ChainReader, Failure> {
    let named = rpc.split_once('=');
    let named = named.filter(|(name, _)| !name.contains("://"));
    let url = match named {
        None => rpc,
        Some((name, url)) if name.parse() == Ok(network) => url,
        Some(_) => {
            return Err(Failure::usage(
                "--rpc: the endpoint is of another network than --network",
            ));
        }
    };
    let reader = ChainReader::new().endpoint(network, url);
    reader.map_err(|error| Failure::usage(format!("--rpc: {error}")))
}

fn described(asset: &Asset, units: U256, owner: Option<Address>) -> Value {
    let amount = if units == U256::MAX {
        "unlimited".to_owned()
    } else {
        asset.format_units(units)
    };
    let calldata = Approval::calldata_of(units);
    let digits: String = calldata.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({
        "network": network_name(asset.network()),
        "chain_id": asset.network().chain_id(),
        "token": asset.symbol(),
        "amount": amount,
        "units": units.to_string(),
        "owner": owner.map(|owner| owner.to_string()),
        "spender": PERMIT2.to_string(),
        "to": asset.address().to_string(),
        "data": format!("0x{digits}"),
    })
}

/// Sends the approval, and waits for its receipt. Returns the hash of the transaction.
async fn send(
    args: &WalletApprove,
    chain: &ChainReader,
    signer: &LocalSigner,
    asset: &Asset,
    units: U256,
) -> Result<String, Failure> {
    let approval = chain
        .prepare_approval(asset, signer.address(), units)
        .await
        .map_err(|reason| unprepared(&reason, asset))?;
    let terms = approval.terms();
    if terms.max_fee > u128::from(args.max_fee).saturating_mul(GWEI) {
        return Err(Failure::failed(format!(
            "nothing was sent: a unit of gas could cost {} gwei, and --max-fee is {}",
            terms.max_fee.div_ceil(GWEI),
            args.max_fee,
        )));
    }
    let signature = signer
        .sign_approval(&approval)
        .await
        .map_err(|error| Failure::failed(error.to_string()))?;
    let hash = chain
        .send_approval(&approval, &signature)
        .await
        .map_err(|reason| Failure::failed(format!("the transaction was not sent: {reason}")))?;
    output::note(format_args!(
        "bursar: sent {hash}, for at most {} gwei of gas",
        terms.cost().div_ceil(GWEI)
    ));
    for question in 0..QUESTIONS {
        if question > 0 {
            tokio::time::sleep(BETWEEN).await;
        }
        // A node that cannot be reached now may be reached later.
        match chain.has_succeeded(asset.network(), hash).await {
            Ok(Some(true)) => return Ok(hash.to_string()),
            Ok(Some(false)) => {
                return Err(Failure::failed(format!(
                    "the token refused the approval in transaction {hash}"
                )));
            }
            Ok(None) | Err(_) => {}
        }
    }
    Err(Failure::failed(format!(
        "the transaction {hash} is in no block yet; look it up before you send another one"
    )))
}

fn unprepared(reason: &Reason, asset: &Asset) -> Failure {
    Failure::failed(format!(
        "nothing was sent: {reason}; the wallet needs the coin of {} for gas, and some tokens, such as USDT, must be set to \
         --amount 0 before another amount",
        network_name(asset.network()),
    ))
}

fn finish(args: &WalletApprove, described: &Value, hash: Option<&str>) -> Result<Exit, Failure> {
    let member = |name: &str| described.get(name).unwrap_or(&Value::Null);
    let field = |name: &str| member(name).as_str().unwrap_or_default().to_owned();
    let printed = if args.json {
        let mut object = described.clone();
        if let Some(object) = object.as_object_mut() {
            object.insert("transaction".to_owned(), json!(hash));
        }
        output::print_json(&object)
    } else if let Some(hash) = hash {
        output::print(format_args!("{hash}\n"))
    } else {
        output::print(format_args!(
            "to    {}\ndata  {}\nchain {}\n\nThis lets Permit2 ({}) move {} {} of the wallet on {}.\n\
             Send it from the wallet, or add --send --rpc URL.\n",
            field("to"),
            field("data"),
            member("chain_id"),
            field("spender"),
            field("amount"),
            field("token"),
            field("network"),
        ))
    };
    output::finish(printed, Exit::Done)
}
