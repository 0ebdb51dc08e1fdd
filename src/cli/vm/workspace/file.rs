//! A file that a patch is written to: whole, or as it was before.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::cli::error::Error;
use crate::host::files::{remove_if_present, staged_name};

pub struct Output {
    file: File,
    /// Where it is until it is whole, and where it goes then; None: it is written to as it is, a device or a pipe.
    staged: Option<(PathBuf, PathBuf)>,
}

impl Output {
    /// # Errors
    /// A sentence for a directory.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let host = |source| Error::Host { what: format!("write {}", path.display()), source };
        match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => {
                let text = format!("{} is a directory; name a file in it", path.display());
                return Err(Error::Refused(text));
            }
            Ok(meta) if !meta.is_file() => {
                let file = OpenOptions::new().write(true).open(path).map_err(host)?;
                return Ok(Self { file, staged: None });
            }
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(host(e)),
        }
        // A symlink to a file stands for the file.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let staged = staged_name(&path);
        remove_if_present(&staged).map_err(host)?;
        let file = OpenOptions::new().write(true).create_new(true).open(&staged).map_err(host)?;
        Ok(Self { file, staged: Some((staged, path)) })
    }

    /// Puts it in its place, with the mode of what was there.
    pub fn finish(mut self) -> io::Result<()> {
        self.file.flush()?;
        let Some((staged, path)) = &self.staged else { return Ok(()) };
        if let Ok(meta) = fs::metadata(path) {
            self.file.set_permissions(meta.permissions())?;
        }
        fs::rename(staged, path)?;
        self.staged = None;
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some((staged, _)) = &self.staged {
            // It is half made; why it was not finished is being said.
            remove_if_present(staged).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(dir: &Path) -> Vec<String> {
        let names = fs::read_dir(dir).expect("lists").map(|e| e.expect("an entry").file_name());
        names.map(|name| name.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_file_is_as_it_was_until_the_new_one_is_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("p");
        fs::write(&path, "old").expect("writes");
        let mut output = Output::open(&path).expect("opens");
        output.write_all(b"half").expect("writes");
        assert_eq!(fs::read(&path).expect("reads"), b"old");
        drop(output);
        assert_eq!(
            (fs::read(&path).expect("reads"), left(dir.path())),
            (b"old".to_vec(), vec!["p".to_owned()])
        );
        let mut output = Output::open(&path).expect("opens");
        output.write_all(b"new").expect("writes");
        output.finish().expect("finishes");
        assert_eq!(
            (fs::read(&path).expect("reads"), left(dir.path())),
            (b"new".to_vec(), vec!["p".to_owned()])
        );
    }

    #[test]
    fn a_directory_is_refused_a_link_followed_and_a_device_written_to() {
        let dir = tempfile::tempdir().expect("a directory");
        let error = Output::open(dir.path()).err().expect("refused").to_string();
        assert!(error.ends_with("is a directory; name a file in it"), "{error}");
        let (target, link) = (dir.path().join("t"), dir.path().join("l"));
        fs::write(&target, "old").expect("writes");
        std::os::unix::fs::symlink("t", &link).expect("links");
        let mut output = Output::open(&link).expect("opens");
        output.write_all(b"new").expect("writes");
        output.finish().expect("finishes");
        assert_eq!(fs::read(&target).expect("reads"), b"new");
        assert!(fs::symlink_metadata(&link).expect("is there").is_symlink());
        Output::open(Path::new("/dev/null")).expect("opens").finish().expect("finishes");
        assert!(!fs::metadata("/dev/null").expect("is there").is_file());
    }
}
