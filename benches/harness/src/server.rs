//! The one server of all clients: x402 version 2, with the checks that cost the same for everybody.
//!
//! It decodes payments and refuses a nonce that it has seen. It verifies no signature: that would be most
//! of the time measured, and is not the client's.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::drive::Failure;

pub const PAYEE: &str = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C";
pub const USDC: &str = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";
pub const PRICE: &str = "1000";

struct ToolServer {
    one: HeaderValue,
    eight: HeaderValue,
    big: Bytes,
    seen: Mutex<HashSet<String>>,
}

#[derive(Deserialize)]
struct Payment {
    payload: Payload,
}

#[derive(Deserialize)]
struct Payload {
    authorization: Authorization,
}

#[derive(Deserialize)]
struct Authorization {
    from: String,
    to: String,
    value: String,
    nonce: String,
}

fn terms(base: &str, offers: usize) -> HeaderValue {
    let offer = |network: &str, asset: &str| {
        json!({ "scheme": "exact", "network": network, "amount": PRICE, "asset": asset, "payTo": PAYEE,
            "maxTimeoutSeconds": 300, "extra": { "name": "USDC", "version": "2" } })
    };
    let others = (1..offers).map(|number| offer(&format!("eip155:{}", 4_000_000 + number), USDC));
    let accepts: Vec<_> = others.chain([offer("eip155:84532", USDC)]).collect();
    let terms = json!({
        "x402Version": 2,
        "error": "PAYMENT-SIGNATURE header is required",
        "resource": { "url": format!("{base}/paid"), "description": "what is sold", "mimeType": "application/json" },
        "accepts": accepts,
        // x402-signer does not read terms without extensions.
        "extensions": {},
    });
    header(&terms)
}

fn header(json: &serde_json::Value) -> HeaderValue {
    HeaderValue::from_str(&BASE64_STANDARD.encode(json.to_string())).expect("base64")
}

impl ToolServer {
    async fn answer(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let path = request.uri().path();
        if path.starts_with("/slow") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if path == "/free" {
            return Ok(Response::new(Full::from(&b"{\"ok\":true}"[..])));
        }
        if path == "/big" {
            return Ok(Response::new(Full::new(self.big.clone())));
        }
        let Some(payment) = request.headers().get("payment-signature") else {
            let mut answer = Response::new(Full::from(&b"{}"[..]));
            *answer.status_mut() = StatusCode::PAYMENT_REQUIRED;
            let terms = if path.contains("eight") {
                &self.eight
            } else {
                &self.one
            };
            answer
                .headers_mut()
                .insert("payment-required", terms.clone());
            return Ok(answer);
        };
        let json = BASE64_STANDARD
            .decode(payment.as_bytes())
            .unwrap_or_default();
        let paid =
            serde_json::from_slice::<Payment>(&json).map(|payment| payment.payload.authorization);
        let new = |paid: &Authorization| {
            // The floor presents the same bytes each time.
            path.contains("floor")
                || self
                    .seen
                    .lock()
                    .expect("no panics here")
                    .insert(paid.nonce.clone())
        };
        let mut answer = Response::new(Full::from(&b"{\"ok\":true}"[..]));
        match paid {
            Ok(paid)
                if paid.value == PRICE && paid.to.eq_ignore_ascii_case(PAYEE) && new(&paid) =>
            {
                let receipt = json!({ "success": true, "transaction": paid.nonce, "network": "eip155:84532", "payer": paid.from });
                answer
                    .headers_mut()
                    .insert("payment-response", header(&receipt));
            }
            _ => *answer.status_mut() = StatusCode::BAD_REQUEST,
        }
        Ok(answer)
    }
}

/// Serves until standard input ends; says its port first.
pub async fn serve() -> Result<(), Failure> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let base = format!("http://{}", listener.local_addr()?);
    let shop = Arc::new(ToolServer {
        one: terms(&base, 1),
        eight: terms(&base, 8),
        big: Bytes::from(vec![b'x'; 1 << 20]),
        seen: Mutex::default(),
    });
    println!("{}", listener.local_addr()?.port());
    let accept = async {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                continue;
            };
            drop(stream.set_nodelay(true));
            let shop = Arc::clone(&shop);
            tokio::spawn(async move {
                let service = service_fn(|request| shop.answer(request));
                drop(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await,
                );
            });
        }
    };
    let mut input = tokio::io::stdin();
    let mut rest = Vec::new();
    tokio::select! { () = accept => {}, ended = input.read_to_end(&mut rest) => drop(ended) }
    Ok(())
}
