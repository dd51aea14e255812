//! From a model file to something that serves: read, checked, chosen, compiled; and what there is to say about it.
//!
//! Nothing here is done while requests wait: it may take a second and as much memory as it needs, which is a small multiple
//! of the file.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::engine::{Compiled, Simd};
use crate::form::{Choice, ChoiceError, Form, Step};
use crate::read::{ReadError, read};

/// Bytes of a model file, at most. Larger: a wrong path (a disk image) fills the memory before anyone notices.
pub const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

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

/// A model file, loaded.
pub struct Loaded {
    /// What scores.
    pub model: Compiled,
    /// What there is to say about it.
    pub facts: Facts,
}

/// What there is to say about a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// What it is called.
    pub name: String,
    /// What the file is: `LightGBM, binary`.
    pub kind: String,
    /// Features in each row.
    pub features: usize,
    /// What they are called; none if the file does not say.
    pub feature_names: Vec<String>,
    /// What the outputs that are served are called.
    pub outputs: Vec<String>,
    /// Trees, in all ensembles.
    pub trees: usize,
    /// Leaves of the largest tree.
    pub leaves_max: usize,
    /// Splits on the longest path of any tree.
    pub depth_max: usize,
    /// What scores.
    pub engine: String,
    /// Bytes that the compiled model takes.
    pub bytes: usize,
    /// The first 8 bytes of the file's SHA-256, as a big-endian number: which version of a model this is.
    pub version: u64,
}

/// Why a model file can't be served.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The file can't be read at all.
    #[error("cannot read the model file {path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is larger than [`FILE_BYTES_MAX`].
    #[error("the model file {path} is larger than {} GiB", FILE_BYTES_MAX >> 30)]
    TooLarge {
        /// Which file.
        path: PathBuf,
    },
    /// It is no model, or one that is not supported.
    #[error("cannot serve the model file {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: ReadError,
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
    let name = options.name.clone().unwrap_or_else(|| stem(path));
    if name.len() > NAME_BYTES_MAX {
        return Err(LoadError::Name { bytes: name.len() });
    }
    let simd = Simd::from_env().map_err(LoadError::Simd)?;
    let bytes = read_file(path)?;
    let version = version_of(&bytes);
    let of = |source| LoadError::Read { path: path.to_owned(), source };
    let mut form = read(&bytes, options.features).map_err(of)?;
    drop(bytes);
    if let Some(asked) = options.features.filter(|asked| *asked != form.feature_dim) {
        return Err(LoadError::Features { path: path.to_owned(), features: form.feature_dim, asked });
    }
    form.choose(&options.choice).map_err(|source| LoadError::Choice { path: path.to_owned(), source })?;
    let mut facts = Facts::of_form(&form, name, version);
    let model = Compiled::with_simd(form, &facts.name, simd);
    (facts.engine, facts.bytes) = (model.engine(), model.bytes());
    Ok(Loaded { model, facts })
}

/// The file's name without its last extension.
fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
}

/// Read, not mapped: a file that is replaced or cut while it is in use would end the process.
fn read_file(path: &Path) -> Result<Vec<u8>, LoadError> {
    let of = |source| LoadError::File { path: path.to_owned(), source };
    let file = File::open(path).map_err(of)?;
    let metadata = file.metadata().map_err(of)?;
    if !metadata.is_file() {
        let what = if metadata.is_dir() { "it is a directory" } else { "it is no regular file" };
        return Err(of(io::Error::other(what)));
    }
    let too_large = || LoadError::TooLarge { path: path.to_owned() };
    if metadata.len() > FILE_BYTES_MAX {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).map_err(|_| too_large())?);
    // It may have grown since.
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(of)?;
    if bytes.len() as u64 > FILE_BYTES_MAX { Err(too_large()) } else { Ok(bytes) }
}

fn version_of(bytes: &[u8]) -> u64 {
    let digest = Sha256::digest(bytes);
    u64::from_be_bytes(*digest.first_chunk().expect("a digest has 32 bytes"))
}

impl Facts {
    fn of_form(form: &Form, name: String, version: u64) -> Facts {
        let trees = form.steps.iter().flat_map(|step| match step {
            Step::Trees { ensemble, .. } => &ensemble.trees[..],
            _ => &[],
        });
        Facts {
            name,
            kind: form.kind.clone(),
            features: form.feature_dim,
            feature_names: form.feature_names.clone(),
            outputs: form.output_names.clone(),
            trees: trees.clone().count(),
            leaves_max: trees.clone().map(|tree| tree.leaves.count).max().unwrap_or(0),
            depth_max: trees.map(|tree| tree.depth()).max().unwrap_or(0),
            engine: String::new(),
            bytes: 0,
            version,
        }
    }
}
