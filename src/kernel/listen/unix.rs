//! One listening Unix socket for all I/O threads, at a path; and who may have that path.
//!
//! A path is a file's, which outlives its socket, and which anybody can replace who may write in its folder. So:
//! - Whoever starts or stops locks the folder (flock(2), which leaves nothing behind and reaches into other containers that have
//!   the folder too). The lock is held from binding until listening.
//! - What is no socket is left alone. A socket that nobody has open any more is replaced. One that somebody has is replaced only
//!   where that is meant: ours is bound under a name of its own, and takes the path when it listens, so that at each
//!   moment there is somebody to connect to.
//! - The file gets its mode before the socket listens, so that nobody connects who may not.
//! - When a server stops, it takes away the file if that is still its own, by device and inode. It keeps its socket open until
//!   then, so that nobody else's can have that inode.

use std::ffi::CString;
use std::fs::{self, File, FileType, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;

use super::port_owner::Owner;
use crate::limits::LISTEN_BACKLOG;

/// How long others who start in the same folder are waited for.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// The same in a stop.
const STOP_PATIENCE: Duration = Duration::from_millis(50);

/// How often a lock that is taken is tried again.
const LOCK_RETRY: Duration = Duration::from_millis(2);

/// How long a socket without a process is waited for: a process that was killed with an io_uring lets go of it only when the
/// kernel has worked off the ring.
const ORPHAN_PATIENCE: Duration = Duration::from_secs(2);

/// What is put behind a path for a socket that is to take it over.
const SUCCESSOR: &str = ".new";

/// An address holds 108 bytes (unix(7)), the last of which is zero; a successor's must fit, too.
const PATH_BYTES_MAX: usize = 108 - 1 - SUCCESSOR.len();

/// A socket that listens at a path, or will, shared by all I/O threads.
#[derive(Debug, Clone)]
pub struct PathListener(pub(in crate::kernel) Arc<OwnedFd>);

/// Why a path can't be served.
#[derive(Debug, Error)]
pub enum BindPathError {
    /// No address holds it.
    #[error(
        "the path {path} has {bytes} bytes, and a Unix socket's has {PATH_BYTES_MAX} at most. Give --unix a shorter one, such \
         as /run/disrust.sock"
    )]
    TooLong {
        /// The path as given.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// Something else is there.
    #[error("cannot listen at {path}: {kind} is there, and is left alone. Give --unix another path, or take that away")]
    NoSocket {
        /// The path as given.
        path: PathBuf,
        /// What is there.
        kind: &'static str,
    },
    /// Another process has its socket there, and this one was not to take it over.
    #[error(
        "the Unix socket {path} is already served by {owner}. Choose another --unix, stop that process, or, to take the path \
         over from it on purpose (a rolling restart), start with --reuse-port"
    )]
    Taken {
        /// The path as given.
        path: PathBuf,
        /// Who has it open, as far as we may know.
        owner: Owner,
    },
    /// Another server has been starting or stopping in the folder all the time.
    #[error(
        "another server is starting or stopping in the folder {folder}, and has not come to an end for {START_PATIENCE:?}. Try \
         again; if no other disrust is there, a foreign program holds a lock (flock) on the folder: stop it, or give \
         --unix another folder"
    )]
    Locked {
        /// The folder.
        folder: PathBuf,
    },
    /// The system refuses it.
    #[error("cannot {what} for the Unix socket {path}: {source}{hint}")]
    Other {
        /// The path as given.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
        /// What to try, if we know.
        hint: &'static str,
    },
}

/// A socket that is bound, and does not listen yet. The lock on the folder is held as long as there is one.
#[derive(Debug)]
pub struct BoundPath {
    path: PathBuf,
    place: Place,
    socket: Arc<OwnedFd>,
}

/// A path that is served.
#[derive(Debug)]
pub struct ServedPath(Place);

