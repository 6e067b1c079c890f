//! Keystore files: Web3 Secret Storage version 3.

use std::path::Path;

use aes::Aes128;
use alloy::primitives::{Address, Keccak256, hex};
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit, StreamCipher};
use k256::elliptic_curve::subtle::ConstantTimeEq;
use pbkdf2::sha2::Sha256;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use serde::Deserialize;

use super::local::{KeyError, LocalSigner, read_private_file};

/// The limit of scrypt's memory, in bytes. geth uses half of it by default.
const SCRYPT_MEMORY: u64 = 512 << 20;
/// The limit of scrypt's work, in bytes: its memory times `p`.
const SCRYPT_WORK: u64 = 1 << 30;
/// The limit of scrypt's `r` and `p`. Wallets write at most 8. scrypt allocates some buffers that
/// depend on `r` and `p` alone.
const SCRYPT_FACTOR: u32 = 64;
/// The limit of PBKDF2's rounds.
const PBKDF2_ROUNDS: u32 = 10_000_000;

impl LocalSigner {
    /// Reads the key from an encrypted keystore file: Web3 Secret Storage version 3.
    ///
    /// geth, Foundry and most wallets write such files. On Unix, only the owner may have access to the
    /// file. A file that needs more than 512 MiB of memory or 10 million rounds is refused.
    ///
    /// The decryption blocks the thread for about a second. In async code, call this function before
    /// you serve requests, or in `spawn_blocking`.
    ///
    /// ```no_run
    /// use bursar::LocalSigner;
    /// use bursar::secrecy::SecretString;
    ///
    /// let password = SecretString::from(std::fs::read_to_string("/run/secrets/wallet-password")?);
    /// let signer = LocalSigner::from_keystore("wallet.json", &password)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, other users may read it, it is not such a
    /// keystore, the password is wrong, or the key does not have the address in the file. For
    /// [`KeyError::FileTooOpen`], run `chmod 600` on the file.
    pub fn from_keystore(
        path: impl AsRef<Path>,
        password: &SecretString,
    ) -> Result<Self, KeyError> {
        let text = read_private_file(path.as_ref())?;
        Keystore::parse(&text)?.open(password)
    }
}

#[derive(Deserialize)]
pub(super) struct Keystore {
    #[serde(alias = "Crypto")]
    crypto: Crypto,
    version: u64,
    pub(super) address: Option<String>,
}

#[derive(Deserialize)]
struct Crypto {
    cipher: String,
    cipherparams: CipherParams,
    ciphertext: Hex,
    kdf: String,
    kdfparams: KdfParams,
    mac: Hex,
}

#[derive(Deserialize)]
struct CipherParams {
    iv: Hex,
}

/// The parameters of scrypt and of PBKDF2. Each function uses its own.
#[derive(Deserialize)]
struct KdfParams {
    dklen: u64,
    salt: Hex,
    n: Option<u64>,
    r: Option<u32>,
    p: Option<u32>,
    c: Option<u32>,
    prf: Option<String>,
}

/// Bytes in hexadecimal.
#[derive(Deserialize)]
#[serde(transparent)]
struct Hex(String);

impl Hex {
    fn bytes(&self, field: &str) -> Result<Vec<u8>, KeyError> {
        hex::decode(&self.0).map_err(|_| refuse(format!("{field} is not hexadecimal")))
    }

    fn array<const N: usize>(&self, field: &str) -> Result<[u8; N], KeyError> {
        self.bytes(field)?
            .try_into()
            .map_err(|_| refuse(format!("{field} is not {N} bytes")))
    }
}

impl Keystore {
    pub(super) fn parse(text: &str) -> Result<Self, KeyError> {
        // The parser's message repeats its input, which is a bare key if the wrong file was named.
        serde_json::from_str(text)
            .map_err(|error| refuse(format!("line {}, column {}", error.line(), error.column())))
    }

    pub(super) fn check_version(&self) -> Result<(), KeyError> {
        match self.version {
            3 => Ok(()),
            other => Err(refuse(format!("its version is {other}, not 3"))),
        }
    }

    fn open(&self, password: &SecretString) -> Result<LocalSigner, KeyError> {
        self.check_version()?;
        let signer = self.crypto.decrypt(password)?;
        match self.address.as_deref().filter(|named| !named.is_empty()) {
            Some(named) if named.parse() != Ok::<Address, _>(signer.address()) => {
                Err(refuse(format!(
                    "its key has the address {}, which is not the address it names",
                    signer.address()
                )))
            }
            _ => Ok(signer),
        }
    }
}

