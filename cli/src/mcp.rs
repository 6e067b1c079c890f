//! `bursar mcp tools` and `bursar mcp call`: paid tools of MCP servers.

use std::time::Duration;

use bursar::ledger::PurchaseKey;
use bursar::mcp::{self, ListedPrice, PaidTools, Server, ToolAnswer, ToolCall};
use bursar::text::{json, quoted, visible, without_query};
use bursar::{Client, Credentials, Payer, PaymentStatus, PriceOutcome, Purchase, Url};
use rmcp::model::{Tool, ToolAnnotations};
use rmcp::service::RunningService;
use rmcp::{RoleClient, ServiceExt};
use serde_json::Value;

use crate::args::{McpCall, McpServer, McpTools};
use crate::exit::{Exit, Failure};
use crate::ledger::table;
use crate::outcome::{OtherPayment, Outcome, Verdict};
use crate::payment::{Authorization, Receipt, prefix};
use crate::policies::{self, Allowance};
use crate::problem::Problem;
use crate::{output, pay, quote, wallet};

/// How long a server may take to open a session, unless --timeout is set.
const OPEN_TIMEOUT: Duration = Duration::from_secs(60);
/// The most tools whose prices --ask asks for.
const MOST_ASKED: usize = 100;

/// A session with an MCP server.
struct Session {
    tools: PaidTools,
    service: RunningService<RoleClient, ()>,
}

impl Session {
    async fn open(args: &McpServer, payer: Payer, keys: Credentials) -> Result<Self, Failure> {
        let mut client = Client::builder().credentials(keys);
        client = client
            .allow_http_loopback(args.allow_http_loopback)
            .payer(payer);
        if let Some(limit) = args.timeout {
            client = client.timeout(limit).answer_timeout(limit);
        }
        let url = args.url.as_str();
        let client = client.build()?;
        let transport = mcp::connect(&client, url)?;
        let limit = args.timeout.unwrap_or(OPEN_TIMEOUT);
        let opened = tokio::time::timeout(limit, ().serve(transport)).await;
        let opened = opened.map_err(|_| {
            let seconds = limit.as_secs_f32();
            Failure::failed(format!(
                "the server opens no MCP session within {seconds} s"
            ))
        })?;
        let service = opened.map_err(|error| {
            let place = args.url.origin().ascii_serialization();
            let action = format!("bursar cannot open an MCP session with {place}");
            failure(&error, &args.url, &action)
        })?;
        // The payer of the client knows the hosts that are never paid.
        let payer = client.payer().cloned();
        let payer = payer.ok_or_else(|| Failure::failed("the client has no payer"))?;
        let mut tools = PaidTools::new(service.peer().clone(), payer, Server::at(url)?);
        if let Some(limit) = args.timeout {
            tools = tools.timeout(limit).answer_timeout(limit);
        }
        Ok(Self { tools, service })
    }

    async fn list(&self, url: &Url) -> Result<Vec<Tool>, Failure> {
        let listed = self.tools.list_tools().await;
        listed.map_err(|error| failure(&error, url, "bursar cannot list the tools"))
    }

    /// Ends the session. A server that does not answer is no failure.
    async fn close(self) {
        drop(self.service.cancel().await);
    }
}

/// Describes an error of `rmcp`. An error of bursar's own client in it says more.
pub(crate) fn failure(
    error: &(dyn std::error::Error + 'static),
    url: &Url,
    action: &str,
) -> Failure {
    match mcp::error(error) {
        Some(inner) => {
            let failure = Failure::from(inner);
            let message = format!("{}; {action}", failure.message);
            Failure { message, ..failure }
        }
        None => {
            let words = error.to_string();
            let words = quoted(&without_query(&words, url));
            Failure::failed(format!("{action}: {words}"))
        }
    }
}

/// `bursar mcp tools`.
pub(crate) async fn tools(args: McpTools) -> Result<Exit, Failure> {
    let payer = Payer::builder().build_read_only()?;
    let session = Session::open(&args.server, payer, Credentials::new()).await?;
    let (mut rows, mut asked) = (Vec::new(), 0_usize);
    for tool in session.list(&args.server.url).await? {
        let price = match mcp::listed_price(&tool) {
            ListedPrice::Unknown | ListedPrice::Paid if args.ask && asked >= MOST_ASKED => {
                Some(format!("unknown: --ask asks for {MOST_ASKED} prices"))
            }
            ListedPrice::Unknown | ListedPrice::Paid if args.ask => {
                asked = asked.saturating_add(1);
                Some(price(&session.tools, &tool).await)
            }
            ListedPrice::Unknown => None,
            listed => Some(format!("{listed} (listed)")),
        };
        rows.push((tool, price));
    }
    session.close().await;
    let printed = if args.json {
        rows.iter().try_for_each(|(tool, price)| {
            output::print_json(
                &serde_json::json!({ "name": tool.name, "description": tool.description, "price": price }),
            )
        })
    } else {
        let head = ["TOOL", "PRICE", "DESCRIPTION"].map(ToOwned::to_owned);
        let rows = rows.iter().map(|(tool, price)| {
            let description = tool.description.as_deref().unwrap_or_default();
            [
                one_line(&tool.name, 40),
                price.clone().unwrap_or_else(|| "unknown".to_owned()),
                one_line(description, 60),
            ]
        });
        output::print(table(head, rows))
    };
    output::finish(printed, Exit::Done)
}

/// Returns a text of the seller on one line, shortened to a number of characters.
fn one_line(text: &str, most: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = visible(&line);
    match line.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default().trim_end()),
        None => line.trim().to_owned(),
    }
}

