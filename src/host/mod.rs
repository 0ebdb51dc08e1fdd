//! The host: its files, processes and programs.

pub mod causes;
pub mod cmd;
pub mod descriptors;
pub mod dirs;
pub mod ending;
pub mod endpoint;
pub mod environment;
pub mod facts;
pub mod failpoint;
pub mod fetch;
pub mod files;
pub mod https;
pub mod install;
pub mod location;
pub mod process;
pub mod progress;
pub mod resolver;
pub mod signature;
pub mod terminal;
pub mod trusted;
pub mod undo;