impl Crypto {
    fn decrypt(&self, password: &SecretString) -> Result<LocalSigner, KeyError> {
        if self.cipher != "aes-128-ctr" {
            return Err(refuse("its cipher is not aes-128-ctr"));
        }
        let iv: [u8; 16] = self.cipherparams.iv.array("iv")?;
        let mac: [u8; 32] = self.mac.array("mac")?;
        let mut secret = Zeroizing::new(self.ciphertext.array::<32>("ciphertext")?);

        let derived = self.derive(password)?;
        let (cipher_key, mac_key) = derived.split_at(16);
        let mut hasher = Keccak256::new();
        hasher.update(mac_key);
        hasher.update(secret.as_slice());
        if !bool::from(hasher.finalize().as_slice().ct_eq(&mac)) {
            return Err(KeyError::WrongPassword);
        }
        Ctr128BE::<Aes128>::new_from_slices(cipher_key, &iv)
            .map_err(|_| refuse("its cipher's parameters are of the wrong size"))?
            .apply_keystream(secret.as_mut_slice());
        LocalSigner::from_bytes(&SecretSlice::from(secret.to_vec()))
    }

    fn derive(&self, password: &SecretString) -> Result<Zeroizing<[u8; 32]>, KeyError> {
        let params = &self.kdfparams;
        if params.dklen != 32 {
            return Err(refuse("dklen is not 32"));
        }
        let password = password.expose_secret().as_bytes();
        let salt = params.salt.bytes("salt")?;
        let mut key = Zeroizing::new([0_u8; 32]);
        match self.kdf.as_str() {
            "scrypt" => scrypt::scrypt(password, &salt, &params.scrypt()?, key.as_mut_slice())
                .map_err(|_| refuse("scrypt cannot make a key of this length"))?,
            "pbkdf2" => {
                pbkdf2::pbkdf2_hmac::<Sha256>(password, &salt, params.rounds()?, key.as_mut_slice())
            }
            _ => return Err(refuse("its key derivation is neither scrypt nor pbkdf2")),
        }
        Ok(key)
    }
}

impl KdfParams {
    /// Returns scrypt's parameters if they are within the limits.
    fn scrypt(&self) -> Result<scrypt::Params, KeyError> {
        let (Some(n), Some(r), Some(p)) = (self.n, self.r, self.p) else {
            return Err(refuse("scrypt needs n, r and p"));
        };
        let factor = 1..=SCRYPT_FACTOR;
        if n < 2 || !n.is_power_of_two() || !factor.contains(&r) || !factor.contains(&p) {
            return Err(refuse(
                "scrypt's n is not a power of two, or its r or p is not within 1 to 64",
            ));
        }
        let memory = n
            .checked_mul(128)
            .and_then(|bytes| bytes.checked_mul(r.into()));
        let work = memory.and_then(|bytes| bytes.checked_mul(p.into()));
        if memory.is_none_or(|bytes| bytes > SCRYPT_MEMORY)
            || work.is_none_or(|bytes| bytes > SCRYPT_WORK)
        {
            return Err(refuse(
                "its scrypt would need more than 512 MiB of memory, or too much time",
            ));
        }
        let log_n = u8::try_from(n.ilog2()).map_err(|_| refuse("scrypt's n is too large"))?;
        scrypt::Params::new(log_n, r, p)
            .map_err(|_| refuse("scrypt does not take these parameters"))
    }

    /// Returns PBKDF2's rounds if they are within the limit.
    fn rounds(&self) -> Result<u32, KeyError> {
        if self.prf.as_deref() != Some("hmac-sha256") {
            return Err(refuse("its pbkdf2 is not over hmac-sha256"));
        }
        match self.c {
            Some(rounds @ 1..=PBKDF2_ROUNDS) => Ok(rounds),
            _ => Err(refuse("pbkdf2's c is not within 1 to 10 million")),
        }
    }
}

/// Opens a keystore if that takes a fuzzer little time.
#[cfg(fuzzing)]
pub(crate) fn open_cheap(
    text: &str,
    password: &SecretString,
) -> Option<Result<LocalSigner, KeyError>> {
    let keystore = match Keystore::parse(text) {
        Ok(keystore) => keystore,
        Err(error) => return Some(Err(error)),
    };
    let params = &keystore.crypto.kdfparams;
    let work = params.scrypt().map_or(0, |_| {
        let blocks =
            u64::from(params.r.unwrap_or(0)).saturating_mul(u64::from(params.p.unwrap_or(0)));
        params.n.unwrap_or(0).saturating_mul(blocks)
    });
    let cheap = work <= 1 << 10 && params.rounds().unwrap_or(0) <= 1 << 10;
    cheap.then(|| keystore.open(password))
}

