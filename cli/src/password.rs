//! The password of a keystore.

use std::io::{self, BufRead, IsTerminal, Write};
use std::process::{Command, Stdio};

use bursar::secrecy::SecretString;

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
    let typed =
        typed().map_err(|error| Failure::usage(format!("the password cannot be read: {error}")))?;
    Ok(SecretString::from(typed))
}

fn typed() -> io::Result<String> {
    let _hidden = HiddenInput::start();
    let mut err = io::stderr().lock();
    err.write_all(b"Password of the keystore: ")?;
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
