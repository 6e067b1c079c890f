//! The settings that a reload replaces: the policy, the routes and the API keys.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use bursar::approval::TerminalApprover;
use bursar::config::ProxyRoute;
use bursar::reqwest;
use bursar::telemetry::Event;
use bursar::{Client, Credentials, Policy, PurchaseOptions, Usd};
use serde_json::Value;

use super::Proxy;
use super::gate::Program;
use super::log::Line;
use super::metrics::Metrics;
use crate::args::ProxyArgs as Args;
use crate::exit::Failure;
use crate::policies::{self, Allowance};
use crate::wallet;

/// The largest body of a request without a setting, in bytes.
const BODY_LIMIT: u64 = 32 * 1024 * 1024;

/// The settings of a file, and the client that uses them. A call keeps its settings until its end.
pub(super) struct Settings {
    /// The client under the policy and with all API keys. It shares connections, ledger and remembered terms with those of
    /// all other settings.
    client: Client,
    policy: Policy,
    keys: Credentials,
    /// The limit of --max-per-payment, in addition to the policy.
    pub(super) max_price: Option<Usd>,
    pub(super) routes: Vec<ProxyRoute>,
    explicit: bool,
    /// The address to listen on. Only the start uses it.
    pub(super) listen: Option<SocketAddr>,
    pub(super) body_limit: u64,
    /// The agent of --agent.
    agent: Option<String>,
}

impl Settings {
    /// Combines a policy file with the options of the command line.
    pub(super) fn new(args: &Args, allowance: Allowance, base: &Client) -> Result<Self, Failure> {
        let config = allowance.proxy;
        let mut routes = config.routes;
        for route in &args.route {
            if routes.iter().any(|other| other.path == route.path) {
                return Err(Failure::usage(format!(
                    "--route {}: another route has this path",
                    route.path
                )));
            }
            routes.push(route.clone());
        }
        let client = base.with_policy(allowance.policy.clone())?;
        Ok(Self {
            client: client.with_credentials(allowance.keys.clone())?,
            policy: allowance.policy,
            keys: allowance.keys,
            max_price: allowance.max_price,
            routes,
            explicit: config.explicit,
            listen: config.listen,
            body_limit: config.body_limit.unwrap_or(BODY_LIMIT),
            agent: args.wallet.agent.clone(),
        })
    }

    /// Returns the client of no agent and no route, to read the ledger.
    pub(super) const fn client(&self) -> &Client {
        &self.client
    }

    /// Returns the client of an agent and a route. It knows all keys, so a host that is never paid stays one.
    pub(super) fn client_of(
        &self,
        agent: Option<&str>,
        route: Option<&ProxyRoute>,
    ) -> Result<Client, Failure> {
        let mut client = match agent {
            Some(agent) => self
                .client
                .with_options(PurchaseOptions::new().agent(agent)),
            None => self.client.clone(),
        };
        if route.is_some_and(|route| route.credential.is_some()) {
            client = client.with_credentials(self.keys_of(route))?;
        }
        Ok(client)
    }

    /// Returns the policy if a path may name its target.
    pub(super) fn explicit_policy(&self) -> Option<&Policy> {
        Some(&self.policy).filter(|_| self.explicit)
    }

    /// Returns the API keys that a route uses.
    pub(super) fn keys_of(&self, route: Option<&ProxyRoute>) -> Credentials {
        match route.and_then(|route| route.credential.as_deref()) {
            Some(name) => self.keys.only(name),
            None => self.keys.clone(),
        }
    }

    /// Returns the agent of a call: the route's, the command line's, or the name of the token.
    pub(super) fn agent(&self, route: Option<&ProxyRoute>, program: &Program) -> Option<String> {
        let agent = route.and_then(|route| route.agent.clone());
        agent
            .or_else(|| self.agent.clone())
            .or_else(|| Some(program.name.clone()))
    }

    /// Logs a warning for each API key that is missing.
    pub(super) async fn warn_of_missing_keys(&self) {
        for warning in self.keys.missing_keys().await {
            Line::warning(warning.to_string()).write();
        }
    }

