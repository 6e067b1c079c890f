//! `bursar compare`.

use crate::args::Compare;
use crate::exit::{Exit, Failure};
use crate::{output, wallet};

pub(crate) async fn run(args: Compare) -> Result<Exit, Failure> {
    let ledger = wallet::required(&args.ledger).await?;
    let comparison = ledger.compare(&args.host, &args.plan).await?;
    let printed = if args.json {
        output::print_json(&comparison)
    } else {
        output::print(&comparison)
    };
    output::finish(printed, Exit::Done)
}
