//! The official transcripts (`tests/vectors/http_transcripts.json`), replayed against the client: the
//! recorded answers from a server on loopback, and on the way there the recorded payments, byte for
//! byte.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::error::Error as StdError;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bursar::ledger::{Filter, State};
use bursar::policy::Rule;
use bursar::primitives::B256;
use bursar::secrecy::ExposeSecret;
use bursar::x402::PaymentRequired;
use bursar::{
    Client, ErrorKind, Ledger, LocalSigner, Network, Payer, PaymentStatus, Policy, Purchase,
    PurchaseRequest, ResponseExt, RetryPolicy, Timestamp, usd,
};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

type Error = Box<dyn StdError>;

macro_rules! vectors {
    ($file:literal) => {
        serde_json::from_str::<Value>(include_str!(concat!("vectors/", $file, ".json"))).unwrap()
    };
}

/// The wallet of the vectors, with their key and their time. Its nonces are its own: they follow from
/// the purchase, and the nonce of the vectors does not.
fn wallet(policy: Policy) -> Payer {
    let meta = vectors!("meta");
    let now = meta["now"].as_u64().unwrap();
    let key = meta["privateKey"].as_str().unwrap().to_owned();
    let payer = Payer::builder()
        .signer(LocalSigner::from_hex(&key.into()).unwrap())
        .policy(policy)
        .ledger(Ledger::memory());
    payer
        .clock(move || Timestamp::from_secs(now))
        .build()
        .unwrap()
}

/// Returns the JSON of a payment with the nonce of the vectors, and with the signature that the
/// official client made for it. The payment must have the nonce `own`. Everything else stays as it is,
/// byte for byte.
///
/// `src/vectors.rs` checks that our key makes the official signatures for the official nonce.
fn as_official(sent: &str, own: B256, official: &Value) -> String {
    let payload = |json: &Value| {
        let text = |name: &str| json.pointer(name).unwrap().as_str().unwrap().to_owned();
        (
            text("/payload/authorization/nonce"),
            text("/payload/signature"),
        )
    };
    let (nonce, signature) = payload(&serde_json::from_str(sent).unwrap());
    let (official_nonce, official_signature) = payload(official);
    assert_eq!(nonce, own.to_string());
    assert_eq!(signature.len(), official_signature.len());
    assert_eq!(sent.matches(&nonce).count(), 1);
    assert_eq!(sent.matches(&signature).count(), 1);
    sent.replace(&nonce, &official_nonce)
        .replace(&signature, &official_signature)
}

/// A request as it reached the server: its head, with names in lower case, and its body.
#[derive(Clone, Debug)]
struct Received {
    head: String,
    body: String,
}

