//! The documents keep their word: a marked table has rows, and says when and where they were measured; a command that is
//! named exists, with its options; so does a file.
//!
//! What the client takes is asked of the client, by `bench-client/tests/documents.rs`. An option that stands alone in a
//! document, such as `--port`, is the server's: those of other programs are named behind their program. In docs/GATEWAY.md, what
//! stands alone is the gateway's, and looked at by `gateway/tests/documents.rs`.

#[path = "common/documents.rs"]
mod documents;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use documents::{arguments, commands, documents, option, unknown_words};

/// The tables of these names are made of the source, not measured.
const MADE_OF_SOURCE: [&str; 4] = ["metrics", "metrics:prometheus", "metrics:gateway", "gateway:flags"];

/// Scripts hand what they do not know to the client, whose test knows it.
const HANDED_TO_CLIENT: [&str; 2] = ["scripts/sweep.sh", "scripts/compare_builds.sh"];

/// Options that only a server with `--features metrics` has.
const WITH_METRICS: [&str; 1] = ["--metrics-interval"];

/// A word of a document is a path if it begins so.
const FOLDERS: [&str; 13] = [
    ".ci/",
    "bench-client/",
    "benches/",
    "clients/",
    "deploy/",
    "docs/",
    "fuzz/",
    "gateway/",
    "model/",
    "protocol/",
    "scripts/",
    "src/",
    "tests/",
];

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What is wrong with the marked tables of a document.
fn table_faults(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut open: Option<(&str, Vec<&str>)> = None;
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        match (mark(line), open.as_mut()) {
            (None, None) => {}
            (None, Some((_, inside))) => inside.push(line),
            (Some(name), None) if !name.starts_with('/') => open = Some((name, Vec::new())),
            (Some(name), Some((begun, inside))) if name.strip_prefix('/') == Some(*begun) => {
                let rows = inside.iter().filter(|line| line.starts_with('|')).count();
                if rows < 3 {
                    faults.push(format!("{begun} is empty"));
                }
                let after = lines.clone().find(|line| !line.is_empty());
                let mut told = inside.iter().copied().chain(after).filter(|line| !line.starts_with('|'));
                if !MADE_OF_SOURCE.contains(begun) && !told.any(is_source) {
                    faults.push(format!("{begun} has no line with a day and a machine"));
                }
                open = None;
            }
            (Some(name), _) => faults.push(format!("the mark {name} is not where it belongs")),
        }
    }
    faults.extend(open.map(|(name, _)| format!("{name} is not closed")));
    faults
}

/// The name in a line that is a mark.
fn mark(line: &str) -> Option<&str> {
    line.strip_prefix("<!-- ")?.strip_suffix(" -->").filter(|name| !name.contains(' '))
}

/// Whether a line says when and on which machine something was measured.
fn is_source(line: &str) -> bool {
    let is_day = |window: &[u8]| {
        let shape = window.iter().enumerate();
        shape.into_iter().all(|(at, byte)| if matches!(at, 4 | 7) { *byte == b'-' } else { byte.is_ascii_digit() })
    };
    line.as_bytes().windows(10).any(is_day) && line.contains("Linux ") && line.contains(" CPU")
}

/// What does not exist of the commands and files that a document names.
fn command_faults(text: &str) -> Vec<String> {
    faults_of_all(commands(text).into_iter())
}

fn faults_of_all(commands: impl Iterator<Item = Vec<String>>) -> Vec<String> {
    let faults = |command: Vec<String>| -> Vec<String> {
        faults_of(&command).into_iter().map(|fault| format!("`{}`: {fault}", command.join(" "))).collect()
    };
    commands.flat_map(faults).collect()
}

fn faults_of(command: &[String]) -> Vec<String> {
    let [first, rest @ ..] = command else { return Vec::new() };
    if option(first).is_some() {
        return unknown_to_server(command);
    }
    if let Some(words) = arguments(command, "disrust", "disrust") {
        return unknown_to_server(words);
    }
    match first.as_str() {
        "cargo" => target_faults(rest),
        "bash" => rest.split_first().map_or(Vec::new(), |(script, words)| script_faults(script, words)),
        script if script.ends_with(".sh") || script == ".ci/run" => script_faults(script, rest),
        path if rest.is_empty() && FOLDERS.iter().any(|folder| path.starts_with(folder)) && !exists(path) => {
            vec![format!("{path} is not there")]
        }
        _ => Vec::new(),
    }
}

