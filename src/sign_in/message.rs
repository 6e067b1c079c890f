//! The message that a signer signs, and the header that carries it.

use std::fmt;

use alloy::primitives::{Address, B256, eip191_hash_message, hex};
use serde::Serialize;

use crate::eip3009::Signature;
use crate::money::Network;
use crate::x402::encode_header;

/// The end of the signature of a contract wallet that is not deployed yet (ERC-6492).
const UNDEPLOYED: [u8; 32] =
    hex!("6492649264926492649264926492649264926492649264926492649264926492");

/// A text that a wallet signs to show a seller who it is: "Sign-In with Ethereum" (EIP-4361).
///
/// bursar makes it from the challenge of a seller, after it has checked that the challenge belongs to the origin that sent
/// it, and that the [policy](crate::Policy::sign_in) allows a sign-in there. A program cannot make one.
///
/// A signer signs the whole text with the prefix of EIP-191 (`personal_sign`). With this prefix, the signature is neither a
/// transaction nor a payment: both have other first bytes. Show the whole [text](Self::text) to a person who confirms it.
///
/// ```
/// use bursar::{Address, Signer};
/// use bursar::signer::{SignInMessage, Signature, SignerError, TransferAuthorization};
///
/// struct Vault { address: Address }
///
/// impl Signer for Vault {
///     fn address(&self) -> Address {
///         self.address
///     }
///
///     async fn sign(&self, _: &TransferAuthorization) -> Result<Signature, SignerError> {
///         Err(SignerError::rejected("this vault signs in and pays nothing"))
///     }
///
///     async fn sign_in(&self, message: &SignInMessage) -> Result<Signature, SignerError> {
///         let request = message.text(); // for personal_sign
///         Err(SignerError::unavailable(format!("no vault to send {} bytes to", request.len())))
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignInMessage {
    pub(super) domain: String,
    pub(super) address: Address,
    pub(super) statement: Option<String>,
    pub(super) uri: String,
    pub(super) network: Network,
    pub(super) nonce: String,
    pub(super) issued_at: String,
    pub(super) expiration_time: Option<String>,
    pub(super) not_before: Option<String>,
    pub(super) request_id: Option<String>,
    pub(super) resources: Option<Vec<String>>,
}

/// The version of EIP-4361, which has one.
pub(super) const VERSION: &str = "1";

impl SignInMessage {
    /// Returns the host and the port of the seller, as in a URL: `api.example.com` or `127.0.0.1:4021`.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Returns the address that signs in.
    #[must_use]
    pub const fn address(&self) -> Address {
        self.address
    }

    /// Returns the sentence that the seller wants to be shown. It is untrusted text of printable ASCII.
    #[must_use]
    pub fn statement(&self) -> Option<&str> {
        self.statement.as_deref()
    }

    /// Returns the URL that the sign-in is for. It is on the origin of the seller, and can have the query of the request.
    #[must_use]
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Returns the chain of the address. A contract wallet checks the signature there.
    #[must_use]
    pub const fn network(&self) -> Network {
        self.network
    }

    /// Returns the seller's nonce. bursar answers each nonce of an origin at most once.
    #[must_use]
    pub fn nonce(&self) -> &str {
        &self.nonce
    }

    /// Returns the whole text, as the signature covers it.
    #[must_use]
    pub fn text(&self) -> String {
        self.to_string()
    }

    /// Returns the hash that is signed: that of the text with the prefix of EIP-191.
    #[must_use]
    pub fn digest(&self) -> B256 {
        eip191_hash_message(self.to_string())
    }

    /// Returns the value of the header `SIGN-IN-WITH-X`: base64 of JSON.
    ///
    /// `is_contract` adds the kind of check that a contract wallet needs.
    pub(crate) fn header(
        &self,
        signature: &Signature,
        is_contract: bool,
    ) -> Result<String, serde_json::Error> {
        let signature_scheme = match (is_contract, is_undeployed(signature)) {
            (false, _) => None,
            (true, false) => Some("eip1271"),
            (true, true) => Some("eip6492"),
        };
        let payload = Payload {
            domain: &self.domain,
            address: self.address.to_checksum(None),
            statement: self.statement(),
            uri: &self.uri,
            version: VERSION,
            chain_id: self.network.to_string(),
            kind: "eip191",
            nonce: &self.nonce,
            issued_at: &self.issued_at,
            expiration_time: self.expiration_time.as_deref(),
            not_before: self.not_before.as_deref(),
            request_id: self.request_id.as_deref(),
            resources: self.resources.as_deref(),
            signature_scheme,
            signature: signature.to_hex(),
        };
        Ok(encode_header(&serde_json::to_vec(&payload)?))
    }
}

