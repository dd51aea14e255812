//! Files that no reader takes: what each seems to be, and what to do about it.
#![forbid(unsafe_code)]

use super::ReadError;

const SUPPORTED: &str = "LightGBM's model.txt, XGBoost's model.json or model.ubj, CatBoost's JSON or ONNX";

/// What files begin with that people may take for models, and what to do about each.
const STRANGERS: &[(&[u8], &str)] = &[
    (b"CBM1", "this is CatBoost's binary format: save the model with save_model(path, format='json')"),
    (
        b"\x80",
        "this is a Python pickle, which can't be read safely: save the model in its library's own format, or as ONNX",
    ),
    (b"PK\x03\x04", "this is a zip archive (PyTorch, Keras, skops or NumPy): export the model as ONNX"),
    (b"\x89HDF", "this is an HDF5 file (Keras): export the model as ONNX"),
    (b"\x93NUMPY", "this is an array of NumPy, such as the rows that verify takes"),
    (b"\x1f\x8b", "this is compressed with gzip: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "this is compressed with zstd: unpack it first"),
    (b"<", "this is XML, perhaps PMML: export the model as ONNX"),
    (b"\x7fELF", "this is a program or a library"),
    (b"version https://git-lfs", "this is a pointer of Git LFS: git lfs pull brings the model"),
];

/// What to say of such a file.
pub(super) fn refusal(bytes: &[u8]) -> ReadError {
    let known = STRANGERS.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, what)| *what);
    let what = match known {
        Some(what) => what,
        None if bytes.is_empty() => "the file is empty",
        None if bytes.trim_ascii_start().starts_with(b"{") && contains(bytes, b"\"tree_info\"") => {
            "this seems to be LightGBM's dump_model, which is for people: use save_model('model.txt')"
        }
        None if bytes.trim_ascii_start().starts_with(b"{") => {
            "this is JSON, but without XGBoost's \"learner\" or CatBoost's \"oblivious_trees\" or \"trees\""
        }
        None => "its first bytes are of no format that is known here",
    };
    ReadError::Unknown(format!("it is none of {SUPPORTED}: {what}"))
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    memchr::memmem::find(bytes, wanted).is_some()
}

#[cfg(test)]
mod tests {
    use super::super::read;

    #[test]
    fn a_file_of_another_kind_is_told_by_name() {
        for (bytes, told) in [
            (&b""[..], "empty"),
            (b"CBM1....", "format='json'"),
            (b"\x80\x04\x95", "pickle"),
            (b"PK\x03\x04", "export the model as ONNX"),
            (b"{\"name\":\"tree\",\"tree_info\":[]}", "save_model('model.txt')"),
            (b" {\"a\": 1}", "learner"),
            (b"hello, world", "no format that is known"),
        ] {
            let error = read(bytes, None).map(|_| ()).expect_err(told).to_string();
            assert!(error.contains(told), "{told}: {error}");
        }
    }
}
