//! `bursar proxy`: a local HTTP server that pays for programs in any language.
//!
//! A program sets the base URL of its SDK to a route of the proxy, and the token of the proxy as its API key. The proxy sends
//! the request to the target of the route, pays if the target asks for it and the policy allows it, and passes the answer on
//! as it arrives.
//!
//! The proxy holds a wallet, so everything is closed that is not opened: it listens on loopback, takes requests with a token
//! only, and refuses pages of browsers, other `Host` headers, tunnels, private targets and targets that neither a route nor
//! the policy names. `gate.rs` has these checks, `target.rs` finds the target, `call.rs` follows one call, and `answer.rs` has
//! the statuses and headers that a program sees.

mod answer;
mod body;
mod call;
mod gate;
mod headers;
mod log;
mod metrics;
mod settings;
mod target;
mod tokens;

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bursar::Client;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::args::{ProxyArgs as Args, ProxyCommand, ProxyCommandArgs};
use crate::connections::{Connections, Guest, serve_until_stop};
use crate::exit::{Exit, Failure};
use crate::stop::Stop;
use crate::{output, policies, wallet};
use body::Memory;
use gate::OwnHosts;
use log::{Line, Rate};
use metrics::Metrics;
use settings::Settings;
use tokens::Tokens;

/// The port without a setting.
const PORT: u16 = 8402;
/// The largest head of a request, in bytes.
const HEAD: usize = 64 * 1024;
/// The longest time for the head of a request, and between two requests of a connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// The most connections at once, with and without a token. Fewer if the process may open few files.
const CONNECTIONS: usize = 2048;
/// The most log lines about refused requests in a second.
const REFUSALS: u32 = 100;
/// The memory for the bodies of all requests, as a number of largest bodies.
const BODIES: u64 = 16;

/// `bursar proxy` and its subcommands.
pub(crate) async fn run(args: ProxyCommandArgs) -> Result<Exit, Failure> {
    match args.command {
        Some(command) => tokens(command),
        None => serve(args.serve).await,
    }
}

fn tokens(command: ProxyCommand) -> Result<Exit, Failure> {
    tokens::run(command)
}

/// A running proxy.
struct Proxy {
    args: Args,
    address: SocketAddr,
    own: OwnHosts,
    /// The wallet and the connections, which every reload keeps.
    base: Client,
    tokens: Tokens,
    settings: RwLock<Arc<Settings>>,
    metrics: Arc<Metrics>,
    /// The log lines about refused requests.
    refusals: Rate,
    max_calls: usize,
    /// One permit for each call, until the end of its answer.
    calls: Arc<Semaphore>,
    /// The room for the bodies that are kept.
    memory: Memory,
    stopping: watch::Sender<bool>,
}

impl Proxy {
    fn settings(&self) -> Arc<Settings> {
        let settings = self.settings.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&settings)
    }

    fn replace(&self, settings: Settings) {
        let mut current = self
            .settings
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(settings);
    }
}

/// Opens everything that can fail, and then the port.
async fn open(args: Args) -> Result<(Arc<Proxy>, TcpListener), Failure> {
    log::install(args.log);
    let allowance = policies::allowance(&args.policy)?;
    let tokens = tokens::path(&args.file)?;
    let metrics = Arc::default();
    let base = settings::base(&args, &allowance, &metrics).await?;
    // Mistakes of the policy and of the keys show at the start.
    let settings = Settings::new(&args, allowance, &base)?;
    let listen = args.listen.or(settings.listen);
    let listen = listen.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, PORT).into());
    let failed = |error| Failure::failed(format!("{listen} cannot be listened on: {error}"));
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let max_calls = usize::try_from(args.max_calls).unwrap_or(1);
    let memory = Memory::new(settings.body_limit.saturating_mul(BODIES));
    let proxy = Proxy {
        address,
        own: OwnHosts::new(address),
        base,
        tokens: Tokens::new(tokens),
        settings: RwLock::new(Arc::new(settings)),
        metrics,
        refusals: Rate::per_second(REFUSALS),
        max_calls,
        calls: Arc::new(Semaphore::new(max_calls)),
        memory,
        stopping: watch::Sender::new(false),
        args,
    };
    let settings = proxy.settings();
    settings.warn_of_missing_keys().await;
    Ok((Arc::new(proxy), listener))
}

async fn serve(args: Args) -> Result<Exit, Failure> {
    let (proxy, listener) = open(args).await?;
    let mut signals = Signals::new()?;
    announce(&proxy)?;
    let mut places = Connections::new(connections_at_once());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => places.open(|guest| {
                    connections.spawn(connection(Arc::clone(&proxy), stream, guest))
                }),
                Err(error) => {
                    Line::warning(format!("a connection cannot be accepted: {error}")).write();
                    sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
            signal = signals.next() => match signal {
                Signal::Reload => proxy.reload().await,
                Signal::Stop => break,
            },
        }
    }
    drop(listener);
    stop(&proxy, connections, &mut signals).await
}

