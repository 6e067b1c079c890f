//! One server behind the proxy: its session, its list of tools, and their prices.

use std::collections::{HashMap, HashSet};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bursar::config::{McpServer, McpServerPlace};
use bursar::mcp::{self, ListedPrice, PaidTools, Server};
use bursar::policy::Amount;
use bursar::{Client, Error, Payer, Url};
use rmcp::model::{
    ClientCapabilities, ClientConfig, Implementation, ProgressNotificationParam, Prompt, Tool,
};
use rmcp::service::{NotificationContext, RunningService};
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::{ClientHandler, RoleClient, ServiceExt};
use tokio::process::{Child, Command};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::listing::KnownPrice;
use super::progress::Progress;
use crate::exit::Failure;
use crate::mcp::{failure, price};
use crate::output;
use crate::serve::MAX_MESSAGE;

/// How long a server may take to open a session.
const OPEN: Duration = Duration::from_secs(60);
/// The pause before the second attempt to open a session, and the longest pause.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The time to wait for a program to end after its input has ended.
const FAREWELL: Duration = Duration::from_secs(2);
/// The pause between two readings of a list of tools that the server says has changed.
const RECHECK: Duration = Duration::from_secs(2);
/// The most tools of one server.
const MOST_TOOLS: usize = 256;
/// The most tools whose prices are asked for.
const MOST_ASKED: usize = 100;
/// The environment variables that every program receives.
const USUAL: [&str; 16] = [
    "HOME",
    "LANG",
    "LC_ALL",
    "LOGNAME",
    "PATH",
    "SHELL",
    "TERM",
    "TMPDIR",
    "TZ",
    "USER",
    // Windows.
    "APPDATA",
    "LOCALAPPDATA",
    "SYSTEMROOT",
    "TEMP",
    "USERNAME",
    "USERPROFILE",
];

/// The settings that all servers share.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) client: Client,
    /// The payer of the client. It knows the hosts that are never paid.
    pub(super) payer: Payer,
    /// The time limit of a call.
    pub(super) timeout: Duration,
    /// The environment variables that programs receive.
    pub(super) pass_env: Vec<String>,
    /// Whether to ask for prices that a list does not name.
    pub(super) ask_prices: bool,
    /// Becomes true when the proxy ends.
    pub(super) stop: watch::Receiver<bool>,
    /// Called after the list of tools has changed.
    pub(super) changed: Arc<dyn Fn() + Send + Sync>,
}

/// A server.
pub(super) struct Upstream {
    pub(super) config: McpServer,
    /// The advertised prices of a server that was found in a list, by tool. A call pays at most that.
    pub(super) advertised: Option<Advertised>,
    pub(super) identity: Server,
    pub(super) progress: Arc<Progress>,
    settings: Settings,
    state: watch::Sender<State>,
    known: Mutex<Known>,
    /// The number of attempts to open a session that have begun.
    attempts: AtomicU64,
    /// Ends a pause before the next attempt.
    wake: Notify,
    /// Asks for the list of tools again. A server that does not answer is connected again.
    recheck: Arc<Notify>,
}

/// The prices in a list.
#[derive(Clone, Default)]
pub(super) struct Advertised {
    /// The price of all tools that the list does not name.
    pub(super) others: Option<Amount>,
    pub(super) by_tool: HashMap<String, Amount>,
}

/// The state of the session.
#[derive(Clone)]
pub(super) enum State {
    Connecting,
    Open(Box<PaidTools>),
    /// The last attempt failed, or the session ended.
    Down {
        /// The reason. It can quote the server.
        reason: String,
        /// The number of attempts before it.
        attempts: u64,
    },
}

/// The tools and prices of the last session.
#[derive(Clone, Default)]
pub(super) struct Known {
    pub(super) tools: Arc<Vec<Tool>>,
    pub(super) prices: HashMap<String, KnownPrice>,
    /// The URIs of resources that the server has named.
    pub(super) resources: HashSet<String>,
    /// The beginnings of the URIs of its templates.
    pub(super) templates: Vec<String>,
    pub(super) prompts: Arc<Vec<Prompt>>,
    /// The number of tools that were left out, because there are too many.
    pub(super) left_out: usize,
    /// The tools that the policy file names and the server does not list.
    pub(super) missing: Vec<String>,
}

