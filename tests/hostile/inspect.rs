//! The inspection of a trial: its outcome, and everything that must hold for every seller.

use std::collections::HashSet;
use std::fmt::Write;
use std::time::{Duration, Instant};

use bursar::clock::{Clock, SystemClock};
use bursar::ledger::State;
use bursar::primitives::U256;
use bursar::signer::{PermitTransfer, TransferAuthorization};
use bursar::{Address, Asset, Error, PaymentStatus, Purchase, ResponseExt};
use bursar_testing::{Paywall, Route};
use bursar_tests::paywall::purchases;
use bursar_tests::signatures::{SignatureLog, wallet};
use bursar_tests::tokens::usdc;
use reqwest::Response;

use crate::trial::{Answer, CALL_TIME, Prepared};

/// The most that the policy allows for one payment, in atomic units.
const LIMIT: u64 = 50_000;
/// The longest validity that the policy allows, and a minute for the duration of the trial, in seconds.
const VALIDITY: u64 = 300 + 60;
/// The longest time of a trial, on the slowest machine.
const AT_MOST: Duration = Duration::from_secs(20);

/// The result of a purchase, and whether the content arrived.
struct Got {
    answer: Result<(u16, PaymentStatus), (Error, Option<u16>)>,
    delivered: bool,
}

impl Got {
    async fn of(result: Result<Response, Error>) -> Self {
        match result {
            Ok(response) => {
                let answer = Ok((response.status().as_u16(), response.payment_status()));
                Self {
                    answer,
                    delivered: response.text().await.is_ok_and(|text| text == "the report"),
                }
            }
            Err(error) => {
                let status = error.status().map(|status| status.as_u16());
                Self {
                    answer: Err((error, status)),
                    delivered: false,
                }
            }
        }
    }

    fn is(&self, expected: Answer) -> bool {
        match (expected, &self.answer) {
            (Answer::Response(status, payment), Ok(got)) => *got == (status, payment),
            (Answer::Error(kind, payment), Err((error, _))) => {
                (error.kind(), error.payment_status()) == (kind, payment)
            }
            (Answer::Denied(rule, payment), Err((error, _))) => {
                error.payment_status() == payment
                    && error.denial().is_some_and(|denial| denial.rule == rule)
            }
            (Answer::Uncertain(status), Ok(got)) => *got == (status, PaymentStatus::MaybePaid),
            (Answer::Uncertain(status), Err((error, got))) => {
                error.payment_status() == PaymentStatus::MaybePaid && *got == Some(status)
            }
            _ => false,
        }
    }

    fn shown(&self) -> String {
        match &self.answer {
            Ok(got) => format!("{got:?}"),
            Err((error, status)) => format!(
                "{:?}, {:?}, {status:?}: {error}",
                error.kind(),
                error.payment_status()
            ),
        }
    }
}

/// The parts that both kinds of signed messages have.
struct Signed {
    is_permit: bool,
    asset: Asset,
    to: Address,
    value: U256,
    expires: u64,
    nonce: U256,
}

impl Signed {
    fn transfer(transfer: &TransferAuthorization) -> Self {
        Self {
            is_permit: false,
            asset: transfer.asset().clone(),
            to: transfer.to(),
            value: transfer.value(),
            expires: transfer.valid_before(),
            nonce: transfer.nonce().into(),
        }
    }

    fn permit(permit: &PermitTransfer) -> Self {
        Self {
            is_permit: true,
            asset: permit.asset().clone(),
            to: permit.to(),
            value: permit.value(),
            expires: permit.deadline(),
            nonce: permit.nonce(),
        }
    }
}

/// The complaints about one trial.
struct Complaints {
    about: String,
    list: String,
}

impl Complaints {
    fn unless(&mut self, holds: bool, complaint: impl FnOnce() -> String) {
        if !holds {
            writeln!(self.list, "{}: {}", self.about, complaint()).unwrap();
        }
    }
}

