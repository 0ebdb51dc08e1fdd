//! Schema versions: whether this banger can work with a database, and the steps from an older one.

use std::fmt;

use redb::{TableDefinition, WriteTransaction};

/// The schema that this banger writes.
pub const SCHEMA: u32 = 1;

const META: TableDefinition<&str, u32> = TableDefinition::new("meta");
const KEY: &str = "schema";

/// What opening a database would mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// It is ours already, or there is none yet.
    Compatible,
    WillMigrate {
        from: u32,
    },
    TooNew {
        found: u32,
    },
}

/// Judges a database whose schema is `found`; None: it is empty.
pub fn judge(found: Option<u32>) -> Verdict {
    match found {
        None | Some(SCHEMA) => Verdict::Compatible,
        Some(found) if found > SCHEMA => Verdict::TooNew { found },
        Some(from) => Verdict::WillMigrate { from },
    }
}

impl Verdict {
    /// The exit status of `bangerd --check-migrations`.
    pub fn status(self) -> u8 {
        match self {
            Self::Compatible => 0,
            Self::WillMigrate { .. } => 1,
            Self::TooNew { .. } => 2,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compatible => write!(f, "compatible: schema {SCHEMA}"),
            Self::WillMigrate { from } => write!(f, "will migrate: from schema {from} to {SCHEMA}"),
            Self::TooNew { found } => {
                write!(f, "too new: the database has schema {found}, this banger knows up to {SCHEMA}")
            }
        }
    }
}

/// One step: takes a database of the schema of its place in [`STEPS`] (the first one: 1) to the next.
type Step = fn(&WriteTransaction) -> Result<(), redb::Error>;

/// Schema 1 is the first; each later schema adds a step here.
const STEPS: [Step; SCHEMA as usize - 1] = [];

/// Takes the database from schema `from` to [`SCHEMA`], within the caller's transaction.
pub fn run(from: u32, tx: &WriteTransaction) -> Result<(), redb::Error> {
    for (step, schema) in STEPS.iter().zip(1..).skip_while(|(_, schema)| *schema < from) {
        log::info!("database: schema {schema} -> {}", schema + 1);
        step(tx)?;
    }
    tx.open_table(META)?.insert(KEY, SCHEMA)?;
    Ok(())
}

/// Reads the schema within `tx`; None in a database without one.
pub fn found(tx: &redb::ReadTransaction) -> Result<Option<u32>, redb::Error> {
    match tx.open_table(META) {
        Ok(table) => Ok(table.get(KEY)?.map(|v| v.value())),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
pub fn pretend(tx: &WriteTransaction, schema: u32) -> Result<(), redb::Error> {
    tx.open_table(META)?.insert(KEY, schema)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schema_has_its_verdict_and_its_exit_status() {
        assert_eq!((judge(None), judge(None).status()), (Verdict::Compatible, 0));
        assert_eq!(judge(Some(SCHEMA)), Verdict::Compatible);
        assert_eq!((judge(Some(0)), judge(Some(0)).status()), (Verdict::WillMigrate { from: 0 }, 1));
        let newer = judge(Some(SCHEMA + 1));
        assert_eq!((newer, newer.status()), (Verdict::TooNew { found: SCHEMA + 1 }, 2));
        assert_eq!(newer.to_string(), "too new: the database has schema 2, this banger knows up to 1");
    }
}
