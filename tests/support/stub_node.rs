//! A JSON-RPC node on loopback whose answers a test decides.

use std::sync::{Arc, Mutex};

use bursar::chain::ChainReader;
use bursar::primitives::U256;
use bursar::{Address, Network};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The result of a call, or the message of its error. `None` is no answer at all.
pub type Answer = Option<Result<Value, String>>;

type Handler = dyn Fn(&str, &Value) -> Answer + Send + Sync;

/// A node that stops when it is dropped.
pub struct StubNode {
    url: String,
    calls: Arc<Mutex<Vec<(String, Value)>>>,
    _server: JoinSet<()>,
}

impl StubNode {
    /// Starts a node. `answer` is called with the method and the parameters of each call. `eth_chainId` is answered
    /// with the chain id of `network`.
    pub async fn start(
        network: Network,
        answer: impl Fn(&str, &Value) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let answer = Arc::new(answer);
        let handler: Arc<Handler> = Arc::new(move |method: &str, params: &Value| match method {
            "eth_chainId" => Some(Ok(json!(format!("{:#x}", network.chain_id())))),
            _ => answer(method, params),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let calls = Arc::<Mutex<Vec<(String, Value)>>>::default();
        let mut server = JoinSet::new();
        let kept = Arc::clone(&calls);
        server.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&handler), Arc::clone(&kept)));
            }
        });
        Self {
            url,
            calls,
            _server: server,
        }
    }

    /// Starts a node that answers `balanceOf` with the function of token and owner.
    pub async fn with_balances(
        network: Network,
        balance: impl Fn(Address, Address) -> u64 + Send + Sync + 'static,
    ) -> Self {
        Self::start(network, move |method, params| {
            let data = params[0]["data"].as_str().unwrap_or_default();
            if method != "eth_call" || !data.starts_with("0x70a08231") {
                return Some(Err(format!("unexpected call of {method}")));
            }
            let token = params[0]["to"].as_str().unwrap().parse().unwrap();
            let owner = data[34..].parse().unwrap();
            Some(Ok(json!(word(balance(token, owner)))))
        })
        .await
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns a reader that asks this node alone.
    pub fn reader(&self, network: Network) -> ChainReader {
        ChainReader::new().endpoint(network, &self.url).unwrap()
    }

    /// Returns the number of calls with this method.
    pub fn calls(&self, method: &str) -> usize {
        let calls = self.calls.lock().unwrap();
        calls.iter().filter(|(name, _)| name == method).count()
    }

    /// Returns the parameters of the calls with this method.
    pub fn params(&self, method: &str) -> Vec<Value> {
        let calls = self.calls.lock().unwrap();
        let of_method = calls.iter().filter(|(name, _)| name == method);
        of_method.map(|(_, params)| params.clone()).collect()
    }
}

/// Returns a number as one word of 32 bytes in hexadecimal.
pub fn word(number: u64) -> String {
    format!("{:#066x}", U256::from(number))
}

async fn serve(
    mut stream: TcpStream,
    handler: Arc<Handler>,
    calls: Arc<Mutex<Vec<(String, Value)>>>,
) {
    let mut bytes = Vec::new();
    let request = loop {
        let mut part = vec![0; 64 * 1024];
        let Ok(read) = stream.read(&mut part).await else {
            return;
        };
        if read == 0 {
            return;
        }
        bytes.extend_from_slice(&part[..read]);
        let text = String::from_utf8_lossy(&bytes);
        if let Some((_, body)) = text.split_once("\r\n\r\n")
            && let Ok(request) = serde_json::from_str::<Value>(body)
        {
            break request;
        }
    };
    let method = request["method"].as_str().unwrap_or_default().to_owned();
    let params = request["params"].clone();
    calls.lock().unwrap().push((method.clone(), params.clone()));
    let reply = match handler(&method, &params) {
        None => return std::future::pending().await,
        Some(Ok(result)) => json!({ "jsonrpc": "2.0", "id": request["id"], "result": result }),
        Some(Err(message)) => {
            json!({ "jsonrpc": "2.0", "id": request["id"], "error": { "code": -32000, "message": message } })
        }
    };
    let body = reply.to_string();
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    drop(stream.write_all(answer.as_bytes()).await);
}
