//! A serde deserializer over TOML's tree that goes on after a mistake.
//!
//! Serde stops at the first error. In the schema, every value of a key is a [`Value`] or a [`Table`]. Each
//! catches the error of its own content: the [`Reader`] records the error with its place, the content is
//! `None`, and reading goes on at the next key. The reader also knows three things that a plain
//! deserializer does not: which keys of a table are unknown, which required keys are missing, and that a
//! key which takes a list takes a single value too.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{StrDeserializer, UsizeDeserializer};
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, Expected, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Mistakes;
use crate::text;

/// A scalar of the file.
pub(super) struct Value<T> {
    /// The byte at which it begins.
    pub(super) at: usize,
    /// The value, or `None` if it has a mistake. The mistake is recorded.
    pub(super) content: Option<T>,
}

/// A table of the file.
pub(super) struct Table<T> {
    /// The byte at which it begins: its header, its brace, or its key.
    pub(super) at: usize,
    /// Its keys, or `None` if this is no table. The mistake is recorded.
    pub(super) content: Option<T>,
}

/// A type that a scalar of the file is read as.
pub(super) trait Scalar: Sized {
    /// The form that the file must have, as in "must be …".
    const EXPECTED: &'static str;

    /// Reads a string.
    fn from_text(_: &str) -> Result<Self, Unfit> {
        Err(Unfit::Type)
    }

    /// Reads a whole number.
    fn from_number(_: u64) -> Result<Self, Unfit> {
        Err(Unfit::Type)
    }

    /// Reads a number with a decimal point.
    fn from_decimal(_: f64) -> Result<Self, Unfit> {
        Err(Unfit::Type)
    }

    /// Reads `true` or `false`.
    fn from_flag(_: bool) -> Result<Self, Unfit> {
        Err(Unfit::Type)
    }
}

/// The reason why a scalar cannot be read.
pub(super) enum Unfit {
    /// It has the wrong type.
    Type,
    /// It has the right type and a wrong value.
    Value,
    /// It has the right type, and this is wrong with it.
    Because(String),
}

impl<'de, T: Scalar> Deserialize<'de> for Value<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (at, content) = placed::<Content<T>, D>(deserializer)?;
        Ok(Self {
            at,
            content: content.map(|Content(content)| content),
        })
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (at, content) = placed(deserializer)?;
        Ok(Self { at, content })
    }
}

/// Asks the [`Reader`] for the place and the content of a value.
fn placed<'de, T, D>(deserializer: D) -> Result<(usize, Option<T>), D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    struct Pair<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Pair<T> {
        type Value = (usize, Option<T>);

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a value with its place")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<Self::Value, A::Error> {
            let at = pair.next_element()?.unwrap_or_default();
            Ok((at, pair.next_element()?))
        }
    }

    deserializer.deserialize_tuple(2, Pair(PhantomData))
}

struct Content<T>(T);

impl<'de, T: Scalar> Deserialize<'de> for Content<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ScalarVisitor<T>(PhantomData<T>);

        impl<T: Scalar> ScalarVisitor<T> {
            fn finish<E: Error>(
                &self,
                found: Unexpected<'_>,
                read: Result<T, Unfit>,
            ) -> Result<Content<T>, E> {
                read.map(Content).map_err(|unfit| match unfit {
                    Unfit::Type => E::invalid_type(found, self),
                    Unfit::Value => E::invalid_value(found, self),
                    Unfit::Because(reason) => E::custom(reason),
                })
            }
        }

        impl<T: Scalar> Visitor<'_> for ScalarVisitor<T> {
            type Value = Content<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::EXPECTED)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Content<T>, E> {
                self.finish(Unexpected::Str(text), T::from_text(text))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Content<T>, E> {
                self.finish(Unexpected::Unsigned(number), T::from_number(number))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Content<T>, E> {
                self.finish(Unexpected::Float(number), T::from_decimal(number))
            }

            fn visit_bool<E: Error>(self, flag: bool) -> Result<Content<T>, E> {
                self.finish(Unexpected::Bool(flag), T::from_flag(flag))
            }
        }

        deserializer.deserialize_any(ScalarVisitor(PhantomData))
    }
}

/// An error in a value: the part of its message that follows the key.
#[derive(Debug)]
pub(super) struct Flaw(String);

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Flaw {}

