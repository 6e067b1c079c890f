//! Approvals of Permit2 that come with a payment: the extensions `eip2612GasSponsoring` and
//! `erc20ApprovalGasSponsoring`.

use std::fmt;

use alloy::primitives::{Address, B256, U256, hex};
use serde_json::{Map, Value, json};

use crate::permit::{PERMIT2, Permit, decimal};
use crate::transaction::Transaction;
use crate::typed_data::{bind, hash_struct, number, recover};
use crate::verify::{Reason, SETTLING_TIME};

/// The extension with which a facilitator makes an approval that the buyer signs by EIP-2612.
pub(crate) const BY_PERMIT: &str = "eip2612GasSponsoring";
/// The extension with which a facilitator sends a transaction of the buyer, and pays its gas.
pub(crate) const BY_TRANSACTION: &str = "erc20ApprovalGasSponsoring";

const TYPE: &str =
    "Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)";
const ADDRESS: &str = "^0x[a-fA-F0-9]{40}$";
const NUMBER: &str = "^[0-9]+$";
const HEX: &str = "^0x[a-fA-F0-9]+$";
const VERSION: &str = r"^[0-9]+(\.[0-9]+)*$";

/// An approval of Permit2 that comes with a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sponsorship {
    Permit(TokenPermit),
    Approval(SignedApproval),
}

/// A permit of a token by EIP-2612, for Permit2.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct TokenPermit {
    /// The domain separator of the token.
    separator: B256,
    owner: Address,
    pub(crate) value: U256,
    pub(crate) deadline: U256,
    signature: [u8; 65],
}

impl fmt::Debug for TokenPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenPermit")
            .field("owner", &self.owner)
            .field("value", &self.value)
            .finish_non_exhaustive()
    }
}

/// A transaction of the buyer that approves Permit2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SignedApproval {
    pub(crate) transaction: B256,
    pub(crate) chain_id: u64,
    pub(crate) owner: Address,
    pub(crate) token: Address,
    pub(crate) amount: U256,
    /// The number of earlier transactions of the owner.
    pub(crate) nonce: u64,
}

impl TokenPermit {
    /// Returns whether the owner signed it with this nonce, which is the token's for the owner.
    pub(crate) fn is_signed(&self, nonce: U256) -> bool {
        let members = [
            self.owner.into_word(),
            PERMIT2.into_word(),
            number(self.value),
            number(nonce),
            number(self.deadline),
        ];
        let digest = bind(self.separator, hash_struct(TYPE, members));
        recover(digest, &self.signature) == Some(self.owner)
    }

    /// Returns the words of `EIP2612Permit`, as the proxies of x402 take it.
    pub(crate) fn words(&self) -> [B256; 5] {
        let [r @ .., _] = self.signature;
        let (r, s) = r.split_at(32);
        let v = self.signature.last().copied().unwrap_or_default();
        [
            number(self.value),
            number(self.deadline),
            B256::from_slice(r),
            B256::from_slice(s),
            number(U256::from(v)),
        ]
    }
}

impl SignedApproval {
    /// Reads a signed transaction, if it approves Permit2.
    pub(crate) fn of(transaction: &Transaction) -> Option<Self> {
        let (spender, amount) = transaction.approval()?;
        (spender == PERMIT2).then_some(Self {
            transaction: transaction.hash,
            chain_id: transaction.chain_id,
            owner: transaction.from,
            token: transaction.to,
            amount,
            nonce: transaction.nonce,
        })
    }
}

/// Returns the approval that comes with a payment, after the checks of the official facilitator.
///
/// `separator` is the domain separator of the token, if the seller states its domain.
pub(crate) fn read(
    payment: &Value,
    permit: &Permit,
    separator: Option<B256>,
    now: u64,
) -> Result<Option<Sponsorship>, Reason> {
    let info = |name: &str| payment.get("extensions")?.get(name)?.get("info");
    // An extension that is only repeated has no approval.
    let complete = |info: &Value, names: &[&str]| {
        let named = |name: &&str| {
            info.get(*name)
                .and_then(Value::as_str)
                .is_some_and(|text| !text.is_empty())
        };
        names.iter().all(named)
    };
    let names = [
        "from",
        "asset",
        "spender",
        "amount",
        "nonce",
        "deadline",
        "signature",
        "version",
    ];
    if let Some(info) = info(BY_PERMIT).filter(|info| complete(info, &names)) {
        return by_permit(info, permit, separator, now).map(Some);
    }
    let names = [
        "from",
        "asset",
        "spender",
        "amount",
        "signedTransaction",
        "version",
    ];
    if let Some(info) = info(BY_TRANSACTION).filter(|info| complete(info, &names)) {
        return by_transaction(info, permit).map(Some);
    }
    Ok(None)
}

