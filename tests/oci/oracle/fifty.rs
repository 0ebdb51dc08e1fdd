//! Fifty layers, each of which changes at random what the ones below it have, as images with long histories do.
//!
//! A model of what is there keeps the layers legal: parents exist, hard links have a target, and a whiteout hides nothing
//! that its own layer has (where umoci and containerd disagree; [`super`] tests that alone).

use std::collections::BTreeMap;

use tar::EntryType;

use crate::made::*;

const LAYERS: usize = 50;
const CHANGES: usize = 40;
/// Few names, so that they meet.
const NAMES: [&str; 7] = ["a", "b", "c", "bin", "lib", "x.conf", "a long name with spaces"];

#[derive(Debug, Clone, Copy)]
struct There {
    kind: EntryType,
    layer: usize,
}

/// What the layers so far make, by path.
#[derive(Default)]
struct Model {
    paths: BTreeMap<String, There>,
    /// Where symlinks lead that lead to a directory.
    targets: BTreeMap<String, String>,
}

impl Model {
    fn below<'a>(&'a self, dir: &str) -> impl Iterator<Item = (&'a String, &'a There)> {
        let prefix = format!("{dir}/");
        self.paths.iter().filter(move |(path, _)| path.starts_with(&prefix))
    }

    fn put(&mut self, path: &str, kind: EntryType, layer: usize) {
        let merges = kind == DIR && self.paths.get(path).is_some_and(|there| there.kind == DIR);
        if !merges {
            self.remove(path);
        }
        self.paths.insert(path.to_owned(), There { kind, layer });
    }

    fn remove(&mut self, path: &str) {
        let prefix = format!("{path}/");
        self.paths.retain(|p, _| p != path && !p.starts_with(&prefix));
        self.targets.retain(|p, _| p != path && !p.starts_with(&prefix));
    }

    /// Whether little goes with it; without this there would never be much.
    fn is_small(&self, path: &str) -> bool {
        self.below(path).count() < 4
    }

    /// One that fits, at random.
    fn any(&self, noise: &mut Noise, fits: impl Fn(&str, There) -> bool) -> Option<String> {
        let all: Vec<&String> =
            self.paths.iter().filter(|(path, there)| fits(path, **there)).map(|(path, _)| path).collect();
        if all.is_empty() { None } else { Some(all[noise.below(all.len())].clone()) }
    }

    /// A path in a directory that is there: by its own name, and as a member may call it, through a symlink.
    fn place(&self, noise: &mut Noise) -> (String, String) {
        loop {
            let (path, called) = self.any_place(noise);
            if self.is_small(&path) {
                return (path, called);
            }
        }
    }

    fn any_place(&self, noise: &mut Noise) -> (String, String) {
        let dir = self.any(noise, |path, there| there.kind == DIR && path.matches('/').count() < 6);
        let name = NAMES[noise.below(NAMES.len())];
        let path = dir.as_ref().map_or(name.to_owned(), |dir| format!("{dir}/{name}"));
        let through = self.targets.iter().find(|(_, target)| dir.as_ref() == Some(target));
        match through {
            Some((symlink, _)) if noise.below(2) == 0 => (path, format!("{symlink}/{name}")),
            _ => (path.clone(), path),
        }
    }
}

pub fn layers(seed: u64) -> Vec<Vec<u8>> {
    let mut noise = Noise(seed);
    let mut model = Model::default();
    (0..LAYERS).map(|layer| one(&mut noise, &mut model, layer)).collect()
}

fn one(noise: &mut Noise, model: &mut Model, layer: usize) -> Vec<u8> {
    let mut tar = Tar::default();
    if noise.below(3) == 0 {
        tar.add(dressed(member_of(DIR, "./"), noise));
    }
    for _ in 0..CHANGES {
        change(noise, model, layer, &mut tar);
    }
    tar.finish()
}

fn dressed<'a>(member: Member<'a>, noise: &mut Noise) -> Member<'a> {
    let mode = [0o755, 0o644, 0o600, 0o4755, 0o2775, 0o1777, 0o000][noise.below(7)];
    let owner = (noise.below(3) as u64 * 33, noise.below(70_000) as u64);
    let time = format!("{}.{:09}", 1_000_000_000 + noise.below(900_000_000), noise.below(1_000_000_000));
    let member = member.mode(mode).owner(owner.0, owner.1).time(time);
    if noise.below(3) == 0 { member.xattr("user.note", b"kept\nor not") } else { member }
}

fn change(noise: &mut Noise, model: &mut Model, layer: usize, tar: &mut Tar) {
    let length = [0, 10, 5000, 70_000][noise.below(4)];
    let data = noise.bytes(length);
    let (path, called) = model.place(noise);
    match noise.below(12) {
        0..=2 => {
            tar.add(dressed(member_of(FILE, &called), noise).data(&data));
            model.put(&path, FILE, layer);
        }
        3 | 4 => {
            tar.add(dressed(member_of(DIR, &called), noise));
            model.put(&path, DIR, layer);
        }
        5 => {
            // A directory that is there already: only what is said of it changes.
            if let Some(dir) = model.any(noise, |_, there| there.kind == DIR) {
                tar.add(dressed(member_of(DIR, format!("{dir}/")), noise));
                model.put(&dir, DIR, layer);
            }
        }
        6 | 7 => {
            let own = format!("{path}/");
            let dir =
                model.any(noise, |dir, there| there.kind == DIR && !format!("{dir}/").starts_with(&own));
            let target = dir.as_ref().map_or("../nowhere".to_owned(), |dir| format!("/{dir}"));
            let member = member_of(SYMLINK, &called).target(&target).owner(noise.below(9) as u64, 5);
            tar.add(member.time(format!("{}.5", 1_000_000_000 + noise.below(1000))));
            model.put(&path, SYMLINK, layer);
            // Through a symlink whose target is replaced later no more is written.
            model.targets.clear();
            model.targets.extend(dir.map(|dir| (path, dir)));
        }
        8 => {
            let own = format!("{path}/");
            let other = |p: &str, t: There| t.kind != DIR && p != path && !p.starts_with(&own);
            if let Some(target) = model.any(noise, other) {
                tar.add(member_of(LINK, &called).target(&target));
                let kind = model.paths[&target].kind;
                model.put(&path, kind, layer);
            }
        }
        9 | 10 => {
            let older = |p: &str, t: There| {
                t.layer < layer && model.is_small(p) && model.below(p).all(|(_, t)| t.layer < layer)
            };
            if let Some(victim) = model.any(noise, older) {
                let (dir, name) = victim.rsplit_once('/').unwrap_or(("", &victim));
                let slash = if dir.is_empty() { "" } else { "/" };
                tar.add(member_of(FILE, format!("{dir}{slash}.wh.{name}")));
                model.remove(&victim);
            }
        }
        _ => {
            // Children of its own layer may stand before it, but no grandchildren.
            let opaque = |p: &str, t: There| {
                let direct = |path: &str| !path[p.len() + 1..].contains('/');
                t.kind == DIR
                    && model.is_small(p)
                    && model.below(p).all(|(path, t)| t.layer < layer || direct(path))
            };
            if let Some(dir) = model.any(noise, opaque) {
                tar.add(member_of(FILE, format!("{dir}/.wh..wh..opq")));
                let old: Vec<String> =
                    model.below(&dir).filter(|(_, t)| t.layer < layer).map(|(p, _)| p.clone()).collect();
                for path in old {
                    model.paths.remove(&path);
                    model.targets.remove(&path);
                }
            }
        }
    }
    model.targets.retain(|_, target| model.paths.get(target).is_some_and(|there| there.kind == DIR));
}
