//! What is sent and where the answer goes, as curl has it.

use std::process::Stdio;

use bursar::usd;
use bursar_testing::Route;

use super::bench::{CliHarness, report};

#[tokio::test]
async fn the_request_is_sent_as_curl_would() {
    let bench = CliHarness::new(Route::any("/*").price(usd!("0.01")).echo()).await;
    let url = bench.paywall.url("/form?a=1").to_string();
    let file = bench.file("data.bin", b"line one\nline \xff two\n");
    let at = format!("@{file}");

    let ended = bench
        .pay(&[
            &url, "-d", "a=1", "-d", "b=2", "-H", "X-One: 1", "-H", "x-one:2", "-H", "X-Empty;",
        ])
        .await;
    assert_eq!((ended.code, ended.text()), (0, "a=1&b=2"));
    let sent = bench.paywall.requests();
    for request in &sent {
        assert_eq!(
            (request.method.as_str(), request.target.as_str()),
            ("POST", "/form?a=1")
        );
        assert_eq!(
            request.header("content-type"),
            Some("application/x-www-form-urlencoded")
        );
        assert_eq!(
            request.headers.get_all("x-one").iter().collect::<Vec<_>>(),
            ["1", "2"]
        );
        assert_eq!(request.header("x-empty"), Some(""));
        assert!(request.header("user-agent").unwrap().starts_with("bursar/"));
    }

    let ended = bench
        .pay(&[
            &url,
            "-d",
            &at,
            "-X",
            "PUT",
            "-H",
            "content-type: application/octet-stream",
        ])
        .await;
    assert_eq!(
        (ended.code, ended.stdout.as_slice()),
        (0, b"line one\nline \xff two\n".as_slice())
    );
    let request = bench.paywall.requests().pop().unwrap();
    assert_eq!(
        (request.method.as_str(), request.header("content-type")),
        ("PUT", Some("application/octet-stream"))
    );

    let ledger = bench.path("ledger.db");
    let stdin = bench.command(&[
        "pay",
        "--network",
        "base-sepolia",
        "--allow-http-loopback",
        "--ledger",
        ledger.to_str().unwrap(),
        &url,
        "--data",
        "@-",
        "--header",
        "Content-Type:",
        "--header",
        "User-Agent:",
    ]);
    let ended = bench.end(stdin, b"from a pipe").await;
    assert_eq!((ended.code, ended.text()), (0, "from a pipe"));
    let request = bench.paywall.requests().pop().unwrap();
    assert_eq!(
        (request.header("content-type"), request.header("user-agent")),
        (None, None)
    );
}

#[tokio::test]
async fn the_body_goes_to_a_file() {
    let long = "0123456789abcdef".repeat(8192);
    let bench = CliHarness::new(report().chunks([long.clone(), "end".to_owned()])).await;
    let file = bench.file("out.bin", "y".repeat(200_000));
    let ended = bench.buy(&["-o", &file]).await;
    assert_eq!((ended.code, ended.text()), (0, ""));
    assert_eq!(
        std::fs::read_to_string(&file).unwrap(),
        format!("{long}end")
    );

    let ended = bench.buy(&["--json", "--output", &file]).await;
    assert_eq!(ended.json()["body"].as_str().unwrap(), &long[..65_536]);
    assert_eq!(
        std::fs::read_to_string(&file).unwrap(),
        format!("{long}end")
    );

    assert_eq!(
        bench.buy(&["--json"]).await.json()["body"]
            .as_str()
            .unwrap()
            .len(),
        65_536
    );
    assert_eq!(bench.buy(&["-o", "-"]).await.text(), format!("{long}end"));
    let nowhere = bench.path("no/such/directory");
    let before = bench.settled();
    assert_eq!(bench.buy(&["-o", nowhere.to_str().unwrap()]).await.code, 2);
    assert_eq!(
        bench.settled(),
        before,
        "nothing is bought without a place for it"
    );
}

#[tokio::test]
async fn what_is_in_the_file_stays_when_nothing_was_bought() {
    let bench = CliHarness::new(report()).await;
    let file = bench.file("out.bin", "precious");
    assert_eq!(
        bench
            .buy(&["-o", &file, "--max-per-payment", "0.001"])
            .await
            .code,
        3
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
}

#[tokio::test]
async fn bytes_that_are_no_text_are_replaced_within_the_64_kib() {
    let bench = CliHarness::new(report().body([b"\xff".repeat(65_535), "é".into()].concat())).await;
    let body = bench.buy(&["--json"]).await.json()["body"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(body.len() <= 65_536 && body.starts_with('\u{fffd}'));
    let bench = CliHarness::new(report().body(["a".repeat(65_535), "é".into()].concat())).await;
    assert_eq!(
        bench.buy(&["--json"]).await.json()["body"]
            .as_str()
            .unwrap(),
        "a".repeat(65_535)
    );
}

#[tokio::test]
async fn a_reader_who_goes_away_ends_the_run_quietly() {
    let bench = CliHarness::new(report().body("x".repeat(1_000_000))).await;
    let ledger = bench.path("ledger.db");
    let url = bench.url();
    for json in [&[][..], &["--json"]] {
        let args = [
            "pay",
            &url,
            "--network",
            "base-sepolia",
            "--allow-http-loopback",
            "--ledger",
            ledger.to_str().unwrap(),
        ];
        let mut command = bench.command(&[&args[..], &["--repeat", "5"], json].concat());
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap())
            .await
            .unwrap();
        assert_eq!(
            (
                output.status.code(),
                String::from_utf8(output.stderr).unwrap().as_str()
            ),
            (Some(0), "")
        );
    }
    assert_eq!(bench.settled(), 2, "one in each run");
}

#[tokio::test]
async fn a_redirect_to_another_origin_is_not_followed() {
    let bench =
        CliHarness::new(Route::get("/report").redirect("http://127.0.0.1:1/elsewhere")).await;
    let ended = bench.buy(&[]).await;
    assert_eq!(
        (ended.code, bench.paywall.requests().len()),
        (0, 1),
        "{ended:?}"
    );
    assert_eq!(
        ended.stderr,
        "not paid: the answer is 307, a redirect that is not followed\n"
    );
}
