//! A seller whose answers a test writes byte by byte, for words that no honest seller writes.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A request, as text: its head in the seller's spelling, and its body.
#[derive(Clone, Debug)]
pub struct ScriptedRequest {
    pub target: String,
    pub head: String,
    pub body: String,
}

impl ScriptedRequest {
    /// Returns whether the request carries a payment.
    pub fn is_paid(&self) -> bool {
        let head = self.head.to_ascii_lowercase();
        head.contains("\npayment-signature:") || head.contains("\nx-payment:")
    }
}

/// Starts a seller on loopback. Returns its origin.
pub async fn scripted(
    answer: impl Fn(&ScriptedRequest) -> String + Send + Sync + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                let mut stream = stream;
                if let Some(request) = read(&mut stream).await {
                    drop(stream.write_all(answer(&request).as_bytes()).await);
                    drop(stream.shutdown().await);
                }
            });
        }
    });
    format!("http://{address}")
}

async fn read(stream: &mut TcpStream) -> Option<ScriptedRequest> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| {
                    let (name, value) = line.split_once(':')?;
                    name.eq_ignore_ascii_case("content-length").then_some(value)
                })
                .map_or(0, |length| length.trim().parse().unwrap());
            if body.len() >= length {
                return Some(ScriptedRequest {
                    target: head.split(' ').nth(1)?.to_owned(),
                    head: head.to_owned(),
                    body: body.to_owned(),
                });
            }
        }
        match stream.read(&mut chunk).await {
            Ok(read @ 1..) => bytes.extend_from_slice(&chunk[..read]),
            _ => return None,
        }
    }
}

/// Returns an answer that ends its connection.
pub fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> String {
    let mut text = format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n",
        body.len()
    );
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    format!("{text}\r\n{body}")
}

/// Returns a 402 of version 2 with these terms in its header.
pub fn payment_required(terms: &Value) -> String {
    let header = STANDARD.encode(terms.to_string());
    answer(402, &[("PAYMENT-REQUIRED", &header)], "")
}

/// Returns an offer of one cent in USDC on Base Sepolia, with more in `extra`.
pub fn offer(extra: &str) -> Value {
    serde_json::json!({
        "scheme": "exact", "network": "eip155:84532", "amount": "10000",
        "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
        "payTo": "0x209693Bc6afc0C5328bA36FaF03C514EF312287C", "maxTimeoutSeconds": 60,
        "extra": { "name": "USDC", "version": "2", "note": extra },
    })
}
