//! Writes a report as one HTML page. Strangers choose the names in it: maud escapes all of them, and the content
//! security policy forbids scripts and loading.

use bursar::policy::LimitStatus;
use bursar::report::{Dimension, Group, Report, Section, Sum, Tally};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::chart::{self, DAYS, NAMES, NARROW, WIDE};
use super::table::{has_names, quantities, sums, tokens};
use super::{OTHERS, Refresh, dollars, name_of};

const STYLE: &str = include_str!("page.css");
/// The most rows of a table. A browser is slow with more, and people do not read them.
const ROWS: usize = 500;
/// The steps of a meter.
const WHOLE: u32 = 1000;
const SECURITY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

pub(super) fn write(report: &Report, policy: &str) -> String {
    write_live(report, policy, None)
}

pub(super) fn write_live(report: &Report, policy: &str, refresh: Option<Refresh>) -> String {
    let about = report.selection.to_string();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            (head(&format!("Spending: {about}"), refresh))
            body {
                header {
                    h1 { "Spending" }
                    p { (about) ", in days of " (report.selection.zone_of_days()) ", as of "
                        time datetime=(report.at) { (report.at) } "." }
                    (refreshing(refresh))
                }
                main {
                    (cards(report))
                    (budget(&report.budget, policy))
                    @for section in report.sections.iter().filter(|section| has_names(section)) { (by(section)) }
                    (unresolved(report))
                    (denied(report))
                    (parts(report))
                }
                footer { p { "Written by " code { "bursar report" } " from the ledger. Amounts are in US dollars unless a token \
                    is named. Each purchase is rounded up to the micro-dollar. This page loads nothing and runs no script." } }
            }
        }
    };
    page.into_string()
}

/// Returns a page that tells why there is no report.
pub(super) fn failed(message: &str, seconds: u32) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            (head("Spending: no report", Some(Refresh::Every { seconds })))
            body {
                header { h1 { "No report" } }
                main { section { p { (message) } p { "The page tries again every " (seconds) " s." } } }
            }
        }
    };
    page.into_string()
}

fn head(title: &str, refresh: Option<Refresh>) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta http-equiv="Content-Security-Policy" content=(SECURITY);
            @if let Some(Refresh::Every { seconds }) = refresh {
                meta http-equiv="refresh" content=(format!("{seconds};url=/"));
            }
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            meta name="generator" content="bursar report";
            title { (title) }
            style { (PreEscaped(STYLE)) }
        }
    }
}

/// Says whether the page refreshes itself, with a link that changes it.
fn refreshing(refresh: Option<Refresh>) -> Markup {
    html! {
        @match refresh {
            Some(Refresh::Every { seconds }) => {
                p { "This page refreshes every " (seconds) " s. " a href="/?refresh=off" { "Stop refreshing" } }
            }
            Some(Refresh::Paused { seconds }) => {
                p { "This page does not refresh. " a href="/" { "Refresh every " (seconds) " s" } }
            }
            None => {}
        }
    }
}

/// The payments that the policy denied.
fn denied(report: &Report) -> Markup {
    html! {
        @if !report.denials.is_empty() {
            section aria-labelledby="denied-heading" {
                h2 id="denied-heading" { "Denied payments" }
                p { "The policy refused these. Nothing was signed." }
                div class="scroll" role="region" tabindex="0" aria-labelledby="denied-heading" {
                    table {
                        thead { tr {
                            th scope="col" { "Rule" }
                            th scope="col" { "Host" }
                            th scope="col" class="number" { "Count" }
                            @for head in ["First", "Last", "Last reason"] { th scope="col" { (head) } }
                        } }
                        tbody { @for denials in report.denials.iter().take(ROWS) {
                            @let host = denials.host.as_deref().unwrap_or(OTHERS);
                            tr {
                                th scope="row" { (denials.rule) }
                                td { (host) }
                                td class="number" {
                                    (figure(&format!("denied/{}/{host}", denials.rule), &denials.count.to_string()))
                                }
                                td class="time" { (denials.first_at) }
                                td class="time" { (denials.last_at) }
                                td class="reason" { (denials.message) }
                            }
                        } }
                    }
                }
                (more(report.denials.len()))
            }
        }
    }
}

/// Returns a number with its name in `data-figure`, by which a test finds it.
fn figure(name: &str, value: &str) -> Markup {
    html! { span class="figure" data-figure=(name) { (value) } }
}

fn money(name: &str, sum: &Sum) -> Markup {
    html! { (figure(&format!("{name}.usd"), &dollars(sum))) }
}

