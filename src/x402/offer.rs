//! One offer of a seller, and the fields in it that bursar uses.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::members::{Members, Text};
use super::{Scheme, Unpayable, WireError};
use crate::money::Network;
use crate::text::excerpt;

/// One way to pay, as the seller wrote it: an element of `accepts`.
#[derive(Clone, Debug)]
pub struct Offer {
    pub(super) raw: Box<RawValue>,
}

/// The fields of an offer that bursar uses.
#[derive(Debug)]
pub(crate) struct Terms<'a> {
    pub(crate) scheme: Text<'a>,
    pub(crate) network: Text<'a>,
    pub(crate) chain: Network,
    pub(crate) amount: Text<'a>,
    pub(crate) asset: Text<'a>,
    pub(crate) pay_to: Text<'a>,
    pub(crate) max_timeout_seconds: Option<&'a RawValue>,
    /// The name of the token's EIP-712 domain: the first of five fields of `extra`.
    pub(crate) name: Option<Text<'a>>,
    pub(crate) version: Option<Text<'a>>,
    pub(crate) asset_transfer_method: Option<Text<'a>>,
    pub(crate) payment_flow: Option<Text<'a>>,
    /// The account that settles an `upto` payment.
    pub(crate) facilitator_address: Option<Text<'a>>,
}

/// An offer as official sellers write it, which is quick to read. Every other or repeated member leaves it to [`Members`].
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Usual<'a> {
    #[serde(borrow)]
    scheme: Text<'a>,
    #[serde(borrow)]
    network: Text<'a>,
    #[serde(borrow)]
    amount: Option<Text<'a>>,
    #[serde(borrow)]
    max_amount_required: Option<Text<'a>>,
    #[serde(borrow)]
    asset: Text<'a>,
    #[serde(borrow)]
    pay_to: Text<'a>,
    #[serde(borrow)]
    max_timeout_seconds: Option<&'a RawValue>,
    #[serde(borrow)]
    extra: Option<UsualExtra<'a>>,
    #[serde(default, rename = "resource")]
    _resource: IgnoredAny,
    #[serde(default, rename = "description")]
    _description: IgnoredAny,
    #[serde(default, rename = "mimeType")]
    _mime_type: IgnoredAny,
    #[serde(default, rename = "outputSchema")]
    _output_schema: IgnoredAny,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct UsualExtra<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    version: Option<Text<'a>>,
    #[serde(borrow)]
    asset_transfer_method: Option<Text<'a>>,
    #[serde(borrow)]
    payment_flow: Option<Text<'a>>,
    #[serde(borrow)]
    facilitator_address: Option<Text<'a>>,
}

impl<'a> Usual<'a> {
    fn read(raw: &'a RawValue) -> Option<Terms<'a>> {
        let usual: Usual<'a> = serde_json::from_str(raw.get()).ok()?;
        let chain = usual.network.parse().ok()?;
        let amount = match (usual.amount, usual.max_amount_required) {
            (Some(amount), None) | (None, Some(amount)) => amount,
            _ => return None,
        };
        let extra = usual.extra.unwrap_or_default();
        is_known(&usual.scheme).then_some(Terms {
            scheme: usual.scheme,
            network: usual.network,
            chain,
            amount,
            asset: usual.asset,
            pay_to: usual.pay_to,
            max_timeout_seconds: usual.max_timeout_seconds,
            name: extra.name,
            version: extra.version,
            asset_transfer_method: extra.asset_transfer_method,
            payment_flow: extra.payment_flow,
            facilitator_address: extra.facilitator_address,
        })
    }
}

/// Whether bursar can pay by this scheme, which depends on the version too.
fn is_known(scheme: &str) -> bool {
    Scheme::ALL.iter().any(|known| known.name() == scheme)
}

impl From<WireError> for Unpayable {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Ambiguous(message) => Self::Contradiction(message),
            WireError::Json(error) => Self::Malformed(error),
            other => Self::Malformed(other.to_string()),
        }
    }
}

impl Offer {
    /// Reads the fields of an `exact` or `upto` offer on a known network.
    ///
    /// Names in snake case and amounts as JSON integers are read too.
    ///
    /// # Errors
    /// Returns the reason why the offer cannot be read. It names every missing field.
    pub(crate) fn terms<'a>(&'a self) -> Result<Terms<'a>, Unpayable> {
        if let Some(terms) = Usual::read(&self.raw) {
            return Ok(terms);
        }
        let members = Members::of(&self.raw)?;
        let (scheme, network) = (members.text(&["scheme"])?, members.text(&["network"])?);
        if let Some(other) = scheme.as_deref().filter(|scheme| !is_known(scheme)) {
            return Err(Unpayable::Scheme(excerpt(other)));
        }
        let chain = network.as_deref().map(str::parse::<Network>).transpose();
        let unknown = |_| Unpayable::Network(excerpt(network.as_deref().unwrap_or_default()));
        let chain = chain.map_err(unknown)?;
        let amount = members.text(&["amount", "maxamountrequired"])?;
        let mut faults = Vec::new();
        let mut needed = |name: &str, text: Option<Text<'a>>| {
            faults.extend(text.is_none().then(|| format!("no `{name}`")));
            text.unwrap_or_default()
        };
        let (scheme, network) = (needed("scheme", scheme), needed("network", network));
        let asset = needed("asset", members.text(&["asset"])?);
        let pay_to = needed("payTo", members.text(&["payto"])?);
        let Some(chain) = chain.filter(|_| faults.is_empty()) else {
            faults.push(match amount.as_deref() {
                None => "no `amount`".to_owned(),
                Some(amount) => super::unpayable::read_amount(amount)
                    .map_or_else(|odd| odd.to_string(), |_| String::new()),
            });
            faults.retain(|fault| !fault.is_empty());
            return Err(Unpayable::Malformed(faults.join(", ")));
        };
        // An empty list is how PHP writes an empty object.
        let extra = members.get(&["extra"])?.filter(|raw| raw.get() != "[]");
        let extra = extra.map(Members::of).transpose()?.unwrap_or_default();
        Ok(Terms {
            scheme,
            network,
            chain,
            amount: amount.ok_or(Unpayable::NoAmount)?,
            asset,
            pay_to,
            max_timeout_seconds: members.get(&["maxtimeoutseconds"])?,
            name: extra.text(&["name"])?,
            version: extra.text(&["version"])?,
            asset_transfer_method: extra.text(&["assettransfermethod"])?,
            payment_flow: extra.text(&["paymentflow"])?,
            facilitator_address: extra.text(&["facilitatoraddress"])?,
        })
    }

    /// Returns a text of version 1 that describes the resource in every offer.
    pub(super) fn described(&self, name: &str) -> Option<String> {
        // Most offers of version 2 have none.
        let may_have = self.json().contains(name.get(1..)?);
        if !may_have {
            return None;
        }
        Members::of(&self.raw).ok()?.words(&[name])
    }

    /// Returns the JSON of the offer as received.
    #[must_use]
    pub fn json(&self) -> &str {
        self.raw.get()
    }

    pub(crate) fn raw(&self) -> &RawValue {
        &self.raw
    }
}
