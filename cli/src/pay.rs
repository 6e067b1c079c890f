//! `bursar pay`.

use bursar::ledger::PurchaseKey;
use bursar::reqwest::Response;
use bursar::reqwest::header::USER_AGENT;
use bursar::{Client, Credentials, Error, ErrorKind, PaymentStatus, Purchase, ResponseExt, Url};

use crate::args::Pay;
use crate::body::{Interruption, Sink};
use crate::exit::{Exit, Failure};
use crate::outcome::{Outcome, Verdict};
use crate::payment::{Sums, prefix};
use crate::policies::{self, Allowance};
use crate::problem::{Problem, root_cause};
use crate::request::{self, Prepared};
use crate::{output, quote, wallet};

pub(crate) async fn run(args: Pay) -> Result<Exit, Failure> {
    if args.purchase_id.is_some() && args.repeat > 1 {
        return Err(Failure::usage(
            "--purchase-id cannot be used with --repeat: each repeated request is a purchase of its own",
        ));
    }
    let json = args.json;
    let ended = start(args).await;
    if let Err(failure) = ended.as_ref()
        && json
        && failure.exit == Exit::Failed
    {
        // If standard output fails, standard error and the exit code still report the failure.
        drop(output::print_json(&Outcome::of_failure(failure)));
    }
    ended
}

async fn start(args: Pay) -> Result<Exit, Failure> {
    let allowance = policies::allowance(&args.policy)?;
    let prepared = Prepared::read(&args.request)?;
    if args.dry_run {
        return quote::dry_run(&args, prepared, allowance).await;
    }
    Ok(Buyer::new(args, prepared, allowance).await?.run().await)
}

/// The parts of a run of one or more requests.
struct Buyer {
    args: Pay,
    prepared: Prepared,
    allowance: Allowance,
    client: Client,
    sink: Sink,
}

/// The end of one request of a run.
struct Call {
    outcome: Outcome,
    verdict: Verdict,
    reader_gone: bool,
}

impl Call {
    const fn without_body(outcome: Outcome, verdict: Verdict) -> Self {
        Self {
            outcome,
            verdict,
            reader_gone: false,
        }
    }
}

impl Buyer {
    async fn new(args: Pay, prepared: Prepared, allowance: Allowance) -> Result<Self, Failure> {
        let sink = Sink::open(&args)?;
        let (policy, chain) = (allowance.policy.clone(), allowance.chain.clone());
        let payer = wallet::paying(&args.wallet, policy, chain).await?;
        let client = request::client(&args.request, Some(payer), allowance.keys.clone())?;
        Ok(Self {
            args,
            prepared,
            allowance,
            client,
            sink,
        })
    }

    async fn run(mut self) -> Exit {
        let mut run = Run::default();
        let (mut ended, mut is_read) = (None, true);
        for _ in 0..self.args.repeat {
            if self.args.repeat > 1 {
                output::status(run.progress(self.args.repeat));
            }
            let call = self.buy().await;
            let printed = self.print(&call);
            run.add(&call);
            ended = Some(call.outcome.line()).filter(|_| call.verdict != Verdict::Done);
            is_read = printed && !call.reader_gone;
            if call.verdict != Verdict::Done || !is_read {
                break;
            }
        }
        let ended_denied = matches!(run.last, Some((Verdict::Denied, _)));
        output::clear_status();
        if self.args.repeat > 1 && is_read {
            output::note(run.summary(self.args.repeat, ended));
        }
        if ended_denied {
            // A server is written in the background, which ends with this process.
            self.record_denials().await;
        }
        run.exit()
    }

    /// Waits until the ledger has counted the denials. It does without them if it cannot.
    async fn record_denials(&self) {
        if let Some(payer) = self.client.payer() {
            drop(payer.ledger().record_denials().await);
        }
    }

    async fn buy(&mut self) -> Call {
        let mut request = self.prepared.on(&self.client);
        if let Some(max) = self.allowance.max_price {
            request = request.max_price(max);
        }
        if let Some(id) = &self.args.purchase_id {
            request = request.purchase_id(id.as_str());
        }
        if self.args.allow_duplicate {
            request = request.allow_duplicate();
        }
        match request.send().await {
            Ok(response) => self.receive(response).await,
            Err(error) => {
                let purchase = self.purchase(&error).await;
                let outcome = Outcome::of_error(&error, purchase.as_ref());
                Call::without_body(outcome, Verdict::of(&error))
            }
        }
    }

