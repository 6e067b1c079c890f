//! The clients measured here: the floor, a payer by hand, and bursar in its ways.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use alloy_primitives::{Address, B256, U256, hex, keccak256};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bursar::{Client, ClientBuilder, Ledger, LocalSigner, PaymentStatus, Policy, ResponseExt};
use k256::ecdsa::SigningKey;
use secp256k1::{Message, Secp256k1, SecretKey};
use serde_json::{Value, json};

use crate::drive::{Failure, Measured, Plan, drive};
use crate::pieces;
use crate::server::{PAYEE, PRICE, USDC};

/// Anvil's account 0, published with it.
pub const KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
const PAYER: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
const DAY: Duration = Duration::from_secs(86_400);

fn http() -> reqwest::Client {
    reqwest::Client::builder()
        .tcp_nodelay(true)
        .no_proxy()
        .build()
        .expect("reqwest starts")
}

fn payer(policy: Policy) -> Result<ClientBuilder, Failure> {
    Ok(Client::builder()
        .http(reqwest::Client::builder().tcp_nodelay(true).no_proxy())
        .signer(LocalSigner::from_hex(&KEY.to_owned().into())?)
        .policy(policy)
        .allow_http_loopback(true))
}

/// Ten limits. Each purchase is another request, so the default loop guard denies none.
fn policy() -> Policy {
    pieces::policy().loop_guard(Duration::from_secs(60), 30)
}

async fn buy(client: Client, url: String, plan: Plan) -> Result<Measured, Failure> {
    drive(plan, move |number| {
        let (client, url) = (client.clone(), format!("{url}?{number}"));
        async move {
            let response = client.get(url.as_str()).allow_duplicate().send().await?;
            if response.payment_status() != PaymentStatus::Paid {
                return Err(format!("not settled: {}", response.status()).into());
            }
            response.bytes().await?;
            Ok(())
        }
    })
    .await
}

/// Runs the client of this name against the server at `base`.
pub async fn run(name: &str, base: &str, plan: Plan) -> Result<Measured, Failure> {
    let (path, name) = match name.strip_prefix("slow-") {
        Some(name) => ("slow", name),
        None => ("paid", name),
    };
    let url = |what: &str| format!("{base}/{path}{what}");
    let known = || policy().remember_terms(DAY);
    match name {
        "floor" => floor(url("/floor"), plan).await,
        "hand" => by_hand(url("/one"), plan, Key::libsecp256k1()?).await,
        "hand-k256" => by_hand(url("/one"), plan, Key::k256()?).await,
        "bursar" => {
            buy(
                payer(policy())?.ledger(Ledger::memory()).build()?,
                url("/one"),
                plan,
            )
            .await
        }
        "bursar-eight" => {
            buy(
                payer(policy())?.ledger(Ledger::memory()).build()?,
                url("/eight"),
                plan,
            )
            .await
        }
        "bursar-known" => {
            buy(
                payer(known())?.ledger(Ledger::memory()).build()?,
                url("/one"),
                plan,
            )
            .await
        }
        "bursar-sqlite" => {
            let directory = tempfile::tempdir_in(std::env::current_dir()?)?;
            let ledger = Ledger::sqlite(directory.path().join("ledger.db"))?;
            buy(payer(policy())?.ledger(ledger).build()?, url("/one"), plan).await
        }
        "reqwest-free" => pass(ReqwestTransport(http()), format!("{base}/free"), plan).await,
        "reqwest-big" => pass(ReqwestTransport(http()), format!("{base}/big"), plan).await,
        "bursar-free" => {
            pass(
                payer(policy())?.ledger(Ledger::memory()).build()?,
                format!("{base}/free"),
                plan,
            )
            .await
        }
        "bursar-big" => {
            pass(
                payer(policy())?.ledger(Ledger::memory()).build()?,
                format!("{base}/big"),
                plan,
            )
            .await
        }
        _ => Err(format!("no client is called {name}").into()),
    }
}

/// Two bare requests: one that is answered 402, one with a payment that was made beforehand.
async fn floor(url: String, plan: Plan) -> Result<Measured, Failure> {
    let client = http();
    let terms = ask(&client, &url).await?;
    let payment: Arc<str> = Wallet::new(Key::libsecp256k1()?).pay(&terms)?.into();
    drive(plan, move |_| {
        let (client, url, payment) = (client.clone(), url.clone(), Arc::clone(&payment));
        async move {
            let response = client.get(url.as_str()).send().await?;
            drop(response.headers().get("payment-required").cloned());
            response.bytes().await?;
            let response = client
                .get(url.as_str())
                .header("payment-signature", &*payment)
                .send()
                .await?;
            deliver(response).await
        }
    })
    .await
}

async fn ask(client: &reqwest::Client, url: &str) -> Result<Value, Failure> {
    let response = client.get(url).send().await?;
    let terms = response
        .headers()
        .get("payment-required")
        .ok_or("no terms")?
        .as_bytes()
        .to_vec();
    response.bytes().await?;
    Ok(serde_json::from_slice(&BASE64_STANDARD.decode(terms)?)?)
}

