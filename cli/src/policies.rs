//! The policy: from the options, from a file, and its explanation.

use std::io::Write;
use std::path::Path;

use bursar::clock::{Clock, SystemClock};
use bursar::config::Config;
use bursar::discovery::Sources;
use bursar::ledger::LedgerError;
use bursar::policy::{AskingPrice, Explanation, Rule};
use bursar::{
    Address, ChainReader, Credentials, Ledger, Network, Payer, Policy, PurchaseRequest, Usd,
};

use crate::args::{Explain, PolicyArgs};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::secrets;

/// The policy and the API keys of a command line.
pub(crate) struct Allowance {
    pub(crate) policy: Policy,
    /// The limit of --max-per-payment, in addition to a policy file.
    pub(crate) max_price: Option<Usd>,
    /// The API keys of the policy file.
    pub(crate) keys: Credentials,
    /// The file's JSON-RPC endpoints.
    pub(crate) chain: Option<ChainReader>,
    /// The file's places to look for services.
    pub(crate) sources: Sources,
    /// The file's settings of the proxy.
    #[cfg(feature = "proxy")]
    pub(crate) proxy: bursar::config::ProxyConfig,
    /// The file's MCP servers.
    #[cfg(feature = "mcp-proxy")]
    pub(crate) mcp_servers: Vec<bursar::config::McpServer>,
    /// Whether the MCP proxy may add servers that it finds in `sources`.
    #[cfg(feature = "mcp-proxy")]
    pub(crate) add_servers: bool,
}

/// Builds the policy from the options, or from the file that the options make stricter.
pub(crate) fn allowance(args: &PolicyArgs) -> Result<Allowance, Failure> {
    let Some(file) = &args.policy else {
        return Ok(Allowance {
            policy: from_flags(args)?,
            max_price: None,
            keys: Credentials::new(),
            chain: None,
            sources: Sources::default(),
            #[cfg(feature = "proxy")]
            proxy: bursar::config::ProxyConfig::default(),
            #[cfg(feature = "mcp-proxy")]
            mcp_servers: Vec::new(),
            #[cfg(feature = "mcp-proxy")]
            add_servers: false,
        });
    };
    let config = Config::from_file(file)?;
    let mut policy = with_networks(config.policy, &args.network)?;
    if let Some(budget) = args.budget {
        policy = policy.lifetime(budget);
    }
    policy.check()?;
    Ok(Allowance {
        policy,
        max_price: args.max_per_payment,
        keys: secrets::supply(config.credentials),
        chain: config.chain,
        sources: config.sources,
        #[cfg(feature = "proxy")]
        proxy: config.proxy,
        #[cfg(feature = "mcp-proxy")]
        mcp_servers: config.mcp_servers,
        #[cfg(feature = "mcp-proxy")]
        add_servers: config.add_servers,
    })
}

/// Returns the environment variables that hold the API keys of the policy file.
#[cfg(any(feature = "mcp-serve", feature = "proxy"))]
pub(crate) fn key_variables(args: &PolicyArgs) -> Vec<String> {
    let mut names = Vec::new();
    // `allowance` reports a file with mistakes.
    if let Some(Ok(config)) = args.policy.as_ref().map(Config::from_file) {
        drop(config.credentials.environment(|name| {
            names.push(name.to_owned());
            None
        }));
    }
    names
}

/// Returns the place that the limits of a command line come from, for people.
pub(crate) fn place(args: &PolicyArgs) -> String {
    let options = if args.max_per_payment.is_some() || args.budget.is_some() {
        " and the options"
    } else {
        ""
    };
    match &args.policy {
        Some(file) => format!("{}{options}", file.display()),
        None if args.no_default_limits || args.unlimited => {
            "the options, without the defaults (no --policy)".to_owned()
        }
        None => format!("the defaults{options} (no --policy)"),
    }
}

fn from_flags(args: &PolicyArgs) -> Result<Policy, Failure> {
    if args.network.is_empty() {
        let message = "no network is allowed; add --network base, --network base-sepolia or another network, \
            or --policy FILE";
        return Err(Failure::usage(message));
    }
    let mut policy = args.network.iter().fold(Policy::new(), |policy, network| {
        policy.allow_network(*network)
    });
    if args.unlimited {
        policy = policy.unlimited();
    } else if args.no_default_limits {
        if args.budget.is_none() {
            let message = "--no-default-limits would remove every limit over time; add --budget USD, or --unlimited";
            return Err(Failure::usage(message));
        }
        policy = policy.without_default_limits();
    }
    // The budget is also the limit of one payment if nothing else is.
    let single = args.budget.filter(|_| args.no_default_limits);
    if let Some(max) = args.max_per_payment.or(single) {
        policy = policy.per_payment(max);
    }
    if let Some(budget) = args.budget {
        policy = policy.lifetime(budget);
    }
    policy.check()?;
    Ok(policy)
}

/// Keeps the selected networks of the file. Adds them if the file names no network.
fn with_networks(policy: Policy, selected: &[Network]) -> Result<Policy, Failure> {
    if selected.is_empty() {
        return Ok(policy);
    }
    if policy.networks().is_empty() {
        return Ok(selected
            .iter()
            .fold(policy, |policy, network| policy.allow_network(*network)));
    }
    if let Some(other) = selected
        .iter()
        .find(|network| !policy.networks().contains(network))
    {
        return Err(Failure::usage(format!(
            "--network {other}: the policy file does not name this network"
        )));
    }
    let removed: Vec<_> = policy
        .networks()
        .iter()
        .copied()
        .filter(|network| !selected.contains(network))
        .collect();
    Ok(removed
        .into_iter()
        .fold(policy, |policy, network| policy.deny_network(network)))
}

