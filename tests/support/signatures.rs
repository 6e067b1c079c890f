//! The wallet of the tests, and a log of its signatures.

use std::sync::{Arc, Mutex};

use bursar::signer::TransferAuthorization;
use bursar::{LocalSigner, Signer, signer_fn};

/// The key of Anvil's account 0, which is published with it.
pub const KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

/// Returns the wallet of [`KEY`].
pub fn wallet() -> LocalSigner {
    LocalSigner::from_hex(&KEY.into()).unwrap()
}

/// The authorizations that [`wallet`] was asked to sign, oldest first. Clones share the log.
#[derive(Clone, Debug, Default)]
pub struct SignatureLog(Arc<Mutex<Vec<TransferAuthorization>>>);

impl SignatureLog {
    pub fn all(&self) -> Vec<TransferAuthorization> {
        self.0.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Returns a signer that signs with [`wallet`] and writes to this log.
    pub fn signer(&self) -> impl Signer + use<> {
        let (log, wallet) = (self.clone(), Arc::new(wallet()));
        signer_fn(wallet.address(), move |authorization| {
            log.0.lock().unwrap().push(authorization.clone());
            let wallet = Arc::clone(&wallet);
            async move { Signer::sign(&wallet, &authorization).await }
        })
    }
}
