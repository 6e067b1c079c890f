//! New keystore files.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use aes::Aes128;
use alloy::primitives::{Address, Keccak256, hex};
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit, StreamCipher};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretSlice, SecretString};

use super::keystore::{Keystore, refuse};
use super::local::{KeyError, LocalSigner, read_private_file};

impl LocalSigner {
    /// Creates a random key, and writes it into a new keystore file: Web3 Secret Storage version 3, which geth and Foundry
    /// read too.
    ///
    /// On Unix, only the owner has access to the file. An existing file is not replaced. The function returns after the
    /// file is on the disk and was opened once with the password. Keep a copy of the file and of the password: nobody can
    /// restore a lost key.
    ///
    /// The encryption takes 128 MiB of memory and blocks the thread for about a second. In async code, call this
    /// function in `spawn_blocking`.
    ///
    /// ```no_run
    /// use bursar::LocalSigner;
    /// use bursar::secrecy::SecretString;
    ///
    /// let password = SecretString::from("a long sentence that nobody else knows");
    /// let signer = LocalSigner::create_keystore("wallet.json", &password)?;
    /// println!("send test USDC to {}", signer.address());
    /// # Ok::<(), bursar::signer::KeyError>(())
    /// ```
    ///
    /// # Errors
    /// Returns [`KeyError::EmptyPassword`], [`KeyError::Unwritten`] if the file exists already or cannot be written, and
    /// [`KeyError::File`] if the system has no randomness.
    pub fn create_keystore(
        path: impl AsRef<Path>,
        password: &SecretString,
    ) -> Result<Self, KeyError> {
        let path = path.as_ref();
        if password.expose_secret().is_empty() {
            return Err(KeyError::EmptyPassword);
        }
        let (secret, signer) = new_key()?;
        let text = encrypt(&secret, signer.address(), password)?;
        let mut file = create_private_file(path).map_err(KeyError::Unwritten)?;
        let written = write_durably(&mut file, path, &text).map_err(KeyError::Unwritten);
        let checked = written.and_then(|()| {
            let opened = Self::from_keystore(path, password)?;
            if opened.address() == signer.address() {
                Ok(())
            } else {
                Err(refuse("the file does not hold the key that was written"))
            }
        });
        if let Err(error) = checked {
            // Nobody knows the address yet, so no money is lost with the file.
            drop(std::fs::remove_file(path));
            return Err(error);
        }
        Ok(signer)
    }

    /// Reads the address that a keystore file names, without the password.
    ///
    /// Returns `None` if the file names none. The address is a claim of the file:
    /// [`from_keystore`](Self::from_keystore) checks that the key has it.
    ///
    /// ```no_run
    /// use bursar::LocalSigner;
    ///
    /// if let Some(address) = LocalSigner::keystore_address("wallet.json")? {
    ///     println!("{address}");
    /// }
    /// # Ok::<(), bursar::signer::KeyError>(())
    /// ```
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, other users may read it, or it is not a keystore of version 3.
    pub fn keystore_address(path: impl AsRef<Path>) -> Result<Option<Address>, KeyError> {
        let text = read_private_file(path.as_ref())?;
        let keystore = Keystore::parse(&text)?;
        keystore.check_version()?;
        let named = keystore.address.filter(|named| !named.is_empty());
        let address = named.map(|named| {
            let address = named.parse::<Address>();
            address.map_err(|_| refuse("the address that it names is no address"))
        });
        address.transpose()
    }
}

/// The parameters of scrypt in new files: 128 MiB of memory.
const NEW_LOG_N: u8 = 17;
const NEW_R: u32 = 8;
const NEW_P: u32 = 1;

/// Returns a random key, and its signer.
fn new_key() -> Result<(Zeroizing<[u8; 32]>, LocalSigner), KeyError> {
    loop {
        let mut secret = Zeroizing::new([0_u8; 32]);
        fill(secret.as_mut_slice())?;
        match LocalSigner::from_bytes(&SecretSlice::from(secret.to_vec())) {
            Err(KeyError::OutOfRange) => {} // one in 2¹²⁸
            Err(error) => return Err(error),
            Ok(signer) => return Ok((secret, signer)),
        }
    }
}

fn fill(bytes: &mut [u8]) -> Result<(), KeyError> {
    getrandom::fill(bytes).map_err(|error| io::Error::other(error.to_string()).into())
}

