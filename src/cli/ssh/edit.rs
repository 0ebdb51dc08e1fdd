//! The edit of ~/.ssh/config: a block between two marks at its top, and everything else byte for byte as it is.

const BEGIN: &str = "# >>> banger >>> `banger ssh-config --uninstall` removes this";
const BEGINS: &str = "# >>> banger >>>";
const END: &str = "# <<< banger <<<";

/// The first mark is there and the second is not: whose the rest is, only its owner knows.
#[derive(Debug, PartialEq, Eq)]
pub struct Torn;

/// `text` with the block, once, before everything else: what follows a Host line would count for that host only.
pub fn with_block(text: &[u8], include: &str) -> Result<Vec<u8>, Torn> {
    let rest = without_block(text)?;
    Ok([format!("{BEGIN}\n{include}\n{END}\n").as_bytes(), &rest].concat())
}

/// `text` without the block.
pub fn without_block(text: &[u8]) -> Result<Vec<u8>, Torn> {
    let mut kept = Vec::with_capacity(text.len());
    let mut inside = false;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let plain = line.trim_ascii();
        if plain.starts_with(BEGINS.as_bytes()) {
            inside = true;
        }
        if !inside {
            kept.extend_from_slice(line);
        }
        if plain == END.as_bytes() {
            inside = false;
        }
    }
    if inside { Err(Torn) } else { Ok(kept) }
}

/// Whether the block is there.
pub fn has_block(text: &[u8]) -> bool {
    without_block(text).is_ok_and(|rest| rest.len() != text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const INCLUDE: &str = "Include \"/c/ssh_config\"";
    const BLOCK: &str = "# >>> banger >>> `banger ssh-config --uninstall` removes this\nInclude \"/c/ssh_config\"\n# <<< banger <<<\n";

    #[test]
    fn the_block_goes_on_top_once_and_comes_off_without_a_trace() {
        let table: [&[u8]; 6] = [
            b"",
            b"Host a\n  User b\n",
            b"no newline at the end",
            b"\xff\xfe not UTF-8\nHost \xe9\n",
            b"Host a\r\n\r\n",
            b"\n\n# <<< banger\n",
        ];
        for text in table {
            let with = with_block(text, INCLUDE).expect("edits");
            assert_eq!(with, [BLOCK.as_bytes(), text].concat());
            assert!(has_block(&with) && !has_block(text));
            assert_eq!(with_block(&with, INCLUDE).expect("edits"), with, "again");
            assert_eq!(without_block(&with).expect("edits"), text);
            assert_eq!(without_block(text).expect("edits"), text);
        }
    }

    #[test]
    fn a_block_that_was_moved_or_is_out_of_date_is_replaced() {
        let moved = format!("Host a\n{}Host b\n", BLOCK.replace("/c/", "/old/").replace('\n', "\r\n"));
        let now = with_block(moved.as_bytes(), INCLUDE).expect("edits");
        assert_eq!(String::from_utf8_lossy(&now), format!("{BLOCK}Host a\nHost b\n"));
    }

    #[test]
    fn a_block_without_its_end_is_left_alone() {
        let torn = b"# >>> banger >>> x\nInclude y\nHost mine\n";
        assert_eq!(with_block(torn, INCLUDE), Err(Torn));
        assert_eq!(without_block(torn), Err(Torn));
    }
}
