//! A reader of JSON texts that goes through them once, from left to right, and takes what KServe's clients write: beside JSON itself
//! (RFC 8259), the words `NaN`, `Infinity` and `-Infinity` for numbers.
//!
//! It makes no tree: whoever reads says at each place what is to be there. It holds one position, and takes no more of the stack
//! than [`DEPTH_MAX`] allows, whatever the text is.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use super::BadRequest;

/// How deep what nobody asked for may be nested. Larger: more of the stack. Smaller: parameters of others' own are refused.
const DEPTH_MAX: usize = 32;

/// A place in a text.
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(text: &'a str) -> Cursor<'a> {
        Cursor { text, at: 0 }
    }

    /// Bytes that are not read yet.
    pub fn remaining(&self) -> usize {
        self.text.len() - self.at
    }

    /// The next byte that is no white space, which stays where it is; 0 at the end, which is no byte that may stand there.
    pub fn peek(&mut self) -> u8 {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                byte => return *byte,
            }
        }
        0
    }

    /// Goes past the next byte if it is this one.
    pub fn skips(&mut self, byte: u8) -> bool {
        let is_there = self.peek() == byte;
        self.at += usize::from(is_there);
        is_there
    }

    /// What stands here is wrong.
    pub fn error<T>(&self, expected: &str) -> Result<T, BadRequest> {
        let found = match self.text[self.at..].chars().next() {
            Some(letter) => format!("{letter:?} stands there"),
            None => "it ends there".to_owned(),
        };
        Err(BadRequest::new(format!("the JSON text has no {expected} at byte {}: {found}", self.at)))
    }

    fn expect(&mut self, byte: u8, what: &str) -> Result<(), BadRequest> {
        if self.skips(byte) { Ok(()) } else { self.error(what) }
    }

    /// Nothing follows.
    pub fn expect_end(&mut self) -> Result<(), BadRequest> {
        self.peek();
        if self.remaining() == 0 { Ok(()) } else { self.error("end") }
    }

    /// Reads an object; `read_member` reads the value of each of its keys.
    pub fn object(
        &mut self,
        mut read_member: impl FnMut(&mut Self, &str) -> Result<(), BadRequest>,
    ) -> Result<(), BadRequest> {
        self.expect(b'{', "object")?;
        if self.skips(b'}') {
            return Ok(());
        }
        loop {
            let key = self.string()?;
            self.expect(b':', "colon")?;
            read_member(self, &key)?;
            if self.skips(b'}') {
                return Ok(());
            }
            self.expect(b',', "comma or end of an object")?;
        }
    }

    /// Reads an array; `read_element` reads each of its elements.
    pub fn array(
        &mut self,
        mut read_element: impl FnMut(&mut Self) -> Result<(), BadRequest>,
    ) -> Result<(), BadRequest> {
        self.expect(b'[', "array")?;
        if self.skips(b']') {
            return Ok(());
        }
        loop {
            read_element(self)?;
            if self.skips(b']') {
                return Ok(());
            }
            self.expect(b',', "comma or end of an array")?;
        }
    }

    /// Reads a string; it is copied only if it is written with escapes.
    pub fn string(&mut self) -> Result<Cow<'a, str>, BadRequest> {
        self.expect(b'"', "string")?;
        let begin = self.at;
        let mut unescaped = None;
        loop {
            match self.text.as_bytes().get(self.at) {
                Some(b'"') => {
                    let rest = &self.text[begin..self.at];
                    self.at += 1;
                    return Ok(unescaped.map_or(Cow::Borrowed(rest), Cow::Owned));
                }
                Some(b'\\') => {
                    let mut text: String = unescaped.take().unwrap_or_else(|| self.text[begin..self.at].to_owned());
                    self.at += 1;
                    text.push(self.escaped()?);
                    let plain = self.at;
                    while let Some(byte) = self.text.as_bytes().get(self.at)
                        && !matches!(byte, b'"' | b'\\' | 0..=0x1f)
                    {
                        self.at += 1;
                    }
                    text.push_str(&self.text[plain..self.at]);
                    unescaped = Some(text);
                }
                Some(0..=0x1f) => return self.error("character of a string (a control character is to be escaped)"),
                Some(_) => self.at += 1,
                None => return self.error("end of a string"),
            }
        }
    }

    /// What stands behind a backslash.
    fn escaped(&mut self) -> Result<char, BadRequest> {
        let letter = self.text.as_bytes().get(self.at).copied();
        let character = match letter {
            Some(letter @ (b'"' | b'\\' | b'/')) => char::from(letter),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.escaped_unit(),
            _ => return self.error("escape sequence"),
        };
        self.at += 1;
        Ok(character)
    }

    /// What stands behind a backslash, if it is `u`: a character, or two halves of one.
    fn escaped_unit(&mut self) -> Result<char, BadRequest> {
        let begin = self.at;
        let high = self.unit()?;
        let mut units = [high, 0];
        let is_pair = (0xd800..0xdc00).contains(&high) && self.text[self.at..].starts_with("\\u");
        if is_pair {
            self.at += 1;
            units[1] = self.unit()?;
        }
        match char::decode_utf16(units[..1 + usize::from(is_pair)].iter().copied()).next() {
            Some(Ok(character)) => Ok(character),
            _ => {
                self.at = begin;
                self.error("whole character (half of a surrogate pair)")
            }
        }
    }

    fn unit(&mut self) -> Result<u16, BadRequest> {
        let digits = self.text.get(self.at + 1..self.at + 5);
        let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match digits.map(|digits| u16::from_str_radix(digits, 16)) {
            Some(Ok(unit)) => {
                self.at += 5;
                Ok(unit)
            }
            _ => self.error("four hexadecimal digits"),
        }
    }

    /// The text of the number that stands here, as JSON has numbers.
    #[inline]
    fn number(&mut self) -> Result<&'a str, BadRequest> {
        self.peek();
        let bytes = &self.text.as_bytes()[self.at..];
        let digits_from = |begin: usize| {
            let rest = bytes.get(begin..).unwrap_or_default();
            begin + rest.iter().take_while(|byte| byte.is_ascii_digit()).count()
        };
        let begin = usize::from(bytes.first() == Some(&b'-'));
        let mut end = digits_from(begin);
        let mut is_number = end > begin && (bytes[begin] != b'0' || end == begin + 1);
        if bytes.get(end) == Some(&b'.') {
            let fraction = end + 1;
            end = digits_from(fraction);
            is_number &= end > fraction;
        }
        if let Some(b'e' | b'E') = bytes.get(end) {
            let exponent = end + 1 + usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            end = digits_from(exponent);
            is_number &= end > exponent;
        }
        if !is_number {
            return self.error("number");
        }
        let number = &self.text[self.at..self.at + end];
        self.at += end;
        Ok(number)
    }

    /// Reads a number as the nearest f32; what is missing (`null`) is NaN.
    #[inline]
    pub fn f32(&mut self) -> Result<f32, BadRequest> {
        let word = match self.peek() {
            b'0'..=b'9' => None,
            b'-' if self.text[self.at..].starts_with("-I") => Some(("-Infinity", f32::NEG_INFINITY)),
            b'-' => None,
            b'N' => Some(("NaN", f32::NAN)),
            b'n' => Some(("null", f32::NAN)),
            b'I' => Some(("Infinity", f32::INFINITY)),
            _ => return self.error("number"),
        };
        if let Some((word, value)) = word {
            return self.word(word).map(|()| value);
        }
        let number = self.number()?;
        match number.parse::<f32>() {
            Ok(value) if value.is_finite() => Ok(value),
            // Not in silence another number. Infinity can be written.
            _ => Err(BadRequest::new(format!("the number {} is beyond what FP32 has", shortened(number)))),
        }
    }

    /// Reads a whole number that is not negative.
    pub fn whole(&mut self, what: &str) -> Result<u64, BadRequest> {
        if !matches!(self.peek(), b'-' | b'0'..=b'9') {
            return self.error(what);
        }
        let number = self.number()?;
        let wrong = || BadRequest::new(format!("{} is no {what}: a whole number from 0 on is", shortened(number)));
        number.parse().map_err(|_| wrong())
    }

    /// Reads a truth.
    pub fn truth(&mut self, what: &str) -> Result<bool, BadRequest> {
        match self.peek() {
            b't' => self.word("true").map(|()| true),
            b'f' => self.word("false").map(|()| false),
            _ => self.error(what),
        }
    }

    fn word(&mut self, word: &str) -> Result<(), BadRequest> {
        let rest = &self.text[self.at..];
        let ends = !rest.as_bytes().get(word.len()).is_some_and(u8::is_ascii_alphanumeric);
        if !rest.starts_with(word) || !ends {
            return self.error("value");
        }
        self.at += word.len();
        Ok(())
    }

    /// Goes past a value, whatever it is.
    pub fn skip_value(&mut self) -> Result<(), BadRequest> {
        self.skip_nested(0)
    }

    fn skip_nested(&mut self, depth: usize) -> Result<(), BadRequest> {
        if depth > DEPTH_MAX {
            return Err(BadRequest::new(format!(
                "the JSON text is nested deeper than {DEPTH_MAX} at byte {}",
                self.at
            )));
        }
        match self.peek() {
            b'{' => self.object(|cursor, _| cursor.skip_nested(depth + 1)),
            b'[' => self.array(|cursor| cursor.skip_nested(depth + 1)),
            b'"' => self.string().map(drop),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            b'N' => self.word("NaN"),
            b'I' => self.word("Infinity"),
            b'-' if self.text[self.at..].starts_with("-I") => self.word("-Infinity"),
            b'-' | b'0'..=b'9' => self.number().map(drop),
            _ => self.error("value"),
        }
    }
}

/// What is told of something that may be long.
pub(super) fn shortened(text: &str) -> Cow<'_, str> {
    const LETTERS: usize = 64;
    match text.char_indices().nth(LETTERS) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}
