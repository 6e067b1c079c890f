//! An MCP server with paid tools, in front of a paywall.
//!
//! Each call of a tool makes a request to the paywall's route with the tool's name. So the paywall verifies, settles
//! and misbehaves.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bursar_testing::Paywall;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorCode, ErrorData,
    ListToolsResult, MetaObject, PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::StreamableHttpService;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::{RoleServer, ServerHandler};
use serde_json::{Map, Value, json};

use crate::paywall::http;

/// The form in which the server asks for payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Structured,
    Text,
    /// Wrapped as in version 1.
    Wrapped,
    Prose,
    Code402,
    Elicitation,
    /// Terms in a result that is not an error.
    NoError,
}

#[derive(Clone)]
pub struct ToolServer {
    pub paywall: Arc<Paywall>,
    pub style: Style,
    http: reqwest::Client,
}

impl ToolServer {
    pub fn new(paywall: Arc<Paywall>, style: Style) -> Self {
        let http = http().build().unwrap();
        Self {
            paywall,
            style,
            http,
        }
    }

    fn unpaid(&self, terms: Value) -> Result<CallToolResult, ErrorData> {
        let mut result = CallToolResult::error(Vec::new());
        let text = |text: String| vec![ContentBlock::text(text)];
        match self.style {
            Style::Structured => {
                result.content = text(terms.to_string());
                result.structured_content = Some(terms);
            }
            Style::Text => result.content = text(terms.to_string()),
            Style::Wrapped => {
                let error = json!({ "code": 402, "message": "Payment required", "data": terms });
                result.content = text(json!({ "x402/error": error }).to_string());
            }
            Style::Prose => result.content = text(format!("I need money first: {terms}. Thanks!")),
            Style::NoError => {
                result.content = text(terms.to_string());
                result.structured_content = Some(terms);
                result.is_error = Some(false);
            }
            Style::Code402 => {
                return Err(ErrorData::new(
                    ErrorCode(402),
                    "Payment required",
                    Some(terms),
                ));
            }
            Style::Elicitation => {
                return Err(ErrorData::new(
                    ErrorCode(-32042),
                    "Pay here",
                    Some(json!({ "x402": terms })),
                ));
            }
        }
        Ok(result)
    }
}

impl ServerHandler for ToolServer {
    fn get_info(&self) -> ServerConfig {
        let mut info = ServerConfig::default();
        info.capabilities = ServerCapabilities::builder().enable_tools().build();
        info
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let tool = |name: &'static str| Tool::new(name, "sells reports", Arc::new(Map::new()));
        Ok(ListToolsResult::with_all_items(vec![
            tool("report"),
            tool("free"),
        ]))
    }

    async fn call_tool(
        &self,
        params: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let mut url = self.paywall.url(&format!("/{}", params.name));
        url.set_query(
            params
                .arguments
                .as_ref()
                .map(|arguments| Value::from(arguments.clone()).to_string())
                .as_deref(),
        );
        let mut request = self.http.get(url);
        let payment = context
            .meta
            .0
            .0
            .get("x402/payment")
            .or_else(|| params.meta.as_ref()?.0.0.get("x402/payment"))
            .cloned();
        if let Some(payment) = payment {
            request = request.header("payment-signature", STANDARD.encode(payment.to_string()));
        }
        let lost = |error: reqwest::Error| {
            ErrorData::internal_error(error.without_url().to_string(), None)
        };
        let response = request.send().await.map_err(lost)?;
        let decoded = |name: &str| -> Option<Value> {
            let value = response.headers().get(name)?;
            Some(serde_json::from_slice(&STANDARD.decode(value).ok()?).unwrap())
        };
        let receipt = decoded("payment-response");
        if let (402, Some(terms)) = (response.status().as_u16(), decoded("payment-required")) {
            let mut result = self.unpaid(terms)?;
            result.meta = receipt.map(|receipt| {
                MetaObject(Map::from_iter([(
                    "x402/payment-response".to_owned(),
                    receipt,
                )]))
            });
            return Ok(result.into());
        }
        let failed = !response.status().is_success();
        let body = response.text().await.map_err(lost)?;
        let mut result = CallToolResult::success(vec![ContentBlock::text(body)]);
        result.is_error = Some(failed);
        result.meta = receipt.map(|receipt| {
            MetaObject(Map::from_iter([(
                "x402/payment-response".to_owned(),
                receipt,
            )]))
        });
        Ok(result.into())
    }
}

/// Serves the tools over streamable HTTP.
///
/// With `endpoint_route`, the endpoint itself asks for payment of every tool call, with the terms of the paywall's route
/// of this path.
pub async fn open(
    server: ToolServer,
    endpoint_route: Option<&'static str>,
) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    let (paywall, http) = (Arc::clone(&server.paywall), server.http.clone());
    let endpoint = Endpoint {
        service: StreamableHttpService::new(
            move || Ok(server.clone()),
            Arc::new(LocalSessionManager::default()),
            Default::default(),
        ),
        paywall,
        http,
        route: endpoint_route,
    };
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let endpoint = endpoint.clone();
            let answer = service_fn(move |request| endpoint.clone().answer(request));
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
            tokio::spawn(async move { drop(connection.await) });
        }
    });
    (address, task)
}

/// The HTTP endpoint of a tool server.
#[derive(Clone)]
struct Endpoint {
    service: StreamableHttpService<ToolServer, LocalSessionManager>,
    paywall: Arc<Paywall>,
    http: reqwest::Client,
    /// The route that decides about payment of the endpoint.
    route: Option<&'static str>,
}

impl Endpoint {
    async fn answer(
        self,
        request: Request<Incoming>,
    ) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let is_call = String::from_utf8_lossy(&body).contains("\"tools/call\"");
        let mut receipt = None;
        if let Some(path) = self.route.filter(|_| is_call) {
            let mut request = self.http.get(self.paywall.url(path));
            for name in ["host", "payment-signature", "sign-in-with-x"] {
                if let Some(value) = head.headers.get(name) {
                    request = request.header(name, value);
                }
            }
            let paid = request.send().await.unwrap();
            if paid.status() != 200 {
                let mut refusal = Response::new(Full::new(Bytes::new()).boxed());
                (*refusal.status_mut(), *refusal.headers_mut()) =
                    (paid.status(), paid.headers().clone());
                refusal.headers_mut().remove("content-length");
                return Ok(refusal);
            }
            receipt = paid.headers().get("payment-response").cloned();
        }
        let request = Request::from_parts(head, Full::new(body));
        let mut answer = self.service.handle(request).await;
        if let Some(receipt) = receipt {
            answer.headers_mut().insert("payment-response", receipt);
        }
        Ok(answer)
    }
}
