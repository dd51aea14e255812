//! What the environment and the config file say, each setting read as the flag of its name.
//!
//! What is overridden is not looked at in the environment, and must be right in the file all the same.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::error::ErrorKind;
use clap::{Arg, CommandFactory, FromArgMatches};

use super::{Arguments, ConfigError, Settings};
use crate::kernel::read_regular_file;
use crate::limits::CONFIG_FILE_BYTES_MAX;

/// The environment variable of a flag.
pub(super) fn variable_of(argument: &Arg) -> String {
    format!("DISRUST_{}", key_of(argument).replace('-', "_").to_uppercase())
}

/// A flag without its dashes.
pub(super) fn key_of(argument: &Arg) -> &str {
    argument.get_long().expect("all arguments are long flags")
}

/// Adds its variable to what `--help` says of a flag.
pub(super) fn name_variable(argument: Arg) -> Arg {
    let help = argument.get_help().expect("all flags are documented");
    let help = format!("{help} [env: {}]", variable_of(&argument));
    argument.help(help)
}

/// Reads the environment, as far as it counts: what a flag has set is not even looked at.
///
/// Systemd units and Compose files say `DISRUST_PORT=` for a variable that is not set: so it is taken.
pub(super) fn read_environment(
    counts: impl Fn(&Arg) -> bool,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Arguments, String> {
    let mut read = Arguments::default();
    for argument in Arguments::command().get_arguments().filter(|argument| counts(argument)) {
        let (key, variable) = (key_of(argument), variable_of(argument));
        let Some(value) = environment(&variable).filter(|value| !value.is_empty()) else { continue };
        let setting = parse_setting(key, &value).map_err(|reason| {
            format!("{variable} in the environment is {value:?}: {reason}; unset it, or give --{key}, which beats it")
        })?;
        read = read.or(setting);
    }
    Ok(read)
}

/// Reads a config file: each key as the flag of that name, so that both take the same values. All of it must be right,
/// also what flags or the environment override.
pub(super) fn read_file(path: &Path) -> Result<Settings, ConfigError> {
    let wrong = |message: String| ConfigError::File { path: path.to_owned(), message };
    let bytes = read_regular_file(path, CONFIG_FILE_BYTES_MAX).map_err(|error| wrong(error.to_string()))?;
    let text = str::from_utf8(&bytes).map_err(|error| wrong(format!("is not text in UTF-8: {error}")))?;
    parse_file(text).map_err(wrong)
}

pub(super) fn parse_file(text: &str) -> Result<Settings, String> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    let known = Settings::command();
    let mut read = Settings::default();
    for (key, value) in &table {
        if !known.get_arguments().any(|argument| key_of(argument) == key) {
            return Err(format!("unknown key '{key}'; the keys are the long flags without their dashes"));
        }
        let value = match value {
            toml::Value::String(text) => text.clone(),
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(truth) => truth.to_string(),
            other => {
                return Err(format!(
                    "the value of '{key}' is of type {}, not a text, a number or a truth",
                    other.type_str()
                ));
            }
        };
        let setting = parse_setting(key, value.as_ref())
            .map_err(|reason| format!("the value of '{key}' is {value:?}: {reason}"))?;
        read = read.or(setting.settings);
    }
    Ok(read)
}

/// Reads one value as that of the flag `--key`; an error is the reason alone.
pub(super) fn parse_setting(key: &str, value: &OsStr) -> Result<Arguments, String> {
    let mut flag = OsString::from(format!("--{key}="));
    flag.push(value);
    // Without a program's name.
    let command = Arguments::command().no_binary_name(true);
    let matches = command.try_get_matches_from([flag]).map_err(|error| reason_of(&error))?;
    Arguments::from_arg_matches(&matches).map_err(|error| reason_of(&error))
}

/// Why clap does not take a value, without the flag's name.
pub(super) fn reason_of(error: &clap::Error) -> String {
    match (std::error::Error::source(error), error.kind()) {
        (Some(reason), _) => reason.to_string(),
        (None, ErrorKind::InvalidUtf8) => "not text in UTF-8".to_owned(),
        // Of our flags' values, only an empty text is refused by clap itself.
        (None, _) => "a value is missing".to_owned(),
    }
}
