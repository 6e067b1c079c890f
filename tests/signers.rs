//! Wallets through their public constructors: what they take, what they refuse, and that nothing
//! they show holds the key.
//!
//! What needs an authorization to sign is tested beside the code, in `src/signer/`.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::error::Error as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bursar::primitives::{U256, address};
use bursar::secrecy::{SecretSlice, SecretString};
use bursar::signer::{AccountKind, KeyError, Signature, SignerError};
use bursar::{Address, Client, Ledger, LocalSigner, Policy, Signer, signer_fn, usd};
use tempfile::TempDir;

/// A key nobody uses: the secret of the Web3 Secret Storage definition's own examples.
const KEY: &str = "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d";
const OWNER: Address = address!("008aeeda4d805471df9b2a5b0f38a0c3bcba786b");
/// The order of secp256k1: the first number that is too large for a key.
const ORDER: &str = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";

fn from_hex(text: &str) -> Result<LocalSigner, KeyError> {
    LocalSigner::from_hex(&SecretString::from(text))
}

fn key_bytes() -> Vec<u8> {
    U256::from_str_radix(KEY, 16).unwrap().to_be_bytes_vec()
}

/// Fails when any part of the key, in any spelling a formatter could give it, is in the text.
#[track_caller]
fn hides_the_key(shown: &str) {
    let bytes = key_bytes();
    let decimal = U256::from_str_radix(KEY, 16).unwrap().to_string();
    let list = format!("{:?}", &bytes[1..5]);
    let lower = shown.to_ascii_lowercase();
    let exact = [
        STANDARD_NO_PAD.encode(&bytes),
        URL_SAFE_NO_PAD.encode(&bytes),
        STANDARD_NO_PAD.encode(KEY),
    ];
    let found = KEY
        .as_bytes()
        .windows(8)
        .any(|part| lower.contains(std::str::from_utf8(part).unwrap()))
        || decimal
            .as_bytes()
            .windows(10)
            .any(|part| lower.contains(std::str::from_utf8(part).unwrap()))
        || lower.contains(list.trim_matches(['[', ']']))
        || exact.iter().any(|text| shown.contains(&text[..12]));
    assert!(!found, "the key is in {shown:?}");
}

/// All that can be printed of an error and its causes.
fn shown(error: &impl std::error::Error) -> String {
    let mut text = format!("{error} {error:#} {error:?} {error:#?}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(" {error} {error:?}"));
        cause = error.source();
    }
    text
}

/// A directory with one file that only its owner may read.
fn file(content: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    std::fs::write(&path, content).unwrap();
    set_mode(&path, 0o600);
    (directory, path)
}