/// Whether the signature describes how to deploy its wallet first (ERC-6492).
fn is_undeployed(signature: &Signature) -> bool {
    signature.as_bytes().ends_with(&UNDEPLOYED)
}

/// Writes the text of EIP-4361. Without a statement it has two empty lines, as the official library writes it.
impl fmt::Display for SignInMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} wants you to sign in with your Ethereum account:\n{}\n\n",
            self.domain,
            self.address.to_checksum(None)
        )?;
        if let Some(statement) = &self.statement {
            writeln!(f, "{statement}")?;
        }
        write!(
            f,
            "\nURI: {}\nVersion: {VERSION}\nChain ID: {}\nNonce: {}\nIssued At: {}",
            self.uri,
            self.network.chain_id(),
            self.nonce,
            self.issued_at
        )?;
        let optional = [
            ("Expiration Time", &self.expiration_time),
            ("Not Before", &self.not_before),
            ("Request ID", &self.request_id),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                write!(f, "\n{name}: {value}")?;
            }
        }
        if let Some(resources) = &self.resources {
            f.write_str("\nResources:")?;
            resources
                .iter()
                .try_for_each(|resource| write!(f, "\n- {resource}"))?;
        }
        Ok(())
    }
}

/// The JSON of the header, in the order of the official client.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Payload<'a> {
    domain: &'a str,
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    statement: Option<&'a str>,
    uri: &'a str,
    version: &'a str,
    chain_id: String,
    #[serde(rename = "type")]
    kind: &'a str,
    nonce: &'a str,
    issued_at: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration_time: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_before: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signature_scheme: Option<&'a str>,
    signature: String,
}

#[cfg(test)]
pub(crate) mod tests {
    use alloy::primitives::address;

    use super::*;

    fn minimal() -> SignInMessage {
        message(address!("f39Fd6e51aad88F6F4ce6aB8827279cffFb92266"))
    }

    /// Returns a message for an address.
    pub(crate) fn message(address: Address) -> SignInMessage {
        SignInMessage {
            domain: "api.example.com".to_owned(),
            address,
            statement: None,
            uri: "https://api.example.com/x".to_owned(),
            network: Network::from_chain_id(84_532),
            nonce: "abcdefgh12345678".to_owned(),
            issued_at: "2025-02-27T16:01:34.000Z".to_owned(),
            expiration_time: None,
            not_before: None,
            request_id: None,
            resources: None,
        }
    }

    const HEAD: &str = "api.example.com wants you to sign in with your Ethereum account:\n\
        0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266\n";
    const BODY: &str = "\nURI: https://api.example.com/x\nVersion: 1\nChain ID: 84532\nNonce: abcdefgh12345678\n\
        Issued At: 2025-02-27T16:01:34.000Z";

    /// The texts are those of `@x402/extensions` 2.27.0 for the same fields.
    #[test]
    fn the_text_of_a_sign_in_is_that_of_the_official_library() {
        assert_eq!(minimal().text(), format!("{HEAD}\n{BODY}"));
        let empty_parts = SignInMessage {
            statement: Some(String::new()),
            request_id: Some(String::new()),
            resources: Some(Vec::new()),
            ..minimal()
        };
        assert_eq!(
            empty_parts.text(),
            format!("{HEAD}\n\n{BODY}\nRequest ID: \nResources:")
        );
        let whole = SignInMessage {
            statement: Some("s".to_owned()),
            expiration_time: Some("2025-02-27T16:06:34.000Z".to_owned()),
            not_before: Some("2025-02-27T16:01:34Z".to_owned()),
            request_id: Some("q".to_owned()),
            resources: Some(vec!["https://a.example".to_owned(), "ipfs://x".to_owned()]),
            ..minimal()
        };
        assert_eq!(
            whole.text(),
            format!(
                "{HEAD}\ns\n{BODY}\nExpiration Time: 2025-02-27T16:06:34.000Z\nNot Before: 2025-02-27T16:01:34Z\n\
                 Request ID: q\nResources:\n- https://a.example\n- ipfs://x"
            )
        );
    }

    #[test]
    fn the_header_of_a_contract_wallet_names_the_check_of_its_signature() {
        let scheme = |bytes: &[u8], is_contract| {
            let header = minimal()
                .header(&Signature::new(bytes), is_contract)
                .unwrap();
            let json = crate::x402::decode_header(header.as_bytes()).unwrap();
            let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
            assert_eq!(json["type"], "eip191");
            json["signatureScheme"].as_str().map(ToOwned::to_owned)
        };
        assert_eq!(scheme(&[1; 65], false), None);
        assert_eq!(scheme(&[1; 80], true).as_deref(), Some("eip1271"));
        let wrapped = [&[1; 96][..], &UNDEPLOYED].concat();
        assert_eq!(scheme(&wrapped, true).as_deref(), Some("eip6492"));
    }
}
