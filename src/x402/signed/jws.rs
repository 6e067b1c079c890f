//! JWS in its compact form, signed with ES256K (RFC 7515, RFC 8812).

use alloy::primitives::{Address, B256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k256::PublicKey;
use k256::ecdsa::{RecoveryId, Signature as Ecdsa, VerifyingKey};
use k256::sha2::{Digest, Sha256};

use super::super::members::Members;
use super::Verification;
use crate::eip3009::address_of;
use crate::text::excerpt;

/// The multicodec prefix of a compressed secp256k1 key in `did:key`.
const SECP256K1: [u8; 2] = [0xe7, 0x01];
/// The number of characters that the longest `did:key` of a supported key has.
const LONGEST_KEY: usize = 64;
const BASE58: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

#[derive(Debug)]
pub(super) struct Jws {
    /// The whole JWS.
    compact: String,
    /// The JSON of the header.
    header: String,
    algorithm: String,
    /// The identifier of the key, a DID URL.
    kid: Option<String>,
    critical: bool,
    /// The base64 of the payload.
    payload: String,
    digest: B256,
    signature: Vec<u8>,
}

/// The key that `kid` names.
enum Key {
    Of(Address),
    /// bursar cannot tell which key it is.
    Unknown(String),
}

impl Jws {
    pub(super) fn read(compact: String) -> Result<Self, String> {
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part.trim_end_matches('='));
        let parts: Vec<&str> = compact.split('.').collect();
        let [header, payload, signature] = parts.as_slice() else {
            return Err("the JWS does not have three parts".to_owned());
        };
        let json = decode(header).map_err(|_| "the header of the JWS is not base64".to_owned())?;
        let json =
            String::from_utf8(json).map_err(|_| "the header of the JWS is not text".to_owned())?;
        let members = Members::read(json.as_bytes()).map_err(|error| error.to_string())?;
        let text = |name: &str| -> Result<Option<String>, String> {
            let text = members.text(&[name]).map_err(|error| error.to_string())?;
            Ok(text.map(|text| text.to_string()))
        };
        let algorithm = text("alg")?.ok_or("the JWS names no `alg`")?;
        let signed = compact.rsplit_once('.').map_or("", |(signed, _)| signed);
        Ok(Self {
            algorithm,
            kid: text("kid")?,
            critical: members.has("crit") || members.has("b64"),
            digest: B256::from_slice(&Sha256::digest(signed)),
            signature: decode(signature)
                .map_err(|_| "the signature of the JWS is not base64".to_owned())?,
            payload: (*payload).to_owned(),
            header: json,
            compact,
        })
    }

    /// Returns the JSON of the payload.
    pub(super) fn payload(&self) -> Result<String, String> {
        let bytes = URL_SAFE_NO_PAD.decode(self.payload.trim_end_matches('='));
        let bytes = bytes.map_err(|_| "the payload of the JWS is not base64".to_owned())?;
        String::from_utf8(bytes).map_err(|_| "the payload of the JWS is not text".to_owned())
    }

    pub(super) fn compact(&self) -> &str {
        &self.compact
    }

    /// Returns the JSON of the header.
    pub(super) fn header(&self) -> &str {
        &self.header
    }

    /// Checks that the payee signed, whichever name its key has, or that the named key signed.
    pub(super) fn check(&self, payee: Address) -> Verification {
        if self.algorithm != "ES256K" {
            return Verification::unverified(format!(
                "the algorithm `{}` is not supported; expected `ES256K`",
                excerpt(&self.algorithm)
            ));
        }
        if self.critical {
            return Verification::unverified("the JWS has a critical header");
        }
        let signers = match self.signers() {
            Some(signers) => signers,
            None => return Verification::wrong("the signature of the JWS is not r and s"),
        };
        if signers.contains(&payee) {
            return Verification::Verified { by: payee };
        }
        match self.kid.as_deref().map(key_of) {
            Some(Key::Of(address)) if signers.contains(&address) => {
                Verification::unverified(format!(
                    "it is by {address}, and nothing shows that it may sign for the payee {payee}"
                ))
            }
            Some(Key::Of(address)) => {
                Verification::wrong(format!("it is not by the key {address} that it names"))
            }
            Some(Key::Unknown(reason)) => Verification::unverified(reason),
            None => Verification::unverified(format!(
                "it is not by the payee {payee}, and names no key"
            )),
        }
    }

    /// Returns the addresses of the keys that can have made the signature: there are two of them.
    fn signers(&self) -> Option<Vec<Address>> {
        let signature = Ecdsa::from_slice(&self.signature).ok()?.normalize_s();
        let recover = |odd: bool| {
            let id = RecoveryId::new(odd, false);
            VerifyingKey::recover_from_prehash(self.digest.as_slice(), &signature, id).ok()
        };
        let keys = [false, true].into_iter().filter_map(recover);
        Some(keys.map(|key| address_of(&key)).collect())
    }
}

