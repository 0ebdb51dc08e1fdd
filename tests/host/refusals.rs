//! Releases that must not get in: each refused with a sentence, exit status 1, and a machine that is as it was.

use crate::host::{Host, Installed};
use crate::releases::{BEFORE, NOW};

/// The case, the manifest that it is pointed at, further arguments, and what the sentence must hold.
const REFUSED: &[(&str, &str, &str, &str)] = &[
    ("a signature by another key", "another-key", "", "signature"),
    ("a signature that is none", "bad-signature", "", "signature"),
    ("an empty signature", "no-signature", "", "signature"),
    ("a tarball of another digest", "bad-digest", "", "sha256"),
    ("sums changed after they were signed", "sums-changed", "", "signature"),
    ("the signed sums of another release", "sums-of-another", "", "SHA256SUMS"),
    ("an extra file in the tarball", "extra-file", "", "README"),
    ("a symlink for the executable", "symlink", "", "banger"),
    ("the executable elsewhere in the tarball", "elsewhere", "", "bin/banger"),
    ("an empty tarball", "empty-tarball", "", "banger"),
    ("a tarball that is none", "no-gzip", "", "gzip"),
    ("another version inside", "wrong-version", "", NOW),
    ("a program that is none", "no-program", "", ""),
    ("a program that says nothing", "mute", "", ""),
    ("a migration that says 2", "migration", "", "its schema is newer"),
    ("an older release", "older", "", "--allow-downgrade"),
    ("an older release by --to alone", "older", "--to v0.0.1", "--allow-downgrade"),
    ("a manifest of a later schema", "later-schema", "", "schema"),
    ("a manifest that is none", "no-json", "", "manifest"),
    ("a release that this one is too old for", "too-far", "", "v0.0.9"),
    ("a URL that leads nowhere", "relative", "", "URL"),
    ("plain http to another machine", "plain-http", "", "http"),
    ("a release that is not there", "next", "--to v9.9.9", "v9.9.9"),
    ("a tarball that is cut off", "cut-tarball", "", ""),
    ("a signature that is cut off", "cut-signature", "", ""),
    ("a tarball that stalls", "stall-tarball", "", ""),
    ("a tarball without end", "endless-tarball", "", ""),
    ("sums without end", "endless-sums", "", ""),
    ("a signature without end", "endless-signature", "", ""),
    ("a tarball that claims a terabyte", "lie-tarball", "", ""),
];

/// Releases that look good, and are found wanting once they run: what was there is put back.
const ROLLED_BACK: &[(&str, &str, &str)] = &[
    ("a doctor that finds a fault", "ill", "it was made to fail"),
    ("a daemon that does not start", "dead", ""),
    ("a helper that does not start", "dead-helper", ""),
    ("a migration after which nothing works", "migrates", ""),
    ("units that cannot be written", "no-units", "no units today"),
];

/// Expects [`NOW`], updated from [`BEFORE`].
pub fn run(host: &Host) {
    let unchanged = Installed::of(NOW, Some(BEFORE));
    for (name, manifest, args, sentence) in REFUSED {
        host.case(name, || {
            let end = host.update(manifest, args);
            println!("{}", end.stderr);
            assert_eq!(end.status, 1, "{end:#?}");
            assert!(end.stderr.contains(sentence), "{sentence}: {end:#?}");
            host.assert_is(unchanged);
            host.machine.ok("! test -e /run/it-ran");
        });
    }
    for (name, manifest, sentence) in ROLLED_BACK {
        host.case(name, || {
            let end = host.update(manifest, "");
            println!("{}", end.stderr);
            assert_eq!(end.status, 1, "{end:#?}");
            assert!(end.stderr.contains("(rolled back to previous install)"), "{end:#?}");
            assert!(end.stderr.contains(sentence), "{sentence}: {end:#?}");
            host.assert_is(unchanged);
        });
    }
    host.case("an expired manifest is warned of, and refused where the configuration says so", || {
        let end = host.updated("expired", "--dry-run");
        assert!(end.stderr.contains("expired"), "{end:#?}");
        host.machine.write("/etc/banger/config.toml", "[update]\nrefuse_expired = true\n");
        let end = host.update("expired", "");
        host.machine.ok("rm /etc/banger/config.toml");
        println!("{}", end.stderr);
        assert_eq!(end.status, 1, "{end:#?}");
        host.assert_is(Installed { is_staged: true, ..unchanged });
    });
}
