//! UBJSON (draft 12) as XGBoost writes it: a decoder that goes through the file once.
//!
//! Strings and arrays come with their lengths, objects end with `}`. A length is believed only as far as the file goes:
//! nothing is allocated for what is not there. What the draft has and XGBoost neither writes nor reads (typed or counted
//! objects, typed arrays of anything but numbers, high-precision numbers, no-ops) is a fault.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use super::source::{DEPTH_MAX, Fault, Scalar, Source};

/// A place in a UBJSON file.
#[derive(Debug, Clone)]
pub(super) struct Ubj<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Objects and arrays that are open.
    depth: usize,
}

/// How an array goes on behind its `[`.
enum Head {
    /// So many numbers of this type.
    Typed(u8, usize),
    /// So many values.
    Counted(usize),
    /// Values up to a `]`.
    Open,
}

impl<'a> Ubj<'a> {
    pub fn new(bytes: &'a [u8]) -> Ubj<'a> {
        Ubj { bytes, at: 0, depth: 0 }
    }

    fn fault(&self, what: &str) -> Fault {
        match self.bytes.get(self.at) {
            Some(byte) => Fault::malformed(format!("{what}, not {:?} (byte {})", char::from(*byte), self.at)),
            None => Fault::malformed(format!("the file ends where {what}")),
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn expect(&mut self, marker: u8, what: &str) -> Result<(), Fault> {
        if self.peek() != Some(marker) {
            return Err(self.fault(what));
        }
        self.at += 1;
        Ok(())
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..length).ok_or_else(|| {
            Fault::malformed(format!("{length} bytes were to follow byte {}, but {} do", self.at, rest.len()))
        })?;
        self.at += length;
        Ok(taken)
    }

    fn array_of<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        Ok(*self.take(N)?.first_chunk().expect("as many bytes as were asked for"))
    }

    /// Reads the number behind its marker.
    fn number(&mut self, marker: u8) -> Result<Option<Scalar>, Fault> {
        Ok(Some(match marker {
            b'i' => Scalar::Integer(i8::from_be_bytes(self.array_of()?).into()),
            b'U' => Scalar::Integer(u8::from_be_bytes(self.array_of()?).into()),
            b'I' => Scalar::Integer(i16::from_be_bytes(self.array_of()?).into()),
            b'l' => Scalar::Integer(i32::from_be_bytes(self.array_of()?).into()),
            b'L' => Scalar::Integer(i64::from_be_bytes(self.array_of()?)),
            b'd' => Scalar::Number(f32::from_be_bytes(self.array_of()?)),
            b'D' => Scalar::Number(f64::from_be_bytes(self.array_of()?) as f32),
            _ => return Ok(None),
        }))
    }

    /// Reads a length or count.
    fn length(&mut self) -> Result<usize, Fault> {
        let before = self.clone();
        let wrong = || before.fault("a length was expected");
        let marker = self.peek().ok_or_else(wrong)?;
        self.at += 1;
        match self.number(marker)? {
            Some(Scalar::Integer(length)) => usize::try_from(length)
                .map_err(|_| Fault::malformed(format!("the length at byte {} is {length}", before.at))),
            _ => Err(wrong()),
        }
    }

    fn string(&mut self) -> Result<&'a str, Fault> {
        let start = self.at;
        let length = self.length()?;
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map_err(|_| Fault::malformed(format!("the string at byte {start} is not UTF-8")))
    }

