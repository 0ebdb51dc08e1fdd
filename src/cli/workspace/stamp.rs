//! Whether a file of this host is still what it was when it was sent.

use rustix::fs::Stat;

use crate::proto::workspace::Stamp;

/// Never equal to another.
pub const NEVER: Stamp = 0;
/// A change within this time of another may leave both times as they were (git racy-git), in nanoseconds. File systems with times in whole
/// or even seconds are the reason for so much.
const RACY_NS: i128 = 2_000_000_000;

/// Identifies the file's state: size, times, inode, mode. `now_ns` is when reading began; a file that had just been changed then has none.
pub fn of(stat: &Stat, now_ns: i128) -> Stamp {
    let ns = |seconds: i64, rest: u64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
    let (mtime, ctime) = (ns(stat.st_mtime, stat.st_mtime_nsec), ns(stat.st_ctime, stat.st_ctime_nsec));
    if mtime.max(ctime) > now_ns - RACY_NS {
        return NEVER;
    }
    let mut hasher = blake3::Hasher::new();
    for number in [
        i128::from(stat.st_size),
        mtime,
        ctime,
        i128::from(stat.st_ino),
        i128::from(stat.st_mode),
        i128::from(stat.st_dev),
    ] {
        hasher.update(&number.to_le_bytes());
    }
    first_half(&hasher.finalize())
}

/// Identifies what a repository holds: it does not change.
pub fn of_blob(id: &str, mode: &str) -> Stamp {
    first_half(&blake3::hash(format!("{mode} {id}").as_bytes()))
}

fn first_half(hash: &blake3::Hash) -> Stamp {
    let mut half = [0; 16];
    half.copy_from_slice(&hash.as_bytes()[..16]);
    Stamp::from_le_bytes(half)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn every_change_is_seen_and_none_is_invented() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("f");
        let later = || {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
            i128::try_from(now.as_nanos()).expect("small") + 10_000_000_000
        };
        let stat = || rustix::fs::lstat(&path).expect("stats");
        std::fs::write(&path, "a").expect("writes");
        let (first, at) = (stat(), later());
        assert_ne!(of(&first, at), NEVER);
        assert_eq!(of(&first, at), of(&stat(), at + 1));
        assert_eq!(of(&first, at - 10_000_000_000), NEVER, "it has just been written");
        std::thread::sleep(std::time::Duration::from_millis(20));
        std::fs::write(&path, "b").expect("writes");
        let second = of(&stat(), at);
        assert_ne!(of(&first, at), second);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("sets");
        assert_ne!(second, of(&stat(), at));
        std::fs::rename(&path, dir.path().join("g")).expect("renames");
        std::fs::write(&path, "b").expect("writes");
        assert_ne!(second, of(&stat(), at));
    }
}
