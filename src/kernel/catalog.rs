//! All modules of one kernel: those in files, and those built in.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::kernel::modinfo::{Module, builtin_aliases, name_of, normalised};

/// The modules of a kernel, each name once.
#[derive(Debug, Default)]
pub struct Catalog {
    modules: Vec<Module>,
    by_name: HashMap<String, usize>,
    /// Names of what is built in.
    builtin: BTreeSet<String>,
    /// Whom the built-in ones serve: (alias, name).
    builtin_aliases: BTreeSet<(String, String)>,
}

impl Catalog {
    /// Puts the modules in the order of `order`, the text of modules.order, which decides who is asked first where several
    /// serve the same device (depmod(8)); the others follow by path.
    pub fn new(modules: Vec<Module>, order: &str) -> Self {
        let place: HashMap<&str, usize> = order.lines().enumerate().map(|(i, line)| (line, i)).collect();
        let mut chosen: BTreeMap<String, Module> = BTreeMap::new();
        for module in modules {
            match chosen.get(&module.name) {
                Some(other) if precedence(&other.path) >= precedence(&module.path) => {}
                _ => drop(chosen.insert(module.name.clone(), module)),
            }
        }
        let mut modules: Vec<Module> = chosen.into_values().collect();
        modules.sort_by_key(|m| (place.get(m.path.as_str()).copied().unwrap_or(usize::MAX), m.path.clone()));
        let by_name = modules.iter().enumerate().map(|(i, m)| (m.name.clone(), i)).collect();
        Self { modules, by_name, ..Self::default() }
    }

    /// Adds what is built in, by name.
    pub fn with_builtin(mut self, names: impl IntoIterator<Item = String>) -> Self {
        self.builtin.extend(names);
        self
    }

    /// Adds whom the built-in modules serve: the content of modules.builtin.modinfo.
    pub fn with_builtin_modinfo(mut self, modinfo: &[u8]) -> Self {
        let aliases = builtin_aliases(modinfo).map(|(name, alias)| (normalised(alias), name));
        self.builtin_aliases.extend(aliases);
        self
    }

    /// In order.
    pub fn modules(&self) -> &[Module] {
        &self.modules
    }

    /// The place of the module of this normalised name among [`Self::modules`].
    pub fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    pub fn is_builtin(&self, name: &str) -> bool {
        self.builtin.contains(name)
    }

    pub fn builtin(&self) -> impl Iterator<Item = &str> {
        self.builtin.iter().map(String::as_str)
    }

    /// (alias, name), sorted.
    pub fn builtin_aliases(&self) -> impl Iterator<Item = (&str, &str)> {
        self.builtin_aliases.iter().map(|(alias, name)| (alias.as_str(), name.as_str()))
    }

    /// Who provides `name`, a module or an alias without wildcards, as a soft dependency names it. None: nobody, or what is
    /// built in already.
    pub fn provider(&self, name: &str) -> Option<usize> {
        let name = normalised(name);
        if self.is_builtin(&name) || self.builtin_aliases.iter().any(|(alias, _)| *alias == name) {
            return None;
        }
        self.find(&name).or_else(|| {
            let serves = |m: &&Module| m.aliases.iter().any(|a| normalised(a) == name);
            // The generic one works on every CPU; the others refuse to load where their instructions are missing.
            let mut all = self.modules.iter().filter(serves).collect::<Vec<_>>();
            all.sort_by_key(|m| !m.name.ends_with("_generic"));
            self.find(&all.first()?.name)
        })
    }

    /// The modules that `index` needs, directly and indirectly, each before those that need it, without itself. A name that
    /// is not there is left out: it is what [`Self::missing`] reports.
    pub fn dependencies(&self, index: usize) -> Vec<usize> {
        let mut order = vec![];
        self.visit(index, false, &mut BTreeSet::new(), &mut order);
        order.pop();
        order
    }

    /// As [`Self::dependencies`], with the soft ones that are to be loaded before, and with `index` itself at the end.
    pub fn load_order(&self, index: usize) -> Vec<usize> {
        let mut order = vec![];
        self.visit(index, true, &mut BTreeSet::new(), &mut order);
        order
    }

    /// The first dependency of `index` that is neither there nor built in.
    pub fn missing(&self, index: usize) -> Option<&str> {
        let module = self.modules.get(index)?;
        let absent = |name: &&String| self.find(name).is_none() && !self.is_builtin(name);
        module.depends.iter().find(absent).map(String::as_str)
    }

