//! Writes a report for people: tables for a terminal, and a page with charts for a browser.

mod chart;
mod page;
mod table;

use bursar::report::{Group, Report, Sum};
use bursar::text::visible_lines;

/// The name of the sums of all groups that a report does not list.
const OTHERS: &str = "(others)";

/// Returns tables for a terminal with this number of columns. Without it, nothing is wrapped.
pub(crate) fn table(report: &Report, columns: Option<u16>) -> String {
    table::write(report, columns)
}

/// Returns one HTML page with charts. It loads nothing and runs no script.
pub(crate) fn html(report: &Report) -> String {
    visible_lines(&page::write(report)).into_owned()
}

/// Returns the name of a group for people.
fn name_of(group: &Group) -> String {
    group
        .name
        .as_deref()
        .map_or_else(|| "(none)".to_owned(), bursar::text::excerpt)
}

/// Returns the dollars of a sum: `1.25`, or `≥ 1.25` if the sum is too large to add up.
fn dollars(sum: &Sum) -> String {
    if sum.exact {
        sum.usd.to_string()
    } else {
        format!("≥ {}", sum.usd)
    }
}
