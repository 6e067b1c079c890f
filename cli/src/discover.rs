//! `bursar discover`: services in lists, with the decision of the policy.

use bursar::discovery::{
    Discovery, Findings, Kind, Query, Service, SourceReport, Sources, Standing, Usage,
};
use bursar::reqwest::Method;
use bursar::text::quoted;
use bursar::x402::Quote;
use bursar::{Client, Error};
use serde::Serialize;

use crate::args::Discover as Args;
use crate::exit::{Exit, Failure};
use crate::payment::network_name;
use crate::problem::{Problem, message};
use crate::{ledger, output, policies, wallet};

/// The services that were found, as `--json` prints them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DiscoverOutput {
    services: Vec<FoundService>,
    sources: Vec<SearchedSource>,
    /// The number of further services that fit.
    left_out: usize,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FoundService {
    standing: &'static str,
    /// The rule that denies.
    rule: Option<&'static str>,
    kind: &'static str,
    method: String,
    price: String,
    usd: Option<String>,
    network: Option<String>,
    pay_to: Option<String>,
    untrusted: Advertisement,
    /// Set if the list reports the use of its services.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<ReportedUsage>,
    sources: Vec<usize>,
}

/// Texts that the service wrote, or that quote it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Advertisement {
    url: String,
    tool: Option<String>,
    reason: Option<String>,
    name: Option<String>,
    description: Option<String>,
    tags: Vec<String>,
    mime_type: Option<String>,
    input: Option<String>,
}

/// The use of a service in the last 30 days, as the list reports it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ReportedUsage {
    calls: Option<u64>,
    payers: Option<u64>,
    last_called: Option<String>,
    curated: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SearchedSource {
    kind: &'static str,
    url: String,
    pages: usize,
    items: usize,
    skipped: usize,
    more: bool,
    error: Option<Problem>,
    untrusted: ListTexts,
}

/// Texts that quote a list.
#[derive(Debug, Serialize)]
struct ListTexts {
    /// Why bursar skipped items.
    reasons: Vec<String>,
    /// The full message of the error.
    error: Option<String>,
}

/// `bursar discover`.
pub(crate) async fn run(args: Args) -> Result<Exit, Failure> {
    let has_policy = args.policy.policy.is_some() || !args.policy.network.is_empty();
    let mut sources = Sources::default();
    let payer = if has_policy {
        let allowance = policies::allowance(&args.policy)?;
        if !names_sources(&args) {
            sources = allowance.sources;
        }
        Some(wallet::judging(&args.wallet, allowance.policy, allowance.chain).await?)
    } else if args.policy.budget.is_some() || args.policy.max_per_payment.is_some() {
        return Err(Failure::usage(
            "limits need a network; add --network NAME or --policy FILE",
        ));
    } else {
        None
    };
    let client = Client::builder().allow_http_loopback(args.allow_http_loopback);
    let client = match payer {
        Some(payer) => client.payer(payer),
        None => client,
    };
    let client = client.build()?;
    let findings = query(client.discover().sources(&sources), &args)
        .run()
        .await?;
    let printed = if args.json {
        output::print_json(&DiscoverOutput::from(&findings))
    } else {
        let printed = output::print(table(&findings));
        notes(&findings).into_iter().for_each(output::note);
        printed
    };
    // Like grep: a script must not take an empty result for a success.
    let found = !findings.services.is_empty();
    output::finish(printed, if found { Exit::Done } else { Exit::Failed })
}

/// Returns whether the command line names places to look for services.
fn names_sources(args: &Args) -> bool {
    [
        &args.bazaar,
        &args.well_known,
        &args.openapi,
        &args.registry,
    ]
    .iter()
    .any(|urls| !urls.is_empty())
}

fn query(mut discovery: Discovery, args: &Args) -> Query {
    for url in &args.bazaar {
        discovery = discovery.bazaar(url.clone());
    }
    for url in &args.well_known {
        discovery = discovery.well_known(url.clone());
    }
    for url in &args.openapi {
        discovery = discovery.openapi(url.clone());
    }
    for url in &args.registry {
        discovery = discovery.registry(url.clone());
    }
    if let Some(limit) = args.timeout {
        discovery = discovery.time(limit);
    }
    let mut query = discovery.find(&args.query.join(" ")).limit(args.limit);
    if let Some(max) = max_price(args) {
        query = query.max_price(max);
    }
    if let Some(method) = &args.method {
        query = query.method(method.clone());
    }
    match args.policy.network.as_slice() {
        [network] => query.network(*network),
        _ => query,
    }
}

