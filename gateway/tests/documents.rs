//! The documents keep their word about the gateway: options that they name behind `disrust-gateway`, or alone in docs/GATEWAY.md, exist; and
//! the table of its flags is whole, with the defaults that the program has. What else they name is the business of the test of the same
//! name at the top.

mod common;
#[path = "../../tests/common/documents.rs"]
mod documents;

use std::path::Path;
use std::process::Command;

use common::{GatewayProcess, Stub};
use documents::{Document, arguments, commands, documents, option, unknown_words};

const GATEWAY: &str = env!("CARGO_BIN_EXE_disrust-gateway");
const OWN: &str = "docs/GATEWAY.md";

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the gateway is below the top")
}

/// What the gateway does not have of what a document names.
fn command_faults(document: &Document) -> Vec<String> {
    let faults = |command: &Vec<String>| -> Vec<String> {
        let words = match arguments(command, "disrust-gateway", "disrust") {
            Some(words) => words,
            None if document.path == OWN && option(&command[0]).is_some() => command,
            None => return Vec::new(),
        };
        let unknown = unknown_words(GATEWAY, words).into_iter();
        unknown.map(|word| format!("`{}`: the gateway has no {word}", command.join(" "))).collect()
    };
    commands(&document.text).iter().flat_map(faults).collect()
}

#[test]
fn commands_of_the_gateway_that_are_named_exist() {
    let all = documents(top());
    assert!(all.iter().any(|document| document.path == OWN), "the documents are found");
    let found = all.iter().flat_map(|document| {
        command_faults(document).into_iter().map(|fault| format!("{}: {fault}", document.path)).collect::<Vec<_>>()
    });
    let found: Vec<String> = found.collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// The blocks that ask with curl, as they stand but for the port, are answered as the block behind them says.
#[test]
fn what_is_asked_with_curl_is_answered_so() {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("skipped: there is no curl");
        return;
    }
    let server = Stub::start(16, 1);
    let gateway = GatewayProcess::before(&server, &[]);
    for path in ["README.md", OWN] {
        let text = std::fs::read_to_string(top().join(path)).expect("it is there");
        let (_, rest) =
            text.split_once("```sh\ncurl -s http://127.0.0.1:8000/").unwrap_or_else(|| panic!("{path} asks"));
        let (asked, rest) = rest.split_once("\n```\n\n```json\n").unwrap_or_else(|| panic!("{path} has an answer"));
        let (answered, _) = rest.split_once("\n```").expect("the block ends");
        let command = format!("curl -s http://{}/{asked}", gateway.address());
        let output = Command::new("bash").args(["-c", &command]).output().expect("bash is there");
        assert_eq!(String::from_utf8_lossy(&output.stdout), answered, "{path}: {command}");
    }
}

#[test]
fn the_table_of_flags_is_that_of_help() {
    let text = std::fs::read_to_string(top().join(OWN)).expect("it is there");
    let table =
        text.split("<!-- gateway:flags -->").nth(1).and_then(|rest| rest.split("<!-- /gateway:flags -->").next());
    let rows: Vec<Vec<String>> = table
        .expect("the table has its marks")
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.replace("\\|", "¦").split('|').map(|cell| cell.trim().replace('¦', "|")).collect())
        .collect();
    let output = Command::new(GATEWAY).arg("--help").output().expect("it starts");
    let help = String::from_utf8(output.stdout).expect("UTF-8");
    let listed = help.lines().filter_map(|line| line.trim_start().strip_prefix("--").map(|_| line.trim().to_owned()));
    let listed: Vec<String> =
        listed.map(|line| line.replace(['<', '>'], "").split("  ").next().unwrap_or_default().to_owned()).collect();
    let written: Vec<String> = rows.iter().map(|row| row[1].trim_matches('`').to_owned()).collect();
    assert_eq!(written, listed, "the flags in the order of --help");
    let flat = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for row in rows {
        let (flag, default) = (row[1].trim_matches('`').split(' ').next().expect("a flag"), &row[2]);
        let about = flat.split(&format!("{flag} <")).nth(1).unwrap_or_else(|| panic!("{flag}: {flat}"));
        let about = about.split(" --").next().expect("a first part");
        assert!(about.contains(&format!("[default: {default}]")), "{flag} {default}: {about}");
    }
}