/// `bursar policy check`.
pub(crate) async fn check(file: &Path) -> Result<Exit, Failure> {
    let config = Config::from_file(file)?;
    config.policy.check()?;
    if let Some(directory) = config
        .policy
        .freeze_directory()
        .filter(|path| !path.is_dir())
    {
        output::note(format_args!(
            "warning: the directory of the freeze file, {}, does not exist",
            directory.display()
        ));
    }
    for warning in config.credentials.missing_keys().await {
        output::note(format_args!("warning: {warning}"));
    }
    if config.policy.is_unlimited() {
        output::note("limit: none is required; the policy is unlimited");
    }
    let limits = config.policy.budget(&Ledger::memory()).await?;
    for limit in limits {
        let most = limit.limit.map(|most| most.to_string()).unwrap_or_default();
        output::note(format_args!("limit: {} {most}", limit.name));
    }
    output::finish(
        output::print(format_args!("{}: ok\n", file.display())),
        Exit::Done,
    )
}

/// The text of a new policy file.
const STARTING_POLICY: &str = include_str!("starting_policy.toml");

/// `bursar policy init`.
pub(crate) fn init(file: &Path, networks: &[Network]) -> Result<Exit, Failure> {
    let name = |network: &Network| match network.name() {
        Some(name) => format!("\"{name}\""),
        None => format!("\"{network}\""),
    };
    let networks: Vec<String> = networks.iter().map(name).collect();
    let text = STARTING_POLICY.replace("NETWORKS", &networks.join(", "));
    // For example, test networks and networks with real money together.
    Policy::from_toml(&text)
        .map_err(|error| Failure::usage(format!("--network: {error}")))?
        .check()?;
    let failed = |error: std::io::Error| {
        let reason = match error.kind() {
            std::io::ErrorKind::AlreadyExists => "exists already; nothing was written".to_owned(),
            _ => format!("cannot be written: {error}"),
        };
        Failure::usage(format!("{}: {reason}", file.display()))
    };
    let mut new = std::fs::File::create_new(file).map_err(failed)?;
    new.write_all(text.as_bytes()).map_err(failed)?;
    let done = format_args!(
        "{} is written; read it, and change its limits\n",
        file.display()
    );
    output::finish(output::print(done), Exit::Done)
}

/// `bursar policy effective`.
pub(crate) fn effective(file: &Path, json: bool) -> Result<Exit, Failure> {
    let policy = Policy::from_file(file)?;
    policy.check()?;
    let effective = policy.effective();
    let printed = if json {
        output::print_json(&effective)
    } else {
        output::print(effective)
    };
    output::finish(printed, Exit::Done)
}

/// `bursar policy explain`.
pub(crate) async fn explain(args: Explain) -> Result<Exit, Failure> {
    let Config { policy, chain, .. } = Config::from_file(&args.file)?;
    if args.payer.is_some() && chain.is_none() {
        let message = "--payer: the policy file has no [[chain]] to read a balance from";
        return Err(Failure::usage(message));
    }
    let chain = chain.zip(args.payer);
    let explanation = match &args.ledger {
        None if chain.is_none() => policy
            .explain(
                &request(&args)?,
                price(&args),
                args.agent.as_deref(),
                SystemClock.now(),
            )
            .ok_or_else(|| {
                Failure::usage(
                    "bursar knows no dollar token on this network, or the token has too few decimals for the price",
                )
            })?,
        ledger => with_ledger(&args, policy, ledger.as_deref(), chain).await?,
    };
    let exit = if explanation.denial().is_some() {
        Exit::Denied
    } else {
        Exit::Done
    };
    let printed = if args.json {
        output::print_json(&explanation)
    } else {
        output::print(&explanation)
    };
    if args.payee.is_none()
        && explanation
            .denial()
            .is_some_and(|denial| denial.rule == Rule::Payee)
    {
        output::note("the payee is invented; set --payee to the address of the seller");
    }
    output::finish(printed, exit)
}

async fn with_ledger(
    args: &Explain,
    policy: Policy,
    path: Option<&Path>,
    chain: Option<(ChainReader, Address)>,
) -> Result<Explanation, Failure> {
    let mut payer = Payer::builder().policy(policy);
    if let Some(path) = path {
        payer = match Ledger::open_existing(path) {
            Err(error @ LedgerError::Missing(_)) => return Err(Failure::usage(error.to_string())),
            opened => payer.ledger(opened?),
        };
    }
    if let Some((chain, address)) = chain {
        payer = payer.chain(chain).address(address);
    }
    if let Some(agent) = &args.agent {
        payer = payer.agent(agent);
    }
    let payer = payer.build_read_only()?;
    Ok(payer.explain(&request(args)?, price(args)).await?)
}

fn request(args: &Explain) -> Result<PurchaseRequest, Failure> {
    let request = PurchaseRequest::new(args.method.as_str(), args.url.as_str(), b"");
    let request = request.map_err(|error| Failure::usage(error.to_string()))?;
    Ok(match &args.tag {
        Some(tag) => request.tag(tag),
        None => request,
    })
}

fn price(args: &Explain) -> AskingPrice {
    let mut price = AskingPrice::new(args.price);
    if let Some(network) = args.network {
        price = price.network(network);
    }
    if let Some(payee) = args.payee {
        price = price.payee(payee);
    }
    price
}
