//! The documents of the repository, the commands that they name, and what a program's `--help` knows.
//!
//! Shared by the tests of the server and of the client, each of which has the binary that it asks. What is no program of
//! this repository is not looked at: nobody can say here what `ethtool` takes.

use std::fs;
use std::path::Path;
use std::process::Command;

/// A document, by its path from the top of the repository.
pub struct Document {
    pub path: String,
    pub text: String,
}

/// All documents that are tracked; or, in a copy that is no repository, all that are there.
pub fn documents(top: &Path) -> Vec<Document> {
    let tracked = Command::new("git").args(["ls-files", "-z", "*.md"]).current_dir(top).output();
    let mut paths = match tracked {
        Ok(output) if output.status.success() && !output.stdout.is_empty() => {
            let paths = String::from_utf8(output.stdout).expect("paths in UTF-8");
            paths.split_terminator('\0').map(str::to_owned).collect()
        }
        _ => below(top, ""),
    };
    paths.sort();
    let read = |path: String| {
        let text = fs::read_to_string(top.join(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        Document { path, text }
    };
    paths.into_iter().map(read).collect()
}

/// Every document in a folder but in those that cargo or git made.
fn below(top: &Path, folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(top.join(folder)).expect("a folder").map(|entry| entry.expect("an entry")) {
        let name = entry.file_name().into_string().expect("a name in UTF-8");
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        let kind = entry.file_type().expect("its kind");
        if kind.is_dir() && name != "target" && !name.starts_with('.') {
            found.append(&mut below(top, &path));
        } else if kind.is_file() && name.ends_with(".md") {
            found.push(path);
        }
    }
    found
}

/// The commands in a document: each line of its blocks of shell, and each span of code, as words.
///
/// A line that ends in a backslash goes on; what comes after a comment, a redirection or a pipe belongs to no program of
/// ours.
pub fn commands(text: &str) -> Vec<Vec<String>> {
    let lists = code(text).into_iter().flat_map(|code| {
        let words = words(&code);
        words.split(|word| matches!(word.as_str(), "&&" | ";" | "|")).map(<[String]>::to_vec).collect::<Vec<_>>()
    });
    let command = |list: Vec<String>| -> Vec<String> {
        let is_assignment = |word: &String| {
            word.split_once('=').is_some_and(|(name, _)| {
                !name.is_empty() && name.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_')
            })
        };
        let ends = |word: &String| word.starts_with('>') || word.starts_with('#') || word.starts_with("2>");
        list.into_iter().skip_while(is_assignment).take_while(|word| !ends(word)).collect()
    };
    lists.map(command).filter(|words| !words.is_empty()).collect()
}

/// Blocks of shell by their lines, and spans of code, in the document's order.
fn code(text: &str) -> Vec<String> {
    let (mut found, mut prose, mut line_before) = (Vec::new(), String::new(), String::new());
    let mut fence: Option<&str> = None;
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), fence) {
            (Some(language), None) => {
                found.append(&mut spans(&prose));
                prose.clear();
                fence = Some(language);
            }
            (Some(_), Some(_)) => fence = None,
            (None, Some("sh")) => match line.strip_suffix('\\') {
                Some(begun) => line_before += begun,
                None => found.push(std::mem::take(&mut line_before) + line),
            },
            (None, Some(_)) => {}
            (None, None) if line.is_empty() => {
                found.append(&mut spans(&prose));
                prose.clear();
            }
            (None, None) => prose = prose + line + "\n",
        }
    }
    found.append(&mut spans(&prose));
    found
}

/// The spans of code in a paragraph.
fn spans(paragraph: &str) -> Vec<String> {
    paragraph.split('`').skip(1).step_by(2).map(|span| span.replace('\n', " ").replace("\\|", "|")).collect()
}

/// Words as a shell sees them, without their quotes.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut is_begun) = (Vec::new(), String::new(), None, false);
    for letter in line.chars() {
        match (letter, quote) {
            (' ', None) if is_begun => {
                words.push(std::mem::take(&mut word));
                is_begun = false;
            }
            (' ', None) => {}
            ('"' | '\'', None) => (quote, is_begun) = (Some(letter), true),
            (_, Some(open)) if open == letter => quote = None,
            _ => {
                word.push(letter);
                is_begun = true;
            }
        }
    }
    if is_begun {
        words.push(word);
    }
    words
}

/// What the words after a program mean, if they are a call of `program`: by itself, from where cargo puts it, or with
/// `cargo run`, which runs `default` if it is not told what.
pub fn arguments<'a>(command: &'a [String], program: &str, default: &str) -> Option<&'a [String]> {
    let [first, rest @ ..] = command else { return None };
    if first == "cargo" {
        let (cargo, rest) = match rest.iter().position(|word| word == "--") {
            Some(at) => (&rest[..at], &rest[at + 1..]),
            None => (rest, &[][..]),
        };
        let binary = cargo.iter().skip_while(|word| *word != "--bin").nth(1).map_or(default, String::as_str);
        return (cargo.first().is_some_and(|word| word == "run") && binary == program).then_some(rest);
    }
    let name = first.strip_prefix("target/release/").unwrap_or(first);
    (name == program).then_some(rest)
}

