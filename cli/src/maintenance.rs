//! `bursar ledger COMMAND`: check the ledger, compare it with the chain, and correct it.

use std::path::Path;

use bursar::chain::Answer;
use bursar::clock::{Clock, SystemClock};
use bursar::ledger::Evidence;
use bursar::report::Zone;
use bursar::{Ledger, Policy, Purchase, PurchaseId};
use serde_json::json;

use crate::args::{self, LedgerArgs, LedgerCommand, Prune, Reconcile, Verify, WalletArgs};
use crate::exit::{Exit, Failure};
use crate::ledger::table;
use crate::progress::Progress;
use crate::{output, wallet};

pub(crate) async fn run(command: LedgerCommand) -> Result<Exit, Failure> {
    match command {
        LedgerCommand::Reconcile(args) => reconcile(args).await,
        LedgerCommand::Verify(args) => verify(&args).await,
        LedgerCommand::Prune(args) => prune(&args).await,
        LedgerCommand::Evidence { purchase, ledger } => evidence(&purchase, &ledger).await,
        LedgerCommand::Refund(args) => refund(args).await,
        LedgerCommand::Cancel { purchase, wallet } => cancel(&purchase, &wallet).await,
        LedgerCommand::Backup { file, ledger } => backup(&file, &ledger).await,
        LedgerCommand::Restore { file, ledger } => restore(&file, &ledger),
        LedgerCommand::Freeze { reason, ledger } => {
            wallet::required(&ledger).await?.freeze(reason).await?;
            output::finish(output::print("all payments are stopped\n"), Exit::Done)
        }
        LedgerCommand::Unfreeze { ledger } => {
            wallet::required(&ledger).await?.unfreeze().await?;
            output::finish(output::print("payments are allowed again\n"), Exit::Done)
        }
    }
}

async fn backup(file: &Path, ledger: &LedgerArgs) -> Result<Exit, Failure> {
    let ledger = wallet::required(ledger).await?;
    ledger.backup(file).await?;
    let done = format_args!("the ledger is copied to {}\n", file.display());
    output::finish(output::print(done), Exit::Done)
}

fn restore(file: &Path, ledger: &LedgerArgs) -> Result<Exit, Failure> {
    let place = wallet::file(ledger)?;
    let restored = Ledger::restore(file, &place)?;
    let lost = match (restored.lost_purchases, restored.lost_events) {
        (Some(purchases), Some(changes)) => {
            format!("Purchases of the lost ledger that it lacks: {purchases} (changes: {changes}).")
        }
        _ => "bursar cannot tell how many purchases it lacks, because no witness was found."
            .to_owned(),
    };
    let done = format_args!(
        "{} is restored with {} purchases. {lost}\nLimits do not count what is lacking. Run `bursar ledger freeze` until \
         every lost payment has expired (five minutes by default), and lower the limits.\n",
        place.display(),
        restored.purchases,
    );
    output::finish(output::print(done), Exit::Done)
}

async fn reconcile(args: Reconcile) -> Result<Exit, Failure> {
    let mut chain = wallet::chain_of(args.policy.as_deref(), &args.rpc)?;
    if args.trust_single_endpoint {
        chain = chain.trust_single_endpoint();
    }
    if let Some(blocks) = args.confirmations {
        chain = chain.confirmations(blocks);
    }
    let ledger = wallet::required(&args.ledger).await?;
    let mut progress = Progress::of("purchases looked up");
    let done = ledger.reconcile_with_progress(&chain, |purchases| progress.add(purchases));
    let done = done.await?;
    drop(progress);
    let open = done
        .iter()
        .any(|purchase| matches!(purchase.answer, Answer::CannotTell { .. }));
    let printed = if args.json {
        done.iter().try_for_each(output::print_json)
    } else {
        let head = ["PURCHASE", "BEFORE", "AFTER", "CHAIN"].map(ToOwned::to_owned);
        let rows = done.iter().map(|purchase| {
            let (before, after) = (purchase.before.to_string(), purchase.after.to_string());
            [
                purchase.purchase.to_string(),
                before,
                after,
                purchase.answer.to_string(),
            ]
        });
        output::print(table(head, rows))
    };
    output::finish(printed, if open { Exit::Failed } else { Exit::Done })
}