fn unknown_to_server(words: &[String]) -> Vec<String> {
    let unknown = unknown_words(env!("CARGO_BIN_EXE_disrust"), words).into_iter();
    let unknown = unknown.filter(|word| cfg!(feature = "metrics") || !WITH_METRICS.contains(&word.as_str()));
    unknown.map(|word| format!("the server has no {word}")).collect()
}

/// Whether a path is there; `{a,b}` and `*` are not looked at.
fn exists(path: &str) -> bool {
    path.contains(['{', '*']) || top().join(path).exists()
}

/// A test or bench that cargo is told to run, and the option that it is given.
fn target_faults(cargo: &[String]) -> Vec<String> {
    let mut faults = Vec::new();
    for (option, folder) in [("--test", "tests"), ("--bench", "benches")] {
        let Some(name) = cargo.iter().skip_while(|word| *word != option).nth(1) else { continue };
        let paths = [format!("{folder}/{name}.rs"), format!("{folder}/{name}/main.rs")];
        let Some(text) = paths.iter().find_map(|path| fs::read_to_string(top().join(path)).ok()) else {
            faults.push(format!("there is no {name} in {folder}"));
            continue;
        };
        let given = cargo.iter().skip_while(|word| *word != "--").filter(|word| word.len() > 2);
        let unknown = given.filter(|word| word.starts_with("--") && !text.contains(word.as_str()));
        faults.extend(unknown.map(|word| format!("{name} has no {word}")));
    }
    let binary = cargo.iter().skip_while(|word| *word != "--bin").nth(1);
    faults.extend(
        binary
            .filter(|name| !["disrust", "client", "disrust-gateway"].contains(&name.as_str()))
            .map(|name| format!("there is no program {name}")),
    );
    faults
}

/// A script, and its options, which it names in its text.
fn script_faults(path: &str, words: &[String]) -> Vec<String> {
    let (Ok(text), Ok(about)) = (fs::read_to_string(top().join(path)), fs::metadata(top().join(path))) else {
        return vec![format!("{path} is not there")];
    };
    let mut faults = Vec::new();
    if about.permissions().mode() & 0o111 == 0 {
        faults.push(format!("{path} is not executable"));
    }
    let known: Vec<&str> = text.split(|letter: char| !(letter.is_alphanumeric() || letter == '-')).collect();
    let options = words.iter().filter_map(|word| option(word)).filter(|option| !known.contains(option));
    if !HANDED_TO_CLIENT.contains(&path) {
        faults.extend(options.map(|option| format!("{path} has no {option}")));
    }
    faults
}

/// Links to files that are not there.
fn link_faults(document: &str, text: &str) -> Vec<String> {
    let folder = Path::new(document).parent().expect("a document is in a folder");
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#', ' ']).next());
    let files = targets.filter(|target| !target.is_empty() && !target.contains("://"));
    let missing = files.filter(|target| !top().join(folder).join(target).exists());
    missing.map(|target| format!("the link to {target} leads nowhere")).collect()
}

