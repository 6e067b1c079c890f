//! A Rust program with genai, which takes no HTTP client of another crate. It knows nothing of payments.
//!
//! `BURSAR_PROXY` is the URL of the proxy, and `BURSAR_TOKEN` the token.

use std::env;
use std::error::Error;

use futures_util::StreamExt;
use genai::adapter::AdapterKind;
use genai::chat::{ChatMessage, ChatRequest, ChatStreamEvent};
use genai::resolver::{AuthData, Endpoint, ServiceTargetResolver};
use genai::{Client, ModelIden, ServiceTarget};

fn client(route: &str) -> Result<Client, Box<dyn Error>> {
    let base = format!("{}{route}/", env::var("BURSAR_PROXY")?);
    let token = env::var("BURSAR_TOKEN")?;
    let resolver = ServiceTargetResolver::from_resolver_fn(
        move |target: ServiceTarget| -> Result<ServiceTarget, genai::resolver::Error> {
            Ok(ServiceTarget {
                endpoint: Endpoint::from_owned(base.clone()),
                auth: AuthData::from_single(token.clone()),
                model: ModelIden::new(AdapterKind::OpenAI, target.model.model_name),
            })
        },
    );
    Ok(Client::builder()
        .with_service_target_resolver(resolver)
        .build()?)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let chat = || ChatRequest::new(vec![ChatMessage::user("Say hello.")]);
    let answer = client("/openai/v1")?
        .exec_chat("gpt-test", chat(), None)
        .await?;
    assert_eq!(answer.first_text(), Some("Hello from the seller."));

    let mut stream = client("/openai/v1")?
        .exec_chat_stream("gpt-test", chat(), None)
        .await?
        .stream;
    let mut words = Vec::new();
    while let Some(event) = stream.next().await {
        if let ChatStreamEvent::Chunk(chunk) = event? {
            words.push(chunk.content);
        }
    }
    assert_eq!(words.concat(), "Hello from the seller.");

    let denied = client("/openai/dear/v1")?
        .exec_chat("gpt-test", chat(), None)
        .await;
    let denied = format!("{:?}", denied.err());
    assert!(
        denied.contains("402") && denied.contains("denied"),
        "{denied}"
    );
    println!("genai: ok");
    Ok(())
}
