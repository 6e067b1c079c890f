//! The example on rig, against sellers that behave and that do not.
#![expect(dead_code, reason = "the example has a main of its own")]

#[path = "../examples/rig_agent.rs"]
mod example;

use bursar::middleware::PaymentMiddleware;
use bursar::{Client, PurchaseOptions, usd};
use bursar_frameworks as frameworks;
use bursar_testing::{Dialect, Fault, Gate, OpenAi, Paywall, Route, ToolServer};
use example::{agent, connect, paying, payment_status, stream};
use futures::{FutureExt, StreamExt};
use rig::prelude::*;

struct World {
    model: Paywall,
    forecasts: Paywall,
    server: ToolServer,
    client: Client,
}

async fn open(model: OpenAi, forecast: Route) -> World {
    let model = Paywall::builder().routes(model).start().await.unwrap();
    let forecasts = Paywall::builder().route(forecast).start().await.unwrap();
    let server = forecasts.tools(Dialect::Standard).await.unwrap();
    World {
        model,
        forecasts,
        server,
        client: frameworks::client().unwrap(),
    }
}

fn weather() -> Route {
    Route::get("/weather").price(usd!("0.01")).body("sunny")
}

impl World {
    fn payments(&self) -> PaymentMiddleware {
        PaymentMiddleware::new(self.client.payer().unwrap().clone()).allow_http_loopback(true)
    }

    async fn run<T>(&self, work: impl AsyncFnOnce(Agent) -> T) -> T {
        let openai = paying(self.payments(), self.model.url("/v1").as_str()).unwrap();
        let (_service, tools) = connect(&self.client, self.server.url().as_str())
            .await
            .unwrap();
        work(agent(&openai, &tools).await.unwrap()).await
    }

    fn settled(&self) -> (usize, usize) {
        (
            self.model.settlements().len(),
            self.forecasts.settlements().len(),
        )
    }
}

#[tokio::test]
async fn an_agent_of_rig_pays_for_its_model_and_for_a_tool() {
    let world = open(OpenAi::new().price(usd!("0.002")), weather()).await;
    let answer = world
        .run(async |agent| agent.prompt("How is the weather?").await)
        .await;
    let answer = answer.unwrap().output();
    assert_eq!(answer, "The tool returned: sunny");
    // One call of the model before the tool, and one after it.
    assert_eq!(world.settled(), (2, 1));
    let purchases = frameworks::purchases(&world.client).await.unwrap();
    let paths: Vec<_> = purchases
        .iter()
        .map(|purchase| purchase.path.as_str())
        .collect();
    assert_eq!(
        paths,
        [
            "/v1/chat/completions",
            "/mcp://tool/weather",
            "/v1/chat/completions"
        ]
    );
}

#[tokio::test]
async fn an_agent_of_rig_streams_its_answer_while_the_seller_sends() {
    let gate = Gate::closed();
    let world = open(OpenAi::new().gate(&gate), weather()).await;
    gate.open(3);
    let text = world
        .run(async |agent| {
            let (sender, mut pieces) = futures::channel::mpsc::unbounded();
            let reading = stream(&agent, "hello there", move |piece| {
                sender.unbounded_send(piece.to_owned()).unwrap();
            });
            let reader = async {
                let mut text = String::new();
                while text != "You said: " {
                    text.push_str(&pieces.next().await.unwrap());
                }
                assert!(pieces.next().now_or_never().is_none());
                gate.open_all();
                text + &pieces.collect::<String>().await
            };
            let (read, text) = futures::join!(reading, reader);
            read.unwrap();
            text
        })
        .await;
    assert_eq!(text, "You said: hello there");
    assert_eq!(world.settled(), (1, 0));
}

#[tokio::test]
async fn a_streaming_agent_of_rig_pays_for_its_tool() {
    let world = open(OpenAi::new(), weather()).await;
    let mut text = String::new();
    world
        .run(async |agent| {
            stream(&agent, "How is the weather?", |piece| text.push_str(piece)).await
        })
        .await
        .unwrap();
    assert!(text.contains("sunny"), "{text}");
    assert_eq!(world.settled(), (2, 1));
}

#[tokio::test]
async fn a_tool_that_is_too_expensive_is_not_paid_and_the_model_is_told() {
    let world = open(OpenAi::new(), weather().price(usd!("0.06"))).await;
    let answer = world
        .run(async |agent| agent.prompt("How is the weather?").await)
        .await;
    let answer = answer.unwrap().output();
    assert!(answer.contains("not paid"), "{answer}");
    assert_eq!(world.settled(), (2, 0));
}

#[tokio::test]
async fn a_lost_answer_of_rig_is_paid_once() {
    let model =
        OpenAi::new().paid_route(|route| route.idempotent().fault_once(Fault::DropAfterSettle));
    let world = open(model, weather()).await;
    let answer = world.run(async |agent| agent.prompt("hello").await).await;
    assert_eq!(answer.unwrap().output(), "You said: hello");
    assert_eq!(world.settled(), (1, 0));
}

#[tokio::test]
async fn the_options_of_the_middleware_hold_for_every_request_of_rig() {
    let world = open(OpenAi::new(), weather()).await;
    let options = PurchaseOptions::new()
        .tag("research")
        .max_price(usd!("0.0005"));
    let payments = world.payments().default_options(options);
    let openai = paying(payments, world.model.url("/v1").as_str()).unwrap();
    let agent = AgentBuilder::new(openai.chat("gpt-test")).build();
    let error = agent.prompt("hello").await.unwrap_err();
    assert_eq!(payment_status(&error).as_deref(), Some("not_paid"));
    let error = stream(&agent, "hello", |_| {}).await.unwrap_err();
    assert_eq!(payment_status(&error).as_deref(), Some("not_paid"));
    assert_eq!(world.settled(), (0, 0));
}

#[tokio::test]
async fn an_agent_of_rig_learns_that_the_money_may_have_moved() {
    let model = OpenAi::new().paid_route(|route| route.fault(Fault::DropAfterSettle));
    let world = open(model, weather()).await;
    let answer = world.run(async |agent| agent.prompt("hello").await).await;
    let error = answer.unwrap_err();
    assert_eq!(payment_status(&error).as_deref(), Some("maybe_paid"));
    assert_eq!(world.settled(), (1, 0));
}

#[tokio::test]
async fn a_tool_that_fails_tells_the_model_and_is_not_paid() {
    let world = open(OpenAi::new(), weather().status(500)).await;
    let answer = world
        .run(async |agent| agent.prompt("How is the weather?").await)
        .await;
    assert_eq!(answer.unwrap().output(), "The tool returned: sunny");
    assert_eq!(world.settled(), (2, 0));
}
