//! Sign-in-with-x: buyers enter again what they have bought.
//!
//! The checks are those of official sellers, written from EIP-4361 and EIP-191. They do not use the code of bursar.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use alloy::primitives::{Address, hex, keccak256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bursar::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use crate::fault::names;
use crate::payment::ReceivedRequest;
use crate::route::Route;
use crate::typed_data::recover;

/// The name of the extension and of its request header.
pub(crate) const SIGN_IN_WITH_X: &str = "sign-in-with-x";
/// The fields of the challenge that a seller makes anew for each 402. A payment may repeat older ones.
pub(crate) const DYNAMIC: [&str; 3] = ["nonce", "issuedAt", "expirationTime"];
/// The time for which a challenge is good.
const LIFETIME: Duration = Duration::from_secs(300);
/// The domain and the origin of another seller.
const ELSEWHERE: (&str, &str) = ("other.example", "https://other.example/report");

/// A sign-in that reached the paywall.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SignIn {
    /// The path of the request.
    pub path: String,
    /// The value of the header `SIGN-IN-WITH-X`.
    pub header: String,
    /// The address that signs in, or `None` if the header cannot be read.
    pub address: Option<Address>,
    /// The nonce of the challenge that it answers.
    pub nonce: String,
    /// Whether the paywall let the buyer in.
    pub accepted: bool,
}

/// A way in which a seller misbehaves with sign-ins. Set it with [`Route::sign_in_fault`].
///
/// No money moves by a sign-in, true or false.
///
/// ```
/// use bursar::policy::SignIn;
/// use bursar::{Client, ErrorKind, Ledger, LocalSigner, Policy};
/// use bursar_testing::{Paywall, Route, SignInFault};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // The seller passes on the challenge of another site.
/// let route = Route::get("/me").sign_in_only().sign_in_fault(SignInFault::OtherDomain);
/// let seller = Paywall::builder().route(route).start().await?;
/// let client = Client::builder()
///     .signer(LocalSigner::random()?)
///     .policy(Policy::new().allow_network("base-sepolia").sign_in(SignIn::Always))
///     .ledger(Ledger::memory())
///     .allow_http_loopback(true)
///     .build()?;
///
/// let error = client.get(seller.url("/me")).send().await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Malformed);
/// assert!(seller.sign_ins().is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignInFault {
    /// Names the domain of another site in its challenge, and the URL of that site.
    OtherDomain,
    /// Names its own domain, and a URL of another site.
    OtherUri,
    /// States the same challenge in every 402, also after it was answered.
    RepeatsChallenge,
    /// States a challenge that has expired.
    Expired,
    /// States a challenge that was issued a day ago, and does not expire.
    Old,
    /// States a challenge that is issued an hour from now.
    Future,
    /// States a challenge that is not valid before an hour from now.
    NotYet,
    /// Writes further lines of the message into its statement.
    ForgesLine,
    /// Takes keys of Solana only.
    OnlySolana,
    /// States a challenge without its members.
    Garbage,
    /// Lets no one in. Every sign-in is answered with 402 and a new challenge.
    Refuses,
    /// Lets no one in, and doubles the price when a buyer signs in.
    DoublesPrice,
    /// Answers a sign-in with this status in plain text.
    Status(u16),
    /// Redirects a sign-in with 307 to a path or a URL.
    Redirects(String),
}

names!(SignInFault:
    OtherDomain, OtherUri, RepeatsChallenge, Expired, Old, Future, NotYet, ForgesLine, OnlySolana, Garbage, Refuses,
    DoublesPrice, Status, Redirects,
);

/// How a route takes sign-ins.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entrance {
    /// Whether nobody has to pay.
    pub(crate) is_only_way: bool,
    pub(crate) fault: Option<SignInFault>,
}

