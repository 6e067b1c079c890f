//! A second connection to the file for long reads, on a thread of its own. No payment waits for them.
//!
//! The connection is open while it is used, and for a moment after that.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::{Connection, InterruptHandle, OpenFlags};

use super::failed;
use super::guard::Guard;
use super::schema::WRITE_TIMEOUT;
use crate::ledger::LedgerError;

/// The pause between two interrupts.
const PAUSE: Duration = Duration::from_millis(1);
/// How long an unused connection stays open.
const IDLE: Duration = Duration::from_secs(1);

/// A read, which gets the connection or the error of opening it.
pub(super) type LongRead = Box<dyn FnOnce(Result<&mut Connection, LedgerError>) + Send>;

/// A handle on the thread, which starts with the first read. Dropping it ends a read that runs, and waits for the thread.
pub(super) struct Reader {
    guard: Arc<Guard>,
    thread: Mutex<Option<(Sender<LongRead>, JoinHandle<()>)>>,
    running: Running,
}

/// Ends the read that runs.
type Running = Arc<Mutex<Option<InterruptHandle>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reader {
    pub(super) fn new(guard: Arc<Guard>) -> Self {
        Self {
            guard,
            thread: Mutex::default(),
            running: Arc::default(),
        }
    }

    pub(super) fn send(&self, read: LongRead) -> Result<(), LedgerError> {
        let mut thread = lock(&self.thread);
        let unsent = match &*thread {
            Some((reads, _)) => match reads.send(read) {
                Ok(()) => return Ok(()),
                // The thread ended by a panic.
                Err(unsent) => unsent.0,
            },
            None => read,
        };
        let (reads, queue) = channel();
        let (guard, running) = (Arc::clone(&self.guard), Arc::clone(&self.running));
        let handle = thread::Builder::new()
            .name("bursar-ledger-reads".to_owned())
            .spawn(move || serve(&guard, &queue, &running))
            .map_err(LedgerError::store)?;
        reads.send(unsent).map_err(|_| super::thread_stopped())?;
        *thread = Some((reads, handle));
        Ok(())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let Some((reads, handle)) = lock(&self.thread).take() else {
            return;
        };
        drop(reads);
        if handle.thread().id() == thread::current().id() {
            return;
        }
        // Nobody waits for the reads that are left: each caller has a handle of the ledger. SQLite ignores an interrupt
        // before a statement begins, so one is not enough.
        while !handle.is_finished() {
            if let Some(running) = &*lock(&self.running) {
                running.interrupt();
            }
            thread::sleep(PAUSE);
        }
        drop(handle.join());
    }
}

fn serve(guard: &Guard, queue: &Receiver<LongRead>, running: &Running) {
    while let Ok(first) = queue.recv() {
        let mut connection = match open(guard) {
            Ok(connection) => connection,
            Err(error) => {
                first(Err(error));
                continue;
            }
        };
        *lock(running) = Some(connection.get_interrupt_handle());
        first(Ok(&mut connection));
        let ended = loop {
            match queue.recv_timeout(IDLE) {
                Ok(read) => match guard.check() {
                    Ok(_) => read(Ok(&mut connection)),
                    Err(error) => read(Err(error)),
                },
                Err(ended) => break ended,
            }
        };
        *lock(running) = None;
        if ended == RecvTimeoutError::Disconnected {
            return;
        }
    }
}

/// Opens the file that the ledger has open. The connection could write, so that SQLite writes the log back if this is
/// the last connection.
fn open(guard: &Guard) -> Result<Connection, LedgerError> {
    guard.check()?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&guard.files.database, flags).map_err(failed)?;
    connection.busy_timeout(WRITE_TIMEOUT).map_err(failed)?;
    connection
        .execute_batch(
            "PRAGMA query_only = ON; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -2048; \
             PRAGMA fullfsync = ON; PRAGMA cell_size_check = ON;",
        )
        .map_err(failed)?;
    Ok(connection)
}
