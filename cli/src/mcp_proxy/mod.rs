//! `bursar mcp proxy`: an MCP server in front of other MCP servers, whose tools it pays for.
//!
//! A host sees the tools of all servers with their prices. The proxy calls a tool as the host does, pays if the server asks
//! for a payment and the policy allows it, and adds the payment to the result. It shares the calls with `bursar mcp serve`:
//! approvals by elicitation, abandoned calls, and paid answers that nobody took.
//!
//! The result, the schema and the hints of a tool are those of its server. Descriptions are marked as the words of the
//! server. Keys that begin with `bursar/` in metadata are the proxy's own, and removed if a server sends them.

mod approver;
mod found;
mod hosts;
mod http;
mod listing;
mod names;
mod own;
mod progress;
mod prompts;
mod resources;
mod result;
mod upstream;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bursar::approval::ChannelApprover;
use bursar::discovery::Sources;
use bursar::policy::Amount;
use bursar::{Client, ErrorKind, PaymentStatus, PurchaseId, Usd};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, JsonObject, MetaObject, RequestMetaObject, Tool,
};
use rmcp::service::RequestContext;
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::transport::stdio_pipes;
use rmcp::{ErrorData, RoleServer};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::args::McpProxyArgs as Args;
use crate::exit::{Exit, Failure};
use crate::payment::signed_amount;
use crate::policies;
use crate::serve::calls::{Caller, Calls, Order};
use crate::serve::disconnect::{Disconnect, Watched};
use crate::serve::kept::Answer;
use crate::serve::{self, MAX_MESSAGE, failed_purchase, params};
use crate::wallet;
use approver::HostApprover;
use found::Found;
use hosts::Hosts;
use listing::OWN_META;
use own::Own;
use progress::Route;
use result::ToolResult;
use upstream::{Settings, Upstream};

/// How long the first list of tools waits for servers that are not connected yet.
const FIRST_LIST: Duration = Duration::from_secs(8);
/// How long a call waits for a server that is not connected.
const CONNECT: Duration = Duration::from_secs(15);
/// The most tools in the list.
const MOST_TOOLS: usize = 1024;
/// The time that servers have to end with the proxy.
const FAREWELL: Duration = Duration::from_secs(5);
/// The prefix of keys that belong to the connection with the host.
const PROTOCOL_META: &str = "io.modelcontextprotocol/";

/// `bursar mcp proxy`.
pub(crate) async fn run(args: Args) -> Result<Exit, Failure> {
    if let Some(address) = args.http {
        let (ended, disconnect) = Disconnect::signal();
        let proxy = Proxy::open(&args, disconnect).await?;
        let served = http::serve(address, &proxy, ended).await;
        proxy.close().await?;
        return served;
    }
    let (reader, writer) = stdio_pipes();
    let (reader, disconnect) = Watched::new(reader);
    let proxy = Proxy::open(&args, disconnect).await?;
    let transport = AsyncRwTransport::new_server(reader, writer).with_max_line_length(MAX_MESSAGE);
    let served = serve::serve(proxy.handler(), transport).await;
    proxy.close().await?;
    served
}

/// The identity of a call.
#[derive(Clone, Debug, PartialEq)]
struct Identity {
    server: String,
    tool: String,
    arguments: Option<JsonObject>,
    purchase_id: Option<PurchaseId>,
    tag: Option<String>,
}

/// The parts that all calls share.
struct Proxy {
    settings: Settings,
    /// The settings of servers that were found. Their client refuses private addresses.
    found_settings: Settings,
    approver: HostApprover,
    /// The limit of --max-per-payment, in addition to the policy.
    max_price: Option<Usd>,
    /// The lists of the policy file.
    sources: Sources,
    /// Whether servers can be added.
    add_servers: bool,
    found: Found,
    /// Whether names of tools begin with the name of their server.
    prefixed: bool,
    upstreams: RwLock<Vec<Arc<Upstream>>>,
    /// The tasks of the servers.
    tasks: tokio::sync::Mutex<JoinSet<()>>,
    hosts: Arc<Hosts>,
    /// The time limit of a call that can ask a person. It includes the time for the approval.
    approval_timeout: Duration,
    calls: Arc<Calls<Identity, ToolResult>>,
    sessions: AtomicU64,
    stop: watch::Sender<bool>,
}

/// Handles the messages of one session.
struct Handler {
    proxy: Arc<Proxy>,
    session: u64,
}

