//! The proxy over streamable HTTP: on loopback, for clients that have the token.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bursar::secrecy::{ExposeSecret, SecretString};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Handler, Proxy};
use crate::connections::{Connections, Guest, serve_until_stop};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::secrets::{self, MCP_TOKEN};
use crate::serve::MAX_MESSAGE;
use crate::stop::Stop;

/// The path of the endpoint.
const PATH: &str = "/mcp";
/// The shortest token that the environment may have.
const SHORTEST: usize = 32;
/// The most connections at once.
const CONNECTIONS: usize = 128;
/// How long a client may take to send the header of a request.
const HEADER: Duration = Duration::from_secs(30);
/// How long a session lives without a message. Hosts do not begin a new one after a long break of their user.
const IDLE: Duration = Duration::from_secs(24 * 60 * 60);
/// The time that calls have after the signal to end.
const GRACE: Duration = Duration::from_secs(2);
/// The time after that to write their answers.
const WRITING: Duration = Duration::from_secs(1);

type Answer = Response<BoxBody<Bytes, Infallible>>;
type Service = StreamableHttpService<Handler, LocalSessionManager>;

/// Serves clients until a signal ends the process.
pub(super) async fn serve(
    address: SocketAddr,
    proxy: &Arc<Proxy>,
    ended: watch::Sender<bool>,
) -> Result<Exit, Failure> {
    let failed = |error: io::Error| Failure::failed(format!("--http {address}: {error}"));
    let (token, is_new) = token()?;
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let port = address.port();
    let names = ["127.0.0.1", "localhost", "[::1]"];
    let names = names.iter().map(|name| format!("{name}:{port}"));
    let config = StreamableHttpServerConfig::default()
        .with_allowed_hosts(names.chain([address.to_string()]))
        .enforce_origin_validation()
        .with_max_request_body_bytes(MAX_MESSAGE);
    let stop = config.cancellation_token.clone();
    let factory = Arc::clone(proxy);
    let mut sessions = LocalSessionManager::default();
    sessions.session_config.keep_alive = Some(IDLE);
    let service: Service =
        StreamableHttpService::new(move || Ok(factory.handler()), Arc::new(sessions), config);
    let mut stop_signal = Stop::listen()?;
    output::note(format_args!(
        "bursar: serving http://{address}{PATH}; each request needs the header Authorization: Bearer TOKEN"
    ));
    if is_new {
        output::note(format_args!(
            "bursar: the token of this run is {}; set {MCP_TOKEN} to keep one",
            token.expose_secret()
        ));
    }
    let (stopping, _) = watch::channel(false);
    let mut connections = JoinSet::new();
    let accepting = accept(&listener, service, token, &stopping, &mut connections);
    tokio::select! {
        () = accepting => {}
        () = stop_signal.asked() => {}
    }
    drop(listener);
    // Calls are abandoned after a moment, and their purchases recorded.
    ended.send_replace(true);
    drop(timeout(GRACE, proxy.calls.close()).await);
    // The answers of these calls are written. Then the sessions end, with the streams on which clients only listen.
    stopping.send_replace(true);
    let written = async { while connections.join_next().await.is_some() {} };
    drop(timeout(WRITING, written).await);
    stop.cancel();
    Ok(Exit::Done)
}

/// Returns the token of the environment, or a new one.
fn token() -> Result<(SecretString, bool), Failure> {
    if let Some(token) = secrets::variable(MCP_TOKEN) {
        let text = token.expose_secret();
        let plain = text.bytes().all(|byte| byte.is_ascii_graphic());
        if text.len() < SHORTEST || !plain {
            return Err(Failure::usage(format!(
                "{MCP_TOKEN}: expected at least {SHORTEST} characters without spaces"
            )));
        }
        return Ok((token, false));
    }
    let mut random = [0; 32];
    getrandom::fill(&mut random)
        .map_err(|error| Failure::failed(format!("there is no random number: {error}")))?;
    let digits = random.iter().map(|byte| format!("{byte:02x}"));
    Ok((SecretString::from(digits.collect::<String>()), true))
}

/// Accepts connections. After `stopping` each one ends with the answer that it is writing.
async fn accept(
    listener: &TcpListener,
    service: Service,
    token: SecretString,
    stopping: &watch::Sender<bool>,
    connections: &mut JoinSet<()>,
) {
    let token = Arc::new(token);
    let mut places = Connections::new(CONNECTIONS);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Ok((stream, _)) = accepted else {
            // Too many files are open, or the client is gone already.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (service, token) = (service.clone(), Arc::clone(&token));
        places.open(|guest| {
            let answer = service_fn(move |request| {
                let (service, token, guest) = (service.clone(), Arc::clone(&token), guest.clone());
                async move { Ok::<_, Infallible>(answer(request, service, &token, &guest).await) }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEADER);
            let connection = server.serve_connection(TokioIo::new(stream), answer);
            connections.spawn(serve_until_stop(connection, stopping.subscribe()))
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    service: Service,
    token: &SecretString,
    guest: &Guest,
) -> Answer {
    if request.uri().path() != PATH {
        return refusal(StatusCode::NOT_FOUND, "the endpoint is /mcp\n");
    }
    if !is_authorized(request.headers(), token) {
        let words = "the header Authorization needs the token of this server: Bearer TOKEN\n";
        let mut refusal = refusal(StatusCode::UNAUTHORIZED, words);
        let challenge = HeaderValue::from_static("Bearer");
        refusal.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        return refusal;
    }
    guest.admit();
    service.handle(request).await
}

fn refusal(status: StatusCode, words: &'static str) -> Answer {
    let mut refusal = Response::new(Full::new(Bytes::from_static(words.as_bytes())).boxed());
    *refusal.status_mut() = status;
    refusal
}

fn is_authorized(headers: &HeaderMap, token: &SecretString) -> bool {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (Some(given), None) = (all.next(), all.next()) else {
        return false;
    };
    let Some((scheme, given)) = given.to_str().ok().and_then(|text| text.split_once(' ')) else {
        return false;
    };
    let (given, expected) = (given.trim().as_bytes(), token.expose_secret().as_bytes());
    // Every byte is compared, so that the time tells nothing about the token.
    let differs = given
        .iter()
        .zip(expected)
        .fold(0, |differs, (one, other)| differs | (one ^ other));
    scheme.eq_ignore_ascii_case("bearer") && given.len() == expected.len() && differs == 0
}
