//! `bursar pay`.

use bursar::reqwest::Response;
use bursar::{Client, Error, ErrorKind, PaymentStatus, Purchase, PurchaseKey, ResponseExt};

use crate::args::Pay;
use crate::body::{Sink, Trouble};
use crate::exit::{Exit, Failure};
use crate::policies::{self, Allowance};
use crate::report::{
    ApiCall, Problem, Proof, Report, Signed, Verdict, lead, root_of, status_problem,
};
use crate::request::{self, Prepared};
use crate::{output, quote, wallet};

pub(crate) async fn run(args: Pay) -> Result<Exit, Failure> {
    if args.purchase_id.is_some() && args.repeat > 1 {
        return Err(Failure::usage(
            "--purchase-id names one purchase; with --repeat every request is another",
        ));
    }
    let json = args.json;
    let ended = begin(args).await;
    if let Err(failure) = ended.as_ref()
        && json
        && failure.exit == Exit::Failed
    {
        // Who reads standard output is told by standard error and the exit code as well.
        drop(output::print_json(&Report::of_failure(failure)));
    }
    ended
}

async fn begin(args: Pay) -> Result<Exit, Failure> {
    let allowance = policies::allowance(&args.policy)?;
    let prepared = Prepared::read(&args.request)?;
    if args.dry_run {
        return quote::dry_run(&args, prepared, allowance).await;
    }
    Ok(Buyer::new(args, prepared, allowance).await?.run().await)
}

/// Everything that is needed to buy, once or more often.
struct Buyer {
    args: Pay,
    prepared: Prepared,
    allowance: Allowance,
    client: Client,
    sink: Sink,
}

/// How one request of a run ended.
struct Call {
    report: Report,
    verdict: Verdict,
    reader_gone: bool,
}

impl Buyer {
    async fn new(args: Pay, prepared: Prepared, allowance: Allowance) -> Result<Self, Failure> {
        let sink = Sink::open(&args)?;
        let payer = wallet::paying(&args.wallet, allowance.policy.clone()).await?;
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
        for _ in 0..self.args.repeat {
            let call = self.buy().await;
            let told = self.emit(&call);
            run.add(&call);
            if call.verdict != Verdict::Done || call.reader_gone || !told {
                break;
            }
        }
        run.exit()
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
            Ok(response) => self.received(response).await,
            Err(error) => {
                let entry = self.entry(&error).await;
                let report = Report::of_error(&error, entry.as_ref());
                Call {
                    report,
                    verdict: Verdict::of(&error),
                    reader_gone: false,
                }
            }
        }
    }

    async fn received(&mut self, response: Response) -> Call {
        let (status, spend) = (response.status(), response.payment_status());
        let mut report = Report {
            status: Some(status.as_u16()),
            paid: response.payment().map(Signed::from),
            receipt: response.receipt().map(Proof::from),
            called: response.api_call().map(ApiCall::from),
            error: status_problem(status, spend),
            ..Report::empty(spend)
        };
        let delivered = self.sink.deliver(response).await;
        report.body = delivered.shown;
        let reader_gone = matches!(delivered.trouble, Some(Trouble::ReaderGone));
        report.error = report.error.or_else(|| {
            delivered
                .trouble
                .and_then(|trouble| undelivered(trouble, spend))
        });
        let verdict = if report.error.is_some() {
            Verdict::Failed
        } else {
            Verdict::Done
        };
        Call {
            report,
            verdict,
            reader_gone,
        }
    }

    /// What the books hold of a purchase that ended in an error after its signature.
    async fn entry(&self, error: &Error) -> Option<Purchase> {
        let id = error
            .purchase_id()
            .filter(|_| error.payment_status() != PaymentStatus::NotPaid)?;
        let payer = self.client.payer()?;
        let key = PurchaseKey::new(payer.address(), id.clone());
        payer.ledger().purchase(&key).await.ok().flatten()
    }

    /// Says how a request ended; whether anybody listens.
    fn emit(&self, call: &Call) -> bool {
        if self.args.json {
            return output::print_json(&call.report).is_ok();
        }
        if !call.reader_gone {
            output::say(call.report.line());
        }
        true
    }
}

fn undelivered(trouble: Trouble, spend: PaymentStatus) -> Option<Problem> {
    let lead = lead(spend);
    match trouble {
        Trouble::ReaderGone => None,
        Trouble::Read(error) => Some(Problem {
            kind: if error.is_timeout() {
                ErrorKind::Timeout
            } else {
                ErrorKind::Transport
            }
            .name(),
            message: format!("{lead}: the body broke off: {}", root_of(&error)),
        }),
        Trouble::Write(error) => Some(Problem {
            kind: "output",
            message: format!("{lead}: the body cannot be written: {error}"),
        }),
    }
}

/// The exit code of one request.
#[cfg(feature = "mcp")]
pub(crate) fn exit_of(verdict: Verdict, spend: PaymentStatus) -> Exit {
    let any_unknown = spend == PaymentStatus::MaybePaid;
    Run {
        last: Some((verdict, spend)),
        any_unknown,
        any_settled: spend == PaymentStatus::Paid,
    }
    .exit()
}

/// How a run of requests stands.
#[derive(Default)]
struct Run {
    last: Option<(Verdict, PaymentStatus)>,
    any_unknown: bool,
    any_settled: bool,
}

impl Run {
    fn add(&mut self, call: &Call) {
        let spend = call.report.spend;
        self.last = Some((call.verdict, spend));
        self.any_unknown |= spend == PaymentStatus::MaybePaid;
        self.any_settled |= spend == PaymentStatus::Paid;
    }

    /// `--help` tells the rule.
    fn exit(&self) -> Exit {
        match self.last {
            Some((Verdict::Denied, PaymentStatus::NotPaid)) => Exit::Denied,
            _ if self.any_unknown => Exit::Unknown,
            Some((Verdict::Done, _)) | None => Exit::Done,
            _ if self.any_settled => Exit::PaidAndFailed,
            Some((Verdict::Usage, _)) => Exit::Usage,
            Some(_) => Exit::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_in_which_a_signature_left_never_exits_1_nor_3_but_by_a_denial_of_its_own() {
        use PaymentStatus::{MaybePaid, NotPaid, Paid};
        use Verdict::{Denied, Done, Failed, Usage};
        let run = |calls: &[(Verdict, PaymentStatus)]| {
            let mut run = Run::default();
            for (verdict, spend) in calls {
                run.add(&Call {
                    report: Report::empty(*spend),
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
