//! Steps at which a test lets the process die, as `kill -9` or a power cut would: nothing is undone and nothing is said (FAULTS F1).
//!
//! `BANGER_FAILPOINT=<step>` arms one. In a release build there are none.

/// Dies here if `step` is the one that is armed.
#[cfg(debug_assertions)]
pub fn reach(step: &str) {
    use rustix::process::{Signal, getpid, kill_process};
    if std::env::var_os("BANGER_FAILPOINT").is_some_and(|armed| armed == step) {
        // SIGKILL, which neither a handler nor a guard sees.
        if let Err(e) = kill_process(getpid(), Signal::KILL) {
            log::error!("cannot die at {step}: {e}");
        }
        // The signal is on its way; no instruction after it may change anything.
        loop {
            std::thread::park();
        }
    }
}

#[cfg(not(debug_assertions))]
pub fn reach(_step: &str) {}

/// Panics here if `step` is the one that is armed: for what guards must leave as it was.
#[cfg(debug_assertions)]
pub fn panic_at(step: &str) {
    assert!(
        std::env::var_os("BANGER_FAILPOINT").is_none_or(|armed| armed != step),
        "a test wants it: {step}"
    );
}

#[cfg(not(debug_assertions))]
pub fn panic_at(_step: &str) {}
