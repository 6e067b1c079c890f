//! A server that is some time away: a proxy that delays both directions and counts round trips.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::drive::Failure;

/// A proxy in front of a Unix socket. Its threads end with this process.
pub struct Away {
    port: u16,
    turns: Arc<AtomicU64>,
}

impl Away {
    /// Starts a proxy whose client waits for an answer by `round_trip` longer.
    pub fn start(socket: PathBuf, round_trip: Duration) -> Result<Self, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let turns = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&turns);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                drop(serve(client, &socket, round_trip / 2, &counted));
            }
        });
        Ok(Self { port, turns })
    }

    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Returns how often a client has sent something after the server did: the round trips of all connections.
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }
}

fn serve(
    client: TcpStream,
    socket: &PathBuf,
    delay: Duration,
    turns: &Arc<AtomicU64>,
) -> Result<(), Failure> {
    client.set_nodelay(true)?;
    let server = UnixStream::connect(socket)?;
    // Whether the server spoke last.
    let answered = Arc::new(AtomicBool::new(true));
    let (asks, turns) = (Arc::clone(&answered), Arc::clone(turns));
    let (client_writes, server_writes) = (client.try_clone()?, server.try_clone()?);
    carry(client, server_writes, delay, move || {
        if asks.swap(false, Ordering::Relaxed) {
            turns.fetch_add(1, Ordering::Relaxed);
        }
    });
    carry(server, client_writes, delay, move || {
        answered.store(true, Ordering::Relaxed);
    });
    Ok(())
}

/// A connection of which one direction can be closed.
trait Wire: Read + Write + Send + 'static {
    fn end(&self);
}

impl Wire for TcpStream {
    fn end(&self) {
        drop(self.shutdown(Shutdown::Both));
    }
}

impl Wire for UnixStream {
    fn end(&self) {
        drop(self.shutdown(Shutdown::Both));
    }
}

/// Copies one direction, and holds each part back for `delay`. Parts do not wait for each other.
fn carry(
    mut from: impl Wire,
    mut to: impl Wire,
    delay: Duration,
    seen: impl Fn() + Send + 'static,
) {
    let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            seen();
            let part = (Instant::now() + delay, buffer[..length].to_vec());
            if sender.send(part).is_err() {
                break;
            }
        }
    });
    std::thread::spawn(move || {
        for (at, part) in receiver {
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            if to.write_all(&part).is_err() {
                break;
            }
        }
        to.end();
    });
}
