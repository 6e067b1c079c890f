//! `bursar mcp tools` with servers whose lists have no end.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[expect(dead_code, reason = "each test file uses a part")]
mod support;

use bursar_tests::endless_tools::{Endless, EndlessTools};
use support::CliHarness;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_ends_a_list_of_tools_without_end() {
    let harness = CliHarness::new(support::report()).await;
    for (how, limit, named) in [
        (Endless::Pages, "60", "more than 100 pages"),
        (Endless::SamePage, "60", "comes to the same page again"),
        (Endless::Tools, "60", "more than 5000 tools"),
        (Endless::Descriptions, "60", "more than 8388608 bytes"),
        (Endless::Silence, "1", "1 s"),
        (Endless::Handshake, "1", "MCP session"),
    ] {
        let (_, address) = EndlessTools::open(how).await;
        let url = format!("http://{address}/mcp");
        let listed = harness
            .run(&[
                "mcp",
                "tools",
                &url,
                "--allow-http-loopback",
                "--timeout",
                limit,
            ])
            .await;
        assert_eq!((listed.code, listed.text()), (1, ""), "{how:?}: {listed:?}");
        // The time limit of the list and that of its requests are equal, and either ends first.
        let is_named = listed.stderr.contains(named)
            || (matches!(how, Endless::Silence) && listed.stderr.contains("the `timeout`"));
        assert!(is_named, "{how:?}: {}", listed.stderr);
    }
}
