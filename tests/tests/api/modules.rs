//! The modules of `shared` depend on each other in one direction only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A module, by its path below the crate: `["store", "keys"]`.
type Module = Vec<String>;

/// The modules of a crate, each with its code: without comments and unit tests.
fn modules(folder: &Path, parent: &[String], found: &mut BTreeMap<Module, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            modules(&path, &[parent, &[name]].concat(), found);
        } else if path.extension().is_some_and(|extension| extension == "rs") && name != "lib" {
            let module = if name == "mod" { parent.to_vec() } else { [parent, &[name]].concat() };
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            let lines = code.lines().map(|line| line.split("//").next().unwrap());
            found.insert(module, lines.collect::<Vec<_>>().join(" "));
        }
    }
}

/// The paths of a use tree: `a::{b, c::d}` is `a::b` and `a::c::d`. Reads up to the end of the tree.
fn paths(text: &mut std::iter::Peekable<std::str::Chars<'_>>, prefix: &[String], found: &mut Vec<Module>) {
    let mut path = prefix.to_vec();
    loop {
        while text.next_if(|c| c.is_whitespace() || *c == ':').is_some() {}
        if text.next_if_eq(&'{').is_some() {
            while text.peek().is_some_and(|c| *c != '}') {
                paths(text, &path, found);
                while text.next_if(|c| c.is_whitespace() || *c == ',').is_some() {}
            }
            text.next();
            return;
        }
        let mut name = String::new();
        while let Some(c) = text.next_if(|c| c.is_alphanumeric() || *c == '_') {
            name.push(c);
        }
        let is_last = name.is_empty() || text.peek() != Some(&':');
        path.push(name);
        if is_last {
            // Whatever follows (` as name`, `*`) belongs to the same path.
            while text.next_if(|c| !matches!(c, ',' | '}' | ';')).is_some() {}
            found.push(path);
            return;
        }
    }
}

/// The modules that this code names.
fn dependencies(module: &Module, code: &str, all: &BTreeMap<Module, String>) -> BTreeSet<Module> {
    let mut found = Vec::new();
    for (root, prefix) in [("crate::", &[][..]), ("super::", &module[..module.len() - 1]), ("self::", module)] {
        for (at, _) in code.match_indices(root) {
            paths(&mut code[at + root.len()..].chars().peekable(), prefix, &mut found);
        }
    }
    let named = found.into_iter().filter_map(|path| {
        (1..=path.len()).rev().map(|length| path[..length].to_vec()).find(|path| all.contains_key(path))
    });
    // A folder and the modules in it are one room: only what leaves it counts.
    named.filter(|other| !other.starts_with(module) && !module.starts_with(other)).collect()
}

#[test]
fn modules_of_the_shared_crate_form_no_cycle() {
    let mut all = BTreeMap::new();
    modules(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/src"), &[], &mut all);
    let mut open: BTreeMap<&Module, BTreeSet<Module>> =
        all.iter().map(|(module, code)| (module, dependencies(module, code, &all))).collect();
    let count = open.values().map(BTreeSet::len).sum::<usize>();
    assert!(all.len() > 30 && count > 100, "{} modules, {count} dependencies", all.len());

    // Takes out what depends on nothing that is left, until nothing is left.
    loop {
        let free: Vec<&Module> = open.iter().filter(|(_, needs)| needs.is_empty()).map(|(module, _)| *module).collect();
        if free.is_empty() {
            break;
        }
        for module in free {
            open.remove(module);
            open.values_mut().for_each(|needs| {
                needs.remove(module);
            });
        }
    }
    assert!(open.is_empty(), "modules in a cycle, with what they need: {open:#?}");
}
