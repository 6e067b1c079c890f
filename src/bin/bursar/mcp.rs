//! `bursar mcp tools` and `bursar mcp call`: paid tools of MCP servers.

use bursar::mcp::{self, Asked, PaidTools, Server, ToolAnswer, ToolCall};
use bursar::reqwest;
use bursar::{Client, Credentials, Ledger, Network, Payer, PaymentStatus, Policy, PurchaseKey};
use rmcp::model::Tool;
use rmcp::service::RunningService;
use rmcp::{RoleClient, ServiceExt};
use serde_json::{Value, json};

use crate::args::{McpCall, McpServer, McpTools};
use crate::books::table;
use crate::exit::{Exit, Failure};
use crate::policies::{self, Allowance};
use crate::quote::dry_line;
use crate::report::{Problem, Proof, Report, Signed, Verdict, lead};
use crate::store::Store;
use crate::{output, pay, wallet};

/// A session with a server, and its tools.
struct Session {
    tools: PaidTools,
    service: RunningService<RoleClient, ()>,
}

impl Session {
    async fn open(args: &McpServer, payer: Payer, keys: Credentials) -> Result<Self, Failure> {
        let mut client = Client::builder()
            .http(reqwest::Client::builder())
            .credentials(keys);
        client = client
            .allow_http_loopback(args.allow_http_loopback)
            .payer(payer.clone());
        if let Some(limit) = args.timeout {
            client = client.timeout(limit).answer_timeout(limit);
        }
        let url = args.url.as_str();
        let transport = mcp::connect(&client.build()?, url)?;
        let service = ().serve(transport).await;
        let service = service.map_err(|error| {
            Failure::failed(format!(
                "no MCP session with {}: {error}",
                args.url.origin().ascii_serialization()
            ))
        })?;
        let mut tools = PaidTools::new(service.peer().clone(), payer, Server::at(url)?);
        if let Some(limit) = args.timeout {
            tools = tools.answer_timeout(limit);
        }
        Ok(Self { tools, service })
    }

    async fn list(&self) -> Result<Vec<Tool>, Failure> {
        let listed = self.service.list_all_tools().await;
        listed.map_err(|error| Failure::failed(format!("the tools cannot be listed: {error}")))
    }

    /// Ends the session, as far as the server goes along.
    async fn close(self) {
        drop(self.service.cancel().await);
    }
}

/// `bursar mcp tools`.
pub(crate) async fn tools(args: McpTools) -> Result<Exit, Failure> {
    // Nothing is paid.
    let payer = wallet::keyless(
        Policy::new().allow_network(Network::from_chain_id(8453)),
        None,
    )?;
    let session = Session::open(&args.server, payer, Credentials::new()).await?;
    let mut rows = Vec::new();
    for tool in session.list().await? {
        let price = if args.ask {
            Some(price(&session.tools, &tool).await)
        } else {
            None
        };
        rows.push((tool, price));
    }
    session.close().await;
    let printed = if args.json {
        rows.iter().try_for_each(|(tool, price)| {
            output::print_json(
                &json!({ "name": tool.name, "description": tool.description, "price": price }),
            )
        })
    } else {
        let head = ["TOOL", "PRICE", "DESCRIPTION"].map(ToOwned::to_owned);
        let rows = rows.iter().map(|(tool, price)| {
            let words = tool.description.as_deref().unwrap_or_default();
            [
                shown(&tool.name, 40),
                price.clone().unwrap_or_else(|| "not asked".to_owned()),
                shown(words, 60),
            ]
        });
        output::print(table(head, rows))
    };
    output::finish(printed, Exit::Done)
}

/// What the seller says, on one line and not for long.
fn shown(text: &str, most: usize) -> String {
    let line: String = text
        .chars()
        .map(|character| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        })
        .collect();
    match line.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default().trim_end()),
        None => line.trim().to_owned(),
    }
}

