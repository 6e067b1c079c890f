//! The wallet of the tests, and a log of its signatures.

use std::sync::{Arc, Mutex};

use bursar::signer::{PermitTransfer, Signature, SignerError, TransferAuthorization};
use bursar::{Address, LocalSigner, Signer};

/// The key of Anvil's account 0, which is published with it.
pub const KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

/// Returns the wallet of [`KEY`].
pub fn wallet() -> LocalSigner {
    LocalSigner::from_hex(&KEY.into()).unwrap()
}

/// The messages that [`wallet`] was asked to sign, oldest first. Clones share the log.
#[derive(Clone, Debug, Default)]
pub struct SignatureLog(Arc<Mutex<Messages>>);

#[derive(Debug, Default)]
struct Messages {
    transfers: Vec<TransferAuthorization>,
    permits: Vec<PermitTransfer>,
}

impl SignatureLog {
    /// Returns the authorizations by EIP-3009.
    pub fn all(&self) -> Vec<TransferAuthorization> {
        self.0.lock().unwrap().transfers.clone()
    }

    /// Returns the permits of Permit2.
    pub fn permits(&self) -> Vec<PermitTransfer> {
        self.0.lock().unwrap().permits.clone()
    }

    /// Returns the number of all messages.
    pub fn count(&self) -> usize {
        let messages = self.0.lock().unwrap();
        messages
            .transfers
            .len()
            .saturating_add(messages.permits.len())
    }

    /// Returns a signer that signs with [`wallet`] and writes to this log.
    pub fn signer(&self) -> impl Signer + use<> {
        LoggedSigner {
            log: self.clone(),
            wallet: wallet(),
        }
    }
}

struct LoggedSigner {
    log: SignatureLog,
    wallet: LocalSigner,
}

impl Signer for LoggedSigner {
    fn address(&self) -> Address {
        self.wallet.address()
    }

    async fn sign(&self, transfer: &TransferAuthorization) -> Result<Signature, SignerError> {
        let log = &self.log.0;
        log.lock().unwrap().transfers.push(transfer.clone());
        self.wallet.sign(transfer).await
    }

    async fn sign_permit(&self, permit: &PermitTransfer) -> Result<Signature, SignerError> {
        let log = &self.log.0;
        log.lock().unwrap().permits.push(permit.clone());
        self.wallet.sign_permit(permit).await
    }
}
