//! The library: which one, and how it is set up.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use ort::LoadDynamicError;
use ort::environment::Environment;

/// What it is called if nobody says where it is.
const NAME: &str = "libonnxruntime.so";

/// What is set up once, and never released: ort would release it at the end of the process, when the library's own
/// destructors have run, and 1.20 ends with a segmentation fault there.
static ENVIRONMENT: OnceLock<Arc<Environment>> = OnceLock::new();

/// Loads the library and sets it up, unless that has been done.
///
/// # Errors
/// There is none, it is none, or it is too old; says which and where.
pub fn load() -> Result<(), String> {
    if ENVIRONMENT.get().is_some() {
        return Ok(());
    }
    let path = std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()).map_or(NAME.into(), PathBuf::from);
    let builder = ort::init_from(path).map_err(|error| match error {
        // The system's own words, which name the file.
        LoadDynamicError::Dlopen { error, .. } => error.source().map_or_else(|| error.to_string(), ToString::to_string),
        other => other.to_string(),
    })?;
    // What there is to say comes as errors.
    let silent = Arc::new(|_level, _category: &str, _id: &str, _place: &str, _message: &str| {});
    let _first = builder.with_name("disrust").with_telemetry(false).with_logger(silent).commit();
    let environment = Environment::current().map_err(|error| error.to_string())?;
    ENVIRONMENT.get_or_init(|| environment);
    Ok(())
}

/// The version of the library that is loaded: of its file's name, which ends with it (`libonnxruntime.so.1.32.0`); else
/// what it was built from.
pub fn version() -> String {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    maps.lines().find_map(version_of_mapping).unwrap_or_else(|| {
        let commit = ort::info().split(", ").find_map(|part| part.strip_prefix("git-commit-id="));
        commit.unwrap_or("of unknown version").to_owned()
    })
}

/// Of a line of /proc/self/maps, whose paths follow all links.
fn version_of_mapping(line: &str) -> Option<String> {
    let path = &line[line.find('/')?..];
    let version = Path::new(path).file_name()?.to_str()?.strip_prefix(NAME)?.strip_prefix('.')?;
    let is_version = version.starts_with(|letter: char| letter.is_ascii_digit()) && version.contains('.');
    is_version.then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_in_the_names_of_libraries() {
        let of = |path: &str| version_of_mapping(&format!("7f99-7fa0 r-xp 00000000 08:01 1234    {path}"));
        assert_eq!(of("/a b/libonnxruntime.so.1.32.0").as_deref(), Some("1.32.0"));
        for other in
            ["/a/libonnxruntime.so", "/a/libonnxruntime.so.1", "/a/libonnxruntime_providers.so.1.2", "[heap]", ""]
        {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
