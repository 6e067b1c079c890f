//! A private key in this process.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use alloy::primitives::{Address, hex};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretSlice, SecretString};

use super::curve::PrivateKey;
use super::{CancelAuthorization, Signature, Signer, SignerError, TransferAuthorization};

/// A private key held in memory, wiped when dropped.
///
/// It implements neither `Clone` nor `Serialize`, and its `Debug` shows the address alone. Wiping
/// does not reach copies that the operating system made (swap, core dumps). Keep no more in such
/// a wallet than the agent may spend.
pub struct LocalSigner {
    key: PrivateKey,
    address: Address,
}

/// A private key could not be had. No variant repeats the key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The environment variable is not set.
    #[error("the environment variable {0} is not set")]
    NotSet(String),
    /// Not 64 hexadecimal digits, with or without `0x`.
    #[error("a private key is 64 hexadecimal digits, with or without 0x")]
    NotHex,
    /// Not 32 bytes.
    #[error("a private key is 32 bytes")]
    NotKeySized,
    /// Zero, or not below the order of the curve.
    #[error("the number is not a private key of secp256k1")]
    OutOfRange,
    /// The file cannot be read.
    #[error("cannot read the key file: {0}")]
    File(#[from] io::Error),
    /// Other users may read the file.
    #[error("the key file is readable by other users (mode {mode:03o}); make it 600")]
    FileTooOpen {
        /// Its permission bits.
        mode: u32,
    },
    /// Not a version 3 keystore, or one of an unknown kind.
    #[error("not a keystore this crate can open: {0}")]
    Keystore(String),
    /// The password does not open the keystore.
    #[error("the password does not open the keystore")]
    WrongPassword,
}

impl LocalSigner {
    /// The key in an environment variable, as hexadecimal digits.
    ///
    /// # Errors
    /// When the variable is not set or holds no key.
    pub fn from_env(variable: &str) -> Result<Self, KeyError> {
        let text = std::env::var(variable).map_err(|_| KeyError::NotSet(variable.to_owned()))?;
        Self::from_hex(&SecretString::from(text))
    }

    /// The key as 64 hexadecimal digits, with or without `0x`.
    ///
    /// # Errors
    /// When the text is no key.
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

    /// The key as 32 bytes, big-endian.
    ///
    /// # Errors
    /// When the bytes are no key.
    pub fn from_bytes(bytes: &SecretSlice<u8>) -> Result<Self, KeyError> {
        let bytes: &[u8; 32] = bytes
            .expose_secret()
            .try_into()
            .map_err(|_| KeyError::NotKeySized)?;
        let key = PrivateKey::new(bytes).ok_or(KeyError::OutOfRange)?;
        let address = key.address();
        Ok(Self { key, address })
    }

    /// The key in a file, as hexadecimal digits. On Unix only its owner may be able to read it.
    ///
    /// # Errors
    /// When the file cannot be read, others may read it, or it holds no key.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, KeyError> {
        let text = read_private_file(path.as_ref())?;
        Self::from_hex(&SecretString::from(text.as_str()))
    }

    /// A new key from the operating system's random source, for tests and demonstrations: it is
    /// gone when dropped.
    ///
    /// # Errors
    /// When the random source fails.
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

    /// The address of the key.
    #[must_use]
    pub const fn address(&self) -> Address {
        self.address
    }

    pub(crate) fn sign_now(&self, authorization: &TransferAuthorization) -> Signature {
        self.key.sign(authorization.digest())
    }
}

impl Signer for LocalSigner {
    fn address(&self) -> Address {
        self.address
    }

    async fn sign(&self, authorization: &TransferAuthorization) -> Result<Signature, SignerError> {
        Ok(self.sign_now(authorization))
    }

    async fn cancel(&self, cancellation: &CancelAuthorization) -> Result<Signature, SignerError> {
        Ok(self.key.sign(cancellation.digest()))
    }
}

impl fmt::Debug for LocalSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalSigner({})", self.address)
    }
}

/// The text of a small file that only its owner may read.
///
/// The open file is checked, not its name, which may point elsewhere a moment later.
pub(super) fn read_private_file(path: &Path) -> Result<Zeroizing<String>, KeyError> {
    const LIMIT: u16 = u16::MAX;
    let file = File::open(path)?;
    refuse_open_file(&file)?;
    let mut file = file.take(u64::from(LIMIT));
    // Room for all of it from the start: growing would leave copies that nobody wipes.
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
