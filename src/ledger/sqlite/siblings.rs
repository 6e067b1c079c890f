//! The handles of this process on one file.
//!
//! Each has a connection and a thread of its own. Before a handle reads, it has the other ones make the writes that no caller
//! waits for. So a program sees its records through any of its handles.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::oneshot;

use super::Thread;
use super::writer::Job;

/// The threads of one file. Those that ended are forgotten with the next one.
#[derive(Default)]
pub(super) struct Siblings(Mutex<Vec<Weak<Thread>>>);

/// Every change is one step, so a panic elsewhere leaves the list whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Siblings {
    /// Returns those of a file.
    pub(super) fn of(database: &Path) -> Arc<Self> {
        static FILES: Mutex<BTreeMap<PathBuf, Weak<Siblings>>> = Mutex::new(BTreeMap::new());
        let path = database
            .canonicalize()
            .unwrap_or_else(|_| database.to_owned());
        let mut files = lock(&FILES);
        files.retain(|_, siblings| siblings.strong_count() > 0);
        let known = files.get(&path).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let new = Arc::default();
            files.insert(path, Arc::downgrade(&new));
            new
        })
    }

    pub(super) fn add(&self, thread: &Arc<Thread>) {
        let mut threads = lock(&self.0);
        threads.retain(|thread| thread.strong_count() > 0);
        threads.push(Arc::downgrade(thread));
    }

    /// Has the other threads make their writes that no caller waits for.
    pub(super) async fn settle(&self, own: &Arc<Thread>) {
        for other in self.busy(own) {
            let (answer, answered) = oneshot::channel();
            let job = Job::Read(Box::new(move |_| answer.send(()).unwrap_or_default()));
            if other.send(job).is_ok() {
                // A thread that ends makes its writes, too.
                drop(answered.await);
            }
        }
    }

    /// Returns the other threads that have such writes.
    fn busy(&self, own: &Arc<Thread>) -> Vec<Arc<Thread>> {
        let threads = lock(&self.0);
        if threads.len() < 2 {
            return Vec::new();
        }
        let others = threads.iter().filter_map(Weak::upgrade);
        others
            .filter(|other| !Arc::ptr_eq(other, own) && other.later.load(Ordering::Acquire) > 0)
            .collect()
    }
}
