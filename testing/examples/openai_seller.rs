//! A paid seller that speaks OpenAI's API, for tests in any language.
//!
//! `cargo run -p bursar-testing --example openai_seller -- --port 8402` prints one line of JSON when it is ready:
//! `{"base_url":"http://127.0.0.1:8402/v1","status_url":"http://127.0.0.1:8402/_seller"}`. Give `base_url` to a client of
//! OpenAI. `status_url` shows the requests and the settlements.
//!
//! | Argument | Meaning |
//! |---|---|
//! | `--port N` | the port; 0, the default, takes a free one |
//! | `--price DOLLARS` | the price of a request; 0.001 by default, 0 is free |
//! | `--price-per-token DOLLARS` | a price for each token that the answer may have |
//! | `--model NAME` | a model, `gpt-test` by default; can be repeated |
//! | `--pause-ms N` | the time between the events of a stream |
//! | `--v1` | x402 version 1 |
//! | `--idempotent` | answers the same payment again |
//! | `--drop-first` | settles the first payment and loses the answer |
//! | `--stop-with-stdin` | ends when the standard input ends, so that it does not outlive the test |

use std::io::Write;
use std::time::Duration;

use bursar::Usd;
use bursar_testing::{Fault, OpenAi, Paywall};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let (mut seller, mut model) = (Paywall::builder().status_page("/_seller"), OpenAi::new());
    let (mut v1, mut idempotent, mut drop_first, mut stop_with_stdin) =
        (false, false, false, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let (name, mut value) = match argument.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (argument, None),
        };
        let mut value = || {
            let value = value.take().or_else(|| arguments.next());
            value.ok_or_else(|| format!("{name} needs a value"))
        };
        match name.as_str() {
            "--port" => seller = seller.port(value()?.parse()?),
            "--price" => model = model.price(value()?.parse::<Usd>()?),
            "--price-per-token" => model = model.price_per_token(value()?.parse::<Usd>()?),
            "--model" => model = model.model(value()?),
            "--pause-ms" => model = model.pause(Duration::from_millis(value()?.parse()?)),
            "--v1" => v1 = true,
            "--idempotent" => idempotent = true,
            "--drop-first" => drop_first = true,
            "--stop-with-stdin" => stop_with_stdin = true,
            _ => return Err(format!("unknown argument {name}").into()),
        }
    }
    let model = model.paid_route(move |mut route| {
        if v1 {
            route = route.v1();
        }
        if idempotent {
            route = route.idempotent();
        }
        if drop_first {
            route = route.fault_once(Fault::DropAfterSettle);
        }
        route
    });
    let seller = seller.routes(model).start().await?;

    let mut out = std::io::stdout();
    let (base, status) = (seller.url("/v1"), seller.url("/_seller"));
    writeln!(out, r#"{{"base_url":"{base}","status_url":"{status}"}}"#)?;
    out.flush()?;
    if stop_with_stdin {
        let (ended, end) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            // An error ends the input, too.
            drop(std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
            ended.send(()).unwrap_or_default();
        });
        drop(end.await);
        // The thread that reads has ended.
        return Ok(());
    }
    std::future::pending().await
}
