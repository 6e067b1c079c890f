//! A report as CSV.

use super::{Report, Sum, Tally};
use crate::ledger::csv_line;

const HEAD: [&str; 21] = [
    "by",
    "name",
    "spent",
    "spent_usd",
    "paid",
    "paid_usd",
    "called",
    "called_usd",
    "outstanding",
    "outstanding_usd",
    "expired",
    "expired_usd",
    "refused",
    "refused_usd",
    "failed",
    "failed_usd",
    "refunded_usd",
    "released_usd",
    "unpriced",
    "exact",
    "tokens",
];

pub(super) fn write(report: &Report) -> String {
    let groups = report.sections.iter().flat_map(|section| {
        let by = section.by.name();
        let groups = section.groups.iter();
        let groups = groups.map(move |group| fields(by, group.name.as_deref(), &group.tally));
        let others = section.others.iter();
        groups.chain(others.map(move |others| fields("others", Some(by), others)))
    });
    let head = HEAD.map(ToOwned::to_owned);
    let total = fields("total", None, &report.total);
    [head, total]
        .into_iter()
        .chain(groups)
        .map(|fields| csv_line(&fields))
        .collect()
}

fn fields(by: &str, name: Option<&str>, tally: &Tally) -> [String; HEAD.len()] {
    let count = |sum: &Sum| sum.count.to_string();
    let usd = |sum: &Sum| sum.usd.to_string();
    let tokens: Vec<String> = tally
        .spent
        .tokens
        .values()
        .map(ToString::to_string)
        .collect();
    [
        by.to_owned(),
        name.unwrap_or_default().to_owned(),
        count(&tally.spent),
        usd(&tally.spent),
        count(&tally.paid),
        usd(&tally.paid),
        count(&tally.called),
        usd(&tally.called),
        count(&tally.outstanding),
        usd(&tally.outstanding),
        count(&tally.expired),
        usd(&tally.expired),
        count(&tally.refused),
        usd(&tally.refused),
        count(&tally.failed),
        usd(&tally.failed),
        usd(&tally.refunded),
        usd(&tally.released),
        tally.spent.unpriced.to_string(),
        tally.spent.exact.to_string(),
        tokens.join("; "),
    ]
}
