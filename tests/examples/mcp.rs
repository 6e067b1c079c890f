//! SignedPayment tools of an MCP server: connect by URL, list the tools with their prices, call a paid one. The
//! server is on loopback, in front of a paywall that verifies and settles; the wallet is a throw-away.
//!
//! ```sh
//! cargo run --example mcp --features mcp
//! ```

#![expect(clippy::print_stdout, reason = "it is there to be read")]

use std::error::Error;
use std::sync::Arc;

use bursar::mcp::{self, PaidTools, Server};
use bursar::{Client, Ledger, LocalSigner, Policy, PriceOutcome, usd};
use bursar_testing::{Paywall, Route};
use bursar_tests::tool_server::{self, Style, ToolServer};
use rmcp::ServiceExt;
use serde_json::json;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let paywall = Paywall::builder()
        .route(Route::get("/report").price(usd!("0.01")).body("sunny"))
        .route(Route::get("/free").body("hello"))
        .start()
        .await?;
    let seller = ToolServer::new(Arc::new(paywall), Style::Structured);
    let (address, _server) = tool_server::open(seller, None).await;
    let url = format!("http://{address}/mcp");

    // A limit for everything, and one for the tool.
    let origin = format!("http://{address}");
    let policy =
        Policy::new()
            .allow_network("base-sepolia")
            .tool_limits(&origin, "report", |tool| tool.lifetime(usd!("0.02")));
    let client = Client::builder()
        .signer(LocalSigner::random()?)
        .policy(policy)
        .ledger(Ledger::memory())
        .allow_http_loopback(true)
        .build()?;
    let service = ().serve(mcp::connect(&client, &url)?).await?;
    let payer = client.payer().ok_or("the client has a wallet")?.clone();
    let tools = PaidTools::new(service.peer().clone(), payer, Server::at(&url)?);

    for tool in service.list_all_tools().await? {
        match tools.call(tool.name.to_string()).quote().await? {
            PriceOutcome::Priced(price_check) => {
                let price = price_check.best().map_or_else(
                    || "not payable".to_owned(),
                    |quote| quote.amount().to_string(),
                );
                println!("{}: {price}", tool.name);
            }
            PriceOutcome::Unpriced(_) => println!("{}: free", tool.name),
        }
    }
    for city in ["Paris", "Berlin", "Rome"] {
        match tools
            .call("report")
            .arguments(json!({ "city": city }))
            .send()
            .await
        {
            Ok(answer) => {
                let text = answer
                    .result()
                    .content
                    .first()
                    .and_then(|content| content.as_text());
                println!(
                    "{city}: {} ({})",
                    text.map(|text| text.text.as_str()).unwrap_or_default(),
                    answer.payment_status()
                );
            }
            Err(error) => println!("{city}: {error}"),
        }
    }
    Ok(())
}
