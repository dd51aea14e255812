//! Reading a small file that somebody has named, who may have named something else: a pipe, a device, a disk image.
//!
//! Neither the open nor the reads wait for anybody, and no more is read than a bound. Devices are not even opened: for
//! some that has consequences.

use std::fs::{FileType, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use thiserror::Error;

/// Why a file was not read.
#[derive(Debug, Error)]
pub enum ReadFileError {
    /// It is something else, which this says, with its article.
    #[error("is {0}, not a regular file")]
    NotRegular(&'static str),
    /// It is a pipe.
    #[error(
        "is a pipe, not a regular file (as are <(…) and, after a |, /dev/stdin). Write it to a file first and name that"
    )]
    Pipe,
    /// It is larger than may be read.
    #[error("is larger than {0} bytes")]
    TooLarge(u64),
    /// The system does not let us.
    #[error("cannot be read: {0}")]
    System(#[from] io::Error),
}

/// The content of the regular file at `path`, of at most `bytes_max` bytes.
///
/// # Errors
/// See [`ReadFileError`].
pub fn read_regular_file(path: &Path, bytes_max: u64) -> Result<Vec<u8>, ReadFileError> {
    check_type(&std::fs::metadata(path)?)?;
    // It may be replaced until it is open: O_NONBLOCK does not wait for a pipe's writer, O_NOCTTY takes no terminal (open(2)).
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    check_type(&file.metadata()?)?;
    // It may grow, and files in /proc say that they are empty: what comes counts, not what the metadata say.
    let mut content = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut content)?;
    if content.len() as u64 > bytes_max {
        return Err(ReadFileError::TooLarge(bytes_max));
    }
    Ok(content)
}

fn check_type(metadata: &Metadata) -> Result<(), ReadFileError> {
    match metadata.file_type() {
        regular if regular.is_file() => Ok(()),
        pipe if pipe.is_fifo() => Err(ReadFileError::Pipe),
        other => Err(ReadFileError::NotRegular(name_of(other))),
    }
}

fn name_of(file_type: FileType) -> &'static str {
    match file_type {
        folder if folder.is_dir() => "a directory",
        socket if socket.is_socket() => "a socket",
        _ => "a device",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_the_bound() {
        let path = std::env::temp_dir().join(format!("disrust-{}-bounded", std::process::id()));
        std::fs::write(&path, "four").expect("the folder for temporary files can be written");
        let outcomes = [5, 4, 3].map(|bytes_max| read_regular_file(&path, bytes_max));
        std::fs::remove_file(&path).expect("it is ours");
        let [Ok(below), Ok(at), Err(ReadFileError::TooLarge(3))] = outcomes else { panic!("{outcomes:?}") };
        assert_eq!((&below[..], &at[..]), (&b"four"[..], &b"four"[..]));
        assert!(matches!(read_regular_file(&path, 4), Err(ReadFileError::System(_))));
    }

    #[test]
    fn what_never_ends_is_not_read() {
        assert!(matches!(read_regular_file("/dev/zero".as_ref(), 4), Err(ReadFileError::NotRegular("a device"))));
        assert!(matches!(read_regular_file("/".as_ref(), 4), Err(ReadFileError::NotRegular("a directory"))));
        // Says that it is of 0 bytes, and is not.
        assert!(matches!(read_regular_file("/proc/self/maps".as_ref(), 4), Err(ReadFileError::TooLarge(4))));
    }
}
