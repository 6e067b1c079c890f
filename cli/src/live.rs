//! `bursar report --serve`: the page of a report on loopback, which refreshes itself.
//!
//! The page shows where money goes, so it is closed: it needs a token that only standard output shows. A page of another
//! origin in the same browser can neither read it nor send a request that the server answers: the `Host` must be that
//! of the server, and browsers name the origin of other requests.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bursar::report::Zone;
use bursar::{Ledger, Policy};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::args::Spending;
use crate::connections::{Connections, Guest};
use crate::exit::{Exit, Failure};
use crate::render::Refresh;
use crate::stop::Stop;
use crate::{output, policies, render, spending};

/// The most connections at the same time.
const CONNECTIONS: usize = 32;
/// The time for the head of a request.
const HEAD: Duration = Duration::from_secs(10);
/// The time for a connection, which serves one request.
const CONNECTION: Duration = Duration::from_secs(120);
/// The time for which all requests get the same page. A large ledger takes longer to read than a page to ask for.
const KEPT: Duration = Duration::from_secs(2);
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";
const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

type Answer = Response<Full<Bytes>>;

/// The place of a report and the conditions of a request for it.
struct Live {
    args: Spending,
    policy: Policy,
    zone: Zone,
    ledger: Ledger,
    address: SocketAddr,
    token: String,
    /// The last page with and without a refresh, and its time.
    kept: Mutex<Option<(Instant, [Bytes; 2])>>,
}

pub(crate) async fn serve(
    args: Spending,
    policy: Policy,
    zone: Zone,
    ledger: Ledger,
) -> Result<Exit, Failure> {
    // A mistake in the options is told now, and not by the page.
    spending::selection(&args, zone.clone())?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, args.port)).await;
    let listener = listener.map_err(|error| {
        Failure::failed(format!(
            "--port {}: cannot listen on 127.0.0.1: {error}",
            args.port
        ))
    })?;
    let address = listener.local_addr();
    let address = address.map_err(|error| Failure::failed(error.to_string()))?;
    let mut stop = Stop::listen()?;
    let live = Arc::new(Live {
        args,
        policy,
        zone,
        ledger,
        address,
        token: token()?,
        kept: Mutex::default(),
    });
    output::finish(output::print(format_args!("{}\n", live.url())), Exit::Done)?;
    output::note(format_args!(
        "open the URL in a browser on this machine; the page refreshes every {} s until you stop this command",
        live.args.refresh
    ));
    tokio::select! {
        () = accept(&listener, &live) => {}
        () = stop.asked() => {}
    }
    Ok(Exit::Done)
}

/// Returns 32 bytes of randomness as text.
fn token() -> Result<String, Failure> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(|error| {
        Failure::failed(format!("the operating system gives no randomness: {error}"))
    })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

async fn accept(listener: &TcpListener, live: &Arc<Live>) {
    let mut connections = Connections::new(CONNECTIONS);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Too many open files, for example.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let live = Arc::clone(live);
        connections.open(|guest| {
            let task = tokio::spawn(async move {
                drop(timeout(CONNECTION, connection(stream, &live, &guest)).await);
            });
            task.abort_handle()
        });
    }
}