/// Asks by calling the tool with no arguments.
async fn price(tools: &PaidTools, tool: &Tool) -> String {
    match tools.call(tool.name.to_string()).quote().await {
        Ok(Asked::Executed(_)) => "free".to_owned(),
        Ok(Asked::Priced(price_check)) => {
            let cheapest = price_check
                .offers
                .iter()
                .filter_map(|offer| offer.quote.as_ref().ok())
                .min_by_key(|quote| quote.dollars());
            cheapest.map_or_else(
                || "not payable".to_owned(),
                |quote| quote.amount().to_string(),
            )
        }
        Err(error) => format!("unknown: {}", error.kind()),
    }
}

/// `bursar mcp call`.
pub(crate) async fn call(args: McpCall) -> Result<Exit, Failure> {
    let allowance = policies::allowance(&args.policy)?;
    let arguments: Value = serde_json::from_str(&args.args)
        .ok()
        .filter(Value::is_object)
        .ok_or_else(|| {
            Failure::usage("--args must be a JSON object such as {\"city\":\"Paris\"}")
        })?;
    let Allowance {
        policy,
        max_price,
        keys,
        ..
    } = allowance;
    let (payer, ledger) = if args.dry_run {
        (wallet::judging(&args.wallet, policy).await?, None)
    } else {
        let (payer, ledger) = wallet::paying(&args.wallet, policy).await?;
        (payer, Some(ledger))
    };
    let session = Session::open(&args.server, payer.clone(), keys).await?;
    let mut call = session.tools.call(args.tool.clone()).arguments(arguments);
    if let Some(max) = max_price {
        call = call.max_price(max);
    }
    if let Some(id) = &args.purchase_id {
        call = call.purchase_id(id.as_str());
    }
    if let Some(tag) = &args.tag {
        call = call.tag(tag);
    }
    if args.allow_duplicate {
        call = call.allow_duplicate();
    }
    let (report, verdict) = match ledger {
        None => dry(call).await,
        Some(ledger) => Box::pin(buy(call, &payer, &ledger)).await,
    };
    session.close().await;
    let exit = pay::exit_of(verdict, report.spend);
    let printed = if args.json {
        output::print_json(&report)
    } else {
        let (line, text) = match &report.quote {
            Some(quote) => (dry_line(&report), quote.text()),
            None if report.body.is_empty() => (report.line(), String::new()),
            None => (report.line(), format!("{}\n", report.body)),
        };
        output::say(line);
        output::print(text)
    };
    output::finish(printed, exit)
}

async fn buy(call: ToolCall, payer: &Payer, ledger: &Store) -> (Report, Verdict) {
    match call.send().await {
        Ok(answer) => answered(&answer),
        Err(error) => {
            let entry = match error
                .purchase_id()
                .filter(|_| error.payment_status() != PaymentStatus::NotPaid)
            {
                Some(id) => ledger
                    .purchase(&PurchaseKey::new(payer.address(), id.clone()))
                    .await
                    .ok()
                    .flatten(),
                None => None,
            };
            (
                Report::of_error(&error, entry.as_ref()),
                Verdict::of(&error),
            )
        }
    }
}

async fn dry(call: ToolCall) -> (Report, Verdict) {
    match call.quote().await {
        Ok(Asked::Executed(answer)) => answered(&answer),
        Ok(Asked::Priced(price_check)) => crate::quote::judged_quotation(&price_check),
        Err(error) => (Report::of_error(&error, None), Verdict::of(&error)),
    }
}

fn answered(answer: &ToolAnswer) -> (Report, Verdict) {
    let spend = answer.payment_status();
    let failed = answer.result().is_error == Some(true);
    let report = Report {
        paid: answer.payment().map(Signed::from),
        receipt: answer.receipt().map(Proof::from),
        body: serde_json::to_string(answer.result()).unwrap_or_default(),
        error: failed.then(|| Problem {
            kind: "tool",
            message: format!("{}: the tool answered with an error", lead(spend)),
        }),
        ..Report::empty(spend)
    };
    (
        report,
        if failed {
            Verdict::Failed
        } else {
            Verdict::Done
        },
    )
}
