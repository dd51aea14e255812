//! How the log is written, for people or for programs; and which of them is meant before anything else is known.
//!
//! A command line that is refused is a line of the log, too, so the format is looked for in it by itself.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};

/// How lines of the log are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The setting's flag and its variable.
const FLAG: &str = "--log-format";
const VARIABLE: &str = "DISRUST_LOG_FORMAT";

impl LogFormat {
    /// What a command line asks for that may be wrong in everything else; if nothing, then what the environment asks for, and
    /// if that says nothing that is right, then text.
    pub fn of_words(words: &[OsString], environment: impl Fn(&str) -> Option<OsString>) -> LogFormat {
        let words = words.iter().map(|word| word.to_str().unwrap_or_default());
        let words: Vec<&str> = words.take_while(|word| *word != "--").collect();
        let value_at = |at: usize| match words[at].strip_prefix(FLAG)? {
            "" => words.get(at + 1).copied(),
            rest => rest.strip_prefix('='),
        };
        let flag = (0..words.len()).find_map(value_at).and_then(|value| parse_log_format(value).ok());
        let variable = || environment(VARIABLE).as_deref().and_then(OsStr::to_str).map(parse_log_format)?.ok();
        flag.or_else(variable).unwrap_or(LogFormat::Text)
    }
}

pub(super) fn parse_log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("not text or json".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_found_in_a_command_line_that_is_wrong() {
        use LogFormat::{Json, Text};
        for (words, variable, format) in [
            (&["--port", "x", "--log-format", "json"][..], None, Json),
            (&["--log-format=json", "--prot"], Some("text"), Json),
            (&["--log-format", "text"], Some("json"), Text),
            (&["--log-format", "yaml"], Some("json"), Json),
            (&["--log-format"], None, Text),
            (&["--log-formats", "json"], None, Text),
            (&["--", "--log-format=json"], None, Text),
            (&[], Some("json"), Json),
            (&[], Some("yaml"), Text),
            (&[], None, Text),
        ] {
            let words: Vec<_> = words.iter().map(OsString::from).collect();
            let environment = |name: &str| variable.filter(|_| name == VARIABLE).map(OsString::from);
            assert_eq!(LogFormat::of_words(&words, environment), format, "{words:?} {variable:?}");
        }
    }
}
