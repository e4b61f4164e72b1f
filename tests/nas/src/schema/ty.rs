//! The types of parameters and results, and the notation that they are written in.

use regex::Regex;
use serde_json::Value;

/// What a value may be.
#[derive(Debug, Clone)]
pub enum Ty {
    /// Anything.
    Any,
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool,
    /// A whole number within bounds.
    Int(Option<i64>, Option<i64>),
    /// Any number.
    Number,
    /// Text, with its least and greatest length in characters and a pattern.
    Str(usize, usize, Option<Regex>),
    /// Exactly this value.
    Literal(Value),
    /// A list.
    List(Box<Ty>),
    /// A map with any keys.
    Map,
    /// A map with any keys, whose values are all of a kind.
    MapOf(Box<Ty>),
    /// A map with these keys and no others.
    Object(Vec<Field>),
    /// One of several.
    Union(Vec<Ty>),
}

/// One key of an object, or one positional parameter.
#[derive(Debug, Clone)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Whether it may be left out.
    pub optional: bool,
    /// What it is when it is left out.
    pub default: Option<Value>,
    /// What it may be.
    pub ty: Ty,
}

/// Text is never longer than this, unless it is declared long.
pub const SHORT: usize = 1024;
/// Nor is long text longer than this.
pub const LONG: usize = 2_048_000;

/// Reads a type; the error says where in the text it went wrong. `longest` is for text that has no
/// length of its own.
pub fn parse(text: &str, longest: usize) -> Result<Ty, String> {
    let mut reader = Reader { text, at: 0, longest };
    let ty = reader.ty()?;
    reader.spaces();
    if reader.at < text.len() { Err(reader.wrong("the end")) } else { Ok(ty) }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    longest: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn wrong(&self, expected: &str) -> String {
        let around: String = self.rest().chars().take(40).collect();
        format!("expected {expected} before `{around}`")
    }

    fn spaces(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn take(&mut self, keep: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !keep(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn ty(&mut self) -> Result<Ty, String> {
        let mut all = vec![self.one()?];
        while self.eat("|") {
            all.push(self.one()?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Ty::Union(all) })
    }

    fn one(&mut self) -> Result<Ty, String> {
        if self.eat("{") {
            return self.object();
        }
        if self.eat("map(") {
            let item = self.ty()?;
            return if self.eat(")") {
                Ok(Ty::MapOf(Box::new(item)))
            } else {
                Err(self.wrong(")"))
            };
        }
        if self.eat("[") {
            let item = self.ty()?;
            return if self.eat("]") { Ok(Ty::List(Box::new(item))) } else { Err(self.wrong("]")) };
        }
        if self.eat("'") {
            let literal = self.take(|c| c != '\'').to_owned();
            return if self.eat("'") {
                Ok(Ty::Literal(literal.into()))
            } else {
                Err(self.wrong("'"))
            };
        }
        let word = self.take(|c| c.is_ascii_alphanumeric() || "_-/.".contains(c));
        match word {
            "any" => Ok(Ty::Any),
            "null" | "None" => Ok(Ty::Null),
            "boolean" => Ok(Ty::Bool),
            "number" => Ok(Ty::Number),
            "object" => Ok(Ty::Map),
            "true" | "True" => Ok(Ty::Literal(true.into())),
            // A point in time, as the wire wraps it.
            "date" => Ok(Ty::Object(vec![Field {
                name: "$date".into(),
                optional: false,
                default: None,
                ty: Ty::Int(None, None),
            }])),
            "integer" => self.integer(),
            "string" => self.string(),
            "" => Err(self.wrong("a type")),
            words => Ok(Ty::Union(
                words
                    .split('/')
                    .map(|w| match w {
                        "None" => Ty::Null,
                        "True" => Ty::Literal(true.into()),
                        word => Ty::Literal(word.into()),
                    })
                    .collect(),
            )),
        }
    }

    fn object(&mut self) -> Result<Ty, String> {
        let mut fields = Vec::new();
        loop {
            self.spaces();
            if self.eat("}") {
                return Ok(Ty::Object(fields));
            }
            let name = self.take(|c| c.is_ascii_alphanumeric() || c == '_').to_owned();
            let optional = self.eat("?");
            if name.is_empty() || !self.eat(":") {
                return Err(self.wrong("a key"));
            }
            let ty = self.ty()?;
            let default = if self.eat("=") { Some(self.json()?) } else { None };
            fields.push(Field { name, optional, default, ty });
            self.eat(",");
        }
    }

    fn json(&mut self) -> Result<Value, String> {
        let mut values = serde_json::Deserializer::from_str(self.rest()).into_iter::<Value>();
        let value = values.next().and_then(Result::ok);
        let used = values.byte_offset();
        let value = value.ok_or_else(|| self.wrong("a default"))?;
        self.at += used;
        Ok(value)
    }

    fn bound(&mut self) -> Result<i64, String> {
        let digits = self.take(|c| c.is_ascii_digit() || c == '-');
        digits.parse().map_err(|_| self.wrong("a number"))
    }

    fn integer(&mut self) -> Result<Ty, String> {
        let (mut least, mut most) = (None, None);
        loop {
            if self.eat(" >=") {
                least = Some(self.bound()?);
            } else if self.eat(" <=") {
                most = Some(self.bound()?);
            } else if self.eat(" >") {
                least = Some(self.bound()? + 1);
            } else if self.eat(" <") {
                most = Some(self.bound()? - 1);
            } else {
                return Ok(Ty::Int(least, most));
            }
        }
    }

    fn string(&mut self) -> Result<Ty, String> {
        let (mut least, mut most, mut pattern) = (0, self.longest, None);
        loop {
            if self.eat(" len>=") {
                least = self.bound()? as usize;
            } else if self.eat(" len<=") {
                most = self.bound()? as usize;
            } else if self.eat(" long") {
                most = LONG;
            } else if self.eat(" ~\"") {
                let text = self.take(|c| c != '"');
                self.eat("\"");
                pattern = Some(Regex::new(text).map_err(|e| e.to_string())?);
            } else {
                return Ok(Ty::Str(least, most, pattern));
            }
        }
    }
}
