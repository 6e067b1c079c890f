//! A program on async-openai that pays for its answers, in one piece and as a stream.
//!
//! ```sh
//! cargo run --example async_openai
//! ```

use bursar::usd;
use bursar_frameworks as frameworks;
use bursar_testing::{OpenAi, Paywall};

// guide: async-openai
use async_openai::config::OpenAIConfig;
use async_openai::error::OpenAIError;
use async_openai::middleware::HttpRequestFactory;
use bursar::reqwest::Response;
use bursar::{PaymentStatus, ResponseExt};
use tower::service_fn;

/// Returns a client of async-openai that sends its requests through bursar.
pub fn paying(client: &bursar::Client, base_url: &str) -> async_openai::Client<OpenAIConfig> {
    let client = client.clone();
    let service = service_fn(move |request: HttpRequestFactory| {
        let client = client.clone();
        async move {
            let answer = client.execute(request.build().await?).await;
            let answer = answer.and_then(with_payment_status);
            answer.map_err(|error| OpenAIError::Boxed(error.into()))
        }
    });
    let config = OpenAIConfig::new()
        .with_api_base(base_url)
        .with_api_key("none");
    async_openai::Client::with_config(config).with_http_service(service)
}

/// Makes bursar's error of a 5xx after a payment, because the error of async-openai has no payment status.
fn with_payment_status(answer: Response) -> Result<Response, bursar::Error> {
    let is_signed = answer.payment_status() != PaymentStatus::NotPaid;
    match answer.status().is_server_error() && is_signed {
        true => answer.error_for_payment(),
        false => Ok(answer),
    }
}
// guide: end

// guide: async-openai-chat
use async_openai::types::chat::{
    ChatCompletionRequestUserMessage, CreateChatCompletionRequest, CreateChatCompletionRequestArgs,
};
use futures::StreamExt;

fn question(text: &str) -> Result<CreateChatCompletionRequest, OpenAIError> {
    CreateChatCompletionRequestArgs::default()
        .model("gpt-test")
        .messages([ChatCompletionRequestUserMessage::from(text).into()])
        .build()
}

/// Asks in one piece.
pub async fn ask(
    openai: &async_openai::Client<OpenAIConfig>,
    text: &str,
) -> Result<String, OpenAIError> {
    let mut answer = openai.chat().create(question(text)?).await?;
    let choice = answer.choices.pop();
    Ok(choice
        .and_then(|choice| choice.message.content)
        .unwrap_or_default())
}

/// Asks for a stream, and shows each piece when it arrives.
pub async fn stream(
    openai: &async_openai::Client<OpenAIConfig>,
    text: &str,
    mut show: impl FnMut(&str),
) -> Result<(), OpenAIError> {
    let mut stream = openai.chat().create_stream(question(text)?).await?;
    while let Some(chunk) = stream.next().await {
        for choice in chunk?.choices {
            show(choice.delta.content.as_deref().unwrap_or_default());
        }
    }
    Ok(())
}
// guide: end

// guide: async-openai-error
use std::error::Error;

/// Returns bursar's error inside an error of async-openai or of a layer around the service, if there is one.
pub fn payment_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a bursar::Error> {
    match error.downcast_ref() {
        Some(OpenAIError::Boxed(inner)) => payment_error(inner.as_ref()),
        _ => bursar::Error::find_in(error),
    }
}
// guide: end

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let seller = Paywall::builder()
        .routes(OpenAi::new().price(usd!("0.002")))
        .start()
        .await?;
    let client = frameworks::client()?;
    let openai = paying(&client, seller.url("/v1").as_str());

    println!("{}", ask(&openai, "Are you paid?").await?);
    stream(&openai, "And now?", |piece| print!("{piece}")).await?;
    println!();
    frameworks::print_purchases(&client).await?;
    Ok(())
}
