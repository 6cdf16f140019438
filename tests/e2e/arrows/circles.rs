//! Which files of a crate refer to which, according to their `use` items and paths.
//!
//! An arrow goes from the file that names something to the file that defines it, through any
//! number of re-exports. A re-export itself is not an arrow, nor is `mod child;`: a folder's first file
//! may show what is in the folder. Tests are left out.
//!
//! Absent on purpose: what takes the compiler's types to see, such as a method that another file
//! adds to a type.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use syn::{
    Attribute, Item, Meta, UseTree, Visibility,
    buffer::{Cursor, TokenBuffer},
    visit::{self, Visit},
};

type ModulePath = Vec<String>;

/// Files by what they know.
pub type Graph = BTreeMap<PathBuf, BTreeSet<PathBuf>>;

#[derive(Default)]
struct Module {
    file: PathBuf,
    defined: BTreeSet<String>,
    /// What `use` brings in, by name.
    aliases: BTreeMap<String, Vec<String>>,
    globs: Vec<Vec<String>>,
    /// What the module brings in other than to show it.
    named: Vec<Vec<String>>,
    /// What its code mentions.
    mentioned: Vec<Vec<String>>,
}

/// One crate's modules.
#[derive(Default)]
struct Modules(BTreeMap<ModulePath, Module>);

/// The files of a crate and what they know, from its root on.
pub fn graph(root: &Path) -> Graph {
    let mut modules = Modules::default();
    let dir = root.parent().expect("a file lies in a folder");
    modules.read(root, dir, Vec::new());
    let mut graph = Graph::new();
    for (path, module) in &modules.0 {
        let known = graph.entry(module.file.clone()).or_default();
        // A variable may be called like a module, and code mentions what is in modules alone.
        let mentioned = module
            .mentioned
            .iter()
            .filter(|name| !modules.is_module(path, name));
        for name in module.named.iter().chain(mentioned) {
            if let Some(file) = modules.resolve(path, name, 0)
                && file != module.file
            {
                known.insert(file);
            }
        }
    }
    graph
}

impl Modules {
    fn read(&mut self, file: &Path, children: &Path, path: ModulePath) {
        let text = fs::read_to_string(file)
            .unwrap_or_else(|error| panic!("`{}`: {error}", file.display()));
        let parsed = syn::parse_file(&text).expect("the compiler takes it");
        self.take(parsed.items, file, children, path);
    }

    fn take(&mut self, items: Vec<Item>, file: &Path, children: &Path, path: ModulePath) {
        let mut module = Module {
            file: file.to_owned(),
            ..Module::default()
        };
        for item in items {
            match item {
                Item::Mod(child) if is_test(&child.attrs) => {}
                Item::Mod(child) => {
                    let name = child.ident.to_string();
                    let mut inner = path.clone();
                    inner.push(name.clone());
                    let folder = children.join(&name);
                    if let Some((_, items)) = child.content {
                        self.take(items, file, &folder, inner);
                    } else {
                        let flat = children.join(format!("{name}.rs"));
                        let nested = folder.join("mod.rs");
                        let source = if flat.is_file() { flat } else { nested };
                        self.read(&source, &folder, inner);
                    }
                }
                Item::Use(item) if is_test(&item.attrs) => {}
                Item::Use(item) => {
                    let is_shown = !matches!(item.vis, Visibility::Inherited);
                    module.take_use(&item.tree, &mut Vec::new(), is_shown);
                }
                other => module.take_item(&other),
            }
        }
        self.0.insert(path, module);
    }

    fn is_module(&self, from: &ModulePath, name: &[String]) -> bool {
        let whole: Vec<_> = from.iter().chain(name).cloned().collect();
        self.0.contains_key(&whole)
    }

    /// The file that defines what a module calls `name`.
    fn resolve(&self, from: &ModulePath, name: &[String], depth: usize) -> Option<PathBuf> {
        // Aliases of aliases end; circles of them do not compile.
        assert!(depth < 32, "{name:?} leads nowhere");
        let mut at = from.clone();
        let mut rest = name;
        let mut is_anchored = false;
        while let [first, others @ ..] = rest {
            match first.as_str() {
                "crate" => at.clear(),
                "super" => drop(at.pop()),
                "self" => {}
                _ => break,
            }
            is_anchored = true;
            rest = others;
        }
        loop {
            let module = self.0.get(&at)?;
            let [first, others @ ..] = rest else {
                return Some(module.file.clone());
            };
            let mut inner = at.clone();
            inner.push(first.clone());
            if self.0.contains_key(&inner) {
                (at, rest) = (inner, others);
                is_anchored = true;
                continue;
            }
            if module.defined.contains(first) {
                return Some(module.file.clone());
            }
            if let Some(alias) = module.aliases.get(first) {
                let whole: Vec<_> = alias.iter().chain(others).cloned().collect();
                // `use serde::Serialize` names a crate, which no module resolves.
                return (whole != name || at != *from)
                    .then(|| self.resolve(&at, &whole, depth + 1))
                    .flatten();
            }
            let through = |glob: &Vec<String>| {
                let whole: Vec<_> = glob.iter().chain(rest).cloned().collect();
                self.resolve(&at, &whole, depth + 1)
            };
            return is_anchored
                .then(|| module.globs.iter().find_map(through))
                .flatten();
        }
    }
}