    /// Depth first. A cycle, which no real kernel has, is cut where it closes. Recursion is bounded by the number of modules,
    /// and a hostile chain of that length by [`MAX_DEPTH`].
    fn visit(&self, index: usize, soft: bool, seen: &mut BTreeSet<usize>, order: &mut Vec<usize>) {
        if seen.len() >= MAX_DEPTH || !seen.insert(index) {
            return;
        }
        let Some(module) = self.modules.get(index) else { return };
        let hard = module.depends.iter().filter(|d| !self.is_builtin(d)).filter_map(|d| self.find(d));
        let mut before = vec![];
        if soft {
            let names = module.softdeps.iter().flat_map(|text| pre(text));
            before.extend(names.filter_map(|name| self.provider(name)));
        }
        before.extend(hard);
        for dependency in before {
            self.visit(dependency, soft, seen, order);
        }
        order.push(index);
    }
}

/// More modules than any module needs.
const MAX_DEPTH: usize = 1000;

/// Names of the built-in modules, from the text of modules.builtin, which lists them as paths.
pub fn builtin_names(text: &str) -> impl Iterator<Item = String> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(name_of)
}

/// The names behind `pre:` in a soft dependency (modprobe.d(5)).
fn pre(text: &str) -> impl Iterator<Item = &str> {
    let mut pre = false;
    text.split_whitespace().filter(move |word| {
        let label = word.ends_with(':');
        if label {
            pre = *word == "pre:";
        }
        pre && !label
    })
}

/// Which of two modules of one name counts: depmod's default search order (depmod.d(5)).
fn precedence(path: &str) -> u8 {
    match path.split_once('/') {
        Some(("updates", _)) => 2,
        Some(("kernel", _)) => 1,
        _ => 0,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A module called as its path says.
    pub fn module(path: &str, depends: &[&str], aliases: &[&str], softdeps: &[&str]) -> Module {
        let list = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        Module {
            path: path.to_owned(),
            name: name_of(path),
            depends: list(depends),
            aliases: list(aliases),
            softdeps: list(softdeps),
            exports: vec![],
        }
    }

    fn names(catalog: &Catalog, order: &[usize]) -> Vec<String> {
        order.iter().map(|i| catalog.modules()[*i].name.clone()).collect()
    }

    #[test]
    fn a_module_comes_after_all_that_it_needs() {
        let catalog = Catalog::new(
            vec![
                module("kernel/a.ko", &["b", "c"], &[], &["pre: crc32c post: z"]),
                module("kernel/b.ko", &["d"], &[], &[]),
                module("kernel/c.ko", &["d", "builtin"], &[], &[]),
                module("kernel/d.ko", &[], &[], &[]),
                module("kernel/crc32c-intel.ko", &[], &["crc32c"], &[]),
                module("kernel/crc32c_generic.ko", &[], &["crc32c"], &[]),
                module("kernel/z.ko", &[], &[], &[]),
            ],
            "",
        )
        .with_builtin(["builtin".to_owned()]);
        let a = catalog.find("a").expect("is there");
        assert_eq!(names(&catalog, &catalog.dependencies(a)), ["d", "b", "c"]);
        assert_eq!(names(&catalog, &catalog.load_order(a)), ["crc32c_generic", "d", "b", "c", "a"]);
        let known = catalog.with_builtin_modinfo(b"crc32c_generic.alias=crc32c\0");
        assert_eq!(names(&known, &known.load_order(a)), ["d", "b", "c", "a"], "a built-in one provides it");
    }

    #[test]
    fn a_cycle_ends_and_a_missing_dependency_is_named() {
        let catalog = Catalog::new(
            vec![module("kernel/a.ko", &["b"], &[], &[]), module("kernel/b.ko", &["a", "gone"], &[], &[])],
            "",
        );
        let (a, b) = (catalog.find("a").expect("is there"), catalog.find("b").expect("is there"));
        assert_eq!(catalog.dependencies(a), [b]);
        assert_eq!((catalog.missing(a), catalog.missing(b)), (None, Some("gone")));
    }

    #[test]
    fn an_update_replaces_the_kernels_own_module_and_the_order_is_the_kernels() {
        let modules = ["extra/x.ko", "kernel/x.ko", "updates/x.ko", "kernel/z.ko", "kernel/b.ko"];
        let catalog = Catalog::new(
            modules.iter().map(|path| module(path, &[], &[], &[])).collect(),
            "kernel/z.ko\nkernel/b.ko\n",
        );
        let paths = catalog.modules().iter().map(|m| m.path.as_str()).collect::<Vec<_>>();
        assert_eq!(paths, ["kernel/z.ko", "kernel/b.ko", "updates/x.ko"]);
    }

    #[test]
    fn built_in_modules_are_listed_by_path() {
        let text = "kernel/fs/ext4/ext4.ko\nkernel/crypto/crc32c-x.ko\n\n";
        assert_eq!(builtin_names(text).collect::<Vec<_>>(), ["ext4", "crc32c_x"]);
    }
}
