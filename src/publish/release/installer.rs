//! The install.sh of a release: this source's, with the keys that judge releases, and where they are listed.

const SCRIPT: &str = include_str!("../../../install.sh");
const KEYS: [&str; 2] = ["    cat <<'KEYS'\n", "\nKEYS\n"];
const MANIFEST: [&str; 2] = ["\nmanifest_url=", "\n"];

/// The script with `keys` in PEM and `manifest_url`, which needs no quotes in a shell (see [`super::Base`]).
pub fn with(keys: &str, manifest_url: &str) -> String {
    let script = between(SCRIPT, KEYS, keys.trim_end());
    between(&script, MANIFEST, manifest_url)
}

/// `text` with `new` in place of what stands between two marks.
fn between(text: &str, [begin, end]: [&str; 2], new: &str) -> String {
    let found = text.split_once(begin).and_then(|(head, rest)| Some((head, rest.split_once(end)?.1)));
    // The script is part of this source, and a test looks for its marks.
    found.map_or_else(|| text.to_owned(), |(head, tail)| format!("{head}{begin}{new}{end}{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn old([begin, end]: [&str; 2]) -> &'static str {
        SCRIPT.split_once(begin).and_then(|(_, rest)| rest.split_once(end)).expect("the marks are there").0
    }

    #[test]
    fn the_script_and_the_program_have_the_same_keys() {
        let program = include_str!("../../updater/keys.pem");
        assert_eq!(old(KEYS), program.trim_end(), "install.sh and src/updater/keys.pem belong together");
    }

    #[test]
    fn the_script_and_the_program_look_for_releases_in_the_same_place() {
        assert_eq!(old(MANIFEST), "https://releases.thaloco.com/banger/manifest.json");
    }

    #[test]
    fn keys_and_place_are_the_releases_and_nothing_else_changes() {
        let made = with("one\ntwo\n", "https://mirror.example/manifest.json");
        assert!(made.contains("    cat <<'KEYS'\none\ntwo\nKEYS\n"));
        assert!(made.contains("\nmanifest_url=https://mirror.example/manifest.json\n"));
        assert!(!made.contains("PLACEHOLDER\n-----"));
        assert_eq!(with(old(KEYS), old(MANIFEST)), SCRIPT);
    }
}