fn assert_none(faults: impl Fn(&documents::Document) -> Vec<String>) {
    let all = documents(top());
    assert!(all.iter().any(|document| document.path == "README.md"), "the documents are found");
    let found = all.iter().flat_map(|document| {
        faults(document).into_iter().map(|fault| format!("{}: {fault}", document.path)).collect::<Vec<_>>()
    });
    let found: Vec<String> = found.collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn marked_tables_have_rows_and_say_when_and_where() {
    assert_none(|document| table_faults(&document.text));
}

#[test]
fn commands_and_files_that_are_named_exist() {
    assert_none(|document| match document.path.as_str() {
        "docs/GATEWAY.md" => {
            faults_of_all(commands(&document.text).into_iter().filter(|words| option(&words[0]).is_none()))
        }
        _ => command_faults(&document.text),
    });
}

#[test]
fn links_lead_to_files() {
    assert_none(|document| link_faults(&document.path, &document.text));
}

/// The table of what is supported names each operator of ONNX that the reader computes.
#[test]
fn supported_operators_are_listed() {
    let read = |path: &str| fs::read_to_string(top().join(path)).expect("it is there");
    let (source, guide) = (read("model/src/read/onnx/operators/mod.rs"), read("docs/MODELS.md"));
    let listed = guide.lines().find(|line| line.starts_with("| ONNX (")).expect("a line for ONNX");
    let listed: Vec<&str> = listed.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let computed = source.lines().filter(|line| line.trim_start().starts_with("(DOMAIN"));
    let operators: Vec<&str> = computed.flat_map(|line| line.split('"').skip(1).step_by(2)).collect();
    assert!(operators.len() > 40, "{operators:?}");
    let missing: Vec<_> = operators.iter().filter(|operator| !listed.contains(operator)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn planted_tables_are_found() {
    let table = "| a |\n|---|\n| 1 |\n";
    let source = "Linux 6.18, 2 CPUs, 2026-11-24; five runs.";
    let of = |text: &str| table_faults(text).join("; ");
    assert_eq!(of(&format!("<!-- a:b -->\n{table}\n{source}\n<!-- /a:b -->\n<!-- a comment -->")), "");
    assert_eq!(of(&format!("<!-- a -->\n{table}<!-- /a -->\n\n{source}\n")), "");
    assert_eq!(of(&format!("<!-- metrics -->\n{table}<!-- /metrics -->\ntext\n")), "");
    assert_eq!(of("<!-- metrics -->\n| a |\n|---|\n<!-- /metrics -->\n"), "metrics is empty");
    assert_eq!(of(&format!("<!-- a -->\n<!-- /a -->\n{source}")), "a is empty");
    assert_eq!(
        of(&format!("<!-- a -->\n{table}\nLinux 6.18, 2 CPUs\n<!-- /a -->\n\ntext\n\n{source}")),
        "a has no line with a day and a machine"
    );
    assert_eq!(of(&format!("<!-- a -->\n{table}{source}\n")), "a is not closed");
    assert_eq!(of("<!-- /a -->\n"), "the mark /a is not where it belongs");
    assert_eq!(of("<!-- a -->\n<!-- /b -->\n"), "the mark /b is not where it belongs; a is not closed");
}

#[test]
fn planted_commands_are_found() {
    let faults = |span: &str| command_faults(&format!("`{span}`"));
    for right in [
        "disrust --port 0 -h",
        "--wait spin",
        "--metrics-interval 1s",
        "cargo run --release -- --io-threads 2",
        "cargo run --bin client -- 9900 anything --at-all",
        "cargo bench --bench buffer_pool_bench -- --pool-sizes",
        "cargo test --test simulation conformance",
        "scripts/faults.sh --quick",
        "scripts/sweep.sh --quick --connections 1",
        "bash .ci/run",
        "src/lib.rs",
        "ethtool --nothing",
    ] {
        assert_eq!(faults(right), [""; 0], "{right}");
    }
    for wrong in [
        "disrust --prot 0",
        "disrust sevre",
        "--wiat spin",
        "cargo run --release -- --io-thread 2",
        "cargo run --bin cleint",
        "cargo bench --bench buffer_pool_bench -- --pool-seizes",
        "cargo bench --bench buffer_pool",
        "cargo test --test simulations",
        "scripts/fault.sh",
        "scripts/faults.sh --quickly",
        "bash .ci/runs",
        "src/server.rs",
    ] {
        assert_eq!(faults(wrong).len(), 1, "{wrong}");
    }
    assert_eq!(script_faults("Cargo.toml", &[]), ["Cargo.toml is not executable"]);
}

#[test]
fn planted_links_are_found() {
    assert_eq!(link_faults("README.md", "[a](LICENSE-MIT) [b](https://x.y/z) [c](#d) ![e](no.svg)").len(), 1);
    assert_eq!(
        link_faults("tests/mutations/README.md", "[a](../imports.rs#x) [b](README.md) [c](LICENSE-MIT)").len(),
        1
    );
}
