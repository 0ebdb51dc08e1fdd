//! From what a person typed to the one thing that they meant: a name, an id, or the beginning of one id.

use std::fmt;

/// Why nothing, or no single thing, is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LookupError {
    Unknown { noun: &'static str, typed: String, near: Option<String> },
    Ambiguous { noun: &'static str, typed: String, candidates: Vec<String> },
}

/// One thing that can be meant.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    pub names: &'a [String],
    pub id: &'a str,
}

/// Returns the index of the candidate that `typed` means: by exact name, else by exact id, else by a prefix that only
/// one id has. `noun` is what the errors call it.
///
/// # Errors
/// [`LookupError::Unknown`] with the nearest name, [`LookupError::Ambiguous`] with the ids that fit.
pub fn find(noun: &'static str, typed: &str, candidates: &[Candidate<'_>]) -> Result<usize, LookupError> {
    let exact = candidates
        .iter()
        .position(|c| c.names.iter().any(|name| name == typed))
        .or_else(|| candidates.iter().position(|c| c.id == typed));
    if let Some(index) = exact {
        return Ok(index);
    }
    let fits: Vec<usize> =
        (0..candidates.len()).filter(|&i| !typed.is_empty() && candidates[i].id.starts_with(typed)).collect();
    match fits[..] {
        [index] => Ok(index),
        [] => Err(LookupError::Unknown {
            noun,
            typed: typed.to_owned(),
            near: nearest(typed, candidates.iter().flat_map(|c| c.names.iter().map(String::as_str))),
        }),
        _ => Err(LookupError::Ambiguous {
            noun,
            typed: typed.to_owned(),
            candidates: fits
                .iter()
                .map(|&i| match candidates[i].names.first() {
                    Some(name) => format!("{name} ({})", candidates[i].id),
                    None => candidates[i].id.to_owned(),
                })
                .collect(),
        }),
    }
}

/// Returns the word of `words` that `typed` is most probably a misspelling of, if one is near enough.
pub fn nearest<'a>(typed: &str, words: impl IntoIterator<Item = &'a str>) -> Option<String> {
    words
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(typed, word), word))
        // A third of the letters may be wrong: `lst` is `list`, `foo` is not `cp`.
        .filter(|(distance, word)| *distance * 3 <= word.len().max(3))
        .min()
        .map(|(_, word)| word.to_owned())
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { noun, typed, near: Some(near) } => {
                write!(f, "there is no {noun} {typed:?}; did you mean {near}?")
            }
            Self::Unknown { noun, typed, near: None } => {
                write!(
                    f,
                    "there is no {noun} {typed:?}; `banger {} list` shows what there is",
                    noun.to_lowercase()
                )
            }
            Self::Ambiguous { noun, typed, candidates } => {
                write!(
                    f,
                    "{typed:?} could be more than one {noun}: {}; type more of the id",
                    candidates.join(", ")
                )
            }
        }
    }
}

impl std::error::Error for LookupError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_wins_over_an_id_and_an_id_over_a_prefix() {
        let names = [vec!["abc".to_owned()], vec!["dev".to_owned()], vec!["web".to_owned()]];
        let c = [
            Candidate { names: &names[0], id: "0123" },
            Candidate { names: &names[1], id: "abc" },
            Candidate { names: &names[2], id: "abcd" },
        ];
        for (typed, want) in [("abc", 0), ("01", 0), ("dev", 1), ("abcd", 2), ("web", 2)] {
            assert_eq!(find("VM", typed, &c), Ok(want), "{typed}");
        }
        assert!(
            matches!(find("VM", "ab", &c), Err(LookupError::Ambiguous { candidates, .. }) if candidates.len() == 2)
        );
        assert!(matches!(find("VM", "", &c), Err(LookupError::Unknown { .. })));
        assert_eq!(
            find("VM", "dve", &c).map_err(|e| e.to_string()),
            Err(r#"there is no VM "dve"; did you mean dev?"#.to_owned())
        );
    }

    #[test]
    fn a_word_far_from_all_others_gets_no_suggestion() {
        assert_eq!(nearest("lst", ["list", "show"]), Some("list".to_owned()));
        assert_eq!(nearest("frobnicate", ["list", "show"]), None);
    }
}