    async fn receive(&mut self, response: Response) -> Call {
        let mut outcome = Outcome::of_response(&response);
        let response = match response.redirect_target() {
            None => response,
            Some(target) if self.args.location => match self.fetch(target).await {
                Ok(found) => {
                    outcome.status = Some(found.status().as_u16());
                    outcome.error =
                        Problem::of_response(&found).map(|problem| problem.after(outcome.payment));
                    found
                }
                Err(problem) => {
                    outcome.error = Some(problem.after(outcome.payment));
                    return Call::without_body(outcome, Verdict::Failed);
                }
            },
            Some(_) => return Call::without_body(outcome, Verdict::Elsewhere),
        };
        let delivered = self.sink.deliver(response).await;
        outcome.body = delivered.shown;
        let reader_gone = matches!(delivered.interruption, Some(Interruption::ReaderGone));
        outcome.error = outcome.error.or_else(|| {
            delivered
                .interruption
                .and_then(|interruption| undelivered(interruption, outcome.payment))
        });
        let verdict = if outcome.error.is_some() {
            Verdict::Failed
        } else {
            Verdict::Done
        };
        Call {
            outcome,
            verdict,
            reader_gone,
        }
    }

    /// Fetches the target of a redirect: a plain `GET` without a payment, an API key or a header of the request.
    async fn fetch(&self, mut target: Url) -> Result<Response, Problem> {
        const MAX_HOPS: usize = 10;
        let client = request::client(&self.args.request, None, Credentials::new());
        let client = client.map_err(|failure| Problem::new(failure.kind, failure.message))?;
        for _ in 0..MAX_HOPS {
            let request = client.get(target).header(USER_AGENT, request::AGENT);
            let answer = request.no_payment().send().await;
            let answer = answer.map_err(|error| Problem::of(&error))?;
            match answer.redirect_target() {
                Some(next) => target = next,
                None => return Ok(answer),
            }
        }
        let message = format!("more than {MAX_HOPS} redirects");
        Err(Problem::new(ErrorKind::Transport.name(), message))
    }

    /// Returns the purchase of a request that failed after its signature.
    async fn purchase(&self, error: &Error) -> Option<Purchase> {
        let id = error
            .purchase_id()
            .filter(|_| error.payment_status() != PaymentStatus::NotPaid)?;
        let payer = self.client.payer()?;
        let key = PurchaseKey::new(payer.address(), id.clone());
        payer.ledger().purchase(&key).await.ok().flatten()
    }

    /// Prints the outcome of a request. Returns false if the reader of standard output is gone.
    fn print(&mut self, call: &Call) -> bool {
        if self.args.json {
            return output::print_json(&call.outcome).is_ok();
        }
        if !call.reader_gone {
            self.sink.end_line();
            output::note(call.outcome.line());
        }
        true
    }
}

fn undelivered(interruption: Interruption, payment: PaymentStatus) -> Option<Problem> {
    let prefix = prefix(payment);
    match interruption {
        Interruption::ReaderGone => None,
        Interruption::Read(error) => {
            let kind = if error.is_timeout() {
                ErrorKind::Timeout
            } else {
                ErrorKind::Transport
            };
            let cause = root_cause(&error);
            Some(Problem::new(
                kind.name(),
                format!("{prefix}: the body broke off: {cause}"),
            ))
        }
        Interruption::Write(error) => Some(Problem::new(
            "output",
            format!("{prefix}: the body cannot be written: {error}"),
        )),
    }
}

/// Returns the exit code of one call with these payments, the main one last.
#[cfg(feature = "mcp")]
pub(crate) fn exit_of(verdict: Verdict, payments: &[PaymentStatus]) -> Exit {
    let last = payments.last().copied().unwrap_or(PaymentStatus::NotPaid);
    Run {
        last: Some((verdict, last)),
        any_unknown: payments.contains(&PaymentStatus::MaybePaid),
        any_paid: payments.contains(&PaymentStatus::Paid),
        ..Run::default()
    }
    .exit()
}

