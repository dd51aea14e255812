//! Imports run one way: no top-level module of a crate imports another one that imports it, in however many steps.
//!
//! It reads lines and is no parser: it knows `use crate::x`, `use crate::{x, y::z}`, `use super::x` and a path such as
//! `crate::x::y` in the code, which is all that stands here. Comments do not count, nor does the `mod tests` at the foot of
//! a file; in any other module inside a file `super` is taken for the file's own. Any crate can have it: it reads the
//! sources of the crate that it is compiled in.
//!
//! Invariants: `main.rs` and `lib.rs` are the root, which may know everybody.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What each top-level module imports.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// The promise: the imports of this crate have no circle.
#[test]
fn no_circle_of_imports() {
    let imports = imports_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(imports.len() > 1, "there is something to look at: {imports:?}");
    assert_eq!(circle(&imports), BTreeSet::new(), "these import each other");
}

/// The modules that are left when all are taken away that import none of the others: those of circles, and those between
/// two circles.
fn circle(imports: &Imports) -> BTreeSet<String> {
    let mut left: BTreeSet<String> = imports.keys().cloned().collect();
    loop {
        let inner = |module: &String| imports[module].iter().any(|import| import != module && left.contains(import));
        let imported = |module: &String| left.iter().any(|other| other != module && imports[other].contains(module));
        let next: BTreeSet<String> = left.iter().filter(|module| inner(module) && imported(module)).cloned().collect();
        if next == left {
            return left;
        }
        left = next;
    }
}

fn imports_of(source: &Path) -> Imports {
    let mut imports = Imports::new();
    let mut files = Vec::new();
    find_sources(source, &mut files);
    for file in files {
        let place = file.strip_prefix(source).expect("it was found there").with_extension("");
        let mut path: Vec<String> =
            place.iter().map(|part| part.to_str().expect("a name of ours").to_owned()).collect();
        if path.last().is_some_and(|name| name == "mod") {
            path.pop();
        }
        if path == ["main"] || path == ["lib"] {
            continue;
        }
        let text = fs::read_to_string(&file).expect("a source of ours");
        imports.entry(path[0].clone()).or_default().extend(modules_named(&text, path.len()));
    }
    // What is no module of ours is an item of the root.
    let modules: BTreeSet<String> = imports.keys().cloned().collect();
    imports.values_mut().for_each(|named| named.retain(|name| modules.contains(name)));
    imports
}

fn find_sources(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the sources are here") {
        let path = entry.expect("the sources are here").path();
        if path.is_dir() {
            find_sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The first names of all paths from the root in the text of a module that lies `depth` below it.
fn modules_named(text: &str, depth: usize) -> BTreeSet<String> {
    let code = text.lines().take_while(|line| line.starts_with(' ') || !line.ends_with("mod tests {"));
    let code: String = code.map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n").collect();
    let from_above = "super::".repeat(depth);
    [("crate::", true), (from_above.as_str(), depth > 0)]
        .into_iter()
        .filter(|(_, is_path)| *is_path)
        .flat_map(|(root, _)| code.match_indices(root).map(|(at, _)| (at, at + root.len())).collect::<Vec<_>>())
        // Inside of a longer word or path, such as `$crate` or one `super` more, it is another one.
        .filter(|(at, _)| !code[..*at].ends_with(|before: char| before.is_alphanumeric() || "_:$".contains(before)))
        .flat_map(|(_, end)| first_names(&code[end..]))
        .filter(|name| name != "super")
        .collect()
}

/// The name at the front of `path`, or of each path in its braces.
fn first_names(path: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.trim_start().chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
    };
    let Some(list) = path.strip_prefix('{') else { return vec![name(path)] };
    let (mut names, mut depth, mut begins) = (Vec::new(), 0, true);
    for (at, letter) in list.char_indices() {
        match letter {
            '}' if depth == 0 => break,
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            letter if begins && !letter.is_whitespace() => {
                names.push(name(&list[at..]));
                begins = false;
            }
            _ => {}
        }
    }
    names
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// The promise: every way to name a module is seen, and what is none is not.
#[test]
fn every_way_to_import_is_seen() {
    let text = "//! See [`crate::no`].\n\
                use std::io;\n\
                use crate::a;\n\
                use crate::{b, c::{d, e}, f::g};\n\
                pub use crate::{\n    h::i,\n    j,\n};\n\
                use super::k::l;\n\
                use super::super::m;\n\
                fn n() -> crate::o::P {} // crate::no\n\
                macro_rules! q { () => { $crate::no::r } }\n\
                #[cfg(test)]\nmod tests {\n    use crate::no;\n}\n";
    assert_eq!(modules_named(text, 1), set(&["a", "b", "c", "f", "h", "j", "k", "o"]));
    assert_eq!(modules_named(text, 2), set(&["a", "b", "c", "f", "h", "j", "m", "o"]));
}

/// The promise: a circle is found, whatever imports it or is imported by it, and only a circle.
#[test]
fn a_circle_is_found() {
    let imports = |lines: &[(&str, &[&str])]| -> Imports {
        lines.iter().map(|(module, named)| ((*module).to_owned(), set(named))).collect()
    };
    let straight = imports(&[("top", &["low", "middle"]), ("middle", &["low", "middle"]), ("low", &[])]);
    assert_eq!(circle(&straight), set(&[]));
    let round = imports(&[("top", &["a"]), ("a", &["b"]), ("b", &["c"]), ("c", &["a", "low"]), ("low", &[])]);
    assert_eq!(circle(&round), set(&["a", "b", "c"]));
}
