//! Approvals: asking a person or a program before a payment.

use std::fmt;
use std::future::Future;
use std::io::{self, BufRead, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use alloy::primitives::{Address, B256};
use tokio::sync::{mpsc, oneshot};

use crate::limit::ShortDuration;
use crate::money::TokenAmount;
use crate::money::{Network, Usd};
use crate::origin::Origin;
use crate::text::{excerpt, own_text, quoted, shown_path};
use crate::x402::{PaymentMethod, Scheme};

/// Decides about payments that need an approval; see [`Policy::ask_above`](crate::Policy::ask_above).
///
/// An approval is valid once, for one authorization: the payer, payee, amount, token and nonce of the
/// request. If there is no answer within the policy's time, bursar denies the payment.
pub trait Approver: Send + Sync + 'static {
    /// Decides about one payment.
    fn decide(&self, request: &ApprovalRequest) -> impl Future<Output = Verdict> + Send;
}

/// An approver's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Approves this payment once.
    Approve,
    /// Denies this payment.
    Deny {
        /// The reason, for the caller's error.
        reason: String,
    },
}

impl Verdict {
    /// Returns a denial with its reason.
    pub fn deny(reason: impl Into<String>) -> Self {
        Self::Deny {
            reason: reason.into(),
        }
    }
}

/// A payment that waits for an approval.
///
/// bursar verified all fields except those in [`untrusted`](Self::untrusted).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ApprovalRequest {
    /// The reason why the policy asks.
    pub why: String,
    /// The origin that answered 402.
    pub origin: Origin,
    /// The request's method.
    pub method: String,
    /// The request's path, without the query unless the policy stores queries.
    pub path: String,
    /// The token and the amount. For `upto` it is the ceiling of the charge.
    pub amount: TokenAmount,
    /// The scheme and the transfer method.
    pub payment_method: PaymentMethod,
    /// The amount in dollars.
    pub usd: Option<Usd>,
    /// The chain.
    pub network: Network,
    /// The address that pays.
    pub payer: Address,
    /// The address that receives the payment.
    pub payee: Address,
    /// The longest time for which the authorization will be valid.
    pub validity: Duration,
    /// The nonce of the authorization, which binds the approval to one purchase on the chain.
    pub nonce: B256,
    /// The seller's own description. If you show it, mark it as the seller's text.
    pub untrusted: Untrusted,
}

/// Writes the question in lines: first the verified facts, then the seller's text in quotation marks.
///
/// Nobody can push the facts out of sight: the whole question has at most 2000 characters, and no text can close its quotation
/// marks or begin a line. A redirect of the seller can choose the path, so the end of a long one is left out.
impl fmt::Display for ApprovalRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (method, path) = (excerpt(&self.method), shown_path(&self.path));
        let ceiling = match self.payment_method.scheme() {
            Scheme::Exact => "",
            Scheme::Upto => "up to ",
        };
        writeln!(
            f,
            "Pay {ceiling}{} to {}?",
            own_text(&self.amount.to_string()),
            self.payee
        )?;
        writeln!(f, "  for     {method} {}{path}", self.origin)?;
        writeln!(f, "  on      {}", self.network)?;
        writeln!(f, "  because {}", own_text(&self.why))?;
        let Untrusted {
            description,
            resource_url,
        } = &self.untrusted;
        for (label, words) in [("description", description), ("resource", resource_url)] {
            if let Some(words) = words {
                writeln!(
                    f,
                    "  the seller's words, unverified ({label}): {}",
                    quoted(words)
                )?;
            }
        }
        Ok(())
    }
}

/// A seller's own text, at most 160 characters, with invisible characters escaped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Untrusted {
    /// The description of the resource.
    pub description: Option<String>,
    /// The URL that the seller claims to sell.
    pub resource_url: Option<String>,
}

type BoxFuture<'a> = Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>;

trait DynApprover: Send + Sync {
    fn decide<'a>(&'a self, request: &'a ApprovalRequest) -> BoxFuture<'a>;
}

impl<A: Approver> DynApprover for A {
    fn decide<'a>(&'a self, request: &'a ApprovalRequest) -> BoxFuture<'a> {
        Box::pin(Approver::decide(self, request))
    }
}

/// Any approver, shared.
#[derive(Clone)]
pub(crate) struct AnyApprover(Arc<dyn DynApprover>);

impl AnyApprover {
    pub(crate) fn new(approver: impl Approver) -> Self {
        Self(Arc::new(approver))
    }

    /// Returns the answer, or a denial if there is none in time.
    pub(crate) async fn decide(&self, request: &ApprovalRequest, limit: Duration) -> Verdict {
        tokio::time::timeout(limit, self.0.decide(request))
            .await
            .unwrap_or_else(|_| Verdict::deny(format!("no answer within {}", ShortDuration(limit))))
    }
}

