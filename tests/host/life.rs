//! A whole life: from `curl | bash` to the second update, and back.

use crate::host::{Host, Installed};
use crate::machine::Ended;
use crate::refusals;
use crate::releases::{BEFORE, NEXT, NOW, manifest_url};

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn it_is_installed_from_the_web_updated_twice_and_taken_back_while_a_vm_runs_on() {
    let host = Host::new();
    install_sh(&host);
    install(&host);
    look(&host);
    update_to_now(&host);
    refusals::run(&host);
    update_to_next(&host);
    host.conclude(25);
}

/// `curl | bash`, as it is typed by the user dev, of the newest release of the manifest `name`.
fn curl_bash(host: &Host, name: &str, args: &str) -> Ended {
    let from = format!("--manifest-url {} --pubkey /srv/www/key.pem {args}", manifest_url(name));
    let line = format!(
        "set -o pipefail; curl -fsSL http://127.0.0.1:8000/install.sh | \\
         BANGER_INSTALL_NONINTERACTIVE=1 BANGER_INSTALL_PATIENCE=5 bash -s -- {from}"
    );
    host.machine.sh_of("dev", &line)
}

fn install_sh(host: &Host) {
    host.case("curl | bash: below a prefix, without root", || {
        let end = curl_bash(host, "before", "--prefix ~/.local");
        assert_eq!(end.status, 0, "{end:#?}");
        let said = host.machine.ok_of("dev", "~/.local/bin/banger --version");
        assert_eq!(said.split(' ').nth(1), Some(&*format!("v{BEFORE}")), "{said}");
        let uninstall =
            "curl -fsSL http://127.0.0.1:8000/install.sh | bash -s -- --yes --uninstall --prefix ~/.local";
        host.machine.ok_of("dev", uninstall);
        host.machine.ok("! ls -A ~dev/.local/bin | grep -q . && ! test -e /usr/local/bin/banger");
    });
    for (what, name) in [
        ("a signature by another key", "another-key"),
        ("another digest", "bad-digest"),
        ("an extra file", "extra-file"),
        ("a symlink", "symlink"),
        ("a server that cuts off", "cut-tarball"),
        ("a server that stalls", "stall-tarball"),
        ("a server without end", "endless-tarball"),
    ] {
        host.case(&format!("curl | bash: {what}"), || {
            let end = curl_bash(host, name, "");
            println!("{}", end.stderr);
            assert_eq!(end.status, 1, "{end:#?}");
            assert!(end.stderr.lines().any(|line| line.starts_with("install.sh: ")), "{end:#?}");
            host.machine.ok("! test -e /usr/local/bin/banger && ! test -e /run/it-ran");
        });
    }
}

fn install(host: &Host) {
    host.case("curl | bash", || {
        // As it is published: the script knows the keys, and where its releases are.
        let line = format!(
            "set -o pipefail; curl -fsSL http://127.0.0.1:8000/published/install.sh | bash -s -- --yes --version v{BEFORE}"
        );
        println!("{}", host.machine.ok_of("dev", &line));
        let said = host.machine.ok_of("dev", "banger --version");
        assert_eq!(said.split(' ').nth(1), Some(&*format!("v{BEFORE}")), "{said}");
        assert!(host.machine.ok("cat /etc/banger/install.toml").contains("owner = \"dev\""));
    });
    host.case("the first VM", || {
        host.make_vm();
        host.assert_is(Installed::of(BEFORE, None));
        let said = host.machine.ok_of("dev", "banger vm exec inner -- uname -s");
        assert_eq!(said, "Linux\n");
    });
    host.case("status", || {
        let said = host.machine.ok_of("dev", "banger system status");
        println!("{said}");
        for word in [BEFORE, "bangerd.service", "bangerd-root.socket"] {
            assert!(said.contains(word), "{word}: {said}");
        }
    });
    host.case("doctor finds nothing wrong", || {
        println!("{}", host.machine.ok_of("dev", "banger doctor"));
    });
    host.case("the units' security, by systemd-analyze", || {
        for unit in ["bangerd.service", "bangerd-root.service"] {
            let said = host.machine.ok(&format!("systemd-analyze security --no-pager {unit} | tail -n 1"));
            print!("{unit}: {said}");
            assert!(said.contains("exposure level"), "{said}");
        }
    });
    host.case("installing again repairs", || {
        let script = "cd /usr/local/bin && rm bangerd banger-vsock && chmod 777 banger && \
                      rm /usr/local/share/bash-completion/completions/banger && \
                      echo 'Environment=BROKEN=1' >>/etc/systemd/system/bangerd.service && systemctl stop bangerd.service && \
                      banger system install --owner dev";
        println!("{}", host.machine.ok(script));
        host.machine.ok("test -s /usr/local/share/bash-completion/completions/banger");
        host.assert_is(Installed::of(BEFORE, None));
    });
    host.case("installing over what is not banger's is refused, and changes nothing", || {
        host.machine.ok("ln -sfn /bin/true /usr/local/bin/bangerd");
        let end = host.machine.sh("banger system install --owner dev");
        assert_eq!(end.status, 1, "{end:#?}");
        assert!(end.stderr.contains("/usr/local/bin/bangerd"), "{end:#?}");
        host.machine.ok("ln -sfn banger /usr/local/bin/bangerd");
        host.assert_is(Installed::of(BEFORE, None));
    });
    host.case("another user is no owner", || {
        let end = host.machine.sh_of("other", "banger vm exec inner -- id");
        assert_ne!(end.status, 0, "{end:?}");
        host.assert_is(Installed::of(BEFORE, None));
    });
}

