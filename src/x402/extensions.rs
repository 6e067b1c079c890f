//! The extensions of a payment: those of the seller, with bursar's additions.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::eip3009::Signature;
use crate::money::checksummed;
use crate::permit2::TokenPermit;

/// A seller's declared extensions, and the identifier for a seller that asks for one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extensions<'a> {
    pub(crate) declared: &'a RawValue,
    pub(crate) added: Additions<'a>,
}

/// The facts that bursar adds to extensions that the seller declared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Additions<'a> {
    /// The value of `payment-identifier.info.id`: 16 to 128 characters of `[A-Za-z0-9_-]`.
    pub(crate) identifier: &'a str,
    pub(crate) sponsored: Option<&'a Sponsored>,
}

/// The signed approval of `eip2612GasSponsoring`.
pub(crate) struct Sponsored([(&'static str, String); 7]);

impl Sponsored {
    pub(crate) fn new(permit: &TokenPermit, signature: &Signature) -> Self {
        Self([
            ("from", checksummed(permit.owner())),
            ("asset", checksummed(permit.asset().address())),
            ("spender", checksummed(permit.spender())),
            ("amount", permit.value().to_string()),
            ("nonce", permit.nonce().to_string()),
            ("deadline", permit.deadline().to_string()),
            ("signature", signature.to_hex()),
        ])
    }
}

/// The signature is not shown.
impl fmt::Debug for Sponsored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sponsored")
    }
}

pub(super) const EIP2612_SPONSORING: &str = "eip2612GasSponsoring";
const PAYMENT_IDENTIFIER: &str = "payment-identifier";

/// Repeats the declared extensions byte for byte, except where bursar adds the identifier. A server
/// refuses a payment if a field of its own `info` was changed or removed.
impl Serialize for Extensions<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.extended() {
            Some(extended) => extended.serialize(serializer),
            None => self.declared.serialize(serializer),
        }
    }
}

impl Extensions<'_> {
    fn extended(&self) -> Option<BTreeMap<String, Box<RawValue>>> {
        let mut all: BTreeMap<String, Box<RawValue>> =
            serde_json::from_str(self.declared.get()).ok()?;
        let identifier = [("id", self.added.identifier.to_owned())];
        let identified = add(&mut all, PAYMENT_IDENTIFIER, &identifier).is_some();
        let sponsored = self.added.sponsored;
        let sponsored = sponsored.and_then(|Sponsored(fields)| {
            add(&mut all, EIP2612_SPONSORING, fields)?;
            add(&mut all, EIP2612_SPONSORING, &[("version", "1".to_owned())])
        });
        (identified || sponsored.is_some()).then_some(all)
    }
}

/// Adds fields to the `info` of an extension that the seller declared.
fn add(
    all: &mut BTreeMap<String, Box<RawValue>>,
    name: &str,
    fields: &[(&str, String)],
) -> Option<()> {
    let declared = all.get(name)?;
    let mut extension: Map<String, Value> = serde_json::from_str(declared.get()).ok()?;
    let info = extension
        .entry("info")
        .or_insert_with(|| Value::Object(Map::new()))
        .as_object_mut()?;
    for (field, text) in fields {
        info.insert((*field).to_owned(), Value::String(text.clone()));
    }
    let raw = serde_json::value::to_raw_value(&extension).ok()?;
    all.insert(name.to_owned(), raw);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(declared: &str) -> String {
        let declared: &RawValue = serde_json::from_str(declared).unwrap();
        serde_json::to_string(&Extensions {
            declared,
            added: Additions {
                identifier: "pay_0123456789abcdef",
                sponsored: None,
            },
        })
        .unwrap()
    }

    #[test]
    fn unknown_extensions_are_repeated_byte_for_byte() {
        let declared = r#"{"b": {"info": {"n": 1.00}},"a":{}}"#;
        assert_eq!(sent(declared), declared);
    }

    #[test]
    fn a_declared_payment_identifier_gets_an_id_and_keeps_its_fields() {
        let declared = r#"{"x":{"info":{"n":1.00}},"payment-identifier":{"info":{"required":true},"schema":{"type":"object"}}}"#;
        let sent = sent(declared);
        assert!(sent.contains(r#""x":{"info":{"n":1.00}}"#), "{sent}");
        let value: Value = serde_json::from_str(&sent).unwrap();
        assert_eq!(
            value["payment-identifier"]["info"]["id"],
            "pay_0123456789abcdef"
        );
        assert_eq!(value["payment-identifier"]["info"]["required"], true);
        assert_eq!(value["payment-identifier"]["schema"]["type"], "object");
    }
}
