//! The faults that strike when a valid payment has come.

use alloy::primitives::{U256, keccak256};
use bursar::x402::Version;
use http::{HeaderValue, Response, StatusCode};

use super::Sale;
use super::challenge::UNMATCHED;
use super::visit::{Accepted, Visit};
use crate::answer::{self, Claim, Reply};
use crate::body::Body;
use crate::breakage::Breakage;
use crate::fault::{Fault, Forgery};
use crate::payment::{PresentedPayment, Signed};

impl Visit<'_> {
    /// Answers with a fault that leaves the payment unsettled for now. Returns `None` for every other fault.
    pub(super) fn misbehave_before_settling(
        &mut self,
        fault: &Fault,
        accepted: &Accepted,
        payment: &PresentedPayment,
    ) -> Option<Reply> {
        let version = payment.version;
        let (network, signed) = accepted.network_and_payment();
        let payer = signed.payer();
        Some(match fault {
            Fault::StatusBeforeSettle(status) => answer::failed(*status).into(),
            Fault::BreakBeforeSettle(breakage) => {
                Reply::Broken(self.deliver(None), breakage.clone())
            }
            Fault::SettleAfterDisconnect => match accepted {
                Accepted::Before(_) => return None,
                Accepted::Now(token, signed) => {
                    Reply::SettleAfterDisconnect(*token, signed.clone(), self.charge(signed))
                }
            },
            Fault::ApproveUnsettled => {
                if let Accepted::Now(token, signed) = accepted
                    && let Signed::Permit(signed) = signed
                    && let Some(sponsorship) = &signed.sponsorship
                {
                    let transaction = keccak256(signed.permit.digest(network.chain_id()));
                    let chain = &mut self.state.chain;
                    chain.approve(*token, payer, sponsorship, transaction, self.now);
                }
                answer::failed(502).into()
            }
            Fault::DeliverUnsettled => self.deliver(None).into(),
            Fault::InventedReceipt => {
                let claim = Claim::invented(network, signed);
                self.deliver(Some(&claim)).into()
            }
            Fault::ChargeAboveCeiling => {
                let above = signed.ceiling().saturating_add(U256::from(1));
                let claim =
                    Claim::invented(network, signed).of_amount(Some(above.to_string().into()));
                // The token moves the signed amount of a transfer, whatever the seller wants. Permit2 compares.
                if let Accepted::Now(token, signed @ Signed::Permit(_)) = accepted {
                    drop(self.state.chain.settle(*token, signed, above, self.now));
                }
                self.deliver(Some(&claim)).into()
            }
            Fault::SettlementFailure => {
                let reason = "invalid_exact_evm_transaction_failed";
                let claim = Claim::failure(reason, network, payer);
                self.refuse(&claim, version).into()
            }
            Fault::PendingUnsettled => {
                let claim = Claim::invented(network, signed).pending();
                self.refuse(&claim, version).into()
            }
            Fault::DoublePrice => {
                if let Some(doublings) = self.state.doublings.get_mut(self.number) {
                    *doublings = doublings.saturating_add(1);
                }
                self.challenge(UNMATCHED)
            }
            Fault::Requote(terms) => self.state_terms(UNMATCHED, Some(terms.clone()), 0).into(),
            Fault::QuotePayment => {
                let claim = Claim::failure(quote_payment(payment), network, payer);
                self.refuse_with_terms(&claim, version).into()
            }
            Fault::RedirectAfterPayment(to) => answer::redirect(307, to).into(),
            Fault::FailureReason(reason) => {
                let claim = Claim::failure(reason.clone(), network, payer);
                self.refuse(&claim, version).into()
            }
            Fault::RefusalInTerms(reason) => self.terms(reason, 0).into(),
            Fault::Foreign402(json) => {
                let mut response = answer::payment_required("");
                *response.body_mut() = Body::whole(json.clone());
                response.into()
            }
            _ => return None,
        })
    }

    /// Answers a payment that was settled, now or before.
    pub(super) fn misbehave_after_settling(
        &mut self,
        fault: Fault,
        sale: Sale,
        version: Version,
    ) -> Reply {
        let Sale {
            signed,
            settlement,
            mut answer,
        } = sale;
        let receipt = answer::receipt_header(version);
        match fault {
            Fault::DropAfterSettle => return Reply::Broken(answer, Breakage::Close),
            Fault::HangAfterSettle => return Reply::Broken(answer, Breakage::Silence),
            Fault::BreakAfterSettle(breakage) => return Reply::Broken(answer, breakage),
            Fault::ServerErrorAfterSettle => {
                return answer::plain(StatusCode::BAD_GATEWAY, "bad gateway").into();
            }
            Fault::StatusAfterSettle(status) => return answer::failed(status).into(),
            Fault::RequoteAfterSettle(terms) => {
                return self.state_terms(UNMATCHED, Some(terms), 0).into();
            }
            Fault::RedirectAfterSettle { status, to } => {
                return answer::redirect(status, &to).into();
            }
            Fault::SettlementPending => {
                let claim = Claim::success(&settlement).pending();
                return self.refuse(&claim, version).into();
            }
            Fault::StatusWithReceipt(status) => {
                let claim = Claim::success(&settlement);
                let mut response = answer::payment_required(
                    r#"{"error":{"message":"the upstream failed","type":"unknown_error"}}"#,
                );
                *response.status_mut() =
                    StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
                response.headers_mut().extend([claim.header(version)]);
                return response.into();
            }
            Fault::ShortReceipt { empty } => {
                let (name, value) = Claim::success(&settlement).short_header(version, empty);
                answer.headers_mut().insert(name, value);
            }
            Fault::ForeignReceipt => {
                let value = HeaderValue::from_static(r#"{"receiptId":"r1","nonce":"0x01"}"#);
                answer.headers_mut().insert(receipt, value);
            }
            Fault::ForgedReceipt(forgery) => {
                let sale = Sale {
                    signed,
                    settlement,
                    answer,
                };
                return self.forge(forgery, sale, version).into();
            }
            Fault::ChargeCeiling => {
                let amount = Some(self.charge(&signed).to_string().into());
                let claim = Claim::success(&settlement).of_amount(amount);
                answer
                    .headers_mut()
                    .insert(receipt, claim.header(version).1);
            }
            Fault::ReceiptAmount(json) => {
                let amount = serde_json::from_str(&json).ok();
                let claim = Claim::success(&settlement).of_amount(amount);
                answer
                    .headers_mut()
                    .insert(receipt, claim.header(version).1);
            }
            Fault::BrokenBodyAfterSettle => answer = answer.map(Body::broken),
            Fault::EmptyAfterSettle => answer = answer.map(|_| Body::whole("")),
            Fault::NoReceipt => drop(answer.headers_mut().remove(receipt)),
            Fault::MalformedReceipt => {
                let value = HeaderValue::from_static("not base64!");
                answer.headers_mut().insert(receipt, value);
            }
            _ => {}
        }
        answer.into()
    }

    /// Returns the content, with a receipt if there is a claim.
    fn deliver(&self, claim: Option<&Claim>) -> Response<Body> {
        let mut answer = answer::content(self.route, self.received);
        let payment = self.received.payment.as_ref();
        let version = payment.map_or(Version::V2, |payment| payment.version);
        let receipt = claim.map(|claim| claim.header(version));
        answer.headers_mut().extend(receipt);
        answer
    }

    fn forge(&self, forgery: Forgery, sale: Sale, version: Version) -> Response<Body> {
        let Sale {
            signed,
            settlement,
            mut answer,
        } = sale;
        let truth = Claim::success(&settlement);
        let mut forged = truth.clone().forged(forgery);
        match forgery {
            Forgery::Failure => return self.refuse(&forged, version),
            Forgery::AboveCeiling => {
                let above = signed.ceiling().saturating_add(U256::from(1));
                forged = forged.of_amount(Some(above.to_string().into()));
            }
            Forgery::WithTerms => answer = self.terms(UNMATCHED, 0),
            Forgery::Contradiction => {
                let receipts = [forged.header(Version::V2), truth.header(Version::V1)];
                answer.headers_mut().extend(receipts);
                return answer;
            }
            Forgery::OtherPurchase => {
                if let Some(first) = self.state.chain.settlements.first() {
                    forged = forged.of_transaction(first.transaction);
                }
            }
            _ => {}
        }
        let (name, value) = forged.header(version);
        answer.headers_mut().insert(name, value);
        answer
    }

    /// Answers a payment that could not be settled, as official sellers do: version 2 sends only a receipt, because its
    /// terms are in a header; version 1 sends the terms again.
    pub(super) fn refuse(&self, claim: &Claim, version: Version) -> Response<Body> {
        if version == Version::V1 {
            return self.refuse_with_terms(claim, version);
        }
        let mut response = answer::payment_required("{}");
        response.headers_mut().extend([claim.header(version)]);
        response
    }

    /// Answers with a receipt of failure, and with the terms in every version that the route supports.
    fn refuse_with_terms(&self, claim: &Claim, version: Version) -> Response<Body> {
        let mut response = self.terms(claim.reason(), 0);
        let (name, value) = claim.header(version);
        response.headers_mut().insert(name, value);
        response
    }
}

/// Returns an error message that quotes the payment, as official facilitators quote the arguments of a failed call.
fn quote_payment(payment: &PresentedPayment) -> String {
    let json = payment.json.as_ref();
    let signature = json.and_then(|json| json.pointer("/payload/signature")?.as_str());
    format!(
        "call failed: signature {} \u{1b}[2J\u{202e}of {}",
        signature.unwrap_or_default(),
        payment.header
    )
}
