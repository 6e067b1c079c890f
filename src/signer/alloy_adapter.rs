//! Signers of the `alloy` crates.

use std::fmt;
use std::time::Duration;

use alloy::dyn_abi::TypedData;
use alloy::primitives::{Address, B256};
use alloy::signers::{Error, Signer as AnyAlloySigner, UnsupportedSignerOperation};

use super::{
    CancelAuthorization, PermitTransfer, SignInMessage, Signature, Signer, SignerError,
    TokenPermit, TransferAuthorization,
};

/// A [`Signer`] that wraps a signer of the `alloy` crates, such as a cloud key service or a Ledger.
///
/// The signer receives typed data, so that a device can show the transfer and a remote policy can
/// check it. A signer without support for typed data receives the hash. AWS KMS and GCP KMS hash
/// typed data themselves and check nothing, so bursar's policy is the only check.
///
/// An error of an alloy signer does not tell a refusal from a failure. Therefore each one counts as
/// [unavailable](SignerError::unavailable) and the reservation is voided. Only the time limit counts
/// as a [timeout](SignerError::timeout). Set a longer time limit for a device that asks a person.
///
/// ```
/// use std::time::Duration;
///
/// use bursar::ClientBuilder;
/// use bursar::signer::AlloySigner;
///
/// fn pay_with<S>(device: S, client: ClientBuilder) -> ClientBuilder
/// where
///     S: alloy::signers::Signer + Send + Sync + 'static,
/// {
///     client.signer(AlloySigner::new(device).with_time_limit(Duration::from_secs(120)))
/// }
/// ```
pub struct AlloySigner<S> {
    signer: S,
    time_limit: Duration,
}

impl<S> AlloySigner<S> {
    /// Wraps a signer, with a time limit of 30 seconds for each signature.
    pub const fn new(signer: S) -> Self {
        Self {
            signer,
            time_limit: Duration::from_secs(30),
        }
    }

    /// Sets the time limit of a signature. It includes the confirmation by a person.
    #[must_use]
    pub const fn with_time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }
}

impl<S: AnyAlloySigner + Send + Sync + 'static> Signer for AlloySigner<S> {
    fn address(&self) -> Address {
        self.signer.address()
    }

    fn time_limit(&self) -> Duration {
        self.time_limit
    }

    async fn sign(&self, authorization: &TransferAuthorization) -> Result<Signature, SignerError> {
        self.sign_typed(&authorization.typed_data_json(), authorization.digest())
            .await
    }

    async fn sign_permit(&self, permit: &PermitTransfer) -> Result<Signature, SignerError> {
        self.sign_typed(&permit.typed_data_json(), permit.digest())
            .await
    }

    async fn sign_token_permit(&self, permit: &TokenPermit) -> Result<Signature, SignerError> {
        self.sign_typed(&permit.typed_data_json(), permit.digest())
            .await
    }

    async fn cancel(&self, cancellation: &CancelAuthorization) -> Result<Signature, SignerError> {
        self.sign_typed(&cancellation.typed_data_json(), cancellation.digest())
            .await
    }

    /// The signer receives the whole text, so that a device can show it.
    async fn sign_in(&self, message: &SignInMessage) -> Result<Signature, SignerError> {
        match self.signer.sign_message(message.text().as_bytes()).await {
            Ok(signature) => Ok(Signature::new(signature.as_bytes())),
            Err(error) => Err(SignerError::unavailable(error.to_string())),
        }
    }
}

impl<S: AnyAlloySigner + Send + Sync> AlloySigner<S> {
    async fn sign_typed(&self, json: &str, digest: B256) -> Result<Signature, SignerError> {
        let typed_data = typed_data(json)?;
        let signed = match self.signer.sign_dynamic_typed_data(&typed_data).await {
            Err(Error::UnsupportedOperation(UnsupportedSignerOperation::SignTypedData)) => {
                self.signer.sign_hash(&digest).await
            }
            outcome => outcome,
        };
        match signed {
            Ok(signature) => Ok(Signature::new(signature.as_bytes())),
            Err(error) => Err(SignerError::unavailable(error.to_string())),
        }
    }
}