async fn connection(stream: TcpStream, live: &Arc<Live>, guest: &Guest) {
    let service = service_fn(|request| {
        let live = Arc::clone(live);
        async move { Ok::<_, Infallible>(live.answer(&request, guest).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .keep_alive(false)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    // The browser left, or sent no HTTP.
    drop(served.await);
}

impl Live {
    fn url(&self) -> String {
        format!("http://{}/?token={}", self.address, self.token)
    }

    /// Returns the name of the cookie. Cookies do not tell ports apart.
    fn cookie(&self) -> String {
        format!("bursar_report_{}", self.address.port())
    }

    async fn answer(&self, request: &Request<Incoming>, guest: &Guest) -> Answer {
        if let Err((status, message)) = self.check(request) {
            return text(status, message);
        }
        if request.uri().path() != "/" {
            return text(StatusCode::NOT_FOUND, "there is only one page: /");
        }
        if let Some(token) = parameter(request, "token") {
            if !is_same(&token, &self.token) {
                return self.unauthorized();
            }
            return self.admitted();
        }
        let cookie = self.cookie();
        let knows = cookies(request.headers())
            .any(|(name, value)| name == cookie && is_same(value, &self.token));
        if !knows {
            return self.unauthorized();
        }
        guest.admit();
        self.page(parameter(request, "refresh").as_deref() == Some("off"))
            .await
    }

    /// Refuses requests that another page sends, or that are meant for another server.
    fn check(&self, request: &Request<Incoming>) -> Result<(), (StatusCode, &'static str)> {
        let refuse = |status, message| Err((status, message));
        let headers = request.headers();
        let port = self.address.port();
        let is_here = |host: &str| {
            ["127.0.0.1", "localhost"]
                .iter()
                .any(|name| host.eq_ignore_ascii_case(&format!("{name}:{port}")))
                || (port == 80 && ["127.0.0.1", "localhost"].contains(&host))
        };
        let host = only(headers, &header::HOST).filter(|host| is_here(host));
        let named = request.uri().authority();
        if host.is_none() || named.is_some_and(|named| !is_here(named.as_str())) {
            return refuse(
                StatusCode::MISDIRECTED_REQUEST,
                "the Host is not that of this server",
            );
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return refuse(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered");
        }
        let own = |origin: &str| origin.strip_prefix("http://").is_some_and(is_here);
        let is_own_origin = match only(headers, &header::ORIGIN) {
            Some(origin) => own(origin),
            None => !headers.contains_key(header::ORIGIN),
        };
        let site = HeaderName::from_static("sec-fetch-site");
        let is_own_site = match only(headers, &site) {
            Some(site) => matches!(site, "none" | "same-origin"),
            None => !headers.contains_key(&site),
        };
        if !is_own_origin || !is_own_site {
            return refuse(
                StatusCode::FORBIDDEN,
                "another page sent this request; open the URL from the terminal in the address bar",
            );
        }
        Ok(())
    }

    fn unauthorized(&self) -> Answer {
        text(
            StatusCode::UNAUTHORIZED,
            "open the URL with the token that `bursar report --serve` printed",
        )
    }

    /// Gives the browser the token as a cookie, so that the address bar and the history lose it.
    fn admitted(&self) -> Answer {
        let cookie = format!(
            "{}={}; Path=/; HttpOnly; SameSite=Strict",
            self.cookie(),
            self.token
        );
        let mut answer = text(StatusCode::SEE_OTHER, "the page is at /");
        let headers = answer.headers_mut();
        headers.insert(header::LOCATION, HeaderValue::from_static("/"));
        if let Ok(cookie) = HeaderValue::try_from(cookie) {
            headers.insert(header::SET_COOKIE, cookie);
        }
        answer
    }

    async fn page(&self, is_still: bool) -> Answer {
        let mut kept = self.kept.lock().await;
        let fresh = kept.as_ref().filter(|(at, _)| at.elapsed() < KEPT);
        let pages = match fresh {
            Some((_, pages)) => pages.clone(),
            None => match self.write().await {
                Ok(pages) => kept.insert((Instant::now(), pages)).1.clone(),
                Err(failure) => {
                    let page = render::failed(&failure.message, self.args.refresh);
                    return answer(StatusCode::SERVICE_UNAVAILABLE, HTML, page.into());
                }
            },
        };
        let [refreshing, still] = pages;
        answer(
            StatusCode::OK,
            HTML,
            if is_still { still } else { refreshing },
        )
    }

    async fn write(&self) -> Result<[Bytes; 2], Failure> {
        // The last days are counted from today.
        let selection = spending::selection(&self.args, self.zone.clone())?;
        let report = self.ledger.report(&selection).await?;
        let report = report.with_budget(self.policy.budget(&self.ledger).await?);
        let seconds = self.args.refresh;
        let policy = policies::place(&self.args.policy);
        Ok([Refresh::Every { seconds }, Refresh::Paused { seconds }]
            .map(|refresh| render::live(&report, &policy, refresh).into()))
    }
}

fn text(status: StatusCode, message: &'static str) -> Answer {
    answer(status, TEXT, Bytes::from_static(message.as_bytes()))
}

fn answer(status: StatusCode, kind: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    for (name, value) in [
        ("content-type", kind),
        ("content-security-policy", POLICY),
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        let name = HeaderName::from_static(name);
        answer
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    answer
}

/// Returns the value of a header that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

fn parameter(request: &Request<Incoming>, name: &str) -> Option<String> {
    let query = request.uri().query()?;
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key == name).then(|| value.to_owned())
    })
}

fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let values = headers.get_all(header::COOKIE).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts
        .flat_map(|text| text.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
}

/// Compares in a time that does not depend on the first different byte.
fn is_same(given: &str, token: &str) -> bool {
    let differences = given
        .bytes()
        .zip(token.bytes())
        .fold(0, |found, (a, b)| found | (a ^ b));
    given.len() == token.len() && differences == 0
}
