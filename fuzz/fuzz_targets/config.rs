//! Settings: whatever the command line and the file say, settings or an error with a message.
#![no_main]

use std::ffi::OsString;

use arbitrary::Arbitrary;
use disrust::config::{CommandLine, Config, ConfigError};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    flags: Vec<&'a str>,
    file: Option<&'a str>,
}

fuzz_target!(|input: Input<'_>| {
    let mut words: Vec<OsString> = vec!["disrust".into()];
    words.extend(input.flags.iter().map(OsString::from));
    if let Some(text) = input.file {
        let path = std::env::temp_dir().join(format!("disrust-fuzz-{}.toml", std::process::id()));
        std::fs::write(&path, text).expect("the temporary folder can be written to");
        words.extend(["--config".into(), path.into_os_string()]);
    }
    let config = match CommandLine::read(words) {
        Ok(CommandLine::Serve(flags)) => flags.config(),
        Ok(CommandLine::Verify(options)) => return assert!(!options.rows.0.is_empty()),
        Ok(CommandLine::Print(text)) => return assert!(!text.is_empty()),
        Ok(CommandLine::Health(flags)) => flags.address().map(|_| Config::default()),
        Err(error) => Err(error),
    };
    match config {
        Ok(config) => assert!(config.features != Some(0) && config.io_threads != Some(0)),
        Err(error @ ConfigError::File { .. }) => assert!(!error.to_string().is_empty()),
        Err(ConfigError::Usage(error)) => assert!(!error.render().to_string().is_empty()),
    }
});