/// Returns the most connections at once: half of the files that the process may open. Connections without a token must not
/// keep calls from their targets.
fn connections_at_once() -> usize {
    #[cfg(unix)]
    {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};

        let Ok((mut files, most)) = getrlimit(Resource::RLIMIT_NOFILE) else {
            return CONNECTIONS;
        };
        let wanted = u64::try_from(CONNECTIONS.saturating_mul(2)).unwrap_or(u64::MAX);
        let raised = wanted.min(most);
        // Many systems begin with a limit of 1024 and allow more.
        if files < raised && setrlimit(Resource::RLIMIT_NOFILE, raised, most).is_ok() {
            files = raised;
        }
        CONNECTIONS.min(usize::try_from(files / 2).unwrap_or(usize::MAX))
    }
    #[cfg(not(unix))]
    CONNECTIONS
}

/// Lets calls end within their time, abandons the others, and records these in the ledger.
async fn stop(
    proxy: &Arc<Proxy>,
    mut connections: JoinSet<()>,
    signals: &mut Signals,
) -> Result<Exit, Failure> {
    let in_flight = |proxy: &Proxy| {
        proxy
            .max_calls
            .saturating_sub(proxy.calls.available_permits())
    };
    Line::new("stopping")
        .with("calls", in_flight(proxy))
        .write();
    proxy.stopping.send_replace(true);
    let all = async { while connections.join_next().await.is_some() {} };
    tokio::select! {
        _ = timeout(proxy.args.stop_timeout, all) => {}
        () = signals.stopped() => {}
    }
    let abandoned = in_flight(proxy);
    connections.shutdown().await;
    // Answers that lost their program are recorded by tasks of their own. The semaphore is never closed.
    let calls = u32::try_from(proxy.max_calls).unwrap_or(u32::MAX);
    drop(timeout(Duration::from_secs(5), proxy.calls.acquire_many(calls)).await);
    wallet::close(proxy.settings().client()).await?;
    Line::new("stopped").with("abandoned", abandoned).write();
    Ok(Exit::Done)
}

/// Prints the URL of the proxy on standard output, and logs its settings.
fn announce(proxy: &Proxy) -> Result<(), Failure> {
    let url = format!("http://{}", proxy.address);
    let settings = proxy.settings();
    let routes: Vec<_> = settings
        .routes
        .iter()
        .map(|route| route.path.clone())
        .collect();
    let tokens = proxy
        .tokens
        .names()
        .map(|names| names.len())
        .map_err(|error| Failure::failed(format!("the file of tokens cannot be used: {error}")))?;
    Line::new("listening")
        .with("url", url.as_str())
        .with(
            "payer",
            proxy.base.payer().map(|payer| payer.address().to_string()),
        )
        .with("routes", routes)
        .with("tokens", tokens)
        .write();
    if tokens == 0 {
        Line::warning("there is no token, so every request is refused; make one with `bursar proxy token NAME`").write();
    }
    proxy.warn(&settings);
    output::finish(output::print(format_args!("{url}\n")), Exit::Done).map(|_| ())
}

/// Serves one connection until it ends. After the stop it ends with the call that runs.
async fn connection(proxy: Arc<Proxy>, stream: TcpStream, guest: Guest) {
    // Without it, small events of a stream wait for each other.
    drop(stream.set_nodelay(true));
    let stopping = proxy.stopping.subscribe();
    let service = service_fn(move |request| {
        let (proxy, guest) = (Arc::clone(&proxy), guest.clone());
        // The future is boxed, because it is large and moves.
        async move { Ok::<_, Infallible>(Box::pin(proxy.answer(request, &guest)).await) }
    });
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD);
    let connection = server.serve_connection(TokioIo::new(stream), service);
    serve_until_stop(connection, stopping).await;
}

/// The signals that the proxy receives.
struct Signals {
    #[cfg(unix)]
    hangup: tokio::signal::unix::Signal,
    stop: Stop,
}

enum Signal {
    #[cfg_attr(
        not(unix),
        expect(dead_code, reason = "other systems have no such signal")
    )]
    Reload,
    Stop,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        #[cfg(unix)]
        let failed = |error| Failure::failed(format!("SIGHUP cannot be received: {error}"));
        Ok(Self {
            #[cfg(unix)]
            hangup: {
                use tokio::signal::unix::{SignalKind, signal};
                signal(SignalKind::hangup()).map_err(failed)?
            },
            stop: Stop::listen()?,
        })
    }

    async fn next(&mut self) -> Signal {
        #[cfg(unix)]
        tokio::select! {
            Some(()) = self.hangup.recv() => Signal::Reload,
            () = self.stop.asked() => Signal::Stop,
        }
        #[cfg(not(unix))]
        {
            self.stop.asked().await;
            Signal::Stop
        }
    }

    /// Waits for a further signal to stop.
    async fn stopped(&mut self) {
        while !matches!(self.next().await, Signal::Stop) {}
    }
}
