//! A private key in the memory of this process.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use alloy::primitives::{Address, hex};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretSlice, SecretString};

use super::curve::PrivateKey;
use super::{
    Approval, Authorization, CancelAuthorization, PermitTransfer, SignInMessage, Signature, Signer,
    SignerError, TokenPermit, TransferAuthorization,
};

/// A private key in the memory of this process, which is wiped when it is dropped.
///
/// `LocalSigner` implements neither `Clone` nor `Serialize`. Its `Debug` shows only the address. Wiping
/// does not reach copies in swap or in core dumps. Keep only as much money in the wallet as the agent
/// may spend.
///
/// ```no_run
/// use bursar::LocalSigner;
///
/// let signer = LocalSigner::from_env("BURSAR_PRIVATE_KEY")?;
/// println!("send test USDC to {}", signer.address());
/// # Ok::<(), bursar::signer::KeyError>(())
/// ```
pub struct LocalSigner {
    key: PrivateKey,
    address: Address,
}

/// The error of loading a private key. It never contains the key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The environment variable is not set.
    #[error("the environment variable {0} is not set")]
    NotSet(String),
    /// The text is not 64 hexadecimal digits, with or without `0x`.
    #[error("a private key is 64 hexadecimal digits, with or without 0x")]
    NotHex,
    /// The key is not 32 bytes long.
    #[error("a private key is 32 bytes")]
    NotKeySized,
    /// The key is zero, or not below the order of the curve.
    #[error("the number is not a private key of secp256k1")]
    OutOfRange,
    /// The file cannot be read.
    #[error("cannot read the key file: {0}")]
    File(#[from] io::Error),
    /// Other users may read the file.
    #[error("the key file is readable by other users (mode {mode:03o}); make it 600")]
    FileTooOpen {
        /// The permission bits of the file.
        mode: u32,
    },
    /// The file is not a version 3 keystore, or uses an unknown algorithm.
    #[error("not a keystore this crate can open: {0}")]
    Keystore(String),
    /// The password does not open the keystore.
    #[error("the password does not open the keystore")]
    WrongPassword,
    /// A new keystore would have an empty password, which protects nothing.
    #[error("the password of a keystore must not be empty")]
    EmptyPassword,
    /// A new keystore cannot be written. An existing file is not replaced.
    #[error("cannot write the keystore: {0}")]
    Unwritten(#[source] io::Error),
}

impl LocalSigner {
    /// Reads the key from an environment variable, as hexadecimal digits.
    ///
    /// # Errors
    /// Returns an error if the variable is not set or does not hold a key.
    pub fn from_env(variable: &str) -> Result<Self, KeyError> {
        let text = std::env::var(variable).map_err(|_| KeyError::NotSet(variable.to_owned()))?;
        Self::from_hex(&SecretString::from(text))
    }

    /// Reads the key from 64 hexadecimal digits, with or without `0x`.
    ///
    /// # Errors
    /// Returns an error if the text is not a key.
    pub fn from_hex(digits: &SecretString) -> Result<Self, KeyError> {
        let digits = digits.expose_secret().trim();
        let digits = digits.strip_prefix("0x").unwrap_or(digits);
        if digits.len() != 64 {
            return Err(KeyError::NotHex);
        }
        let mut bytes = Zeroizing::new([0_u8; 32]);
        hex::decode_to_slice(digits, bytes.as_mut_slice()).map_err(|_| KeyError::NotHex)?;
        Self::from_bytes(&SecretSlice::from(bytes.to_vec()))
    }

    /// Reads the key from 32 bytes, big-endian.
    ///
    /// # Errors
    /// Returns an error if the bytes are not a key.
    pub fn from_bytes(bytes: &SecretSlice<u8>) -> Result<Self, KeyError> {
        let bytes: &[u8; 32] = bytes
            .expose_secret()
            .try_into()
            .map_err(|_| KeyError::NotKeySized)?;
        let key = PrivateKey::new(bytes).ok_or(KeyError::OutOfRange)?;
        let address = key.address();
        Ok(Self { key, address })
    }

    /// Reads the key from a file, as hexadecimal digits.
    ///
    /// On Unix, only the owner may have access to the file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, other users may read it, or it does not hold a
    /// key. For [`KeyError::FileTooOpen`], run `chmod 600` on the file.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, KeyError> {
        let text = read_private_file(path.as_ref())?;
        Self::from_hex(&SecretString::from(text.as_str()))
    }

    /// Creates a random key for tests and demonstrations.
    ///
    /// The key is lost when the signer is dropped. Do not send real money to its address.
    ///
    /// ```
    /// use bursar::LocalSigner;
    ///
    /// let signer = LocalSigner::random()?;
    /// assert!(format!("{signer:?}").starts_with("LocalSigner(0x"));
    /// # Ok::<(), bursar::signer::KeyError>(())
    /// ```
    ///
    /// # Errors
    /// Returns an error if the operating system has no randomness.
    pub fn random() -> Result<Self, KeyError> {
        loop {
            let mut bytes = Zeroizing::new(vec![0_u8; 32]);
            getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
            match Self::from_bytes(&SecretSlice::from(bytes.to_vec())) {
                Err(KeyError::OutOfRange) => {} // one in 2¹²⁸
                outcome => return outcome,
            }
        }
    }

    /// Returns the address of the key.
    #[must_use]
    pub const fn address(&self) -> Address {
        self.address
    }

    pub(crate) fn sign_now(&self, authorization: &TransferAuthorization) -> Signature {
        self.key.sign(authorization.digest())
    }

    /// Signs either message of a payment, without waiting.
    pub(crate) fn sign_payment(&self, authorization: &Authorization) -> Signature {
        self.key.sign(authorization.digest())
    }

    /// Signs an approval by EIP-2612, without waiting.
    pub(crate) fn sign_token_permit_now(&self, permit: &TokenPermit) -> Signature {
        self.key.sign(permit.digest())
    }
}

