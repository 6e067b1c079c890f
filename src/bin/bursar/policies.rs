//! The policy: from flags, from a file, and explained.

use std::path::Path;

use bursar::config::Config;
use bursar::discovery::Sources;
use bursar::{
    Clock, Credentials, Explanation, Hypothetical, Network, Policy, Rule, SqliteLedger,
    SystemClock, Usd, usd,
};

use crate::args::{Explain, PolicyArgs};
use crate::exit::{Exit, Failure};
use crate::store::Store;
use crate::{output, wallet};

/// The library's default, which stays when only a budget is given.
const PER_PAYMENT: Usd = usd!("0.10");

/// What the flags allow.
pub(crate) struct Allowance {
    pub(crate) policy: Policy,
    /// Beside the limits of a policy file.
    pub(crate) max_price: Option<Usd>,
    /// The file's API keys.
    pub(crate) keys: Credentials,
    /// The file's places to look for services.
    pub(crate) sources: Sources,
}

/// The policy that the flags make, or the file that they tighten.
pub(crate) fn allowance(args: &PolicyArgs) -> Result<Allowance, Failure> {
    let Some(file) = &args.policy else {
        return Ok(Allowance {
            policy: from_flags(args)?,
            max_price: None,
            keys: Credentials::new(),
            sources: Sources::default(),
        });
    };
    let config = Config::from_file(file)?;
    let mut policy = narrowed(config.policy, &args.network)?;
    if let Some(budget) = args.budget {
        policy = policy.lifetime(budget);
    }
    policy.check()?;
    Ok(Allowance {
        policy,
        max_price: args.max_per_payment,
        keys: config.credentials,
        sources: config.sources,
    })
}

fn from_flags(args: &PolicyArgs) -> Result<Policy, Failure> {
    if args.network.is_empty() {
        let message = "no network may be paid on; name one, such as --network base or --network base-sepolia, \
            or give --policy FILE";
        return Err(Failure::usage(message));
    }
    let mut policy = args.network.iter().fold(Policy::new(), |policy, network| {
        policy.allow_network(*network)
    });
    if let Some(max) = args.max_per_payment {
        policy = policy.per_payment(max);
    }
    if let Some(budget) = args.budget {
        policy = policy.without_default_limits().lifetime(budget);
        if args.max_per_payment.is_none() {
            policy = policy.per_payment(PER_PAYMENT);
        }
    }
    policy.check()?;
    Ok(policy)
}

/// The file's networks, cut down to those that are wanted; those that are wanted if it names none.
fn narrowed(policy: Policy, wanted: &[Network]) -> Result<Policy, Failure> {
    if wanted.is_empty() {
        return Ok(policy);
    }
    if policy.networks().is_empty() {
        return Ok(wanted
            .iter()
            .fold(policy, |policy, network| policy.allow_network(*network)));
    }
    if let Some(other) = wanted
        .iter()
        .find(|network| !policy.networks().contains(network))
    {
        return Err(Failure::usage(format!(
            "--network {other}: the policy file does not name it"
        )));
    }
    let unwanted: Vec<_> = policy
        .networks()
        .iter()
        .copied()
        .filter(|network| !wanted.contains(network))
        .collect();
    Ok(unwanted
        .into_iter()
        .fold(policy, |policy, network| policy.deny_network(network)))
}

/// `bursar policy check`.
pub(crate) fn check(file: &Path) -> Result<Exit, Failure> {
    let policy = Policy::from_file(file)?;
    policy.check()?;
    output::finish(
        output::print(format_args!("{}: ok\n", file.display())),
        Exit::Done,
    )
}

/// `bursar policy explain`.
pub(crate) async fn explain(args: Explain) -> Result<Exit, Failure> {
    let policy = Policy::from_file(&args.file)?;
    let explanation = match &args.ledger {
        None => policy
            .explain(&hypothetical(&args), SystemClock.now())
            .ok_or_else(|| {
                Failure::usage(
                    "no dollar token is known on the network, or the price is too fine for it",
                )
            })?,
        Some(path) => with_books(&args, policy, path).await?,
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
        output::say("the payee is an invented one; name the seller's with --payee");
    }
    output::finish(printed, exit)
}

async fn with_books(args: &Explain, policy: Policy, path: &Path) -> Result<Explanation, Failure> {
    if !path.exists() {
        return Err(Failure::usage(format!(
            "there is no ledger at {}",
            path.display()
        )));
    }
    let payer = wallet::keyless(policy, Some(Store::Sqlite(SqliteLedger::open(path)?)))?;
    Ok(payer.explain(&hypothetical(args)).await?)
}

fn hypothetical(args: &Explain) -> Hypothetical {
    let mut payment = Hypothetical::new(args.url.clone(), args.price).method(args.method.as_str());
    if let Some(network) = args.network {
        payment = payment.network(network);
    }
    if let Some(payee) = args.payee {
        payment = payment.payee(payee);
    }
    payment
}
