//! A shop of paid tools: an MCP server in front of a paywall. Each call of a tool is a request to the
//! paywall's route of that name, so that the paywall verifies, settles and misbehaves.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bursar_testing::Paywall;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::Bytes;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorCode, ErrorData,
    ListToolsResult, MetaObject, PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::StreamableHttpService;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::{RoleServer, ServerHandler};
use serde_json::{Map, Value, json};

/// How an unpaid result says that it is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Structured,
    Text,
    /// Version 1's wrapping.
    Wrapped,
    Prose,
    Code402,
    Elicitation,
    /// Terms in a result that is no error.
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
        let http = reqwest::Client::builder()
            .tls_backend_rustls()
            .tls_certs_only([])
            .build()
            .unwrap();
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

/// The shop over streamable HTTP. With `toll`, the endpoint itself answers 402 to calls of tools, by the
/// paywall's route of that path.
pub async fn open(
    shop: ToolServer,
    toll: Option<&'static str>,
) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    let (paywall, http) = (Arc::clone(&shop.paywall), shop.http.clone());
    let service = StreamableHttpService::new(
        move || Ok(shop.clone()),
        Arc::new(LocalSessionManager::default()),
        Default::default(),
    );
    let door = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (service, paywall, http) = (service.clone(), Arc::clone(&paywall), http.clone());
            let answer = hyper::service::service_fn(
                move |request: hyper::Request<hyper::body::Incoming>| {
                    let (service, paywall, http) =
                        (service.clone(), Arc::clone(&paywall), http.clone());
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.unwrap().to_bytes();
                        let calls = String::from_utf8_lossy(&body).contains("\"tools/call\"");
                        let mut receipt = None;
                        if let Some(path) = toll.filter(|_| calls) {
                            let mut asked = http.get(paywall.url(path));
                            if let Some(payment) = head.headers.get("payment-signature") {
                                asked = asked.header("payment-signature", payment);
                            }
                            let judged = asked.send().await.unwrap();
                            if judged.status() != 200 {
                                let mut refusal =
                                    hyper::Response::new(Full::new(Bytes::new()).boxed());
                                (*refusal.status_mut(), *refusal.headers_mut()) =
                                    (judged.status(), judged.headers().clone());
                                refusal.headers_mut().remove("content-length");
                                return Ok::<_, Infallible>(refusal);
                            }
                            receipt = judged.headers().get("payment-response").cloned();
                        }
                        let mut answer: hyper::Response<BoxBody<Bytes, Infallible>> = service
                            .handle(hyper::Request::from_parts(head, Full::new(body)))
                            .await;
                        if let Some(receipt) = receipt {
                            answer.headers_mut().insert("payment-response", receipt);
                        }
                        Ok(answer)
                    }
                },
            );
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(hyper_util::rt::TokioIo::new(stream), answer);
            tokio::spawn(async move { drop(connection.await) });
        }
    });
    (address, door)
}