/// The words that a program is given and does not know: a subcommand, or options.
pub fn unknown_words(program: &str, words: &[String]) -> Vec<String> {
    let help = Help::of(program, &[]);
    let owned = |words: Vec<&str>| words.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let Some(at) = help.subcommand_at(words) else { return owned(help.unknown(words)) };
    if !help.subcommands.contains(&words[at]) {
        return vec![words[at].clone()];
    }
    let of_subcommand = Help::of(program, &[&words[at]]);
    [help.unknown(&words[..at]), of_subcommand.unknown(&words[at + 1..])].into_iter().flat_map(owned).collect()
}

/// Options and subcommands, as a program's `--help` lists them.
pub struct Help {
    options: Vec<Listed>,
    subcommands: Vec<String>,
}

struct Listed {
    name: String,
    has_value: bool,
}

impl Help {
    /// Asks a program, or one of its subcommands.
    pub fn of(program: &str, subcommand: &[&str]) -> Help {
        let output = Command::new(program).args(subcommand).arg("--help").output().expect("the program starts");
        assert!(output.status.success(), "{program} {subcommand:?} --help: {}", output.status);
        Help::parse(&String::from_utf8(output.stdout).expect("help in UTF-8"))
    }

    fn parse(text: &str) -> Help {
        let mut help = Help { options: Vec::new(), subcommands: Vec::new() };
        let mut is_in_commands = false;
        for line in text.lines() {
            let trimmed = line.trim_start();
            if !line.starts_with(' ') {
                is_in_commands = line == "Commands:";
            } else if is_in_commands {
                help.subcommands.extend(trimmed.split(' ').next().map(str::to_owned));
            } else if trimmed.starts_with('-') {
                let names = trimmed.split("  ").next().unwrap_or(trimmed);
                let has_value = names.contains(" <");
                let names = names.split([' ', ',', '[', '=']).filter(|name| name.starts_with('-'));
                help.options.extend(names.map(|name| Listed { name: name.to_owned(), has_value }));
            }
        }
        help
    }

    /// The options among `words` that it does not list.
    pub fn unknown<'a>(&self, words: &'a [String]) -> Vec<&'a str> {
        words.iter().filter_map(|word| option(word)).filter(|option| self.find(option).is_none()).collect()
    }

    /// Where the subcommand is: the first of `words` that is no option, no option's value, and neither a number, nor a
    /// placeholder such as `PORT`, nor an address such as `unix:/a`.
    fn subcommand_at(&self, words: &[String]) -> Option<usize> {
        let mut is_value = false;
        words.iter().position(|word| {
            let is_name = word.starts_with(|letter: char| letter.is_ascii_lowercase()) && !word.contains(':');
            let is_subcommand = !is_value && is_name;
            is_value = self.find(word).is_some_and(|listed| listed.has_value);
            is_subcommand
        })
    }

    fn find(&self, option: &str) -> Option<&Listed> {
        self.options.iter().find(|listed| listed.name == option)
    }
}

/// The name of an option, if a word is one: a dash before a letter, or two.
pub fn option(word: &str) -> Option<&str> {
    let name = word.split('=').next().unwrap_or(word).trim_end_matches([',', ';']);
    let letters = name.strip_prefix("--").or_else(|| name.strip_prefix('-').filter(|rest| rest.len() == 1))?;
    letters.starts_with(|letter: char| letter.is_ascii_alphabetic()).then_some(name)
}

#[test]
fn commands_are_seen_in_blocks_and_in_spans() {
    let text = "Try `client run --rate\n1k`, not `x\\|y`:\n\n```sh\nA=1 disrust \\\n  --port 0 >log # it\na && 'b c'\n```\n\n\
                ```text\nno command\n```\nand `-p 1`";
    let seen: Vec<String> = commands(text).iter().map(|words| words.join("_")).collect();
    assert_eq!(seen, ["client_run_--rate_1k", "x|y", "disrust_--port_0", "a", "b c", "-p_1"]);
}

#[test]
fn a_call_is_known_by_its_program() {
    let words = |line: &str| words(line);
    let of = |line: &str, program| arguments(&words(line), program, "disrust").map(|words| words.join(" "));
    assert_eq!(of("cargo run --release -- --port 1", "disrust").as_deref(), Some("--port 1"));
    assert_eq!(of("cargo run --release --bin client -- 9900 pipeline", "client").as_deref(), Some("9900 pipeline"));
    assert_eq!(of("target/release/client run", "client").as_deref(), Some("run"));
    assert_eq!(of("cargo run --bin client", "disrust"), None);
    assert_eq!(of("cargo test --workspace", "disrust"), None);
    assert_eq!(of("clients run", "client"), None);
}

#[test]
fn help_knows_options_and_subcommands() {
    let help = Help::parse(
        "Talks\n\nUsage: x [OPTIONS]\n\nCommands:\n  run   Runs --this\n  help  Helps\n\nOptions:\n  -p, --port <P>  A port\n      \
         --reuse[=<true|false>]\n          Shares\n",
    );
    let strings = |line: &str| words(line);
    assert_eq!(help.subcommands, ["run", "help"]);
    assert_eq!(
        help.unknown(&strings("run -p 1 --port=2 --reuse --prot 3 -q -1 a-b --this")),
        ["--prot", "-q", "--this"]
    );
    assert_eq!(help.subcommand_at(&strings("--port p 9900 PORT --reuse run")), Some(5));
    assert_eq!(help.subcommand_at(&strings("unix:/a run")), Some(1));
    assert_eq!(help.subcommand_at(&strings("--reuse -p run")), None);
}
