//! Sellers that speak OpenAI's API, routes that answer by the request, and streams that a test holds back.

use bursar::{Client, Usd, usd};
use bursar_testing::{Answer, ChatReply, Fault, Gate, OpenAi, Paywall, Route};
use bursar_tests::paywall::{open, open_all, payments_sent};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use crate::{client, http};

async fn post(client: &Client, paywall: &Paywall, path: &str, body: &Value) -> Response {
    let request = client
        .post(paywall.url(path))
        .header("content-type", "application/json")
        .body(body.to_string());
    request.send().await.unwrap()
}

async fn chat(client: &Client, paywall: &Paywall, body: &Value) -> Value {
    let response = post(client, paywall, "/v1/chat/completions", body).await;
    serde_json::from_str(&response.text().await.unwrap()).unwrap()
}

fn hello() -> Value {
    json!({ "model": "gpt-test", "messages": [{ "role": "user", "content": "hello there" }] })
}

/// Returns `hello` with these members.
fn hello_with(members: Value) -> Value {
    let mut request = hello();
    let Value::Object(members) = members else {
        return request;
    };
    request.as_object_mut().unwrap().extend(members);
    request
}

/// Returns the data of server-sent events.
fn events(body: &str) -> Vec<&str> {
    body.split_terminator("\n\n")
        .map(|event| {
            let mut lines = event.lines();
            lines.find_map(|line| line.strip_prefix("data: ")).unwrap()
        })
        .collect()
}

fn settled(paywall: &Paywall) -> Vec<u64> {
    let settlements = paywall.settlements();
    let values = settlements
        .iter()
        .map(|settlement| settlement.authorization.value);
    values.map(|value| value.try_into().unwrap()).collect()
}

#[tokio::test]
async fn a_chat_completion_is_sold_for_its_price() {
    let paywall = open_all(OpenAi::new().price(usd!("0.002"))).await;
    let answer = chat(&client(), &paywall, &hello()).await;
    assert_eq!(answer["object"], "chat.completion");
    let choice = &answer["choices"][0];
    assert_eq!(
        (&choice["message"]["content"], &choice["finish_reason"]),
        (&json!("You said: hello there"), &json!("stop"))
    );
    assert_eq!(answer["usage"]["total_tokens"], 6);
    assert_eq!(settled(&paywall), [2_000]);
}

#[tokio::test]
async fn a_streamed_completion_ends_in_done_and_states_its_usage_if_asked() {
    let paywall = open_all(OpenAi::new()).await;
    let request = hello_with(json!({
        "stream": true, "stream_options": { "include_usage": true }, "n": 2,
    }));
    let response = post(&client(), &paywall, "/v1/chat/completions", &request).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let body = response.text().await.unwrap();
    let mut events = events(&body);
    assert_eq!(events.pop(), Some("[DONE]"));
    let chunks: Vec<Value> = events
        .iter()
        .map(|event| serde_json::from_str(event).unwrap())
        .collect();
    let text: String = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][1]["delta"]["content"].as_str())
        .collect();
    assert_eq!(text, "You said: hello there");
    let [.., end, usage] = chunks.as_slice() else {
        unreachable!()
    };
    assert_eq!(end["choices"][1]["finish_reason"], "stop");
    assert_eq!(
        (&usage["choices"], &usage["usage"]["completion_tokens"]),
        (&json!([]), &json!(4))
    );
    assert_eq!(settled(&paywall), [1_000]);
}

#[tokio::test]
async fn the_price_depends_on_the_tokens_that_the_request_allows() {
    let model = OpenAi::new()
        .price(usd!("0.001"))
        .price_per_token(usd!("0.000002"));
    let paywall = open_all(model).await;
    let client = client();
    let cut = chat(&client, &paywall, &hello_with(json!({ "max_tokens": 2 }))).await;
    assert_eq!(
        (
            &cut["choices"][0]["message"]["content"],
            &cut["choices"][0]["finish_reason"]
        ),
        (&json!("You said: "), &json!("length"))
    );
    let request = hello_with(json!({ "max_completion_tokens": 500 }));
    chat(&client, &paywall, &request).await;
    chat(&client, &paywall, &hello()).await;
    assert_eq!(settled(&paywall), [1_004, 2_000, 3_000]);
}

#[tokio::test]
async fn a_price_of_the_callers_own_can_be_zero() {
    let model = OpenAi::new()
        .model("small")
        .model("large")
        .price_by(|request| match request.model() {
            "large" => usd!("0.03"),
            _ => Usd::ZERO,
        });
    let paywall = open_all(model).await;
    let client = client();
    chat(&client, &paywall, &hello_with(json!({ "model": "small" }))).await;
    chat(&client, &paywall, &hello_with(json!({ "model": "large" }))).await;
    assert_eq!(settled(&paywall), [30_000]);
}