/// Returns the key that a DID names without asking anyone.
fn key_of(kid: &str) -> Key {
    let did = kid.split('#').next().unwrap_or_default();
    let unknown = |reason: &str| Key::Unknown(format!("{reason}: {}", excerpt(kid)));
    let mut parts = did.splitn(3, ':');
    let (scheme, method, id) = (parts.next(), parts.next(), parts.next());
    let (Some("did"), Some(method), Some(id)) = (scheme, method, id) else {
        return unknown("its key has no name that bursar knows");
    };
    let address = match method {
        "web" => return unknown("its key would have to be fetched"),
        // CAIP-10: `eip155:8453:0x…`
        "pkh" => id
            .strip_prefix("eip155:")
            .and_then(|id| id.split_once(':')?.1.parse().ok()),
        "key" => of_multibase(id),
        "jwk" => of_jwk(id),
        _ => return unknown("its key would have to be fetched"),
    };
    address.map_or_else(
        || unknown("its key is not a key that bursar knows"),
        Key::Of,
    )
}

fn of_multibase(id: &str) -> Option<Address> {
    let bytes = base58(id.strip_prefix('z')?)?;
    let point = bytes.strip_prefix(&SECP256K1)?;
    of_point(point)
}

fn of_jwk(id: &str) -> Option<Address> {
    let json = URL_SAFE_NO_PAD.decode(id.trim_end_matches('=')).ok()?;
    let members = Members::read(&json).ok()?;
    let text = |name: &str| members.words(&[name]);
    if (text("kty")?.as_str(), text("crv")?.as_str()) != ("EC", "secp256k1") {
        return None;
    }
    let mut point = vec![0x04];
    for name in ["x", "y"] {
        let coordinate = URL_SAFE_NO_PAD
            .decode(text(name)?.trim_end_matches('='))
            .ok()?;
        point.extend((coordinate.len() == 32).then_some(coordinate)?);
    }
    of_point(&point)
}

fn of_point(point: &[u8]) -> Option<Address> {
    let key = PublicKey::from_sec1_bytes(point).ok()?;
    Some(address_of(&VerifyingKey::from(key)))
}