/// Returns the JSON of a keystore.
fn encrypt(
    secret: &Zeroizing<[u8; 32]>,
    address: Address,
    password: &SecretString,
) -> Result<String, KeyError> {
    let (mut salt, mut iv, mut id) = ([0_u8; 32], [0_u8; 16], [0_u8; 16]);
    for random in [&mut salt[..], &mut iv, &mut id] {
        fill(random)?;
    }
    let cost = || refuse("scrypt does not take these parameters");
    let params = scrypt::Params::new(NEW_LOG_N, NEW_R, NEW_P).map_err(|_| cost())?;
    let mut derived = Zeroizing::new([0_u8; 32]);
    let password = password.expose_secret().as_bytes();
    scrypt::scrypt(password, &salt, &params, derived.as_mut_slice()).map_err(|_| cost())?;
    let (cipher_key, mac_key) = derived.split_at(16);
    let mut ciphertext = **secret;
    Ctr128BE::<Aes128>::new_from_slices(cipher_key, &iv)
        .map_err(|_| cost())?
        .apply_keystream(&mut ciphertext);
    let mut mac = Keccak256::new();
    mac.update(mac_key);
    mac.update(ciphertext);
    let file = serde_json::json!({
        "address": hex::encode(address),
        "crypto": {
            "cipher": "aes-128-ctr",
            "cipherparams": { "iv": hex::encode(iv) },
            "ciphertext": hex::encode(ciphertext),
            "kdf": "scrypt",
            "kdfparams": {
                "dklen": 32,
                "n": 1_u32 << NEW_LOG_N,
                "p": NEW_P,
                "r": NEW_R,
                "salt": hex::encode(salt),
            },
            "mac": hex::encode(mac.finalize()),
        },
        "id": uuid(id),
        "version": 3,
    });
    Ok(file.to_string())
}

/// Writes random bytes as a UUID of version 4.
fn uuid(mut bytes: [u8; 16]) -> String {
    let [.., version, _, variant, _, _, _, _, _, _, _] = &mut bytes;
    *version = (*version & 0x0f) | 0x40;
    *variant = (*variant & 0x3f) | 0x80;
    let digits = hex::encode(bytes);
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
    [
        part(0, 8),
        part(8, 12),
        part(12, 16),
        part(16, 20),
        part(20, 32),
    ]
    .join("-")
}

fn create_private_file(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Writes the file and its name to the disk: the key in it must not be lost once its address is known.
fn write_durably(file: &mut File, path: &Path, text: &str) -> io::Result<()> {
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    if cfg!(unix) {
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_new_keystore_opens_with_its_password_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("wallet.json");
        let password = SecretString::from("correct horse");
        let signer = LocalSigner::create_keystore(&path, &password).unwrap();
        let address = signer.address();
        let opened = LocalSigner::from_keystore(&path, &password).unwrap();
        assert_eq!(opened.address(), address);
        assert_eq!(LocalSigner::keystore_address(&path).unwrap(), Some(address));
        let wrong = LocalSigner::from_keystore(&path, &SecretString::from("correct horse "));
        assert!(matches!(wrong, Err(KeyError::WrongPassword)));
        let text = std::fs::read_to_string(&path).unwrap();
        let file: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(file["crypto"]["kdfparams"]["n"], 131_072);
        let id = file["id"].as_str().unwrap();
        assert_eq!((id.len(), &id[14..15]), (36, "4"), "{id}");
        assert!("89ab".contains(&id[19..20]), "{id}");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        // A second one never replaces the first.
        let error = LocalSigner::create_keystore(&path, &password).unwrap_err();
        assert!(
            matches!(&error, KeyError::Unwritten(error) if error.kind() == io::ErrorKind::AlreadyExists)
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        let other = directory.path().join("other.json");
        let empty = LocalSigner::create_keystore(&other, &SecretString::from(""));
        assert!(matches!(empty, Err(KeyError::EmptyPassword)));
        assert!(!other.exists());
        let nowhere = directory.path().join("none").join("wallet.json");
        assert!(matches!(
            LocalSigner::create_keystore(nowhere, &password),
            Err(KeyError::Unwritten(_))
        ));
    }

    #[test]
    fn a_keystore_without_an_address_names_none() {
        let directory = tempfile::tempdir().unwrap();
        let text = encrypt(
            &Zeroizing::new([1; 32]),
            Address::ZERO,
            &SecretString::from("a"),
        );
        let whole = text.unwrap();
        let named = |address: Value| {
            let mut file: Value = serde_json::from_str(&whole).unwrap();
            file["address"] = address;
            let path = directory.path().join("wallet.json");
            drop(std::fs::remove_file(&path));
            create_private_file(&path)
                .unwrap()
                .write_all(file.to_string().as_bytes())
                .unwrap();
            LocalSigner::keystore_address(&path)
        };
        assert_eq!(named(Value::Null).unwrap(), None);
        assert_eq!(named(json!("")).unwrap(), None);
        assert_eq!(
            named(json!("0101010101010101010101010101010101010101")).unwrap(),
            Some(Address::repeat_byte(1))
        );
        assert_eq!(
            named(json!(Address::repeat_byte(1).to_checksum(None))).unwrap(),
            Some(Address::repeat_byte(1))
        );
        assert!(matches!(named(json!("bob")), Err(KeyError::Keystore(_))));
    }
}
