//! `bursar quote`, and `bursar pay --dry-run`: prices and verdicts, without a signature.

use bursar::reqwest::Response;
use bursar::{
    Client, Credentials, Denial, ErrorKind, PaymentStatus, PriceCheck, PriceOutcome, PricedOffer,
    Rule,
};
use serde::Serialize;

use crate::args::{Pay, Quote};
use crate::exit::{Exit, Failure};
use crate::policies::{self, Allowance};
use crate::report::{Problem, Report, Verdict, name, status_problem};
use crate::request::{self, Prepared};
use crate::{output, wallet};

/// What a request would cost, as `--json` prints it.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    status: u16,
    /// Index of the offer that would be paid.
    best: Option<usize>,
    offers: Vec<ShownOffer>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownOffer {
    verdict: &'static str,
    amount: Option<String>,
    price: Option<String>,
    usd: Option<String>,
    asset: Option<String>,
    network: Option<String>,
    pay_to: Option<String>,
    reason: Option<String>,
    denial: Option<Denial>,
    #[serde(skip)]
    words: String,
}

/// `bursar quote`.
pub(crate) async fn run(args: Quote) -> Result<Exit, Failure> {
    let prepared = Prepared::read(&args.request)?;
    let judged = args.policy.policy.is_some() || !args.policy.network.is_empty();
    let (payer, max_price) = if judged {
        let allowance = policies::allowance(&args.policy)?;
        (
            Some(wallet::judging(&args.wallet, allowance.policy).await?),
            allowance.max_price,
        )
    } else if args.policy.budget.is_some() || args.policy.max_per_payment.is_some() {
        return Err(Failure::usage(
            "to judge an offer, name the network that may be paid on: --network NAME",
        ));
    } else {
        (None, None)
    };
    let client = request::client(&args.request, payer, Credentials::new())?;
    let answer = ask(&client, &prepared, max_price).await?;
    let shown = Shown::of(&answer);
    let printed = if args.json {
        output::print_json(&shown)
    } else {
        output::print(shown.text())
    };
    let failed = match &answer {
        PriceOutcome::Priced(_) => false,
        PriceOutcome::Unpriced(response) => {
            status_problem(response.status(), PaymentStatus::NotPaid).is_some()
        }
    };
    output::finish(printed, if failed { Exit::Failed } else { Exit::Done })
}

