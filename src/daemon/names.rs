//! Names of images: one stands for one image at a time, an image may have several. A name that an image brings along, such as the
//! reference that it was pulled by, moves to it from the image that had it, as docker's tags do; one that somebody gives it moves only by
//! force, since it may be a slip.

use std::fmt;

use crate::image::record::ImageRecord;

/// The names that an image is to get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    own: Vec<String>,
    given: Option<String>,
    force: bool,
}

/// The given name stands for another image.
#[derive(Debug, PartialEq, Eq)]
pub struct Taken {
    name: String,
    id: String,
    source: String,
}

impl Names {
    pub fn new(own: Vec<String>, given: Option<String>, force: bool) -> Self {
        Self { own, given, force }
    }

    /// The names of an archive count where there is no other.
    pub fn or(self, archive: Vec<String>) -> Self {
        if self.given.is_some() || !self.own.is_empty() { self } else { Self { own: archive, ..self } }
    }

    /// What people call the image that is to get them.
    pub fn first(&self) -> &str {
        self.all().next().map_or("the image", String::as_str)
    }

    fn all(&self) -> impl Iterator<Item = &String> {
        self.own.iter().chain(&self.given)
    }

    fn has(&self, name: &String) -> bool {
        self.all().any(|n| n == name)
    }

    /// Looks whether the image may have these names; `is_it` says of the one that has the given name whether it is the same.
    pub fn check(&self, records: &[ImageRecord], is_it: impl Fn(&ImageRecord) -> bool) -> Result<(), Taken> {
        let Some(name) = self.given.as_ref().filter(|name| !self.force && !self.own.contains(name)) else {
            return Ok(());
        };
        match records.iter().find(|record| record.names.contains(name)) {
            Some(holder) if !is_it(holder) => {
                Err(Taken { name: name.clone(), id: holder.id.clone(), source: holder.source.clone() })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Gives them to `record`, and returns those of `records` that lose one to it.
    pub fn give(&self, record: &mut ImageRecord, records: Vec<ImageRecord>) -> Vec<ImageRecord> {
        let new: Vec<_> = self.all().filter(|name| !record.names.contains(name)).cloned().collect();
        record.names.extend(new);
        let loses = |r: &ImageRecord| r.id != record.id && r.names.iter().any(|name| self.has(name));
        let mut losers: Vec<_> = records.into_iter().filter(loses).collect();
        losers.iter_mut().for_each(|loser| loser.names.retain(|name| !self.has(name)));
        losers
    }
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} stands for another image already ({}, from {}); give this one another --name, or move the name with --force",
            self.name,
            self.id.get(..12).unwrap_or(&self.id),
            self.source
        )
    }
}

impl std::error::Error for Taken {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::config::ImageConfig;

    fn image(id: &str, names: &[&str]) -> ImageRecord {
        ImageRecord {
            id: id.to_owned(),
            names: names.iter().map(|n| (*n).to_owned()).collect(),
            digest: None,
            source: "/x.tar".to_owned(),
            arch: "amd64".to_owned(),
            variant: None,
            bytes: 0,
            created_at: 0,
            config: ImageConfig::default(),
            kernel: None,
            path: None,
            stamp: None,
        }
    }

    fn names(own: &[&str], given: Option<&str>, force: bool) -> Names {
        Names::new(own.iter().map(|n| (*n).to_owned()).collect(), given.map(str::to_owned), force)
    }

    #[test]
    fn a_name_that_is_given_moves_by_force_and_one_that_is_brought_along_by_itself() {
        let records = [image("aaaa", &["x", "y"]), image("bbbb", &["z"])];
        let table = [
            (names(&[], Some("new"), false), true),
            (names(&[], Some("z"), false), true),
            (names(&[], Some("x"), false), false),
            (names(&["z"], Some("x"), false), false),
            (names(&[], Some("x"), true), true),
            (names(&["x"], None, false), true),
            (names(&["x"], Some("x"), false), true),
        ];
        for (names, ok) in table {
            assert_eq!(names.check(&records, |r| r.id == "bbbb").is_ok(), ok, "{names:?}");
        }
        let taken = names(&[], Some("x"), false).check(&records, |_| false).expect_err("another's");
        assert_eq!(
            taken.to_string(),
            "\"x\" stands for another image already (aaaa, from /x.tar); give this one another --name, or move the name with --force"
        );
    }

    #[test]
    fn a_name_that_moves_is_lost_by_the_one_that_had_it() {
        let mut to = image("bbbb", &["z"]);
        let records = vec![image("aaaa", &["x", "y"]), to.clone(), image("cccc", &["w"])];
        let losers = names(&["z", "x"], None, false).give(&mut to, records);
        assert_eq!(losers, [image("aaaa", &["y"])]);
        assert_eq!(to, image("bbbb", &["z", "x"]));
    }

    #[test]
    fn the_names_of_an_archive_count_where_none_is_given() {
        let archive = || vec!["app:1".to_owned()];
        assert_eq!(names(&[], None, false).or(archive()), names(&["app:1"], None, false));
        assert_eq!(names(&[], Some("mine"), false).or(archive()), names(&[], Some("mine"), false));
    }
}
