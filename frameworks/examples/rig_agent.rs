//! An agent on rig that pays for its model and for a tool of an MCP server, from one wallet.
//!
//! ```sh
//! cargo run --example rig_agent
//! ```

use bursar::usd;
use bursar_frameworks as frameworks;
use bursar_testing::{Dialect, OpenAi, Paywall, Route};

// guide: rig
use bursar::middleware::{self, PaymentMiddleware};
use bursar::reqwest;
use rig::prelude::*;
use rig::providers::openai::{OpenAI, OpenAIConfig};
use rig::rig_reqwest::ReqwestMiddlewareClient;

/// Returns a provider of rig that sends its requests through bursar.
pub fn paying(payments: PaymentMiddleware, base_url: &str) -> Result<OpenAI, bursar::Error> {
    let http = middleware::client(reqwest::Client::builder(), payments)?.build();
    let config = OpenAIConfig::new("none").with_base_url(base_url);
    Ok(config.connect(Paying(ReqwestMiddlewareClient::from(http))))
}
// guide: end

// guide: rig-errors
use bytes::Bytes;
use futures::TryFutureExt;
use http::{HeaderMap, StatusCode};
use rig::http_client::{self, HttpClientExt, LazyBody, MultipartForm, StreamingResponse};
use serde_json::json;

/// The client of rig for reqwest-middleware, which shows the errors of bursar as answers with status 402.
///
/// rig makes text of other errors. It keeps the body of an answer, and does not send the request again after a 402.
#[derive(Clone, Debug)]
pub struct Paying(ReqwestMiddlewareClient);

impl HttpClientExt for Paying {
    fn send<T, U>(
        &self,
        request: http::Request<T>,
    ) -> impl Future<Output = http_client::Result<http::Response<LazyBody<U>>>> + Send + 'static
    where
        T: Into<Bytes> + Send,
        U: From<Bytes> + Send + 'static,
    {
        self.0.send(request).map_err(shown)
    }

    fn send_multipart<U>(
        &self,
        request: http::Request<MultipartForm>,
    ) -> impl Future<Output = http_client::Result<http::Response<LazyBody<U>>>> + Send + 'static
    where
        U: From<Bytes> + Send + 'static,
    {
        self.0.send_multipart(request).map_err(shown)
    }

    fn send_streaming<T>(
        &self,
        request: http::Request<T>,
    ) -> impl Future<Output = http_client::Result<StreamingResponse>> + Send
    where
        T: Into<Bytes> + Send,
    {
        self.0.send_streaming(request).map_err(shown)
    }
}

fn shown(error: http_client::Error) -> http_client::Error {
    let http_client::Error::Instance(cause) = &error else {
        return error;
    };
    let Some(payment) = middleware::error(cause.as_ref()) else {
        return error;
    };
    let body = json!({ "error": {
        "message": payment.to_string(),
        "type": payment.kind().to_string(),
        "payment_status": payment.payment_status().to_string(),
        "purchase": payment.purchase_id().map(ToString::to_string),
    } });
    let status = StatusCode::PAYMENT_REQUIRED;
    http_client::Error::non_success_with_details(status, HeaderMap::new(), body.to_string())
}

/// Returns the payment status of a failed run, if the payment failed.
pub fn payment_status(error: &PromptError) -> Option<String> {
    let body = error.provider_response_json().ok()??;
    Some(body["error"]["payment_status"].as_str()?.to_owned())
}
// guide: end

// guide: rig-tools
use std::error::Error;

use bursar::PaymentStatus;
use bursar::mcp::PaidTools;
use rig::core::message::ToolName;
use rig::tool::{DynamicTool, ToolExecutionError, ToolOutput};
use rmcp::model::CallToolResult;
use serde_json::Value;

/// Returns the tools of an MCP server as tools of rig. Each call of a tool that has a price is paid.
pub async fn paid_tools(tools: &PaidTools) -> Result<Vec<DynamicTool>, Box<dyn Error>> {
    let mut all = Vec::new();
    for tool in tools.list_tools().await? {
        let (server, name) = (tools.clone(), tool.name.to_string());
        let call = move |arguments: Value| {
            let call = server.call(name.as_str()).arguments(arguments);
            async move {
                let answer = call.send().await.map_err(refused)?;
                shown_to_model(answer.result())
            }
        };
        all.push(DynamicTool::new_with_context(
            ToolName::new(tool.name.to_string())?,
            tool.description.as_deref().unwrap_or_default(),
            Value::Object(tool.input_schema.as_ref().clone()),
            move |_, arguments| Box::pin(call(arguments)),
        ));
    }
    Ok(all)
}