/// The challenges, the sign-ins and the buyers of a paywall.
#[derive(Debug, Default)]
pub(crate) struct SignIns {
    pub(crate) received: Vec<SignIn>,
    /// The buyers by path.
    bought: HashSet<(String, Address)>,
    /// The challenge that each route stated last.
    stated: HashMap<usize, Value>,
    /// The nonces that were stated and not answered, each with its route.
    open: HashMap<String, usize>,
}

/// The members of the header.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    domain: String,
    address: String,
    statement: Option<String>,
    uri: String,
    version: String,
    chain_id: String,
    #[serde(rename = "type")]
    kind: String,
    nonce: String,
    issued_at: String,
    expiration_time: Option<String>,
    resources: Option<Vec<String>>,
    signature: String,
}

impl SignIns {
    /// Remembers a buyer.
    pub(crate) fn note_buyer(&mut self, path: &str, buyer: Address) {
        self.bought.insert((path.to_owned(), buyer));
    }

    /// Returns the extension that the route stated last.
    pub(crate) fn stated(&self, route: usize) -> Option<&Value> {
        self.stated.get(&route)
    }

    /// Makes a new challenge for a route.
    pub(crate) fn state(&mut self, number: usize, route: &Route, url: &str, now: Timestamp) {
        let Some(entrance) = &route.entrance else {
            return;
        };
        let repeats = entrance.fault == Some(SignInFault::RepeatsChallenge);
        if repeats && let Some(stated) = self.stated.get(&number) {
            if let Some(nonce) = stated.pointer("/info/nonce").and_then(Value::as_str) {
                self.open.insert(nonce.to_owned(), number);
            }
            return;
        }
        let nonce = random();
        let stated = challenge(entrance, &nonce, url, now);
        self.open.insert(nonce, number);
        self.stated.insert(number, stated);
    }

    /// Receives a sign-in. Returns whether the buyer is let in.
    pub(crate) fn receive(
        &mut self,
        (number, entrance): (usize, &Entrance),
        request: &ReceivedRequest,
        header: &str,
        now: Timestamp,
    ) -> bool {
        let payload = STANDARD.decode(header).ok();
        let payload = payload.and_then(|json| serde_json::from_slice::<Payload>(&json).ok());
        let host = request.header("host").unwrap_or_default();
        let address = payload
            .as_ref()
            .and_then(|payload| payload.signer(host, now));
        let nonce = payload.map(|payload| payload.nonce).unwrap_or_default();
        let is_fresh = self.open.remove(&nonce) == Some(number);
        let is_known = address.is_some_and(|address| {
            let buyer = (request.path().to_owned(), address);
            entrance.is_only_way || self.bought.contains(&buyer)
        });
        let refuses = matches!(
            entrance.fault,
            Some(SignInFault::Refuses | SignInFault::DoublesPrice)
        );
        let accepted = is_fresh && is_known && !refuses;
        self.received.push(SignIn {
            path: request.path().to_owned(),
            header: header.to_owned(),
            address,
            nonce,
            accepted,
        });
        accepted
    }
}

