//! JSON as XGBoost writes it: a decoder that goes through the file once.
//!
//! Two things keep a general decoder from doing it: XGBoost writes `NaN`, `Infinity` and `-Infinity`, which JSON does not
//! have, and a decimal must become the nearest f32 in one step (by way of f64, some would end one f32 beside it).
#![forbid(unsafe_code)]

use std::borrow::Cow;

use super::source::{DEPTH_MAX, Fault, Scalar, Source};

/// A place in a JSON file.
#[derive(Debug, Clone)]
pub(super) struct Json<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Objects and arrays that are open.
    depth: usize,
}

impl<'a> Json<'a> {
    pub fn new(bytes: &'a [u8]) -> Json<'a> {
        Json { bytes, at: 0, depth: 0 }
    }

    fn fault(&self, what: &str) -> Fault {
        match self.bytes.get(self.at) {
            Some(byte) => Fault::malformed(format!("{what}, not {:?} (byte {})", char::from(*byte), self.at)),
            None => Fault::malformed(format!("the file ends where {what}")),
        }
    }

    /// The next byte that is no white space, which stays.
    fn peek(&mut self) -> Option<u8> {
        let rest = &self.bytes[self.at..];
        let blank = rest.iter().position(|byte| !matches!(byte, b' ' | b'\n' | b'\r' | b'\t')).unwrap_or(rest.len());
        self.at += blank;
        self.bytes.get(self.at).copied()
    }

    fn expect(&mut self, byte: u8, what: &str) -> Result<(), Fault> {
        if self.peek() != Some(byte) {
            return Err(self.fault(what));
        }
        self.at += 1;
        Ok(())
    }

    /// Opens an object or array; whether it has anything in it.
    fn open(&mut self, open: u8, close: u8, what: &str) -> Result<bool, Fault> {
        self.expect(open, what)?;
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Fault::malformed(format!("more than {DEPTH_MAX} values inside each other")));
        }
        if self.peek() == Some(close) {
            self.close();
            return Ok(false);
        }
        Ok(true)
    }

    fn close(&mut self) {
        self.at += 1;
        self.depth -= 1;
    }

    /// After an element: whether another follows.
    fn goes_on(&mut self, close: u8) -> Result<bool, Fault> {
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(byte) if byte == close => {
                self.close();
                Ok(false)
            }
            _ => Err(self.fault("a comma or the end was expected")),
        }
    }

    /// What a number may be made of, signs, points, exponents and words.
    fn token(&mut self) -> &'a str {
        self.peek();
        let rest = &self.bytes[self.at..];
        let of_number = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        let length = rest.iter().position(|byte| !of_number(byte)).unwrap_or(rest.len());
        self.at += length;
        std::str::from_utf8(&rest[..length]).expect("nothing but ASCII has been taken")
    }

    /// The string's bytes as they stand between its quotes, and whether they have escapes.
    fn quoted(&mut self) -> Result<(&'a [u8], bool), Fault> {
        self.expect(b'"', "a string was expected")?;
        let rest = &self.bytes[self.at..];
        let mut escapes = false;
        let mut length = 0;
        loop {
            match rest.get(length) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escapes = true;
                    length += 2;
                }
                Some(_) => length += 1,
                None => return Err(Fault::malformed(format!("the string at byte {} has no end", self.at))),
            }
        }
        self.at += length + 1;
        Ok((&rest[..length], escapes))
    }
}

impl<'a> Source<'a> for Json<'a> {
    fn object(&mut self, mut visit: impl FnMut(&str, &mut Self) -> Result<(), Fault>) -> Result<(), Fault> {
        let mut more = self.open(b'{', b'}', "an object was expected")?;
        while more {
            let key = self.text()?;
            self.expect(b':', "a colon was expected").map_err(|fault| fault.at(&key))?;
            visit(&key, self).map_err(|fault| fault.at(&key))?;
            more = self.goes_on(b'}').map_err(|fault| fault.at(&key))?;
        }
        Ok(())
    }

    fn array(&mut self, mut visit: impl FnMut(usize, &mut Self) -> Result<(), Fault>) -> Result<(), Fault> {
        let mut more = self.open(b'[', b']', "an array was expected")?;
        let mut index = 0;
        while more {
            visit(index, self).map_err(|fault| fault.at_index(index))?;
            more = self.goes_on(b']').map_err(|fault| fault.at_index(index))?;
            index += 1;
        }
        Ok(())
    }

    fn elements<T>(&mut self, convert: impl Fn(Scalar) -> Result<T, Fault>) -> Result<Vec<T>, Fault> {
        let mut elements = Vec::new();
        self.array(|_, value| {
            elements.push(convert(value.scalar()?)?);
            Ok(())
        })?;
        Ok(elements)
    }

    fn scalar(&mut self) -> Result<Scalar, Fault> {
        let before = self.clone();
        let token = self.token();
        let scalar = match token {
            "true" => Some(Scalar::Flag(true)),
            "false" => Some(Scalar::Flag(false)),
            "NaN" => Some(Scalar::Number(f32::NAN)),
            "Infinity" => Some(Scalar::Number(f32::INFINITY)),
            "-Infinity" => Some(Scalar::Number(f32::NEG_INFINITY)),
            // The standard library takes words of its own for numbers.
            _ if !token.bytes().any(|byte| byte.is_ascii_digit()) => None,
            _ => match token.parse() {
                Ok(integer) => Some(Scalar::Integer(integer)),
                Err(_) => token.parse().ok().map(Scalar::Number),
            },
        };
        scalar.ok_or_else(|| before.fault("a number was expected"))
    }

    fn text(&mut self) -> Result<Cow<'a, str>, Fault> {
        let start = self.at;
        let (bytes, escapes) = self.quoted()?;
        let text = std::str::from_utf8(bytes)
            .map_err(|_| Fault::malformed(format!("the string at byte {start} is not UTF-8")))?;
        if escapes {
            let text = unescaped(text);
            return text
                .map(Cow::Owned)
                .ok_or_else(|| Fault::malformed(format!("the string at byte {start} has an unknown escape")));
        }
        Ok(Cow::Borrowed(text))
    }

    fn skip(&mut self) -> Result<(), Fault> {
        match self.peek() {
            Some(b'{') => self.object(|_, value| value.skip()),
            Some(b'[') => self.array(|_, value| value.skip()),
            Some(b'"') => self.quoted().map(|_| ()),
            _ => {
                let before = self.clone();
                let token = self.token();
                let is_number = token.bytes().any(|byte| byte.is_ascii_digit());
                let is_word = matches!(token, "true" | "false" | "null" | "NaN" | "Infinity" | "-Infinity");
                if is_number || is_word { Ok(()) } else { Err(before.fault("a value was expected")) }
            }
        }
    }

    fn end(&mut self) -> Result<(), Fault> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.fault("the end of the file was expected")),
        }
    }
}

