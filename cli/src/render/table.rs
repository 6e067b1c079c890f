//! A report for a terminal.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};

use bursar::report::{Group, Report, Section, Sum, Tally};
use bursar::{LimitStatus, Usd, excerpt};

use super::{dollars, name_of};

pub(super) fn write(report: &Report, columns: Option<u16>) -> String {
    let about = format!(
        "{}, in days of {}, as of {}\n",
        report.selection,
        report.selection.zone_of_days(),
        report.at
    );
    let sections = report
        .sections
        .iter()
        .filter(|section| tells(section))
        .map(|section| by(section, columns));
    let parts = [about, parts(&report.total, columns)]
        .into_iter()
        .chain(sections);
    let parts = parts.chain([unresolved(report, columns), budget(&report.budget, columns)]);
    parts
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("\n")
}

/// Whether a section says more than the total does.
pub(super) fn tells(section: &Section) -> bool {
    section.groups.iter().any(|group| group.name.is_some())
}

/// The sums of a tally, by the names that people read.
pub(super) fn named(tally: &Tally) -> [(&'static str, &Sum); 11] {
    [
        ("spent", &tally.spent),
        ("paid", &tally.paid),
        ("called by key", &tally.called),
        ("outstanding", &tally.outstanding),
        ("expired", &tally.expired),
        ("held", &tally.held),
        ("refused", &tally.refused),
        ("failed", &tally.failed),
        ("refunded", &tally.refunded),
        ("released", &tally.released),
        ("freed", &tally.freed),
    ]
}

/// What a sum holds of each token.
pub(super) fn tokens(sum: &Sum) -> String {
    sum.tokens
        .values()
        .map(|token| excerpt(&token.to_string()))
        .collect::<Vec<_>>()
        .join(", ")
}

fn parts(tally: &Tally, columns: Option<u16>) -> String {
    let rows = named(tally).into_iter().enumerate();
    let rows = rows.filter(|(order, (_, sum))| *order < 2 || sum.count > 0);
    let rows = rows.map(|(_, (name, sum))| {
        [
            name.to_owned(),
            sum.count.to_string(),
            dollars(sum),
            tokens(sum),
        ]
    });
    grid(["", "COUNT", "USD", "TOKENS"], &[1, 2], rows, columns)
}

fn by(section: &Section, columns: Option<u16>) -> String {
    let name = section.by.name().to_uppercase();
    let rows = section.groups.iter().map(|group| {
        let tally = &group.tally;
        let open = tally.outstanding.count.saturating_add(tally.expired.count);
        [
            name_of(group),
            tally.spent.count.to_string(),
            dollars(&tally.spent),
            blank(open),
            blank(tally.refused.count),
            blank(tally.failed.count),
            if tally.refunded.usd == Usd::ZERO {
                String::new()
            } else {
                dollars(&tally.refunded)
            },
        ]
    });
    grid(
        [
            &name,
            "COUNT",
            "USD",
            "UNRESOLVED",
            "REFUSED",
            "FAILED",
            "REFUNDED",
        ],
        &[1, 2, 3, 4, 5, 6],
        rows,
        columns,
    )
}

fn blank(count: u64) -> String {
    if count == 0 {
        String::new()
    } else {
        count.to_string()
    }
}

fn unresolved(report: &Report, columns: Option<u16>) -> String {
    if report.unresolved.is_empty() {
        return String::new();
    }
    let rows = report.unresolved.iter().map(|open| {
        let until = if open.outstanding {
            "can be cashed until"
        } else {
            "expired"
        };
        [
            open.purchase.to_string(),
            open.state.to_string(),
            excerpt(&open.amount),
            open.origin.to_string(),
            format!("{until} {}", open.expires_at),
        ]
    });
    grid(
        ["UNRESOLVED", "STATE", "AMOUNT", "SELLER", ""],
        &[],
        rows,
        columns,
    )
}

fn budget(findings: &[LimitStatus], columns: Option<u16>) -> String {
    let limits: Vec<&LimitStatus> = findings
        .iter()
        .filter(|finding| finding.limit.is_some())
        .collect();
    if limits.is_empty() {
        return String::new();
    }
    let rows = limits.into_iter().map(|finding| {
        let [limit, used, left] = quantities(finding);
        [excerpt(&finding.name), limit, used, left]
    });
    grid(["LIMIT", "OF", "USED", "LEFT"], &[], rows, columns)
}

/// Of a limit: how much, used, left.
pub(super) fn quantities(finding: &LimitStatus) -> [String; 3] {
    [&finding.limit, &finding.used, &finding.left].map(|quantity| {
        quantity
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default()
    })
}

/// Columns as wide as their widest cell, or narrower and broken into lines where there is no room.
fn grid<const N: usize>(
    head: [&str; N],
    numbers: &[usize],
    rows: impl Iterator<Item = [String; N]>,
    columns: Option<u16>,
) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(head.to_vec());
    if let Some(columns) = columns {
        table
            .set_width(columns)
            .set_content_arrangement(ContentArrangement::Dynamic);
    }
    for row in rows {
        table.add_row(row.to_vec());
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if numbers.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    format!("{}\n", table.trim_fmt())
}

/// The groups that a chart shows: those of which anything was spent in dollars.
pub(super) fn spending(groups: &[Group]) -> impl Iterator<Item = &Group> {
    groups
        .iter()
        .filter(|group| group.tally.spent.usd > Usd::ZERO)
}
