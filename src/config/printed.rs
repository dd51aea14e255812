//! What is printed of the command line itself: a shell's completions of it, and its manual page.
//!
//! Both are made of the same [`Command`] that reads the command line, so neither can know a flag that is not there, nor lack
//! one. Nothing is read from the environment or a file.
#![forbid(unsafe_code)]

use std::io;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches, Command, ValueHint, value_parser};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

/// What the commands are called.
const COMPLETIONS: &str = "completions";
const MAN: &str = "man";
const SHELL: &str = "shell";

/// The commands that print.
pub(super) fn commands() -> [Command; 2] {
    let shell = Arg::new(SHELL).value_name("SHELL").required(true).value_parser(value_parser!(Shell));
    let completions = Command::new(COMPLETIONS)
        .about("Prints what a shell completes this command line by")
        .arg(shell.help("The shell that is to read it"))
        .after_help("For bash: disrust completions bash > ~/.local/share/bash-completion/completions/disrust");
    let man = Command::new(MAN)
        .about("Prints the manual page")
        .after_help("To read it: disrust man | man -l -; to keep it: disrust man > ~/.local/share/man/man1/disrust.1");
    [completions, man]
}

/// What one of [`commands`] prints of the whole command line.
pub(super) fn print(whole: Command, name: &str, matches: &ArgMatches) -> Vec<u8> {
    if name == COMPLETIONS {
        return completions(whole, *matches.get_one(SHELL).expect("it is required"));
    }
    manual(whole).expect("memory takes what is written")
}

fn completions(command: Command, shell: Shell) -> Vec<u8> {
    let hinted = command.mut_args(hint).mut_subcommands(|command| command.mut_args(hint));
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut { hinted }, "disrust", &mut script);
    script
}

/// Tells what a value can be, as far as its name does: `auto|on|off` are words, a FILE or a PATH is one.
fn hint(argument: Arg) -> Arg {
    let Some([name]) = argument.get_value_names() else { return argument };
    let name = name.to_string();
    let words: Vec<_> = name.split('|').filter(|word| !word.contains(|c: char| c.is_ascii_uppercase())).collect();
    if name.contains("FILE") || name.contains("PATH") || name.contains(".csv") {
        argument.value_hint(ValueHint::FilePath)
    } else if words.len() > 1 {
        argument.value_parser(PossibleValuesParser::new(words.into_iter().map(str::to_owned)))
    } else {
        argument
    }
}

/// One page for the server and its commands.
fn manual(command: Command) -> io::Result<Vec<u8>> {
    let usage = "disrust [OPTIONS]\ndisrust COMMAND [OPTIONS]";
    let mut command = command.disable_help_subcommand(true).override_usage(usage);
    command.build();
    let mut page = Vec::new();
    let server = Man::new(command.clone()).manual("disrust");
    server.render_title(&mut page)?;
    server.render_name_section(&mut page)?;
    server.render_synopsis_section(&mut page)?;
    server.render_description_section(&mut page)?;
    server.render_options_section(&mut page)?;
    section("COMMANDS").to_writer(&mut page)?;
    for command in command.get_subcommands() {
        let usage = command.clone().render_usage().to_string();
        let mut begin = Roff::default();
        begin.control("SS", [command.get_name()]);
        begin.text([bold(usage.trim_start_matches("Usage: "))]);
        begin.control("PP", []);
        begin.text([roman(command.get_about().map(ToString::to_string).unwrap_or_default())]);
        begin.to_writer(&mut page)?;
        let mut options = Vec::new();
        Man::new(command.clone()).render_options_section(&mut options)?;
        // They stand below the command, in no section of their own.
        let options = String::from_utf8(options).expect("the page is text");
        page.extend_from_slice(options.replacen(".SH OPTIONS\n", "", 1).as_bytes());
        paragraphs(&after_help(command)).to_writer(&mut page)?;
    }
    let after = after_help(&command);
    let (exit_status, notes): (Vec<_>, Vec<_>) = after.into_iter().partition(|text| text.starts_with(EXIT_STATUS));
    section("EXIT STATUS").to_writer(&mut page)?;
    let exit_status: Vec<_> = exit_status.iter().map(|text| text.replacen(EXIT_STATUS, "", 1)).collect();
    paragraphs(&exit_status).to_writer(&mut page)?;
    section("NOTES").to_writer(&mut page)?;
    paragraphs(&notes).to_writer(&mut page)?;
    server.render_version_section(&mut page)?;
    Ok(page)
}

/// How the paragraph on it begins.
const EXIT_STATUS: &str = "Exit status: ";

/// The paragraphs that `--help` ends in.
fn after_help(command: &Command) -> Vec<String> {
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    after.split("\n\n").filter(|text| !text.is_empty()).map(str::to_owned).collect()
}

fn section(heading: &str) -> Roff {
    let mut section = Roff::default();
    section.control("SH", [heading]);
    section
}

fn paragraphs(texts: &[String]) -> Roff {
    let mut section = Roff::default();
    for text in texts {
        section.control("PP", []);
        section.text([roman(text)]);
    }
    section
}
