//! A seller that speaks OpenAI's API.

mod chat;
mod reply;
mod request;
mod responses;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use alloy::primitives::keccak256;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bursar::{Usd, usd};
use serde_json::{Value, json};

use self::chat::Stamp;
pub use self::reply::ChatReply;
use self::request::Api;
pub use self::request::{ChatMessage, ChatRequest};
use crate::handler::{Answer, Gate};
use crate::payment::ReceivedRequest;
use crate::route::Route;

/// The tokens that an answer may have, if the request does not limit them.
const DEFAULT_MAX_TOKENS: u64 = 1_000;

type ByRequest<T> = Box<dyn Fn(&ChatRequest) -> T + Send + Sync>;

/// The routes of a seller that speaks OpenAI's API and is paid for each request.
///
/// | Route | Price |
/// |---|---|
/// | `POST /v1/chat/completions`, `POST /v1/responses` | [`price`](Self::price), 0.001 dollars unless you set one |
/// | `POST /v1/embeddings` | the same, without the price of tokens |
/// | `GET /v1/models`, `GET /v1/models/{model}` | free |
///
/// A request with `"stream": true` is answered with server-sent events, and `/chat/completions` ends them with `[DONE]`. An
/// invalid request is answered with OpenAI's error and is free. The seller ignores the API key that clients send.
///
/// The model repeats the last message of the user. If the message names a function of the request, or `tool_choice` demands
/// one, it calls the function with the message as its arguments. Set another model with [`reply`](Self::reply).
///
/// ```
/// use bursar::{Client, Ledger, LocalSigner, Policy, usd};
/// use bursar_testing::{ChatReply, OpenAi, Paywall};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let model = OpenAi::new()
///     .price(usd!("0.002"))
///     .reply(|request| ChatReply::text(format!("{}? Yes!", request.prompt())));
/// let seller = Paywall::builder().routes(model).start().await?;
///
/// let client = Client::builder()
///     .signer(LocalSigner::random()?)
///     .policy(Policy::new().allow_network("base-sepolia"))
///     .ledger(Ledger::memory())
///     .allow_http_loopback(true)
///     .build()?;
/// // A client of OpenAI has the base URL `seller.url("/v1")`.
/// let answer = client
///     .post(seller.url("/v1/chat/completions"))
///     .body(r#"{"model":"gpt-test","messages":[{"role":"user","content":"Ready"}]}"#)
///     .send()
///     .await?;
/// assert!(answer.text().await?.contains("Ready? Yes!"));
/// assert_eq!(seller.settlements()[0].authorization.value, 2_000);
/// # Ok(())
/// # }
/// ```
///
/// Everything that a [`Paywall`](crate::Paywall) can do works here, also the faults: set them with
/// [`paid_route`](Self::paid_route).
#[must_use = "the routes do nothing until a paywall has them"]
pub struct OpenAi {
    prefix: String,
    models: Vec<String>,
    price: Usd,
    price_per_token: Usd,
    price_by: Option<ByRequest<Usd>>,
    reply: ByRequest<ChatReply>,
    pause: Option<Duration>,
    gate: Option<Gate>,
    paid_route: Box<dyn Fn(Route) -> Route + Send + Sync>,
}

impl fmt::Debug for OpenAi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenAi")
            .field("prefix", &self.prefix)
            .field("models", &self.models)
            .field("price", &self.price)
            .finish_non_exhaustive()
    }
}

impl Default for OpenAi {
    fn default() -> Self {
        Self::new()
    }
}

impl OpenAi {
    /// Returns a seller of the model `gpt-test`.
    pub fn new() -> Self {
        Self {
            prefix: "/v1".to_owned(),
            models: Vec::new(),
            price: usd!("0.001"),
            price_per_token: Usd::ZERO,
            price_by: None,
            reply: Box::new(ChatReply::default_to),
            pause: None,
            gate: None,
            paid_route: Box::new(|route| route),
        }
    }