/// Returns a result as text, if it has nothing else, and as JSON otherwise.
fn shown_to_model(result: &CallToolResult) -> Result<ToolOutput, ToolExecutionError> {
    let texts = result.content.iter().map(|content| content.as_text());
    let text: Option<Vec<_>> = texts.map(|text| Some(text?.text.as_str())).collect();
    let output = match text {
        Some(text) => ToolOutput::text(text.join("\n")),
        None => ToolOutput::json(json!(result.content)),
    };
    match result.is_error {
        Some(true) => {
            Err(ToolExecutionError::provider("the tool failed").with_model_output(output))
        }
        _ => Ok(output),
    }
}

/// Tells the model that a tool was not paid, in words of bursar's own, and that it must not try again.
fn refused(error: bursar::Error) -> ToolExecutionError {
    let feedback = match error.payment_status() {
        PaymentStatus::NotPaid => format!("not paid: {error}"),
        _ => "the payment may have been taken, and the result is lost".to_owned(),
    };
    ToolExecutionError::from_error(error)
        .with_model_feedback(feedback)
        .with_retryable(false)
}
// guide: end

// guide: rig-agent
use bursar::Payer;
use bursar::mcp::{self, Server};
use futures::StreamExt;
use rig::agent::MultiTurnStreamItem;
use rig::streaming::{Item, StreamEvent};
use rmcp::ServiceExt;

/// Returns the tools of the MCP server at this URL, paid from the wallet of the client.
pub async fn connect(
    client: &bursar::Client,
    url: &str,
) -> Result<
    (
        rmcp::service::RunningService<rmcp::RoleClient, ()>,
        PaidTools,
    ),
    Box<dyn Error>,
> {
    let service = ().serve(mcp::connect(client, url)?).await?;
    let payer: Payer = client.payer().ok_or("the client has no wallet")?.clone();
    let tools = PaidTools::new(service.peer().clone(), payer, Server::at(url)?);
    Ok((service, tools))
}

/// Returns an agent with a paid model and paid tools.
pub async fn agent(openai: &OpenAI, tools: &PaidTools) -> Result<Agent, Box<dyn Error>> {
    Ok(AgentBuilder::new(openai.chat("gpt-test"))
        .preamble("Answer briefly.")
        .dynamic_tools(paid_tools(tools).await?)
        .default_max_turns(3)
        .build())
}

/// Lets the agent work, and shows each piece of its text when it arrives.
pub async fn stream(
    agent: &Agent,
    prompt: &str,
    mut show: impl FnMut(&str),
) -> Result<(), PromptError> {
    let mut items = agent.prompt(prompt).stream();
    while let Some(item) = items.next().await {
        if let MultiTurnStreamItem::StreamAssistantItem(Item::Event(StreamEvent::Text {
            text,
            ..
        })) = item?
        {
            show(&text);
        }
    }
    Ok(())
}
// guide: end

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let seller = Paywall::builder()
        .routes(OpenAi::new().price(usd!("0.002")))
        .start()
        .await?;
    let forecasts = Paywall::builder()
        .route(Route::get("/weather").price(usd!("0.01")).body("sunny"))
        .start()
        .await?;
    let server = forecasts.tools(Dialect::Standard).await?;

    let client = frameworks::client()?;
    let payer = client.payer().ok_or("the client has no wallet")?.clone();
    let payments = PaymentMiddleware::new(payer).allow_http_loopback(true);
    let openai = paying(payments, seller.url("/v1").as_str())?;
    let (_service, tools) = connect(&client, server.url().as_str()).await?;
    let agent = agent(&openai, &tools).await?;

    stream(&agent, "How is the weather?", |piece| print!("{piece}")).await?;
    println!();
    frameworks::print_purchases(&client).await?;
    Ok(())
}