#[tokio::test]
async fn invalid_requests_get_the_errors_of_openai_and_cost_nothing() {
    let paywall = open_all(OpenAi::new()).await;
    let client = client();
    for (path, request, status, param) in [
        ("chat/completions", json!({}), 400, "model"),
        (
            "chat/completions",
            json!({ "model": "gpt-test" }),
            400,
            "messages",
        ),
        (
            "chat/completions",
            hello_with(json!({ "model": "other" })),
            404,
            "model",
        ),
        ("responses", hello(), 400, "input"),
        ("embeddings", json!({ "model": "gpt-test" }), 400, "input"),
    ] {
        let response = post(&client, &paywall, &format!("/v1/{path}"), &request).await;
        assert_eq!(response.status(), status, "{request}");
        let error: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        assert_eq!(error["error"]["param"], param);
        assert_eq!(error["error"]["type"], "invalid_request_error");
    }
    let broken = client
        .post(paywall.url("/v1/chat/completions"))
        .body("{")
        .send();
    assert_eq!(broken.await.unwrap().status(), StatusCode::BAD_REQUEST);
    assert_eq!(payments_sent(&paywall), 0);
}

#[tokio::test]
async fn the_model_calls_a_tool_that_the_request_demands() {
    let paywall = open_all(OpenAi::new()).await;
    let client = client();
    let tools = json!([{ "type": "function", "function": {
        "name": "weather",
        "parameters": { "type": "object", "properties": { "city": { "type": "string" }, "days": { "type": "integer" } } },
    } }]);
    let request = hello_with(json!({ "tools": tools, "tool_choice": "required" }));
    let answer = chat(&client, &paywall, &request).await;
    let choice = &answer["choices"][0];
    assert_eq!(
        (&choice["finish_reason"], &choice["message"]["content"]),
        (&json!("tool_calls"), &Value::Null)
    );
    let call = &choice["message"]["tool_calls"][0];
    assert_eq!(call["function"]["name"], "weather");
    let arguments = call["function"]["arguments"].as_str().unwrap();
    let arguments: Value = serde_json::from_str(arguments).unwrap();
    assert_eq!(arguments, json!({ "city": "hello there", "days": 1 }));

    // The arguments of a stream come in pieces.
    let request = hello_with(json!({ "tools": tools, "tool_choice": "required", "stream": true }));
    let response = post(&client, &paywall, "/v1/chat/completions", &request).await;
    let body = response.text().await.unwrap();
    let pieces: Vec<String> = events(&body)
        .into_iter()
        .filter_map(|event| serde_json::from_str::<Value>(event).ok())
        .filter_map(|chunk| {
            let call = &chunk["choices"][0]["delta"]["tool_calls"][0];
            Some(call["function"]["arguments"].as_str()?.to_owned())
        })
        .collect();
    assert!(pieces.len() > 2);
    assert_eq!(
        serde_json::from_str::<Value>(&pieces.concat()).unwrap(),
        arguments
    );

    let mut request = hello_with(json!({ "tools": tools }));
    let messages = request["messages"].as_array_mut().unwrap();
    messages.push(json!({ "role": "assistant", "content": null, "tool_calls": [call] }));
    messages.push(json!({ "role": "tool", "tool_call_id": call["id"], "content": "rain" }));
    let answer = chat(&client, &paywall, &request).await;
    assert_eq!(
        answer["choices"][0]["message"]["content"],
        "The tool returned: rain"
    );
}

#[tokio::test]
async fn a_model_of_the_callers_own_answers_by_the_request() {
    let model = OpenAi::new().reply(|request| match request.prompt() {
        "busy" => ChatReply::error(429, "rate_limit_error", "Slow down."),
        prompt => ChatReply::pieces([prompt, "!"]),
    });
    let paywall = open_all(model).await;
    let client = client();
    let answer = chat(&client, &paywall, &hello()).await;
    assert_eq!(answer["choices"][0]["message"]["content"], "hello there!");
    let busy = json!([{ "role": "user", "content": [{ "type": "text", "text": "busy" }] }]);
    let request = hello_with(json!({ "messages": busy }));
    let response = post(&client, &paywall, "/v1/chat/completions", &request).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(settled(&paywall), [1_000]);
}

#[tokio::test]
async fn a_response_has_the_form_of_the_newer_api() {
    let paywall = open_all(OpenAi::new()).await;
    let client = client();
    let mut request = json!({ "model": "gpt-test", "input": "hello there" });
    let response = post(&client, &paywall, "/v1/responses", &request).await;
    let answer: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    assert_eq!(
        answer["output"][0]["content"][0]["text"],
        "You said: hello there"
    );

    request["stream"] = true.into();
    let response = post(&client, &paywall, "/v1/responses", &request).await;
    let body = response.text().await.unwrap();
    let events: Vec<Value> = events(&body)
        .into_iter()
        .map(|event| serde_json::from_str(event).unwrap())
        .collect();
    let deltas = events
        .iter()
        .filter(|event| event["type"] == "response.output_text.delta");
    let text: String = deltas.filter_map(|event| event["delta"].as_str()).collect();
    assert_eq!(text, "You said: hello there");
    let last = events.last().unwrap();
    assert_eq!(last["type"], "response.completed");
    assert_eq!(
        last["response"]["output"][0]["content"][0]["text"],
        "You said: hello there"
    );
    assert_eq!(settled(&paywall), [1_000, 1_000]);
}

