//! A listener that records the first bytes of each connection, in place of a proxy or of a stranger's server.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Records the requests, and answers each with 503.
pub struct Recorder {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    /// Starts on a loopback address.
    pub async fn start() -> Self {
        Self::start_at([127, 0, 0, 1].into()).await
    }

    pub async fn start_at(ip: IpAddr) -> Self {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let kept = Arc::clone(&heads);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let kept = Arc::clone(&kept);
                tokio::spawn(async move {
                    let mut bytes = vec![0; 16 * 1024];
                    let read = stream.read(&mut bytes).await.unwrap_or(0);
                    if let Some(head) = bytes.get(..read).filter(|head| !head.is_empty()) {
                        let head = String::from_utf8_lossy(head).into_owned();
                        kept.lock().unwrap().push(head);
                    }
                    let answer = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
                    drop(stream.write_all(answer).await);
                });
            }
        });
        Self { address, heads }
    }

    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the URL of the listener as a proxy.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the first bytes of each connection that sent any.
    #[must_use]
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

/// Returns an address of this machine that is no loopback address, if it has one. No packet is sent.
#[must_use]
pub fn outer_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.77:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}
