//! Payments through Permit2, written from the texts of the contracts.
//!
//! This does not use the hashing of bursar. A mistake there makes a signature that the paywall refuses.

use alloy::primitives::{Address, B256, U256, address, keccak256};
use bursar::x402::PaymentMethod;
use serde::Deserialize;
use serde_json::Value;

use crate::payment::Authorization;
use crate::sponsorship::TokenPermit;
use crate::typed_data::{bind, hash_struct, number};

/// The contract Permit2, which has the same address on every chain.
pub(crate) const PERMIT2: Address = address!("000000000022D473030F116dDEE9F6B43aC78BA3");
/// The spender of `exact` payments: `x402ExactPermit2Proxy`.
pub(crate) const EXACT_PROXY: Address = address!("402085c248EeA27D92E8b30b2C58ed07f9E20001");
/// The spender of `upto` payments: `x402UptoPermit2Proxy`.
pub(crate) const UPTO_PROXY: Address = address!("4020A4f3b7b90ccA423B9fabCc0CE57C6C240002");
/// The facilitator of a paywall that sets none: Anvil's account 1.
pub(crate) const FACILITATOR: Address = address!("70997970C51812dc3A010C7d01b50e0d17dc79C8");

const DOMAIN_TYPE: &str = "EIP712Domain(string name,uint256 chainId,address verifyingContract)";
const PERMISSIONS_TYPE: &str = "TokenPermissions(address token,uint256 amount)";
const EXACT_WITNESS_TYPE: &str = "Witness(address to,uint256 validAfter)";
const UPTO_WITNESS_TYPE: &str = "Witness(address to,address facilitator,uint256 validAfter)";
const PERMIT_TYPE: &str = "PermitWitnessTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,uint256 deadline,Witness witness)";

/// A permit of Permit2, as the buyer signed it: `PermitWitnessTransferFrom` with the witness of x402.
///
/// ```
/// use bursar_testing::{Paywall, Permit};
/// # fn agent_has_paid(_: &Paywall) {}
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let seller = Paywall::builder().start().await?;
/// agent_has_paid(&seller);
/// let requests = seller.requests();
/// let permits: Vec<&Permit> =
///     requests.iter().filter_map(|request| request.payment.as_ref()?.permit.as_ref()).collect();
/// assert!(permits.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Permit {
    /// The payer.
    pub from: Address,
    /// The contract of the token.
    pub token: Address,
    /// The amount, in atomic units of the token. By `upto` it is a ceiling.
    pub amount: U256,
    /// The contract that may use the permit.
    pub spender: Address,
    /// The nonce. Permit2 accepts each nonce of a payer once, for all tokens and spenders.
    pub nonce: U256,
    /// The last second in which it can be settled, in Unix seconds.
    pub deadline: u64,
    /// The payee.
    pub to: Address,
    /// The only account that may settle an `upto` payment. `None` in an `exact` payment.
    pub facilitator: Option<Address>,
    /// The time from which it can be settled, in Unix seconds.
    pub valid_after: u64,
}

impl Permit {
    /// Returns the method that the witness is for.
    #[must_use]
    pub const fn method(&self) -> PaymentMethod {
        match self.facilitator {
            None => PaymentMethod::Permit2,
            Some(_) => PaymentMethod::Upto,
        }
    }

    /// Reads `permit2Authorization`.
    pub(crate) fn read(json: &Value) -> Option<Self> {
        let wire = Wire::deserialize(json).ok()?;
        Some(Self {
            from: wire.from,
            token: wire.permitted.token,
            amount: decimal(&wire.permitted.amount)?,
            spender: wire.spender,
            nonce: decimal(&wire.nonce)?,
            deadline: wire.deadline.parse().ok()?,
            to: wire.witness.to,
            facilitator: wire.witness.facilitator,
            valid_after: wire.witness.valid_after.parse().ok()?,
        })
    }

    /// Returns the digest that the payer signs on this chain.
    pub(crate) fn digest(&self, chain_id: u64) -> B256 {
        let permitted = hash_struct(
            PERMISSIONS_TYPE,
            [self.token.into_word(), number(self.amount)],
        );
        let (to, valid_after) = (self.to.into_word(), number(U256::from(self.valid_after)));
        let (witness_type, witness) = match self.facilitator {
            None => (
                EXACT_WITNESS_TYPE,
                hash_struct(EXACT_WITNESS_TYPE, [to, valid_after]),
            ),
            Some(facilitator) => (
                UPTO_WITNESS_TYPE,
                hash_struct(
                    UPTO_WITNESS_TYPE,
                    [to, facilitator.into_word(), valid_after],
                ),
            ),
        };
        // A type is followed by the types that it refers to, in the order of the alphabet.
        let permit_type = [PERMIT_TYPE, PERMISSIONS_TYPE, witness_type].concat();
        let members = [
            permitted,
            self.spender.into_word(),
            number(self.nonce),
            number(U256::from(self.deadline)),
            witness,
        ];
        let domain = [
            keccak256("Permit2"),
            number(U256::from(chain_id)),
            PERMIT2.into_word(),
        ];
        bind(
            hash_struct(DOMAIN_TYPE, domain),
            hash_struct(&permit_type, members),
        )
    }

    /// Returns the transfer that a settlement of this amount makes.
    pub(crate) fn transfer(&self, amount: U256) -> Authorization {
        Authorization {
            from: self.from,
            to: self.to,
            value: amount,
            valid_after: self.valid_after,
            valid_before: self.deadline,
            nonce: number(self.nonce),
        }
    }