/// Decodes base58 of Bitcoin's alphabet.
fn base58(text: &str) -> Option<Vec<u8>> {
    if text.len() > LONGEST_KEY {
        return None;
    }
    // The number in base 256, the lowest digit first.
    let mut bytes: Vec<u8> = Vec::with_capacity(text.len());
    for letter in text.bytes() {
        let digit = BASE58.iter().position(|known| *known == letter)?;
        let mut carry = u32::try_from(digit).ok()?;
        for byte in &mut bytes {
            carry = u32::from(*byte).saturating_mul(58).saturating_add(carry);
            let [low, ..] = carry.to_le_bytes();
            *byte = low;
            carry >>= 8;
        }
        while carry > 0 {
            let [low, ..] = carry.to_le_bytes();
            bytes.push(low);
            carry >>= 8;
        }
    }
    let zeros = text.bytes().take_while(|letter| *letter == b'1').count();
    bytes.extend(std::iter::repeat_n(0, zeros));
    bytes.reverse();
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use alloy::primitives::hex;
    use k256::ecdsa::SigningKey;
    use k256::ecdsa::signature::hazmat::PrehashSigner;

    use super::*;

    fn key(byte: u8) -> SigningKey {
        SigningKey::from_slice(&[byte; 32]).unwrap()
    }

    fn signed(header: &str, key: &SigningKey) -> Jws {
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode("{}")
        );
        let signature: Ecdsa = key.sign_prehash(&Sha256::digest(&signed)).unwrap();
        let signature = URL_SAFE_NO_PAD.encode(signature.to_bytes());
        Jws::read(format!("{signed}.{signature}")).unwrap()
    }

    #[test]
    fn the_payee_or_the_named_key_must_have_signed() {
        let (payee, other) = (key(1), key(2));
        let address = address_of(payee.verifying_key());
        let stranger = address_of(other.verifying_key());
        let kid = |kid: &str| format!(r#"{{"alg":"ES256K","kid":"{kid}"}}"#);
        for (header, key, name) in [
            (kid("did:web:a.example#1"), &payee, "verified"),
            (r#"{"alg":"ES256K"}"#.to_owned(), &payee, "verified"),
            (kid("did:web:a.example#1"), &other, "unverified"),
            (r#"{"alg":"ES256K"}"#.to_owned(), &other, "unverified"),
            (
                kid(&format!("did:pkh:eip155:1:{stranger}")),
                &other,
                "unverified",
            ),
            (kid(&format!("did:pkh:eip155:1:{address}")), &other, "wrong"),
            (
                kid("did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme"),
                &other,
                "wrong",
            ),
            (
                r#"{"alg":"EdDSA","kid":"did:key:z"}"#.to_owned(),
                &payee,
                "unverified",
            ),
            (r#"{"alg":"none"}"#.to_owned(), &payee, "unverified"),
            (
                r#"{"alg":"ES256K","crit":["b64"]}"#.to_owned(),
                &payee,
                "unverified",
            ),
        ] {
            let verification = signed(&header, key).check(address);
            assert_eq!(verification.name(), name, "{header}: {verification}");
        }
    }

    #[test]
    fn another_content_has_another_signer() {
        let payee = key(1);
        let jws = signed(r#"{"alg":"ES256K"}"#, &payee);
        let [header, _, signature] = jws.compact.split('.').collect::<Vec<_>>()[..] else {
            panic!("{jws:?}");
        };
        let forged = format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode("{ }"));
        let verification = Jws::read(forged)
            .unwrap()
            .check(address_of(payee.verifying_key()));
        assert!(!verification.is_verified(), "{verification}");
        for garbage in [
            "",
            "a.b",
            "a.b.c.d",
            "e30.e30.AA",
            "!.e30.AA",
            "..",
            "W10.e30.AA",
        ] {
            assert!(Jws::read(garbage.to_owned()).is_err(), "{garbage}");
        }
    }

    #[test]
    fn keys_are_read_from_their_names() {
        // From the specification of did:key.
        let point = hex!("03874c15c7fda20e539c6e5ba573c139884c351188799f5458b4b41f7924f235cd");
        let expected = of_point(&point).unwrap();
        let did = "zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme";
        assert_eq!(of_multibase(did), Some(expected));
        let key = PublicKey::from_sec1_bytes(&point).unwrap();
        let point = k256::elliptic_curve::sec1::ToSec1Point::to_sec1_point(&key, false);
        let [x, y] = [1..33, 33..65].map(|part| URL_SAFE_NO_PAD.encode(&point.as_bytes()[part]));
        let jwk = format!(r#"{{"kty":"EC","crv":"secp256k1","x":"{x}","y":"{y}"}}"#);
        assert_eq!(of_jwk(&URL_SAFE_NO_PAD.encode(jwk)), Some(expected));
        for bad in ["", "z", "z0", "z111", &"z2".repeat(99), "mQ3sh"] {
            assert_eq!(of_multibase(bad), None, "{bad}");
        }
        assert_eq!(of_jwk("e30"), None);
    }
}
