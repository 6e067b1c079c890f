//! A signed offer or receipt as the seller sent it, and the check of its signature.

use alloy::primitives::{Address, B256, hex, keccak256};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::super::members::Members;
use super::Verification;
use super::jws::Jws;
use crate::eip3009::{Signature, recovered};
use crate::text;

/// The length of the longest artifact that bursar reads, in bytes.
const LONGEST: usize = 8 * 1024;
/// The length of the longest artifact that the ledger keeps, in bytes.
const LONGEST_KEPT: usize = 4 * 1024;
const DOMAIN_TYPE: &str = "EIP712Domain(string name,string version,uint256 chainId)";
/// The members of the payload of an offer or a receipt.
const MEMBERS: [&str; 11] = [
    "version",
    "resourceurl",
    "scheme",
    "network",
    "asset",
    "payto",
    "amount",
    "validuntil",
    "payer",
    "issuedat",
    "transaction",
];
/// The extension has one chain id for all networks, in its domain.
const DOMAIN_CHAIN: u64 = 1;

/// A signed offer or receipt.
#[derive(Debug)]
pub(super) struct Artifact {
    bytes: usize,
    hash: B256,
    /// The JSON of the payload.
    payload: String,
    proof: Proof,
}

#[derive(Debug)]
enum Proof {
    Eip712(Signature),
    Jws(Jws),
}

impl Artifact {
    /// Reads an artifact. Returns why it proves nothing if it cannot be read.
    pub(super) fn read(raw: &RawValue) -> Result<Self, Verification> {
        let (bytes, hash) = (raw.get().len(), keccak256(raw.get()));
        if bytes > LONGEST {
            let reason = format!("it has {bytes} bytes; at most {LONGEST} are read");
            return Err(Verification::unverified(reason));
        }
        let wrong = |fault: &dyn std::fmt::Display| {
            Verification::wrong(format!("it cannot be read: {fault}"))
        };
        let members = Members::of(raw).map_err(|error| wrong(&error))?;
        let member = |name: &str| -> Result<String, Verification> {
            let text = members.text(&[name]).map_err(|error| wrong(&error))?;
            let text = text.ok_or_else(|| wrong(&format_args!("there is no `{name}`")))?;
            Ok(text.to_string())
        };
        let (format, signature) = (member("format")?, member("signature")?);
        let (payload, proof) = match format.as_str() {
            "eip712" => {
                let payload = members.get(&["payload"]).map_err(|error| wrong(&error))?;
                let payload = payload.ok_or_else(|| wrong(&"there is no `payload`"))?;
                let bytes = signature
                    .strip_prefix("0x")
                    .and_then(|digits| hex::decode(digits).ok())
                    .ok_or_else(|| wrong(&"the signature is not hexadecimal with `0x`"))?;
                (
                    payload.get().to_owned(),
                    Proof::Eip712(Signature::new(bytes)),
                )
            }
            "jws" => {
                let jws = Jws::read(signature).map_err(|fault| wrong(&fault))?;
                let payload = jws.payload().map_err(|fault| wrong(&fault))?;
                (payload, Proof::Jws(jws))
            }
            other => {
                let reason = format!(
                    "the format `{}` is not supported; expected `eip712` or `jws`",
                    text::excerpt(other)
                );
                return Err(Verification::unverified(reason));
            }
        };
        Ok(Self {
            bytes,
            hash,
            payload,
            proof,
        })
    }

