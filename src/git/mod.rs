//! git's formats, as bytes: what a repository is made of where there is no git.

mod format;
mod mode;
mod path;

pub use self::format::Format;
pub use self::mode::Mode;
pub use self::path::{BadPath, MAX_PATH, parse_path};