    fn open(&mut self, marker: u8, what: &str) -> Result<(), Fault> {
        self.expect(marker, what)?;
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Fault::malformed(format!("more than {DEPTH_MAX} values inside each other")));
        }
        Ok(())
    }

    fn head(&mut self) -> Result<Head, Fault> {
        self.open(b'[', "an array was expected")?;
        match self.peek() {
            Some(b'$') => {
                self.at += 1;
                let marker = self.peek().ok_or_else(|| self.fault("a type was expected"))?;
                let width = width_of(marker).ok_or_else(|| self.fault("a type of numbers was expected"))?;
                self.at += 1;
                self.expect(b'#', "a count was expected")?;
                let count = self.length()?;
                let rest = self.bytes.len() - self.at;
                if count > rest / width {
                    let what = format!(
                        "{count} numbers of {width} bytes were to follow byte {}, but {rest} bytes do",
                        self.at
                    );
                    return Err(Fault::malformed(what));
                }
                Ok(Head::Typed(marker, count))
            }
            Some(b'#') => {
                self.at += 1;
                Ok(Head::Counted(self.length()?))
            }
            _ => Ok(Head::Open),
        }
    }

    /// Goes through an array that is not typed.
    fn values(
        &mut self,
        count: Option<usize>,
        mut visit: impl FnMut(usize, &mut Self) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut index = 0;
        loop {
            match count {
                Some(count) if index == count => break,
                None if self.peek() == Some(b']') => {
                    self.at += 1;
                    break;
                }
                _ => {}
            }
            visit(index, self).map_err(|fault| fault.at_index(index))?;
            index += 1;
        }
        self.depth -= 1;
        Ok(())
    }
}

/// How many bytes a number of a type has.
fn width_of(marker: u8) -> Option<usize> {
    match marker {
        b'i' | b'U' => Some(1),
        b'I' => Some(2),
        b'l' | b'd' => Some(4),
        b'L' | b'D' => Some(8),
        _ => None,
    }
}

