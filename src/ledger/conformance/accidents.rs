//! Accidents with stored ledgers: an older copy is put back, or the database is lost. Each is run on a file of SQLite and
//! on a PostgreSQL database with a witness file.

#[cfg(feature = "sqlite")]
use std::path::PathBuf;

use super::*;

/// The limit of these tests, in micro-dollars. Three purchases of 10 fill it.
const LIMIT: u64 = 30;

/// A ledger in a database, and the accidents of that database.
enum Stored {
    #[cfg(feature = "sqlite")]
    Sqlite(TempDir),
    #[cfg(feature = "postgres")]
    Postgres { directory: TempDir, schema: String },
}

/// A copy of the database, without its witness.
enum Copy {
    #[cfg(feature = "sqlite")]
    File(Vec<u8>),
    #[cfg(feature = "postgres")]
    Schema(String),
}

impl Stored {
    #[cfg(feature = "sqlite")]
    fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().unwrap())
    }

    #[cfg(feature = "postgres")]
    fn postgres() -> Self {
        Self::Postgres {
            directory: tempfile::tempdir().unwrap(),
            schema: crate::ledger::postgres::tests::schema(),
        }
    }

    #[cfg(feature = "sqlite")]
    fn file(directory: &TempDir) -> PathBuf {
        directory.path().join("ledger.db")
    }

    /// Opens the ledger, as each program does at its start.
    async fn open(&self) -> Result<Ledger, LedgerError> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(directory) => Ledger::sqlite(Self::file(directory)),
            #[cfg(feature = "postgres")]
            Self::Postgres { directory, schema } => {
                let witness = directory.path().join("head");
                let url = crate::ledger::postgres::tests::accidents::url_with(&witness);
                Ledger::postgres_in(&url, schema).await
            }
        }
    }

    /// Copies the database. No program has it open.
    async fn copy(&self) -> Copy {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(directory) => Copy::File(std::fs::read(Self::file(directory)).unwrap()),
            #[cfg(feature = "postgres")]
            Self::Postgres { schema, .. } => {
                Copy::Schema(crate::ledger::postgres::tests::accidents::copy(schema).await)
            }
        }
    }

    /// Writes a copy over the database.
    async fn put_back(&self, copy: &Copy) {
        match (self, copy) {
            #[cfg(feature = "sqlite")]
            (Self::Sqlite(directory), Copy::File(bytes)) => {
                std::fs::write(Self::file(directory), bytes).unwrap();
            }
            #[cfg(feature = "postgres")]
            (Self::Postgres { schema, .. }, Copy::Schema(copy)) => {
                crate::ledger::postgres::tests::accidents::restore(schema, copy).await;
            }
            #[cfg(all(feature = "sqlite", feature = "postgres"))]
            _ => panic!("a copy of another kind"),
        }
    }

    /// Deletes the database and leaves its witness.
    async fn lose(&self) {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(directory) => {
                for file in std::fs::read_dir(directory.path()).unwrap() {
                    let path = file.unwrap().path();
                    if !path.to_string_lossy().ends_with("-head") {
                        std::fs::remove_file(path).unwrap();
                    }
                }
            }
            #[cfg(feature = "postgres")]
            Self::Postgres { schema, .. } => {
                let sql = format!("DROP SCHEMA {schema} CASCADE");
                crate::ledger::postgres::tests::meddle(schema, &sql).await;
            }
        }
    }
}

/// Reserves and signs a purchase under the limit.
async fn sign(ledger: &Ledger, id: &str) -> Result<Reserved, LedgerError> {
    let answer = ledger
        .reserve(&wish(order(id, 10), at(NOW), lifetime(LIMIT)))
        .await?;
    if let Reserved::Held(held) = &answer {
        let signed = signed(NOW + 300);
        ledger.record(&held.key(), &signed, at(NOW)).await?;
    }
    Ok(answer)
}

#[track_caller]
fn assert_damaged<T: std::fmt::Debug>(answer: Result<T, LedgerError>) {
    assert!(matches!(answer, Err(LedgerError::Damaged(_))), "{answer:?}");
}

async fn an_older_copy_that_is_put_back_between_two_programs_is_damaged(stored: &Stored) {
    sign(&stored.open().await.unwrap(), "one").await.unwrap();
    let older = stored.copy().await;
    sign(&stored.open().await.unwrap(), "two").await.unwrap();
    sign(&stored.open().await.unwrap(), "three").await.unwrap();
    let newest = stored.copy().await;

    stored.put_back(&older).await;
    assert_damaged(stored.open().await);

    stored.put_back(&newest).await;
    let ledger = stored.open().await.unwrap();
    let answer = sign(&ledger, "four").await.unwrap();
    assert!(matches!(answer, Reserved::Denied(_)), "{answer:?}");
}

/// A log that is newer than the copy can still count everything, so a denial is right too.
async fn an_older_copy_that_is_put_back_under_a_program_makes_no_room(stored: &Stored) {
    sign(&stored.open().await.unwrap(), "one").await.unwrap();
    let older = stored.copy().await;
    let ledger = stored.open().await.unwrap();
    sign(&ledger, "two").await.unwrap();
    sign(&ledger, "three").await.unwrap();
    stored.put_back(&older).await;
    for id in ["two", "four"] {
        let answer = sign(&ledger, id).await;
        let refused = matches!(
            answer,
            Err(LedgerError::Damaged(_)) | Ok(Reserved::Denied(_) | Reserved::Known(_))
        );
        assert!(refused, "{id}: {answer:?}");
    }
}

async fn a_lost_database_is_damaged_and_not_begun_again(stored: &Stored) {
    sign(&stored.open().await.unwrap(), "one").await.unwrap();
    let ledger = stored.open().await.unwrap();
    sign(&ledger, "two").await.unwrap();
    stored.lose().await;
    assert_damaged(sign(&ledger, "three").await);
    drop(ledger);
    assert_damaged(stored.open().await);
    // The refusal began nothing that the next start would take for a ledger.
    assert_damaged(stored.open().await);
}

macro_rules! accidents {
    ($($case:ident)*) => {
        #[cfg(feature = "sqlite")]
        mod sqlite {
            use super::*;

            $(#[tokio::test]
            async fn $case() {
                super::$case(&Stored::sqlite()).await;
            })*
        }

        #[cfg(feature = "postgres")]
        mod postgres {
            use super::*;

            $(#[tokio::test]
            #[ignore = "needs a PostgreSQL: tests/postgres/run"]
            async fn $case() {
                super::$case(&Stored::postgres()).await;
            })*
        }
    };
}

accidents! {
    an_older_copy_that_is_put_back_between_two_programs_is_damaged
    an_older_copy_that_is_put_back_under_a_program_makes_no_room
    a_lost_database_is_damaged_and_not_begun_again
}
