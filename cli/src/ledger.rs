//! `bursar ledger` and `bursar budget`.

use std::io::{self, BufWriter, Write};

use anstyle::Style;
use bursar::ledger::{Filter, State, write_csv, write_csv_rows, write_jsonl};
use bursar::policy::LimitStatus;
use bursar::report::Zone;
use bursar::{Network, Purchase};
use serde::Serialize;

use crate::args::{Budget, Format, LedgerShow};
use crate::exit::{Exit, Failure};
use crate::payment::{described_amount, network_name};
use crate::policies;
use crate::progress::Progress;
use crate::{output, wallet};

/// The head of the table of purchases.
const HEAD: [&str; 7] = [
    "TIME",
    "STATE",
    "AMOUNT",
    "NETWORK",
    "REQUEST",
    "PURCHASE",
    "TRANSACTION",
];

/// `bursar ledger`.
pub(crate) async fn show(args: LedgerShow) -> Result<Exit, Failure> {
    let mut pages = wallet::readable(&args.ledger).await?.pages(&filter(&args)?);
    let mut out = BufWriter::new(io::stdout());
    let mut table = Table {
        paint: output::colours(&io::stdout()).then_some(of_state as Paint),
        ..Table::default()
    };
    let mut rows = vec![HEAD.map(ToOwned::to_owned)];
    let mut progress = Progress::begin();
    let mut written = match args.format {
        Format::Csv => write_csv([], &mut out),
        Format::Table | Format::Jsonl => Ok(()),
    };
    while written.is_ok()
        && let Some(purchases) = pages.next().await?
    {
        progress.add(purchases.len());
        written = match args.format {
            Format::Table => {
                rows.extend(purchases.into_iter().map(row));
                let text = table.text(&rows);
                rows.clear();
                out.write_all(text.as_bytes())
            }
            Format::Csv => write_csv_rows(&purchases, &mut out),
            Format::Jsonl => write_jsonl(&purchases, &mut out),
        };
    }
    drop(progress);
    if written.is_ok() && matches!(args.format, Format::Table) {
        // The head, if there was no purchase.
        written = out.write_all(table.text(&rows).as_bytes());
    }
    output::finish(written.and_then(|()| out.flush()), Exit::Done)
}

fn filter(args: &LedgerShow) -> Result<Filter, Failure> {
    let moment = |flag: &str, text: &str| {
        let moment = Zone::named("UTC")?.moment(text);
        moment.ok_or_else(|| {
            Failure::usage(format!(
                "{flag} {text}: expected a date such as 2026-11-23, or a time in RFC 3339"
            ))
        })
    };
    let mut filter = Filter::all();
    if let Some(since) = &args.since {
        filter.since = Some(moment("--since", since)?);
    }
    if let Some(until) = &args.until {
        filter.until = Some(moment("--until", until)?);
    }
    filter.tag.clone_from(&args.tag);
    filter.agent.clone_from(&args.agent);
    if let Some(host) = &args.host {
        let host = host.parse();
        filter.host = Some(host.map_err(|error| Failure::usage(format!("--host: {error}")))?);
    }
    filter.state = args.state;
    filter.last = args.last;
    Ok(filter)
}

/// `bursar budget`.
pub(crate) async fn budget(mut args: Budget) -> Result<Exit, Failure> {
    if args.policy.policy.is_none() && args.policy.network.is_empty() {
        // The limits do not depend on the network.
        args.policy.network.push(Network::from_chain_id(8453));
    }
    let policy = policies::allowance(&args.policy)?.policy;
    let ledger = wallet::readable(&args.ledger).await?;
    let findings = policy.budget(&ledger).await?;
    let place = policies::place(&args.policy);
    let printed = if args.json {
        limits_as_json(&findings, &place)
    } else {
        let table = limits(&findings);
        let table = output::styled_lines(&table, |line| {
            let used = findings.get(line.checked_sub(1)?)?.used_per_mille()?;
            match used {
                1000.. => Some(output::BAD),
                800.. => Some(output::OPEN),
                _ => None,
            }
        });
        output::print(format_args!("limits: {place}\n"))
            .and_then(|()| output::print_raw(table.as_bytes()))
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

fn row(purchase: Purchase) -> [String; 7] {
    [
        purchase.reserved_at.to_string(),
        purchase.state.to_string(),
        described_amount(&purchase),
        network_name(purchase.network),
        format!("{} {}{}", purchase.method, purchase.origin, purchase.path),
        purchase.id.to_string(),
        purchase
            .transaction
            .map(|hash| hash.to_string())
            .unwrap_or_default(),
    ]
}

/// Returns a table whose columns are as wide as their widest cells.
pub(crate) fn table<const N: usize>(
    head: [String; N],
    rows: impl Iterator<Item = [String; N]>,
) -> String {
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    Table::default().text(&rows)
}

/// Returns the style of a cell by its text.
type Paint = fn(&str) -> Option<Style>;

/// Returns the style of the state of a purchase.
fn of_state(text: &str) -> Option<Style> {
    let state = State::ALL.into_iter().find(|state| state.name() == text)?;
    match state {
        State::Settled => Some(output::GOOD),
        State::Signed | State::Unresolved => Some(output::OPEN),
        State::Rejected => Some(output::BAD),
        _ => None,
    }
}

/// A table that is written in parts. A column is as wide as its widest cell so far.
struct Table<const N: usize> {
    widths: [usize; N],
    paint: Option<Paint>,
}

impl<const N: usize> Default for Table<N> {
    fn default() -> Self {
        Self {
            widths: [0; N],
            paint: None,
        }
    }
}

impl<const N: usize> Table<N> {
    fn text(&mut self, rows: &[[String; N]]) -> String {
        for row in rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        let mut text = String::new();
        for row in rows {
            let cells: Vec<_> = row
                .iter()
                .zip(self.widths)
                .map(|(cell, width)| {
                    let style = self.paint.and_then(|paint| paint(cell)).unwrap_or_default();
                    format!(
                        "{style}{cell}{style:#}{:1$}",
                        "",
                        width.saturating_sub(cell.chars().count())
                    )
                })
                .collect();
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}