    /// Returns a sentence for each part of the settings that has no effect, or lets every request fail. `tokens` are the
    /// names of the tokens.
    fn warnings(&self, tokens: &[String], allows_http: bool) -> Vec<String> {
        let mut found = Vec::new();
        let policy = serde_json::to_value(self.policy.effective()).unwrap_or_default();
        if self.routes.is_empty() {
            let hosts = policy.pointer("/allow/hosts");
            let names_host = hosts
                .and_then(Value::as_array)
                .is_some_and(|hosts| !hosts.is_empty());
            found.push(if self.explicit && names_host {
                "there is no route, so only paths such as /to/https/HOST/PATH work, for the hosts of [allow]".to_owned()
            } else {
                "there is no route, so every request is refused; add a [[proxy.route]] to the policy file, or \
                 --route PATH=URL"
                    .to_owned()
            });
        }
        for route in &self.routes {
            if route.target.scheme() == "http" && !allows_http {
                found.push(format!(
                    "the target of the route {} has plain http, so every request is refused; add --allow-http-loopback",
                    route.path
                ));
            }
        }
        // Without a token there is another warning, and the first one can have any name.
        if tokens.is_empty() {
            return found;
        }
        for route in &self.routes {
            for client in route.clients.iter().filter(|name| !tokens.contains(name)) {
                found.push(format!(
                    "`clients` of the route {} names `{client}`, and no token has this name; the tokens are {}",
                    route.path,
                    tokens.join(", ")
                ));
            }
        }
        let agents = policy
            .get("agent")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        for agent in agents.filter_map(|table| table.get("match").and_then(Value::as_str)) {
            let of_route = |route: &ProxyRoute| route.agent.as_deref() == Some(agent);
            let of_token = self.agent.is_none() && tokens.iter().any(|name| name == agent);
            let is_known = self.agent.as_deref() == Some(agent)
                || of_token
                || self.routes.iter().any(of_route);
            if !is_known {
                found.push(format!(
                    "the limits of [[agent]] `{agent}` hold for no program: no token and no route has this name{}; the \
                     tokens are {}",
                    if self.agent.is_some() { ", or --agent replaces it" } else { "" },
                    tokens.join(", ")
                ));
            }
        }
        found
    }
}

/// Builds the client that all settings share: the wallet, the connections and the remembered terms. It has no API keys.
pub(super) async fn base(
    args: &Args,
    allowance: &Allowance,
    metrics: &Arc<Metrics>,
) -> Result<Client, Failure> {
    let metrics = Arc::clone(metrics);
    let (policy, chain) = (allowance.policy.clone(), allowance.chain.clone());
    let payer = wallet::paying_as(&args.wallet, policy, chain, |payer| {
        let payer = payer.observer(move |event: &Event<'_>| metrics.observe(event));
        match wallet::can_ask_person() {
            true => payer.approver(TerminalApprover::default()),
            false => payer,
        }
    });
    // The program asked for the encoding of the answer, and decodes it.
    let http = reqwest::Client::builder()
        .no_gzip()
        .no_brotli()
        .no_deflate()
        .no_zstd();
    let mut client = Client::builder()
        .http(http)
        .payer(payer.await?)
        .allow_http_loopback(args.allow_http_loopback)
        .answer_timeout(args.answer_timeout);
    if !args.allow_private_networks {
        client = client.deny_private_networks();
    }
    if let Some(limit) = args.timeout {
        client = client.timeout(limit);
    }
    Ok(client.build()?)
}

impl Proxy {
    /// Logs warnings about settings that cannot be meant.
    pub(super) fn warn(&self, settings: &Settings) {
        // A file of tokens that cannot be read is an error at the start and for each request.
        let tokens = self.tokens.names().unwrap_or_default();
        for warning in settings.warnings(&tokens, self.args.allow_http_loopback) {
            Line::warning(warning).write();
        }
    }

    /// Reads the policy file again. A file with mistakes changes nothing. Calls that run keep their settings.
    pub(super) async fn reload(&self) {
        let file: Option<PathBuf> = self.args.policy.policy.clone();
        let read = policies::allowance(&self.args.policy)
            .and_then(|allowance| Settings::new(&self.args, allowance, &self.base));
        let file = file.map(|file| file.display().to_string());
        match read {
            Ok(settings) => {
                settings.warn_of_missing_keys().await;
                self.warn(&settings);
                let routes = settings.routes.len();
                self.replace(settings);
                self.count_reload("ok");
                Line::new("reloaded")
                    .with("file", file)
                    .with("routes", routes)
                    .write();
            }
            Err(failure) => {
                self.count_reload("failed");
                Line::new("reload_failed")
                    .with("file", file)
                    .with("message", failure.message)
                    .with("kept", "the policy from before")
                    .write();
            }
        }
    }

    fn count_reload(&self, result: &str) {
        self.metrics
            .add("bursar_proxy_reloads_total", &[("result", result)], 1);
    }
}