#[cfg(unix)]
fn set_mode(path: &std::path::Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[cfg(not(unix))]
fn set_mode(_path: &std::path::Path, _mode: u32) {}

#[test]
fn the_canary_itself_is_found() {
    for spelling in [
        KEY.to_owned(),
        KEY.to_uppercase(),
        format!("{:?}", key_bytes()),
        STANDARD_NO_PAD.encode(key_bytes()),
    ] {
        assert!(
            std::panic::catch_unwind(|| hides_the_key(&spelling)).is_err(),
            "{spelling}"
        );
    }
}

#[test]
fn hexadecimal_digits_make_a_key() {
    for text in [
        KEY.to_owned(),
        format!("0x{KEY}"),
        KEY.to_uppercase(),
        format!("  {KEY}\n"),
    ] {
        assert_eq!(from_hex(&text).unwrap().address(), OWNER);
    }
    let other =
        from_hex("0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80").unwrap();
    assert_eq!(
        other.address(),
        address!("f39Fd6e51aad88F6F4ce6aB8827279cffFb92266")
    );
    assert_eq!(Signer::address(&other), other.address());
}

#[test]
fn what_is_not_64_digits_is_no_key() {
    let cases = [
        String::new(),
        "0x".to_owned(),
        KEY[1..].to_owned(),
        format!("{KEY}00"),
        format!("0x0x{}", &KEY[2..]),
        format!("0x0x{}", &KEY[4..]),
        format!("0x{}", &KEY[2..]),
        format!("g{}", &KEY[1..]),
        format!("{} {}", &KEY[..31], &KEY[32..]),
        format!("{}é", &KEY[2..]),
        format!("0X{KEY}"),
        STANDARD_NO_PAD.encode(key_bytes()),
    ];
    for text in cases {
        let error = from_hex(&text).unwrap_err();
        assert!(matches!(error, KeyError::NotHex), "{text:?}: {error:?}");
        hides_the_key(&shown(&error));
    }
}

#[test]
fn a_number_outside_the_curve_is_no_key() {
    let zero = "0".repeat(64);
    for text in [zero.as_str(), ORDER, &"f".repeat(64)] {
        assert!(
            matches!(from_hex(text), Err(KeyError::OutOfRange)),
            "{text}"
        );
    }
    assert!(from_hex(&ORDER.replace("4141", "4140")).is_ok());
}

#[test]
fn exactly_32_bytes_make_a_key() {
    let bytes = key_bytes();
    assert_eq!(
        LocalSigner::from_bytes(&SecretSlice::from(bytes.clone()))
            .unwrap()
            .address(),
        OWNER
    );
    // 24 to 31 are those that k256 would fill up with noughts.
    for length in [0, 1, 23, 24, 31] {
        let error =
            LocalSigner::from_bytes(&SecretSlice::from(bytes[..length].to_vec())).unwrap_err();
        assert!(
            matches!(error, KeyError::NotKeySized),
            "{length}: {error:?}"
        );
        hides_the_key(&shown(&error));
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    assert!(matches!(
        LocalSigner::from_bytes(&SecretSlice::from(longer)),
        Err(KeyError::NotKeySized)
    ));
}

#[test]
fn the_environment_can_hold_the_key() {
    const VARIABLE: &str = "BURSAR_TEST_KEY_OF_SIGNERS";
    if std::env::var_os(VARIABLE).is_some() {
        assert_eq!(LocalSigner::from_env(VARIABLE).unwrap().address(), OWNER);
        return;
    }
    assert!(
        matches!(LocalSigner::from_env(VARIABLE), Err(KeyError::NotSet(name)) if name == VARIABLE)
    );
    // Setting a variable of a running process is unsafe: the test runs itself again with it set.
    let test = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_environment_can_hold_the_key"])
        .env(VARIABLE, KEY)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&test.stdout);
    assert!(test.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn a_variable_that_holds_something_else_is_not_repeated() {
    let error = LocalSigner::from_env("PATH").unwrap_err();
    assert!(matches!(error, KeyError::NotHex));
    assert!(!shown(&error).contains(&std::env::var("PATH").unwrap()));
}

#[test]
fn a_file_can_hold_the_key() {
    for content in [KEY.to_owned(), format!("0x{KEY}\n"), format!("{KEY}\r\n")] {
        let (_directory, path) = file(content);
        assert_eq!(LocalSigner::from_file(path).unwrap().address(), OWNER);
    }
}

#[test]
fn a_file_that_holds_no_key_is_refused() {
    let twice = format!("{KEY}\n{KEY}\n");
    let not_text = [KEY.as_bytes(), &[0xff]].concat();
    let endless = KEY.repeat(2000);
    for content in [
        b"".as_slice(),
        twice.as_bytes(),
        &not_text,
        endless.as_bytes(),
        format!("key={KEY}").as_bytes(),
    ] {
        let (_directory, path) = file(content);
        hides_the_key(&shown(&LocalSigner::from_file(path).unwrap_err()));
    }
}

#[test]
fn a_file_that_is_not_there_is_named_by_its_cause() {
    let (directory, path) = file(KEY);
    let missing = LocalSigner::from_file(path.with_extension("not")).unwrap_err();
    assert!(
        matches!(&missing, KeyError::File(error) if error.kind() == std::io::ErrorKind::NotFound),
        "{missing:?}"
    );
    assert!(missing.source().is_some());
    set_mode(directory.path(), 0o700);
    assert!(matches!(
        LocalSigner::from_file(directory.path()),
        Err(KeyError::File(_))
    ));
}

#[cfg(unix)]
#[test]
fn a_file_that_others_may_read_is_refused() {
    let (_directory, path) = file(KEY);
    for open in [0o640, 0o604, 0o620, 0o610, 0o601, 0o644, 0o777, 0o660] {
        set_mode(&path, open);
        let error = LocalSigner::from_file(&path).unwrap_err();
        assert!(
            matches!(error, KeyError::FileTooOpen { mode } if mode == open),
            "{open:o}: {error:?}"
        );
        assert!(error.to_string().contains(&format!("{open:o}")));
    }
    for closed in [0o600, 0o400, 0o700] {
        set_mode(&path, closed);
        assert_eq!(LocalSigner::from_file(&path).unwrap().address(), OWNER);
    }
}

#[test]
fn random_keys_differ() {
    let (one, other) = (
        LocalSigner::random().unwrap(),
        LocalSigner::random().unwrap(),
    );
    assert_ne!(one.address(), other.address());
}

#[test]
fn nothing_that_holds_the_key_shows_it() {
    let shows = |text: String| {
        hides_the_key(&text);
        assert!(
            text.to_lowercase()
                .contains(&OWNER.to_string().to_lowercase()),
            "{text}"
        );
    };
    let signer = || from_hex(KEY).unwrap();
    shows(format!("{:?}", signer()));
    shows(format!("{:#?}", signer()));
    shows(format!("{:?}", Arc::new(signer())));
    let builder = Client::builder().signer(signer()).policy(
        Policy::new()
            .allow_network("base")
            .per_payment(usd!("0.05")),
    );
    shows(format!("{builder:?} {builder:#?}"));
    let client = builder.ledger(Ledger::memory()).build().unwrap();
    shows(format!("{client:?} {client:#?}"));
    hides_the_key(&shown(&bursar::Error::from(
        from_hex(&KEY[1..]).unwrap_err(),
    )));
}

#[test]
fn a_signature_is_not_shown() {
    let signature = Signature::new(key_bytes());
    hides_the_key(&format!("{signature:?} {signature:#?}"));
    assert_eq!(signature.as_bytes(), key_bytes());
}

#[test]
fn a_closure_is_a_signer() {
    let secret = KEY.to_owned();
    let signer = signer_fn(OWNER, move |authorization| {
        let known = secret.len();
        async move {
            Err(SignerError::rejected(format!(
                "{known} digits will not pay {}",
                authorization.amount()
            )))
        }
    });
    assert_eq!(signer.address(), OWNER);
    assert_eq!(signer.account(), AccountKind::Eoa);
    assert_eq!(signer.time_limit(), Duration::from_secs(30));
    hides_the_key(&format!("{signer:?}"));
    let shared = Arc::new(signer);
    assert_eq!(Signer::address(&shared), OWNER);
}

#[test]
fn a_shared_signer_keeps_its_own_time_and_account() {
    struct Wallet;
    impl Signer for Wallet {
        fn address(&self) -> Address {
            OWNER
        }
        fn account(&self) -> AccountKind {
            AccountKind::Contract
        }
        fn time_limit(&self) -> Duration {
            Duration::from_secs(90)
        }
        async fn sign(
            &self,
            _authorization: &bursar::signer::TransferAuthorization,
        ) -> Result<Signature, SignerError> {
            Err(SignerError::unavailable("not in this test"))
        }
    }
    let shared = Arc::new(Wallet);
    assert_eq!(Signer::account(&shared), AccountKind::Contract);
    assert_eq!(Signer::time_limit(&shared), Duration::from_secs(90));
}

#[test]
fn a_signers_errors_are_told_apart() {
    let (rejected, broken, late) = (
        SignerError::rejected("no"),
        SignerError::unavailable("gone"),
        SignerError::timeout("late"),
    );
    assert_eq!(
        [&rejected, &broken, &late].map(SignerError::is_rejected),
        [true, false, false]
    );
    assert_eq!(
        [&rejected, &broken, &late].map(SignerError::is_timeout),
        [false, false, true]
    );
    assert_eq!(broken.to_string(), "gone");
}

#[cfg(feature = "keystore")]
mod keystore {
    use std::time::Instant;

    use serde_json::{Value, json};

    use super::*;

    const PASSWORD: &str = "testpassword";

    /// [`KEY`] under a light scrypt, made with Node's crypto.
    fn keystore() -> Value {
        json!({
            "address": "008aeeda4d805471df9b2a5b0f38a0c3bcba786b",
            "crypto": {
                "cipher": "aes-128-ctr",
                "cipherparams": { "iv": "11".repeat(16) },
                "ciphertext": "a8ec04a75746094dd9dd4bd4e2ec26e13dfa357776fbcdccbb3cae7f05419aa1",
                "kdf": "scrypt",
                "kdfparams": { "dklen": 32, "n": 1024, "r": 8, "p": 1, "salt": "a5".repeat(32) },
                "mac": "378a891a788781c2503b0e612198ff19ef23f68ce7214d56e99b11ecb57b55ad",
            },
            "id": "5f2c1d1e-0d2f-4c55-8d54-8d6f5a6a7a11",
            "version": 3,
        })
    }

    fn open(content: &[u8], password: &str) -> Result<LocalSigner, KeyError> {
        let (_directory, path) = file(content);
        LocalSigner::from_keystore(path, &SecretString::from(password))
    }

    #[test]
    fn the_password_opens_it() {
        let signer = open(keystore().to_string().as_bytes(), PASSWORD).unwrap();
        assert_eq!(signer.address(), OWNER);
        hides_the_key(&format!("{signer:?} {signer:#?}"));
    }

    #[test]
    fn another_password_does_not_and_is_not_repeated() {
        let error = open(keystore().to_string().as_bytes(), "correct-horse").unwrap_err();
        assert!(matches!(error, KeyError::WrongPassword), "{error:?}");
        assert!(!shown(&error).contains("correct-horse"));
        hides_the_key(&shown(&error));
    }

    #[test]
    fn a_key_of_another_address_is_refused() {
        let mut file = keystore();
        file["address"] = json!("f39fd6e51aad88f6f4ce6ab8827279cfffb92266");
        let error = open(file.to_string().as_bytes(), PASSWORD).unwrap_err();
        assert!(matches!(error, KeyError::Keystore(_)), "{error:?}");
        hides_the_key(&shown(&error));
    }

    #[test]
    fn hostile_parameters_are_refused_quickly() {
        for (field, value) in [
            ("n", json!(1_u64 << 40)),
            ("n", json!(1 << 20)),
            ("r", json!(1 << 30)),
            ("p", json!(1 << 30)),
        ] {
            let mut file = keystore();
            file["crypto"]["kdfparams"][field] = value.clone();
            let started = Instant::now();
            let error = open(file.to_string().as_bytes(), PASSWORD).unwrap_err();
            assert!(
                matches!(error, KeyError::Keystore(_)),
                "{field} = {value}: {error:?}"
            );
            assert!(
                started.elapsed() < Duration::from_secs(1),
                "{field} = {value}"
            );
        }
        let mut file = keystore();
        file["crypto"]["kdf"] = json!("pbkdf2");
        file["crypto"]["kdfparams"]["prf"] = json!("hmac-sha256");
        file["crypto"]["kdfparams"]["c"] = json!(u32::MAX);
        assert!(matches!(
            open(file.to_string().as_bytes(), PASSWORD),
            Err(KeyError::Keystore(_))
        ));
    }

    #[test]
    fn an_endless_file_is_refused() {
        let mut file = keystore();
        file["crypto"]["kdfparams"]["salt"] = json!("a5".repeat(40_000));
        assert!(matches!(
            open(file.to_string().as_bytes(), PASSWORD),
            Err(KeyError::File(_))
        ));
    }

    #[test]
    fn the_wrong_file_is_not_repeated() {
        for content in [
            KEY.to_owned(),
            format!("0x{KEY}"),
            format!("\"{KEY}\""),
            format!("{{\"version\":\"{KEY}\"}}"),
            format!("[\"{KEY}\""),
        ] {
            let error = open(content.as_bytes(), PASSWORD).unwrap_err();
            assert!(matches!(error, KeyError::Keystore(_)), "{error:?}");
            hides_the_key(&shown(&error));
        }
        assert!(matches!(
            open(&[0xff; 10], PASSWORD),
            Err(KeyError::File(_))
        ));
    }

    #[cfg(unix)]
    #[test]
    fn a_keystore_that_others_may_read_is_refused() {
        let (_directory, path) = file(keystore().to_string());
        set_mode(&path, 0o640);
        let error = LocalSigner::from_keystore(&path, &SecretString::from(PASSWORD)).unwrap_err();
        assert!(
            matches!(error, KeyError::FileTooOpen { mode: 0o640 }),
            "{error:?}"
        );
    }
}