fn by_permit(
    info: &Value,
    permit: &Permit,
    separator: Option<B256>,
    now: u64,
) -> Result<Sponsorship, Reason> {
    const FORMAT: Reason = "invalid_eip2612_extension_format";
    let fields = Fields(info);
    let (from, asset, spender) = fields.addresses().ok_or(FORMAT)?;
    let (value, deadline) = (fields.number("amount"), fields.number("deadline"));
    let (value, deadline) = value.zip(deadline).ok_or(FORMAT)?;
    fields.number("nonce").ok_or(FORMAT)?;
    let signature = fields.bytes("signature").ok_or(FORMAT)?;
    if from != permit.from {
        return Err("eip2612_from_mismatch");
    }
    if asset != permit.token {
        return Err("eip2612_asset_mismatch");
    }
    if spender != PERMIT2 {
        return Err("eip2612_spender_not_permit2");
    }
    if deadline < U256::from(now.saturating_add(SETTLING_TIME)) {
        return Err("eip2612_deadline_expired");
    }
    // The proxy takes only a permit for the signed amount, and the token only one of 65 bytes in its own domain.
    let signature = signature.try_into().ok().filter(|_| value == permit.amount);
    let (separator, signature) = separator
        .zip(signature)
        .ok_or("permit2_simulation_failed")?;
    Ok(Sponsorship::Permit(TokenPermit {
        separator,
        owner: from,
        value,
        deadline,
        signature,
    }))
}

fn by_transaction(info: &Value, permit: &Permit) -> Result<Sponsorship, Reason> {
    const FORMAT: Reason = "invalid_erc20_approval_extension_format";
    let fields = Fields(info);
    let (from, asset, spender) = fields.addresses().ok_or(FORMAT)?;
    fields.number("amount").ok_or(FORMAT)?;
    let transaction = fields.bytes("signedTransaction").ok_or(FORMAT)?;
    if from != permit.from {
        return Err("erc20_approval_from_mismatch");
    }
    if asset != permit.token {
        return Err("erc20_approval_asset_mismatch");
    }
    if spender != PERMIT2 {
        return Err("erc20_approval_spender_not_permit2");
    }
    let transaction = Transaction::read(&transaction).ok_or("erc20_approval_tx_parse_failed")?;
    if transaction.to != permit.token {
        return Err("erc20_approval_tx_wrong_target");
    }
    if transaction.approval().is_none() {
        return Err("erc20_approval_tx_wrong_selector");
    }
    let approval = SignedApproval::of(&transaction).ok_or("erc20_approval_tx_wrong_spender")?;
    if approval.owner != permit.from {
        return Err("erc20_approval_tx_signer_mismatch");
    }
    Ok(Sponsorship::Approval(approval))
}

/// The fields of `info`.
struct Fields<'a>(&'a Value);

impl Fields<'_> {
    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    fn addresses(&self) -> Option<(Address, Address, Address)> {
        let address = |name| self.text(name)?.parse().ok();
        Some((address("from")?, address("asset")?, address("spender")?))
    }

    fn number(&self, name: &str) -> Option<U256> {
        decimal(self.text(name)?)
    }

    fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        hex::decode(self.text(name)?.strip_prefix("0x")?).ok()
    }
}

/// Returns the declaration of an extension, as official sellers write it.
pub(crate) fn declaration(name: &str) -> Value {
    let (description, own): (_, &[_]) = if name == BY_PERMIT {
        (
            "The facilitator accepts EIP-2612 gasless Permit to `Permit2` canonical contract.",
            &[("nonce", NUMBER), ("deadline", NUMBER), ("signature", HEX)],
        )
    } else {
        (
            "The facilitator broadcasts a pre-signed ERC-20 approve() transaction to grant Permit2 allowance.",
            &[("signedTransaction", HEX)],
        )
    };
    let first = [
        ("from", ADDRESS),
        ("asset", ADDRESS),
        ("spender", ADDRESS),
        ("amount", NUMBER),
    ];
    let fields = [&first[..], own, &[("version", VERSION)]].concat();
    let properties = fields.iter().map(|(name, pattern)| {
        (
            (*name).to_owned(),
            json!({ "type": "string", "pattern": pattern }),
        )
    });
    json!({
        "info": { "description": description, "version": "1" },
        "schema": {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": properties.collect::<Map<_, _>>(),
            "required": fields.iter().map(|(name, _)| name).collect::<Vec<_>>(),
        },
    })
}

#[cfg(test)]
mod tests {
    use alloy::primitives::address;

    use super::*;
    use crate::typed_data::Domain;

    const PAYER: Address = address!("f39Fd6e51aad88F6F4ce6aB8827279cffFb92266");
    const USDC: Address = address!("036CbD53842c5426634e7929541eC2318f3dCF7e");
    const NOW: u64 = 1_740_672_094;

    fn permit() -> Permit {
        Permit::read(&json!({
            "from": PAYER, "permitted": { "token": USDC, "amount": "10000" }, "spender": PERMIT2,
            "nonce": "1", "deadline": "1740672154", "witness": { "to": PAYER, "validAfter": "0" },
        }))
        .unwrap()
    }

    fn separator() -> B256 {
        let domain = Domain {
            name: "USDC",
            version: "2",
            chain_id: 84_532,
            contract: USDC,
        };
        domain.separator()
    }