/// Replaces the escapes of a string; none if one is unknown. Half a surrogate pair becomes a replacement character.
fn unescaped(text: &str) -> Option<String> {
    let mut units = Vec::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        if character != '\\' {
            units.extend_from_slice(character.encode_utf16(&mut [0; 2]));
            continue;
        }
        units.push(match rest.next()? {
            'n' => u16::from(b'\n'),
            'r' => u16::from(b'\r'),
            't' => u16::from(b'\t'),
            'b' => 8,
            'f' => 12,
            same @ ('"' | '\\' | '/') => same as u16,
            'u' => {
                let digits =
                    rest.as_str().get(..4).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
                let unit = u16::from_str_radix(digits?, 16).ok()?;
                rest.nth(3);
                unit
            }
            _ => return None,
        });
    }
    Some(String::from_utf16_lossy(&units))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(text: &str) -> Option<Vec<f32>> {
        let mut json = Json::new(text.as_bytes());
        json.numbers().and_then(|numbers| json.end().map(|()| numbers)).ok()
    }

    /// Decimals become the f32 that is nearest, also where the nearest f64 lies between two f32.
    #[test]
    fn decimals_are_rounded_once() {
        // Just above the middle between 1 and the next f32: as f64 it is the middle, which is rounded to even, to 1.
        assert_eq!(numbers("[1.00000005960464477540]"), Some(vec![1.0_f32.next_up()]));
        assert_eq!(numbers("[5E-1, -0E0,1e2 , 3]"), Some(vec![0.5, -0.0, 100.0, 3.0]));
        let infinite = numbers("[Infinity,-Infinity,1E400]");
        assert_eq!(infinite, Some(vec![f32::INFINITY, f32::NEG_INFINITY, f32::INFINITY]));
        assert!(numbers("[NaN]").is_some_and(|numbers| numbers[0].is_nan()));
    }

    /// What is no number is no number.
    #[test]
    fn malformed_arrays_are_faults() {
        for text in
            ["[", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "[inf]", "[nan]", "[1-2]", "[\"1\"]", "[null]", "{}", ""]
        {
            assert_eq!(numbers(text), None, "{text}");
        }
        assert_eq!(numbers("[ ]"), Some(Vec::new()));
        assert_eq!(numbers("[1]]"), None);
    }

    /// Strings are what they say, escapes and all.
    #[test]
    fn strings_are_unescaped() {
        let text = |text: &str| Json::new(text.as_bytes()).text().ok().map(Cow::into_owned);
        assert_eq!(text(r#""a \"b\" \\ \n é""#).as_deref(), Some("a \"b\" \\ \n é"));
        assert_eq!(text(r#""\u00e9\ud83d\ude00\ud83d""#).as_deref(), Some("é😀\u{fffd}"));
        for wrong in [r#""\x""#, r#""\u12""#, r#""\u12é4""#, r#""a"#, r#""a\""#, "\"\\", "a"] {
            assert_eq!(text(wrong), None, "{wrong}");
        }
        assert!(Json::new(b"\"\xff\"").text().is_err());
    }

    /// What is not wanted is passed over, and its ends are still checked.
    #[test]
    fn skipping_goes_to_the_end_of_a_value() {
        let mut json = Json::new(br#" {"a":[1,{"b":null,"c":"}]\""}],"d":NaN} "#);
        assert!(json.skip().is_ok() && json.end().is_ok());
        for wrong in ["[1}", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "nul", "", "]"] {
            assert!(Json::new(wrong.as_bytes()).skip().is_err(), "{wrong}");
        }
    }

    /// Nesting costs no more stack than is allowed for.
    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(Json::new(nested(DEPTH_MAX).as_bytes()).skip().is_ok());
        assert!(Json::new(nested(DEPTH_MAX + 1).as_bytes()).skip().is_err());
        assert!(Json::new("{\"a\":".repeat(1_000_000).as_bytes()).skip().is_err());
    }
}