/// Binds a socket for `path`, with the mode that its file is to have. With `takes_over` the path may be another process's, who
/// keeps it until [`BoundPath::listen`].
///
/// It may wait for others who start or stop in the same folder, for seconds.
///
/// # Errors
/// See [`BindPathError`]. Nothing is bound then, and what is at the path is as it was, unless nobody had it open.
pub fn bind_path(path: &Path, mode: u32, takes_over: bool) -> Result<BoundPath, BindPathError> {
    let bytes = path.as_os_str().len();
    if bytes > PATH_BYTES_MAX {
        return Err(BindPathError::TooLong { path: path.to_owned(), bytes });
    }
    let folder = lock_folder(path)?;
    let begun_at = Instant::now();
    loop {
        let found = find(path)?;
        let name = match found {
            Found::Foreign(kind) => return Err(BindPathError::NoSocket { path: path.to_owned(), kind }),
            Found::Nothing => path.to_owned(),
            Found::Abandoned => {
                remove(path).map_err(failed(path, "take away the file that a former server has left"))?;
                path.to_owned()
            }
            Found::Live if takes_over => successor(path)?,
            Found::Live => {
                let owner = Owner::of_path(path, &name_of_successor(path));
                if !owner.is_known() && begun_at.elapsed() < ORPHAN_PATIENCE {
                    std::thread::sleep(ORPHAN_PATIENCE / 100);
                    continue;
                }
                return Err(BindPathError::Taken { path: path.to_owned(), owner });
            }
        };
        return bind(path, name, mode, folder);
    }
}

impl BoundPath {
    /// Where it will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// For an I/O thread.
    pub fn listener(&self) -> PathListener {
        PathListener(Arc::clone(&self.socket))
    }

    /// Listens, and takes the path over if it was another's: from now on connections come. Lets others start in the folder.
    ///
    /// # Errors
    /// See [`BindPathError`].
    pub fn listen(self) -> Result<ServedPath, BindPathError> {
        let BoundPath { path, mut place, socket } = self;
        let listening = socket2::SockRef::from(&*socket).listen(LISTEN_BACKLOG);
        listening.map_err(failed(&path, "listen"))?;
        if place.name != path {
            fs::rename(&place.name, &path).map_err(failed(&path, "take the path over"))?;
            place.name = path;
        }
        place.folder.unlock().map_err(failed(&place.name, "unlock the folder"))?;
        Ok(ServedPath(place))
    }
}

impl ServedPath {
    /// Begins the end: nobody finds this server at its path any more. Does not sleep, but waits for 50 ms at most for one who
    /// starts in the folder.
    pub fn begin_handover(&mut self) {
        self.0.leave();
    }
}

/// A socket's file. It goes when this is dropped, if it has not gone before.
#[derive(Debug)]
struct Place {
    name: PathBuf,
    /// Device and inode, until it has gone.
    file: Option<(u64, u64)>,
    folder: File,
    /// Nobody else's file is that inode as long as this is open.
    _socket: Arc<OwnedFd>,
}

impl Place {
    /// Takes the file away, unless it is another's by now, or somebody who starts does not come to an end.
    fn leave(&mut self) {
        let Some(file) = self.file else { return };
        if !matches!(lock(&self.folder, STOP_PATIENCE), Ok(true)) {
            return;
        }
        let outcome = match fs::symlink_metadata(&self.name) {
            Ok(found) if (found.dev(), found.ino()) == file => fs::remove_file(&self.name),
            Ok(_) | Err(_) => Ok(()),
        };
        if let Err(error) = outcome {
            let path = self.name.display();
            tracing::warn!(%path, %error, "the Unix socket's file stays; the next server that starts replaces it");
        }
        self.file = None;
        // It goes with the descriptor in any case.
        let _held_until_dropped = self.folder.unlock();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

fn bind(path: &Path, name: PathBuf, mode: u32, folder: File) -> Result<BoundPath, BindPathError> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed(path, "have a socket"))?;
    let address = SockAddr::unix(&name).map_err(failed(path, "make an address"))?;
    socket.bind(&address).map_err(failed(path, "make the file"))?;
    let socket = Arc::new(OwnedFd::from(socket));
    let found = fs::symlink_metadata(&name).map_err(failed(path, "find the file"))?;
    let file = Some((found.dev(), found.ino()));
    let place = Place { name, file, folder, _socket: Arc::clone(&socket) };
    set_mode(&place.name, mode).map_err(failed(path, "set the mode of the file"))?;
    Ok(BoundPath { path: path.to_owned(), place, socket })
}