/// Returns the extension with a challenge, true or false.
fn challenge(entrance: &Entrance, nonce: &str, url: &str, now: Timestamp) -> Value {
    let [hour, two_hours, day] =
        [1, 2, 24].map(|hours| Duration::from_secs(3600).saturating_mul(hours));
    let host = url.strip_prefix("http://").unwrap_or(url);
    let host = host.split('/').next().unwrap_or_default();
    let mut info = json!({
        "domain": host,
        "uri": url,
        "version": "1",
        "nonce": nonce,
        "issuedAt": now.to_string(),
        "expirationTime": now.after(LIFETIME).to_string(),
        "statement": "Sign in to read again what you have bought",
        "resources": [url],
    });
    let mut chains = json!([{ "chainId": "eip155:84532", "type": "eip191" }]);
    let mut set = |fields: &[(&str, Value)]| {
        for (name, value) in fields {
            if let Some(info) = info.as_object_mut() {
                info.insert((*name).to_owned(), value.clone());
            }
        }
    };
    let (domain, uri) = ELSEWHERE;
    match &entrance.fault {
        Some(SignInFault::OtherDomain) => set(&[("domain", json!(domain)), ("uri", json!(uri))]),
        Some(SignInFault::OtherUri) => set(&[("uri", json!(uri))]),
        Some(SignInFault::Expired) => set(&[
            (
                "issuedAt",
                json!(now.before(LIFETIME.saturating_mul(2)).to_string()),
            ),
            ("expirationTime", json!(now.before(LIFETIME).to_string())),
        ]),
        Some(SignInFault::Old) => set(&[
            ("issuedAt", json!(now.before(day).to_string())),
            ("expirationTime", Value::Null),
        ]),
        Some(SignInFault::Future) => set(&[
            ("issuedAt", json!(now.after(hour).to_string())),
            ("expirationTime", json!(now.after(two_hours).to_string())),
        ]),
        Some(SignInFault::NotYet) => set(&[
            ("notBefore", json!(now.after(hour).to_string())),
            ("expirationTime", json!(now.after(two_hours).to_string())),
        ]),
        Some(SignInFault::ForgesLine) => set(&[(
            "statement",
            json!(format!(
                "hello\n\nURI: {uri}\nVersion: 1\nChain ID: 1\nNonce: 00000000"
            )),
        )]),
        Some(SignInFault::OnlySolana) => {
            chains = json!([{ "chainId": "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp", "type": "ed25519" }]);
        }
        Some(SignInFault::Garbage) => return json!({ "info": [], "supportedChains": "none" }),
        _ => {}
    }
    json!({ "info": info, "supportedChains": chains, "schema": { "type": "object" } })
}

impl Payload {
    /// Returns the address, if it signed this message for the host and the message is valid now.
    fn signer(&self, host: &str, now: Timestamp) -> Option<Address> {
        let uri: Url = self.uri.parse().ok()?;
        let here: Url = format!("http://{host}").parse().ok()?;
        let moment = |text: &str| {
            let text = text.strip_suffix('Z')?;
            let (day, time) = text.split_once('T')?;
            // Times of one form are in the order of their texts.
            Some(format!("{day} {time}"))
        };
        let is_valid = self.domain == host
            && uri.origin() == here.origin()
            && self.kind == "eip191"
            && self.version == "1"
            && moment(&self.issued_at)? <= moment(&now.to_string())?
            && (self.expiration_time.as_deref())
                .is_none_or(|end| moment(end) >= moment(&now.to_string()));
        let signature: [u8; 65] = hex::decode(&self.signature).ok()?.try_into().ok()?;
        let text = self.text()?;
        let prefix = format!("\u{19}Ethereum Signed Message:\n{}", text.len());
        let digest = keccak256([prefix.as_bytes(), text.as_bytes()].concat());
        let address: Address = self.address.parse().ok()?;
        (is_valid && recover(digest, &signature) == Some(address)).then_some(address)
    }

    fn text(&self) -> Option<String> {
        let chain = self.chain_id.strip_prefix("eip155:")?;
        let mut lines = vec![
            format!(
                "{} wants you to sign in with your Ethereum account:",
                self.domain
            ),
            self.address.clone(),
            String::new(),
        ];
        lines.extend(self.statement.clone());
        lines.extend([
            String::new(),
            format!("URI: {}", self.uri),
            format!("Version: {}", self.version),
            format!("Chain ID: {chain}"),
            format!("Nonce: {}", self.nonce),
            format!("Issued At: {}", self.issued_at),
        ]);
        let end = self.expiration_time.iter();
        lines.extend(end.map(|end| format!("Expiration Time: {end}")));
        if let Some(resources) = &self.resources {
            lines.push("Resources:".to_owned());
            lines.extend(resources.iter().map(|resource| format!("- {resource}")));
        }
        Some(lines.join("\n"))
    }
}

/// Returns a nonce that no other paywall has used.
fn random() -> String {
    let number = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", number(), number())
}
