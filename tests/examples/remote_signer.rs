//! Signing by a service over HTTP: the agent has no key, and the service sees what it signs.
//!
//! `cargo run --example remote_signer --features alloy-signer`
#![expect(clippy::print_stdout, reason = "it is there to be read")]

use std::error::Error;

use alloy::dyn_abi::TypedData;
use bursar::reqwest::{self, StatusCode, Url};
use bursar::signer::{Signature, SignerError, TransferAuthorization};
use bursar::{Address, Client, Ledger, Policy, ResponseExt, Signer, usd};
use bursar_testing::{Paywall, Route};

/// The agent's side: where the service is, and whose money it signs away.
struct RemoteSigner {
    address: Address,
    service: Url,
    http: reqwest::Client,
}

impl Signer for RemoteSigner {
    fn address(&self) -> Address {
        self.address
    }

    async fn sign(&self, authorization: &TransferAuthorization) -> Result<Signature, SignerError> {
        let request = self
            .http
            .post(self.service.clone())
            .body(authorization.typed_data_json());
        // Where the service was not reached nothing is signed. After that something may be, and
        // `timeout` keeps its money counted until the authorization has expired.
        let response = request
            .send()
            .await
            .map_err(|error| match error.is_connect() {
                true => SignerError::unavailable("the signing service cannot be reached"),
                false => SignerError::timeout("the signing service did not answer"),
            })?;
        let status = response.status();
        let answer = response
            .text()
            .await
            .map_err(|_| SignerError::timeout("the signing service broke off"))?;
        match status {
            StatusCode::OK => alloy::hex::decode(answer)
                .map(Signature::new)
                .map_err(|_| SignerError::timeout("the answer is no signature")),
            StatusCode::FORBIDDEN => Err(SignerError::rejected(answer)),
            status => Err(SignerError::timeout(format!(
                "the signing service answered {status}"
            ))),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (service, address) = service::start().await?;
    let paywall = Paywall::builder()
        .route(Route::get("/page").price(usd!("0.02")).body("a page"))
        .route(Route::get("/book").price(usd!("0.50")).body("a book"))
        .start()
        .await?;
    let client = Client::builder()
        .signer(RemoteSigner {
            address,
            service,
            http: reqwest::Client::new(),
        })
        .policy(
            Policy::new()
                .allow_network("base-sepolia")
                .per_payment(usd!("1")),
        )
        .ledger(Ledger::memory())
        .allow_http_loopback(true)
        .build()?;

    for path in ["/page", "/book"] {
        match client.get(paywall.url(path)).send().await {
            Ok(response) => println!(
                "{path}: {}, money {}",
                response.status(),
                response.payment_status()
            ),
            Err(error) => println!("{path}: {error}"),
        }
    }
    Ok(())
}

/// A stand-in for the signing service. A real one runs elsewhere and knows its callers.
mod service {
    use super::{Address, Error, StatusCode, TypedData, Url};
    use alloy::signers::k256::ecdsa::SigningKey;
    use http_body_util::{BodyExt, Full};
    use hyper::body::{Bytes, Incoming};
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper::{Request, Response};
    use hyper_util::rt::TokioIo;
    use tokio::net::TcpListener;

    /// Its own limit, in atomic units of USDC: 10 cents.
    const CEILING: u64 = 100_000;

    /// Starts it on loopback with a new key.
    pub(crate) async fn start() -> Result<(Url, Address), Box<dyn Error>> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        let key = SigningKey::from_slice(&secret)?;
        let address = Address::from_public_key(key.verifying_key());
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/sign", listener.local_addr()?).parse()?;
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = service_fn(|request| answer(&key, request));
                let served = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
                served.unwrap_or_else(|error| println!("service: {error}"));
            }
        });
        Ok((url, address))
    }

    async fn answer(
        key: &SigningKey,
        request: Request<Incoming>,
    ) -> hyper::Result<Response<Full<Bytes>>> {
        let body = request.into_body().collect().await?.to_bytes();
        let (status, text) = match sign(key, &body) {
            Ok(signature) => (StatusCode::OK, signature),
            Err(refusal) => (StatusCode::FORBIDDEN, refusal.to_string()),
        };
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        Ok(response)
    }

    fn sign(key: &SigningKey, body: &[u8]) -> Result<String, Box<dyn Error>> {
        let transfer: TypedData = serde_json::from_slice(body)?;
        let value: u64 = transfer
            .message
            .get("value")
            .and_then(|value| value.as_str())
            .ok_or("no value")?
            .parse()?;
        if transfer.primary_type != "TransferWithAuthorization" || value > CEILING {
            return Err("the service signs transfers of 10 cents at most".into());
        }
        let (signature, parity) =
            key.sign_prehash_recoverable(transfer.eip712_signing_hash()?.as_slice())?;
        Ok(alloy::primitives::Signature::from((signature, parity)).to_string())
    }
}
