//! An agent that uses `bursar mcp serve`: the MCP client of rmcp on the standard input and output of the binary.

use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rmcp::model::{
    CallToolRequestParams, ClientCapabilities, ClientConfig, ElicitRequestParams, ElicitResult,
    ElicitationAction, ElicitationCapability, FormElicitationCapability, Implementation,
    ProgressNotificationParam, ProtocolVersion,
};
use rmcp::service::{NotificationContext, RequestContext, RunningService};
use rmcp::{
    ClientHandler, ClientLifecycleMode, ClientServiceExt, ErrorData, RoleClient, ServiceError,
};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::Child;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::support::{CliHarness, Ended};

/// The user of the client.
#[derive(Clone, Debug, Default)]
pub(crate) struct User {
    /// The answer to every question. Without it, the client does not support elicitation.
    pub(crate) answer: Option<Value>,
    /// The questions.
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
    pub(crate) asks: Arc<Notify>,
    /// The time before the answer.
    pub(crate) thinks: Duration,
    /// Notified when the list of tools has changed.
    pub(crate) list_changed: Arc<Notify>,
    /// The progress of calls.
    pub(crate) progress: Arc<Mutex<Vec<ProgressNotificationParam>>>,
    pub(crate) progresses: Arc<Notify>,
}

impl User {
    pub(crate) fn answering(answer: Value) -> Self {
        Self {
            answer: Some(answer),
            ..Self::default()
        }
    }

    pub(crate) async fn wait_for_a_question(&self) {
        self.asks.notified().await;
    }
}

impl ClientHandler for User {
    fn get_info(&self) -> ClientConfig {
        let mut capabilities = ClientCapabilities::default();
        capabilities.elicitation = self
            .answer
            .is_some()
            .then(|| ElicitationCapability::new().with_form(FormElicitationCapability::default()));
        ClientConfig::new(capabilities, Implementation::new("test", "1"))
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.list_changed.notify_one();
    }

    async fn on_progress(
        &self,
        params: ProgressNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        self.progress.lock().unwrap().push(params);
        self.progresses.notify_one();
    }

    async fn create_elicitation(
        &self,
        request: ElicitRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        let ElicitRequestParams::FormElicitationParams { message, .. } = request else {
            unreachable!()
        };
        self.asked.lock().unwrap().push(message);
        self.asks.notify_one();
        tokio::time::sleep(self.thinks).await;
        match &self.answer {
            Some(content) if !content.is_null() => {
                Ok(ElicitResult::new(ElicitationAction::Accept).with_content(content.clone()))
            }
            // The user never answers.
            _ => std::future::pending().await,
        }
    }
}

/// Returns the handshake of protocol versions up to 2025-11-25.
pub(crate) fn session() -> ClientLifecycleMode {
    ClientLifecycleMode::Initialize
}

/// Returns the start without a handshake, which versions from 2026-07-28 on have.
pub(crate) fn stateless() -> ClientLifecycleMode {
    ClientLifecycleMode::Discover {
        preferred_versions: vec![ProtocolVersion::V_2026_07_28],
    }
}

/// A running server and its client.
pub(crate) struct Session {
    pub(crate) client: RunningService<RoleClient, User>,
    child: Child,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<Vec<u8>>,
}

/// Copies everything from a reader to a writer, and returns a copy of it.
async fn record(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> Vec<u8> {
    let mut all = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut piece).await {
        all.extend_from_slice(&piece[..count]);
        drop(to.write_all(&piece[..count]).await);
    }
    all
}

impl Session {
    /// Starts a server on Base Sepolia and loopback, with the ledger of the harness and more arguments.
    pub(crate) async fn open(harness: &CliHarness, args: &[&str]) -> Self {
        Self::open_as(harness, args, User::default(), session()).await
    }

    pub(crate) async fn open_as(
        harness: &CliHarness,
        args: &[&str],
        user: User,
        lifecycle: ClientLifecycleMode,
    ) -> Self {
        let serve = ["mcp", "serve", "--allow-http-loopback"];
        Self::start(harness, &[&serve[..], args].concat(), user, lifecycle).await
    }

    /// Starts a server with this subcommand, on Base Sepolia and with the ledger of the harness, unless the arguments name
    /// another one.
    pub(crate) async fn start(
        harness: &CliHarness,
        args: &[&str],
        user: User,
        lifecycle: ClientLifecycleMode,
    ) -> Self {
        let mut args = [args, &["--network", "base-sepolia"]].concat();
        if !args.contains(&"--ledger") {
            args.extend(["--ledger", "ledger.db"]);
        }
        let mut command = tokio::process::Command::from(harness.command(&args));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let (near, far) = tokio::io::duplex(1 << 20);
        let stdout = tokio::spawn(record(child.stdout.take().unwrap(), far));
        let stderr = tokio::spawn(record(child.stderr.take().unwrap(), tokio::io::sink()));
        let client = user
            .serve_with_lifecycle((near, child.stdin.take().unwrap()), lifecycle)
            .await
            .unwrap();
        Self {
            client,
            child,
            stdout,
            stderr,
        }
    }

    pub(crate) async fn try_call(
        &self,
        params: CallToolRequestParams,
    ) -> Result<Value, ServiceError> {
        let result = self.client.call_tool(params).await?;
        let value = result.structured_content.unwrap();
        let text = &result.content[0].as_text().unwrap().text;
        assert_eq!(
            serde_json::from_str::<Value>(text).unwrap(),
            value,
            "the text and the structured content are equal"
        );
        assert!(
            text.starts_with("{\"payment\":"),
            "the payment status is not first: {text}"
        );
        assert_eq!(
            result.is_error.unwrap(),
            !value["error"].is_null(),
            "{value}"
        );
        Ok(value)
    }

    /// Returns the result of a tool.
    pub(crate) async fn call(&self, tool: &'static str, arguments: Value) -> Value {
        self.try_call(params(tool, arguments)).await.unwrap()
    }

    /// Disconnects, and checks that the server ends without an error, and that its output is the protocol without a secret.
    pub(crate) async fn close(self, harness: &CliHarness) -> Ended {
        let ended = self.end(harness).await;
        // Calls at once may be identical, which bursar warns of.
        let mut told = ended.stderr.lines();
        let only_duplicates = told.all(|line| line.contains("an identical request is in flight"));
        assert!(ended.code == 0 && only_duplicates, "{ended:?}");
        ended
    }

    /// Disconnects, and checks that the output of the server is the protocol without a secret.
    pub(crate) async fn end(mut self, harness: &CliHarness) -> Ended {
        self.client.close().await.unwrap();
        drop(self.client);
        let code = self.child.wait().await.unwrap().code().unwrap();
        let stderr = String::from_utf8(self.stderr.await.unwrap()).unwrap();
        let ended = Ended {
            code,
            stdout: self.stdout.await.unwrap(),
            stderr,
        };
        harness.assert_no_secret_in(&ended);
        assert!(
            ended.lines().iter().all(|line| line["jsonrpc"] == "2.0"),
            "{ended:?}"
        );
        ended
    }
}

pub(crate) fn params(tool: &'static str, arguments: Value) -> CallToolRequestParams {
    CallToolRequestParams::new(tool).with_arguments(arguments.as_object().unwrap().clone())
}
