//! Arrays of numpy's: files of one array, `numpy.save`, versions 1 to 3 of the format.
//!
//! The format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>. A file is a magic string, a version, the
//! length of a header, that header (a dictionary, written in Python), and the numbers. Sizes are believed only as far as the file
//! is long.
#![forbid(unsafe_code)]

use super::table::Content;

const MAGIC: &[u8] = b"\x93NUMPY";

/// Whether this is such a file.
pub(super) fn is_npy(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Reads a table: an array of one dimension is one column.
pub(super) fn parse(bytes: &[u8]) -> Result<Content, String> {
    let (header, data) = split(bytes).ok_or("it is cut within its header, or of a version of the format above 3")?;
    let type_name = quoted(value_of(header, "descr")?).ok_or_else(|| {
        "its numbers have fields; what is taken is one number in each place. Try: numpy.save of X.astype(\"float32\")"
            .to_owned()
    })?;
    let (width, number) = number_of(type_name).ok_or_else(|| {
        format!(
            "its numbers are of the type {type_name:?}; little-endian f4, f8, i4 and i8 are taken. Try: numpy.save of \
             X.astype(\"float32\")"
        )
    })?;
    let in_columns = match value_of(header, "fortran_order")? {
        order if order.starts_with("True") => true,
        order if order.starts_with("False") => false,
        _ => return Err("its header has no order".to_owned()),
    };
    let (rows, columns) = shape_of(value_of(header, "shape")?)?;
    let count = rows.checked_mul(columns).and_then(|count| count.checked_mul(width).map(|bytes| (count, bytes)));
    let Some((count, _)) = count.filter(|(count, bytes)| *count > 0 && *bytes == data.len()) else {
        return Err(match (rows, columns) {
            (0, _) | (_, 0) => "it has no rows, or no columns".to_owned(),
            _ => format!("its header says {rows} × {columns} numbers, and {} bytes of them are there", data.len()),
        });
    };
    let numbers: Vec<f64> = data.chunks_exact(width).map(number).collect();
    let place = |at: usize| if in_columns { at % columns * rows + at / columns } else { at };
    Ok(Content { header: None, columns, values: (0..count).map(|at| numbers[place(at)]).collect() })
}

/// The header and what follows.
fn split(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let ([version, _minor], rest) = rest.split_first_chunk()?;
    let (length, rest) = match version {
        1 => rest.split_first_chunk().map(|(length, rest)| (usize::from(u16::from_le_bytes(*length)), rest))?,
        2 | 3 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::try_from(u32::from_le_bytes(*length)).ok()?, rest)
        }
        _ => return None,
    };
    let (header, data) = rest.split_at_checked(length)?;
    Some((str::from_utf8(header).ok()?, data))
}

/// What follows a key of the dictionary.
fn value_of<'a>(header: &'a str, key: &str) -> Result<&'a str, String> {
    let after = |quote: char| header.split_once(&format!("{quote}{key}{quote}")).map(|(_, rest)| rest.trim_start());
    let value = after('\'').or_else(|| after('"')).and_then(|rest| rest.strip_prefix(':'));
    value.map(str::trim_start).ok_or_else(|| format!("its header has no {key}"))
}

fn quoted(value: &str) -> Option<&str> {
    let quote = value.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
    value[1..].split_once(quote).map(|(inside, _)| inside)
}

/// Reads a number of a type from as many bytes as that has.
type ReadNumber = fn(&[u8]) -> f64;

/// How many bytes a number of this type has, and how it is read.
fn number_of(type_name: &str) -> Option<(usize, ReadNumber)> {
    const WHOLE: &str = "chunks have the type's width";
    match type_name {
        "<f4" => Some((4, |bytes| f64::from(f32::from_le_bytes(bytes.try_into().expect(WHOLE))))),
        "<f8" => Some((8, |bytes| f64::from_le_bytes(bytes.try_into().expect(WHOLE)))),
        "<i4" => Some((4, |bytes| f64::from(i32::from_le_bytes(bytes.try_into().expect(WHOLE))))),
        "<i8" => Some((8, |bytes| i64::from_le_bytes(bytes.try_into().expect(WHOLE)) as f64)),
        _ => None,
    }
}

