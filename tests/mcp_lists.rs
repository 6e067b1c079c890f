//! Lists of tools that have no end.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use bursar::mcp::{self, PaidTools, Server};
use bursar::{Error, ErrorKind};
use bursar_tests::endless_tools::{Endless, EndlessTools};
use bursar_tests::paywall::client;
use rmcp::ServiceExt;
use rmcp::model::Tool;

/// Lists the tools of a server. Returns the number of pages that were asked for, too.
async fn list(how: Endless, limit: Option<Duration>) -> (Result<Vec<Tool>, Error>, usize) {
    let (server, address) = EndlessTools::open(how).await;
    let client = client().build().unwrap();
    let url = format!("http://{address}/mcp");
    let service = ().serve(mcp::connect(&client, &url).unwrap()).await.unwrap();
    let payer = client.payer().unwrap().clone();
    let tools = PaidTools::new(service.peer().clone(), payer, Server::at(&url).unwrap());
    let tools = match limit {
        Some(limit) => tools.timeout(limit),
        None => tools,
    };
    let listed = tools.list_tools().await;
    drop(service.cancel().await);
    (listed, server.lists())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_tools_without_end_is_an_error() {
    for (how, most_pages, named) in [
        (Endless::Pages, 100, "more than 100 pages"),
        (Endless::SamePage, 2, "comes to the same page again"),
        (Endless::Tools, 6, "more than 5000 tools"),
        (Endless::Descriptions, 5, "more than 8388608 bytes"),
        (Endless::Schemas, 5, "more than 8388608 bytes"),
    ] {
        let (listed, pages) = list(how, None).await;
        let error = listed.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed, "{how:?}: {error}");
        assert!(error.to_string().contains(named), "{how:?}: {error}");
        assert!(pages <= most_pages, "{how:?}: {pages}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_without_end_ends_a_list_of_tools() {
    for how in [Endless::Bytes, Endless::Notifications] {
        let (listed, pages) = list(how, Some(Duration::from_secs(60))).await;
        let error = listed.unwrap_err();
        assert_ne!(error.kind(), ErrorKind::Timeout, "{how:?}: {error}");
        assert!(pages <= 3, "{how:?}: {pages}");
    }
    let (listed, _) = list(Endless::Silence, Some(Duration::from_millis(300))).await;
    let error = listed.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(error.to_string().contains("0.3 s"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_loses_every_session_gets_no_session_without_end() {
    let (server, address) = EndlessTools::open(Endless::Sessions).await;
    let client = client().build().unwrap();
    let url = format!("http://{address}/mcp");
    let service = ().serve(mcp::connect(&client, &url).unwrap()).await.unwrap();
    let payer = client.payer().unwrap().clone();
    let tools = PaidTools::new(service.peer().clone(), payer, Server::at(&url).unwrap());
    let error = tools.list_tools().await.unwrap_err();
    assert_ne!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(
        server.sessions() <= 4 && server.lists() <= 4,
        "{} {}",
        server.sessions(),
        server.lists()
    );
    drop(service.cancel().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_tools_in_single_bytes_is_read() {
    let (listed, _) = list(Endless::Nothing, None).await;
    let names: Vec<_> = listed.unwrap().into_iter().map(|tool| tool.name).collect();
    assert_eq!(names, ["tool-0"]);
}
