use super::*;
use crate::store::record::Setting;

fn setting(name: &str, value: &str) -> Setting {
    Setting { name: name.to_owned(), value: value.to_owned() }
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("banger.redb");
    (dir, path)
}

#[test]
fn what_was_stored_is_there_after_reopening() {
    let (_dir, path) = place();
    let store = Store::open(&path).expect("makes one");
    assert_eq!(store.all::<Setting>().expect("reads an absent table"), []);
    assert_eq!(store.get::<Setting>("a").expect("reads an absent table"), None);
    store.apply(Changes::new().put(&setting("b", "2")).put(&setting("a", "1"))).expect("stores");
    store.apply(Changes::new().put(&setting("b", "3"))).expect("replaces");
    drop(store);
    let store = Store::open(&path).expect("reopens");
    assert_eq!(store.all::<Setting>().expect("reads"), [setting("a", "1"), setting("b", "3")]);
    store.apply(Changes::new().remove::<Setting>("a")).expect("removes");
    assert_eq!(store.get::<Setting>("a").expect("reads"), None);
    assert_eq!(store.get::<Setting>("b").expect("reads"), Some(setting("b", "3")));
}

#[test]
fn a_database_of_a_newer_banger_is_refused_and_kept() {
    let (_dir, path) = place();
    let store = Store::open(&path).expect("makes one");
    let tx = store.db.begin_write().expect("begins");
    migrate::pretend(&tx, 7).expect("writes");
    tx.commit().expect("commits");
    drop(store);
    assert_eq!(Store::check(&path).expect("judges"), Verdict::TooNew { found: 7 });
    let error = Store::open(&path).err().expect("refused").to_string();
    assert!(
        error.ends_with("the database has schema 7, this banger knows up to 1; use the newer banger"),
        "{error}"
    );
    assert_eq!(Store::check(&path).expect("judges again"), Verdict::TooNew { found: 7 });
}

#[test]
fn the_check_answers_without_a_database_and_beside_a_daemon() {
    let (_dir, path) = place();
    assert_eq!(Store::check(&path).expect("judges"), Verdict::Compatible);
    assert!(!path.exists());
    let _open = Store::open(&path).expect("makes one");
    assert_eq!(Store::check(&path).expect("judges"), Verdict::Compatible);
}

#[test]
fn a_second_daemon_is_told_that_there_is_a_first() {
    let (_dir, path) = place();
    let _first = Store::open(&path).expect("makes one");
    let error = Store::open(&path).err().expect("refused").to_string();
    assert!(error.ends_with("another bangerd is using it"), "{error}");
}

#[test]
fn a_damaged_database_is_refused_and_never_replaced() {
    let (_dir, path) = place();
    let store = Store::open(&path).expect("makes one");
    store.apply(Changes::new().put(&setting("a", "1"))).expect("stores");
    drop(store);
    let whole = std::fs::read(&path).expect("reads");
    let mut flipped = whole.clone();
    flipped[0] ^= 0xff;
    let mut holed = whole.clone();
    holed[4096..].fill(0xa5);
    let cases = [vec![], flipped, whole[..whole.len() / 2].to_vec(), b"not a database".to_vec(), holed];
    for (i, bytes) in cases.into_iter().enumerate() {
        std::fs::write(&path, &bytes).expect("damages it");
        let error = Store::open(&path).err().unwrap_or_else(|| panic!("case {i} is refused"));
        assert!(matches!(error, StoreError::Damaged { .. }), "case {i}: {error:?}");
        assert!(path.exists(), "case {i}");
        assert_eq!(std::fs::metadata(&path).expect("stats").len() == 0, i == 0, "case {i}");
    }
}
