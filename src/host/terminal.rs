//! What a terminal acts on, rather than shows.

/// Whether `c` moves, clears, colours or reorders what is on a terminal, or shows as nothing: control characters of both ranges (ECMA-48), DEL, the
/// Unicode characters that reorder what is around them (UAX 9) or break lines, and those that are not seen and hide in text (a byte order mark, tags).
pub fn acts_on(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}
