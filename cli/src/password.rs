//! The password of a keystore.

use std::io::{self, BufRead, IsTerminal, Write};
use std::process::{Command, Stdio};

use bursar::secrecy::{ExposeSecret, SecretString};

use crate::exit::Failure;
use crate::secrets::{self, PASSWORD};

/// Returns the password from the environment, or asks for it on the terminal.
pub(crate) fn ask() -> Result<SecretString, Failure> {
    if let Some(password) = secrets::variable(PASSWORD) {
        return Ok(password);
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(format!(
            "the keystore needs a password; set {PASSWORD}, or run bursar on a terminal, which asks for it"
        )));
    }
    let typed = typed(OLD)
        .map_err(|error| Failure::usage(format!("the password cannot be read: {error}")))?;
    Ok(SecretString::from(typed))
}

/// Returns the password of a new keystore: from the environment, or typed twice on the terminal.
pub(crate) fn choose() -> Result<SecretString, Failure> {
    if let Some(password) = secrets::variable(PASSWORD) {
        return Ok(password);
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(format!(
            "a new keystore needs a password; add --password-fd N, set {PASSWORD}, or run bursar on a terminal, which \
             asks for it"
        )));
    }
    let failed = |error| Failure::usage(format!("the password cannot be read: {error}"));
    let first = SecretString::from(typed(NEW).map_err(failed)?);
    if first.expose_secret().is_empty() {
        return Err(Failure::usage("the password is empty; choose a longer one"));
    }
    let second = SecretString::from(typed(AGAIN).map_err(failed)?);
    if first.expose_secret() != second.expose_secret() {
        return Err(Failure::usage(
            "the two passwords differ; nothing was written",
        ));
    }
    Ok(first)
}

const OLD: &[u8] = b"Password of the keystore: ";
const NEW: &[u8] = b"Password for the new keystore: ";
const AGAIN: &[u8] = b"The same password again: ";

fn typed(prompt: &[u8]) -> io::Result<String> {
    let _hidden = HiddenInput::start();
    let mut err = io::stderr().lock();
    err.write_all(prompt)?;
    err.flush()?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    line.truncate(line.trim_end_matches(['\r', '\n']).len());
    Ok(line)
}

/// Hides the typed password on the terminal, if the program `stty` exists.
struct HiddenInput;

impl HiddenInput {
    fn start() -> Option<Self> {
        stty("-echo").then_some(Self)
    }
}

impl Drop for HiddenInput {
    fn drop(&mut self) {
        stty("echo");
        crate::output::note("");
    }
}

fn stty(setting: &str) -> bool {
    // The environment has the key.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let ran = Command::new("stty")
        .arg(setting)
        .env_clear()
        .env("PATH", path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    ran.is_ok_and(|status| status.success())
}
