//! The rooms of `src/` import downwards only, in the order that the map (`src/lib.rs`) tells.

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms from the top to the bottom, as the map lists them: those of one step do not know each other.
fn steps(map: &str) -> Vec<Vec<&str>> {
    let is_list = |line: &&str| line.contains(" → ") && line.starts_with("//! main");
    let list = map.lines().find(is_list).expect("the map tells the order");
    list.trim_start_matches("//! ").split(" → ").map(|step| step.split(", ").collect()).collect()
}

/// Every Rust file below, with the room that it is in.
fn files(folder: &Path, room: Option<&str>, found: &mut Vec<(String, PathBuf)>) {
    for entry in fs::read_dir(folder).expect("a folder of sources").map(|entry| entry.expect("an entry")) {
        let path = entry.path();
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name in ASCII").to_owned();
        let room = room.unwrap_or(&name);
        if path.is_dir() {
            files(&path, Some(room), found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push((room.to_owned(), path));
        }
    }
}

/// The rooms that a source names, in `use` lines or elsewhere; not in comments.
fn imported(source: &str) -> Vec<String> {
    let code: Vec<&str> = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join(" ");
    let mut rooms = Vec::new();
    for prefix in ["crate::", "disrust::"] {
        for (at, _) in code.match_indices(prefix) {
            let rest = &code[at + prefix.len()..];
            assert!(!rest.starts_with('{'), "one `use` a room, so that this test can read it");
            rooms.push(rest.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect());
        }
    }
    rooms
}

#[test]
fn rooms_import_downwards_only() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let map = fs::read_to_string(source.join("lib.rs")).expect("the map");
    let steps = steps(&map);
    let step_of = |room: &str| steps.iter().position(|step| step.contains(&room));
    let mut found = Vec::new();
    files(&source, None, &mut found);
    assert!(found.len() > 20 && steps.len() > 5, "the sources and the order are found");
    for (room, path) in found.iter().filter(|(room, _)| room != "lib") {
        let own = step_of(room).unwrap_or_else(|| panic!("{} is not on the map", path.display()));
        let text = fs::read_to_string(path).expect("a source");
        for other in imported(&text).iter().filter(|other| *other != room) {
            let Some(theirs) = step_of(other) else { panic!("{} names {other}, which is no room", path.display()) };
            assert!(theirs > own, "{} ({room}) imports {other}, which is not below it", path.display());
        }
    }
}

#[test]
fn a_list_of_rooms_in_one_use_and_names_in_code_are_seen() {
    assert_eq!(
        imported("use crate::limits::{A, B};\n// crate::not\nlet x = crate::kernel::y();"),
        ["limits", "kernel"]
    );
}