/// Returns whether a tool says that it destroys. A tool that says `readOnlyHint: false` and no more destroys, by the
/// default of the protocol. A tool without hints says nothing.
fn destroys(tool: &Tool) -> bool {
    let hints = tool.annotations.as_ref();
    let hint = |hint: fn(&ToolAnnotations) -> Option<bool>| hints.and_then(hint);
    let destructive = hint(|hints| hints.destructive_hint);
    match hint(|hints| hints.read_only_hint) {
        Some(true) => destructive == Some(true),
        Some(false) => destructive != Some(false),
        None => destructive == Some(true),
    }
}

/// Asks for the price with a call without arguments, unless the tool says that it destroys.
pub(crate) async fn price(tools: &PaidTools, tool: &Tool) -> String {
    if destroys(tool) {
        return "unknown: the tool says that it destroys, so it was not called".to_owned();
    }
    match tools.call(tool.name.to_string()).quote().await {
        Ok(PriceOutcome::Unpriced(answer)) if answer.result().is_error == Some(true) => {
            "unknown: the tool needs arguments, or failed".to_owned()
        }
        Ok(PriceOutcome::Unpriced(_)) if matches!(mcp::listed_price(tool), ListedPrice::Paid) => {
            "unknown: the list says that it costs money".to_owned()
        }
        Ok(PriceOutcome::Unpriced(_)) => "free".to_owned(),
        Ok(PriceOutcome::Priced(price_check)) => {
            let cheapest = price_check
                .offers
                .iter()
                .filter_map(|offer| offer.quote.as_ref().ok())
                .min_by_key(|quote| quote.dollars());
            cheapest.map_or_else(|| "not payable".to_owned(), |quote| quote.to_string())
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
            Failure::usage("--args: expected a JSON object such as {\"city\":\"Paris\"}")
        })?;
    let Allowance {
        policy,
        max_price,
        keys,
        ..
    } = allowance;
    let payer = if args.dry_run {
        wallet::judging(&args.wallet, policy).await?
    } else {
        wallet::paying(&args.wallet, policy).await?
    };
    let session = match Session::open(&args.server, payer.clone(), keys).await {
        Err(failure) if args.json => {
            drop(output::print_json(&Outcome::of_failure(&failure)));
            return Err(failure);
        }
        opened => opened?,
    };
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
    let (outcome, verdict) = if args.dry_run {
        dry_run(call).await
    } else {
        Box::pin(buy(call, &payer)).await
    };
    session.close().await;
    let exit = pay::exit_of(verdict, &outcome.statuses());
    let printed = if args.json {
        output::print_json(&outcome)
    } else {
        let (line, text) = match &outcome.quote {
            Some(quote) => (quote::dry_run_line(&outcome), quote.text()),
            None if outcome.body.is_empty() => (outcome.line(), String::new()),
            None => (outcome.line(), format!("{}\n", outcome.body)),
        };
        output::note(line);
        output::print(text)
    };
    output::finish(printed, exit)
}

async fn buy(call: ToolCall, payer: &Payer) -> (Outcome, Verdict) {
    match call.send().await {
        Ok(answer) => of_answer(&answer),
        Err(error) => {
            let purchase = purchase(&error, payer).await;
            (outcome_of(&error, purchase.as_ref()), Verdict::of(&error))
        }
    }
}

/// The outcome of an error. A time limit names the option that sets it.
fn outcome_of(error: &bursar::Error, purchase: Option<&Purchase>) -> Outcome {
    let mut outcome = Outcome::of_error(error, purchase);
    if let Some(problem) = outcome.error.as_mut().filter(|_| error.is_timeout()) {
        problem.message.push_str("; --timeout sets the time limit");
    }
    outcome
}

/// Returns the purchase of a call that failed after its signature.
async fn purchase(error: &bursar::Error, payer: &Payer) -> Option<Purchase> {
    let id = error
        .purchase_id()
        .filter(|_| error.payment_status() != PaymentStatus::NotPaid)?;
    let key = PurchaseKey::new(payer.address(), id.clone());
    payer.ledger().purchase(&key).await.ok().flatten()
}

async fn dry_run(call: ToolCall) -> (Outcome, Verdict) {
    match call.quote().await {
        Ok(PriceOutcome::Unpriced(answer)) => of_answer(&answer),
        Ok(PriceOutcome::Priced(price_check)) => quote::of_price_check(&price_check),
        Err(error) => (outcome_of(&error, None), Verdict::of(&error)),
    }
}

/// Returns the payments of an answer besides the main one. An endpoint and its tool can each ask for one.
pub(crate) fn others(answer: &ToolAnswer) -> Vec<OtherPayment> {
    let main = answer.payment().map(|payment| payment.nonce);
    let others = answer
        .payments()
        .filter(|(payment, _)| Some(payment.nonce) != main);
    others
        .map(|(payment, receipt)| OtherPayment {
            authorization: payment.into(),
            receipt: receipt.map(Receipt::from),
        })
        .collect()
}

fn of_answer(answer: &ToolAnswer) -> (Outcome, Verdict) {
    let payment = answer.payment_status();
    let failed = answer.result().is_error == Some(true);
    let outcome = Outcome {
        authorization: answer.payment().map(Authorization::from),
        receipt: answer.receipt().map(Receipt::from),
        others: others(answer),
        body: json(answer.result()).unwrap_or_default(),
        error: failed.then(|| {
            let message = format!("{}: the tool returned an error", prefix(payment));
            Problem::new("tool", message)
        }),
        ..Outcome::empty(payment)
    };
    let verdict = if failed {
        Verdict::Failed
    } else {
        Verdict::Done
    };
    (outcome, verdict)
}
