//! Progress of a server, for the host that asked for it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bursar::text::visible;
use rmcp::RoleServer;
use rmcp::model::{NumberOrString, ProgressNotificationParam, ProgressToken};
use rmcp::service::Peer;

/// The largest number of notifications that came before their call was known.
const MOST_EARLY: usize = 32;
/// The longest message of a notification in characters.
const LONGEST: usize = 300;

/// The calls of one server whose progress a host wants.
#[derive(Default)]
pub(super) struct Progress(Mutex<State>);

#[derive(Default)]
struct State {
    routes: HashMap<ProgressToken, Route>,
    early: VecDeque<ProgressNotificationParam>,
}

/// The host of a call, and its own token.
#[derive(Clone)]
pub(super) struct Route {
    pub(super) peer: Peer<RoleServer>,
    pub(super) token: ProgressToken,
}

/// The tokens of one call. They are forgotten with it.
pub(super) struct Routed {
    progress: Arc<Progress>,
    route: Route,
    tokens: Mutex<Vec<ProgressToken>>,
}

impl Progress {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a call whose progress goes this way.
    pub(super) fn route(self: &Arc<Self>, route: Route) -> Routed {
        Routed {
            progress: Arc::clone(self),
            route,
            tokens: Mutex::default(),
        }
    }

    /// Passes a notification of the server on.
    pub(super) async fn pass(&self, mut notification: ProgressNotificationParam) {
        // Notifications for calls that are not known are kept.
        notification.message = notification.message.map(|message| {
            let beginning: String = message.chars().take(LONGEST).collect();
            visible(&beginning).into_owned()
        });
        let route = {
            let mut state = self.state();
            let route = state.routes.get(&notification.progress_token).cloned();
            if route.is_none() && is_short(&notification.progress_token) {
                state.early.push_back(notification.clone());
                if state.early.len() > MOST_EARLY {
                    state.early.pop_front();
                }
            }
            route
        };
        if let Some(route) = route {
            route.send(notification).await;
        }
    }
}

/// Whether a token can be one of bursar's.
fn is_short(token: &ProgressToken) -> bool {
    match &token.0 {
        NumberOrString::Number(_) => true,
        NumberOrString::String(text) => text.len() <= LONGEST,
    }
}

impl Route {
    async fn send(&self, notification: ProgressNotificationParam) {
        let mut passed = ProgressNotificationParam::new(self.token.clone(), notification.progress);
        passed.total = notification.total;
        passed.message = notification.message;
        drop(self.peer.notify_progress(passed).await);
    }
}

impl Routed {
    /// Adds the token of a message to the server.
    pub(super) fn add(&self, token: &ProgressToken) {
        let early = {
            let mut state = self.progress.state();
            state.routes.insert(token.clone(), self.route.clone());
            let (early, rest): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut state.early)
                .into_iter()
                .partition(|notification| notification.progress_token == *token);
            state.early = rest;
            early
        };
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.push(token.clone());
        if !early.is_empty() {
            let route = self.route.clone();
            tokio::spawn(async move {
                for notification in early {
                    route.send(notification).await;
                }
            });
        }
    }
}

impl Drop for Routed {
    fn drop(&mut self) {
        let tokens = self
            .tokens
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        let mut state = self.progress.state();
        for token in tokens {
            state.routes.remove(token);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn progress_of_unknown_calls_takes_little_memory() {
        let progress = Progress::default();
        let long = "x".repeat(100_000);
        for number in 0..100_u32 {
            for token in [
                NumberOrString::Number(number.into()),
                NumberOrString::String(long.as_str().into()),
            ] {
                let mut early = ProgressNotificationParam::new(ProgressToken(token), 1.0);
                early.message = Some(long.clone());
                progress.pass(early).await;
            }
        }
        let kept = serde_json::to_string(&progress.state().early).unwrap();
        assert!(kept.len() < 20_000, "{}", kept.len());
        assert_eq!(progress.state().early.len(), MOST_EARLY);
    }
}