fn look(host: &Host) {
    let check = |user: &str, name: &str, args: &str| {
        host.machine
            .sh_of(user, &format!("banger update --check --manifest-url {} {args}", manifest_url(name)))
    };
    host.case("--check: available", || {
        for user in ["root", "dev", "other"] {
            let end = check(user, "now", "");
            assert_eq!(end.status, 0, "{end:?}");
            assert_eq!(end.stdout, format!("update available: v{BEFORE} -> v{NOW}\n"));
        }
        host.assert_is(Installed::of(BEFORE, None));
    });
    host.case("--check: up to date", || {
        let end = check("dev", "before", "");
        assert_eq!((end.status, &*end.stdout), (0, "up to date\n"), "{end:?}");
    });
    host.case("--check --json", || {
        let end = check("dev", "now", "--json");
        let said: serde_json::Value = serde_json::from_str(&end.stdout).expect("JSON");
        println!("{said}");
        assert!(said.to_string().contains(NOW), "{said}");
    });
    host.case("--check: not found", || {
        let end = check("dev", "nowhere", "");
        assert_eq!(end.status, 1, "{end:?}");
        assert_eq!(end.stderr, "banger: discover: fetch manifest: HTTP 404 Not Found\n");
        host.assert_is(Installed::of(BEFORE, None));
    });
    host.case("--check: the manifest that the configuration names", || {
        let config = format!("[update]\nmanifest_url = '{}'\n", manifest_url("now"));
        host.machine.write("/etc/banger/config.toml", &config);
        let end = host.machine.sh_of("dev", "banger update --check");
        host.machine.ok("rm /etc/banger/config.toml");
        assert_eq!(end.stdout, format!("update available: v{BEFORE} -> v{NOW}\n"), "{end:?}");
    });
    host.case("an update is root's to make", || {
        let end = host.machine.sh_of("dev", &format!("banger update --manifest-url {}", manifest_url("now")));
        assert_eq!(end.status, 1, "{end:?}");
        assert!(end.stderr.contains("root"), "{end:?}");
        host.assert_is(Installed::of(BEFORE, None));
    });
    host.case("--dry-run", || {
        let end = host.updated("now", "--dry-run");
        assert!(end.stdout.contains(NOW) && end.stdout.lines().count() == 1, "{end:?}");
        host.assert_is(Installed { is_staged: true, ..Installed::of(BEFORE, None) });
    });
}

fn update_to_now(host: &Host) {
    host.case("update N-1 -> N", || {
        println!("{:#?}", host.updated("now", ""));
        host.assert_is(Installed::of(NOW, Some(BEFORE)));
    });
    host.case("update when it is up to date", || {
        let end = host.updated("now", "");
        assert!(end.stdout.contains("up to date"), "{end:?}");
        host.assert_is(Installed::of(NOW, Some(BEFORE)));
    });
}

fn update_to_next(host: &Host) {
    host.case("an unfinished operation is named, and refuses an update", || {
        // An import that is fed nothing is one.
        let begin = "systemd-run --quiet --unit=import --uid=dev sh -c 'sleep 1000 | banger image import - --name slow' && sleep 3";
        host.machine.ok(begin);
        let end = host.update("next", "");
        assert_eq!(end.status, 1, "{end:?}");
        assert!(end.stderr.contains("import"), "{end:?}");
        // What the dry run before it has staged is still there.
        host.assert_is(Installed { is_staged: true, ..Installed::of(NOW, Some(BEFORE)) });
    });
    host.case("update N -> N+1, --force over an unfinished operation", || {
        host.updated("published", "--force");
        host.assert_is(Installed::of(NEXT, Some(NOW)));
        host.machine.sh("systemctl stop import");
    });
    host.case("--rollback", || {
        let end = host.machine.sh("banger update --rollback");
        assert_eq!(end.status, 0, "{end:#?}\n{}", host.journal());
        // And back again, if one likes.
        host.assert_is(Installed::of(NOW, Some(NEXT)));
    });
    host.case("the newest one seen is not forgotten when one goes back", || {
        // Whoever has the server cannot keep a newer one from us, not even with a true signature.
        let end = host.update("now", "");
        assert_eq!(end.status, 1, "{end:#?}");
        assert!(end.stderr.contains(NEXT), "{end:#?}");
        host.assert_is(Installed::of(NOW, Some(NEXT)));
    });
    host.case("update N -> N+1 once more", || {
        host.updated("next", "");
        host.assert_is(Installed::of(NEXT, Some(NOW)));
    });
    host.case("--to an older one, --allow-downgrade", || {
        let older = format!("--to v{NOW}");
        let end = host.update("next", &older);
        assert_eq!(end.status, 1, "{end:?}");
        assert!(end.stderr.contains("--allow-downgrade"), "{end:?}");
        host.assert_is(Installed::of(NEXT, Some(NOW)));
        host.updated("next", &format!("{older} --allow-downgrade"));
        host.assert_is(Installed::of(NOW, Some(NEXT)));
    });
    host.case("two updates at once", || {
        let url = manifest_url("stall-tarball");
        host.machine
            .ok(&format!("systemd-run --quiet --unit=first banger update --manifest-url {url} && sleep 5"));
        let end = host.update("next", "");
        host.machine.ok("systemctl stop first");
        assert_eq!(end.status, 1, "{end:?}");
        println!("{}", end.stderr);
        // The one that was stopped has left its staging, and no more.
        host.updated("next", "");
        host.assert_is(Installed::of(NEXT, Some(NOW)));
    });
    host.case("restart", || {
        host.machine.ok("banger system restart");
        host.assert_is(Installed::of(NEXT, Some(NOW)));
    });
}
