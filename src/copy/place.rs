//! What the path of this host means in a copy, as `docker cp` has it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::CopyError;

/// What is copied from this host.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    pub path: PathBuf,
    /// What the stream calls it; `.` stands for the contents of a directory.
    pub name: OsString,
    /// Whether a symlink at `path` is followed.
    pub follow: bool,
}

impl Source {
    /// Finds out what `text` means: `dir` the directory, `dir/.` what is in it, `link/` what it points to.
    pub fn find(text: &str) -> Result<Self, CopyError> {
        let path = PathBuf::from(text);
        let contents = text == "." || text.ends_with("/.");
        let follow = contents || text.ends_with('/');
        let meta = if follow { fs::metadata(&path) } else { fs::symlink_metadata(&path) };
        let meta = meta.map_err(CopyError::here("copy", &path))?;
        if follow && !meta.is_dir() {
            return Err(CopyError::Refused(format!("{text:?} is no directory; leave the slash out")));
        }
        let name = if contents {
            OsString::from(".")
        } else {
            // A path such as `..` has no name of its own; the directory that it stands for has.
            match path.file_name() {
                Some(name) => name.to_owned(),
                None => name_of_place(&path)?,
            }
        };
        Ok(Self { path, name, follow })
    }
}

fn name_of_place(path: &Path) -> Result<OsString, CopyError> {
    let whole = fs::canonicalize(path).map_err(CopyError::here("find", path))?;
    Ok(whole.file_name().map_or_else(|| OsString::from("."), ToOwned::to_owned))
}

/// Where something is copied to on this host.
#[derive(Debug, PartialEq, Eq)]
pub struct Destination {
    /// A directory that exists; nothing outside of it is touched.
    pub base: PathBuf,
    pub top: Top,
}

/// What becomes of the stream's first entry, under which all others are.
#[derive(Debug, PartialEq, Eq)]
pub enum Top {
    /// It goes into the base under its own name.
    Keep,
    /// It goes into the base under this name.
    Rename(OsString),
    /// It is a directory, and stands for the base itself.
    Contents,
}

impl Destination {
    /// Finds out where `text` is; `contents`: the contents of a directory are copied, not the directory.
    pub fn find(text: &str, contents: bool) -> Result<Self, CopyError> {
        let path = Path::new(text);
        match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => {
                let top = if contents { Top::Contents } else { Top::Keep };
                return Ok(Self { base: path.to_owned(), top });
            }
            Ok(_) if text.ends_with('/') => {
                return Err(CopyError::Refused(format!("{text:?} is no directory; leave the slash out")));
            }
            // A symlink to a file stands for the file.
            Ok(_) => return Self::beside(&fs::canonicalize(path).map_err(CopyError::here("find", path))?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(CopyError::here("find", path)(e)),
        }
        if text.ends_with('/') && !contents {
            return Err(CopyError::Refused(format!(
                "there is no directory {text:?}; make it first, or leave the slash out"
            )));
        }
        Self::beside(path)
    }

    /// A name in a directory that must exist.
    fn beside(path: &Path) -> Result<Self, CopyError> {
        let Some(name) = path.file_name() else {
            return Err(CopyError::Refused(format!("{} names no file", path.display())));
        };
        let base = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        if !base.is_dir() {
            return Err(CopyError::Refused(format!(
                "there is no directory {}; make it first",
                base.display()
            )));
        }
        Ok(Self { base, top: Top::Rename(name.to_owned()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_means_what_docker_cp_means() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
        fs::create_dir(at("d")).expect("creates");
        fs::write(at("f"), "").expect("writes");
        std::os::unix::fs::symlink("f", at("link")).expect("links");
        let rename = |name: &str| Top::Rename(name.into());
        let table = [
            ("d", false, Ok((at("d"), Top::Keep))),
            ("d/", false, Ok((at("d/"), Top::Keep))),
            ("d", true, Ok((at("d"), Top::Contents))),
            ("new", false, Ok((at(""), rename("new")))),
            ("new", true, Ok((at(""), rename("new")))),
            ("f", false, Ok((at(""), rename("f")))),
            ("link", false, Ok((at(""), rename("f")))),
            ("f/", false, Err(())),
            ("new/", false, Err(())),
            ("none/new", false, Err(())),
        ];
        for (text, contents, want) in table {
            let got = Destination::find(&at(text), contents).map(|d| (d.base, d.top)).map_err(drop);
            let want = want.map(|(base, top)| (PathBuf::from(base.trim_end_matches('/')), top));
            assert_eq!(got.map(|(base, top)| (base.components().collect::<PathBuf>(), top)), want, "{text}");
        }
    }

    #[test]
    fn a_source_is_the_thing_its_contents_or_what_it_points_to() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
        fs::create_dir(at("d")).expect("creates");
        std::os::unix::fs::symlink("d", at("link")).expect("links");
        std::os::unix::fs::symlink("nowhere", at("dangling")).expect("links");
        for (text, name, follow) in [
            ("d", "d", false),
            ("d/", "d", true),
            ("d/.", ".", true),
            ("link", "link", false),
            ("link/", "link", true),
            ("dangling", "dangling", false),
        ] {
            let source = Source::find(&at(text)).expect(text);
            assert_eq!((source.name, source.follow), (name.into(), follow), "{text}");
        }
        assert!(Source::find(&at("none")).is_err());
        assert!(Source::find(&at("dangling/")).is_err());
    }
}