impl fmt::Debug for AnyApprover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Approver")
    }
}

/// An approver that calls an async closure; see [`approve_fn`].
pub struct ApproverFn<F>(F);

/// Creates an approver that calls an async closure with a copy of the request.
///
/// ```
/// use bursar::usd;
/// use bursar::approval::{Verdict, approve_fn};
///
/// let approver = approve_fn(|request| async move {
///     match request.usd {
///         Some(usd) if usd <= usd!("1") => Verdict::Approve,
///         _ => Verdict::deny("too expensive"),
///     }
/// });
/// ```
pub const fn approve_fn<F, O>(decide: F) -> ApproverFn<F>
where
    F: Fn(ApprovalRequest) -> O + Send + Sync + 'static,
    O: Future<Output = Verdict> + Send,
{
    ApproverFn(decide)
}

impl<F, O> Approver for ApproverFn<F>
where
    F: Fn(ApprovalRequest) -> O + Send + Sync + 'static,
    O: Future<Output = Verdict> + Send,
{
    async fn decide(&self, request: &ApprovalRequest) -> Verdict {
        (self.0)(request.clone()).await
    }
}

impl<F> fmt::Debug for ApproverFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApproverFn")
    }
}

/// An approver that sends every request into a channel, so that another task can answer it.
#[derive(Clone, Debug)]
pub struct ChannelApprover(mpsc::Sender<PendingApproval>);

/// A request from a [`ChannelApprover`]. Answer it once. Dropping it denies the payment.
#[derive(Debug)]
#[non_exhaustive]
pub struct PendingApproval {
    /// The payment to decide about.
    pub request: ApprovalRequest,
    answer: oneshot::Sender<Verdict>,
}

impl ChannelApprover {
    /// Returns an approver and the receiver of its channel.
    ///
    /// The channel holds `capacity` unanswered requests. Further requests wait.
    #[must_use]
    pub fn new(capacity: usize) -> (Self, mpsc::Receiver<PendingApproval>) {
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        (Self(sender), receiver)
    }
}

impl PendingApproval {
    /// Sends the answer. It has no effect if the caller has stopped waiting.
    pub fn answer(self, verdict: Verdict) {
        // A closed channel means that the time to approve has passed, which has denied already.
        drop(self.answer.send(verdict));
    }
}

impl Approver for ChannelApprover {
    async fn decide(&self, request: &ApprovalRequest) -> Verdict {
        let (answer, verdict) = oneshot::channel();
        if self
            .0
            .send(PendingApproval {
                request: request.clone(),
                answer,
            })
            .await
            .is_err()
        {
            return Verdict::deny("nobody receives approval requests");
        }
        verdict
            .await
            .unwrap_or_else(|_| Verdict::deny("the approval request was dropped unanswered"))
    }
}

/// An approver that asks on the terminal. It writes the question to standard error. `yes` on standard
/// input approves.
///
/// It asks one question at a time. An answer that comes too late pays nothing.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct TerminalApprover;

/// Held while a question is on the screen.
static TERMINAL: Mutex<()> = Mutex::new(());

impl TerminalApprover {
    /// Returns the text of the question: first the verified facts, then the seller's text in quotation marks.
    #[must_use]
    pub fn question(request: &ApprovalRequest) -> String {
        format!("{request}Type yes to pay: ")
    }
}

impl Approver for TerminalApprover {
    async fn decide(&self, request: &ApprovalRequest) -> Verdict {
        let (answer, verdict) = oneshot::channel();
        let question = Self::question(request);
        // Its own thread: a runtime's would have to be waited for before the program can end.
        let thread = std::thread::Builder::new().name("bursar-approval".to_owned());
        match thread.spawn(move || ask_terminal(&question, answer)) {
            Ok(_) => verdict
                .await
                .unwrap_or_else(|_| Verdict::deny("the terminal's thread failed")),
            Err(error) => Verdict::deny(format!("the terminal cannot be asked: {error}")),
        }
    }
}

/// Asks, unless the caller has stopped waiting.
fn ask_terminal(question: &str, asker: oneshot::Sender<Verdict>) {
    let _turn = TERMINAL.lock().unwrap_or_else(PoisonError::into_inner);
    if asker.is_closed() {
        return;
    }
    let verdict = match read_answer(question) {
        Ok(answer) if answer.trim().eq_ignore_ascii_case("yes") => Verdict::Approve,
        Ok(_) => Verdict::deny("not approved on the terminal"),
        Err(error) => Verdict::deny(format!("the terminal cannot be read: {error}")),
    };
    if asker.send(verdict).is_err() {
        drop(io::stderr().write_all(b"Too late: this was not paid.\n"));
    }
}

fn read_answer(question: &str) -> io::Result<String> {
    io::stderr().write_all(question.as_bytes())?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(answer)
}
