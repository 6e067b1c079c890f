//! Writes a report for people: tables for a terminal, and a page with charts for a browser.

mod chart;
mod page;
mod table;

use anstyle::Style;
use bursar::report::{Group, Report, Sum};
use bursar::text::visible_lines;

/// The name of the sums of all groups that a report does not list.
const OTHERS: &str = "(others)";

/// The colours of tables: done, open, and refused or failed.
pub(crate) struct Colours {
    pub(crate) good: Style,
    pub(crate) open: Style,
    pub(crate) bad: Style,
}

/// Returns tables for a terminal with this number of columns. Without it, nothing is wrapped. Hidden characters are escaped.
/// The limits are those of `policy`.
pub(crate) fn table(report: &Report, policy: &str, columns: Option<u16>) -> String {
    coloured_table(report, policy, columns, None)
}

/// Returns tables as [`table`] does, with colours.
pub(crate) fn coloured_table(
    report: &Report,
    policy: &str,
    columns: Option<u16>,
    colours: Option<&Colours>,
) -> String {
    let text = table::write(report, policy, columns);
    table::paint(&text, colours, |text| visible_lines(text).into_owned())
}

/// Returns one HTML page with charts. It loads nothing and runs no script.
pub(crate) fn html(report: &Report, policy: &str) -> String {
    visible_lines(&page::write(report, policy)).into_owned()
}

/// Whether a served page loads itself again.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refresh {
    /// Every so many seconds.
    Every { seconds: u32 },
    /// Not until the reader wants it.
    Paused { seconds: u32 },
}

/// Returns the page as a server shows it.
pub(crate) fn live(report: &Report, policy: &str, refresh: Refresh) -> String {
    visible_lines(&page::write_live(report, policy, Some(refresh))).into_owned()
}

/// Returns a page that tells why there is no report, and that loads itself again.
pub(crate) fn failed(message: &str, seconds: u32) -> String {
    visible_lines(&page::failed(message, seconds)).into_owned()
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
