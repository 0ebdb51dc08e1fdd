//! Work trees into guests and what became of them back out, from this host's side (`proto::workspace`).
//!
//! | file | idea |
//! |---|---|
//! | source.rs, names.rs | what PATH is, and whether its repository is the one that it says |
//! | repository.rs, index.rs, origin.rs | what a repository holds and is configured to, through git |
//! | tree.rs, plain.rs, stamp.rs, blob.rs | what is on disk, read without following a symlink |
//! | gather.rs | all of that, as it is asked for: what there is to bring |
//! | again.rs | what of an earlier time still counts |
//! | history.rs, objects.rs | which commits and objects a guest gets, by what it has |
//! | changes.rs | what is sent, what goes, and what stands against it |
//! | peer.rs, records.rs, send.rs, prepare.rs | the conversation |
//! | export/ | what became of it: changes, a patch, a branch |

mod again;
mod blob;
mod changes;
mod error;
pub mod export;
mod gather;
mod history;
mod index;
mod names;
mod objects;
mod origin;
mod peer;
mod plain;
mod prepare;
mod records;
mod repository;
mod send;
mod source;
mod stamp;
mod tree;

pub use self::error::WorkspaceError;
pub use self::gather::{DEPTH, Gathered, Wish, gather, guest_path, head_of};
pub use self::prepare::{Done, Guest, bring, compare_with};

#[cfg(test)]
mod tests;