/// No message repeats the value itself: a value may be a secret in the wrong place.
impl Error for Flaw {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(format!(": {message}"))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Str(_) => "a string",
            Unexpected::Unsigned(_) => "an integer",
            Unexpected::Float(_) => "a float",
            Unexpected::Bool(_) => "a boolean",
            Unexpected::Seq => "an array",
            Unexpected::Map => "a table",
            Unexpected::Other(other) => other,
            _ => "missing",
        };
        Self(format!(" must be {expected}, not {found}"))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self(format!(" must be {expected}"))
    }
}

/// The deserializer of one value of the file.
pub(super) struct Reader<'de, 'm> {
    mistakes: &'m Mistakes<'m>,
    key: &'static str,
    at: usize,
    node: Node<'de, 'm>,
}

enum Node<'de, 'm> {
    Value(DeValue<'de>),
    /// A key that the table does not have.
    Missing {
        table: &'m str,
        /// Whether an unknown key of the table is taken for a misspelling of this one.
        misspelled: bool,
    },
}

impl Node<'_, '_> {
    const fn found(&self) -> Unexpected<'static> {
        match self {
            Self::Value(DeValue::String(_)) => Unexpected::Str(""),
            Self::Value(DeValue::Integer(_)) => Unexpected::Unsigned(0),
            Self::Value(DeValue::Float(_)) => Unexpected::Float(0.0),
            Self::Value(DeValue::Boolean(_)) => Unexpected::Bool(false),
            Self::Value(DeValue::Datetime(_)) => Unexpected::Other("a date"),
            Self::Value(DeValue::Array(_)) => Unexpected::Seq,
            Self::Value(DeValue::Table(_)) => Unexpected::Map,
            Self::Missing { .. } => Unexpected::Option,
        }
    }
}

impl<'de, 'm> Reader<'de, 'm> {
    /// Reads a whole file.
    pub(super) fn new(mistakes: &'m Mistakes<'m>, file: DeTable<'de>) -> Self {
        Self {
            mistakes,
            key: "",
            at: 0,
            node: Node::Value(DeValue::Table(file)),
        }
    }

    /// Returns the name of a table in messages.
    fn title(&self) -> String {
        match self.mistakes.header(self.at) {
            _ if self.key.is_empty() => "the file".to_owned(),
            Some(header) => text::excerpt(header),
            None => format!("`{}`", self.key),
        }
    }
}

impl<'de> Deserializer<'de> for Reader<'de, '_> {
    type Error = Flaw;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Flaw> {
        match self.node {
            Node::Value(DeValue::String(text)) => visitor.visit_str(&text),
            Node::Value(DeValue::Boolean(flag)) => visitor.visit_bool(flag),
            Node::Value(DeValue::Integer(number)) => {
                let decimal = Some(number.as_str()).filter(|_| number.radix() == 10);
                match decimal.and_then(|number| number.parse().ok()) {
                    Some(number) => visitor.visit_u64(number),
                    None => Err(Flaw::invalid_value(Unexpected::Signed(0), &visitor)),
                }
            }
            Node::Value(DeValue::Float(number)) => match number.as_str().replace('_', "").parse() {
                Ok(number) => visitor.visit_f64(number),
                Err(_) => Err(Flaw::invalid_value(Unexpected::Float(0.0), &visitor)),
            },
            other => Err(Flaw::invalid_type(other.found(), &visitor)),
        }
    }

    /// Reads an optional key.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Flaw> {
        match self.node {
            Node::Value(_) => visitor.visit_some(self),
            Node::Missing { .. } => visitor.visit_none(),
        }
    }

    /// Reads a key that takes one value or an array of them.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Flaw> {
        let Self {
            mistakes, key, at, ..
        } = self;
        let values = match self.node {
            Node::Value(DeValue::Array(values)) => {
                if values.is_empty() {
                    mistakes.add(
                        at,
                        format!("`{key}` is an empty array; write a value or leave the key out"),
                    );
                }
                values.into_iter().collect()
            }
            Node::Value(value) => vec![Spanned::new(at..at, value)],
            Node::Missing { .. } => Vec::new(),
        };
        visitor.visit_seq(Elements {
            mistakes,
            key,
            values: values.into_iter(),
        })
    }

    /// Reads a place and a content, for [`placed`].
    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Flaw> {
        visitor.visit_seq(Placed {
            at: Some(self.at),
            content: Some(self),
        })
    }

    /// Reads a table, each field in turn: the keys that it has, and those that it does not have.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Flaw> {
        let title = self.title();
        let table = match self.node {
            Node::Value(DeValue::Table(table)) => table,
            other => return Err(Flaw::invalid_type(other.found(), &"a table")),
        };
        let misspelled = unknown_keys(self.mistakes, &title, &table, fields);
        visitor.visit_map(Fields {
            mistakes: self.mistakes,
            title,
            at: self.at,
            table,
            fields: fields.iter(),
            field: "",
            misspelled,
        })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct newtype_struct tuple_struct map enum identifier ignored_any
    }
}

