//! From a model file to something that serves: read, checked, chosen, compiled; and what there is to say about it.
//!
//! Nothing here is done while requests wait: it may take a second and as much memory as it needs, which is a small multiple
//! of the file. The file is read, not mapped: one that is replaced or cut while it is in use would end the process.
#![forbid(unsafe_code)]

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::Model;
use crate::engine::{Compiled, Simd};
use crate::facts::Facts;
use crate::form::{Choice, ChoiceError, Form};
#[cfg(feature = "onnxruntime")]
use crate::onnxruntime::{Onnxruntime, OnnxruntimeError};
use crate::read::{ReadError, read};

/// Bytes of a model file, at most. Larger: a wrong path (a disk image) fills the memory before anyone notices.
pub const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// Bytes that are asked of the system at once. Larger: a kernel that does not interrupt itself (PREEMPT_NONE) keeps a thread
/// that serves from the CPU for as long as it copies them; for 45 MB at once that was 2 ms. Smaller: more calls.
const READ_BYTES: u64 = 128 * 1024;

/// Bytes of a model's name on the wire, at most.
pub const NAME_BYTES_MAX: usize = 255;

/// What the operator says about a model file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// What to call the model; else the file's stem.
    pub name: Option<String>,
    /// Which outputs.
    pub choice: Choice,
    /// How many features the operator believes a row to have.
    pub features: Option<usize>,
}

/// A model file that has been read and checked and whose outputs are chosen; not compiled yet.
pub struct ModelFile {
    content: Content,
    facts: Facts,
}

/// What a file holds.
enum Content {
    Form {
        form: Form,
        simd: Simd,
    },
    #[cfg(feature = "onnxruntime")]
    Onnxruntime(Box<Onnxruntime>),
}

/// A model file, loaded.
pub struct Loaded {
    /// What scores.
    pub model: Box<dyn Model>,
    /// What there is to say about it.
    pub facts: Facts,
}

/// Why a model file can't be served.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The file can't be read at all.
    #[error("cannot read the model file {path}: {source}. Try: {}", what_to_try(source))]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is larger than [`FILE_BYTES_MAX`].
    #[error(
        "the model file {path} is larger than {} GiB, which no model is that is served here. Try: the path of a model",
        FILE_BYTES_MAX >> 30
    )]
    TooLarge {
        /// Which file.
        path: PathBuf,
    },
    /// It is no model, or one that is not supported.
    #[error("cannot serve the model file {path}: {source}{}", if_cut(source))]
    Read {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: ReadError,
    },
    /// It is for onnxruntime, which does not serve it either.
    #[cfg(feature = "onnxruntime")]
    #[error("cannot serve the model file {path}: {source}; {onnxruntime}")]
    Onnxruntime {
        /// Which file.
        path: PathBuf,
        /// What is not supported.
        source: ReadError,
        /// Why onnxruntime does not serve it.
        onnxruntime: Box<OnnxruntimeError>,
    },
    /// Its outputs and what was chosen do not fit.
    #[error("cannot serve the model file {path}: {source}")]
    Choice {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: ChoiceError,
    },
    /// The operator believes something else about its rows.
    #[error(
        "the model file {path} has {features} features, but --features says {asked}: leave --features out, or serve the model that has {asked}"
    )]
    Features {
        /// Which file.
        path: PathBuf,
        /// How many features it has.
        features: usize,
        /// How many it should have.
        asked: usize,
    },
    /// The name does not fit into a hello.
    #[error(
        "the model's name has {bytes} bytes, but at most {NAME_BYTES_MAX} can be told to clients: give a shorter one with --model-name"
    )]
    Name {
        /// How many bytes it has.
        bytes: usize,
    },
    /// The CPU path that DISRUST_SIMD asks for is not there.
    #[error("{0}")]
    Simd(String),
}

/// Loads a model file.
///
/// # Errors
/// See [`LoadError`].
pub fn load(path: &Path, options: &LoadOptions) -> Result<Loaded, LoadError> {
    ModelFile::open(path, options).map(ModelFile::compile)
}

