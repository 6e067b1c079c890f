//! A seller's challenge: reading it, and refusing it unless it belongs to the origin that sent it.

use alloy::primitives::Address;
use serde::Deserialize;
use serde_json::value::RawValue;
use url::{Position, Url};

use super::grammar::{is_nonce, is_request_id, is_statement, is_uri, time};
use super::message::{SignInMessage, VERSION};
use crate::clock::{CLOCK_BOUND, Timestamp};
use crate::money::Network;
use crate::text::excerpt;

/// The longest extension that is read, in bytes.
const LONGEST: usize = 32 * 1024;
/// The longest text that a signer is asked to sign, in bytes.
const LONGEST_TEXT: usize = 4 * 1024;
/// The age from which a challenge is refused. A seller makes a fresh one for each 402.
pub(super) const OLDEST: std::time::Duration = std::time::Duration::from_secs(3600);
/// Official software counts chains in JavaScript, which is exact up to this number.
const LARGEST_CHAIN: u64 = (1 << 53) - 1;

/// The reason why bursar does not sign in. Nothing was signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the challenge cannot be read: {0}")]
    Unreadable(String),
    #[error("the challenge is for the domain `{0}`, not for `{1}`")]
    Domain(String, String),
    #[error("the `uri` of the challenge is on `{0}`, not on `{1}`")]
    Origin(String, String),
    #[error(
        "the challenge names `{0}`, which is not on `{1}` and could be a right at another service"
    )]
    Elsewhere(String, String),
    #[error("`{0}` of the challenge is not valid")]
    Field(&'static str),
    #[error("the challenge was issued in the future, at {0}")]
    Future(Timestamp),
    #[error("the challenge is old: it was issued at {0}")]
    Old(Timestamp),
    #[error("the challenge expired at {0}")]
    Expired(Timestamp),
    #[error("the challenge is not valid before {0}")]
    NotYet(Timestamp),
    #[error("the seller takes no signature of an Ethereum key (`eip191`)")]
    Chain,
    #[error("the challenge is too long to be signed")]
    Long,
    #[error("the seller repeats a challenge that was answered before")]
    Repeated,
    #[error(
        "this process has answered too many challenges of this seller, or of all, within the last hour"
    )]
    TooMany,
}

