//! One offer of a seller, and the fields in it that bursar uses.

use serde_json::value::RawValue;

use super::Unpayable;
use super::members::{Members, Text, Unusable};
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
    pub(crate) extra: Extra<'a>,
}

/// The fields of `extra` for an `exact` payment on an EVM chain.
#[derive(Debug, Default)]
pub(crate) struct Extra<'a> {
    pub(crate) name: Option<Text<'a>>,
    pub(crate) version: Option<Text<'a>>,
    pub(crate) asset_transfer_method: Option<Text<'a>>,
    pub(crate) payment_flow: Option<Text<'a>>,
}

impl From<Unusable> for Unpayable {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::Contradiction(message) => Self::Contradiction(message),
            Unusable::NoText(message) => Self::Malformed(message),
        }
    }
}

impl Offer {
    /// Reads the fields of an `exact` offer on a known network.
    ///
    /// Names in snake case and amounts as JSON integers are read too.
    ///
    /// # Errors
    /// Returns the reason why the offer cannot be read. It names every missing field.
    pub(crate) fn terms(&self) -> Result<Terms<'_>, Unpayable> {
        let members = self.members()?;
        let text = |name: &str| members.text(&[name]);
        let scheme = text("scheme")?;
        if let Some(other) = scheme.as_deref().filter(|scheme| *scheme != "exact") {
            return Err(Unpayable::Scheme(excerpt(other)));
        }
        let network = text("network")?;
        let chain = network.as_deref().map(|network| {
            let unknown = |_| Unpayable::Network(excerpt(network));
            network.parse::<Network>().map_err(unknown)
        });
        let chain = chain.transpose()?;
        let (asset, pay_to) = (text("asset")?, text("payto")?);
        let amount = members.text(&["amount", "maxamountrequired"])?;
        let (Some(scheme), Some(network), Some(chain), Some(asset), Some(pay_to)) =
            (&scheme, &network, chain, &asset, &pay_to)
        else {
            let missing = [
                ("scheme", scheme.is_none()),
                ("network", network.is_none()),
                ("asset", asset.is_none()),
                ("payTo", pay_to.is_none()),
                ("amount", amount.is_none()),
            ];
            let missing = missing.iter().filter(|(_, is_missing)| *is_missing);
            let mut faults: Vec<String> = missing.map(|(name, _)| format!("no `{name}`")).collect();
            let odd = amount.filter(|amount| super::quote::parse_canonical(amount).is_none());
            faults.extend(odd.map(|amount| Unpayable::Amount(excerpt(&amount)).to_string()));
            return Err(Unpayable::Malformed(faults.join(", ")));
        };
        Ok(Terms {
            scheme: scheme.clone(),
            network: network.clone(),
            chain,
            amount: amount.ok_or(Unpayable::NoAmount)?,
            asset: asset.clone(),
            pay_to: pay_to.clone(),
            max_timeout_seconds: members.get(&["maxtimeoutseconds"])?,
            extra: Extra::read(members.get(&["extra"])?)?,
        })
    }

    fn members(&self) -> Result<Members<'_>, Unpayable> {
        Members::read(self.raw.get().as_bytes())
            .map_err(|error| Unpayable::Malformed(excerpt(&error.to_string())))
    }

    /// Returns a text of version 1 that describes the resource in every offer.
    pub(super) fn described(&self, name: &str) -> Option<String> {
        self.members().ok()?.words(&[name])
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

impl<'a> Extra<'a> {
    /// An empty list is how PHP writes an empty object.
    fn read(raw: Option<&'a RawValue>) -> Result<Self, Unpayable> {
        let Some(raw) = raw.filter(|raw| raw.get() != "[]") else {
            return Ok(Self::default());
        };
        let members = Members::read(raw.get().as_bytes())
            .map_err(|_| Unpayable::Malformed("`extra` is no object".to_owned()))?;
        Ok(Self {
            name: members.text(&["name"])?,
            version: members.text(&["version"])?,
            asset_transfer_method: members.text(&["assettransfermethod"])?,
            payment_flow: members.text(&["paymentflow"])?,
        })
    }
}