/// A tool in the list.
struct Entry {
    name: String,
    upstream: Arc<Upstream>,
    tool: Tool,
}

/// The options of a call, from its metadata.
#[derive(Debug, Default)]
struct CallOptions {
    max_price: Option<Usd>,
    purchase_id: Option<PurchaseId>,
    tag: Option<String>,
    allow_duplicate: bool,
}

impl Proxy {
    async fn open(args: &Args, disconnect: Disconnect) -> Result<Arc<Self>, Failure> {
        let allowance = policies::allowance(&args.policy)?;
        let named = allowance.mcp_servers.into_iter();
        let named = named.chain(args.upstream.iter().cloned());
        let servers: Vec<_> = named.chain(args.upstream_command.iter().cloned()).collect();
        let add_servers = allowance.add_servers && !allowance.sources.is_empty();
        let mut names = HashSet::new();
        if let Some(twice) = servers.iter().find(|server| !names.insert(&server.name)) {
            return Err(Failure::usage(format!(
                "there are two MCP servers with the name {}; give one of them another name, with NAME= before its URL or \
                 command, or with `name` in the policy file",
                twice.name
            )));
        }
        if servers.is_empty() && !add_servers {
            return Err(Failure::usage(
                "no MCP server is named; add --upstream NAME=URL or --upstream-command NAME=COMMAND, or a table \
                 [[mcp_server]] in the policy file",
            ));
        }
        let approval_timeout = args
            .timeout
            .saturating_add(allowance.policy.time_to_approve());
        let approver = HostApprover::default();
        let payer = wallet::paying_as(&args.wallet, allowance.policy, allowance.chain, |payer| {
            payer.approver(approver.clone())
        })
        .await?;
        let client = |loopback| {
            let client = Client::builder().credentials(allowance.keys.clone());
            let client = client.allow_http_loopback(loopback).payer(payer.clone());
            // A call has a time limit of its own. A limit of the client would end the stream of notifications.
            client.answer_timeout(args.timeout)
        };
        // The operator names a server on loopback, so it is allowed.
        let own = client(true).build()?;
        let mut found = client(args.allow_http_loopback);
        if !args.allow_private_networks {
            found = found.deny_private_networks();
        }
        let (stop, stopped) = watch::channel(false);
        let hosts = Arc::new(Hosts::new());
        let settings = |client: Client| -> Result<Settings, Failure> {
            let payer = client.payer().cloned();
            let hosts = Arc::clone(&hosts);
            Ok(Settings {
                payer: payer.ok_or_else(|| Failure::failed("the client has no payer"))?,
                client,
                timeout: args.timeout,
                pass_env: args.pass_env.clone(),
                ask_prices: args.ask_prices,
                stop: stopped.clone(),
                changed: Arc::new(move || hosts.list_changed()),
            })
        };
        let (settings, found_settings) = (settings(own)?, settings(found.build()?)?);
        let proxy = Arc::new(Self {
            settings,
            found_settings,
            approver,
            max_price: allowance.max_price,
            sources: allowance.sources,
            prefixed: servers.len() > 1 || add_servers,
            add_servers,
            found: Found::default(),
            upstreams: RwLock::default(),
            tasks: tokio::sync::Mutex::default(),
            hosts,
            approval_timeout,
            calls: Arc::new(Calls::new(args.host_timeout, disconnect)),
            sessions: AtomicU64::new(0),
            stop,
        });
        for server in servers {
            let upstream = Upstream::new(server, None, proxy.settings.clone())?;
            proxy.start(upstream).await;
        }
        Ok(proxy)
    }

    /// Adds a server and connects to it.
    async fn start(&self, upstream: Arc<Upstream>) {
        {
            let upstreams = self.upstreams.write();
            let mut upstreams = upstreams.unwrap_or_else(PoisonError::into_inner);
            upstreams.push(Arc::clone(&upstream));
        }
        self.tasks.lock().await.spawn(upstream.run());
    }