/// Rows and columns of a tuple.
fn shape_of(value: &str) -> Result<(usize, usize), String> {
    let inside = value.strip_prefix('(').and_then(|rest| rest.split_once(')'));
    let (inside, _) = inside.ok_or("its header has no shape")?;
    let numbers = inside.split(',').map(str::trim).filter(|number| !number.is_empty());
    let sizes: Result<Vec<usize>, _> = numbers.map(str::parse).collect();
    match sizes.map_err(|error| format!("its shape is ({inside}): {error}"))?[..] {
        [rows] => Ok((rows, 1)),
        [rows, columns] => Ok((rows, columns)),
        _ => Err(format!("its shape is ({inside}); one dimension or two are taken")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As numpy writes it.
    fn file(version: u8, dictionary: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([version, 0]);
        if version == 1 {
            bytes.extend(u16::try_from(dictionary.len()).expect("a short header").to_le_bytes());
        } else {
            bytes.extend(u32::try_from(dictionary.len()).expect("a short header").to_le_bytes());
        }
        bytes.extend(dictionary.as_bytes());
        bytes.extend(data);
        bytes
    }

    fn dictionary(type_name: &str, in_columns: &str, shape: &str) -> String {
        format!("{{'descr': '{type_name}', 'fortran_order': {in_columns}, 'shape': {shape}, }}   \n")
    }

    /// Of each type, version and order the numbers are those that were saved.
    #[test]
    fn arrays_are_read() {
        let numbers = [1_i32, -2, 3, 4, 5, 6];
        let bytes_of = |type_name: &str| -> Vec<u8> {
            let one = |number: &i32| match type_name {
                "<f4" => (*number as f32).to_le_bytes().to_vec(),
                "<f8" => f64::from(*number).to_le_bytes().to_vec(),
                "<i4" => number.to_le_bytes().to_vec(),
                _ => i64::from(*number).to_le_bytes().to_vec(),
            };
            numbers.iter().flat_map(one).collect()
        };
        for (type_name, version) in
            ["<f4", "<f8", "<i4", "<i8"].into_iter().flat_map(|name| [(name, 1), (name, 2), (name, 3)])
        {
            let read = |order, shape| {
                let content = parse(&file(version, &dictionary(type_name, order, shape), &bytes_of(type_name)));
                let content = content.expect(type_name);
                (content.columns, content.values)
            };
            assert_eq!(read("False", "(2, 3)"), (3, vec![1.0, -2.0, 3.0, 4.0, 5.0, 6.0]));
            assert_eq!(read("True", "(2, 3)"), (3, vec![1.0, 3.0, 5.0, -2.0, 4.0, 6.0]));
            assert_eq!(read("True", "(6,)"), (1, vec![1.0, -2.0, 3.0, 4.0, 5.0, 6.0]));
        }
    }

    /// What is not taken, and what lies, is an error in words, whatever it says of itself.
    #[test]
    fn what_is_not_taken_is_named() {
        let good = dictionary("<f4", "False", "(1, 2)");
        for (bytes, said) in [
            (file(1, &dictionary(">f4", "False", "(1, 2)"), &[0; 8]), "\">f4\""),
            (file(1, &dictionary("|O", "False", "(1, 2)"), &[0; 8]), "float32"),
            (file(1, "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,)}", &[0; 8]), "fields"),
            (file(1, &dictionary("<f4", "False", "(1, 2, 1)"), &[0; 8]), "one dimension or two"),
            (file(1, &dictionary("<f4", "False", "()"), &[0; 4]), "one dimension or two"),
            (file(1, &dictionary("<f4", "False", "(0, 2)"), &[]), "no rows"),
            (file(1, &dictionary("<f4", "False", "(-1, 2)"), &[0; 8]), "(-1, 2)"),
            (file(1, &dictionary("<f4", "Maybe", "(1, 2)"), &[0; 8]), "no order"),
            (file(1, "{}", &[]), "no descr"),
            (file(1, &good, &[0; 7]), "1 × 2 numbers"),
            (file(1, &good, &[0; 9]), "1 × 2 numbers"),
            (file(1, &dictionary("<f8", "False", "(4611686018427387904, 4)"), &[0; 8]), "numbers"),
            (file(4, &good, &[0; 8]), "above 3"),
        ] {
            let error = parse(&bytes).expect_err(said);
            assert!(error.contains(said), "{said}: {error}");
        }
        let whole = file(2, &good, &[0; 8]);
        (MAGIC.len()..whole.len()).for_each(|cut| assert!(parse(&whole[..cut]).is_err(), "{cut}"));
    }
}