async fn deliver(response: reqwest::Response) -> Result<(), Failure> {
    if !response.status().is_success() || !response.headers().contains_key("payment-response") {
        return Err(format!("not settled: {}", response.status()).into());
    }
    response.bytes().await?;
    Ok(())
}

async fn by_hand(url: String, plan: Plan, key: Key) -> Result<Measured, Failure> {
    let (client, wallet) = (http(), Arc::new(Wallet::new(key)));
    drive(plan, move |_| {
        let (client, wallet, url) = (client.clone(), Arc::clone(&wallet), url.clone());
        async move {
            let payment = wallet.pay(&ask(&client, &url).await?)?;
            deliver(
                client
                    .get(url.as_str())
                    .header("payment-signature", payment)
                    .send()
                    .await?,
            )
            .await
        }
    })
    .await
}

/// A private key with the library that signs by it.
enum Key {
    Libsecp256k1(SecretKey, Secp256k1<secp256k1::All>),
    K256(SigningKey),
}

impl Key {
    fn libsecp256k1() -> Result<Self, Failure> {
        let key: [u8; 32] = hex::decode(KEY)?
            .try_into()
            .map_err(|_| "a key of 32 bytes")?;
        let key = SecretKey::from_byte_array(key)?;
        Ok(Self::Libsecp256k1(key, Secp256k1::new()))
    }

    fn k256() -> Result<Self, Failure> {
        Ok(Self::K256(SigningKey::from_slice(&hex::decode(KEY)?)?))
    }

    fn sign(&self, digest: B256) -> String {
        let (scalars, odd): ([u8; 64], bool) = match self {
            Self::Libsecp256k1(key, context) => {
                let message = Message::from_digest(digest.0);
                let signature = context.sign_ecdsa_recoverable(message, key);
                let (recovery, scalars) = signature.serialize_compact();
                (scalars, i32::from(recovery) & 1 == 1)
            }
            Self::K256(key) => {
                let (signature, recovery) = key.sign_prehash_recoverable(digest.as_slice());
                (signature.to_bytes().into(), recovery.is_y_odd())
            }
        };
        hex::encode_prefixed([&scalars[..], &[27 + u8::from(odd)]].concat())
    }
}

/// A client as it is written in a hurry: it has no policy and no ledger, and believes the seller.
struct Wallet {
    key: Key,
    count: AtomicU64,
}

impl Wallet {
    const fn new(key: Key) -> Self {
        Self {
            key,
            count: AtomicU64::new(1),
        }
    }

    fn pay(&self, terms: &Value) -> Result<String, Failure> {
        let offer = &terms["accepts"][0];
        let (payer, to): (Address, Address) = (PAYER.parse()?, PAYEE.parse()?);
        let before = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + 300;
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let nonce = keccak256(
            [
                number.to_be_bytes(),
                u64::from(std::process::id()).to_be_bytes(),
            ]
            .concat(),
        );
        let text = |text: &str| keccak256(text.as_bytes());
        let domain = [
            text(
                "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)",
            ),
            text(offer["extra"]["name"].as_str().ok_or("name")?),
            text(offer["extra"]["version"].as_str().ok_or("version")?),
            U256::from(84_532).into(),
            USDC.parse::<Address>()?.into_word(),
        ];
        let message = [
            text(
                "TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)",
            ),
            payer.into_word(),
            to.into_word(),
            PRICE.parse::<U256>()?.into(),
            U256::ZERO.into(),
            U256::from(before).into(),
            nonce,
        ];
        let hash =
            |words: &[B256]| keccak256(words.iter().flat_map(|word| word.0).collect::<Vec<u8>>());
        let digest = keccak256(
            [
                &[0x19, 0x01],
                hash(&domain).as_slice(),
                hash(&message).as_slice(),
            ]
            .concat(),
        );
        let signature = self.key.sign(digest);
        let payment = json!({
            "x402Version": 2, "accepted": offer, "resource": terms["resource"],
            "payload": { "signature": signature, "authorization": {
                "from": PAYER, "to": PAYEE, "value": PRICE, "validAfter": "0", "validBefore": before.to_string(), "nonce": nonce.to_string(),
            } },
        });
        Ok(BASE64_STANDARD.encode(payment.to_string()))
    }
}

/// What asks for a page without paying.
trait Get: Clone + Send + Sync + 'static {
    fn get(&self, url: &str) -> impl Future<Output = Result<reqwest::Response, Failure>> + Send;
}

#[derive(Clone)]
struct ReqwestTransport(reqwest::Client);

impl Get for ReqwestTransport {
    async fn get(&self, url: &str) -> Result<reqwest::Response, Failure> {
        Ok(self.0.get(url).send().await?)
    }
}

impl Get for Client {
    async fn get(&self, url: &str) -> Result<reqwest::Response, Failure> {
        Ok(Client::get(self, url).send().await?)
    }
}

async fn pass(client: impl Get, url: String, plan: Plan) -> Result<Measured, Failure> {
    drive(plan, move |_| {
        let (client, url) = (client.clone(), url.clone());
        async move {
            let mut response = client.get(&url).await?;
            while response.chunk().await?.is_some() {}
            Ok(())
        }
    })
    .await
}