/// A challenge that belongs to its origin and is valid now.
#[derive(Clone, Debug)]
pub(crate) struct Challenge {
    info: Info,
    networks: Vec<Network>,
    issued_at: Timestamp,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Declared {
    info: Info,
    supported_chains: Vec<Chain>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    domain: String,
    uri: String,
    version: String,
    nonce: String,
    issued_at: String,
    statement: Option<String>,
    expiration_time: Option<String>,
    not_before: Option<String>,
    request_id: Option<String>,
    resources: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Chain {
    chain_id: String,
    #[serde(rename = "type")]
    kind: String,
}

impl Chain {
    /// Returns the chain if a key of Ethereum can sign for it.
    fn network(&self) -> Option<Network> {
        let network: Network = self.chain_id.parse().ok()?;
        let is_usual = network.to_string() == self.chain_id && network.chain_id() <= LARGEST_CHAIN;
        (self.kind == "eip191" && is_usual).then_some(network)
    }
}

impl Challenge {
    /// Reads the declared extension, as it came in the 402 of `url`.
    pub(crate) fn read(declared: &RawValue, url: &Url, now: Timestamp) -> Result<Self, Refusal> {
        if declared.get().len() > LONGEST {
            return Err(Refusal::Long);
        }
        let declared: Declared = serde_json::from_str(declared.get())
            .map_err(|error| Refusal::Unreadable(excerpt(&error.to_string())))?;
        let info = declared.info;
        info.belongs_to(url)?;
        info.has_valid_fields()?;
        info.names_nothing_elsewhere(url)?;
        let issued_at = info.is_valid_at(now)?;
        let chains = declared.supported_chains.iter();
        let networks: Vec<Network> = chains.filter_map(Chain::network).collect();
        if networks.is_empty() {
            return Err(Refusal::Chain);
        }
        Ok(Self {
            info,
            networks,
            issued_at,
        })
    }

    pub(crate) fn nonce(&self) -> &str {
        &self.info.nonce
    }

    pub(crate) const fn issued_at(&self) -> Timestamp {
        self.issued_at
    }

    /// Returns the message for an address, on the first chain of the seller that `preferred` takes, or else on its first.
    pub(crate) fn message(
        self,
        address: Address,
        preferred: impl Fn(Network) -> bool,
    ) -> Result<SignInMessage, Refusal> {
        let (info, networks) = (self.info, self.networks);
        let network = networks.iter().find(|network| preferred(**network));
        let network = network.or(networks.first()).ok_or(Refusal::Chain)?;
        let message = SignInMessage {
            domain: info.domain,
            address,
            statement: info.statement,
            uri: info.uri,
            network: *network,
            nonce: info.nonce,
            issued_at: info.issued_at,
            expiration_time: info.expiration_time,
            not_before: info.not_before,
            request_id: info.request_id,
            resources: info.resources,
        };
        match message.text().len() <= LONGEST_TEXT {
            true => Ok(message),
            false => Err(Refusal::Long),
        }
    }
}

/// Whether a URL of a challenge is on the origin of the request.
///
/// The scheme is compared, too: the origin of `blob:https://…` is that of the URL in it. An opaque origin equals no other one.
fn is_on_origin_of(claimed: &Url, request: &Url) -> bool {
    claimed.scheme() == request.scheme() && claimed.origin() == request.origin()
}

impl Info {
    /// Checks that the challenge is for the origin that sent it. Otherwise a seller could pass on the challenge of another
    /// site, and enter there as the buyer.
    fn belongs_to(&self, url: &Url) -> Result<(), Refusal> {
        let host = &url[Position::BeforeHost..Position::AfterPort];
        if self.domain != host {
            return Err(Refusal::Domain(excerpt(&self.domain), host.to_owned()));
        }
        let uri = Url::parse(&self.uri).map_err(|_| Refusal::Field("uri"))?;
        if !is_on_origin_of(&uri, url) {
            let [claimed, real] = [&uri, url].map(|url| url.origin().ascii_serialization());
            return Err(Refusal::Origin(excerpt(&claimed), real));
        }
        Ok(())
    }

    /// Checks that the resources are on the origin that sent the challenge.
    ///
    /// A resource such as `urn:recap:…` (EIP-5573) gives the site of the `uri` rights of the wallet at other services, and other
    /// services take other schemes for such rights.
    fn names_nothing_elsewhere(&self, url: &Url) -> Result<(), Refusal> {
        let is_here = |resource: &str| {
            Url::parse(resource).is_ok_and(|resource| is_on_origin_of(&resource, url))
        };
        let mut resources = self.resources.iter().flatten();
        match resources.find(|resource| !is_here(resource)) {
            None => Ok(()),
            Some(other) => {
                let here = url.origin().ascii_serialization();
                Err(Refusal::Elsewhere(excerpt(other), here))
            }
        }
    }

    fn has_valid_fields(&self) -> Result<(), Refusal> {
        let optional =
            |text: &Option<String>, valid: fn(&str) -> bool| text.as_deref().is_none_or(valid);
        let mut resources = self.resources.iter().flatten();
        let checks = [
            ("version", self.version == VERSION),
            ("uri", is_uri(&self.uri)),
            ("nonce", is_nonce(&self.nonce)),
            ("statement", optional(&self.statement, is_statement)),
            ("requestId", optional(&self.request_id, is_request_id)),
            ("resources", resources.all(|resource| is_uri(resource))),
        ];
        let wrong = checks.iter().find(|(_, valid)| !valid);
        wrong.map_or(Ok(()), |(field, _)| Err(Refusal::Field(field)))
    }

    /// Returns the time of issue.
    fn is_valid_at(&self, now: Timestamp) -> Result<Timestamp, Refusal> {
        let read = |field, text: &Option<String>| match text.as_deref() {
            None => Ok(None),
            Some(text) => time(text).map(Some).ok_or(Refusal::Field(field)),
        };
        let issued_at = time(&self.issued_at).ok_or(Refusal::Field("issuedAt"))?;
        let expires = read("expirationTime", &self.expiration_time)?;
        let begins = read("notBefore", &self.not_before)?;
        let latest = now.after(CLOCK_BOUND);
        if issued_at > latest {
            return Err(Refusal::Future(issued_at));
        }
        if issued_at.after(OLDEST) < now {
            return Err(Refusal::Old(issued_at));
        }
        if let Some(expired) = expires.filter(|expires| *expires <= now) {
            return Err(Refusal::Expired(expired));
        }
        match begins.filter(|begins| *begins > latest) {
            Some(begins) => Err(Refusal::NotYet(begins)),
            None => Ok(issued_at),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;

    const URL: &str = "https://api.example.com/premium-data?day=1";

    fn now() -> Timestamp {
        Timestamp::from_secs(1_740_672_094)
    }

    fn declared() -> Value {
        json!({
            "info": {
                "domain": "api.example.com",
                "uri": "https://api.example.com/premium-data",
                "version": "1",
                "nonce": "a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6",
                "issuedAt": "2025-02-27T16:01:34.000Z",
            },
            "supportedChains": [{ "chainId": "eip155:8453", "type": "eip191" }],
        })
    }

    fn read(declared: &Value, url: &str, now: Timestamp) -> Result<Challenge, Refusal> {
        let raw = RawValue::from_string(declared.to_string()).unwrap();
        Challenge::read(&raw, &url.parse().unwrap(), now)
    }

    fn with(field: &str, value: Value) -> Value {
        let mut declared = declared();
        declared["info"][field] = value;
        declared
    }

    #[test]
    fn a_challenge_of_another_origin_is_refused() {
        assert!(read(&declared(), URL, now()).is_ok());
        for url in [
            "https://evil.example.com/premium-data",
            "https://api.example.com:8443/premium-data",
            "https://api.example.com.evil.example/premium-data",
        ] {
            let refused = read(&declared(), url, now()).unwrap_err();
            assert!(matches!(refused, Refusal::Domain(..)), "{url}: {refused}");
        }
        let plain = read(&declared(), "http://api.example.com/premium-data", now());
        assert!(matches!(plain.unwrap_err(), Refusal::Origin(..)));
        for uri in [
            "https://evil.example.com/premium-data",
            "https://api.example.com@evil.example/premium-data",
            "https://api.example.com:8443/premium-data",
            "http://api.example.com/premium-data",
            "data:text/plain,api.example.com",
            "blob:https://api.example.com/premium-data",
            "blob:https://evil.example.com/premium-data",
        ] {
            let refused = read(&with("uri", json!(uri)), URL, now()).unwrap_err();
            assert!(matches!(refused, Refusal::Origin(..)), "{uri}: {refused}");
        }
        for domain in [
            "API.example.com",
            "api.example.com:443",
            "",
            "api.example.com.",
        ] {
            let refused = read(&with("domain", json!(domain)), URL, now()).unwrap_err();
            assert!(
                matches!(refused, Refusal::Domain(..)),
                "{domain}: {refused}"
            );
        }
    }

    #[test]
    fn a_challenge_is_for_the_port_of_its_url() {
        let mut local = declared();
        local["info"]["domain"] = json!("127.0.0.1:4021");
        local["info"]["uri"] = json!("http://127.0.0.1:4021/x");
        assert!(read(&local, "http://127.0.0.1:4021/x", now()).is_ok());
        assert!(read(&local, "http://127.0.0.1/x", now()).is_err());
        local["info"]["domain"] = json!("[::1]:4021");
        local["info"]["uri"] = json!("http://[::1]:4021/x");
        assert!(read(&local, "http://[::1]:4021/y", now()).is_ok());
    }

    #[test]
    fn a_challenge_outside_of_its_time_is_refused() {
        let minute = Duration::from_secs(60);
        let read_at = |declared: &Value, now| read(declared, URL, now).err();
        let issued = now();
        assert_eq!(read_at(&declared(), issued.before(CLOCK_BOUND)), None);
        assert_eq!(
            read_at(&declared(), issued.before(CLOCK_BOUND + minute)),
            Some(Refusal::Future(issued))
        );
        assert_eq!(read_at(&declared(), issued.after(OLDEST)), None);
        assert_eq!(
            read_at(&declared(), issued.after(OLDEST + minute)),
            Some(Refusal::Old(issued))
        );
        let end = issued.after(5 * minute);
        let expiring = with("expirationTime", json!("2025-02-27T16:06:34.000Z"));
        assert_eq!(read_at(&expiring, end.before(minute)), None);
        assert_eq!(read_at(&expiring, end), Some(Refusal::Expired(end)));
        let later = with("notBefore", json!("2025-02-27T17:01:34.000Z"));
        assert_eq!(
            read_at(&later, issued),
            Some(Refusal::NotYet(issued.after(60 * minute)))
        );
        for field in ["issuedAt", "expirationTime", "notBefore"] {
            let wrong = with(field, json!("tomorrow"));
            assert_eq!(read_at(&wrong, issued), Some(Refusal::Field(field)));
        }
    }

    #[test]
    fn a_challenge_that_could_forge_a_line_is_refused() {
        for (field, value) in [
            ("statement", json!("hello\nURI: https://evil.example")),
            ("statement", json!("\u{202e}hello")),
            ("nonce", json!("short")),
            ("nonce", json!("abcdefgh\nIssued At: x")),
            ("requestId", json!("a\nResources:")),
            (
                "resources",
                json!(["https://a.example\n- https://b.example"]),
            ),
            ("version", json!("2")),
        ] {
            let refused = read(&with(field, value.clone()), URL, now()).unwrap_err();
            assert_eq!(refused, Refusal::Field(field), "{value}");
        }
        for damaged in [
            json!({}),
            json!({ "info": 1 }),
            json!([]),
            with("uri", json!(7)),
        ] {
            let refused = read(&damaged, URL, now()).unwrap_err();
            assert!(matches!(refused, Refusal::Unreadable(_)), "{damaged}");
        }
        let twice = declared().to_string().replacen(
            "\"nonce\"",
            "\"nonce\":\"ffffffffffffffff\",\"nonce\"",
            1,
        );
        let raw = RawValue::from_string(twice).unwrap();
        let refused = Challenge::read(&raw, &URL.parse().unwrap(), now()).unwrap_err();
        assert!(matches!(refused, Refusal::Unreadable(_)), "{refused}");
    }

    #[test]
    fn a_challenge_that_gives_the_seller_rights_elsewhere_is_refused() {
        for here in [
            json!(null),
            json!([]),
            json!(["https://api.example.com/premium-data"]),
            json!([
                "https://api.example.com",
                "https://API.example.com:443/x?y=1"
            ]),
        ] {
            assert!(
                read(&with("resources", here.clone()), URL, now()).is_ok(),
                "{here}"
            );
        }
        let recap =
            "urn:recap:eyJhdHQiOnsiaHR0cHM6Ly9iYW5rLmV4YW1wbGUiOnsiY3J1ZC9kZWxldGUiOlt7fV19fX0";
        for elsewhere in [
            recap,
            "ceramic://*",
            "lit:session:0123456789abcdef",
            "ipfs://x",
            "https://bank.example/",
            "https://api.example.com:8443/",
            "https://api.example.com@bank.example/",
            "http://api.example.com/premium-data",
            "blob:https://api.example.com/x",
        ] {
            let resources = json!(["https://api.example.com/premium-data", elsewhere]);
            let refused = read(&with("resources", resources), URL, now()).unwrap_err();
            assert!(
                matches!(refused, Refusal::Elsewhere(..)),
                "{elsewhere}: {refused}"
            );
        }
    }

    #[test]
    fn a_long_challenge_is_refused() {
        let long = with("statement", json!("x".repeat(5000)));
        let challenge = read(&long, URL, now()).unwrap();
        assert_eq!(
            challenge.message(Address::ZERO, |_| true),
            Err(Refusal::Long)
        );
        let huge = with("statement", json!("x".repeat(LONGEST)));
        assert_eq!(read(&huge, URL, now()).unwrap_err(), Refusal::Long);
    }

    #[test]
    fn a_sign_in_is_on_a_chain_of_the_policy_if_the_seller_takes_one() {
        let chain = |id: &str, kind: &str| json!({ "chainId": id, "type": kind });
        let mut several = declared();
        several["supportedChains"] = json!([
            chain("solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp", "ed25519"),
            chain("eip155:1", "ed25519"),
            chain("base", "eip191"),
            chain("eip155:0x2105", "eip191"),
            chain("eip155:99999999999999999999", "eip191"),
            chain("eip155:8453", "eip191"),
            chain("eip155:84532", "eip191"),
        ]);
        let network = |preferred: u64| {
            let challenge = read(&several, URL, now()).unwrap();
            let message = challenge.message(Address::ZERO, |network| {
                network == Network::from_chain_id(preferred)
            });
            message.unwrap().network().chain_id()
        };
        assert_eq!(network(84_532), 84_532);
        assert_eq!(network(137), 8453);
        several["supportedChains"] =
            json!([chain("solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp", "ed25519")]);
        assert_eq!(read(&several, URL, now()).unwrap_err(), Refusal::Chain);
    }

    proptest::proptest! {
        /// Whatever a seller writes, a message has the lines of its fields and no others.
        #[test]
        fn no_field_of_a_challenge_makes_another_line(
            statement in proptest::option::of("[a-z ]{0,9}|[a-zA-Z\\n:/ ]{0,40}|(?s).{0,40}"),
            nonce in "[a-z]{8,12}|[a-z\\n :]{8,12}|(?s).{0,12}",
            path in "[a-z/?=]{0,9}|[a-z\\n/]{0,9}|(?s).{0,20}",
            request_id in proptest::option::of("[a-z]{0,9}|[a-z\\n:]{0,9}|(?s).{0,12}"),
            resources in proptest::option::of(proptest::collection::vec("https://api.example.com/[a-z]{0,9}|https://api.example.com/[a-z\\n -]{0,9}|(?s).{0,12}", 0..3)),
        ) {
            let mut declared = declared();
            declared["info"]["statement"] = json!(statement);
            declared["info"]["nonce"] = json!(nonce);
            declared["info"]["uri"] = json!(format!("https://api.example.com/{path}"));
            declared["info"]["requestId"] = json!(request_id);
            declared["info"]["resources"] = json!(resources);
            if let Ok(challenge) = read(&declared, URL, now()) {
                let text = challenge.message(Address::ZERO, |_| true).unwrap().text();
                let listed = resources.as_ref().map_or(0, |list| list.len().saturating_add(1));
                let optional = [usize::from(statement.is_some()), usize::from(request_id.is_some()), listed];
                let lines: usize = optional.iter().sum::<usize>().saturating_add(9);
                proptest::prop_assert_eq!(text.split('\n').count(), lines, "{}", text);
                let is_plain = |byte: u8| byte == b'\n' || byte == b' ' || byte.is_ascii_graphic();
                proptest::prop_assert!(text.bytes().all(is_plain), "{}", text);
                let nonce = format!("\nNonce: {nonce}\n");
                proptest::prop_assert_eq!(text.matches(&nonce).count(), 1);
            }
        }
    }
}