/// The payments of a run of requests.
#[derive(Default)]
struct Run {
    last: Option<(Verdict, PaymentStatus)>,
    any_unknown: bool,
    any_paid: bool,
    /// The number of requests that succeeded.
    done: u32,
    paid: Sums,
    maybe_paid: Sums,
}

impl Run {
    fn add(&mut self, call: &Call) {
        if call.verdict == Verdict::Done {
            self.done = self.done.saturating_add(1);
        }
        if let Some(payment) = &call.outcome.authorization {
            match call.outcome.payment {
                PaymentStatus::Paid => self.paid.add(payment),
                _ => self.maybe_paid.add(payment),
            }
        }
        let payment = call.outcome.payment;
        self.last = Some((call.verdict, payment));
        self.any_unknown |= payment == PaymentStatus::MaybePaid;
        self.any_paid |= payment == PaymentStatus::Paid;
    }

    /// Returns the line that a terminal shows during a run.
    fn progress(&self, of: u32) -> String {
        format!("{} of {of} requests done; paid {}", self.done, self.paid)
    }

    /// Returns the last line of a run of more than one request.
    fn summary(&self, of: u32, ended: Option<String>) -> String {
        let mut line = self.progress(of);
        if !self.maybe_paid.is_empty() {
            line.push_str(&format!(", may be paid {}", self.maybe_paid));
        }
        match ended {
            Some(reason) => format!("{line}; stopped by: {reason}"),
            None => line,
        }
    }

    /// Returns the exit code, by the rule that `bursar pay --help` describes.
    fn exit(&self) -> Exit {
        match self.last {
            Some((Verdict::Denied, PaymentStatus::NotPaid)) => Exit::Denied,
            _ if self.any_unknown => Exit::Unknown,
            Some((Verdict::Done, _)) | None => Exit::Done,
            Some((Verdict::Elsewhere, PaymentStatus::Paid)) => Exit::PaidElsewhere,
            _ if self.any_paid => Exit::PaidAndFailed,
            Some((Verdict::Usage, _)) => Exit::Usage,
            Some(_) => Exit::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_with_a_signature_exits_with_3_only_if_its_last_request_was_denied_and_never_with_1() {
        use PaymentStatus::{MaybePaid, NotPaid, Paid};
        use Verdict::{Denied, Done, Elsewhere, Failed, Usage};
        let run = |calls: &[(Verdict, PaymentStatus)]| {
            let mut run = Run::default();
            for (verdict, payment) in calls {
                run.add(&Call {
                    outcome: Outcome::empty(*payment),
                    verdict: *verdict,
                    reader_gone: false,
                });
            }
            run.exit()
        };
        for (calls, exit) in [
            (&[(Done, NotPaid)][..], Exit::Done),
            (&[(Done, Paid)], Exit::Done),
            (&[(Done, MaybePaid)], Exit::Unknown),
            (&[(Failed, NotPaid)], Exit::Failed),
            (&[(Usage, NotPaid)], Exit::Usage),
            (&[(Denied, NotPaid)], Exit::Denied),
            (&[(Denied, MaybePaid)], Exit::Unknown),
            (&[(Failed, MaybePaid)], Exit::Unknown),
            (&[(Failed, Paid)], Exit::PaidAndFailed),
            (&[(Elsewhere, Paid)], Exit::PaidElsewhere),
            (&[(Elsewhere, MaybePaid)], Exit::Unknown),
            (&[(Elsewhere, NotPaid)], Exit::Failed),
            (&[(Done, Paid), (Failed, NotPaid)], Exit::PaidAndFailed),
            (&[(Done, MaybePaid), (Failed, NotPaid)], Exit::Unknown),
            (&[(Done, MaybePaid), (Failed, Paid)], Exit::Unknown),
            (&[(Done, Paid), (Done, NotPaid)], Exit::Done),
            (&[(Done, MaybePaid), (Done, Paid)], Exit::Unknown),
            (&[(Done, Paid), (Denied, NotPaid)], Exit::Denied),
        ] {
            assert_eq!(run(calls), exit, "{calls:?}");
        }
    }
}
