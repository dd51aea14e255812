//! The documents keep their word about the client: a subcommand or an option that they name behind `client` exists, and so
//! does what they hand to it through a script. What else they name is the business of the test of the same name at the top.

#[path = "../../tests/common/documents.rs"]
mod documents;

use std::path::Path;

use documents::{arguments, commands, documents, option, unknown_words};

/// Scripts that hand what they do not know to a subcommand, and how many words they take for themselves.
const HANDED: [(&str, &str, usize); 2] = [("scripts/sweep.sh", "sweep", 0), ("scripts/compare_builds.sh", "run", 3)];

/// What the client does not have of what a document names.
fn command_faults(text: &str) -> Vec<String> {
    let faults = |command: &Vec<String>| -> Vec<String> {
        let unknown = unknown_words(env!("CARGO_BIN_EXE_client"), &words_for_client(command)).into_iter();
        unknown.map(|word| format!("`{}`: the client has no {word}", command.join(" "))).collect()
    };
    commands(text).iter().filter(|command| !words_for_client(command).is_empty()).flat_map(faults).collect()
}

/// The words that the client is given by a command.
fn words_for_client(command: &[String]) -> Vec<String> {
    let handed = HANDED.into_iter().find(|(script, _, _)| command.first().is_some_and(|first| first == script));
    match handed {
        Some((_, subcommand, own)) => {
            let options = command.iter().skip(1 + own).filter(|word| option(word).is_some());
            [subcommand.to_owned()].into_iter().chain(options.cloned()).collect()
        }
        None => arguments(command, "client", "disrust").unwrap_or_default().to_vec(),
    }
}

#[test]
fn commands_of_the_client_that_are_named_exist() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the client is below the top");
    let all = documents(top);
    assert!(all.iter().any(|document| document.path == "PERFORMANCE.md"), "the documents are found");
    let found = all.iter().flat_map(|document| {
        command_faults(&document.text)
            .into_iter()
            .map(|fault| format!("{}: {fault}", document.path))
            .collect::<Vec<_>>()
    });
    let found: Vec<String> = found.collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn planted_commands_are_found() {
    let faults = |span: &str| command_faults(&format!("`{span}`"));
    for right in [
        "client",
        "client 9900 run --rate 50k --json a.json",
        "client --host a run",
        "client unix:/run/a.sock run --rate 50k",
        "cargo run --release --bin client -- PORT pipeline",
        "scripts/sweep.sh --quick --io-threads 1,2",
        "scripts/compare_builds.sh A B 10 --connections 64",
        "cargo run --bin disrust -- --no-option",
        "disrust --port 0",
    ] {
        assert_eq!(faults(right), [""; 0], "{right}");
    }
    for wrong in [
        "client 9900 rnu",
        "client unix:/run/a.sock rnu",
        "client run --raet 50k",
        "client --hots a run",
        "cargo run --release --bin client -- 9900 pipelines",
        "scripts/sweep.sh --quickly",
        "scripts/compare_builds.sh A B 10 --conections 64",
    ] {
        assert_eq!(faults(wrong).len(), 1, "{wrong}");
    }
}