impl Prepared {
    /// Runs the purchase and returns the complaints.
    pub(crate) async fn run(self) -> String {
        let Self {
            trial,
            version,
            client,
            signatures,
            seller,
        } = self;
        let about = format!("{:?} [{}]", trial.fault, about(&version));
        let mut complaints = Complaints {
            about: about.chars().take(200).collect(),
            list: String::new(),
        };
        let begun = Instant::now();
        let now = SystemClock.now().secs();
        let request = (trial.request)(client.get(seller.url("/report")));
        let Ok(got) =
            tokio::time::timeout(AT_MOST, async { Got::of(request.send().await).await }).await
        else {
            return format!("{about}: does not end\n");
        };
        let took = begun.elapsed();
        // A late settlement happens when the seller notices that the buyer has disconnected.
        let settling =
            tokio::time::timeout(AT_MOST, seller.wait_for_settlements(trial.settled.0)).await;
        complaints.unless(settling.is_ok(), || "does not settle".to_owned());

        complaints.unless(got.is(trial.answer), || {
            format!("expected {:?}, got {}", trial.answer, got.shown())
        });
        complaints.unless(got.delivered == trial.delivered, || {
            format!("delivered: {}", got.delivered)
        });
        // A seller that hangs before the payment costs the time limit of one call.
        let limit = if trial.impatient && trial.signatures == 0 {
            CALL_TIME
        } else {
            AT_MOST / 2
        };
        complaints.unless(took < limit, || format!("took {took:?}"));
        let sent = seller.bytes_sent();
        complaints.unless(sent <= trial.bytes, || {
            format!("the seller sent {sent} bytes")
        });

        let count = signatures.count();
        complaints.unless(count == trial.signatures, || format!("{count} signatures"));
        let settled = seller.settlements();
        let sum = seller.paid_by(wallet().address());
        let expected = (trial.settled.0, U256::from(trial.settled.1));
        complaints.unless((settled.len(), sum) == expected, || {
            format!("{} settlements of {sum}", settled.len())
        });

        let purchases = purchases(&client).await;
        let states: Vec<State> = purchases.iter().map(|purchase| purchase.state).collect();
        let recorded = match (trial.states, states.as_slice()) {
            ([], []) => true,
            (expected, [state]) => expected.contains(state),
            _ => false,
        };
        complaints.unless(recorded, || format!("the ledger has {states:?}"));

        check_invariants(&mut complaints, &seller, &signatures, &purchases, now);
        check_secrecy(&mut complaints, &seller, &got, &purchases);
        complaints.list
    }
}

/// Returns the versions and the method of a route.
fn about(route: &Route) -> String {
    let shown = format!("{route:?}");
    let method = ["Permit2", "Upto"]
        .into_iter()
        .find(|method| shown.contains(&format!("[{method}]")));
    format!("{} {}", versions(route), method.unwrap_or_default())
}

pub(crate) fn versions(route: &Route) -> &'static str {
    let shown = format!("{route:?}");
    match (shown.contains("V2"), shown.contains("V1")) {
        (true, true) => "both versions",
        (true, false) => "version 2",
        _ => "version 1",
    }
}

/// Returns the complaints about the signatures, the wire, the chain and the ledger, whatever the outcome was.
pub(crate) fn complaints(
    seller: &Paywall,
    signatures: &SignatureLog,
    purchases: &[Purchase],
    now: u64,
) -> String {
    let mut complaints = Complaints {
        about: "a buyer".to_owned(),
        list: String::new(),
    };
    check_invariants(&mut complaints, seller, signatures, purchases, now);
    complaints.list
}

