//! The causes of errors.

use std::fmt;

/// The cause of an [`Error`](crate::Error).
///
/// Most kinds can happen before a payment and after it. [`Error::payment_status`](crate::Error::payment_status) tells the two apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The client, the policy or the request is built incorrectly. bursar sent nothing and no money moved.
    /// Correct the call that the message names.
    Builder,
    /// The destination is unsafe: plain `http`, a private address where they are denied, or an HTTP client that
    /// followed a redirect to another origin. Nothing is sent to such a destination. Where the redirect carried a
    /// payment, money may have moved. Use `https`, or allow the loopback with
    /// [`allow_http_loopback`](crate::ClientBuilder::allow_http_loopback).
    Insecure,
    /// An API key is missing, cannot be read or cannot be sent. The request was not sent and no money moved.
    /// Provide the key.
    Credential,
    /// The network failed. Before a payment no money moved. After it, the seller may have settled: send the same
    /// request again, and bursar presents the same payment.
    Transport,
    /// The time was up. As for [`Transport`](Self::Transport), money may have moved if a payment was signed.
    /// Allow more time, or send the same request again.
    Timeout,
    /// The 402 claims to be x402 and cannot be read, contradicts itself, or a cache kept it; see [`Error::reason`](crate::Error::reason). No
    /// money moved. Report it to the seller.
    Malformed,
    /// bursar can sign for none of the offers; see [`Error::unpayable`](crate::Error::unpayable). No money moved. Register the token, or
    /// ask the seller for another offer.
    NotPayable,
    /// The seller requires a payment and the client has no wallet; see [`Error::price_check`](crate::Error::price_check). No money moved.
    /// Build the client with a signer, a policy and a ledger.
    NoWallet,
    /// The seller requires a payment, and the body is a stream that cannot be sent twice; see
    /// [`Error::price_check`](crate::Error::price_check). No money moved. Give the body as bytes, or with
    /// [`body_fn`](crate::RequestBuilder::body_fn).
    NotReplayable,
    /// The policy, an approver or a freeze refused the payment; see [`Error::denial`](crate::Error::denial). bursar signed nothing for
    /// this call. If the call resumed an earlier purchase, that purchase may be paid. Change the policy, or wait
    /// until the limit has room.
    Denied,
    /// The signer failed. No money moved, except when the signer did not answer in time: it may have signed, and
    /// the amount then counts as spent. Check the signer.
    Signer,
    /// The ledger cannot be read or written, or a stored payment is damaged. Before the signature no money moved.
    /// When the ledger failed to record a signature, that signature did not leave, and the amount counts as spent
    /// until it expires. Repair the ledger.
    Ledger,
    /// The purchase id belongs to another request, another call is buying it now, or the stored purchase cannot be
    /// presented again. Money may have moved only for the purchase that the error names. Use another id, or
    /// wait.
    Purchase,
    /// The seller answered the payment with another 402; see [`Error::reason`](crate::Error::reason). The seller can still settle the
    /// payment, so it counts as spent. The message says more: the wallet may be empty, or the seller may refuse
    /// every such payment. Send the request again, or accept new terms with
    /// [`accept_new_terms`](crate::RequestBuilder::accept_new_terms).
    Rejected,
    /// The seller says that it could not settle the payment; see [`Error::reason`](crate::Error::reason). The payment counts as spent
    /// until the chain proves otherwise. Send the same request again, or
    /// [reconcile](crate::Ledger::reconcile) the ledger later.
    SettlementFailed,
    /// The seller does not know yet whether the payment settled: it has not seen the transaction included, or could
    /// not ask the chain. Money may have moved. Send the same request again: bursar presents the same payment.
    SettlementPending,
    /// An MCP server answered with a JSON-RPC error. Before a payment no money moved; after it, look at the
    /// payment status. The message repeats the words of the server.
    Rpc,
    /// The body of the answer broke, or is not the JSON that you asked for. The error keeps the payment status of the
    /// response. If the body of a paid answer broke, send the same request again: bursar presents the same payment. If the
    /// JSON does not fit, the goods came, and the same request would buy them again.
    Body,
    /// The answer has an error status, and you called
    /// [`error_for_payment`](crate::ResponseExt::error_for_payment). The error keeps the payment status of the
    /// response.
    Status,
}

impl ErrorKind {
    /// Returns the stable name, such as `not_payable`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Builder => "builder",
            Self::Insecure => "insecure",
            Self::Credential => "credential",
            Self::Transport => "transport",
            Self::Timeout => "timeout",
            Self::Malformed => "malformed",
            Self::NotPayable => "not_payable",
            Self::NoWallet => "no_wallet",
            Self::NotReplayable => "not_replayable",
            Self::Denied => "denied",
            Self::Signer => "signer",
            Self::Ledger => "ledger",
            Self::Purchase => "purchase",
            Self::Rejected => "rejected",
            Self::SettlementFailed => "settlement_failed",
            Self::SettlementPending => "settlement_pending",
            Self::Rpc => "rpc",
            Self::Body => "body",
            Self::Status => "status",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