pub(super) fn refuse(reason: impl Into<String>) -> KeyError {
    KeyError::Keystore(reason.into())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use alloy::primitives::address;
    use serde_json::{Value, json};

    use super::*;

    /// The address of the secret 7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d
    /// that both vectors of the Web3 Secret Storage definition hold.
    const OWNER: Address = address!("008aeeda4d805471df9b2a5b0f38a0c3bcba786b");
    const SECRET: &str = "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d";

    fn pbkdf2_vector() -> Value {
        json!({
            "crypto": {
                "cipher": "aes-128-ctr",
                "cipherparams": { "iv": "6087dab2f9fdbbfaddc31a909735c1e6" },
                "ciphertext": "5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46",
                "kdf": "pbkdf2",
                "kdfparams": {
                    "c": 262_144,
                    "dklen": 32,
                    "prf": "hmac-sha256",
                    "salt": "ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd",
                },
                "mac": "517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2",
            },
            "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6",
            "version": 3,
        })
    }

    fn scrypt_vector() -> Value {
        json!({
            "crypto": {
                "cipher": "aes-128-ctr",
                "cipherparams": { "iv": "83dbcc02d8ccb40e466191a123791e0e" },
                "ciphertext": "d172bf743a674da9cdad04534d56926ef8358534d458fffccd4e6ad2fbde479c",
                "kdf": "scrypt",
                "kdfparams": {
                    "dklen": 32,
                    "n": 262_144,
                    "p": 8,
                    "r": 1,
                    "salt": "ab0c7876052600dd703518d6fc3fe8984592145b591fc8fb5c6d43190334ba19",
                },
                "mac": "2103ac29920d71da29f15d75b4a16dbe95cfd7ff8faea1056c33131d846e3097",
            },
            "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6",
            "version": 3,
        })
    }

    /// The same secret with one round, made with Node's crypto. Use it where the work does not matter.
    fn quick_file() -> Value {
        let mut file = pbkdf2_vector();
        let crypto = &mut file["crypto"];
        crypto["kdfparams"]["c"] = json!(1);
        crypto["kdfparams"]["salt"] = json!("a5".repeat(32));
        crypto["cipherparams"]["iv"] = json!("11".repeat(16));
        crypto["ciphertext"] =
            json!("c63d51af3e5d8a37f0fa237116bcab2428404e3e64743da14e6eb3cd87917468");
        crypto["mac"] = json!("007945b84230482e2b9cdede75eb28c6e3c8c44a41ee293f591864744329216f");
        file
    }

    fn open(file: &Value, password: &str) -> Result<LocalSigner, KeyError> {
        Keystore::parse(&file.to_string())?.open(&SecretString::from(password))
    }

    fn refusal(file: &Value) -> String {
        let started = Instant::now();
        let error = open(file, "testpassword").unwrap_err();
        assert!(matches!(error, KeyError::Keystore(_)), "{error:?}");
        assert!(
            started.elapsed() < Duration::from_secs(1),
            "the work was done before the refusal"
        );
        error.to_string()
    }

    #[test]
    fn the_published_vectors_open() {
        let expected = LocalSigner::from_hex(&SecretString::from(SECRET))
            .unwrap()
            .address();
        assert_eq!(expected, OWNER);
        for file in [pbkdf2_vector(), scrypt_vector()] {
            assert_eq!(open(&file, "testpassword").unwrap().address(), OWNER);
        }
    }

    #[test]
    fn a_wrong_password_and_a_changed_file_do_not_open() {
        let mut file = quick_file();
        for password in ["", "testpasswor", "testpassword ", "Testpassword"] {
            assert!(
                matches!(open(&file, password), Err(KeyError::WrongPassword)),
                "{password:?}"
            );
        }
        for part in ["ciphertext", "mac"] {
            let kept = file["crypto"][part].take();
            file["crypto"][part] = json!(format!("ff{}", &kept.as_str().unwrap()[2..]));
            assert!(
                matches!(open(&file, "testpassword"), Err(KeyError::WrongPassword)),
                "{part}"
            );
            file["crypto"][part] = kept;
        }
        assert_eq!(open(&file, "testpassword").unwrap().address(), OWNER);
    }

    #[test]
    fn the_address_in_the_file_must_match_the_key() {
        let mut file = quick_file();
        for same in [
            json!("008aeeda4d805471df9b2a5b0f38a0c3bcba786b"),
            json!(OWNER.to_checksum(None)),
            json!(""),
            Value::Null,
        ] {
            file["address"] = same;
            assert_eq!(open(&file, "testpassword").unwrap().address(), OWNER);
        }
        for other in ["108aeeda4d805471df9b2a5b0f38a0c3bcba786b", "not an address"] {
            file["address"] = json!(other);
            let error = open(&file, "testpassword").unwrap_err();
            assert!(
                error.to_string().contains("not the address it names"),
                "{error}"
            );
        }
    }

    #[test]
    fn the_capitalized_key_of_old_wallets_is_read() {
        let mut file = quick_file();
        let fields = file.as_object_mut().unwrap();
        let crypto = fields.remove("crypto").unwrap();
        fields.insert("Crypto".to_owned(), crypto);
        assert_eq!(open(&file, "testpassword").unwrap().address(), OWNER);
    }

    #[test]
    fn hostile_scrypt_parameters_are_refused_before_any_work() {
        let huge = u64::MAX / 2 + 1;
        let cases = [
            (1 << 20, 8, 1), // 1 GiB of memory
            (1 << 22, 1, 3), // 512 MiB of memory, 1.5 GiB of work
            (huge, 1, 1),
            (huge, 64, 64),
            (0, 8, 1),
            (1, 8, 1),
            (262_143, 8, 1),
            (2, 0, 1),
            (2, 8, 0),
            (2, 65, 1),
            (2, 1, 65),
            (2, u32::MAX, u32::MAX),
        ];
        for (n, r, p) in cases {
            let mut file = scrypt_vector();
            file["crypto"]["kdfparams"]["n"] = json!(n);
            file["crypto"]["kdfparams"]["r"] = json!(r);
            file["crypto"]["kdfparams"]["p"] = json!(p);
            assert!(refusal(&file).contains("scrypt"), "{n} {r} {p}");
        }
    }

    #[test]
    fn hostile_pbkdf2_parameters_are_refused_before_any_work() {
        for rounds in [0, 10_000_001, u32::MAX] {
            let mut file = pbkdf2_vector();
            file["crypto"]["kdfparams"]["c"] = json!(rounds);
            assert!(refusal(&file).contains("10 million"), "{rounds}");
        }
    }

    #[test]
    fn an_unknown_field_value_is_refused() {
        let cases = [
            ("/version", json!(1)),
            ("/version", json!("3")),
            ("/crypto/cipher", json!("aes-128-cbc")),
            ("/crypto/kdf", json!("argon2id")),
            ("/crypto/kdf", json!("scrypt")), // without n, r and p
            ("/crypto/kdfparams/prf", json!("hmac-sha512")),
            ("/crypto/kdfparams/prf", Value::Null),
            ("/crypto/kdfparams/c", json!(-1)),
            ("/crypto/kdfparams/c", json!(1e30)),
            ("/crypto/kdfparams/c", Value::Null),
            ("/crypto/kdfparams/dklen", json!(16)),
            ("/crypto/kdfparams/dklen", json!(u64::MAX)),
            ("/crypto/kdfparams/salt", json!("salt")),
            ("/crypto/cipherparams/iv", json!("6087")),
            (
                "/crypto/ciphertext",
                json!("5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa"),
            ),
            ("/crypto/mac", json!("")),
            ("/crypto", Value::Null),
        ];
        for (place, value) in cases {
            let mut file = pbkdf2_vector();
            *file.pointer_mut(place).unwrap() = value.clone();
            let text = refusal(&file);
            assert!(!text.is_empty(), "{place} = {value}");
        }
    }

    #[test]
    fn a_bare_key_in_place_of_a_keystore_is_not_repeated() {
        let digits = "1122334455667788990011223344556677889900112233445566778899001122";
        for text in [
            SECRET.to_owned(),
            format!("0x{SECRET}"),
            format!("\"{SECRET}\""),
            digits.to_owned(),
            format!("{{\"crypto\":\"{SECRET}\"}}"),
        ] {
            let error = Keystore::parse(&text).err().unwrap();
            let shown = format!("{error} {error:?}");
            assert!(
                !shown.contains("7a28") && !shown.contains("1122") && !shown.contains("1.12"),
                "{shown}"
            );
        }
    }
}