    fn upstreams(&self) -> Vec<Arc<Upstream>> {
        let upstreams = self.upstreams.read();
        upstreams.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns a handler for a new session.
    fn handler(self: &Arc<Self>) -> Handler {
        Handler {
            proxy: Arc::clone(self),
            session: self.sessions.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Waits until every call has ended or is abandoned, records abandoned purchases in the ledger, and ends the sessions.
    async fn close(&self) -> Result<(), Failure> {
        self.calls.close().await;
        let recorded = wallet::close(&self.settings.client).await;
        self.stop.send_replace(true);
        let mut tasks = self.tasks.lock().await;
        let ended = async { while tasks.join_next().await.is_some() {} };
        drop(tokio::time::timeout(FAREWELL, ended).await);
        recorded?;
        Ok(())
    }

    /// Waits until every server was tried once, but not for long.
    async fn first_attempts(&self) {
        let tried = async {
            for upstream in self.upstreams() {
                upstream.tried().await;
            }
        };
        drop(tokio::time::timeout(FIRST_LIST, tried).await);
    }

    /// Returns the tools of all servers, with the names for hosts.
    fn entries(&self) -> Vec<Entry> {
        let upstreams = self.upstreams();
        let tools: Vec<_> = upstreams
            .iter()
            .flat_map(|upstream| {
                let tools = Arc::clone(&upstream.known().tools);
                (0..tools.len()).filter_map(move |at| Some((upstream, tools.get(at)?.clone())))
            })
            .take(MOST_TOOLS)
            .collect();
        let named: Vec<_> = tools
            .iter()
            .map(|(upstream, tool)| (upstream.config.name.as_str(), &*tool.name))
            .collect();
        let names = names::host_names(&named, self.prefixed, &Own::NAMES);
        let entries = names.into_iter().zip(&tools);
        entries
            .filter_map(|(name, (upstream, tool))| {
                Some(Entry {
                    name: name?,
                    upstream: Arc::clone(upstream),
                    tool: tool.clone(),
                })
            })
            .collect()
    }

    /// Returns the tools as a host sees them.
    async fn list(&self) -> Vec<Tool> {
        self.first_attempts().await;
        let entries = self.entries().into_iter().map(|entry| {
            let price = entry
                .upstream
                .known()
                .prices
                .get(&*entry.tool.name)
                .cloned();
            let server = &entry.upstream.config.name;
            listing::for_host(server, entry.name, &entry.tool, price.as_ref())
        });
        entries.collect()
    }

    async fn find(&self, name: &str) -> Option<Entry> {
        let find = || self.entries().into_iter().find(|entry| entry.name == name);
        if let Some(entry) = find() {
            return Some(entry);
        }
        self.first_attempts().await;
        find()
    }

    /// Returns the most that a call may cost, if there is a limit besides the policy.
    fn cap(&self, upstream: &Upstream, tool: &str, options: &CallOptions) -> Option<Amount> {
        let limits = [self.max_price, upstream.config.max_price, options.max_price];
        let dollars = limits.into_iter().flatten().min();
        match (dollars, upstream.cap(tool)) {
            (Some(dollars), Some(Amount::Usd(advertised))) => Some(dollars.min(advertised).into()),
            // A limit in dollars denies a token without a price in dollars.
            (Some(dollars), _) => Some(dollars.into()),
            (None, advertised) => advertised,
        }
    }
}

impl Handler {
    async fn call(
        &self,
        request: CallToolRequestParams,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let proxy = &self.proxy;
        if let Some(own) = Own::named(&request.name, proxy.add_servers) {
            let called = own.call(proxy, request.arguments);
            return tokio::select! {
                result = called => result.map(Into::into),
                () = proxy.calls.abandoned(context) => Err(serve::calls::cancelled()),
            };
        }
        let Some(entry) = proxy.find(&request.name).await else {
            return Err(ErrorData::invalid_params(
                "there is no tool with this name; ask for the list of tools again",
                None,
            ));
        };
        let caller = Caller {
            session: self.session,
            context,
        };
        let order = |arguments: Option<JsonObject>| {
            let refused = |message: String| Box::new(ToolResult::refused("usage", &message));
            let (options, meta) = CallOptions::read(&context.meta).map_err(refused)?;
            let route = context.meta.get_progress_token().map(|token| Route {
                peer: context.peer.clone(),
                token,
            });
            let tag = entry.upstream.config.tag.clone().or(options.tag.clone());
            let identity = Identity {
                server: entry.upstream.config.name.clone(),
                tool: entry.tool.name.to_string(),
                arguments: arguments.clone(),
                purchase_id: options.purchase_id.clone(),
                tag: tag.clone(),
            };
            let allow_duplicate = options.allow_duplicate;
            let bought = Bought {
                proxy: Arc::clone(proxy),
                upstream: entry.upstream,
                tool: entry.tool.name.to_string(),
                arguments,
                options,
                tag,
                meta,
                route,
            };
            Ok(Order {
                identity,
                allow_duplicate,
                buy: move |purchasing: serve::call::Purchasing<Identity, ToolResult>| async move {
                    let result = bought.send(purchasing.approver).await;
                    if result.is_paid_answer() {
                        purchasing.running.set_answered();
                    }
                    result
                },
            })
        };
        proxy.calls.conduct(request, caller, order).await
    }
}

/// One call of a tool.
struct Bought {
    proxy: Arc<Proxy>,
    upstream: Arc<Upstream>,
    tool: String,
    arguments: Option<JsonObject>,
    options: CallOptions,
    tag: Option<String>,
    /// The metadata for the server.
    meta: MetaObject,
    /// The way of its progress.
    route: Option<Route>,
}

impl Bought {
    /// Calls the tool, and pays if needed and allowed.
    async fn send(self, approver: Option<ChannelApprover>) -> ToolResult {
        let (proxy, upstream) = (&self.proxy, &self.upstream);
        let tools = match upstream.tools(CONNECT.min(proxy.settings.timeout)).await {
            Ok(tools) => tools,
            Err(_) => {
                let message = format!(
                    "the server {} is not connected; bursar tries it again, and bursar_servers has the reason",
                    upstream.config.name
                );
                return ToolResult::refused("not_connected", &message);
            }
        };
        let mut params = CallToolRequestParams::new(self.tool.clone());
        params.arguments = self.arguments;
        params.meta = (!self.meta.0.is_empty()).then_some(RequestMetaObject(self.meta));
        let mut call = tools.call_with(params);
        if let Some(cap) = proxy.cap(upstream, &self.tool, &self.options) {
            call = call.max_price(cap);
        }
        if let Some(id) = &self.options.purchase_id {
            call = call.purchase_id(id.as_str());
        }
        if let Some(tag) = &self.tag {
            call = call.tag(tag);
        }
        if self.options.allow_duplicate {
            call = call.allow_duplicate();
        }
        if approver.is_some() {
            call = call.timeout(proxy.approval_timeout);
        }
        if let Some(route) = self.route {
            let routed = upstream.progress.route(route);
            call = call.on_progress_token(move |token| routed.add(token));
        }
        let _asking = proxy.approver.begin(&upstream.identity, approver.as_ref());
        match call.send().await {
            Ok(answer) => {
                if let Some(signed) = answer.payment() {
                    upstream.note_price(&self.tool, signed_amount(signed));
                }
                upstream.note_links(answer.result());
                ToolResult::of_answer(answer)
            }
            Err(error) => {
                if matches!(error.kind(), ErrorKind::Transport | ErrorKind::Timeout) {
                    upstream.suspect();
                }
                let purchase = match error.payment_status() {
                    PaymentStatus::NotPaid => None,
                    _ => failed_purchase(&proxy.settings.client, &error).await,
                };
                ToolResult::of_error(&error, purchase.as_ref())
            }
        }
    }
}

impl CallOptions {
    /// Reads the options, and returns the metadata for the server.
    ///
    /// # Errors
    /// Returns a message that names the wrong option.
    fn read(meta: &RequestMetaObject) -> Result<(Self, MetaObject), String> {
        let RequestMetaObject(MetaObject(meta)) = meta;
        let (mut options, mut others) = (Self::default(), JsonObject::new());
        for (key, value) in meta {
            let Some(own) = key.strip_prefix(OWN_META) else {
                if key != "progressToken" && !key.starts_with(PROTOCOL_META) {
                    others.insert(key.clone(), value.clone());
                }
                continue;
            };
            let text = || {
                let text = value.as_str();
                text.ok_or_else(|| format!("_meta.{key}: expected a string"))
            };
            match (own, value) {
                ("max_price", _) => options.max_price = Some(params::price(text()?)?),
                ("purchase_id", _) => options.purchase_id = Some(params::purchase(text()?)?),
                ("tag", _) => options.tag = Some(text()?.to_owned()),
                ("allow_duplicate", Value::Bool(allow)) => options.allow_duplicate = *allow,
                _ => {
                    return Err(format!(
                        "_meta.{key}: expected max_price, purchase_id or tag with a string, or allow_duplicate with a \
                         boolean"
                    ));
                }
            }
        }
        Ok((options, MetaObject(others)))
    }
}