    /// Sets the beginning of the paths. The default is `/v1`.
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.prefix = format!("/{}", prefix.trim_matches('/'));
        self
    }

    /// Adds a model. Without any, there is `gpt-test`. Other models are answered with 404.
    pub fn model(mut self, name: impl Into<String>) -> Self {
        self.models.push(name.into());
        self
    }

    /// Sets the price of a request. The default is 0.001 dollars.
    pub fn price(mut self, price: Usd) -> Self {
        self.price = price;
        self
    }

    /// Adds a price for each token that the answer may have: the `max_tokens` of the request, or 1,000.
    ///
    /// Gateways with the scheme `exact` have such prices, because the price must be known before the answer.
    pub fn price_per_token(mut self, price: Usd) -> Self {
        self.price_per_token = price;
        self
    }

    /// Sets a price that depends on the request, in place of [`price`](Self::price) and
    /// [`price_per_token`](Self::price_per_token). Zero is free. The same request must always have the same price.
    pub fn price_by(mut self, price: impl Fn(&ChatRequest) -> Usd + Send + Sync + 'static) -> Self {
        self.price_by = Some(Box::new(price));
        self
    }

    /// Sets the model. The paywall calls it once for each paid answer, and is locked during the call.
    pub fn reply(
        mut self,
        reply: impl Fn(&ChatRequest) -> ChatReply + Send + Sync + 'static,
    ) -> Self {
        self.reply = Box::new(reply);
        self
    }

    /// Waits for this time before each event of a stream but the first.
    pub fn pause(mut self, time: Duration) -> Self {
        self.pause = Some(time);
        self
    }

    /// Sends only the events of a stream that the gate lets through.
    pub fn gate(mut self, gate: &Gate) -> Self {
        self.gate = Some(gate.clone());
        self
    }

    /// Changes the paid routes: their version, token, faults, keys and so on.
    ///
    /// ```
    /// use bursar_testing::{Fault, OpenAi};
    ///
    /// let model = OpenAi::new().paid_route(|route| route.v1().idempotent().fault_once(Fault::DropAfterSettle));
    /// ```
    pub fn paid_route(mut self, change: impl Fn(Route) -> Route + Send + Sync + 'static) -> Self {
        self.paid_route = Box::new(change);
        self
    }

    /// Returns the routes.
    #[must_use]
    pub fn into_routes(mut self) -> Vec<Route> {
        if self.models.is_empty() {
            self.models.push("gpt-test".to_owned());
        }
        let models = json!({
            "object": "list",
            "data": self.models.iter().map(|name| model(name)).collect::<Vec<_>>(),
        });
        let mut routes = vec![Route::get(format!("{}/models", self.prefix)).json(models)];
        routes.extend(
            self.models
                .iter()
                .map(|name| Route::get(format!("{}/models/{name}", self.prefix)).json(model(name))),
        );
        routes.push(
            Route::get(format!("{}/models/*", self.prefix))
                .status(404)
                .json(no_model(None)),
        );
        let paid_route = std::mem::replace(&mut self.paid_route, Box::new(|route| route));
        let prefix = self.prefix.clone();
        let model = Arc::new(Model {
            settings: self,
            answers: AtomicU64::new(0),
        });
        for (path, api) in [
            ("chat/completions", Api::Chat),
            ("responses", Api::Responses),
        ] {
            let (prices, replies) = (Arc::clone(&model), Arc::clone(&model));
            let route = Route::post(format!("{prefix}/{path}"))
                .price_by(move |request| prices.price(request, api))
                .respond(move |request| replies.answer(request, api));
            routes.push(paid_route(route));
        }
        let (prices, vectors) = (Arc::clone(&model), model);
        let route = Route::post(format!("{prefix}/embeddings"))
            .price_by(move |request| {
                let answer = prices.embeddings(request);
                answer.is_ok().then_some(prices.settings.price)
            })
            .respond(move |request| vectors.embeddings(request).unwrap_or_else(|error| *error));
        routes.push(paid_route(route));
        routes
    }
}

/// The model behind the routes.
struct Model {
    settings: OpenAi,
    /// The number of answers, for their ids.
    answers: AtomicU64,
}

impl Model {
    fn read(&self, request: &ReceivedRequest, api: Api) -> Result<ChatRequest, Box<Answer>> {
        let read = ChatRequest::read(&request.body, api);
        let read = read.map_err(|(message, param)| {
            refuse(400, failure("invalid_request_error", &message, param, None))
        })?;
        self.serves(read.model())?;
        Ok(read)
    }

    fn serves(&self, name: &str) -> Result<(), Box<Answer>> {
        match self.settings.models.iter().any(|model| model == name) {
            true => Ok(()),
            false => Err(refuse(404, no_model(Some(name)))),
        }
    }

