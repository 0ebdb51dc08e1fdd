//! `banger config`: what is configured, and what is wrong with it, without a daemon.

use banger::proto::api::Request;

use crate::fake::Fake;

fn configured(fake: &Fake, text: &str) -> String {
    let dir = fake.root().join("config");
    std::fs::create_dir_all(&dir).expect("makes a directory");
    let file = dir.join("config.toml");
    std::fs::write(&file, text).expect("writes");
    file.to_str().expect("UTF-8").to_owned()
}

#[test]
fn what_is_configured_is_shown_with_its_origin_and_no_daemon_is_started() {
    let fake = Fake::absent();
    let file = configured(&fake, "# mine\ndns_port = 5353\n[vm_defaults]\nmemory_mib = 512\n");
    let mut command = fake.banger(&["config", "show", "--json"]);
    command.env("BANGER_LOG_LEVEL", "debug").env_remove("BANGER_VMM").env("BANGER_ACCEL", "tcg");
    let out = command.output().expect("runs");
    let all: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    let has = |key: &str, value: serde_json::Value, origin: &str, place: Option<&str>| {
        let found = all.as_array().expect("a list").iter().find(|s| s["key"] == key).expect(key);
        assert_eq!((&found["value"], found["origin"].as_str()), (&value, Some(origin)), "{key}");
        assert_eq!(found["place"].as_str(), place, "{key}");
    };
    has("dns_port", 5353.into(), "file", Some(&format!("{file}:2")));
    has("log_level", "debug".into(), "environment", Some("BANGER_LOG_LEVEL"));
    has("vm_defaults.memory", 512.into(), "file", Some(&format!("{file}:4")));
    has("vm_defaults.vmm", "auto".into(), "default", None);
    has("vm_defaults.accel", "tcg".into(), "environment", Some("BANGER_ACCEL"));
    let vcpu = all.as_array().expect("a list").iter().find(|s| s["key"] == "vm_defaults.vcpu");
    assert_eq!(vcpu.expect("a key")["origin"], "host");
    let ran = fake.run(&["config", "show", "--origin"]);
    assert!(ran.out.starts_with("KEY ") && ran.out.contains("5353  "), "{}", ran.out);
    assert!(ran.out.contains("auto_stop_stale_after") && ran.out.contains("(off)"), "{}", ran.out);
    assert!(!fake.root().join("state").exists(), "a daemon was started");
}

#[test]
fn a_check_says_all_that_is_wrong_with_its_places_and_that_all_is_well() {
    let fake = Fake::absent();
    let file = configured(&fake, "dns_port = 53\n\n[vm_defaults]\n  memroy = 1\ntap_pool_size = 4\n");
    let ran = fake.run(&["config", "check"]);
    let want = [
        format!("banger: {file}:1:1: dns_port: 53 is root's to use; choose 1024 or more"),
        format!("banger: {file}:4:3: there is no key \"memroy\" in [vm_defaults]; did you mean memory?"),
        format!(
            "banger: {file}:5:1: there is no key \"tap_pool_size\" in [vm_defaults]; there are vcpu, memory, disk_size, vmm, accel"
        ),
    ];
    assert_eq!(
        (ran.code, ran.err.lines().collect::<Vec<_>>()),
        (Some(1), want.iter().map(String::as_str).collect())
    );
    configured(&fake, "");
    let ran = fake.run(&["config", "check"]);
    assert_eq!((ran.code, ran.out, ran.err), (Some(0), format!("{file}: ok\n"), String::new()));
    // Another file, before it becomes the configuration.
    let other = fake.root().join("other.toml");
    std::fs::write(&other, "bridge_ip = '10.0.0.1'").expect("writes");
    let ran = fake.run(&["config", "check", other.to_str().expect("UTF-8")]);
    assert!(
        ran.code == Some(1)
            && ran.err.contains("other.toml:1:1: bridge_ip is a key of another banger: write address"),
        "{ran:?}"
    );
    let ran = fake.run(&["config", "check", "/nonexistent.toml"]);
    assert_eq!(ran.err, "banger: cannot read /nonexistent.toml: No such file or directory (os error 2)\n");
}

#[test]
fn the_files_and_the_keys_are_listed() {
    let fake = Fake::absent();
    let ran = fake.run(&["config", "path"]);
    let file = fake.root().join("config/config.toml").display().to_string();
    assert!(
        ran.out.lines().nth(1).is_some_and(|l| l.starts_with(&file) && l.ends_with("not there")),
        "{}",
        ran.out
    );
    assert_eq!(fake.run(&["config", "path", "-q"]).out, format!("{file}\n"));
    let keys = fake.run(&["config", "keys"]).out;
    let names: Vec<&str> = keys.lines().skip(1).filter_map(|l| l.split(' ').next()).collect();
    let want: Vec<&str> = banger::config::keys::KEYS.iter().map(|key| key.name).collect();
    assert_eq!(names, want);
}

#[test]
fn a_daemon_with_another_configuration_is_told_of() {
    let fake = Fake::start(|request, asked| {
        match request {
        Request::DaemonStatus(_) => asked.done(serde_json::json!({
            "pid": 4711, "version": "0", "commit": "", "built": "", "started_at": 0, "socket": "", "state_dir": "",
            "running_vms": 0, "config": "0123456789abcdef",
        })),
        other => panic!("not expected: {other:?}"),
    }
    });
    for args in [&["config", "show"][..], &["config", "check"]] {
        let ran = fake.run(args);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let want = "note: the bangerd that runs (pid 4711) read another configuration at its start; `banger daemon stop` has this one read";
        assert!(ran.err.starts_with(want), "{ran:?}");
    }
}
