//! The terms of a route: offers, and the 402 that carries them.

use alloy::primitives::Address;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};

use crate::handler::Handler;
use crate::payment::ReceivedRequest;
use bursar::x402::{Flow, PaymentMethod, Version};
use bursar::{Asset, Network, Usd};

/// The price of a route.
#[derive(Clone, Debug)]
pub(crate) enum Price {
    Free,
    Dollars(Usd),
    /// Elements of `accepts`, as they are sent.
    Offers(Vec<Box<RawValue>>),
    ByRequest(Handler<Option<Usd>>),
}

impl Price {
    /// Returns the price of this request, which is not `ByRequest`.
    pub(crate) fn of(&self, request: &ReceivedRequest) -> Self {
        match self {
            Self::ByRequest(price) => match price.call(request) {
                None | Some(Usd::ZERO) => Self::Free,
                Some(price) => Self::Dollars(price),
            },
            price => price.clone(),
        }
    }
}

/// The amount that a route charges of an `upto` payment.
#[derive(Clone, Debug)]
pub(crate) enum Charge {
    Fixed(Usd),
    ByRequest(Handler<Usd>),
}

impl Charge {
    pub(crate) fn of(&self, request: &ReceivedRequest) -> Usd {
        match self {
            Self::Fixed(charge) => *charge,
            Self::ByRequest(charge) => charge.call(request),
        }
    }
}

/// The parts of an offer other than its price.
#[derive(Clone, Debug)]
pub(crate) struct Conditions {
    pub(crate) methods: Vec<PaymentMethod>,
    pub(crate) facilitator: Address,
    pub(crate) asset: Asset,
    pub(crate) pay_to: Address,
    pub(crate) max_timeout_seconds: u64,
    pub(crate) flow: Flow,
}

impl Conditions {
    /// Returns one offer for each method, as official sellers write them. Version 1 has EIP-3009 alone.
    ///
    /// There is no offer if the price has more decimals than the token.
    pub(crate) fn offers(
        &self,
        price: Usd,
        version: Version,
        resource: &str,
    ) -> Vec<Box<RawValue>> {
        let methods = self.methods.iter().copied();
        let possible =
            methods.filter(|method| version == Version::V2 || *method == PaymentMethod::Eip3009);
        possible
            .filter_map(|method| self.offer(method, price, version, resource))
            .collect()
    }

    fn offer(
        &self,
        method: PaymentMethod,
        price: Usd,
        version: Version,
        resource: &str,
    ) -> Option<Box<RawValue>> {
        let units = self.asset.parse_units(&price.to_string())?;
        let extra = self.extra(method);
        let offer = match version {
            Version::V1 => json!({
                "scheme": "exact",
                "network": legacy_name(self.asset.network()),
                "maxAmountRequired": units.to_string(),
                "resource": resource,
                "description": "",
                "mimeType": "",
                "payTo": self.pay_to.to_checksum(None),
                "maxTimeoutSeconds": self.max_timeout_seconds,
                "asset": self.asset.address().to_checksum(None),
                "outputSchema": null,
                "extra": extra,
            }),
            _ => json!({
                "scheme": method.scheme().name(),
                "network": self.asset.network().to_string(),
                "amount": units.to_string(),
                "asset": self.asset.address().to_checksum(None),
                "payTo": self.pay_to.to_checksum(None),
                "maxTimeoutSeconds": self.max_timeout_seconds,
                "extra": extra,
            }),
        };
        to_raw_value(&offer).ok()
    }

    fn extra(&self, method: PaymentMethod) -> Value {
        let flow = match self.flow {
            Flow::Upfront => Some("upfront"),
            Flow::Escrow => Some("escrow"),
            _ => None,
        };
        let (transfer_method, facilitator) = match method {
            PaymentMethod::Permit2 => (Some("permit2"), None),
            PaymentMethod::Upto => (Some("permit2"), Some(self.facilitator.to_checksum(None))),
            _ => (None, None),
        };
        let extra = [
            ("name", Some(self.asset.eip712_name())),
            ("version", Some(self.asset.eip712_version())),
            ("paymentFlow", flow),
            ("assetTransferMethod", transfer_method),
            ("facilitatorAddress", facilitator.as_deref()),
        ];
        extra
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), Value::from(value?))))
            .collect::<Map<_, _>>()
            .into()
    }
}

/// Returns the name of a network in version 1.
pub(crate) fn legacy_name(network: Network) -> String {
    network
        .name()
        .map_or_else(|| network.to_string(), ToOwned::to_owned)
}

/// The terms in a 402.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Terms<'a> {
    x402_version: Value,
    error: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<Value>,
    accepts: &'a [Box<RawValue>],
    #[serde(skip_serializing_if = "Option::is_none")]
    extensions: Option<&'a Map<String, Value>>,
}

impl<'a> Terms<'a> {
    pub(crate) fn v1(error: &'a str, accepts: &'a [Box<RawValue>]) -> Self {
        Self {
            x402_version: 1.into(),
            error,
            resource: None,
            accepts,
            extensions: None,
        }
    }

    pub(crate) fn v2(
        error: &'a str,
        resource: Value,
        accepts: &'a [Box<RawValue>],
        extensions: &'a Map<String, Value>,
    ) -> Self {
        let extensions = (!extensions.is_empty()).then_some(extensions);
        Self {
            x402_version: 2.into(),
            error,
            resource: Some(resource),
            accepts,
            extensions,
        }
    }

    /// Replaces the version.
    pub(crate) fn of_version(self, version: Value) -> Self {
        Self {
            x402_version: version,
            ..self
        }
    }

    pub(crate) fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}