/// Returns the smaller of `--max-price` and `--max-per-payment`. With a policy file, the latter is not part of the policy.
fn max_price(args: &Args) -> Option<bursar::Usd> {
    let per_payment = args
        .policy
        .max_per_payment
        .filter(|_| args.policy.policy.is_some());
    args.max_price.into_iter().chain(per_payment).min()
}

fn table(findings: &Findings) -> String {
    if findings.services.is_empty() {
        return String::new();
    }
    let head = ["PRICE", "NETWORK", "STANDING", "METHOD", "ARGUMENTS"].map(ToOwned::to_owned);
    let rows = findings.services.iter().map(|service| {
        let method = match service.kind {
            Kind::Mcp => "mcp".to_owned(),
            _ => service.method.to_string(),
        };
        let network = service
            .quote
            .as_ref()
            .map(|quote| network_name(quote.network()))
            .unwrap_or_default();
        [
            service.price.to_string(),
            network,
            service.standing.name().to_owned(),
            method,
            arguments(service),
        ]
    });
    let table = ledger::table(head, rows);
    let mut lines = table.lines();
    let mut text = format!("{}\n", lines.next().unwrap_or_default());
    for (line, service) in lines.zip(&findings.services) {
        text.push_str(&format!("{line}\n"));
        if let Some(reason) = service.standing.reason() {
            let why = rule(service).unwrap_or(service.standing.name());
            text.push_str(&format!("    {why}: {}\n", quoted(&reason)));
        }
        if let Some(description) = description(service) {
            text.push_str(&format!("    {description}\n"));
        }
    }
    text
}

/// Returns the rule that denies a service.
const fn rule(service: &Service) -> Option<&'static str> {
    match &service.standing {
        Standing::Denied(denial) => Some(denial.rule.name()),
        _ => None,
    }
}

