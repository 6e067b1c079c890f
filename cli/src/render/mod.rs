//! A report for people: tables for a terminal, and a page with charts for a browser.

mod chart;
mod page;
mod table;

use bursar::report::{Group, Report, Sum};

/// Returns tables for a terminal of this many columns, or as wide as their widest lines.
pub(crate) fn table(report: &Report, columns: Option<u16>) -> String {
    table::write(report, columns)
}

/// Returns one HTML page with charts. It loads nothing and runs no script.
pub(crate) fn html(report: &Report) -> String {
    page::write(report)
}

/// A group's name for people.
fn name_of(group: &Group) -> String {
    group
        .name
        .as_deref()
        .map_or_else(|| "(none)".to_owned(), bursar::excerpt)
}

/// The dollars for people: `1.25`, or `≥ 1.25` where the sum was too large to be added.
fn dollars(sum: &Sum) -> String {
    if sum.exact {
        sum.usd.to_string()
    } else {
        format!("≥ {}", sum.usd)
    }
}
