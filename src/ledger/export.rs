//! Export of purchases for other programs: CSV and JSON lines.

use std::io::{self, Write};

use super::Purchase;
use crate::text::{json, visible};

/// The characters that can begin a formula, also full-width and small.
const FORMULAS: &str = "=+-@＝＋－＠﹦﹢﹣﹫−";

/// The columns of the CSV export, in order.
const COLUMNS: [&str; 32] = [
    "seq",
    "reserved_at",
    "updated_at",
    "state",
    "purchase",
    "payer",
    "payee",
    "origin",
    "method",
    "path",
    "amount",
    "symbol",
    "usd",
    "network",
    "asset",
    "value",
    "nonce",
    "valid_before",
    "tag",
    "agent",
    "credential",
    "status",
    "reason",
    "claimed_transaction",
    "verified_transaction",
    "refunded",
    "foreign_resource",
    "version",
    "generation",
    "payment_method",
    "claimed_charge",
    "verified_charge",
];

/// Writes purchases as CSV (RFC 4180) with a header line.
///
/// `claimed_transaction` is the seller's claim. `verified_transaction` was confirmed on the chain.
/// `value`, `refunded` and the two charges are in atomic units of the token. The charges are those of `upto` payments. Payment headers are not exported. A
/// field that a spreadsheet would read as a formula begins with an apostrophe. Hidden characters are escaped, as
/// [`visible`](crate::text::visible) does it.
///
/// # Errors
/// Returns the error of `out`.
///
/// ```
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use bursar::Ledger;
/// use bursar::ledger::{Filter, write_csv};
///
/// let ledger = Ledger::memory();
/// let purchases = ledger.purchases(&Filter::all()).await?;
/// write_csv(&purchases, std::io::stdout())?;
/// # Ok(())
/// # }
/// ```
pub fn write_csv<'a>(
    purchases: impl IntoIterator<Item = &'a Purchase>,
    mut out: impl Write,
) -> io::Result<()> {
    write!(out, "{}\r\n", COLUMNS.join(","))?;
    write_csv_rows(purchases, out)
}

/// Writes purchases as CSV without the header line. Use it after [`write_csv`] for the next
/// [pages](super::Ledger::pages).
///
/// # Errors
/// Returns the error of `out`.
///
/// ```
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use bursar::ledger::{Filter, write_csv, write_csv_rows};
/// use bursar::Ledger;
///
/// write_csv([], std::io::stdout())?;
/// let mut pages = Ledger::memory().pages(&Filter::all());
/// while let Some(purchases) = pages.next().await? {
///     write_csv_rows(&purchases, std::io::stdout())?;
/// }
/// # Ok(())
/// # }
/// ```
pub fn write_csv_rows<'a>(
    purchases: impl IntoIterator<Item = &'a Purchase>,
    mut out: impl Write,
) -> io::Result<()> {
    for purchase in purchases {
        out.write_all(line(&fields(purchase)).as_bytes())?;
    }
    Ok(())
}

/// Writes purchases as JSON, one object per line. Payment headers are not exported. Hidden characters are escaped, as
/// [`json`](crate::text::json()) does it.
///
/// # Errors
/// Returns the error of `out`.
pub fn write_jsonl<'a>(
    purchases: impl IntoIterator<Item = &'a Purchase>,
    mut out: impl Write,
) -> io::Result<()> {
    for purchase in purchases {
        writeln!(out, "{}", json(purchase)?)?;
    }
    Ok(())
}

fn fields(purchase: &Purchase) -> [String; COLUMNS.len()] {
    fn text(value: Option<impl ToString>) -> String {
        value.map(|value| value.to_string()).unwrap_or_default()
    }
    [
        purchase.seq.to_string(),
        purchase.reserved_at.to_string(),
        purchase.updated_at.to_string(),
        purchase.state.to_string(),
        purchase.id.to_string(),
        purchase.payer.to_string(),
        purchase.payee.to_string(),
        purchase.origin.to_string(),
        purchase.method.clone(),
        purchase.path.clone(),
        crate::money::format_units(purchase.value, purchase.decimals),
        purchase.symbol.clone(),
        text(purchase.usd),
        purchase.network.to_string(),
        purchase.asset.to_string(),
        purchase.value.to_string(),
        purchase.nonce.to_string(),
        text(purchase.valid_before),
        text(purchase.tag.as_ref()),
        text(purchase.agent.as_ref()),
        text(purchase.credential.as_ref()),
        text(purchase.status),
        text(purchase.reason.as_ref()),
        text(purchase.transaction),
        text(purchase.verified_transaction),
        purchase.refunded().to_string(),
        text(purchase.foreign_resource.as_ref()),
        purchase.version.to_string(),
        purchase.generation.to_string(),
        text(purchase.payment_method),
        text(purchase.claimed_charge),
        text(purchase.verified_charge),
    ]
}

/// Returns one line of CSV in which no field is a formula for a spreadsheet.
pub(crate) fn line(fields: &[String]) -> String {
    let fields: Vec<String> = fields.iter().map(|field| quote(field)).collect();
    format!("{}\r\n", fields.join(","))
}

/// Escapes hidden characters, and puts an apostrophe before each character that can begin a formula: at the beginning, and
/// after a semicolon or a bar, at which some spreadsheets split a line too.
fn quote(field: &str) -> String {
    let (mut guarded, mut begins) = (String::with_capacity(field.len()), true);
    for character in visible(field).chars() {
        if begins && FORMULAS.contains(character) {
            guarded.push('\'');
        }
        guarded.push(character);
        begins =
            matches!(character, ';' | '|') || (begins && matches!(character, ' ' | '"' | '\''));
    }
    if guarded.contains([',', '"', ';', '|']) {
        format!("\"{}\"", guarded.replace('"', "\"\""))
    } else {
        guarded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_is_a_formula_in_any_spreadsheet() {
        for (field, cell) in [
            ("plain, text", "\"plain, text\""),
            ("=1+1", "'=1+1"),
            ("＝1", "'＝1"),
            ("＋1", "'＋1"),
            ("－1", "'－1"),
            ("＠x", "'＠x"),
            ("﹦1", "'﹦1"),
            ("  @x", "  '@x"),
            ("\"=1", "\"\"\"'=1\""),
            ("'=1", "''=1"),
            ("\t=1", "\\u{9}=1"),
            ("\r\n=1", "\\u{d}\\u{a}=1"),
            ("\u{feff}=1", "\\u{feff}=1"),
            ("\u{a0}=1", "\\u{a0}=1"),
            ("a;=1", "\"a;'=1\""),
            ("a|-1", "\"a|'-1\""),
            ("a=1", "a=1"),
            ("2026-11-26", "2026-11-26"),
        ] {
            assert_eq!(quote(field), cell, "{field}");
        }
    }
}