/// Records the keys of a table that are not fields, and returns the fields that they are taken for.
fn unknown_keys(
    mistakes: &Mistakes<'_>,
    title: &str,
    table: &DeTable<'_>,
    fields: &'static [&'static str],
) -> Vec<&'static str> {
    let unknown = table
        .keys()
        .filter(|key| !fields.contains(&key.get_ref().as_ref()));
    let mut misspelled = Vec::new();
    for key in unknown {
        let absent = fields
            .iter()
            .copied()
            .filter(|field| !table.contains_key(*field));
        let near = text::closest(key.get_ref(), absent);
        misspelled.extend(near);
        let advice = match near {
            Some(field) => format!("; did you mean `{field}`?"),
            None => format!("; its keys are `{}`", fields.join("`, `")),
        };
        let name = text::excerpt(key.get_ref());
        mistakes.add(
            key.span().start,
            format!("unknown key `{name}` in {title}{advice}"),
        );
    }
    misspelled
}

/// The fields of a table.
struct Fields<'de, 'm> {
    mistakes: &'m Mistakes<'m>,
    title: String,
    at: usize,
    table: DeTable<'de>,
    fields: std::slice::Iter<'static, &'static str>,
    /// The field whose value is read next.
    field: &'static str,
    misspelled: Vec<&'static str>,
}

impl<'de> MapAccess<'de> for Fields<'de, '_> {
    type Error = Flaw;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Flaw> {
        let Some(field) = self.fields.next() else {
            return Ok(None);
        };
        self.field = field;
        let name: StrDeserializer<'_, Flaw> = field.into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Flaw> {
        let value = self.table.remove(self.field);
        seed.deserialize(Reader {
            mistakes: self.mistakes,
            key: self.field,
            at: value.as_ref().map_or(self.at, |value| value.span().start),
            node: match value {
                Some(value) => Node::Value(value.into_inner()),
                None => Node::Missing {
                    table: &self.title,
                    misspelled: self.misspelled.contains(&self.field),
                },
            },
        })
    }
}

/// The values of a key.
struct Elements<'de, 'm> {
    mistakes: &'m Mistakes<'m>,
    key: &'static str,
    values: std::vec::IntoIter<Spanned<DeValue<'de>>>,
}

impl<'de> SeqAccess<'de> for Elements<'de, '_> {
    type Error = Flaw;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Flaw> {
        let Some(value) = self.values.next() else {
            return Ok(None);
        };
        let reader = Reader {
            mistakes: self.mistakes,
            key: self.key,
            at: value.span().start,
            node: Node::Value(value.into_inner()),
        };
        seed.deserialize(reader).map(Some)
    }
}

/// A place, then a content unless it has a mistake.
struct Placed<'de, 'm> {
    at: Option<usize>,
    content: Option<Reader<'de, 'm>>,
}

impl<'de> SeqAccess<'de> for Placed<'de, '_> {
    type Error = Flaw;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Flaw> {
        if let Some(at) = self.at.take() {
            let at: UsizeDeserializer<Flaw> = at.into_deserializer();
            return seed.deserialize(at).map(Some);
        }
        let Some(reader) = self.content.take() else {
            return Ok(None);
        };
        let Reader {
            mistakes, key, at, ..
        } = reader;
        if let Node::Missing { table, misspelled } = reader.node {
            if !misspelled {
                mistakes.add(at, format!("{table} needs a key `{key}`"));
            }
            return Ok(None);
        }
        let content = seed.deserialize(reader);
        Ok(content
            .map_err(|flaw| mistakes.add(at, format!("`{key}`{flaw}")))
            .ok())
    }
}