/// Checks the rules that hold for every seller: what is signed, sent and could be settled.
fn check_invariants(
    complaints: &mut Complaints,
    seller: &Paywall,
    signatures: &SignatureLog,
    purchases: &[Purchase],
    now: u64,
) {
    let usdc = usdc("base-sepolia");
    let forbidden = [Address::ZERO, wallet().address(), usdc.address()];
    let (transfers, permits) = (signatures.all(), signatures.permits());
    let transfers = transfers.iter().map(Signed::transfer);
    let signed: Vec<Signed> = transfers
        .chain(permits.iter().map(Signed::permit))
        .collect();
    for message in &signed {
        complaints.unless(message.value <= U256::from(LIMIT), || {
            format!("signed {}", message.value)
        });
        let validity = message.expires.saturating_sub(now);
        complaints.unless(validity <= VALIDITY, || format!("signed for {validity} s"));
        complaints.unless(!forbidden.contains(&message.to), || {
            format!("signed for {}", message.to)
        });
        complaints.unless(message.asset == usdc, || {
            format!("signed {}", message.asset)
        });
    }
    // Neither kind excludes the other on the chain.
    let kinds: HashSet<_> = signed.iter().map(|message| message.is_permit).collect();
    complaints.unless(kinds.len() <= 1, || {
        "the purchase has signatures of both kinds".to_owned()
    });
    let nonces: HashSet<_> = signed.iter().map(|message| message.nonce).collect();
    complaints.unless(nonces.len() <= 1, || {
        "the purchase has several nonces".to_owned()
    });

    let requests = seller.requests();
    let presented: HashSet<_> = requests
        .iter()
        .filter_map(|request| request.payment.as_ref())
        .map(|payment| payment.header.as_str())
        .collect();
    // A second signature for the same terms within the same second has the same bytes.
    complaints.unless(
        presented.len() <= signed.len() && presented.is_empty() == signed.is_empty(),
        || {
            format!(
                "{} payments on the wire, {} signatures",
                presented.len(),
                signed.len()
            )
        },
    );
    let tracked = requests
        .iter()
        .any(|request| request.headers.contains_key("cookie"));
    complaints.unless(!tracked, || {
        "the client sent the seller's cookie back".to_owned()
    });
    complaints.unless(requests.len() <= 20, || {
        format!("{} requests", requests.len())
    });

    // A seller that kept every payment can settle at most the amount that the ledger counts.
    let _more = seller.settle_presented();
    let settled = seller.settlements();
    complaints.unless(settled.len() <= 1, || {
        format!("{} transfers could be made", settled.len())
    });
    let held = purchases
        .iter()
        .filter(|purchase| purchase.counts(SystemClock.now()))
        .map(|purchase| purchase.value);
    let held = held.fold(U256::ZERO, U256::saturating_add);
    let taken = seller.paid_by(wallet().address());
    complaints.unless(taken <= held, || {
        format!("{taken} could be taken, and the ledger counts {held}")
    });
}

/// Checks that errors and purchases show no payment and no signature, and contain no terminal control characters.
fn check_secrecy(complaints: &mut Complaints, seller: &Paywall, got: &Got, purchases: &[Purchase]) {
    let mut shown_text = format!(
        "{purchases:?} {}",
        serde_json::to_string(purchases).unwrap()
    );
    if let Err((error, _)) = &got.answer {
        let mut source: Option<&dyn std::error::Error> = Some(error);
        while let Some(error) = source {
            write!(shown_text, "{error} {error:?}").unwrap();
            source = error.source();
        }
        let shown = error.to_string();
        let is_control = |c: char| {
            c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}')
        };
        complaints.unless(!shown.contains(is_control), || {
            format!("the error has control characters: {shown:?}")
        });
        complaints.unless(shown.len() < 4_000, || {
            format!("the error has {} bytes", shown.len())
        });
    }
    for payment in seller
        .requests()
        .into_iter()
        .filter_map(|request| request.payment)
    {
        // A payment for a deeply nested offer is not parsed, so it has no JSON.
        let signature = payment
            .json
            .as_ref()
            .map(|json| json["payload"]["signature"].as_str().unwrap());
        let hex = signature.map(|signature| signature.trim_start_matches("0x"));
        complaints.unless(!hex.is_some_and(|hex| shown_text.contains(hex)), || {
            format!("a signature is shown: {shown_text}")
        });
        complaints.unless(!shown_text.contains(&payment.header), || {
            format!("a payment is shown: {shown_text}")
        });
    }
}
