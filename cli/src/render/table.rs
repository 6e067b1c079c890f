//! Writes a report as tables for a terminal.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};

use bursar::Usd;
use bursar::ledger::State;
use bursar::policy::LimitStatus;
use bursar::report::{Group, Report, Section, Sum, Tally};
use bursar::text::excerpt;

use super::{Colours, OTHERS, dollars, name_of};
/// The characters that begin a cell of a colour, and the one that ends it. They have no width, so that the tables keep their
/// form, and no text of a stranger has them: it has been escaped.
const GOOD: char = '\u{2061}';
const OPEN: char = '\u{2062}';
const BAD: char = '\u{2063}';
const END: char = '\u{2064}';
/// The space between two columns. A cell that was wrapped ends there.
const GAP: &str = "  ";

/// Returns a cell in a colour. An empty cell has none.
fn painted(mark: char, cell: String) -> String {
    if cell.is_empty() {
        return cell;
    }
    format!("{mark}{cell}{END}")
}

/// Replaces the marks of the colours by the codes of a terminal, or removes them without `styles`. `visible` escapes all other
/// characters that cannot be seen.
pub(super) fn paint(
    text: &str,
    styles: Option<&Colours>,
    visible: impl Fn(&str) -> String,
) -> String {
    let is_mark = |character: &char| (GOOD..=END).contains(character);
    let mut painted = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        for part in line.split_inclusive(END) {
            let mark = styles.and_then(|styles| {
                let marks = [(GOOD, styles.good), (OPEN, styles.open), (BAD, styles.bad)];
                let found = marks.map(|(mark, style)| Some((part.find(mark)?, style)));
                found.into_iter().flatten().min_by_key(|(at, _)| *at)
            });
            let plain = |text: &str| visible(&text.replace(|c: char| is_mark(&c), ""));
            let Some((at, style)) = mark else {
                painted.push_str(&plain(part));
                continue;
            };
            let (before, cell) = part.split_at(at);
            let end = cell.find(GAP).unwrap_or(cell.trim_end_matches('\n').len());
            let (cell, after) = cell.split_at(end);
            let (before, cell, after) = (plain(before), plain(cell), plain(after));
            painted.push_str(&format!("{before}{style}{cell}{style:#}{after}"));
        }
    }
    painted
}

/// Returns the mark of a state in the list of unresolved purchases.
fn of_state(state: State) -> char {
    match state {
        State::Settled => GOOD,
        State::Rejected => BAD,
        _ => OPEN,
    }
}

pub(super) fn write(report: &Report, policy: &str, columns: Option<u16>) -> String {
    let about = format!(
        "{}, in days of {}, as of {}\n",
        report.selection,
        report.selection.zone_of_days(),
        report.at
    );
    let sections = report
        .sections
        .iter()
        .filter(|section| has_names(section))
        .map(|section| by(section, columns));
    let parts = [about, parts(&report.total, columns)]
        .into_iter()
        .chain(sections);
    let parts = parts.chain([
        unresolved(report, columns),
        denied(report, columns),
        budget(&report.budget, policy, columns),
    ]);
    parts
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("\n")
}

/// Returns true if a section has names, and not only the total.
pub(super) fn has_names(section: &Section) -> bool {
    section.groups.iter().any(|group| group.name.is_some())
}

/// One sum of a tally.
pub(super) struct Part<'a> {
    /// The name of the sum in JSON.
    pub(super) key: &'static str,
    /// The name of the sum for people.
    pub(super) label: &'static str,
    pub(super) sum: &'a Sum,
}

/// Returns the sums of a tally.
pub(super) fn sums(tally: &Tally) -> [Part<'_>; 11] {
    let part = |key, label, sum| Part { key, label, sum };
    [
        part("spent", "spent", &tally.spent),
        part("paid", "paid", &tally.paid),
        part("called", "API calls", &tally.called),
        part("outstanding", "outstanding", &tally.outstanding),
        part("expired", "expired", &tally.expired),
        part("held", "reserved", &tally.held),
        part("refused", "rejected by the seller", &tally.refused),
        part("failed", "failed", &tally.failed),
        part("refunded", "refunded", &tally.refunded),
        part("released", "released by proof", &tally.released),
        part("freed", "voided", &tally.freed),
    ]
}

