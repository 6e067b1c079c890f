//! A wire to the server that breaks at a COMMIT.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio_postgres::NoTls;

/// What happens to the next COMMIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mishap {
    None,
    /// It does not arrive.
    CutBefore,
    /// It takes effect, and its answer is lost.
    CutAfter,
    /// It arrives when the client, who lost the connection, already waits on another.
    Overtaken,
    /// As [`CutAfter`](Self::CutAfter), and the server cannot be reached any more.
    Down,
    /// As [`Down`](Self::Down), but connections stay open and nobody answers.
    Silence,
}

struct Shared {
    server: PathBuf,
    url: String,
    /// What its clients call themselves.
    name: String,
    mishap: watch::Sender<Mishap>,
    mishaps: AtomicUsize,
    round_trips: AtomicUsize,
}

pub(super) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

impl Proxy {
    /// `url` names the directory of the server's socket as its host.
    pub(super) async fn new(url: &str) -> Self {
        let part = |name| {
            url.split_whitespace()
                .find_map(|part| part.strip_prefix(name))
                .unwrap()
        };
        let shared = Arc::new(Shared {
            url: url.to_owned(),
            name: crate::ledger::random_hex().unwrap(),
            server: PathBuf::from(part("host=")).join(format!(".s.PGSQL.{}", part("port="))),
            mishap: watch::Sender::new(Mishap::None),
            mishaps: AtomicUsize::new(0),
            round_trips: AtomicUsize::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepting = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, Arc::clone(&accepting)));
            }
        });
        Self { port, shared }
    }

    pub(super) fn url(&self) -> String {
        let (port, name) = (self.port, &self.shared.name);
        format!(
            "host=127.0.0.1 port={port} user=bursar dbname=postgres sslmode=disable application_name={name}"
        )
    }

    pub(super) fn arm(&self, mishap: Mishap) {
        self.shared.mishap.send_replace(mishap);
    }

    /// Returns how often a client asked after the server had answered.
    pub(super) fn round_trips(&self) -> usize {
        self.shared.round_trips.load(Ordering::SeqCst)
    }

    pub(super) fn mishaps(&self) -> usize {
        self.shared.mishaps.load(Ordering::SeqCst)
    }
}

async fn serve(mut client: TcpStream, shared: Arc<Shared>) {
    let armed = || *shared.mishap.borrow();
    if armed() == Mishap::Down && shared.mishaps.load(Ordering::SeqCst) > 0 {
        return;
    }
    let mut server = UnixStream::connect(&shared.server).await.unwrap();
    let (mut asked, mut answered) = (vec![0; 65536], vec![0; 65536]);
    let mut has_answered = true;
    loop {
        tokio::select! {
            Ok(length) = client.read(&mut asked) => {
                let Some(part) = asked.get(..length).filter(|part| !part.is_empty()) else { return };
                if std::mem::take(&mut has_answered) {
                    shared.round_trips.fetch_add(1, Ordering::SeqCst);
                }
                let mishap = armed();
                if mishap == Mishap::Silence && shared.mishaps.load(Ordering::SeqCst) > 0 {
                    return hush(client, &shared).await;
                }
                if says(part, b"COMMIT\0") && mishap != Mishap::None {
                    shared.mishaps.fetch_add(1, Ordering::SeqCst);
                    return lose(mishap, part, client, server, &shared).await;
                }
                server.write_all(part).await.unwrap();
            }
            Ok(length) = server.read(&mut answered) => {
                let Some(part) = answered.get(..length).filter(|part| !part.is_empty()) else { return };
                has_answered = true;
                if client.write_all(part).await.is_err() {
                    return;
                }
            }
            else => return,
        }
    }
}

fn says(part: &[u8], words: &[u8]) -> bool {
    part.windows(words.len()).any(|window| window == words)
}

async fn lose(
    mishap: Mishap,
    commit: &[u8],
    client: TcpStream,
    mut server: UnixStream,
    shared: &Shared,
) {
    if !matches!(mishap, Mishap::Down | Mishap::Silence) {
        shared.mishap.send_replace(Mishap::None);
    }
    match mishap {
        Mishap::None | Mishap::CutBefore => {}
        Mishap::Overtaken => {
            drop(client);
            somebody_waits(shared).await;
            finish(commit, &mut server).await;
        }
        Mishap::CutAfter | Mishap::Down => {
            finish(commit, &mut server).await;
            drop(client);
        }
        Mishap::Silence => {
            finish(commit, &mut server).await;
            hush(client, shared).await;
        }
    }
}

/// Until another connection of the client waits for the lock that the first still holds.
async fn somebody_waits(shared: &Shared) {
    let (admin, connection) = tokio_postgres::connect(&shared.url, NoTls).await.unwrap();
    tokio::spawn(connection);
    let waiting =
        "SELECT FROM pg_stat_activity WHERE application_name = $1 AND wait_event_type = 'Lock'";
    while admin
        .query(waiting, &[&shared.name])
        .await
        .unwrap()
        .is_empty()
    {}
}

/// Until the server says that it committed. The answers of the statements that came with the COMMIT are before.
async fn finish(commit: &[u8], server: &mut UnixStream) {
    server.write_all(commit).await.unwrap();
    let (mut answers, mut part) = (Vec::new(), [0; 1024]);
    while !says(&answers, b"COMMIT\0") {
        let length = server.read(&mut part).await.unwrap();
        assert!(length > 0);
        answers.extend(&part[..length]);
    }
}

/// Keeps the connection, and says nothing, until the mishap is over.
async fn hush(client: TcpStream, shared: &Shared) {
    let mut mishap = shared.mishap.subscribe();
    mishap
        .wait_for(|mishap| *mishap == Mishap::None)
        .await
        .unwrap();
    drop(client);
}
