//! From a text to its words.

use super::ast::Literal;
use super::issue::Issue;

#[derive(Clone, Debug, PartialEq)]
pub enum Word {
    Literal(Literal),
    /// A name; quoted in backticks it may be any.
    Name(String),
    Quoted(String),
    /// An operator or bracket.
    Sign(&'static str),
    End,
}

/// A word, and where it starts.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    pub at: usize,
    pub word: Word,
}

impl Token {
    /// As errors show it.
    pub fn shown(&self) -> String {
        match &self.word {
            Word::End => "<EOF>".to_owned(),
            Word::Sign(sign) => (*sign).to_owned(),
            Word::Name(name) => name.clone(),
            Word::Quoted(name) => format!("`{name}`"),
            Word::Literal(literal) => match literal {
                Literal::Null => "null".to_owned(),
                Literal::Bool(value) => value.to_string(),
                Literal::Int(value) => value.to_string(),
                Literal::Uint(value) => format!("{value}u"),
                Literal::Double(value) => value.to_string(),
                Literal::String(value) => format!("{value:?}"),
                Literal::Bytes(_) => "b\"…\"".to_owned(),
            },
        }
    }
}

/// Longer ones first.
const SIGNS: [&str; 25] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "!", "+", "-", "*", "/", "%", "?", ":", ".", ",", "(", ")",
    "[", "]", "{", "}", "=",
];

struct Lexer<'t> {
    chars: &'t [char],
    at: usize,
}

