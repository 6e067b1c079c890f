//! `bursar quote` and `bursar pay --dry-run`: prices and decisions, without a signature.

use bursar::policy::Explanation;
use bursar::reqwest::Response;
use bursar::{
    Client, Credentials, ErrorKind, PaymentStatus, PriceCheck, PriceOutcome, ResponseExt,
};
use serde::Serialize;

use crate::args::{Pay, Quote};
use crate::exit::{Exit, Failure};
use crate::outcome::{Outcome, Verdict};
use crate::policies::{self, Allowance};
use crate::prices::Prices;
use crate::problem::{Problem, redirect_target};
use crate::request::{self, Prepared};
use crate::{output, wallet};

/// The price of a request, as `--json` prints it.
#[derive(Debug, Serialize)]
pub(crate) struct QuoteOutput {
    status: u16,
    /// Set if the answer redirects elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<String>,
    /// The target for people, without the query of the request.
    #[serde(skip)]
    place: Option<String>,
    #[serde(flatten)]
    prices: Prices,
}

impl QuoteOutput {
    fn of(outcome: &PriceOutcome<Response>) -> Self {
        match outcome {
            PriceOutcome::Unpriced(response) => Self {
                status: response.status().as_u16(),
                location: redirect_target(response).map(String::from),
                place: response.redirect_place(),
                prices: Prices::default(),
            },
            PriceOutcome::Priced(price_check) => Self::of_price_check(price_check),
        }
    }

    fn of_price_check(price_check: &PriceCheck) -> Self {
        Self {
            status: 402,
            location: None,
            place: None,
            prices: Prices::of(price_check),
        }
    }

    pub(crate) fn text(&self) -> String {
        if !self.prices.offers.is_empty() {
            return self.prices.text();
        }
        let request = match &self.place {
            Some(target) => format!("the server redirects to {target}, which bursar does not ask"),
            None if self.status == 402 => {
                "the server asks for a payment, but not by x402".to_owned()
            }
            None => "the server asks for no payment".to_owned(),
        };
        format!("{request}; the answer is {}\n", self.status)
    }
}

/// `bursar quote`.
pub(crate) async fn run(args: Quote) -> Result<Exit, Failure> {
    let prepared = Prepared::read(&args.request)?;
    let has_policy = args.policy.policy.is_some() || !args.policy.network.is_empty();
    let (payer, max_price) = if has_policy {
        let allowance = policies::allowance(&args.policy)?;
        (
            Some(wallet::judging(&args.wallet, allowance.policy, allowance.chain).await?),
            allowance.max_price,
        )
    } else if args.policy.budget.is_some() || args.policy.max_per_payment.is_some() {
        return Err(Failure::usage(
            "limits need a network; add --network NAME or --policy FILE",
        ));
    } else {
        (None, None)
    };
    let client = request::client(&args.request, payer, Credentials::new())?;
    let outcome = ask(&client, &prepared, max_price).await?;
    let quote = QuoteOutput::of(&outcome);
    let printed = if args.json {
        output::print_json(&quote)
    } else {
        output::print(quote.text())
    };
    let failed = match &outcome {
        PriceOutcome::Priced(_) => false,
        PriceOutcome::Unpriced(response) => Problem::of_response(response).is_some(),
    };
    output::finish(printed, if failed { Exit::Failed } else { Exit::Done })
}

