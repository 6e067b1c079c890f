//! The extensions of a payment: those of the seller, with bursar's additions.

use std::collections::BTreeMap;
use std::fmt;

use alloy::primitives::{Address, U256, hex};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::eip3009::Signature;
use crate::money::{Asset, checksummed};
use crate::permit2::{Approval, PERMIT2, TokenPermit};

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

/// A signed approval of Permit2 that the seller's facilitator sends.
pub(crate) struct Sponsored {
    by: Sponsor,
    fields: Vec<(&'static str, String)>,
}

/// The extensions with which a facilitator pays the gas of an approval.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sponsor {
    /// By a permit of the token (EIP-2612).
    Permit,
    /// By a transaction of the wallet.
    Transaction,
}

impl Sponsor {
    const fn extension(self) -> &'static str {
        match self {
            Self::Permit => "eip2612GasSponsoring",
            Self::Transaction => "erc20ApprovalGasSponsoring",
        }
    }

    /// Returns whether the seller declared the extension.
    pub(super) fn is_declared(self, declared: &RawValue) -> bool {
        let declared: Option<Map<String, Value>> = serde_json::from_str(declared.get()).ok();
        let extension = declared.and_then(|mut all| all.remove(self.extension()));
        extension.is_some_and(|extension| extension.get("info").is_some_and(Value::is_object))
    }
}

impl Sponsored {
    pub(crate) fn permit(permit: &TokenPermit, signature: &Signature) -> Self {
        let own = [
            ("nonce", permit.nonce().to_string()),
            ("deadline", permit.deadline().to_string()),
            ("signature", signature.to_hex()),
        ];
        let amount = (permit.asset(), permit.value());
        Self::new(Sponsor::Permit, permit.owner(), amount, own)
    }

    /// The approval of `owner`. Returns `None` if the signature is not one of a key pair.
    pub(crate) fn transaction(
        owner: Address,
        approval: &Approval,
        signature: &Signature,
    ) -> Option<Self> {
        let signed = hex::encode_prefixed(approval.signed(signature)?);
        let amount = approval.amount();
        let amount = (approval.asset(), amount.units());
        let own = [("signedTransaction", signed)];
        Some(Self::new(Sponsor::Transaction, owner, amount, own))
    }

    fn new<const N: usize>(
        by: Sponsor,
        owner: Address,
        (asset, amount): (&Asset, U256),
        own: [(&'static str, String); N],
    ) -> Self {
        let common = [
            ("from", checksummed(owner)),
            ("asset", checksummed(asset.address())),
            ("spender", checksummed(PERMIT2)),
            ("amount", amount.to_string()),
            ("version", "1".to_owned()),
        ];
        Self {
            by,
            fields: common.into_iter().chain(own).collect(),
        }
    }
}

/// The signature is not shown.
impl fmt::Debug for Sponsored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sponsored")
    }
}

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
        let sponsored =
            sponsored.and_then(|approval| add(&mut all, approval.by.extension(), &approval.fields));
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