/// Returns a cell with an amount. An amount of zero has a softer colour.
fn money_cell(name: &str, sum: &Sum) -> Markup {
    html! { td class={ "number" @if sum.count == 0 { " zero" } } { (money(name, sum)) } }
}

fn count_cell(name: &str, count: u64) -> Markup {
    html! {
        td class={ "number" @if count == 0 { " zero" } } { (figure(&format!("{name}.count"), &count.to_string())) }
    }
}

fn cards(report: &Report) -> Markup {
    let total = &report.total;
    let cards = [
        (
            "Spent",
            "spent",
            &total.spent,
            "payments, API calls, and unresolved payments",
        ),
        (
            "Outstanding",
            "outstanding",
            &total.outstanding,
            "unresolved, and the seller can still take it",
        ),
        (
            "Rejected",
            "refused",
            &total.refused,
            "signed, and the seller refused the payment",
        ),
        (
            "Failed",
            "failed",
            &total.failed,
            "paid or perhaps paid, but not delivered",
        ),
        (
            "Refunded",
            "refunded",
            &total.refunded,
            "returned money; not subtracted from the spent amount",
        ),
    ];
    html! {
        section aria-label="Totals" {
            dl class="cards" {
                @for (title, key, sum, meaning) in cards {
                    div class=(key) {
                        dt { (title) }
                        dd class="amount" { (money(&format!("card.{key}"), sum)) " " span class="unit" { "USD" } }
                        dd class="note" { (sum.count) @if sum.count == 1 { " call; " } @else { " calls; " } (meaning) }
                    }
                }
            }
            @if total.spent.unpriced > 0 {
                p { (total.spent.unpriced) " of them have a token without a dollar value: see " a href="#parts" { "all sums" } "." }
            }
            @if total.spent.count == 0 { p class="empty" { "Nothing was spent in this selection." } }
        }
    }
}

/// Returns the title of a section, and the heading of its names.
const fn titles(by: Dimension) -> (&'static str, &'static str) {
    match by {
        Dimension::Day => ("By day", "Day"),
        Dimension::Host => ("By host", "Host"),
        Dimension::Payee => ("By payee", "Payee"),
        Dimension::Tag => ("By tag", "Tag"),
        Dimension::Agent => ("By agent", "Agent"),
        Dimension::Means => ("By kind of payment", "Kind"),
        _ => ("By another property", "Name"),
    }
}

fn by(section: &Section) -> Markup {
    let (name, (title, head_of_names)) = (section.by.name(), titles(section.by));
    // The latest day comes first.
    let mut groups: Vec<&Group> = section.groups.iter().collect();
    if section.by == Dimension::Day {
        groups.reverse();
    }
    html! {
        section aria-labelledby=(format!("{name}-heading")) {
            h2 id=(format!("{name}-heading")) { (title) }
            (drawn(section, title))
            div class="scroll" role="region" tabindex="0" aria-labelledby=(format!("{name}-heading")) {
                table {
                    thead { tr {
                        th scope="col" { (head_of_names) }
                        @for head in ["Calls", "USD", "Unresolved", "Rejected", "Failed", "Refunded"] {
                            th scope="col" class="number" { (head) }
                        }
                    } }
                    tbody {
                        @for group in groups.iter().take(ROWS) {
                            (row(name, group.name.as_deref().unwrap_or_default(), &name_of(group), &group.tally))
                        }
                        @if let Some(others) = &section.others { (row(name, OTHERS, OTHERS, others)) }
                    }
                }
            }
            (more(groups.len()))
        }
    }
}

/// Says how many rows of a table are left out.
fn more(rows: usize) -> Markup {
    html! {
        @if rows > ROWS {
            p { "and " (rows.saturating_sub(ROWS)) " more: see " code { "bursar report --format csv" } "." }
        }
    }
}

fn row(by: &str, key: &str, title: &str, tally: &Tally) -> Markup {
    let name = format!("{by}/{key}");
    let open = tally.outstanding.count.saturating_add(tally.expired.count);
    html! {
        tr {
            th scope="row" { (title) }
            (count_cell(&format!("{name}/spent"), tally.spent.count))
            (money_cell(&format!("{name}/spent"), &tally.spent))
            (count_cell(&format!("{name}/unresolved"), open))
            (count_cell(&format!("{name}/refused"), tally.refused.count))
            (count_cell(&format!("{name}/failed"), tally.failed.count))
            (money_cell(&format!("{name}/refunded"), &tally.refunded))
        }
    }
}