    /// Reads an extension of the official client with a field changed.
    fn changed(
        name: &str,
        info: &Value,
        field: &str,
        value: &Value,
    ) -> Result<Option<Sponsorship>, Reason> {
        let mut info = info.clone();
        info[field] = value.clone();
        let payment = json!({ "extensions": { name: { "info": info } } });
        read(&payment, &permit(), Some(separator()), NOW)
    }

    /// From the payloads of `@x402/evm` 2.27.0.
    fn official_permit() -> Value {
        json!({
            "description": "", "version": "1", "from": PAYER, "asset": USDC, "spender": PERMIT2,
            "amount": "10000", "nonce": "7", "deadline": "1740672154",
            "signature": "0xf322ac8c2561b0daa815e06d595e751d0136ca77eabef78fbb739dc27e4799e83b3bf1b275fc00c0502b7fbda7248920b34259a47da2e31951816ca5fad03e671b",
        })
    }

    fn official_approval() -> Value {
        json!({
            "description": "", "version": "1", "from": PAYER, "asset": USDC, "spender": PERMIT2,
            "amount": U256::MAX.to_string(),
            "signedTransaction": "0x02f8b383014a34038405f5e10084773594008301117094036cbd53842c5426634e7929541ec2318f3dcf7e80b844095ea7b3000000000000000000000000000000000022d473030f116ddee9f6b43ac78ba3ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffc001a03075b506c47c165833768b851e47ace224bcf62b5bb8f6be14638f8a6e52caa6a07329a6c9bf3154da5bef1fe723c76d20202a3b9f0876dc22c3571a4e00b5878c",
        })
    }

    #[test]
    fn a_permit_of_the_official_client_is_signed_for_its_nonce_alone() {
        let Ok(Some(Sponsorship::Permit(permit))) =
            changed(BY_PERMIT, &official_permit(), "version", &json!("1"))
        else {
            unreachable!()
        };
        assert_eq!(permit.value, U256::from(10_000));
        assert!(permit.is_signed(U256::from(7)));
        assert!(!permit.is_signed(U256::from(8)));
        for (field, value, reason) in [
            ("from", json!(USDC), "eip2612_from_mismatch"),
            ("asset", json!(PAYER), "eip2612_asset_mismatch"),
            ("spender", json!(PAYER), "eip2612_spender_not_permit2"),
            ("deadline", json!("1740672099"), "eip2612_deadline_expired"),
            ("amount", json!("10001"), "permit2_simulation_failed"),
            ("amount", json!("0x10"), "invalid_eip2612_extension_format"),
            (
                "signature",
                json!("0xzz"),
                "invalid_eip2612_extension_format",
            ),
        ] {
            assert_eq!(
                changed(BY_PERMIT, &official_permit(), field, &value),
                Err(reason)
            );
        }
        // An extension without an approval is only repeated.
        let repeated = changed(BY_PERMIT, &official_permit(), "signature", &Value::Null);
        assert_eq!(repeated, Ok(None));
    }

    #[test]
    fn an_approval_of_the_official_client_is_read_with_its_sender() {
        let Ok(Some(Sponsorship::Approval(approval))) =
            changed(BY_TRANSACTION, &official_approval(), "version", &json!("1"))
        else {
            unreachable!()
        };
        assert_eq!((approval.owner, approval.token), (PAYER, USDC));
        assert_eq!((approval.amount, approval.nonce), (U256::MAX, 3));
        assert_eq!(approval.chain_id, 84_532);
        let text = official_approval()["signedTransaction"]
            .as_str()
            .unwrap()
            .to_owned();
        let cut = text[..text.len() - 2].to_owned();
        let (to, other) = (
            "036cbd53842c5426634e7929541ec2318f3dcf7e",
            "136cbd53842c5426634e7929541ec2318f3dcf7e",
        );
        for (field, value, reason) in [
            ("from", json!(USDC), "erc20_approval_from_mismatch"),
            ("asset", json!(PAYER), "erc20_approval_asset_mismatch"),
            (
                "spender",
                json!(PAYER),
                "erc20_approval_spender_not_permit2",
            ),
            (
                "signedTransaction",
                json!(cut),
                "erc20_approval_tx_parse_failed",
            ),
            (
                "signedTransaction",
                json!(text.replace(to, other)),
                "erc20_approval_tx_wrong_target",
            ),
            (
                "signedTransaction",
                json!(text.replace("095ea7b3", "a9059cbb")),
                "erc20_approval_tx_wrong_selector",
            ),
            (
                "signedTransaction",
                json!(text.replace("22d473", "22d474")),
                "erc20_approval_tx_wrong_spender",
            ),
            (
                "signedTransaction",
                json!(text.replace("83011170", "83011171")),
                "erc20_approval_tx_signer_mismatch",
            ),
        ] {
            let refused = changed(BY_TRANSACTION, &official_approval(), field, &value);
            assert_eq!(refused, Err(reason));
        }
    }
}