impl Received {
    fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// A server that gives recorded answers, one after the other and then none, and keeps what it was
/// asked.
struct Seller {
    url: String,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Seller {
    async fn start(answers: Vec<Value>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/premium-data", listener.local_addr().unwrap());
        let received = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&received);
        tokio::spawn(async move {
            let mut answers = answers.iter();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let mut stream = BufReader::new(stream);
                let request = read_request(&mut stream).await.unwrap();
                kept.lock().unwrap().push(request);
                let answer = answers.next().map(response).unwrap_or_default();
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Self { url, received }
    }

    fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

async fn read_request(stream: &mut BufReader<TcpStream>) -> std::io::Result<Received> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    let head: String = head.lines().map(lower_name).collect();
    let mut request = Received {
        head,
        body: String::new(),
    };
    let length = request
        .header("content-length")
        .map_or(0, |length| length.parse().unwrap());
    stream
        .take(length)
        .read_to_string(&mut request.body)
        .await?;
    Ok(request)
}

/// The line of a head with its header's name in lower case; values keep their case.
fn lower_name(line: &str) -> String {
    match line.split_once(": ") {
        Some((name, value)) => format!("{}: {value}\n", name.to_ascii_lowercase()),
        None => format!("{line}\n"),
    }
}

/// A recorded response on the wire.
fn response(answer: &Value) -> String {
    let body = answer["body"].as_str().unwrap();
    let headers = answer["headers"].as_object().unwrap().iter();
    let headers: String = headers
        .map(|(name, value)| format!("{name}: {}\r\n", value.as_str().unwrap()))
        .collect();
    format!(
        "HTTP/1.1 {} Recorded\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}",
        answer["status"],
        body.len()
    )
}

/// A transcript that was replayed.
struct Replayed {
    result: Result<reqwest::Response, bursar::Error>,
    /// The payment that left, as JSON, and the one that was recorded.
    sent: Value,
    recorded: Value,
    entry: Purchase,
}

/// Buys as the official client did, and checks all that transcripts have in common: two requests, the
/// first without payment, the second the same with it.
async fn replay(name: &str) -> Replayed {
    let transcript = &vectors!("http_transcripts")[name];
    let wire: Vec<Value> = transcript["wire"].as_array().unwrap().clone();
    let seller = Seller::start(wire.iter().map(|step| step["response"].clone()).collect()).await;
    let payer = wallet(
        Policy::new()
            .allow_network("base-sepolia")
            .per_payment(usd!("0.01")),
    );
    let client = Client::builder()
        .payer(payer.clone())
        .allow_http_loopback(true)
        .retry_policy(RetryPolicy::once())
        .build()
        .unwrap();

    let recorded = &wire[1]["request"];
    let body = recorded["body"].as_str().unwrap();
    let request = client
        .post(&seller.url)
        .header("content-type", "application/json")
        .body(body.to_owned());
    let result = request.send().await;

    let received = seller.received();
    assert_eq!(received.len(), wire.len());
    for request in &received {
        assert!(
            request.head.starts_with("POST /premium-data HTTP/1.1\n"),
            "{}",
            request.head
        );
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert_eq!(request.body, body);
        assert_eq!(request.header("x-payment"), None);
    }
    assert_eq!(received[0].header("payment-signature"), None);
    let sent = received[1].header("payment-signature").unwrap();
    let recorded_payment = &transcript["decoded"][1]["paymentSignature"];
    let purchases = payer.ledger().purchases(&Filter::all()).await.unwrap();
    assert_eq!(purchases.len(), 1);
    let sent = as_official(&decode(sent), purchases[0].nonce, recorded_payment);
    if name != "with_payment_identifier_required" {
        assert_eq!(encode(&sent), recorded["headers"]["payment-signature"]);
    }
    assert_eq!(
        purchases[0].foreign_resource.as_deref(),
        Some("https://api.example.com/premium-data")
    );
    Replayed {
        result,
        sent: serde_json::from_str(&sent).unwrap(),
        recorded: recorded_payment.clone(),
        entry: purchases[0].clone(),
    }
}

fn decode(header: &str) -> String {
    String::from_utf8(STANDARD.decode(header).unwrap()).unwrap()
}

fn encode(json: &str) -> String {
    STANDARD.encode(json)
}

/// The error of a purchase that the seller refused. The signature is out, so the money counts.
fn refused(replayed: Replayed) -> (bursar::Error, Purchase) {
    let error = replayed.result.unwrap_err();
    assert_eq!(error.payment_status(), PaymentStatus::MaybePaid);
    assert_eq!(error.status().unwrap().as_u16(), 402);
    assert_eq!(error.purchase_id(), Some(&replayed.entry.id));
    assert!(error.receipt().is_none());
    assert!(replayed.entry.counts(replayed.entry.expires_at));
    assert_eq!(replayed.entry.transaction, None);
    (error, replayed.entry)
}

#[tokio::test]
async fn transcript_success() -> Result<(), Error> {
    let Replayed {
        result,
        sent,
        recorded,
        entry,
    } = replay("success").await;
    assert_eq!(sent, recorded);
    let response = result?;
    assert_eq!(
        (response.status().as_u16(), response.payment_status()),
        (200, PaymentStatus::Paid)
    );
    let receipt = response.receipt().unwrap();
    assert_eq!(receipt.transaction(), B256::repeat_byte(0x12));
    assert_eq!(receipt.amount().to_string(), "0.01 USDC");
    assert_eq!(
        (entry.state, entry.transaction),
        (State::Settled, Some(receipt.transaction()))
    );
    assert_eq!(
        response.text().await?,
        "{\"data\":\"premium market data response\"}"
    );
    Ok(())
}

/// The official client hands this second 402 back like any other response.
#[tokio::test]
async fn transcript_verify_failed() {
    let (error, entry) = refused(replay("verify_failed_second_402").await);
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert_eq!(
        error.reason(),
        Some("invalid_exact_evm_insufficient_balance")
    );
    assert_eq!(entry.state, State::Rejected);
}

#[tokio::test]
async fn transcript_settle_failed() {
    let (error, entry) = refused(replay("settle_failed").await);
    assert_eq!(error.kind(), ErrorKind::SettlementFailed);
    assert_eq!(error.reason(), Some("insufficient_funds"));
    assert_eq!(entry.state, State::Rejected);
}

#[tokio::test]
async fn transcript_settle_pending() {
    let (error, entry) = refused(replay("settle_pending").await);
    assert_eq!(error.kind(), ErrorKind::SettlementPending);
    assert_eq!(error.reason(), Some("settlement_pending"));
    assert_eq!(entry.state, State::Unresolved);
}

/// 412 is no 402, and a payment by EIP-3009 needs no allowance: the response goes to the caller, who can ask what was spent.
#[tokio::test]
async fn transcript_permit2_allowance() {
    let Replayed { result, entry, .. } = replay("permit2_allowance_412").await;
    let response = result.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.payment_status()),
        (412, PaymentStatus::MaybePaid)
    );
    assert!(response.receipt().is_none());
    assert_eq!(response.payment().unwrap().purchase, entry.id);
    let terms =
        PaymentRequired::from_header(response.headers()["payment-required"].as_bytes()).unwrap();
    assert_eq!(terms.error(), Some("permit2_allowance_required"));
    assert_eq!((entry.state, entry.status), (State::Unresolved, Some(412)));
    let error = response.error_for_payment().unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Status, PaymentStatus::MaybePaid)
    );
}