/// The words of a text, the last one [`Word::End`]. Fails at the first that is none.
pub fn words(chars: &[char]) -> Result<Vec<Token>, Issue> {
    let mut lexer = Lexer { chars, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip();
        let at = lexer.at;
        let word = lexer.word()?;
        let end = word == Word::End;
        tokens.push(Token { at, word });
        if end {
            return Ok(tokens);
        }
    }
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn wrong<T>(&self, at: usize, message: impl Into<String>) -> Result<T, Issue> {
        Err(Issue { at, message: message.into() })
    }

    fn skip(&mut self) {
        loop {
            match (self.peek(0), self.peek(1)) {
                (' ' | '\t' | '\r' | '\n' | '\u{c}', _) => self.at += 1,
                ('/', '/') => {
                    while self.at < self.chars.len() && self.peek(0) != '\n' {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    fn word(&mut self) -> Result<Word, Issue> {
        let at = self.at;
        if at >= self.chars.len() {
            return Ok(Word::End);
        }
        let c = self.peek(0);
        if let Some(literal) = self.text()? {
            return Ok(Word::Literal(literal));
        }
        if c.is_ascii_digit() || (c == '.' && self.peek(1).is_ascii_digit()) {
            return self.number().map(Word::Literal);
        }
        if c.is_ascii_alphabetic() || c == '_' {
            return Ok(self.name());
        }
        if c == '`' {
            return self.quoted();
        }
        for sign in SIGNS {
            if sign.chars().enumerate().all(|(ahead, c)| self.peek(ahead) == c) && sign != "=" {
                self.at += sign.len();
                return Ok(Word::Sign(sign));
            }
        }
        self.wrong(at, format!("Syntax error: token recognition error at: '{c}'"))
    }

    fn name(&mut self) -> Word {
        let start = self.at;
        while self.peek(0).is_ascii_alphanumeric() || self.peek(0) == '_' {
            self.at += 1;
        }
        let name: String = self.chars[start..self.at].iter().collect();
        match name.as_str() {
            "true" => Word::Literal(Literal::Bool(true)),
            "false" => Word::Literal(Literal::Bool(false)),
            "null" => Word::Literal(Literal::Null),
            "in" => Word::Sign("in"),
            _ => Word::Name(name),
        }
    }

    fn quoted(&mut self) -> Result<Word, Issue> {
        let start = self.at + 1;
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/' | ' ');
        self.at = start;
        while allowed(self.peek(0)) {
            self.at += 1;
        }
        if self.peek(0) != '`' || self.at == start {
            return self.wrong(start - 1, "Syntax error: token recognition error at: '`'");
        }
        let name = self.chars[start..self.at].iter().collect();
        self.at += 1;
        Ok(Word::Quoted(name))
    }

    fn number(&mut self) -> Result<Literal, Issue> {
        let start = self.at;
        let hex = self.peek(0) == '0' && matches!(self.peek(1), 'x' | 'X');
        if hex {
            self.at += 2;
            while self.peek(0).is_ascii_hexdigit() {
                self.at += 1;
            }
        } else {
            self.decimal();
        }
        let text: String = self.chars[start..self.at].iter().collect();
        if matches!(self.peek(0), 'u' | 'U') {
            self.at += 1;
            let value = if hex { u64::from_str_radix(&text[2..], 16) } else { text.parse() };
            return value.map(Literal::Uint).or_else(|_| self.wrong(start, "invalid uint literal"));
        }
        if hex {
            let value = i64::from_str_radix(&text[2..], 16);
            return value.map(Literal::Int).or_else(|_| self.wrong(start, "invalid int literal"));
        }
        if text.contains(['.', 'e', 'E']) {
            return text
                .parse()
                .map(Literal::Double)
                .or_else(|_| self.wrong(start, "invalid double literal"));
        }
        // The least of all integers is a minus and a number that is none by itself.
        if text == "9223372036854775808" && start > 0 && self.chars[start - 1] == '-' {
            return Ok(Literal::Int(i64::MIN));
        }
        text.parse().map(Literal::Int).or_else(|_| self.wrong(start, "invalid int literal"))
    }

    fn decimal(&mut self) {
        let digits = |this: &mut Self| {
            while this.peek(0).is_ascii_digit() {
                this.at += 1;
            }
        };
        digits(self);
        if self.peek(0) == '.' && self.peek(1).is_ascii_digit() {
            self.at += 1;
            digits(self);
        }
        let sign = usize::from(matches!(self.peek(1), '+' | '-'));
        if matches!(self.peek(0), 'e' | 'E') && self.peek(1 + sign).is_ascii_digit() {
            self.at += 1 + sign;
            digits(self);
        }
    }

    /// A string or bytes, if one starts here.
    fn text(&mut self) -> Result<Option<Literal>, Issue> {
        let start = self.at;
        let (mut raw, mut bytes, mut ahead) = (false, false, 0);
        loop {
            match self.peek(ahead) {
                'r' | 'R' if !raw => raw = true,
                'b' | 'B' if !bytes => bytes = true,
                '"' | '\'' => break,
                _ => return Ok(None),
            }
            ahead += 1;
        }
        self.at += ahead;
        let quote = self.peek(0);
        let triple = self.peek(1) == quote && self.peek(2) == quote;
        let width = if triple { 3 } else { 1 };
        self.at += width;
        let (mut string, mut made) = (String::new(), Vec::new());
        loop {
            let c = self.peek(0);
            if self.at >= self.chars.len() || (c == '\n' && !triple) {
                return self.wrong(start, format!("Syntax error: token recognition error at: '{quote}'"));
            }
            if c == quote && (!triple || (self.peek(1) == quote && self.peek(2) == quote)) {
                self.at += width;
                break;
            }
            self.at += 1;
            let (code, byte) = if c == '\\' && !raw { self.escape(bytes)? } else { (c as u32, false) };
            if byte {
                made.push(u8::try_from(code).unwrap_or_default());
                continue;
            }
            let Some(c) = char::from_u32(code) else {
                return self.wrong(start, "invalid unicode code point");
            };
            if bytes {
                made.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                string.push(c);
            }
        }
        Ok(Some(if bytes { Literal::Bytes(made) } else { Literal::String(string) }))
    }

    /// After a backslash: the character it stands for, and whether that is a byte.
    fn escape(&mut self, bytes: bool) -> Result<(u32, bool), Issue> {
        let at = self.at;
        let c = self.peek(0);
        self.at += 1;
        let simple = match c {
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '\\' | '\'' | '"' | '`' | '?' => c,
            _ => '\0',
        };
        if simple != '\0' {
            return Ok((simple as u32, false));
        }
        let (digits, radix) = match c {
            'x' | 'X' => (2, 16),
            'u' if !bytes => (4, 16),
            'U' if !bytes => (8, 16),
            '0'..='3' => {
                self.at -= 1;
                (3, 8)
            }
            _ => return self.wrong(at, "unable to unescape string"),
        };
        let text: String = self.chars[self.at.min(self.chars.len())..].iter().take(digits).collect();
        self.at += digits;
        match u32::from_str_radix(&text, radix) {
            Ok(code) if text.len() == digits => Ok((code, bytes && digits < 4)),
            _ => self.wrong(at, "unable to unescape string"),
        }
    }
}
