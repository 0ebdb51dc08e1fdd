//! Which commits there are from some on down, and where a history ends that is not whole.

use std::collections::HashSet;

use super::Id;

/// Commits from some heads on down.
#[derive(Debug, Default)]
pub struct Walk {
    pub commits: HashSet<String>,
    /// Those whose parents have not been walked, though they have some.
    pub edge: HashSet<String>,
}

/// Walks from `heads` to `depth` commits, and not beyond those in `cut`. `parents` is asked once for each commit; one that is not there has
/// been cut off before it.
pub fn walk<E>(
    heads: &[String],
    depth: Option<usize>,
    cut: &HashSet<String>,
    mut parents: impl FnMut(&str) -> Result<Option<Vec<String>>, E>,
) -> Result<Walk, E> {
    let mut walk = Walk::default();
    let mut level: Vec<String> = heads.to_vec();
    let mut at = 1;
    while !level.is_empty() {
        let mut next = vec![];
        for id in level {
            if walk.commits.contains(&id) {
                continue;
            }
            let Some(above) = parents(&id)? else { continue };
            if above.is_empty() {
            } else if cut.contains(&id) || depth.is_some_and(|depth| at >= depth) {
                walk.edge.insert(id.clone());
            } else {
                next.extend(above);
            }
            walk.commits.insert(id);
        }
        level = next;
        at += 1;
    }
    Ok(walk)
}

/// Where the guest's history ends after it has been given `new`: all of its shallow file. `old` is what it has, `boundary` where that ends.
pub fn boundary(
    new: &Walk,
    old: &HashSet<String>,
    boundary: &[String],
    parents: impl Fn(&str) -> Vec<String>,
) -> Vec<String> {
    let there = |id: &String| new.commits.contains(id) || old.contains(id);
    let fresh: HashSet<&String> = new.edge.iter().filter(|id| !parents(id).iter().all(there)).collect();
    // One whose parents come now is none any more.
    let kept = boundary.iter().filter(|id| !new.commits.contains(*id) || fresh.contains(id));
    let mut all: Vec<String> = fresh.iter().copied().chain(kept).cloned().collect();
    all.sort();
    all.dedup();
    all
}

/// The parents that a commit's text names, in its header.
pub fn parents_of(commit: &[u8]) -> Vec<String> {
    let header = commit.split(|b| *b == b'\n').take_while(|line| !line.is_empty());
    let parents = header.filter_map(|line| line.strip_prefix(b"parent "));
    parents
        .filter_map(|id| std::str::from_utf8(id).ok())
        .filter(|id| Id::parse(id.as_bytes()).is_some())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// A history by single letters: `c` has the parents `b` and `x`.
    const HISTORY: &[(&str, &str)] =
        &[("f", "e"), ("e", "d"), ("d", "c"), ("c", "bx"), ("b", "a"), ("a", ""), ("x", "a"), ("z", "y")];

    fn parents(id: &str) -> Option<Vec<String>> {
        HISTORY.iter().find(|(c, _)| *c == id).map(|(_, p)| ids(p))
    }

    fn ids(letters: &str) -> Vec<String> {
        letters.chars().map(String::from).collect()
    }

    fn text<'a>(ids: impl IntoIterator<Item = &'a String>) -> String {
        let mut ids: Vec<&str> = ids.into_iter().map(String::as_str).collect();
        ids.sort_unstable();
        ids.concat()
    }

    fn walked(heads: &str, depth: Option<usize>, cut: &str) -> Walk {
        let cut = ids(cut).into_iter().collect();
        walk::<Infallible>(&ids(heads), depth, &cut, |id| Ok(parents(id))).expect("does not fail")
    }

    #[test]
    fn a_walk_ends_at_its_depth_and_where_history_is_cut() {
        let table = [
            ("f", None, "", "abcdefx", ""),
            ("f", Some(1), "", "f", "f"),
            ("f", Some(3), "", "def", "d"),
            ("f", Some(5), "", "bcdefx", "bx"),
            ("f", Some(6), "", "abcdefx", ""),
            ("f", None, "cz", "cdef", "c"),
            ("f", None, "a", "abcdefx", ""),
            ("fb", Some(2), "", "abef", "e"),
            ("z", None, "", "z", ""),
        ];
        for (heads, depth, cut, commits, edge) in table {
            let walk = walked(heads, depth, cut);
            assert_eq!(
                (text(&walk.commits), text(&walk.edge)),
                (commits.into(), edge.into()),
                "{heads} {depth:?} {cut}"
            );
        }
    }

    #[test]
    fn history_that_a_guest_has_is_not_cut_off_and_what_it_lacks_is() {
        // What it has: heads, boundary. What it gets: head, depth. Where it ends then.
        let table = [
            // Deeper: all of it comes.
            ("f", "f", "f", None, ""),
            ("f", "d", "f", Some(5), "bx"),
            // A newer head, whose depth ends in what is there.
            ("d", "bx", "f", Some(3), "bx"),
            // A newer head, whose depth ends before what is there.
            ("b", "b", "f", Some(2), "be"),
            // Less deep than it was.
            ("f", "c", "f", Some(1), "c"),
        ];
        for (heads, old, head, depth, want) in table {
            let have = walked(heads, None, old);
            let new = walked(head, depth, "");
            let got = boundary(&new, &have.commits, &ids(old), |id| parents(id).unwrap_or_default());
            assert_eq!(text(&got), want, "{heads} {old} {head} {depth:?}");
        }
    }

    #[test]
    fn parents_stand_in_the_header_only() {
        let id = "0123456789abcdef0123456789abcdef01234567";
        let commit = format!("tree {id}\nparent {id}\nparent x\nauthor a\n\nparent {id}\n");
        assert_eq!(parents_of(commit.as_bytes()), [id]);
    }
}