/// `bursar pay --dry-run`.
pub(crate) async fn dry_run(
    args: &Pay,
    prepared: Prepared,
    allowance: Allowance,
) -> Result<Exit, Failure> {
    let payer = wallet::judging(&args.wallet, allowance.policy).await?;
    let client = request::client(&args.request, Some(payer), Credentials::new())?;
    let (report, verdict) = match ask(&client, &prepared, allowance.max_price).await {
        Ok(answer) => judged(&answer),
        Err(error) => (Report::of_error(&error, None), Verdict::of(&error)),
    };
    let printed = if args.json {
        output::print_json(&report)
    } else {
        let printed = output::print(report.quote.as_ref().map(Shown::text).unwrap_or_default());
        output::say(dry_line(&report));
        printed
    };
    let exit = match verdict {
        Verdict::Done => Exit::Done,
        Verdict::Failed => Exit::Failed,
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

pub(crate) fn dry_line(report: &Report) -> String {
    match &report.error {
        Some(problem) => problem.message.clone(),
        None if report
            .quote
            .as_ref()
            .is_some_and(|quote| quote.best.is_some()) =>
        {
            "would be paid".to_owned()
        }
        None => "not paid: it is free".to_owned(),
    }
}

/// What a purchase would come to.
fn judged(answer: &PriceOutcome<Response>) -> (Report, Verdict) {
    let (error, verdict) = match answer {
        PriceOutcome::Unpriced(response) => {
            match status_problem(response.status(), PaymentStatus::NotPaid) {
                None => (None, Verdict::Done),
                problem => (problem, Verdict::Failed),
            }
        }
        PriceOutcome::Priced(price_check) => return judged_quotation(price_check),
    };
    let shown = Shown::of(answer);
    let report = Report {
        status: Some(shown.status),
        error,
        quote: Some(shown),
        ..Report::empty(PaymentStatus::NotPaid)
    };
    (report, verdict)
}

/// What a purchase at this price would come to.
pub(crate) fn judged_quotation(price_check: &PriceCheck) -> (Report, Verdict) {
    let (error, verdict) = match refusal(price_check) {
        None => (None, Verdict::Done),
        Some((kind, words, verdict)) => (
            Some(Problem {
                kind: kind.name(),
                message: format!("not paid: {words}"),
            }),
            verdict,
        ),
    };
    let shown = Shown::of_quotation(price_check);
    let report = Report {
        status: Some(shown.status),
        error,
        quote: Some(shown),
        ..Report::empty(PaymentStatus::NotPaid)
    };
    (report, verdict)
}

/// Why the quotation would not be bought, as buying itself would say it.
fn refusal(price_check: &PriceCheck) -> Option<(ErrorKind, String, Verdict)> {
    let said = |quote: &bursar::Quote| {
        price_check
            .offers
            .get(quote.offer())
            .and_then(|offer| offer.explanation.as_ref())
    };
    if let Some(best) = price_check.best() {
        let why = said(best)
            .and_then(|said| said.ask.as_ref())
            .filter(|_| !wallet::someone_to_ask())?;
        return Some((
            ErrorKind::Denied,
            format!("needs approval ({why}), and nobody can be asked"),
            Verdict::Denied,
        ));
    }
    match price_check
        .preferred()
        .and_then(said)
        .and_then(bursar::Explanation::denial)
    {
        Some(denial) => Some((ErrorKind::Denied, denial.to_string(), Verdict::Denied)),
        None => Some((
            ErrorKind::NotPayable,
            "no offer can be signed for".to_owned(),
            Verdict::Failed,
        )),
    }
}

impl Shown {
    fn of(answer: &PriceOutcome<Response>) -> Self {
        match answer {
            PriceOutcome::Unpriced(response) => Self {
                status: response.status().as_u16(),
                best: None,
                offers: Vec::new(),
            },
            PriceOutcome::Priced(price_check) => Self::of_quotation(price_check),
        }
    }

    fn of_quotation(price_check: &PriceCheck) -> Self {
        Self {
            status: 402,
            best: price_check.best().map(bursar::Quote::offer),
            offers: price_check.offers.iter().map(ShownOffer::of).collect(),
        }
    }

    pub(crate) fn text(&self) -> String {
        if self.offers.is_empty() {
            let what = if self.status == 402 {
                "payment is asked for, but not by x402"
            } else {
                "no payment is asked for"
            };
            return format!("{what}; the answer is {}\n", self.status);
        }
        let mut text = String::new();
        for (index, offer) in self.offers.iter().enumerate() {
            let mark = if self.best == Some(index) {
                ", the one to be paid"
            } else {
                ""
            };
            let place = index.saturating_add(1);
            text.push_str(&format!("offer {place}{mark}: {}\n", offer.words));
        }
        text
    }
}

impl ShownOffer {
    fn of(offer: &PricedOffer) -> Self {
        let quote = match &offer.quote {
            Ok(quote) => quote,
            Err(reason) => {
                let words = format!("not payable: {reason}");
                return Self {
                    verdict: "unpayable",
                    reason: Some(reason.to_string()),
                    words,
                    ..Self::default()
                };
            }
        };
        let (verdict, reason, denial) = verdict(offer);
        let price = quote.amount().to_string();
        let mut words = format!("{price} to {} on {}", quote.pay_to(), name(quote.network()));
        match &offer.explanation {
            Some(explanation) => {
                for line in explanation.to_string().lines() {
                    words.push_str("\n  ");
                    words.push_str(line);
                }
            }
            None => words.push_str("; not judged: name a policy or a network to pay on"),
        }
        Self {
            verdict,
            amount: Some(quote.value().to_string()),
            price: Some(price),
            usd: quote.dollars().map(|usd| usd.to_string()),
            asset: Some(quote.asset().address().to_string()),
            network: Some(quote.network().to_string()),
            pay_to: Some(quote.pay_to().to_string()),
            reason,
            denial,
            words,
        }
    }
}

/// What would become of an offer: a stable name, why, and the refusal.
pub(crate) fn verdict(offer: &PricedOffer) -> (&'static str, Option<String>, Option<Denial>) {
    match &offer.explanation {
        None => ("unjudged", None, None),
        Some(said) => match (said.denial(), &said.ask) {
            (Some(denial), _) => ("denied", Some(denial.to_string()), Some(denial.clone())),
            (None, Some(why)) => ("ask", Some(format!("{} {why}", Rule::Approval)), None),
            (None, None) => ("allowed", None, None),
        },
    }
}
