//! The extensions of a payment: those of the seller, with bursar's additions.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// A seller's declared extensions, and the identifier for a seller that asks for one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extensions<'a> {
    pub(crate) declared: &'a RawValue,
    /// The value of `payment-identifier.info.id`: 16 to 128 characters of `[A-Za-z0-9_-]`.
    pub(crate) identifier: &'a str,
}

const PAYMENT_IDENTIFIER: &str = "payment-identifier";

/// Repeats the declared extensions byte for byte, except where bursar adds the identifier. A server
/// refuses a payment if a field of its own `info` was changed or removed.
impl Serialize for Extensions<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.with_identifier() {
            Some(extended) => extended.serialize(serializer),
            None => self.declared.serialize(serializer),
        }
    }
}

impl Extensions<'_> {
    fn with_identifier(&self) -> Option<BTreeMap<String, Box<RawValue>>> {
        let mut all: BTreeMap<String, Box<RawValue>> =
            serde_json::from_str(self.declared.get()).ok()?;
        let declared = all.get(PAYMENT_IDENTIFIER)?;
        let mut extension: Map<String, Value> = serde_json::from_str(declared.get()).ok()?;
        let info = extension
            .entry("info")
            .or_insert_with(|| Value::Object(Map::new()))
            .as_object_mut()?;
        info.insert("id".to_owned(), Value::String(self.identifier.to_owned()));
        let raw = serde_json::value::to_raw_value(&extension).ok()?;
        all.insert(PAYMENT_IDENTIFIER.to_owned(), raw);
        Some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(declared: &str) -> String {
        let declared: &RawValue = serde_json::from_str(declared).unwrap();
        serde_json::to_string(&Extensions {
            declared,
            identifier: "pay_0123456789abcdef",
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