/// Does not follow a link that somebody has put there meanwhile.
fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: fchmodat(2) reads a path that ends with zero, which outlives the call.
    let outcome = unsafe { libc::fchmodat(libc::AT_FDCWD, path.as_ptr(), mode, libc::AT_SYMLINK_NOFOLLOW) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What there is at a path.
enum Found {
    Nothing,
    /// A socket's file, and nobody has that socket open.
    Abandoned,
    /// Somebody has it open.
    Live,
    /// No socket, but this.
    Foreign(&'static str),
}

/// Connecting with a socket of another kind tells, and begins no connection: it is refused for its kind where there is a
/// socket, and otherwise because there is none (unix_find_bsd in net/unix/af_unix.c).
fn find(path: &Path) -> Result<Found, BindPathError> {
    let kind = match fs::symlink_metadata(path) {
        Ok(found) => found.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(failed(path, "look")(error)),
    };
    if !kind.is_socket() {
        return Ok(Found::Foreign(in_words(kind)));
    }
    let probe = Socket::new(Domain::UNIX, Type::DGRAM, None).map_err(failed(path, "have a socket"))?;
    let address = SockAddr::unix(path).map_err(failed(path, "make an address"))?;
    match probe.connect(&address) {
        Ok(()) => Ok(Found::Live),
        Err(error) => match error.raw_os_error() {
            Some(libc::EPROTOTYPE) => Ok(Found::Live),
            Some(libc::ECONNREFUSED) => Ok(Found::Abandoned),
            Some(libc::ENOENT) => Ok(Found::Nothing),
            _ => Err(failed(path, "find out who has the file that is there")(error)),
        },
    }
}

fn in_words(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "a folder"
    } else if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_file() {
        "a file"
    } else {
        "something that is no socket"
    }
}

fn name_of_successor(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(SUCCESSOR);
    name.into()
}

/// A free name beside the path; what a server has left there that was killed while it started is taken away.
fn successor(path: &Path) -> Result<PathBuf, BindPathError> {
    let name = name_of_successor(path);
    match fs::symlink_metadata(&name) {
        Ok(found) if found.file_type().is_socket() => {
            remove(&name).map_err(failed(path, "take away what a former server has left"))?;
        }
        Ok(found) => return Err(BindPathError::NoSocket { path: name, kind: in_words(found.file_type()) }),
        Err(_) => {}
    }
    Ok(name)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

fn lock_folder(path: &Path) -> Result<File, BindPathError> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    let file = File::open(folder).map_err(failed(path, "open the folder"))?;
    if lock(&file, START_PATIENCE).map_err(failed(path, "lock the folder"))? {
        Ok(file)
    } else {
        Err(BindPathError::Locked { folder: folder.to_owned() })
    }
}

/// False if it stays taken.
fn lock(folder: &File, patience: Duration) -> io::Result<bool> {
    let begun_at = Instant::now();
    loop {
        match folder.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) if begun_at.elapsed() >= patience => return Ok(false),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_RETRY),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

fn failed(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> BindPathError {
    let path = path.to_owned();
    move |source| BindPathError::Other { path, what, hint: hint(&source), source }
}

fn hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::ENOENT) => ". The folder must be there before the server starts (mkdir)",
        Some(libc::ENOTDIR) => ". What stands before the last / must be a folder",
        Some(libc::EACCES | libc::EPERM) => {
            ". This user must be able to read the folder and write to it, and own what it replaces: see ls -ld"
        }
        Some(libc::EROFS) => ". The file system can only be read: give --unix a folder elsewhere, such as /run",
        Some(libc::ENOSPC | libc::EDQUOT) => ". The file system is full: make room, or give --unix a folder elsewhere",
        Some(libc::EMFILE | libc::ENFILE) => ". Raise the limit on open descriptors (ulimit -n)",
        Some(libc::EOPNOTSUPP) => ". The mode is set through /proc, which must be mounted",
        Some(libc::EADDRINUSE) => ". A foreign program has made it at this moment: try again",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A folder of one test; it goes when it is dropped.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Folder {
            static NUMBER: AtomicUsize = AtomicUsize::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("disrust-unix-{}-{number}", std::process::id()));
            fs::create_dir(&path).expect("the folder for temporary files can be written");
            Folder(path)
        }

        fn socket(&self) -> PathBuf {
            self.0.join("s")
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).expect("a folder").map(|entry| entry.expect("an entry").file_name());
            let mut names: Vec<_> = entries.map(|name| name.into_string().expect("ASCII")).collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            // Left behind, it harms nobody.
            let _gone_before = fs::remove_dir_all(&self.0);
        }
    }

    fn serve(path: &Path, takes_over: bool) -> Result<(ServedPath, UnixListener), BindPathError> {
        let bound = bind_path(path, 0o660, takes_over)?;
        let listener = bound.listener().0.as_fd().try_clone_to_owned().expect("a descriptor");
        Ok((bound.listen()?, UnixListener::from(listener)))
    }

    /// Promise: the file has its mode, whatever the umask, before anybody can connect; and goes with the server.
    #[test]
    fn a_socket_has_its_mode_before_it_listens() {
        let folder = Folder::new();
        let path = folder.socket();
        for mode in [0o600, 0o666, 0o660, 0o222] {
            let bound = bind_path(&path, mode, false).expect("a free path");
            assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, mode);
            let refused = UnixStream::connect(&path).expect_err("it does not listen");
            assert!(matches!(refused.raw_os_error(), Some(libc::ECONNREFUSED | libc::EACCES)), "{refused}");
            drop(bound.listen().expect("it is bound"));
            assert!(folder.names().is_empty());
        }
    }

    #[test]
    fn a_live_socket_is_refused_and_an_abandoned_one_replaced() {
        let folder = Folder::new();
        let path = folder.socket();
        let (served, listener) = serve(&path, false).expect("a free path");
        let Err(BindPathError::Taken { owner, .. }) = serve(&path, false) else { panic!("it is served") };
        assert!(owner.to_string().contains(&std::process::id().to_string()), "{owner}");
        assert!(UnixStream::connect(&path).is_ok(), "and goes on");
        // As if the process were killed.
        std::mem::forget(listener);
        drop(served);
        drop(UnixListener::bind(&path).expect("the path is free"));
        assert!(UnixStream::connect(&path).is_err() && path.exists());
        let (_served, _listener) = serve(&path, false).expect("nobody has it open");
        assert!(UnixStream::connect(&path).is_ok());
    }

    /// Promise: at each moment of a change there is somebody to connect to, and the old server does not take the new one's file.
    #[test]
    fn a_path_is_taken_over_when_the_new_server_listens() {
        let folder = Folder::new();
        let path = folder.socket();
        let (mut old, old_listener) = serve(&path, false).expect("a free path");
        fs::write(name_of_successor(&path), "").expect("the folder can be written");
        assert!(matches!(bind_path(&path, 0o600, true), Err(BindPathError::NoSocket { .. })));
        fs::remove_file(name_of_successor(&path)).expect("it is ours");
        drop(UnixListener::bind(name_of_successor(&path)).expect("a free path"));
        let bound = bind_path(&path, 0o600, true).expect("it takes over");
        let before = UnixStream::connect(&path).expect("the old one listens");
        assert!(old_listener.accept().is_ok());
        drop(before);
        let new_listener = UnixListener::from(bound.listener().0.as_fd().try_clone_to_owned().expect("a descriptor"));
        let new = bound.listen().expect("it is bound");
        let _stream = UnixStream::connect(&path).expect("the new one listens");
        assert!(new_listener.accept().is_ok());
        old.begin_handover();
        drop(old);
        assert_eq!(folder.names(), ["s"]);
        assert!(UnixStream::connect(&path).is_ok());
        drop(new);
        assert!(folder.names().is_empty());
    }

    #[test]
    fn a_start_that_fails_leaves_the_path_as_it_was() {
        let folder = Folder::new();
        let path = folder.socket();
        drop(bind_path(&path, 0o600, false).expect("a free path"));
        assert!(folder.names().is_empty());
        let (_served, _listener) = serve(&path, false).expect("a free path");
        drop(bind_path(&path, 0o600, true).expect("it takes over"));
        assert_eq!(folder.names(), ["s"]);
        assert!(UnixStream::connect(&path).is_ok());
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let folder = Folder::new();
        let path = folder.socket();
        let refused = |kind: &str| {
            for takes_over in [false, true] {
                let error = bind_path(&path, 0o600, takes_over).expect_err(kind);
                assert!(error.to_string().contains(kind), "{error}");
                assert!(fs::symlink_metadata(&path).is_ok());
            }
        };
        fs::write(&path, "precious").expect("the folder can be written");
        refused("a file is there");
        fs::remove_file(&path).expect("it is ours");
        fs::create_dir(&path).expect("the folder can be written");
        refused("a folder is there");
        fs::remove_dir(&path).expect("it is ours");
        symlink("elsewhere", &path).expect("the folder can be written");
        refused("a symbolic link is there");
    }

    #[test]
    fn a_path_that_cannot_be_is_refused_with_a_hint() {
        let folder = Folder::new();
        let long = folder.0.join("a".repeat(PATH_BYTES_MAX));
        let file = folder.0.join("file");
        fs::write(&file, "").expect("the folder can be written");
        for (path, said) in [
            (long, "Give --unix a shorter one"),
            (folder.0.join("none/s"), "The folder must be there"),
            (file.join("s"), "must be a folder"),
        ] {
            let error = bind_path(&path, 0o600, false).expect_err("nobody can listen there").to_string();
            assert!(error.contains(said) && error.contains(&*path.to_string_lossy()), "{error}");
        }
    }

    /// Promise: of two servers that start at one instant, the second waits for the first, and then sees it.
    #[test]
    fn nobody_binds_between_anothers_binding_and_listening() {
        let folder = Folder::new();
        let path = folder.socket();
        let first = bind_path(&path, 0o600, false).expect("a free path");
        let second = std::thread::spawn({
            let path = path.clone();
            move || serve(&path, false).map(drop)
        });
        std::thread::sleep(Duration::from_millis(50));
        assert!(!second.is_finished());
        let _served = first.listen().expect("it is bound");
        let second = second.join().expect("it does not panic");
        assert!(matches!(second, Err(BindPathError::Taken { .. })), "{second:?}");
    }

    /// What an end relies on: after a shutdown nobody can connect, what waits can be taken, and nothing blocks.
    #[test]
    fn a_listener_that_is_shut_down_gives_what_waits() {
        let folder = Folder::new();
        let (_served, listener) = serve(&folder.socket(), false).expect("a free path");
        let mut streams: Vec<_> = (0..3).map(|_| UnixStream::connect(folder.socket()).expect("it listens")).collect();
        socket2::SockRef::from(&listener).shutdown(std::net::Shutdown::Both).expect("it is open");
        let refused = UnixStream::connect(folder.socket()).expect_err("it is shut down");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let taken: Vec<_> = std::iter::from_fn(|| listener.accept().ok()).collect();
        assert_eq!(taken.len(), 3);
        drop(taken);
        assert!(streams.iter_mut().all(|stream| stream.read(&mut [0]).is_ok_and(|bytes| bytes == 0)));
    }
}
