//! The store: what banger knows, in one redb file, written before the host is touched (DESIGN D8).
//!
//! A table per kind of thing, values in JSON so that a field may be added without a migration. Every change is one
//! transaction and is on disk when the call returns.

pub mod migrate;
pub mod record;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use redb::{ConcurrencyMode, Database, ReadableDatabase, ReadableTable};

use crate::store::migrate::Verdict;
use crate::store::record::{Kept, table};

/// redb's default of 1 GiB is for databases larger than ours, which stay below a MiB.
const CACHE_BYTES: usize = 128 << 10;

/// Why the store cannot be used.
#[derive(Debug)]
pub enum StoreError {
    /// A newer banger has written it.
    TooNew {
        path: PathBuf,
        verdict: Verdict,
    },
    /// Another bangerd has it open.
    Busy {
        path: PathBuf,
    },
    /// Its content is not what was written.
    Damaged {
        path: PathBuf,
        source: redb::Error,
    },
    /// The host refused.
    Open {
        path: PathBuf,
        source: redb::Error,
    },
    Write {
        what: String,
        source: redb::Error,
    },
    Read {
        what: &'static str,
        source: redb::Error,
    },
    /// A record that this banger cannot read.
    Record {
        what: &'static str,
        key: String,
        source: serde_json::Error,
    },
}

pub struct Store {
    db: Database,
}

/// What is changed in one transaction.
#[must_use = "nothing happens before it is given to `Store::apply`"]
#[derive(Default)]
pub struct Changes(Vec<Change>);

struct Change {
    table: record::Table,
    key: String,
    /// None: the entry is removed.
    value: Option<serde_json::Result<Vec<u8>>>,
}

impl Changes {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn put<T: Kept>(mut self, value: &T) -> Self {
        self.0.push(Change { table: table::<T>(), key: value.key(), value: Some(serde_json::to_vec(value)) });
        self
    }

    pub fn remove<T: Kept>(mut self, key: impl fmt::Display) -> Self {
        self.0.push(Change { table: table::<T>(), key: key.to_string(), value: None });
        self
    }
}

impl Store {
    /// Opens the database at `path`, making and migrating it where needed.
    ///
    /// # Errors
    /// See [`StoreError`]. A damaged file stays as it is.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let failed = |source| open_error(path, source);
        if !path.try_exists().map_err(|e| failed(e.into()))? {
            create(path).map_err(failed)?;
        }
        // redb takes an empty file for a new database. Ours is never empty: it is published whole.
        if std::fs::metadata(path).map_err(|e| failed(e.into()))?.len() == 0 {
            return Err(failed(redb::Error::Corrupted("it is empty".to_owned())));
        }
        let db = builder().set_check_integrity_on_open(true).open(path).map_err(|e| failed(e.into()))?;
        let found = db
            .begin_read()
            .map_err(redb::Error::from)
            .and_then(|tx| migrate::found(&tx))
            .map_err(|e| damaged(path, e))?;
        match migrate::judge(found) {
            Verdict::Compatible if found.is_some() => {}
            verdict @ Verdict::TooNew { .. } => {
                return Err(StoreError::TooNew { path: path.to_owned(), verdict });
            }
            Verdict::Compatible | Verdict::WillMigrate { .. } => {
                let write = |source| StoreError::Write { what: "the schema".to_owned(), source };
                let tx = db.begin_write().map_err(|e| write(e.into()))?;
                migrate::run(found.unwrap_or(1), &tx).map_err(write)?;
                tx.commit().map_err(|e| write(e.into()))?;
            }
        }
        Ok(Self { db })
    }

    /// Judges the database at `path` without changing it, even while a daemon uses it.
    pub fn check(path: &Path) -> Result<Verdict, StoreError> {
        let failed = |source| open_error(path, source);
        match std::fs::metadata(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(migrate::judge(None)),
            Err(e) => return Err(failed(e.into())),
            Ok(meta) if meta.len() == 0 => {
                return Err(failed(redb::Error::Corrupted("it is empty".to_owned())));
            }
            Ok(_) => {}
        }
        let read = |tx: Result<redb::ReadTransaction, redb::TransactionError>| {
            tx.map_err(redb::Error::from).and_then(|tx| migrate::found(&tx))
        };
        let found = match builder().open_read_only(path) {
            Ok(db) => read(db.begin_read()),
            // Its daemon was killed, and it must be repaired before it can be read; that changes no record.
            Err(redb::DatabaseError::RepairAborted) => {
                read(builder().open(path).map_err(|e| failed(e.into()))?.begin_read())
            }
            Err(e) => return Err(failed(e.into())),
        };
        found.map(migrate::judge).map_err(|e| damaged(path, e))
    }

    /// Every entry of `T`'s table, in the order of their keys.
    pub fn all<T: Kept>(&self) -> Result<Vec<T>, StoreError> {
        self.raw::<T>()
            .map_err(|source| StoreError::Read { what: T::TABLE, source })?
            .into_iter()
            .map(|(key, bytes)| parse(key, &bytes))
            .collect()
    }

    pub fn get<T: Kept>(&self, key: impl fmt::Display) -> Result<Option<T>, StoreError> {
        let key = key.to_string();
        let read = || -> Result<Option<Vec<u8>>, redb::Error> {
            let tx = self.db.begin_read()?;
            match tx.open_table(table::<T>()) {
                Ok(table) => Ok(table.get(key.as_str())?.map(|v| v.value().to_vec())),
                Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
                Err(e) => Err(e.into()),
            }
        };
        let bytes = read().map_err(|source| StoreError::Read { what: T::TABLE, source })?;
        bytes.map(|bytes| parse(key, &bytes)).transpose()
    }

    /// Makes all of `changes`, or none.
    pub fn apply(&self, changes: Changes) -> Result<(), StoreError> {
        let what = || {
            let all: Vec<_> = changes.0.iter().map(|c| format!("{} {}", c.table, c.key)).collect();
            all.join(", ")
        };
        let write = || -> Result<(), redb::Error> {
            let tx = self.db.begin_write()?;
            for change in &changes.0 {
                let mut table = tx.open_table(change.table)?;
                match &change.value {
                    Some(Ok(bytes)) => drop(table.insert(change.key.as_str(), bytes.as_slice())?),
                    // None of our records can fail: their keys are strings.
                    Some(Err(e)) => return Err(redb::Error::Io(io::Error::other(e.to_string()))),
                    None => drop(table.remove(change.key.as_str())?),
                }
            }
            tx.commit()?;
            Ok(())
        };
        write().map_err(|source| StoreError::Write { what: what(), source })
    }

    fn raw<T: Kept>(&self) -> Result<Vec<(String, Vec<u8>)>, redb::Error> {
        let tx = self.db.begin_read()?;
        let table = match tx.open_table(table::<T>()) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(vec![]),
            Err(e) => return Err(e.into()),
        };
        table
            .iter()?
            .map(|entry| entry.map(|(k, v)| (k.value().to_owned(), v.value().to_vec())).map_err(Into::into))
            .collect()
    }
}

