//! Paths that people type, as the daemon, which has another working directory, must be told them.

use crate::cli::error::Error;

/// `path` from the root, as text.
pub fn absolute(path: &str) -> Result<String, Error> {
    let host = |source| Error::Host { what: format!("find {path:?}"), source };
    let whole = std::path::absolute(path).map_err(host)?;
    whole
        .into_os_string()
        .into_string()
        .map_err(|whole| Error::Refused(format!("{whole:?} is not UTF-8; move it to a path that is")))
}