/// Receives the messages of a server.
struct Listener {
    progress: Arc<Progress>,
    recheck: Arc<Notify>,
}

impl ClientHandler for Listener {
    fn get_info(&self) -> ClientConfig {
        let name = Implementation::new("bursar-mcp-proxy", env!("CARGO_PKG_VERSION"));
        ClientConfig::new(ClientCapabilities::default(), name)
    }

    async fn on_progress(
        &self,
        params: ProgressNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        self.progress.pass(params).await;
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.recheck.notify_one();
    }
}

/// An open session.
struct Session {
    service: RunningService<RoleClient, Listener>,
    tools: PaidTools,
    /// The program of a server without a URL.
    child: Option<Child>,
}

impl Upstream {
    pub(super) fn new(
        config: McpServer,
        advertised: Option<Advertised>,
        settings: Settings,
    ) -> Result<Arc<Self>, Error> {
        let identity = match &config.place {
            McpServerPlace::Url(url) => Server::at(url.as_str())?,
            _ => Server::local(&config.name)?,
        };
        Ok(Arc::new(Self {
            config,
            advertised,
            identity,
            progress: Arc::default(),
            settings,
            state: watch::Sender::new(State::Connecting),
            known: Mutex::default(),
            attempts: AtomicU64::new(0),
            wake: Notify::new(),
            recheck: Arc::new(Notify::new()),
        }))
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Returns whether there is an open session.
    pub(super) fn is_open(&self) -> bool {
        matches!(*self.state.borrow(), State::Open(_))
    }

    /// Waits until the first attempt to open a session has ended.
    pub(super) async fn tried(&self) {
        let mut state = self.state.subscribe();
        let ended = state.wait_for(|state| !matches!(state, State::Connecting));
        drop(ended.await);
    }

    /// Returns the tools of the open session. Begins the next attempt to open one at once, and waits for it.
    ///
    /// # Errors
    /// Returns the reason if there is no session.
    pub(super) async fn tools(&self, limit: Duration) -> Result<PaidTools, String> {
        let mut state = self.state.subscribe();
        let is_gone = |state: &State| match state {
            State::Connecting => false,
            // The session has ended, and its task is about to notice.
            State::Open(tools) => tools.peer().is_transport_closed(),
            State::Down { .. } => true,
        };
        if is_gone(&state.borrow()) {
            self.wake.notify_one();
        }
        // An attempt that has begun already may be about to fail for a reason that is gone.
        let begun = self.attempts.load(Ordering::SeqCst);
        let is_known = |state: &State| match state {
            State::Connecting => false,
            State::Open(tools) => !tools.peer().is_transport_closed(),
            State::Down { attempts, .. } => *attempts > begun,
        };
        let known = tokio::time::timeout(limit, state.wait_for(is_known)).await;
        match known.as_ref().map(|known| known.as_deref()) {
            Ok(Ok(State::Open(tools))) => Ok(PaidTools::clone(tools)),
            Ok(Ok(State::Down { reason, .. })) => Err(reason.clone()),
            _ => Err("the server opens no session in time".to_owned()),
        }
    }

    /// Notes the price of the last call. Hosts learn of the first one: a list that changes with every call would make them
    /// send all tools to the model again.
    pub(super) fn note_price(&self, tool: &str, price: String) {
        let price = KnownPrice::Paid(price);
        let first = self.known().prices.insert(tool.to_owned(), price).is_none();
        if first {
            (self.settings.changed)();
        }
    }

    /// Asks whether the server still answers, after a call failed.
    pub(super) fn suspect(&self) {
        self.recheck.notify_one();
    }

    /// Keeps a session open, for as long as the proxy runs.
    pub(super) async fn run(self: Arc<Self>) {
        let name = &self.config.name;
        let (mut pause, mut failed) = (FIRST_PAUSE, false);
        loop {
            self.attempts.fetch_add(1, Ordering::SeqCst);
            let opened = tokio::select! {
                opened = self.open() => opened,
                () = self.stopped() => return,
            };
            let reason = match opened {
                Ok(session) => {
                    if failed {
                        output::note(format_args!("{name}: connected"));
                    }
                    (pause, failed) = (FIRST_PAUSE, false);
                    match self.keep(session).await {
                        Some(reason) => reason,
                        None => return,
                    }
                }
                Err(failure) => failure.message,
            };
            if !failed {
                output::note(format_args!("{name}: {reason}; bursar tries it again"));
            }
            failed = true;
            let attempts = self.attempts.load(Ordering::SeqCst);
            self.state.send_replace(State::Down { reason, attempts });
            tokio::select! {
                () = tokio::time::sleep(pause) => {
                    pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
                }
                () = self.wake.notified() => {}
                () = self.stopped() => return,
            }
        }
    }

    /// Waits until the proxy ends.
    async fn stopped(&self) {
        let mut stop = self.settings.stop.clone();
        // A dropped sender has ended, too.
        drop(stop.wait_for(|stop| *stop).await);
    }

    async fn open(&self) -> Result<Session, Failure> {
        let listener = Listener {
            progress: Arc::clone(&self.progress),
            recheck: Arc::clone(&self.recheck),
        };
        let opened = tokio::time::timeout(OPEN, async {
            let (service, child, url) = match &self.config.place {
                McpServerPlace::Url(url) => {
                    let transport = mcp::connect(&self.settings.client, url.as_str())?;
                    let opened = listener.serve(transport).await;
                    (opened, None, url.clone())
                }
                McpServerPlace::Command { program, args, env } => {
                    let mut child = self.spawn(program, args, env)?;
                    let pipes = child.stdout.take().zip(child.stdin.take());
                    let (output, input) =
                        pipes.ok_or_else(|| Failure::failed("the program has no pipes"))?;
                    let transport = AsyncRwTransport::new_client(output, input)
                        .with_max_line_length(MAX_MESSAGE);
                    (listener.serve(transport).await, Some(child), nowhere()?)
                }
                _ => return Err(Failure::failed("the place of the server is not known")),
            };
            let service = service.map_err(|error| {
                failure(
                    &error,
                    &url,
                    "bursar cannot open an MCP session with the server",
                )
            })?;
            let (peer, payer) = (service.peer().clone(), self.settings.payer.clone());
            let tools = PaidTools::new(peer, payer, self.identity.clone())
                .timeout(self.settings.timeout)
                .answer_timeout(self.settings.timeout);
            self.list(&tools).await?;
            Ok(Session {
                service,
                tools,
                child,
            })
        });
        opened.await.unwrap_or_else(|_| {
            let seconds = OPEN.as_secs();
            Err(Failure::failed(format!(
                "the server opens no MCP session within {seconds} s"
            )))
        })
    }

    fn spawn(&self, program: &str, args: &[String], env: &[String]) -> Result<Child, Failure> {
        let mut command = Command::new(program);
        command
            .args(args)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true);
        let passed = USUAL.iter().copied();
        let passed = passed.chain(env.iter().map(String::as_str));
        for name in passed.chain(self.settings.pass_env.iter().map(String::as_str)) {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.spawn().map_err(|error| {
            Failure::failed(format!("the program {program:?} cannot start: {error}"))
        })
    }

    /// Reads the list of tools.
    async fn list(&self, tools: &PaidTools) -> Result<(), Failure> {
        let url = self.url()?;
        let mut listed = tools
            .list_tools()
            .await
            .map_err(|error| failure(&error, &url, "bursar cannot list the tools of the server"))?;
        if !self.config.tools.is_empty() {
            listed.retain(|tool| self.config.tools.iter().any(|name| *name == tool.name));
        }
        let is_listed = |name: &&String| listed.iter().any(|tool| **name == tool.name);
        let missing = self.config.tools.iter().filter(|name| !is_listed(name));
        let missing: Vec<String> = missing.cloned().collect();
        let left_out = listed.len().saturating_sub(MOST_TOOLS);
        listed.truncate(MOST_TOOLS);
        let mut known = self.known();
        let changed = *known.tools != listed;
        known.tools = Arc::new(listed);
        known.left_out = left_out;
        let lost = known.missing != missing && !missing.is_empty();
        known.missing.clone_from(&missing);
        drop(known);
        if lost {
            let (name, missing) = (&self.config.name, missing.join(", "));
            output::note(format_args!(
                "{name}: the server lists no tool {missing}, although `tools` of the policy file names it"
            ));
        }
        if changed {
            (self.settings.changed)();
        }
        Ok(())
    }

    fn url(&self) -> Result<Url, Failure> {
        match &self.config.place {
            McpServerPlace::Url(url) => Ok(url.clone()),
            _ => nowhere(),
        }
    }

    /// Serves an open session until it ends. Returns the reason, or `None` if the proxy ends.
    async fn keep(&self, session: Session) -> Option<String> {
        let Session {
            service,
            tools,
            child,
        } = session;
        self.state
            .send_replace(State::Open(Box::new(tools.clone())));
        let cancellation = service.cancellation_token();
        let ended = service.waiting();
        tokio::pin!(ended);
        let asking = self.ask_prices(&tools);
        tokio::pin!(asking);
        let mut asked = false;
        // A server that always says that its list has changed must not keep the proxy and its hosts busy.
        let mut earliest = Instant::now();
        let reason = loop {
            let changed = async {
                tokio::time::sleep_until(earliest).await;
                self.recheck.notified().await;
            };
            tokio::select! {
                _ = &mut ended => return Some("the server ended the session".to_owned()),
                () = self.stopped() => break None,
                () = &mut asking, if !asked => asked = true,
                () = changed => {
                    earliest = Instant::now().checked_add(RECHECK).unwrap_or(earliest);
                    if let Err(failure) = self.list(&tools).await {
                        break Some(failure.message);
                    }
                }
            }
        };
        cancellation.cancel();
        drop(tokio::time::timeout(FAREWELL, ended).await);
        if let Some(mut child) = child {
            // The program is killed when it is dropped.
            drop(tokio::time::timeout(FAREWELL, child.wait()).await);
        }
        reason
    }

    /// Asks for the prices that the list does not name, if the operator wants that.
    async fn ask_prices(&self, tools: &PaidTools) {
        if !self.settings.ask_prices {
            return;
        }
        let listed = Arc::clone(&self.known().tools);
        let unknown = |tool: &&Tool| {
            matches!(
                mcp::listed_price(tool),
                ListedPrice::Unknown | ListedPrice::Paid
            )
        };
        for tool in listed.iter().filter(unknown).take(MOST_ASKED) {
            let price = price(tools, tool).await;
            if price.starts_with("unknown") || price == "not payable" {
                continue;
            }
            let mut known = self.known();
            known
                .prices
                .entry(tool.name.to_string())
                .or_insert(KnownPrice::Asked(price));
            drop(known);
            (self.settings.changed)();
        }
    }

    /// Returns the most that a call of this tool may cost.
    pub(super) fn cap(&self, tool: &str) -> Option<Amount> {
        self.advertised.as_ref()?.cap(tool)
    }
}

impl Advertised {
    /// Returns the price of a tool. A tool without one costs no more than the most expensive tool with one: otherwise a
    /// server would advertise a cheap tool and sell another.
    fn cap(&self, tool: &str) -> Option<Amount> {
        let named = self.by_tool.get(tool).or(self.others.as_ref());
        let highest = || {
            self.by_tool
                .values()
                .reduce(|most, price| match (most, price) {
                    (Amount::Usd(one), Amount::Usd(other)) if other > one => price,
                    (Amount::Token(one), Amount::Token(other))
                        if one.asset() == other.asset() && other.units() > one.units() =>
                    {
                        price
                    }
                    _ => most,
                })
        };
        named.or_else(highest).cloned()
    }
}

/// Returns a URL for the errors of a server that has none.
fn nowhere() -> Result<Url, Failure> {
    "stdio://program"
        .parse()
        .map_err(|_| Failure::failed("a URL cannot be parsed"))
}
