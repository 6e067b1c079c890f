//! `bursar report`: sums of the purchases in a ledger.

use std::io::{self, IsTerminal};
use std::path::Path;

use bursar::clock::{Clock, SystemClock};
use bursar::report::{Report, Selection, Zone};
use bursar::{Network, Timestamp};

use crate::args::{ReportFormat, Spending};
use crate::exit::{Exit, Failure};
use crate::progress::Progress;
use crate::{live, output, policies, render, wallet};

pub(crate) async fn run(mut args: Spending) -> Result<Exit, Failure> {
    if args.policy.policy.is_none() && args.policy.network.is_empty() {
        // The limits do not depend on the network.
        args.policy.network.push(Network::from_chain_id(8453));
    }
    if matches!(args.format, ReportFormat::Html) && args.out.is_none() && io::stdout().is_terminal()
    {
        let message =
            "the page does not fit on a terminal; add --out FILE, and open the file in a browser";
        return Err(Failure::usage(message));
    }
    let policy = policies::allowance(&args.policy)?.policy;
    let zone = Zone::named(args.zone.as_deref().unwrap_or_else(|| policy.time_zone()))?;
    let ledger = wallet::required(&args.ledger).await?;
    if args.serve {
        return live::serve(args, policy, zone, ledger).await;
    }
    let selection = selection(&args, zone)?;
    let mut progress = Progress::of_report();
    let report = ledger.report_with_progress(&selection, |purchases| progress.add(purchases));
    let report = report.await?.with_budget(policy.budget(&ledger).await?);
    drop(progress);
    let place = policies::place(&args.policy);
    let text = written(&report, &place, args.format, args.out.is_none())?;
    match &args.out {
        // The tables are escaped, and can have colours.
        None if matches!(args.format, ReportFormat::Table) => {
            output::finish(output::print_raw(text.as_bytes()), Exit::Done)
        }
        None => output::finish(output::print(text), Exit::Done),
        Some(path) => {
            put(path, &text)?;
            Ok(Exit::Done)
        }
    }
}

pub(crate) fn selection(args: &Spending, zone: Zone) -> Result<Selection, Failure> {
    let moment = |flag: &str, text: &str| -> Result<Timestamp, Failure> {
        let wrong = || {
            Failure::usage(format!(
                "{flag} {text}: expected a date such as 2026-11-23, or a time in RFC 3339"
            ))
        };
        zone.moment(text).ok_or_else(wrong)
    };
    let mut selection = Selection::new();
    if let Some(since) = &args.since {
        selection = selection.since(moment("--since", since)?);
    }
    if let Some(until) = &args.until {
        selection = selection.until(moment("--until", until)?);
    }
    if let Some(days) = args.days {
        let start = zone.last_days(days, SystemClock.now());
        selection = selection
            .since(start.ok_or_else(|| Failure::usage("--days: the number is too large"))?);
    }
    if let Some(host) = &args.host {
        selection = selection.host(
            host.parse()
                .map_err(|error| Failure::usage(format!("--host: {error}")))?,
        );
    }
    if let Some(tag) = &args.tag {
        selection = selection.tag(tag);
    }
    if let Some(agent) = &args.agent {
        selection = selection.agent(agent);
    }
    Ok(selection.zone(zone))
}

fn written(
    report: &Report,
    policy: &str,
    format: ReportFormat,
    for_terminal: bool,
) -> Result<String, Failure> {
    Ok(match format {
        ReportFormat::Table if for_terminal && output::colours(&io::stdout()) => {
            let colours = render::Colours {
                good: output::GOOD,
                open: output::OPEN,
                bad: output::BAD,
            };
            render::coloured_table(report, policy, columns(), Some(&colours))
        }
        ReportFormat::Table => render::table(report, policy, columns().filter(|_| for_terminal)),
        ReportFormat::Csv => report.to_csv(),
        ReportFormat::Html => render::html(report, policy),
        ReportFormat::Json => {
            let json = bursar::text::json(report);
            json.map_err(|error| {
                Failure::failed(format!("the report cannot be written as JSON: {error}"))
            })? + "\n"
        }
    })
}

/// Returns the width of the terminal, if standard output is one.
fn columns() -> Option<u16> {
    let out = io::stdout();
    terminal_size::terminal_size_of(&out)
        .filter(|_| out.is_terminal())
        .map(|(width, _)| width.0)
}

fn put(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text)
        .map_err(|error| Failure::failed(format!("{} cannot be written: {error}", path.display())))
}