async fn verify(args: &Verify) -> Result<Exit, Failure> {
    let ledger = wallet::required(&args.ledger).await?;
    let mut progress = Progress::of("events and purchases read");
    let report = ledger.verify_with_progress(args.head, |rows| progress.add(rows));
    let report = report.await?;
    drop(progress);
    let sound = report.is_sound();
    let mut text: String = report
        .faults
        .iter()
        .map(|fault| format!("{fault}\n"))
        .collect();
    let verdict = if sound {
        "sound".to_owned()
    } else {
        format!("{} faults", report.fault_count)
    };
    text.push_str(&format!(
        "{verdict}: {} events, {} purchases, head {}\n",
        report.events, report.purchases, report.head
    ));
    output::finish(
        output::print(text),
        if sound { Exit::Done } else { Exit::Failed },
    )
}

async fn prune(args: &Prune) -> Result<Exit, Failure> {
    let now = SystemClock.now();
    let before = match args::age(&args.before) {
        Some(age) => Some(now.before(age)),
        None => Zone::named("UTC")?.moment(&args.before),
    };
    let before = before.filter(|before| *before <= now).ok_or_else(|| {
        Failure::usage(format!(
            "--before {}: expected a date in the past such as 2026-08-01, a time in RFC 3339, or an age such as 90d",
            args.before
        ))
    })?;
    let ledger = wallet::required(&args.ledger).await?;
    let mut progress = Progress::of("purchases pruned");
    let pruned = ledger.prune_with_progress(before, &args.export, |count| progress.add(count));
    let pruned = pruned.await?;
    drop(progress);
    let printed = match (args.json, pruned.archived) {
        (true, _) => output::print_json(&pruned),
        (false, 0) => output::print("there is nothing to prune\n"),
        (false, archived) => output::print(format_args!(
            "{} purchases are pruned; {archived} are in {}\n",
            pruned.pruned,
            args.export.display()
        )),
    };
    output::finish(printed, Exit::Done)
}

async fn evidence(purchase: &PurchaseId, ledger: &LedgerArgs) -> Result<Exit, Failure> {
    let (_, stored) = find(purchase, ledger).await?;
    output::finish(output::print_json(&Evidence::from(stored)), Exit::Done)
}

async fn refund(args: args::Refund) -> Result<Exit, Failure> {
    let (ledger, stored) = find(&args.purchase, &args.ledger).await?;
    ledger
        .record_refund(&stored.key(), args.transaction, args.value)
        .await?;
    output::finish(
        output::print(format_args!(
            "recorded a refund for purchase {}\n",
            args.purchase
        )),
        Exit::Done,
    )
}

async fn cancel(purchase: &PurchaseId, args: &WalletArgs) -> Result<Exit, Failure> {
    let (_, stored) = find(purchase, &args.ledger).await?;
    let payer = wallet::paying(args, Policy::new().allow_network(stored.network), None).await?;
    let cancellation = payer.cancel(purchase).await?;
    let transaction = json!({
        "network": cancellation.network(),
        "to": cancellation.contract().to_string(),
        "data": format!("0x{}", hex(&cancellation.calldata())),
    });
    output::finish(output::print_json(&transaction), Exit::Done)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the ledger and its purchase with this id, of any payer.
async fn find(purchase: &PurchaseId, args: &LedgerArgs) -> Result<(Ledger, Purchase), Failure> {
    let ledger = wallet::required(args).await?;
    let found = ledger.purchase_by_id(purchase).await?;
    let found =
        found.ok_or_else(|| Failure::failed(format!("the ledger has no purchase `{purchase}`")))?;
    Ok((ledger, found))
}