    /// Returns the members of the payload.
    pub(super) fn payload(&self) -> Result<Payload<'_>, Verification> {
        let members = Members::read(self.payload.as_bytes());
        members
            .map(Payload)
            .map_err(|error| Verification::wrong(format!("it cannot be read: {error}")))
    }

    /// Checks that the payee signed the artifact. `digest` is the EIP-712 digest of its payload.
    pub(super) fn check(&self, digest: B256, payee: Address) -> Verification {
        match &self.proof {
            Proof::Eip712(signature) if signature.as_bytes().len() != 65 => {
                let bytes = signature.as_bytes().len();
                Verification::unverified(format!(
                    "its signature has {bytes} bytes; only those of key pairs, of 65 bytes, are checked"
                ))
            }
            Proof::Eip712(signature) => match recovered(digest, signature) {
                Ok(by) if by == payee => Verification::Verified { by },
                // Another key and other content look the same.
                Ok(other) => Verification::wrong(format!(
                    "it is by {other}, not by the payee {payee}, or its content was changed"
                )),
                Err(fault) => Verification::wrong(fault.to_string()),
            },
            Proof::Jws(jws) => jws.check(payee),
        }
    }

    /// Returns the artifact for the ledger, or its length and its hash.
    ///
    /// `payload` is the payload as bursar read it, without other members. `is_safe` is whether the payee signed it.
    pub(super) fn kept(&self, url: &str, payload: Value, is_safe: bool) -> Value {
        if !is_safe || self.hides(url) || self.bytes > LONGEST_KEPT {
            return json!({ "omitted": { "bytes": self.bytes, "keccak256": self.hash.to_string() } });
        }
        match &self.proof {
            Proof::Eip712(signature) => json!({
                "format": "eip712",
                "payload": payload,
                "signature": signature.to_hex(),
            }),
            Proof::Jws(jws) => json!({ "format": "jws", "signature": jws.compact() }),
        }
    }

    /// Returns whether the artifact can hold the query of the request, or a signature of the buyer. The payee signs whatever
    /// it likes, and evidence goes to others.
    fn hides(&self, url: &str) -> bool {
        let is_secret = |text: &str| {
            text.contains(['?', '\\'])
                || text::struck(text) != text
                || text::without_long_hex(text.to_owned()) != text
        };
        match &self.proof {
            Proof::Eip712(_) => is_secret(url),
            // It is kept as it is, with all its members.
            Proof::Jws(jws) => {
                let members = Members::read(self.payload.as_bytes()).unwrap_or_default();
                is_secret(url)
                    || is_secret(&self.payload)
                    || is_secret(jws.header())
                    || !members.are_all_of(&MEMBERS)
            }
        }
    }
}

/// The members of a payload.
#[derive(Debug)]
pub(super) struct Payload<'a>(Members<'a>);

impl Payload<'_> {
    pub(super) fn text(&self, name: &str) -> Result<String, Verification> {
        let none = || Verification::wrong(format!("it has no `{name}`"));
        self.optional(name)?.ok_or_else(none)
    }

    pub(super) fn optional(&self, name: &str) -> Result<Option<String>, Verification> {
        let text = self.0.text(&[&name.to_ascii_lowercase()]);
        let text = text
            .map_err(|error| Verification::wrong(format!("its content cannot be read: {error}")))?;
        Ok(text.map(|text| text.to_string()))
    }

    /// Returns a whole number, and zero if it is absent.
    pub(super) fn number(&self, name: &str) -> Result<u64, Verification> {
        let Some(text) = self.optional(name)? else {
            return Ok(0);
        };
        let fault = |_| Verification::wrong(format!("its `{name}` is not a whole number"));
        text.parse().map_err(fault)
    }

    /// Checks that this is version 1 of the payload.
    pub(super) fn check_version(&self) -> Result<(), Verification> {
        match self.number("version")? {
            1 => Ok(()),
            other => Err(Verification::unverified(format!(
                "version {other} of the extension is not supported; expected 1"
            ))),
        }
    }
}

/// Returns the EIP-712 digest of a message in the domain of the extension.
pub(super) fn digest(domain: &str, encoded_type: &str, members: &[B256]) -> B256 {
    let domain = struct_hash(
        DOMAIN_TYPE,
        &[keccak256(domain), keccak256("1"), number(DOMAIN_CHAIN)],
    );
    let content = struct_hash(encoded_type, members);
    keccak256([&[0x19, 0x01], domain.as_slice(), content.as_slice()].concat())
}

fn struct_hash(encoded_type: &str, members: &[B256]) -> B256 {
    let mut encoded = keccak256(encoded_type).to_vec();
    members
        .iter()
        .for_each(|member| encoded.extend_from_slice(member.as_slice()));
    keccak256(encoded)
}

/// Returns the EIP-712 encoding of a `uint256`.
pub(super) fn number(value: u64) -> B256 {
    B256::from(alloy::primitives::U256::from(value))
}
