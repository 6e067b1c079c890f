//! The books as text for other programs.

use std::io::{self, Write};

use super::Purchase;

/// Columns of the CSV export, in order.
const COLUMNS: [&str; 29] = [
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
];

/// Writes entries as CSV (RFC 4180) with a header line. Payment headers are not exported.
///
/// `claimed_transaction` is what the seller said, `verified_transaction` what the chain
/// confirmed, and `refunded` the atomic units that came back.
/// A text field that a spreadsheet would take for a formula is written with a leading apostrophe.
///
/// # Errors
/// When `out` fails.
pub fn write_csv<'a>(
    purchases: impl IntoIterator<Item = &'a Purchase>,
    mut out: impl Write,
) -> io::Result<()> {
    write!(out, "{}\r\n", COLUMNS.join(","))?;
    for entry in purchases {
        out.write_all(line(&fields(entry)).as_bytes())?;
    }
    Ok(())
}

/// Writes entries as JSON lines. Payment headers are not exported.
///
/// # Errors
/// When `out` fails.
pub fn write_jsonl<'a>(
    purchases: impl IntoIterator<Item = &'a Purchase>,
    mut out: impl Write,
) -> io::Result<()> {
    for entry in purchases {
        serde_json::to_writer(&mut out, entry)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

fn fields(entry: &Purchase) -> [String; COLUMNS.len()] {
    fn text(value: Option<impl ToString>) -> String {
        value.map(|value| value.to_string()).unwrap_or_default()
    }
    [
        entry.seq.to_string(),
        entry.reserved_at.to_string(),
        entry.updated_at.to_string(),
        entry.state.to_string(),
        entry.purchase.to_string(),
        entry.payer.to_string(),
        entry.payee.to_string(),
        entry.origin.to_string(),
        entry.method.clone(),
        entry.path.clone(),
        crate::money::format_units(entry.value, entry.decimals),
        entry.symbol.clone(),
        text(entry.usd),
        entry.network.to_string(),
        entry.asset.to_string(),
        entry.value.to_string(),
        entry.nonce.to_string(),
        text(entry.valid_before),
        text(entry.tag.as_ref()),
        text(entry.agent.as_ref()),
        text(entry.credential.as_ref()),
        text(entry.status),
        text(entry.reason.as_ref()),
        text(entry.transaction),
        text(entry.verified_transaction),
        entry.refunded().to_string(),
        text(entry.foreign_resource.as_ref()),
        entry.version.to_string(),
        entry.generation.to_string(),
    ]
}

/// One line of CSV, without anything that a spreadsheet would take for a formula.
pub(crate) fn line(fields: &[String]) -> String {
    let fields: Vec<String> = fields.iter().map(|field| quote(field)).collect();
    format!("{}\r\n", fields.join(","))
}

fn quote(field: &str) -> String {
    let guarded = if field.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        format!("'{field}")
    } else {
        field.to_owned()
    };
    if guarded.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", guarded.replace('"', "\"\""))
    } else {
        guarded
    }
}