/// The recorded client did not know the extension and sent no identifier; ours differs in that alone.
#[tokio::test]
async fn transcript_payment_identifier() {
    let Replayed {
        result,
        mut sent,
        recorded,
        entry,
    } = replay("with_payment_identifier_required").await;
    let info = sent["extensions"]["payment-identifier"]["info"]
        .as_object_mut()
        .unwrap();
    assert_eq!(info.remove("id"), Some(entry.identifier.into()));
    assert_eq!(sent.to_string(), recorded.to_string());
    assert_eq!(result.unwrap().payment_status(), PaymentStatus::Paid);
    assert_eq!(entry.state, State::Settled);
}

/// Every token and every variant of the vectors, with the nonce and the signature of the vectors:
/// version, validity, header name and header value come out as official.
#[tokio::test]
async fn wallet_pays_what_the_official_client_pays() -> Result<(), Error> {
    let (assets, variants, v1) = (
        vectors!("exact_v2_default_assets"),
        vectors!("exact_v2_variants"),
        vectors!("exact_v1"),
    );
    let rows = [&assets, &variants, &v1]
        .into_iter()
        .flat_map(|file| file.as_array().unwrap());
    let (mut paid, mut refused) = (0, 0);
    for row in rows {
        let (terms, header) = match row.get("paymentRequiredBody") {
            Some(body) => (body, "x-payment"),
            None => (&row["paymentRequired"], "payment-signature"),
        };
        let required = PaymentRequired::from_json(terms.to_string().as_bytes())?;
        let network: Network = terms["accepts"][0]["network"].as_str().unwrap().parse()?;
        let payer = wallet(Policy::new().allow_network(network));
        let intent = PurchaseRequest::new("GET", "https://api.example.com/premium-data", b"")?;
        match payer.authorize(&required, &intent).await {
            Ok(payment) => {
                let (name, value) = payment.header()?;
                let official =
                    |json: &str| as_official(json, payment.payment().nonce, &row["paymentPayload"]);
                assert_eq!(
                    (name.as_str(), encode(&official(&decode(value.to_str()?)))),
                    (header, row["headerValue"].as_str().unwrap().to_owned())
                );
                assert_eq!(
                    official(payment.json()?.expose_secret()),
                    row["paymentPayload"].to_string()
                );
                paid += 1;
            }
            Err(error) => {
                assert!(is_ours(row, &error), "{row} {error}");
                refused += 1;
            }
        }
    }
    assert_eq!((paid, refused), (41, 10));
    Ok(())
}

/// Whether we refuse by design what the official client signs: Permit2, nothing, and more than any
/// dollar limit can count.
fn is_ours(row: &Value, error: &bursar::Error) -> bool {
    match row.get("label").and_then(Value::as_str) {
        Some("amount_zero") => error.denial().unwrap().rule == Rule::ZeroAmount,
        Some("amount_uint256_max" | "amount_1e24") => {
            error.denial().unwrap().rule == Rule::PerPayment
        }
        Some("permit2_usdc") | None => error.denial().unwrap().rule == Rule::Scheme,
        Some(_) => false,
    }
}
