//! `bursar wallet`.

use std::path::PathBuf;

use bursar::{Address, Network};
use clap::{Args, Subcommand};

use super::parse::endpoint;

#[derive(Debug, Subcommand)]
pub(crate) enum WalletCommand {
    /// Create a key in a new encrypted file, and print its address
    ///
    /// The file has the format of geth and Foundry (Web3 Secret Storage, version 3), and only its owner can read it. An
    /// existing file is not replaced. The password comes from --password-fd, from BURSAR_KEYSTORE_PASSWORD, or bursar asks
    /// for it twice on the terminal. Nobody can restore a lost file or password.
    New(NewWallet),
    /// Print the address of a wallet; a keystore that names its address needs no password
    Address(WalletAddress),
    /// Print the balances of a wallet in the known tokens of each network; exits with 1 if a balance cannot be read
    Balance(WalletBalance),
    /// Let Permit2 move a token of the wallet, up to an amount: print the transaction, or send it with --send
    ///
    /// Payments by Permit2 and by the scheme `upto` need an approval. The contract Permit2 can then move as much as was
    /// approved, by signatures of the wallet. An approval replaces the one before. --amount 0 revokes it.
    ///
    /// The transaction costs gas in the coin of the network, so the wallet needs some of it.
    Approve(WalletApprove),
}

#[derive(Args, Debug)]
pub(crate) struct WalletApprove {
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    /// The network, such as base-sepolia
    #[arg(long, value_name = "NETWORK")]
    pub(crate) network: Network,
    /// The token, by its symbol
    #[arg(long, value_name = "SYMBOL", default_value = "USDC")]
    pub(crate) token: String,
    /// The amount in whole tokens, such as 5 or 0.25; 0 revokes the approval
    #[arg(long, value_name = "AMOUNT")]
    pub(crate) amount: String,
    /// Allow --amount max: no limit for as long as the approval stands. A stolen key or a wrong signature can then take all
    /// tokens of this kind that the wallet has or will have
    #[arg(long)]
    pub(crate) unlimited: bool,
    /// Ask this JSON-RPC endpoint: URL, or NETWORK=URL as for other commands
    #[arg(long, value_name = "URL")]
    pub(crate) rpc: Option<String>,
    /// Sign the transaction with the key, send it to --rpc, and wait for its receipt
    #[arg(long, requires = "rpc")]
    pub(crate) send: bool,
    /// Send nothing if a unit of gas could cost more than this, in gwei
    #[arg(long, value_name = "GWEI", default_value_t = 500)]
    pub(crate) max_fee: u64,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct NewWallet {
    /// The new keystore file
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Read the password from this inherited file descriptor, to its end; one line break at the end is not part of it
    ///
    /// With a shell: bursar wallet new wallet.json --password-fd 3 3< <(pass show wallet)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(3..))]
    pub(crate) password_fd: Option<u16>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// The wallet that a command only looks at.
#[derive(Args, Debug)]
pub(crate) struct KeyArgs {
    /// Take the address of this encrypted keystore file instead of BURSAR_PRIVATE_KEY
    #[arg(long, value_name = "FILE")]
    pub(crate) keystore: Option<PathBuf>,
    /// Read the key from this inherited file descriptor, to its end: 64 hexadecimal digits
    #[arg(long, value_name = "N", conflicts_with = "keystore", value_parser = clap::value_parser!(u16).range(3..))]
    pub(crate) key_fd: Option<u16>,
}

#[derive(Args, Debug)]
pub(crate) struct WalletAddress {
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct WalletBalance {
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    /// Look at this address; no key is needed
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["keystore", "key_fd"])]
    pub(crate) address: Option<Address>,
    /// Ask this JSON-RPC endpoint, such as base-sepolia=https://sepolia.base.org; can be repeated
    #[arg(long, value_name = "NETWORK=URL", required_unless_present = "policy", value_parser = endpoint)]
    pub(crate) rpc: Vec<(Network, String)>,
    /// Ask the endpoints in the tables [[chain]] of this policy file
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Show how much of each token Permit2 may move, too
    #[arg(long)]
    pub(crate) allowance: bool,
    /// Show this token only, by its symbol, such as USDC
    #[arg(long, value_name = "SYMBOL")]
    pub(crate) token: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
