//! An error as one sentence.

use std::error::Error;

/// `error` and its sources, joined by `: `.
pub fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(Some(error), |e| (*e).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