    /// Returns the price, or `None` for a request that is answered with an error.
    fn price(&self, request: &ReceivedRequest, api: Api) -> Option<Usd> {
        let request = self.read(request, api).ok()?;
        let OpenAi {
            price,
            price_per_token,
            price_by,
            ..
        } = &self.settings;
        if let Some(price_by) = price_by {
            return Some(price_by(&request));
        }
        let tokens = request.max_tokens().unwrap_or(DEFAULT_MAX_TOKENS);
        let tokens = price_per_token.micros().saturating_mul(tokens);
        Some(price.saturating_add(Usd::from_micros(tokens)))
    }

    fn answer(&self, received: &ReceivedRequest, api: Api) -> Answer {
        let request = match self.read(received, api) {
            Ok(request) => request,
            Err(error) => return *error,
        };
        let reply = (self.settings.reply)(&request).cut_to(request.max_tokens());
        if let Some((status, kind, message)) = &reply.error {
            return Answer::json(failure(kind, message, None, None)).status(*status);
        }
        let stamp = Stamp {
            number: self
                .answers
                .fetch_add(1, Ordering::Relaxed)
                .saturating_add(1),
            created: received.at.secs(),
        };
        let answer = match (api, request.is_stream()) {
            (Api::Chat, false) => return chat::completion(&request, &reply, &stamp),
            (Api::Responses, false) => return responses::whole(&request, &reply, &stamp),
            (Api::Chat, true) => chat::stream(&request, &reply, &stamp),
            (Api::Responses, true) => responses::stream(&request, &reply, &stamp),
        };
        match (&self.settings.gate, self.settings.pause) {
            (Some(gate), _) => answer.gate(gate),
            (None, Some(time)) => answer.pause(time),
            (None, None) => answer,
        }
    }

    fn embeddings(&self, request: &ReceivedRequest) -> Result<Answer, Box<Answer>> {
        let json = request.json().unwrap_or_default();
        let model = json.get("model").and_then(Value::as_str);
        self.serves(model.unwrap_or_default())?;
        let inputs = match json.get("input") {
            Some(Value::Array(inputs)) if !inputs.is_empty() => inputs.clone(),
            Some(Value::String(input)) => vec![input.as_str().into()],
            _ => {
                let message = "`input` is missing or empty, or has another type";
                let error = failure("invalid_request_error", message, Some("input"), None);
                return Err(refuse(400, error));
            }
        };
        let length = json.get("dimensions").and_then(Value::as_u64);
        let length = usize::try_from(length.unwrap_or(8).min(4_096)).unwrap_or(8);
        let in_base64 = json.get("encoding_format").and_then(Value::as_str) == Some("base64");
        let vectors = inputs.iter().enumerate().map(|(index, input)| {
            let bytes = keccak256(input.to_string()).into_iter().cycle();
            let vector: Vec<f32> = bytes.take(length).map(f32::from).collect();
            let vector = match in_base64 {
                true => {
                    let bytes: Vec<u8> = vector.into_iter().flat_map(f32::to_le_bytes).collect();
                    STANDARD.encode(bytes).into()
                }
                false => json!(vector),
            };
            json!({ "object": "embedding", "index": index, "embedding": vector })
        });
        Ok(Answer::json(json!({
            "object": "list",
            "data": vectors.collect::<Vec<_>>(),
            "model": model,
            "usage": { "prompt_tokens": inputs.len(), "total_tokens": inputs.len() },
        })))
    }
}

fn refuse(status: u16, error: Value) -> Box<Answer> {
    Box::new(Answer::json(error).status(status))
}

fn model(name: &str) -> Value {
    json!({ "id": name, "object": "model", "created": 1_760_000_000, "owned_by": "bursar-testing" })
}

fn no_model(name: Option<&str>) -> Value {
    let name = name.map(|name| format!(" `{name}`")).unwrap_or_default();
    let message = format!("The model{name} does not exist or you do not have access to it.");
    failure(
        "invalid_request_error",
        &message,
        Some("model"),
        Some("model_not_found"),
    )
}

fn failure(kind: &str, message: &str, param: Option<&str>, code: Option<&str>) -> Value {
    json!({ "error": { "message": message, "type": kind, "param": param, "code": code } })
}

impl IntoIterator for OpenAi {
    type Item = Route;
    type IntoIter = std::vec::IntoIter<Route>;

    fn into_iter(self) -> Self::IntoIter {
        self.into_routes().into_iter()
    }
}