impl<'a> Source<'a> for Ubj<'a> {
    fn object(&mut self, mut visit: impl FnMut(&str, &mut Self) -> Result<(), Fault>) -> Result<(), Fault> {
        self.open(b'{', "an object was expected")?;
        while self.peek() != Some(b'}') {
            let key = self.string()?;
            visit(key, self).map_err(|fault| fault.at(key))?;
        }
        self.at += 1;
        self.depth -= 1;
        Ok(())
    }

    fn array(&mut self, visit: impl FnMut(usize, &mut Self) -> Result<(), Fault>) -> Result<(), Fault> {
        match self.head()? {
            Head::Typed(..) => Err(Fault::malformed("an array of numbers, where none was expected")),
            Head::Counted(count) => self.values(Some(count), visit),
            Head::Open => self.values(None, visit),
        }
    }

    fn elements<T>(&mut self, convert: impl Fn(Scalar) -> Result<T, Fault>) -> Result<Vec<T>, Fault> {
        let count = match self.head()? {
            Head::Typed(marker, count) => {
                let mut elements = Vec::with_capacity(count);
                for index in 0..count {
                    let scalar = self.number(marker)?.expect("the head has looked at the type");
                    elements.push(convert(scalar).map_err(|fault| fault.at_index(index))?);
                }
                self.depth -= 1;
                return Ok(elements);
            }
            Head::Counted(count) => Some(count),
            Head::Open => None,
        };
        let mut elements = Vec::new();
        self.values(count, |_, value| {
            elements.push(convert(value.scalar()?)?);
            Ok(())
        })?;
        Ok(elements)
    }

    fn scalar(&mut self) -> Result<Scalar, Fault> {
        let before = self.clone();
        let wrong = || before.fault("a number was expected");
        let marker = self.peek().ok_or_else(wrong)?;
        self.at += 1;
        match marker {
            b'T' => Ok(Scalar::Flag(true)),
            b'F' => Ok(Scalar::Flag(false)),
            marker => self.number(marker)?.ok_or_else(wrong),
        }
    }

    fn text(&mut self) -> Result<Cow<'a, str>, Fault> {
        self.expect(b'S', "a string was expected")?;
        self.string().map(Cow::Borrowed)
    }

    fn skip(&mut self) -> Result<(), Fault> {
        match self.peek() {
            Some(b'{') => self.object(|_, value| value.skip()),
            Some(b'[') => match self.head()? {
                Head::Typed(marker, count) => {
                    let width = width_of(marker).expect("the head has looked at the type");
                    // The head has seen that they are there.
                    self.at += count * width;
                    self.depth -= 1;
                    Ok(())
                }
                Head::Counted(count) => self.values(Some(count), |_, value| value.skip()),
                Head::Open => self.values(None, |_, value| value.skip()),
            },
            Some(b'S') => {
                self.at += 1;
                let length = self.length()?;
                self.take(length).map(|_| ())
            }
            Some(b'Z') => {
                self.at += 1;
                Ok(())
            }
            Some(b'C') => self.take(2).map(|_| ()),
            _ => self.scalar().map(|_| ()),
        }
    }

    fn end(&mut self) -> Result<(), Fault> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.fault("the end of the file was expected")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `[$` type `#L` count numbers.
    fn typed(marker: u8, count: i64, numbers: &[u8]) -> Vec<u8> {
        [b"[$".as_slice(), &[marker], b"#L", &count.to_be_bytes(), numbers].concat()
    }

    fn numbers(bytes: &[u8]) -> Option<Vec<f32>> {
        let mut ubj = Ubj::new(bytes);
        ubj.numbers().and_then(|numbers| ubj.end().map(|()| numbers)).ok()
    }

    /// Every type of number is read, alone and in a typed array, big-endian.
    #[test]
    fn numbers_of_all_types_are_read() {
        let of_type: [(u8, &[u8], f32); 7] = [
            (b'i', &[0xff], -1.0),
            (b'U', &[0xff], 255.0),
            (b'I', &[0xff, 0xfe], -2.0),
            (b'l', &[0, 1, 0, 0], 65536.0),
            (b'L', &[0, 0, 0, 0, 0, 0, 0, 9], 9.0),
            (b'd', &[0x3f, 0x80, 0, 0], 1.0),
            (b'D', &[0xc0, 0, 0, 0, 0, 0, 0, 0], -2.0),
        ];
        for (marker, number, value) in of_type {
            assert_eq!(numbers(&typed(marker, 2, &[number, number].concat())), Some(vec![value; 2]));
            assert_eq!(numbers(&[b"[".as_slice(), &[marker], number, b"]"].concat()), Some(vec![value]));
            assert_eq!(numbers(&[b"[#U\x01".as_slice(), &[marker], number].concat()), Some(vec![value]));
        }
    }

    /// A length is believed only as far as the file goes, and nothing is allocated for it.
    #[test]
    fn lying_lengths_are_faults() {
        for count in [2, -1, i64::MAX, i64::MIN] {
            assert_eq!(numbers(&typed(b'd', count, &[0; 4])), None, "{count}");
            assert!(Ubj::new(&typed(b'd', count, &[0; 4])).skip().is_err(), "{count}");
            let counted = [b"[#L".as_slice(), &count.to_be_bytes(), b"i\x01"].concat();
            assert_eq!(numbers(&counted), None, "{count}");
            let string = [b"SL".as_slice(), &count.to_be_bytes(), b"a"].concat();
            assert!(Ubj::new(&string).text().is_err() && Ubj::new(&string).skip().is_err(), "{count}");
        }
        for wrong in
            [b"[$Z#L".as_slice(), b"[$", b"[$d", b"[$d#", b"[#d\0\0\0\0", b"[", b"[i", b"{", b"{i\x01a", b"N", b""]
        {
            assert!(Ubj::new(wrong).skip().is_err(), "{wrong:?}");
        }
    }

    /// What is not wanted is passed over, whatever it is.
    #[test]
    fn skipping_goes_to_the_end_of_a_value() {
        let object =
            [b"{i\x01a[ZTFCx[#i\x00]U\x01bSi\x02xyI\x00\x01c".as_slice(), &typed(b'I', 1, &[0; 2]), b"}"].concat();
        let mut ubj = Ubj::new(&object);
        assert!(ubj.skip().is_ok() && ubj.end().is_ok());
        let mut keys = Vec::new();
        let read = Ubj::new(&object).object(|key, value| {
            keys.push(key.to_owned());
            value.skip()
        });
        assert!(read.is_ok());
        assert_eq!(keys, ["a", "b", "c"]);
        for length in 0..object.len() {
            assert!(Ubj::new(&object[..length]).skip().is_err(), "{length}");
        }
    }

    /// Nesting costs no more stack than is allowed for; strings are UTF-8.
    #[test]
    fn depth_and_strings_are_checked() {
        assert!(Ubj::new(&[b'['; 1_000_000]).skip().is_err());
        assert!(Ubj::new(&b"{i\x00".repeat(1_000_000)).skip().is_err());
        assert!(Ubj::new(b"Si\x01\xff").text().is_err());
        assert_eq!(Ubj::new("Si\x02é".as_bytes()).text().ok().as_deref(), Some("é"));
    }
}