impl ModelFile {
    /// Reads and checks a model file.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn open(path: &Path, options: &LoadOptions) -> Result<ModelFile, LoadError> {
        let name = options.name.clone().unwrap_or_else(|| stem(path));
        if name.len() > NAME_BYTES_MAX {
            return Err(LoadError::Name { bytes: name.len() });
        }
        let simd = Simd::from_env().map_err(LoadError::Simd)?;
        let bytes = read_file(path)?;
        let version = version_of(&bytes);
        let mut form = match read(&bytes, options.features) {
            Ok(form) => form,
            #[cfg(feature = "onnxruntime")]
            Err(source @ ReadError::ForOnnxruntime { .. }) => {
                return ModelFile::for_onnxruntime(path, options, &bytes, source, name, version);
            }
            Err(source) => return Err(LoadError::Read { path: path.to_owned(), source }),
        };
        drop(bytes);
        check_features(path, options, form.feature_dim)?;
        form.choose(&options.choice).map_err(|source| LoadError::Choice { path: path.to_owned(), source })?;
        let facts = Facts::of_form(&form, name, version);
        Ok(ModelFile { content: Content::Form { form, simd }, facts })
    }

    /// Has onnxruntime take what the reader does not support, which `source` tells.
    #[cfg(feature = "onnxruntime")]
    fn for_onnxruntime(
        path: &Path,
        options: &LoadOptions,
        bytes: &[u8],
        source: ReadError,
        name: String,
        version: u64,
    ) -> Result<ModelFile, LoadError> {
        let model = match Onnxruntime::open(bytes, (&name, version), options.features, &options.choice) {
            Ok(model) => model,
            Err(OnnxruntimeError::Choice(source)) => return Err(LoadError::Choice { path: path.to_owned(), source }),
            Err(error) => {
                let onnxruntime = Box::new(error);
                return Err(LoadError::Onnxruntime { path: path.to_owned(), source, onnxruntime });
            }
        };
        check_features(path, options, model.feature_dim())?;
        let facts = Facts::of_onnxruntime(&model, &source, name, version);
        Ok(ModelFile { content: Content::Onnxruntime(Box::new(model)), facts })
    }

    /// What the file means, if it is known.
    pub fn form(&self) -> Option<&Form> {
        match &self.content {
            Content::Form { form, .. } => Some(form),
            #[cfg(feature = "onnxruntime")]
            Content::Onnxruntime(_) => None,
        }
    }

    /// Makes it something that scores.
    pub fn compile(self) -> Loaded {
        let ModelFile { content, mut facts } = self;
        match content {
            Content::Form { form, simd } => {
                let model = Compiled::with_simd(form, &facts.name, simd).of_version(facts.version);
                (facts.engine, facts.bytes) = (model.engine(), model.bytes());
                Loaded { model: Box::new(model), facts }
            }
            #[cfg(feature = "onnxruntime")]
            Content::Onnxruntime(model) => Loaded { model, facts },
        }
    }
}

fn check_features(path: &Path, options: &LoadOptions, features: usize) -> Result<(), LoadError> {
    match options.features {
        Some(asked) if asked != features => Err(LoadError::Features { path: path.to_owned(), features, asked }),
        _ => Ok(()),
    }
}

/// The file's name without its last extension.
fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
}

fn read_file(path: &Path) -> Result<Vec<u8>, LoadError> {
    let of = |source| LoadError::File { path: path.to_owned(), source };
    // Before it is opened, too: opening a pipe waits for whoever writes to it, and opening a device may do anything.
    check_type(&std::fs::metadata(path).map_err(of)?).map_err(of)?;
    let file = File::open(path).map_err(of)?;
    let metadata = file.metadata().map_err(of)?;
    check_type(&metadata).map_err(of)?;
    let too_large = || LoadError::TooLarge { path: path.to_owned() };
    if metadata.len() > FILE_BYTES_MAX {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).map_err(|_| too_large())?);
    // It may have grown since.
    let mut file = file.take(FILE_BYTES_MAX + 1);
    while (&mut file).take(READ_BYTES).read_to_end(&mut bytes).map_err(of)? > 0 {}
    if bytes.len() as u64 > FILE_BYTES_MAX { Err(too_large()) } else { Ok(bytes) }
}

fn check_type(metadata: &Metadata) -> io::Result<()> {
    match metadata.file_type() {
        regular if regular.is_file() => Ok(()),
        folder if folder.is_dir() => Err(io::Error::new(ErrorKind::IsADirectory, "it is a directory")),
        _ => Err(io::Error::new(ErrorKind::InvalidInput, "it is a pipe, a socket or a device, not a regular file")),
    }
}

fn what_to_try(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound => {
            "another path, which counts from the folder that the program was started in; --model sum needs no file"
        }
        ErrorKind::PermissionDenied => "let the user that the program runs as read the file, and search its folders",
        ErrorKind::IsADirectory => "the path of the model file in it",
        ErrorKind::InvalidInput => "write the model to a file and name that",
        _ => "copy the file to a local disk, and name that",
    }
}

/// What is cut is nearly always malformed.
fn if_cut(error: &ReadError) -> &'static str {
    match error {
        ReadError::Malformed { .. } => {
            ". The likely cause is a file that was cut, or that is still being written. Try: save or copy it again"
        }
        ReadError::Unsupported { .. } | ReadError::ForOnnxruntime { .. } | ReadError::Unknown(_) => "",
    }
}

fn version_of(bytes: &[u8]) -> u64 {
    let digest = Sha256::digest(bytes);
    u64::from_be_bytes(*digest.first_chunk().expect("a digest has 32 bytes"))
}