/// Draws the chart in two widths. The style sheet shows one of them.
fn drawn(section: &Section, title: &str) -> Markup {
    let (name, groups) = (section.by.name(), &section.groups);
    let draw = |size| match section.by {
        Dimension::Day => chart::days(groups, size),
        _ => chart::ranking(groups, size),
    };
    let (Some(wide), Some(narrow)) = (draw(WIDE), draw(NARROW)) else {
        return html! {};
    };
    let title = format!("Spending {}", title.to_lowercase());
    let most = groups.iter().max_by_key(|group| group.tally.spent.usd);
    let most = most.map(|most| {
        format!(
            "Largest: {}, {} USD. ",
            name_of(most),
            dollars(&most.tally.spent)
        )
    });
    let description = format!(
        "{}The table below contains all numbers.",
        most.unwrap_or_default()
    );
    let (shown, of, order) = match section.by {
        Dimension::Day => (DAYS, chart::span(groups), "last"),
        _ => (NAMES, groups.len(), "first"),
    };
    html! {
        figure {
            div class="wide" { (PreEscaped(chart::described(&wide, &format!("{name}-wide"), &title, &description))) }
            div class="narrow" { (PreEscaped(chart::described(&narrow, &format!("{name}-narrow"), &title, &description))) }
            figcaption {
                span class="key certain" {} "payments and API calls" " "
                span class="key open" {} "unresolved" ", USD"
                @if of > shown { "; the " (order) " " (shown) " of " (of) }
            }
        }
    }
}

fn unresolved(report: &Report) -> Markup {
    let listed = u64::try_from(report.unresolved.len()).unwrap_or(u64::MAX);
    let open = usize::try_from(listed.saturating_add(report.more_unresolved)).unwrap_or(usize::MAX);
    html! {
        @if !report.unresolved.is_empty() {
            section aria-labelledby="unresolved-heading" {
                h2 id="unresolved-heading" { "Unresolved payments" }
                p { "Run " code { "bursar ledger reconcile" } " to ask the chain for their results." }
                div class="scroll" role="region" tabindex="0" aria-labelledby="unresolved-heading" {
                    table {
                        thead { tr { @for head in ["Purchase", "State", "Amount", "Seller", "Reserved", "Validity"] {
                            th scope="col" { (head) }
                        } } }
                        tbody { @for open in report.unresolved.iter().take(ROWS) { tr {
                            th scope="row" { code { (open.purchase) } }
                            td { (open.state) }
                            td { (open.amount) }
                            td { (open.origin) }
                            td class="time" { (open.reserved_at) }
                            td class="time" { @if open.outstanding { "valid until " } @else { "expired at " } (open.expires_at) }
                        } } }
                    }
                }
                @if open > ROWS { p { "and " (open.saturating_sub(ROWS)) " more" } }
            }
        }
    }
}

fn budget(findings: &[LimitStatus], policy: &str) -> Markup {
    let limits: Vec<&LimitStatus> = findings
        .iter()
        .filter(|finding| finding.limit.is_some())
        .collect();
    html! {
        @if !limits.is_empty() {
            section aria-labelledby="budget-heading" {
                h2 id="budget-heading" { "Limits" }
                p { "Of " (policy) "." }
                div class="scroll" role="region" tabindex="0" aria-labelledby="budget-heading" {
                    table {
                        thead { tr {
                            th scope="col" { "Name" }
                            th scope="col" { "Share" }
                            @for head in ["Limit", "Used", "Left"] { th scope="col" class="number" { (head) } }
                        } }
                        tbody { @for finding in limits {
                            @let [limit, used, left] = quantities(finding);
                            tr {
                                th scope="row" { (finding.name) }
                                td { meter min="0" max=(WHOLE) value=(finding.used_per_mille().unwrap_or_default()) aria-label=(format!("{used} of {limit}")) {} }
                                td class="number" { (limit) }
                                td class="number" { (figure(&format!("budget/{}/used", finding.name), &used)) }
                                td class="number" { (figure(&format!("budget/{}/left", finding.name), &left)) }
                            }
                        } }
                    }
                }
            }
        }
    }
}

fn parts(report: &Report) -> Markup {
    html! {
        section aria-labelledby="parts" {
            h2 id="parts" { "All sums" }
            div class="scroll" role="region" tabindex="0" aria-labelledby="parts" {
                table {
                    thead { tr {
                        th scope="col" { "Outcome" }
                        th scope="col" class="number" { "Calls" }
                        th scope="col" class="number" { "USD" }
                        th scope="col" { "Tokens" }
                    } }
                    tbody { @for part in sums(&report.total) { tr {
                        th scope="row" { (part.label) }
                        (count_cell(&format!("total/{}", part.key), part.sum.count))
                        (money_cell(&format!("total/{}", part.key), part.sum))
                        td class="tokens" { (tokens(part.sum)) }
                    } } }
                }
            }
        }
    }
}
