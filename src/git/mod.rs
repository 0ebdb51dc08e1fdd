//! git's formats, as bytes: what a repository is made of where there is no git.

pub mod config;
mod format;
pub mod history;
mod id;
pub mod index;
mod mode;
pub mod pack;
mod path;
mod refname;

pub use self::format::Format;
pub use self::id::{Hasher, Id};
pub use self::mode::Mode;
pub use self::path::{BadPath, MAX_PATH, parse_path};
pub use self::refname::is_ref_name;
