//! Asks the user of the host that called the tool.

use std::sync::{Arc, Mutex, PoisonError};

use bursar::approval::{ApprovalRequest, Approver, ChannelApprover, Verdict};
use bursar::mcp::Server;

use crate::serve::approval::{APPROVER, cannot_ask};

/// The approver of every payment of the proxy.
#[derive(Clone, Default)]
pub(super) struct HostApprover(Arc<Mutex<Vec<Asker>>>);

/// A running call, and the way to ask its user.
struct Asker {
    number: u64,
    server: Server,
    approver: ChannelApprover,
}

/// A running call. It is forgotten when this is dropped.
pub(super) struct Asking {
    all: HostApprover,
    number: u64,
}

impl HostApprover {
    /// Notes a running call of a server.
    ///
    /// An endpoint that answers 402 is paid for in a task of the transport. That task does not know the call, so bursar asks
    /// the user of a call to this server.
    pub(super) fn begin(&self, server: &Server, approver: Option<&ChannelApprover>) -> Asking {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = all.last().map_or(0, |asker| asker.number.wrapping_add(1));
        if let Some(approver) = approver {
            all.push(Asker {
                number,
                server: server.clone(),
                approver: approver.clone(),
            });
        }
        Asking {
            all: self.clone(),
            number: if approver.is_some() { number } else { u64::MAX },
        }
    }

    fn find(&self, request: &ApprovalRequest) -> Option<ChannelApprover> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = all.iter().rev();
        let asker = all.find(|asker| *asker.server.origin() == request.origin)?;
        Some(asker.approver.clone())
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let mut all = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|asker| asker.number != self.number);
    }
}

impl Approver for HostApprover {
    async fn decide(&self, request: &ApprovalRequest) -> Verdict {
        let approver = match APPROVER.try_with(Clone::clone) {
            Ok(approver) => approver,
            Err(_) => self.find(request),
        };
        match approver {
            Some(approver) => approver.decide(request).await,
            None => cannot_ask(request),
        }
    }
}