    /// Returns the calldata with which the facilitator settles this amount.
    ///
    /// With a permit of the token, the proxy approves Permit2 first.
    pub(crate) fn calldata(
        &self,
        amount: U256,
        signature: &[u8; 65],
        token_permit: Option<&TokenPermit>,
    ) -> Vec<u8> {
        const PERMIT: &str = "((address,uint256),uint256,uint256)";
        let (name, approval) = match token_permit {
            None => ("settle(", Vec::new()),
            Some(permit) => (
                "settleWithPermit((uint256,uint256,bytes32,bytes32,uint8),",
                permit.words().to_vec(),
            ),
        };
        let permit = [
            self.token.into_word(),
            number(self.amount),
            number(self.nonce),
            number(U256::from(self.deadline)),
        ];
        let owner = self.from.into_word();
        let (to, valid_after) = (self.to.into_word(), number(U256::from(self.valid_after)));
        let (function, rest) = match self.facilitator {
            None => (
                format!("{name}{PERMIT},address,(address,uint256),bytes)"),
                vec![owner, to, valid_after],
            ),
            Some(facilitator) => (
                format!("{name}{PERMIT},uint256,address,(address,address,uint256),bytes)"),
                vec![
                    number(amount),
                    owner,
                    to,
                    facilitator.into_word(),
                    valid_after,
                ],
            ),
        };
        let mut words = [&approval[..], &permit, &rest].concat();
        // The signature is dynamic: its place, then its length and its bytes.
        let head = words.len().saturating_add(1).saturating_mul(32);
        words.extend([head, signature.len()].map(|length| number(U256::from(length))));
        let mut calldata = keccak256(function).0.get(..4).unwrap_or_default().to_vec();
        calldata.extend(words.iter().flat_map(|word| word.0));
        calldata.extend(signature);
        calldata.extend([0; 31]);
        calldata
    }
}

/// The permit as JSON. All fields are strings; numbers are decimal.
#[derive(Deserialize)]
struct Wire {
    from: Address,
    permitted: Permitted,
    spender: Address,
    nonce: String,
    deadline: String,
    witness: Witness,
}

#[derive(Deserialize)]
struct Permitted {
    token: Address,
    amount: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Witness {
    to: Address,
    facilitator: Option<Address>,
    valid_after: String,
}

pub(crate) fn decimal(digits: &str) -> Option<U256> {
    let decimal = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    decimal.then(|| U256::from_str_radix(digits, 10).ok())?
}

#[cfg(test)]
mod tests {
    use alloy::primitives::{b256, hex};
    use serde_json::json;

    use super::*;
    use crate::typed_data::recover;

    const PAYER: Address = address!("f39Fd6e51aad88F6F4ce6aB8827279cffFb92266");

    fn permit(json: &Value) -> Permit {
        Permit::read(json).unwrap()
    }

    /// From the payloads of `@x402/evm` 2.27.0.
    fn official(upto: bool) -> Value {
        let mut json = json!({
            "from": PAYER,
            "permitted": { "token": "0x036CbD53842c5426634e7929541eC2318f3dCF7e", "amount": "10000" },
            "spender": EXACT_PROXY,
            "nonce": "110117680976134290040645500446194905769275902069351365960831693135107775870080",
            "deadline": "1740672154",
            "witness": { "to": "0x209693Bc6afc0C5328bA36FaF03C514EF312287C", "validAfter": "0" },
        });
        if upto {
            json["permitted"]["amount"] = "5000000".into();
            json["spender"] = json!(UPTO_PROXY);
            json["deadline"] = "1740672394".into();
            json["witness"]["facilitator"] = json!(FACILITATOR);
        }
        json
    }

    #[test]
    fn permits_of_the_official_client_have_its_digest_and_signer() {
        let exact = hex!(
            "55c1ff8c362bc75cc57daba571d157821f2bae43da3f531b6707a3d59fea2d05453e84af17bca5b1ed4e1d9fbe260dc63db70cbc3b74e28e98fd33b4306ae6631b"
        );
        let upto = hex!(
            "642d153815763e31655b660e917181ab76741ad0a854f630fa9be7603b26d7e013c87c5d5e02db3cb89b73c780309174623d44e190272da5ed7d33beb10f9d471c"
        );
        for (signature, permit) in [(exact, official(false)), (upto, official(true))]
            .map(|(signature, json)| (signature, permit(&json)))
        {
            assert_eq!(recover(permit.digest(84_532), &signature), Some(PAYER));
            assert_ne!(recover(permit.digest(8453), &signature), Some(PAYER));
        }
        assert_eq!(
            permit(&official(true)).digest(84_532),
            b256!("365358e00e4135127e0c23bd5933a97d4a778fa06c870a039be75285552167bb")
        );
    }

    #[test]
    fn a_permit_with_a_number_that_is_no_decimal_string_is_not_read() {
        for (place, value) in [
            ("/nonce", json!(7)),
            ("/nonce", json!("0x7")),
            ("/permitted/amount", json!("1e4")),
            ("/deadline", json!("-1")),
            ("/witness/validAfter", Value::Null),
            ("/witness/to", json!("nobody")),
        ] {
            let mut json = official(true);
            *json.pointer_mut(place).unwrap() = value;
            assert_eq!(Permit::read(&json), None, "{json}");
        }
    }

    #[test]
    fn calldata_names_the_functions_of_the_published_interface() {
        let selectors = [official(false), official(true)].map(|json| {
            let calldata = permit(&json).calldata(U256::from(7), &[0; 65], None);
            assert_eq!(calldata.len() % 32, 4);
            calldata[..4].to_vec()
        });
        assert_eq!(selectors, SELECTORS.map(|selector| selector.to_vec()));
    }

    /// Of `settle` in `x402ExactPermit2ProxyABI` and `x402UptoPermit2ProxyABI`.
    const SELECTORS: [[u8; 4]; 2] = [[0x13, 0xcd, 0x3b, 0x53], [0xff, 0x11, 0xe7, 0xb4]];
}
