//! `bursar ledger` and `bursar budget`.

use std::io::{self, Write};

use bursar::ledger::{Filter, write_csv, write_jsonl};
use bursar::policy::LimitStatus;
use bursar::report::Zone;
use bursar::{Network, Purchase};
use serde::Serialize;

use crate::args::{Budget, Format, LedgerShow};
use crate::exit::{Exit, Failure};
use crate::payment::{amount, network_name};
use crate::policies;
use crate::{output, wallet};

/// `bursar ledger`.
pub(crate) async fn show(args: LedgerShow) -> Result<Exit, Failure> {
    let purchases = wallet::readable(&args.ledger)?
        .purchases(&filter(&args)?)
        .await?;
    let host = args.host.as_deref();
    let of_host = |purchase: &Purchase| host.is_none_or(|host| purchase.origin.host() == host);
    let mut purchases: Vec<_> = purchases.into_iter().filter(of_host).collect();
    if let Some(last) = args.last {
        purchases.drain(..purchases.len().saturating_sub(last));
    }
    let mut out = io::stdout().lock();
    let written = match args.format {
        Format::Table => write!(out, "{}", purchase_table(&purchases)),
        Format::Csv => write_csv(&purchases, &mut out),
        Format::Jsonl => write_jsonl(&purchases, &mut out),
    };
    output::finish(written.and_then(|()| out.flush()), Exit::Done)
}

fn filter(args: &LedgerShow) -> Result<Filter, Failure> {
    let mut filter = Filter::all();
    if let Some(since) = &args.since {
        let moment = Zone::named("UTC")?.moment(since);
        filter.since = Some(moment.ok_or_else(|| {
            Failure::usage(format!(
                "--since {since}: expected a date such as 2026-11-23, or a time in RFC 3339"
            ))
        })?);
    }
    filter.state = args.state;
    Ok(filter)
}

/// `bursar budget`.
pub(crate) async fn budget(mut args: Budget) -> Result<Exit, Failure> {
    if args.policy.policy.is_none() && args.policy.network.is_empty() {
        // The limits do not depend on the network.
        args.policy.network.push(Network::from_chain_id(8453));
    }
    let policy = policies::allowance(&args.policy)?.policy;
    let ledger = wallet::readable(&args.ledger)?;
    let findings = policy.budget(&ledger).await?;
    let place = policies::place(&args.policy);
    let printed = if args.json {
        limits_as_json(&findings, &place)
    } else {
        output::print(format_args!("limits: {place}\n{}", limits(&findings)))
    };
    output::finish(printed, Exit::Done)
}

/// A limit, and the place that it comes from.
#[derive(Serialize)]
struct Limit<'a> {
    policy: &'a str,
    #[serde(flatten)]
    status: &'a LimitStatus,
}

fn limits_as_json(findings: &[LimitStatus], policy: &str) -> io::Result<()> {
    let mut limits = findings.iter().map(|status| Limit { policy, status });
    limits.try_for_each(|limit| output::print_json(&limit))
}

fn limits(findings: &[LimitStatus]) -> String {
    let head = ["LIMIT", "OF", "USED", "LEFT"].map(ToOwned::to_owned);
    let rows = findings.iter().map(|finding| {
        let text = |quantity: &Option<bursar::policy::Quantity>| {
            quantity
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default()
        };
        [
            finding.name.clone(),
            text(&finding.limit),
            text(&finding.used),
            text(&finding.left),
        ]
    });
    table(head, rows)
}

fn purchase_table(purchases: &[Purchase]) -> String {
    let head = [
        "TIME",
        "STATE",
        "AMOUNT",
        "NETWORK",
        "REQUEST",
        "PURCHASE",
        "TRANSACTION",
    ]
    .map(ToOwned::to_owned);
    let rows = purchases.iter().map(|purchase| {
        [
            purchase.reserved_at.to_string(),
            purchase.state.to_string(),
            amount(purchase),
            network_name(purchase.network),
            format!("{} {}{}", purchase.method, purchase.origin, purchase.path),
            purchase.id.to_string(),
            purchase
                .transaction
                .map(|hash| hash.to_string())
                .unwrap_or_default(),
        ]
    });
    table(head, rows)
}

/// Returns a table whose columns are as wide as their widest cells.
pub(crate) fn table<const N: usize>(
    head: [String; N],
    rows: impl Iterator<Item = [String; N]>,
) -> String {
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<_> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}
