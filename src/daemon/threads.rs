//! Work that blocks, beside the daemon's one thread: each piece gets a thread that ends with it.
//!
//! Not smol's pool: the threads of blocking 1.7 never end and wake twice a second (its `main_loop` ends one only above the
//! limit of threads), and an idle daemon must not wake at all. A thread is started in some 30 µs.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;

use smol::channel::bounded;
use smol::lock::Semaphore;

/// More pieces of work than this wait for their turn.
const MOST: usize = 200;
static TURNS: Semaphore = Semaphore::new(MOST);

/// Runs `work` on a thread of its own and returns what it returns. It runs to its end even if nobody waits any more.
///
/// # Panics
/// As `work` does.
pub async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let _turn = TURNS.acquire().await;
    let (done, outcome) = bounded(1);
    let body = move || {
        let result = catch_unwind(AssertUnwindSafe(work));
        if done.try_send(result).is_err() {
            log::debug!("nobody waits for a piece of work any more");
        }
    };
    if let Err(e) = thread::Builder::new().name("work".to_owned()).spawn(body) {
        panic!("cannot start a thread: {e}");
    }
    match outcome.recv().await {
        Ok(Ok(value)) => value,
        Ok(Err(panic)) => resume_unwind(panic),
        Err(_) => unreachable!("the thread sends before it ends"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_done_elsewhere_and_its_threads_end() {
        let here = thread::current().id();
        let there = smol::block_on(aside(|| thread::current().id()));
        assert_ne!(here, there);
        let sum: u64 = smol::block_on(async {
            let all: Vec<_> = (0..500u64).map(|n| aside(move || n)).collect();
            let mut sum = 0;
            for one in all {
                sum += one.await;
            }
            sum
        });
        assert_eq!(sum, 499 * 500 / 2);
    }

    #[test]
    fn a_panic_reaches_whoever_waits() {
        let caught = catch_unwind(|| smol::block_on(aside(|| panic!("no"))));
        assert!(caught.is_err());
    }
}