/// Returns the amount of each token in a sum.
pub(super) fn tokens(sum: &Sum) -> String {
    sum.tokens
        .values()
        .map(|token| excerpt(&token.to_string()))
        .collect::<Vec<_>>()
        .join(", ")
}

fn parts(tally: &Tally, columns: Option<u16>) -> String {
    let rows = sums(tally).into_iter().enumerate();
    let rows = rows.filter(|(order, part)| *order < 2 || part.sum.count > 0);
    let rows = rows.map(|(_, part)| {
        let label = part.label.to_owned();
        let label = match part.key {
            _ if part.sum.count == 0 => label,
            "paid" => painted(GOOD, label),
            "outstanding" | "expired" => painted(OPEN, label),
            "refused" | "failed" => painted(BAD, label),
            _ => label,
        };
        [
            label,
            part.sum.count.to_string(),
            dollars(part.sum),
            tokens(part.sum),
        ]
    });
    grid(["", "COUNT", "USD", "TOKENS"], &[1, 2], rows, columns)
}

fn by(section: &Section, columns: Option<u16>) -> String {
    let name = section.by.name().to_uppercase();
    let groups = section.groups.iter();
    let groups = groups.map(|group| (name_of(group), &group.tally));
    let others = section.others.iter();
    let rows = groups.chain(others.map(|others| (OTHERS.to_owned(), others)));
    let rows = rows.map(|(name, tally)| {
        let open = tally.outstanding.count.saturating_add(tally.expired.count);
        [
            name,
            tally.spent.count.to_string(),
            dollars(&tally.spent),
            painted(OPEN, blank(open)),
            painted(BAD, blank(tally.refused.count)),
            painted(BAD, blank(tally.failed.count)),
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
            "REJECTED",
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
            "valid until"
        } else {
            "expired at"
        };
        [
            open.purchase.to_string(),
            painted(of_state(open.state), open.state.to_string()),
            excerpt(&open.amount),
            open.origin.to_string(),
            format!("{until} {}", open.expires_at),
        ]
    });
    let mut text = grid(
        ["UNRESOLVED", "STATE", "AMOUNT", "SELLER", ""],
        &[],
        rows,
        columns,
    );
    if report.more_unresolved > 0 {
        text.push_str(&format!("and {} more\n", report.more_unresolved));
    }
    text
}

fn denied(report: &Report, columns: Option<u16>) -> String {
    const ROWS: usize = 50;
    if report.denials.is_empty() {
        return String::new();
    }
    let rows = report.denials.iter().take(ROWS).map(|denials| {
        [
            painted(BAD, denials.rule.to_string()),
            denials
                .host
                .as_deref()
                .map_or_else(|| OTHERS.to_owned(), excerpt),
            denials.count.to_string(),
            denials.last_at.to_string(),
            excerpt(&denials.message),
        ]
    });
    let head = ["DENIED", "HOST", "COUNT", "LAST", "LAST REASON"];
    let mut text = grid(head, &[2], rows, columns);
    let more = report.denials.len().saturating_sub(ROWS);
    if more > 0 {
        text.push_str(&format!("and {more} more\n"));
    }
    text
}

fn budget(findings: &[LimitStatus], policy: &str, columns: Option<u16>) -> String {
    let limits: Vec<&LimitStatus> = findings
        .iter()
        .filter(|finding| finding.limit.is_some())
        .collect();
    if limits.is_empty() {
        return String::new();
    }
    let rows = limits.into_iter().map(|finding| {
        let [limit, used, left] = quantities(finding);
        let used = match finding.used_per_mille() {
            Some(1000..) => painted(BAD, used),
            Some(800..) => painted(OPEN, used),
            _ => used,
        };
        [excerpt(&finding.name), limit, used, left]
    });
    let table = grid(["LIMIT", "OF", "USED", "LEFT"], &[], rows, columns);
    format!("limits: {policy}\n{table}")
}

/// Returns the limit, the used and the remaining amount.
pub(super) fn quantities(finding: &LimitStatus) -> [String; 3] {
    [&finding.limit, &finding.used, &finding.left].map(|quantity| {
        quantity
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default()
    })
}

/// Returns a table whose columns are as wide as their widest cells, or narrower with wrapped lines.
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

/// Returns the groups with an amount in dollars, which a chart can show.
pub(super) fn spending(groups: &[Group]) -> impl Iterator<Item = &Group> {
    groups
        .iter()
        .filter(|group| group.tally.spent.usd > Usd::ZERO)
}
