//! `bursar compare`.

use bursar::{Network, Policy};

use crate::args::Compare;
use crate::exit::{Exit, Failure};
use crate::{output, wallet};

pub(crate) async fn run(args: Compare) -> Result<Exit, Failure> {
    // Comparing evaluates no limit, so any policy will do.
    let policy = Policy::new().allow_network(Network::from_chain_id(8453));
    let payer = wallet::keyless(policy, Some(wallet::required(&args.ledger).await?))?;
    let comparison = payer.compare(&args.host, &args.plan).await?;
    let printed = if args.json {
        output::print_json(&comparison)
    } else {
        output::print(&comparison)
    };
    output::finish(printed, Exit::Done)
}
