use std::time::Duration;

use alloy::primitives::{Address, B256, U256, address};

use super::{AccountKind, AnySigner, LocalSigner, PermitTransfer, Signer, SignerError, signer_fn};
use crate::eip3009::{
    CancelAuthorization, Signature, TransferAuthorization, test_authorization as authorization,
};
use crate::money::{AssetRegistry, Network};

fn signer(byte: u8) -> LocalSigner {
    LocalSigner::from_bytes(&vec![byte; 32].into()).unwrap()
}

/// Anvil's account 1, cancelling on Base Sepolia.
fn cancellation() -> CancelAuthorization {
    let usdc = AssetRegistry::stablecoins()
        .find_symbol(Network::from_chain_id(84_532), "USDC")
        .unwrap();
    let authorizer = address!("70997970C51812dc3A010C7d01b50e0d17dc79C8");
    CancelAuthorization::new(usdc.clone(), authorizer, B256::repeat_byte(9))
}

fn anvil() -> LocalSigner {
    let key = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d".to_owned();
    LocalSigner::from_hex(&key.into()).unwrap()
}

#[tokio::test]
async fn a_signer_that_signs_with_another_key_is_refused() {
    let (payer, impostor) = (signer(7), signer(8));
    let authorization = authorization(payer.address());
    let by = impostor.address();
    let confused = signer_fn(payer.address(), move |authorization| {
        let signature = impostor.sign_now(&authorization);
        async move { Ok(signature) }
    });
    let refused = AnySigner::new(confused)
        .sign(&authorization.into())
        .await
        .unwrap_err();
    assert!(refused.to_string().contains(&by.to_string()), "{refused}");
    assert!(!refused.is_timeout() && !refused.is_rejected());
}

#[tokio::test]
async fn a_signer_that_does_not_answer_may_have_signed() {
    struct Silent;
    impl Signer for Silent {
        fn address(&self) -> Address {
            Address::ZERO
        }
        fn time_limit(&self) -> Duration {
            Duration::from_millis(10)
        }
        async fn sign(
            &self,
            _authorization: &TransferAuthorization,
        ) -> Result<Signature, SignerError> {
            std::future::pending().await
        }
    }
    let error = AnySigner::new(Silent)
        .sign(&authorization(Address::ZERO).into())
        .await
        .unwrap_err();
    assert!(error.is_timeout());
}

#[tokio::test]
async fn a_contract_account_may_sign_with_any_bytes() {
    struct Wallet;
    impl Signer for Wallet {
        fn address(&self) -> Address {
            Address::repeat_byte(1)
        }
        fn account(&self) -> AccountKind {
            AccountKind::Contract
        }
        async fn sign(
            &self,
            _authorization: &TransferAuthorization,
        ) -> Result<Signature, SignerError> {
            Ok(Signature::new([1, 2, 3]))
        }
    }
    let signature = AnySigner::new(Wallet)
        .sign(&authorization(Address::repeat_byte(1)).into())
        .await;
    assert_eq!(signature, Ok(Signature::new([1, 2, 3])));
}

#[tokio::test]
async fn a_cancellation_by_another_key_is_refused() {
    struct Confused(LocalSigner);
    impl Signer for Confused {
        fn address(&self) -> Address {
            self.0.address()
        }
        async fn sign(
            &self,
            authorization: &TransferAuthorization,
        ) -> Result<Signature, SignerError> {
            self.0.sign(authorization).await
        }
        async fn cancel(
            &self,
            _cancellation: &CancelAuthorization,
        ) -> Result<Signature, SignerError> {
            LocalSigner::random().unwrap().cancel(&cancellation()).await
        }
    }
    let error = AnySigner::new(Confused(anvil()))
        .cancel(&cancellation())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("not by the signer's address"),
        "{error}"
    );
}

#[tokio::test]
async fn a_signer_without_cancellations_returns_an_error() {
    let closure = signer_fn(cancellation().authorizer(), |_| async {
        Ok(Signature::new([0; 65]))
    });
    let error = AnySigner::new(closure)
        .cancel(&cancellation())
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "this signer cannot sign cancellations");
    assert!(!error.is_timeout());
}

/// Returns a permit of 0.01 USDC on Base, paid by `payer`.
fn permit(payer: Address) -> PermitTransfer {
    let transfer = authorization(payer);
    PermitTransfer::new(
        transfer.asset().clone(),
        (payer, transfer.to()),
        transfer.value(),
        Some(Address::repeat_byte(0xFA)),
        (0, 1_700_000_060),
        U256::from(9),
    )
}

#[tokio::test]
async fn a_signer_that_knows_no_permits_signs_none() {
    let payer = signer(7);
    let address = payer.address();
    let closure = signer_fn(address, move |authorization| {
        let signature = payer.sign_now(&authorization);
        async move { Ok(signature) }
    });
    let refused = AnySigner::new(closure).sign(&permit(address).into()).await;
    let error = refused.unwrap_err();
    assert!(!error.is_timeout(), "nothing was signed: {error}");
    assert!(error.to_string().contains("Permit2"), "{error}");
}

#[tokio::test]
async fn a_permit_of_a_foreign_signer_is_checked_and_forwarded_behind_an_arc() {
    struct Foreign(LocalSigner, Address);
    impl Signer for Foreign {
        fn address(&self) -> Address {
            self.1
        }
        async fn sign(&self, _: &TransferAuthorization) -> Result<Signature, SignerError> {
            Err(SignerError::rejected("asked for the other message"))
        }
        async fn sign_permit(&self, permit: &PermitTransfer) -> Result<Signature, SignerError> {
            Signer::sign_permit(&self.0, permit).await
        }
    }
    let own = signer(7).address();
    let honest = std::sync::Arc::new(Foreign(signer(7), own));
    let signature = AnySigner::new(honest)
        .sign(&permit(own).into())
        .await
        .unwrap();
    let local = AnySigner::new(signer(7))
        .sign(&permit(own).into())
        .await
        .unwrap();
    assert_eq!(signature, local);
    let confused = Foreign(signer(8), own);
    let refused = AnySigner::new(confused).sign(&permit(own).into()).await;
    let by = signer(8).address().to_string();
    assert!(refused.unwrap_err().to_string().contains(&by));
}
