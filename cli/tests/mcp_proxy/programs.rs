//! Servers that are programs.

#![cfg(unix)]

use serde_json::json;

use super::{call, harness, list, names, params, payment, proxy, text};

/// A server in a shell script, with one tool that returns a variable of its environment.
const SCRIPT: &str = r#"
while read -r line; do
  id=$(printf %s "$line" | sed -n 's/.*"id":\([0-9]*\).*/\1/p')
  case $line in
    *'"initialize"'*) result='{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"s","version":"1"}}' ;;
    *'"tools/list"'*) result='{"tools":[{"name":"env","inputSchema":{"type":"object"}},{"name":"end","inputSchema":{"type":"object"}}]}' ;;
    *'"end"'*) exit 1 ;;
    *'"tools/call"'*) result="{\"content\":[{\"type\":\"text\",\"text\":\"key=$BURSAR_PRIVATE_KEY given=$GIVEN other=$OTHER path=${PATH:+set}\"}]}" ;;
    *) continue ;;
  esac
  printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$result"
done
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_serves_its_tools_without_the_key_and_is_started_again_after_its_end() {
    let harness = harness().await;
    let script = harness.file("server.sh", SCRIPT);
    let command = format!("script=env GIVEN=yes sh '{script}'");
    let session = proxy(
        &harness,
        &[],
        &["--upstream-command", &command, "--pass-env", "OTHER"],
    )
    .await;
    assert_eq!(names(&list(&session).await), ["env", "end"]);
    let result = call(&session, "env", json!({})).await;
    assert_eq!(text(&result, 0), "key= given=yes other= path=set");

    let ended = call(&session, "end", json!({})).await;
    assert_eq!(
        (ended.is_error, &payment(&ended)["payment"]),
        (Some(true), &json!("not_paid"))
    );
    let again = session
        .client
        .call_tool(params("env", json!({})))
        .await
        .unwrap();
    assert_eq!(text(&again, 0), "key= given=yes other= path=set");
    let ended = session.end(&harness).await;
    assert_eq!(ended.code, 0, "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_cannot_start_is_reported() {
    let harness = harness().await;
    let session = proxy(
        &harness,
        &[],
        &["--upstream-command", "gone=/no/such/program"],
    )
    .await;
    assert!(names(&list(&session).await).is_empty());
    let servers = call(&session, "bursar_servers", json!({}))
        .await
        .structured_content
        .unwrap();
    let details = servers["servers"][0]["untrusted"]["details"]
        .as_str()
        .unwrap();
    assert!(details.contains("cannot start"), "{servers}");
    let ended = session.end(&harness).await;
    assert_eq!(ended.code, 0);
    assert!(
        ended
            .stderr
            .starts_with("gone: the program \"/no/such/program\" cannot start"),
        "{ended:?}"
    );
}
