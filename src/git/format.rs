//! How objects are named.

use serde::{Deserialize, Serialize};

/// git's extensions.objectFormat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    #[default]
    Sha1,
    Sha256,
}
