//! How fast bursar is, against the floor and its peers, in one run: `bursar-speed [--short] [--peers BINARY]`.

mod clients;
mod drive;
mod growth;
#[path = "../../pieces/core.rs"]
mod pieces;
#[cfg(feature = "postgres")]
mod postgres;
mod server;
mod table;

use drive::{Failure, Plan};

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("server") => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(server::serve()),
        Some("client") => {
            let [_, name, base, plan @ ..] = arguments.as_slice() else {
                return Err("client NAME BASE PLAN".into());
            };
            let plan = Plan::read(plan)?;
            let measured = plan.runtime()?.block_on(clients::run(name, base, plan))?;
            println!("{}", serde_json::to_string(&measured)?);
            Ok(())
        }
        Some("fill") => {
            let [_, path, purchases] = arguments.as_slice() else {
                return Err("fill PATH ENTRIES".into());
            };
            growth::fill(path.as_ref(), purchases.parse()?)
        }
        Some("growth") => {
            let [_, largest] = arguments.as_slice() else {
                return Err("growth ENTRIES".into());
            };
            let largest = largest.parse()?;
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?
                .block_on(growth::measure(largest))
        }
        #[cfg(feature = "postgres")]
        Some("postgres") => {
            let [_, url, schema, plan @ ..] = arguments.as_slice() else {
                return Err("postgres URL SCHEMA PLAN".into());
            };
            let plan = Plan::read(plan)?;
            let measured = plan.runtime()?.block_on(postgres::buy(url, schema, plan))?;
            println!("{:.1}", measured.rate);
            Ok(())
        }
        Some("pieces") => {
            pieces::NAMES.iter().for_each(|name| println!("{name}"));
            Ok(())
        }
        Some("piece") => {
            let [_, name, count] = arguments.as_slice() else {
                return Err("piece NAME COUNT".into());
            };
            let mut piece = pieces::Piece::new(name)?;
            (0..count.parse()?).try_for_each(|_| piece.run())
        }
        _ => table::print(&arguments),
    }
}
