//! The connected hosts, which learn when the list of tools has changed.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rmcp::RoleServer;
use rmcp::service::{Peer, SubscriptionContext};
use tokio::sync::watch;

/// How long a host may take to read the notification.
const PATIENCE: Duration = Duration::from_secs(5);

/// The hosts.
pub(super) struct Hosts {
    /// The hosts that began with a handshake. Others subscribe.
    peers: Mutex<Vec<Peer<RoleServer>>>,
    changes: watch::Sender<()>,
}

impl Hosts {
    pub(super) fn new() -> Self {
        Self {
            peers: Mutex::default(),
            changes: watch::Sender::new(()),
        }
    }

    pub(super) fn add(&self, peer: Peer<RoleServer>) {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.retain(|peer| !peer.is_transport_closed());
        peers.push(peer);
    }

    /// Tells every host that the list of tools has changed.
    pub(super) fn list_changed(&self) {
        self.changes.send_replace(());
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.retain(|peer| !peer.is_transport_closed());
        for peer in peers.iter() {
            let peer = peer.clone();
            tokio::spawn(async move {
                drop(tokio::time::timeout(PATIENCE, peer.notify_tool_list_changed()).await);
            });
        }
    }

    /// Serves a subscription until it ends.
    pub(super) async fn listen(&self, subscription: &SubscriptionContext) {
        let mut changes = self.changes.subscribe();
        loop {
            tokio::select! {
                () = subscription.cancelled() => return,
                changed = changes.changed() => {
                    let sent = subscription.sink().notify_tool_list_changed().await;
                    if changed.is_err() || sent.is_err() {
                        return;
                    }
                }
            }
        }
    }
}
