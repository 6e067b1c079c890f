//! Asking somebody before paying.

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

/// Decides payments that the policy wants approved.
///
/// An approval is for one authorization: the payer, payee, amount, token and nonce that it was
/// asked about, once. No answer within the policy's time denies.
pub trait Approver: Send + Sync + 'static {
    /// Answers for one payment.
    fn decide(&self, request: &ApprovalRequest) -> impl Future<Output = Verdict> + Send;
}

/// An approver's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Pay this once.
    Approve,
    /// Do not pay.
    Deny {
        /// Why, for the caller's error.
        reason: String,
    },
}

impl Verdict {
    /// A refusal with its reason.
    pub fn deny(reason: impl Into<String>) -> Self {
        Self::Deny {
            reason: reason.into(),
        }
    }
}

/// A payment that waits for a word.
///
/// All fields but those of [`untrusted`](Self::untrusted) were verified by bursar.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ApprovalRequest {
    /// Why the policy asks.
    pub why: String,
    /// The origin that answered 402.
    pub origin: Origin,
    /// The request's method.
    pub method: String,
    /// The request's path, without the query unless the policy stores queries.
    pub path: String,
    /// Token and amount.
    pub amount: TokenAmount,
    /// The amount in dollars.
    pub usd: Option<Usd>,
    /// The chain.
    pub network: Network,
    /// Who pays.
    pub payer: Address,
    /// Who is paid.
    pub payee: Address,
    /// The longest that the authorization will be valid.
    pub validity: Duration,
    /// The nonce of the authorization: what the approval is bound to on the chain.
    pub nonce: B256,
    /// What the seller says of itself. Show it, if at all, as a quotation.
    pub untrusted: Untrusted,
}

/// The question in lines: what bursar verified first, the seller's words fenced.
impl fmt::Display for ApprovalRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Pay {} to {}?", self.amount, self.payee)?;
        writeln!(f, "  for     {} {}{}", self.method, self.origin, self.path)?;
        writeln!(f, "  on      {}", self.network)?;
        writeln!(f, "  because {}", self.why)?;
        let Untrusted {
            description,
            resource_url,
        } = &self.untrusted;
        for (label, words) in [("description", description), ("resource", resource_url)] {
            if let Some(words) = words {
                writeln!(f, "  the seller's words, unverified ({label}): \"{words}\"")?;
            }
        }
        Ok(())
    }
}

/// A seller's own words: cut to 160 characters, invisible characters escaped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Untrusted {
    /// What it sells.
    pub description: Option<String>,
    /// The URL that it says it sells.
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

    /// The answer, or a refusal when there is none in time.
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

/// An approver made of an async closure; see [`approve_fn`].
pub struct ApproverFn<F>(F);

/// Makes an approver of an async closure. The closure is given its own copy of the request.
///
/// ```
/// use bursar::usd;
/// use bursar::approval::{Verdict, approve_fn};
///
/// let approver = approve_fn(|request| async move {
///     match request.usd {
///         Some(usd) if usd <= usd!("1") => Verdict::Approve,
///         _ => Verdict::deny("too dear for me"),
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

/// Sends every request into a channel, for another task to answer.
#[derive(Clone, Debug)]
pub struct ChannelApprover(mpsc::Sender<PendingApproval>);

/// A request from a [`ChannelApprover`], to be answered once. Dropping it denies.
#[derive(Debug)]
#[non_exhaustive]
pub struct PendingApproval {
    /// What is asked.
    pub request: ApprovalRequest,
    answer: oneshot::Sender<Verdict>,
}

impl ChannelApprover {
    /// An approver and the receiving end of its channel, which holds so many unanswered requests
    /// before the next has to wait.
    #[must_use]
    pub fn new(capacity: usize) -> (Self, mpsc::Receiver<PendingApproval>) {
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        (Self(sender), receiver)
    }
}

impl PendingApproval {
    /// Answers. Whoever asked may have stopped waiting; then the answer is of no effect.
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

/// Asks on the terminal: the question on standard error, `yes` on standard input approves.
///
/// One question at a time. An answer that comes too late pays nothing.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct TerminalApprover;

/// Held while a question is on the screen.
static TERMINAL: Mutex<()> = Mutex::new(());

impl TerminalApprover {
    /// The question as it is shown: what bursar verified first, the seller's words fenced.
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

/// Asks, unless nobody waits for the answer any more.
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