impl Module {
    fn take_use(&mut self, tree: &UseTree, before: &mut Vec<String>, is_shown: bool) {
        let mut whole = before.clone();
        match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.take_use(&path.tree, before, is_shown);
                before.pop();
                return;
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.take_use(tree, before, is_shown);
                }
                return;
            }
            UseTree::Glob(_) => self.globs.push(whole.clone()),
            UseTree::Name(name) => {
                if name.ident != "self" {
                    whole.push(name.ident.to_string());
                }
                if let Some(last) = whole.last() {
                    self.aliases.insert(last.clone(), whole.clone());
                }
            }
            UseTree::Rename(rename) => {
                if rename.ident != "self" {
                    whole.push(rename.ident.to_string());
                }
                self.aliases
                    .insert(rename.rename.to_string(), whole.clone());
            }
        }
        if !is_shown {
            self.named.push(whole);
        }
    }

    fn take_item(&mut self, item: &Item) {
        let name = match item {
            Item::Const(it) => Some(&it.ident),
            Item::Enum(it) => Some(&it.ident),
            Item::Fn(it) if is_test(&it.attrs) => return,
            Item::Fn(it) => Some(&it.sig.ident),
            Item::Impl(it) if is_test(&it.attrs) => return,
            Item::Macro(it) => it.ident.as_ref(),
            Item::Static(it) => Some(&it.ident),
            Item::Struct(it) => Some(&it.ident),
            Item::Trait(it) => Some(&it.ident),
            Item::Type(it) => Some(&it.ident),
            Item::Union(it) => Some(&it.ident),
            _ => None,
        };
        self.defined.extend(name.map(ToString::to_string));
        Code(self).visit_item(item);
    }
}

/// Collects what the code of a module mentions.
struct Code<'a>(&'a mut Module);

impl<'ast> Visit<'ast> for Code<'_> {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names = path.segments.iter().map(|it| it.ident.to_string());
        self.0.mentioned.push(names.collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        self.visit_path(&called.path);
        let tokens = TokenBuffer::new2(called.tokens.clone());
        mention(tokens.begin(), &mut self.0.mentioned);
    }

    /// Within a function: what it brings in is known there alone.
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let mut inner = Module::default();
        inner.take_use(&item.tree, &mut Vec::new(), false);
        self.0.named.append(&mut inner.named);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !is_test(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    /// `pub(in crate::…)` says who may know, not who knows.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}
}

/// Collects paths of several names from what a macro is given, which has no grammar to go by.
fn mention(mut at: Cursor<'_>, found: &mut Vec<Vec<String>>) {
    while !at.eof() {
        if let Some((inside, _, _, after)) = at.any_group() {
            mention(inside, found);
            at = after;
            continue;
        }
        let mut names = Vec::new();
        let mut next = at.ident();
        while let Some((name, after)) = next {
            names.push(name.to_string());
            at = after;
            next = colon(at).and_then(colon).and_then(Cursor::ident);
        }
        match names.len() {
            0 => match at.token_tree() {
                Some((_, after)) => at = after,
                None => return,
            },
            1 => {}
            _ => found.push(names),
        }
    }
}

/// What follows a colon.
fn colon(at: Cursor<'_>) -> Option<Cursor<'_>> {
    at.punct()
        .filter(|(sign, _)| sign.as_char() == ':')
        .map(|(_, after)| after)
}

/// Whether something is there for tests only: `#[test]`, `#[cfg(test)]`, `#[cfg(all(test, …))]`.
fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let condition = match &attribute.meta {
            Meta::List(list) if list.path.is_ident("cfg") => list.tokens.to_string(),
            _ => String::new(),
        };
        let mut words = condition.split(|sign: char| !sign.is_alphanumeric());
        attribute.path().is_ident("test") || words.any(|word| word == "test")
    })
}

/// Files that know each other, directly or by others between: each group is a circle.
pub fn circles(graph: &Graph) -> Vec<BTreeSet<PathBuf>> {
    let reached: BTreeMap<_, _> = graph
        .keys()
        .map(|file| (file, reach(graph, file)))
        .collect();
    let mut found: Vec<BTreeSet<PathBuf>> = Vec::new();
    for (file, from_it) in &reached {
        let back = |other: &&PathBuf| reached.get(other).is_some_and(|it| it.contains(*file));
        let circle: BTreeSet<_> = from_it.iter().filter(back).cloned().collect();
        if circle.len() > 1 && !found.contains(&circle) {
            found.push(circle);
        }
    }
    found
}

fn reach(graph: &Graph, from: &Path) -> BTreeSet<PathBuf> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from];
    while let Some(file) = open.pop() {
        for known in graph.get(file).into_iter().flatten() {
            if reached.insert(known.clone()) {
                open.push(known);
            }
        }
    }
    reached
}