impl Signer for LocalSigner {
    fn address(&self) -> Address {
        self.address
    }

    async fn sign(&self, authorization: &TransferAuthorization) -> Result<Signature, SignerError> {
        Ok(self.sign_now(authorization))
    }

    async fn sign_permit(&self, permit: &PermitTransfer) -> Result<Signature, SignerError> {
        Ok(self.key.sign(permit.digest()))
    }

    async fn sign_token_permit(&self, permit: &TokenPermit) -> Result<Signature, SignerError> {
        Ok(self.key.sign(permit.digest()))
    }

    async fn sign_approval(&self, approval: &Approval) -> Result<Signature, SignerError> {
        Ok(self.key.sign(approval.digest()))
    }

    fn signs_approvals(&self) -> bool {
        true
    }

    async fn cancel(&self, cancellation: &CancelAuthorization) -> Result<Signature, SignerError> {
        Ok(self.key.sign(cancellation.digest()))
    }

    async fn sign_in(&self, message: &SignInMessage) -> Result<Signature, SignerError> {
        Ok(self.key.sign(message.digest()))
    }
}

impl fmt::Debug for LocalSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalSigner({})", self.address)
    }
}

/// Reads a small file that only its owner may read.
///
/// The check applies to the open file, because its name can point to another file a moment later.
pub(super) fn read_private_file(path: &Path) -> Result<Zeroizing<String>, KeyError> {
    const LIMIT: u16 = u16::MAX;
    let file = File::open(path)?;
    refuse_open_file(&file)?;
    let mut file = file.take(u64::from(LIMIT));
    // Allocate the full capacity at once: growing would leave copies that nothing wipes.
    let mut text = Zeroizing::new(String::with_capacity(usize::from(LIMIT)));
    file.read_to_string(&mut text)?;
    if file.limit() == 0 {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 64 KiB").into());
    }
    Ok(text)
}

#[cfg(unix)]
fn refuse_open_file(file: &File) -> Result<(), KeyError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = file.metadata()?.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        Ok(())
    } else {
        Err(KeyError::FileTooOpen { mode })
    }
}

#[cfg(not(unix))]
fn refuse_open_file(_file: &File) -> Result<(), KeyError> {
    Ok(())
}
