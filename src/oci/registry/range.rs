//! Content-Range (RFC 9110, 14.4): which part of a blob an answer holds.

/// `bytes FIRST-LAST/TOTAL`; None as `total`: the server does not know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentRange {
    first: u64,
    last: u64,
    total: Option<u64>,
}

impl ContentRange {
    pub fn parse(value: &str) -> Option<Self> {
        let (unit, rest) = value.trim().split_once(' ')?;
        let (range, total) = rest.trim().split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let total = match total {
            "*" => None,
            digits => Some(number(digits)?),
        };
        let found = Self { first: number(first)?, last: number(last)?, total };
        let sane = found.first <= found.last && found.total.is_none_or(|total| found.last < total);
        (unit.eq_ignore_ascii_case("bytes") && sane).then_some(found)
    }

    /// Whether it is all from byte `first` to the end of a blob of `size` bytes.
    pub fn is_rest_of(self, first: u64, size: u64) -> bool {
        self.first == first && Some(self.last) == size.checked_sub(1) && self.total.is_none_or(|t| t == size)
    }
}

/// Digits alone: Rust would take a sign as well.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_what_is_none_is_refused() {
        let table = [
            ("bytes 5-9/10", true),
            ("bytes 5-9/*", true),
            ("Bytes  5-9/10", true),
            ("bytes 4-9/10", false),
            ("bytes 5-8/10", false),
            ("bytes 5-9/11", false),
            ("bytes 5-9/9", false),
            ("bytes 9-5/10", false),
            ("bytes */10", false),
            ("bytes 5-9", false),
            ("bytes +5-9/10", false),
            ("items 5-9/10", false),
            ("bytes 5-99999999999999999999/*", false),
            ("", false),
        ];
        for (value, want) in table {
            assert_eq!(ContentRange::parse(value).is_some_and(|r| r.is_rest_of(5, 10)), want, "{value}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_range_comes_back_and_any_text_is_read(a: u64, b: u64, c: u64, text in "\\PC{0,40}|bytes [0-9*/-]{0,40}") {
            let mut sorted = [a, b, c];
            sorted.sort();
            let [first, last, total] = sorted;
            let parsed = ContentRange::parse(&format!("bytes {first}-{last}/{total}"));
            let want = ContentRange { first, last, total: Some(total) };
            proptest::prop_assert_eq!(parsed, (last < total).then_some(want));
            if let Some(range) = ContentRange::parse(&text) {
                proptest::prop_assert!(range.first <= range.last);
            }
        }
    }
}