impl<S: AnyAlloySigner> fmt::Debug for AlloySigner<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlloySigner({})", self.signer.address())
    }
}

fn typed_data(json: &str) -> Result<TypedData, SignerError> {
    serde_json::from_str(json).map_err(|error| {
        SignerError::unavailable(format!("alloy cannot read the typed data: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::{Arc, Mutex};

    use alloy::primitives::{ChainId, Signature as AlloySignature, U256};
    use alloy::signers::Result as AlloyResult;

    use super::super::{AnySigner, LocalSigner};
    use super::*;
    use crate::eip3009::test_authorization as authorization;

    type Answer<'a> = Pin<Box<dyn Future<Output = AlloyResult<AlloySignature>> + Send + 'a>>;

    /// A device with some abilities, which records the requests that it receives.
    struct Device {
        key: alloy::signers::k256::ecdsa::SigningKey,
        hash: bool,
        typed_data: bool,
        broken: bool,
        asked: Arc<Mutex<Vec<&'static str>>>,
    }

    impl Device {
        fn new(hash: bool, typed_data: bool) -> Self {
            let key = alloy::signers::k256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap();
            Self {
                key,
                hash,
                typed_data,
                broken: false,
                asked: Arc::default(),
            }
        }

        fn sign(&self, hash: &B256) -> AlloyResult<AlloySignature> {
            let (signature, recovery) = self.key.sign_prehash_recoverable(hash.as_slice())?;
            Ok(AlloySignature::from((signature, recovery)))
        }
    }

    impl AnyAlloySigner for Device {
        fn sign_hash<'a, 'b, 'c>(&'a self, hash: &'b B256) -> Answer<'c>
        where
            'a: 'c,
            'b: 'c,
        {
            self.asked.lock().unwrap().push("hash");
            let unsupported = Error::UnsupportedOperation(UnsupportedSignerOperation::SignHash);
            let answer = if self.hash {
                self.sign(hash)
            } else {
                Err(unsupported)
            };
            Box::pin(async { answer })
        }

        fn sign_dynamic_typed_data<'a, 'b, 'c>(&'a self, payload: &'b TypedData) -> Answer<'c>
        where
            'a: 'c,
            'b: 'c,
        {
            self.asked.lock().unwrap().push("typed data");
            let answer = if self.broken {
                Err(Error::message("the cable is out"))
            } else if self.typed_data {
                payload
                    .eip712_signing_hash()
                    .map_err(Error::from)
                    .and_then(|hash| self.sign(&hash))
            } else {
                Err(Error::UnsupportedOperation(
                    UnsupportedSignerOperation::SignTypedData,
                ))
            };
            Box::pin(async { answer })
        }

        fn address(&self) -> Address {
            Address::from_public_key(self.key.verifying_key())
        }

        fn chain_id(&self) -> Option<ChainId> {
            None
        }

        fn set_chain_id(&mut self, _chain_id: Option<ChainId>) {}
    }

    async fn sign_with(device: Device) -> (Result<Signature, SignerError>, Vec<&'static str>) {
        let asked = Arc::clone(&device.asked);
        let authorization = authorization(AnyAlloySigner::address(&device));
        let outcome = AnySigner::new(AlloySigner::new(device))
            .sign(&authorization.into())
            .await;
        let asked = asked.lock().unwrap().clone();
        (outcome, asked)
    }

    #[test]
    fn alloy_computes_the_same_digest() {
        let authorization = authorization(Address::repeat_byte(3));
        let hash = typed_data(&authorization.typed_data_json())
            .unwrap()
            .eip712_signing_hash()
            .unwrap();
        assert_eq!(hash, authorization.digest());
        let cancellation = CancelAuthorization::new(
            authorization.asset().clone(),
            authorization.from(),
            B256::ZERO,
        );
        let hash = typed_data(&cancellation.typed_data_json())
            .unwrap()
            .eip712_signing_hash()
            .unwrap();
        assert_eq!(hash, cancellation.digest());
    }

    #[test]
    fn alloy_computes_the_same_digest_of_a_permit() {
        let transfer = authorization(Address::repeat_byte(3));
        for facilitator in [None, Some(Address::repeat_byte(4))] {
            let permit = PermitTransfer::new(
                transfer.asset().clone(),
                (transfer.from(), transfer.to()),
                transfer.value(),
                facilitator,
                (5, 1_700_000_060),
                U256::MAX,
            );
            let typed = typed_data(&permit.typed_data_json()).unwrap();
            assert_eq!(typed.eip712_signing_hash().unwrap(), permit.digest());
        }
    }

    #[tokio::test]
    async fn a_device_signs_a_permit_as_typed_data() {
        let device = Device::new(false, true);
        let asked = Arc::clone(&device.asked);
        let transfer = authorization(AnyAlloySigner::address(&device));
        let permit = PermitTransfer::new(
            transfer.asset().clone(),
            (transfer.from(), transfer.to()),
            transfer.value(),
            None,
            (0, 1_700_000_060),
            U256::ONE,
        );
        let signed = AnySigner::new(AlloySigner::new(device))
            .sign(&permit.into())
            .await;
        assert!(signed.is_ok(), "{signed:?}");
        assert_eq!(*asked.lock().unwrap(), ["typed data"]);
    }

    #[tokio::test]
    async fn a_device_with_typed_data_is_never_given_a_hash() {
        let (outcome, asked) = sign_with(Device::new(false, true)).await;
        let local = LocalSigner::from_bytes(&vec![7; 32].into()).unwrap();
        assert_eq!(outcome, Ok(local.sign_now(&authorization(local.address()))));
        assert_eq!(asked, ["typed data"]);
    }

    #[tokio::test]
    async fn a_device_without_typed_data_is_given_the_hash() {
        let (outcome, asked) = sign_with(Device::new(true, false)).await;
        assert!(outcome.is_ok());
        assert_eq!(asked, ["typed data", "hash"]);
    }

    #[tokio::test]
    async fn a_device_signs_in_with_the_bytes_of_a_local_key() {
        let local = LocalSigner::from_bytes(&vec![7; 32].into()).unwrap();
        let message = crate::sign_in::test_message(local.address());
        let device = AnySigner::new(AlloySigner::new(Device::new(true, true)));
        let signature = device.sign_in(&message).await;
        assert_eq!(signature, AnySigner::new(local).sign_in(&message).await);
        let device = AnySigner::new(AlloySigner::new(Device::new(false, true)));
        let error = device.sign_in(&message).await.unwrap_err();
        assert!(!error.is_timeout(), "{error}");
    }

    #[tokio::test]
    async fn a_broken_device_is_not_asked_for_a_hash() {
        let (outcome, asked) = sign_with(Device {
            broken: true,
            ..Device::new(true, true)
        })
        .await;
        assert_eq!(outcome, Err(SignerError::unavailable("the cable is out")));
        assert_eq!(asked, ["typed data"]);
    }

    #[tokio::test]
    async fn a_device_without_either_returns_an_error() {
        let (outcome, _) = sign_with(Device::new(false, false)).await;
        assert_eq!(
            outcome.unwrap_err().to_string(),
            "operation `sign_hash` is not supported by the signer"
        );
    }

    #[tokio::test]
    async fn a_signer_behind_a_trait_object_receives_typed_data() {
        let device = Device::new(false, true);
        let boxed: Box<dyn AnyAlloySigner + Send + Sync> = Box::new(device);
        let signer = AlloySigner::new(boxed).with_time_limit(Duration::from_secs(120));
        assert_eq!(signer.time_limit(), Duration::from_secs(120));
        assert_eq!(
            format!("{signer:?}"),
            format!("AlloySigner({})", Signer::address(&signer))
        );
        let authorization = authorization(Signer::address(&signer));
        assert!(
            AnySigner::new(signer)
                .sign(&authorization.into())
                .await
                .is_ok()
        );
    }
}