/// Returns the description in the list, as a quotation, and the use that the list reports.
fn description(service: &Service) -> Option<String> {
    let texts = &service.untrusted;
    let texts = [&texts.name, &texts.description];
    let texts = texts.into_iter().flatten().map(|text| quoted(text));
    let usage = &service.usage;
    let payers = usage
        .payers
        .map(|payers| format!("{payers} payers in 30 days"));
    let calls = usage.calls.map(|calls| format!("{calls} calls in 30 days"));
    let curated = usage.curated.then(|| "curated".to_owned());
    let parts: Vec<String> = texts.chain(calls).chain(payers).chain(curated).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Returns the arguments for `bursar pay` or `bursar mcp call`. They are quoted for a shell, because a stranger wrote the
/// URL.
fn arguments(service: &Service) -> String {
    let url = argument(service.url.as_str());
    match (service.kind, &service.tool) {
        (Kind::Mcp, Some(tool)) => format!("{url} {}", argument(tool)),
        (Kind::Mcp, None) => url,
        _ if service.method == Method::GET => url,
        _ => format!("-X {} {url}", service.method),
    }
}

/// Quotes a text as one argument for a POSIX shell that cannot be read as an option.
fn argument(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/:._%=+,@-".contains(&byte);
    if text.bytes().all(plain) && !text.starts_with('-') && !text.is_empty() {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn notes(findings: &Findings) -> Vec<String> {
    let mut notes: Vec<String> = findings.sources.iter().flat_map(notes_on).collect();
    if findings.services.is_empty() {
        let read = findings
            .sources
            .iter()
            .filter(|source| source.error.is_none());
        let (lists, items) = read.fold((0_usize, 0_usize), |(lists, items), source| {
            (lists.saturating_add(1), items.saturating_add(source.items))
        });
        notes.push(match (lists, items) {
            (0, _) => "no service was found".to_owned(),
            (_, 0) => "no service was found: the lists name none; try other words or another list".to_owned(),
            _ => format!("no service was found: none of {items} listed items fits; try other words or another list"),
        });
    }
    if findings.left_out > 0 {
        notes.push(format!(
            "{} more services fit; raise --limit to see them",
            findings.left_out
        ));
    }
    notes
}

fn notes_on(source: &SourceReport) -> Vec<String> {
    let place = format!(
        "{} {}",
        source.kind,
        bursar::Origin::of(&source.url)
            .map(|origin| origin.to_string())
            .unwrap_or_default()
    );
    let mut notes = Vec::new();
    if let Some(error) = &source.error {
        notes.push(format!("{place}: {}", short_message(error)));
    }
    if source.skipped.count > 0 {
        let reasons = source.skipped.reasons.iter();
        let reasons: Vec<String> = reasons.map(|reason| quoted(reason)).collect();
        let reasons = reasons.join("; ");
        notes.push(format!(
            "{place}: skipped {} of {} items: {reasons}",
            source.skipped.count, source.items
        ));
    }
    if source.more {
        notes.push(format!(
            "{place}: stopped after {} pages; the list is longer",
            source.pages
        ));
    }
    notes
}

/// Returns the message of an error without `not paid`, because reading a list never pays.
fn short_message(error: &Error) -> String {
    let message = message(error);
    message
        .strip_prefix("not paid: ")
        .map(ToOwned::to_owned)
        .unwrap_or(message)
}

impl From<&Findings> for DiscoverOutput {
    fn from(findings: &Findings) -> Self {
        Self {
            services: findings.services.iter().map(FoundService::from).collect(),
            sources: findings.sources.iter().map(SearchedSource::from).collect(),
            left_out: findings.left_out,
        }
    }
}

impl From<&Service> for FoundService {
    fn from(service: &Service) -> Self {
        Self {
            standing: service.standing.name(),
            rule: rule(service),
            kind: service.kind.name(),
            method: service.method.to_string(),
            price: service.price.to_string(),
            usd: service.price.dollars().map(|usd| usd.to_string()),
            network: service
                .quote
                .as_ref()
                .map(|quote| quote.network().to_string()),
            pay_to: service
                .quote
                .as_ref()
                .map(Quote::pay_to)
                .map(|payee| payee.to_string()),
            untrusted: Advertisement::from(service),
            usage: ReportedUsage::of(&service.usage),
            sources: service.sources.clone(),
        }
    }
}

impl ReportedUsage {
    fn of(usage: &Usage) -> Option<Self> {
        (*usage != Usage::default()).then(|| Self {
            calls: usage.calls,
            payers: usage.payers,
            last_called: usage.last_called.clone(),
            curated: usage.curated,
        })
    }
}

impl From<&Service> for Advertisement {
    fn from(service: &Service) -> Self {
        let texts = &service.untrusted;
        Self {
            url: service.url.to_string(),
            tool: service.tool.clone(),
            reason: service.standing.reason(),
            name: texts.name.clone(),
            description: texts.description.clone(),
            tags: texts.tags.clone(),
            mime_type: texts.mime_type.clone(),
            input: texts.input.clone(),
        }
    }
}

impl From<&SourceReport> for SearchedSource {
    fn from(source: &SourceReport) -> Self {
        let problem = |error: &Error| {
            let message = match error.status() {
                Some(status) => format!("the list answers {status}"),
                None => "the list cannot be read".to_owned(),
            };
            Problem::new(error.kind().name(), message)
        };
        Self {
            kind: source.kind.name(),
            url: source.url.to_string(),
            pages: source.pages,
            items: source.items,
            skipped: source.skipped.count,
            more: source.more,
            error: source.error.as_ref().map(problem),
            untrusted: ListTexts {
                reasons: source.skipped.reasons.clone(),
                error: source.error.as_ref().map(short_message),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::argument;

    #[test]
    fn a_text_of_a_stranger_is_one_shell_argument() {
        assert_eq!(
            argument("https://a.example/report-1.json"),
            "https://a.example/report-1.json"
        );
        assert_eq!(
            argument("https://a.example/?a=1&b=$(date)"),
            "'https://a.example/?a=1&b=$(date)'"
        );
        assert_eq!(
            argument("https://a.example/';date;'"),
            "'https://a.example/'\\'';date;'\\'''"
        );
        assert_eq!(argument("--policy"), "'--policy'");
    }
}