#[tokio::test]
async fn models_are_free_and_embeddings_are_sold() {
    let model = OpenAi::new().prefix("/api/v1/").model("embed-1");
    let paywall = open_all(model).await;
    let client = client();
    let text = |path: &str| client.get(paywall.url(path)).send();
    let list = text("/api/v1/models").await.unwrap().text().await.unwrap();
    assert!(list.contains(r#""id":"embed-1""#), "{list}");
    let one = text("/api/v1/models/embed-1").await.unwrap();
    assert_eq!(one.status(), StatusCode::OK);
    let none = text("/api/v1/models/other").await.unwrap();
    assert_eq!(none.status(), StatusCode::NOT_FOUND);
    assert_eq!(settled(&paywall), [] as [u64; 0]);

    let request = json!({ "model": "embed-1", "input": ["one", "two"], "dimensions": 3 });
    let response = post(&client, &paywall, "/api/v1/embeddings", &request).await;
    let answer: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    assert_eq!(answer["data"][1]["embedding"].as_array().unwrap().len(), 3);
    assert_eq!(settled(&paywall), [1_000]);
}

#[tokio::test]
async fn faults_of_a_paid_route_strike_the_model() {
    let model =
        OpenAi::new().paid_route(|route| route.idempotent().fault_once(Fault::DropAfterSettle));
    let paywall = open_all(model).await;
    let answer = chat(&client(), &paywall, &hello()).await;
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(
        (payments_sent(&paywall), settled(&paywall)),
        (2, vec![1_000])
    );
}

#[tokio::test]
async fn a_gate_holds_back_the_events_of_a_stream() {
    let gate = Gate::closed();
    let paywall = open_all(OpenAi::new().gate(&gate)).await;
    let request = hello_with(json!({ "stream": true }));
    let mut response = post(&client(), &paywall, "/v1/chat/completions", &request).await;
    // The stream is paid for before its first event.
    assert_eq!(settled(&paywall), [1_000]);
    gate.open(1);
    let first = response.chunk().await.unwrap().unwrap();
    assert_eq!(events(std::str::from_utf8(&first).unwrap()).len(), 1);
    gate.open_all();
    assert!(response.text().await.unwrap().ends_with("[DONE]\n\n"));
}

#[tokio::test]
async fn a_handler_decides_about_price_and_answer() {
    let route = Route::post("/translate")
        .header("x-route", "1")
        .price_by(|request| {
            let length = u64::try_from(request.body.len()).unwrap();
            (length > 0).then(|| Usd::from_micros(length * 1_000))
        })
        .respond(|request| match request.json() {
            Some(json) => Answer::json(json!({ "translated": json })).header("x-answer", "2"),
            None => Answer::new("no JSON").status(422),
        });
    let paywall = open(route).await;
    let client = client();
    let send = |text: &'static str| client.post(paywall.url("/translate")).body(text).send();
    let answer = send("[1]").await.unwrap();
    assert_eq!(
        (&answer.headers()["x-route"], &answer.headers()["x-answer"]),
        (&"1".parse().unwrap(), &"2".parse().unwrap())
    );
    assert_eq!(answer.text().await.unwrap(), r#"{"translated":[1]}"#);
    // A failed answer is not settled, and an empty text is free.
    assert_eq!(send("nonsense").await.unwrap().status(), 422);
    assert_eq!(send("").await.unwrap().status(), 422);
    assert_eq!(settled(&paywall), [3_000]);
}

#[tokio::test]
async fn a_handler_that_makes_a_mistake_answers_500() {
    let route = Route::get("/report").respond(|_| Answer::new("").header("not a name", "1"));
    let paywall = open(route).await;
    let answer = http().get(paywall.url("/report")).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(answer.text().await.unwrap().contains("not a name"));
}

#[tokio::test]
async fn a_paywall_listens_on_the_port_of_the_caller_and_shows_its_state() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let paywall = Paywall::builder()
        .routes(OpenAi::new())
        .port(port)
        .status_page("/_seller")
        .start()
        .await
        .unwrap();
    assert_eq!(paywall.url("/").port(), Some(port));
    let second = Paywall::builder().port(port).start().await.unwrap_err();
    assert_eq!(second.kind(), std::io::ErrorKind::AddrInUse);

    chat(&client(), &paywall, &hello()).await;
    let page = http().get(paywall.url("/_seller")).send().await.unwrap();
    let page: Value = serde_json::from_str(&page.text().await.unwrap()).unwrap();
    let paid: Vec<_> = page["requests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|request| &request["paid"])
        .collect();
    assert_eq!(paid, [false, true]);
    assert_eq!(page["settlements"][0]["value"], "1000");
    assert_eq!(
        page["settlements"][0]["transaction"],
        paywall.settlements()[0].transaction.to_string()
    );
    assert_eq!(paywall.requests().len(), 2);
}
