//! The command `bursar`: an HTTP client that pays.

mod account;
mod approve;
mod args;
mod body;
mod compare;
mod connections;
mod diagnostics;
mod discover;
mod exit;
mod ledger;
mod live;
mod maintenance;
#[cfg(feature = "mcp")]
mod mcp;
#[cfg(feature = "mcp-proxy")]
mod mcp_proxy;
mod networks;
mod outcome;
mod output;
mod password;
mod pay;
mod payment;
mod policies;
mod prices;
mod problem;
mod progress;
#[cfg(feature = "proxy")]
mod proxy;
mod quote;
mod render;
mod request;
mod secrets;
#[cfg(feature = "mcp-serve")]
mod serve;
#[cfg(any(feature = "proxy", feature = "mcp-proxy"))]
mod spelling;
mod spending;
mod stop;
mod wallet;

use std::process::ExitCode;

use clap::Parser;

#[cfg(any(feature = "mcp", feature = "mcp-serve"))]
use args::McpCommand;
use args::{Cli, Command, LedgerCommandArgs, PolicyCommand};
use exit::{Exit, Failure};

fn main() -> ExitCode {
    secrets::protect();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(help) => return output::usage(help),
    };
    output::note_panics();
    #[cfg(feature = "mcp-serve")]
    if let Command::Mcp(McpCommand::Serve(args)) = &cli.command {
        secrets::wipe(|| policies::key_variables(&args.policy));
    }
    #[cfg(feature = "mcp-proxy")]
    if let Command::Mcp(McpCommand::Proxy(args)) = &cli.command {
        secrets::wipe(|| policies::key_variables(&args.policy));
    }
    #[cfg(feature = "proxy")]
    if let Command::Proxy(args) = &cli.command
        && args.command.is_none()
    {
        secrets::wipe(|| policies::key_variables(&args.serve.policy));
    }
    diagnostics::install();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            return output::failed(&Failure::failed(format!(
                "the runtime cannot start: {error}"
            )));
        }
    };
    match runtime.block_on(run(cli.command)) {
        Ok(exit) => exit.into(),
        Err(failure) => output::failed(&failure),
    }
}

/// `bursar completions`.
fn completions(shell: clap_complete::Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    let mut command = <Cli as clap::CommandFactory>::command();
    clap_complete::generate(shell, &mut command, "bursar", &mut script);
    output::finish(output::print_raw(&script), Exit::Done)
}

async fn run(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Pay(args) => pay::run(args).await,
        Command::Quote(args) => quote::run(args).await,
        Command::Discover(args) => discover::run(args).await,
        Command::Networks(args) => networks::run(&args),
        Command::Ledger(LedgerCommandArgs {
            command: Some(command),
            ..
        }) => maintenance::run(command).await,
        Command::Ledger(LedgerCommandArgs {
            show,
            command: None,
        }) => ledger::show(show).await,
        Command::Budget(args) => ledger::budget(args).await,
        Command::Report(args) => spending::run(args).await,
        Command::Compare(args) => compare::run(args).await,
        #[cfg(feature = "mcp")]
        Command::Mcp(McpCommand::Tools(args)) => mcp::tools(args).await,
        #[cfg(feature = "mcp")]
        Command::Mcp(McpCommand::Call(args)) => Box::pin(mcp::call(*args)).await,
        #[cfg(feature = "mcp-serve")]
        Command::Mcp(McpCommand::Serve(args)) => serve::run(&args).await,
        #[cfg(feature = "proxy")]
        Command::Proxy(args) => proxy::run(*args).await,
        #[cfg(feature = "mcp-proxy")]
        Command::Mcp(McpCommand::Proxy(args)) => mcp_proxy::run(*args).await,
        Command::Policy(PolicyCommand::Check { file }) => policies::check(&file).await,
        Command::Policy(PolicyCommand::Init { file, network }) => policies::init(&file, &network),
        Command::Policy(PolicyCommand::Effective { file, json }) => {
            policies::effective(&file, json)
        }
        Command::Policy(PolicyCommand::Explain(args)) => policies::explain(*args).await,
        Command::Wallet(command) => account::run(command).await,
        Command::Completions { shell } => completions(shell),
    }
}