/// `bursar pay --dry-run`.
pub(crate) async fn dry_run(
    args: &Pay,
    prepared: Prepared,
    allowance: Allowance,
) -> Result<Exit, Failure> {
    let payer = wallet::judging(&args.wallet, allowance.policy, allowance.chain).await?;
    let client = request::client(&args.request, Some(payer), Credentials::new())?;
    let (outcome, verdict) = match ask(&client, &prepared, allowance.max_price).await {
        Ok(PriceOutcome::Priced(price_check)) => of_price_check(&price_check),
        Ok(unpriced) => of_unpriced(&unpriced),
        Err(error) => (Outcome::of_error(&error, None), Verdict::of(&error)),
    };
    let printed = if args.json {
        output::print_json(&outcome)
    } else {
        let quote = outcome.quote.as_ref().map(QuoteOutput::text);
        let printed = output::print(quote.unwrap_or_default());
        output::note(dry_run_line(&outcome));
        printed
    };
    let exit = match verdict {
        Verdict::Done => Exit::Done,
        Verdict::Failed | Verdict::Elsewhere => Exit::Failed,
        Verdict::Usage => Exit::Usage,
        Verdict::Denied => Exit::Denied,
    };
    output::finish(printed, exit)
}

async fn ask(
    client: &Client,
    prepared: &Prepared,
    max_price: Option<bursar::Usd>,
) -> Result<PriceOutcome<Response>, bursar::Error> {
    let mut request = prepared.on(client);
    if let Some(max) = max_price {
        request = request.max_price(max);
    }
    request.quote().await
}

/// Returns the line for people.
pub(crate) fn dry_run_line(outcome: &Outcome) -> String {
    let best = outcome.quote.as_ref().and_then(|quote| quote.prices.best);
    match (&outcome.error, best) {
        (Some(problem), _) => problem.message.clone(),
        (None, Some(_)) => "would be paid".to_owned(),
        (None, None) => "not paid: it is free".to_owned(),
    }
}

/// The outcome of a dry run whose answer has no price.
fn of_unpriced(outcome: &PriceOutcome<Response>) -> (Outcome, Verdict) {
    let quote = QuoteOutput::of(outcome);
    let error = match outcome {
        PriceOutcome::Unpriced(response) => Problem::of_response(response),
        PriceOutcome::Priced(_) => None,
    };
    let verdict = if error.is_some() {
        Verdict::Failed
    } else {
        Verdict::Done
    };
    let outcome = Outcome {
        status: Some(quote.status),
        location: quote.location.clone(),
        error,
        quote: Some(quote),
        ..Outcome::empty(PaymentStatus::NotPaid)
    };
    (outcome, verdict)
}

/// The outcome of a dry run whose answer has a price.
pub(crate) fn of_price_check(price_check: &PriceCheck) -> (Outcome, Verdict) {
    let (error, verdict) = refusal(price_check).unzip();
    let quote = QuoteOutput::of_price_check(price_check);
    let outcome = Outcome {
        status: Some(quote.status),
        error,
        quote: Some(quote),
        ..Outcome::empty(PaymentStatus::NotPaid)
    };
    (outcome, verdict.unwrap_or(Verdict::Done))
}

/// Returns the reason why bursar would not pay, in the form in which `pay` reports it.
fn refusal(price_check: &PriceCheck) -> Option<(Problem, Verdict)> {
    let problem = |kind: ErrorKind, reason: &dyn std::fmt::Display| {
        Problem::new(kind.name(), format!("not paid: {reason}"))
    };
    let explanation = |quote: &bursar::x402::Quote| {
        price_check
            .offers
            .get(quote.offer())
            .and_then(|offer| offer.explanation.as_ref())
    };
    if let Some(best) = price_check.best() {
        let why = explanation(best)
            .and_then(|explanation| explanation.ask.as_ref())
            .filter(|_| !wallet::can_ask_person())?;
        let reason = format!("needs approval ({why}), and no terminal is available to ask");
        return Some((problem(ErrorKind::Denied, &reason), Verdict::Denied));
    }
    let denial = price_check
        .preferred()
        .and_then(explanation)
        .and_then(Explanation::denial);
    Some(match denial {
        Some(denial) => {
            let problem = Problem {
                denial: Some(Box::new(denial.into())),
                ..problem(ErrorKind::Denied, denial)
            };
            (problem, Verdict::Denied)
        }
        None => (
            problem(ErrorKind::NotPayable, &"bursar can sign no offer"),
            Verdict::Failed,
        ),
    })
}