fn parse<T: Kept>(key: String, bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|source| StoreError::Record { what: T::TABLE, key, source })
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    // SingleWriter, so that `--check-migrations` of another version can read while a daemon works.
    builder.set_cache_size(CACHE_BYTES).set_concurrency_mode(ConcurrencyMode::SingleWriter);
    builder
}

/// Makes a database beside `path` and moves it there: a crash leaves none, not half of one.
fn create(path: &Path) -> Result<(), redb::Error> {
    let staged = crate::host::files::staged_name(path);
    crate::host::files::remove_if_present(&staged)?;
    let db = builder().create(&staged)?;
    let tx = db.begin_write()?;
    migrate::run(migrate::SCHEMA, &tx)?;
    tx.commit()?;
    db.close()?;
    std::fs::rename(&staged, path)?;
    crate::host::files::sync_directory(path.parent().unwrap_or(Path::new("/")))?;
    Ok(())
}

fn open_error(path: &Path, source: redb::Error) -> StoreError {
    let path = path.to_owned();
    match source {
        redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => StoreError::Busy { path },
        redb::Error::Corrupted(_) | redb::Error::RepairAborted | redb::Error::UpgradeRequired(_) => {
            StoreError::Damaged { path, source }
        }
        // redb: StorageError::not_a_database, and a file that ends too early.
        redb::Error::Io(ref e)
            if matches!(e.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            StoreError::Damaged { path, source }
        }
        source => StoreError::Open { path, source },
    }
}

fn damaged(path: &Path, source: redb::Error) -> StoreError {
    match source {
        redb::Error::Io(_) => open_error(path, source),
        source => StoreError::Damaged { path: path.to_owned(), source },
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooNew { path, verdict } => {
                write!(f, "cannot open {}: {verdict}; use the newer banger", path.display())
            }
            Self::Busy { path } => {
                write!(f, "cannot open {}: another bangerd is using it", path.display())
            }
            Self::Damaged { path, .. } => write!(f, "the database {} is damaged", path.display()),
            Self::Open { path, .. } => write!(f, "cannot open {}", path.display()),
            Self::Write { what, .. } => write!(f, "cannot store {what}"),
            Self::Read { what, .. } => write!(f, "cannot read the stored {what}"),
            Self::Record { what, key, .. } => write!(f, "cannot understand {key} among the stored {what}"),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::TooNew { .. } | Self::Busy { .. } => None,
            Self::Damaged { source, .. }
            | Self::Open { source, .. }
            | Self::Write { source, .. }
            | Self::Read { source, .. } => Some(source),
            Self::Record { source, .. } => Some(source),
        }
    }
}

#[cfg(test)]
mod tests;
