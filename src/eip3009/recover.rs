//! Checks of a signature before bursar uses it.

use alloy::primitives::{Address, B256};
use k256::ecdsa::{RecoveryId, Signature as Ecdsa, VerifyingKey};

#[cfg(test)]
use super::TransferAuthorization;
use super::{Signature, address_of};

/// The error of a signature that is malformed or was made by another address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct WrongSignature(String);

impl WrongSignature {
    fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// Returns the signature in canonical form if the payer made it.
#[cfg(test)]
pub(crate) fn check_signature(
    authorization: &TransferAuthorization,
    signature: &Signature,
) -> Result<Signature, WrongSignature> {
    check(authorization.digest(), authorization.from(), signature)
}

/// Returns the signature of `digest` in canonical form (low `s`, `v` 27 or 28) if `signer` made it.
pub(crate) fn check(
    digest: B256,
    signer: Address,
    signature: &Signature,
) -> Result<Signature, WrongSignature> {
    let (ecdsa, recovery) = parse(signature)?;
    let recovered = recover(digest, &ecdsa, recovery)?;
    if recovered != signer {
        return Err(WrongSignature::new(format!(
            "the signature is by {recovered}, not by the signer's address {signer}"
        )));
    }
    Ok(Signature::from_scalars(
        &ecdsa.to_bytes(),
        recovery.is_y_odd(),
    ))
}

/// Returns the address whose key made the signature of `digest`.
pub(crate) fn recovered(digest: B256, signature: &Signature) -> Result<Address, WrongSignature> {
    let (ecdsa, recovery) = parse(signature)?;
    recover(digest, &ecdsa, recovery)
}

fn recover(digest: B256, ecdsa: &Ecdsa, recovery: RecoveryId) -> Result<Address, WrongSignature> {
    VerifyingKey::recover_from_prehash(digest.as_slice(), ecdsa, recovery)
        .map(|key| address_of(&key))
        .map_err(|_| WrongSignature::new("the signature recovers to no address"))
}

fn parse(signature: &Signature) -> Result<(Ecdsa, RecoveryId), WrongSignature> {
    let malformed = || WrongSignature::new("the signature is not r, s and v in 65 bytes");
    let (scalars, v) = signature
        .as_bytes()
        .split_last_chunk::<1>()
        .ok_or_else(malformed)?;
    let ecdsa = Ecdsa::from_slice(scalars).map_err(|_| malformed())?;
    let odd = match v {
        [0 | 27] => false,
        [1 | 28] => true,
        _ => return Err(malformed()),
    };
    // The same signature with a high `s` is valid ECDSA, but the token's contract refuses it.
    let low = ecdsa.normalize_s();
    Ok((low, RecoveryId::new(odd != (low != ecdsa), false)))
}

#[cfg(test)]
pub(crate) mod tests {
    use alloy::primitives::U256;
    use k256::elliptic_curve::ops::Neg;

    use super::*;
    use crate::money::{AssetRegistry, Network};
    use crate::signer::LocalSigner;

    /// Returns an authorization of 0.01 USDC on Base, paid by `payer`.
    pub(crate) fn authorization(payer: Address) -> TransferAuthorization {
        let usdc = AssetRegistry::stablecoins()
            .find_symbol(Network::from_chain_id(8453), "USDC")
            .unwrap();
        let parties = (payer, Address::repeat_byte(0xbb));
        TransferAuthorization::new(
            usdc.clone(),
            parties,
            U256::from(10_000),
            (1_700_000_000, 1_700_000_060),
            B256::repeat_byte(9),
        )
    }

    fn signer(byte: u8) -> LocalSigner {
        LocalSigner::from_bytes(&vec![byte; 32].into()).unwrap()
    }

    /// Returns an authorization of a local signer, and its signature.
    fn signed() -> (TransferAuthorization, Signature) {
        let signer = signer(7);
        let authorization = authorization(signer.address());
        let signature = signer.sign_now(&authorization);
        (authorization, signature)
    }

    fn with_v(signature: &Signature, v: u8) -> Signature {
        let mut bytes = signature.as_bytes().to_vec();
        *bytes.last_mut().unwrap() = v;
        Signature::new(bytes)
    }

    #[test]
    fn a_local_signature_is_canonical() {
        let (authorization, signature) = signed();
        assert_eq!(check_signature(&authorization, &signature), Ok(signature));
    }

    #[test]
    fn a_v_of_0_or_1_becomes_27_or_28() {
        let (authorization, signature) = signed();
        let v = signature.as_bytes()[64];
        assert_eq!(
            check_signature(&authorization, &with_v(&signature, v - 27)),
            Ok(signature)
        );
    }

    #[test]
    fn a_high_s_becomes_low() {
        let (authorization, signature) = signed();
        let low = Ecdsa::from_slice(&signature.as_bytes()[..64]).unwrap();
        let high = Ecdsa::from_scalars(low.r().to_bytes(), low.s().neg().to_bytes()).unwrap();
        assert_ne!(low, high);
        let mut mirrored = high.to_bytes().to_vec();
        mirrored.push(27 + 28 - signature.as_bytes()[64]);
        assert_eq!(
            check_signature(&authorization, &Signature::new(mirrored)),
            Ok(signature)
        );
    }

    #[test]
    fn a_malformed_signature_is_refused() {
        let (authorization, signature) = signed();
        let bytes = signature.as_bytes();
        let longer = [bytes, &[27]].concat();
        let order = k256::elliptic_curve::bigint::Encoding::to_be_bytes(
            <k256::Secp256k1 as k256::elliptic_curve::Curve>::ORDER.as_ref(),
        );
        let malformed = [
            Vec::new(),
            bytes[..64].to_vec(),
            longer,
            [[0; 64].as_slice(), &[27]].concat(),
            [&bytes[..32], &[0; 32], &[27]].concat(),
            [order.as_slice(), &bytes[32..]].concat(),
            with_v(&signature, 29).as_bytes().to_vec(),
            with_v(&signature, 2).as_bytes().to_vec(),
            with_v(&signature, 35).as_bytes().to_vec(), // as transactions of chain 0 carry it
        ];
        for bytes in malformed {
            let refused =
                check_signature(&authorization, &Signature::new(bytes.clone())).unwrap_err();
            assert!(
                refused.to_string().contains("65 bytes"),
                "{bytes:?}: {refused}"
            );
        }
    }

    #[test]
    fn a_signature_with_the_wrong_v_is_refused() {
        let (authorization, signature) = signed();
        let other = with_v(&signature, 27 + 28 - signature.as_bytes()[64]);
        assert!(check_signature(&authorization, &other).is_err());
    }

    #[test]
    fn a_signature_of_other_terms_is_refused() {
        let (authorization, signature) = signed();
        let usdc = authorization.asset().clone();
        let changed = TransferAuthorization::new(
            usdc,
            (authorization.from(), authorization.to()),
            authorization.value() + U256::from(1),
            (authorization.valid_after(), authorization.valid_before()),
            authorization.nonce(),
        );
        assert!(check_signature(&changed, &signature).is_err());
    }
}
