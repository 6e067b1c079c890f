//! The members of a JSON object as sellers write them: names in another spelling, names that occur twice.

use std::borrow::Cow;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::WireError;
use crate::text::excerpt;

/// A string that is borrowed from the JSON, unless it has escapes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// The members of a JSON object, in the order of the JSON.
#[derive(Debug, Default)]
pub(super) struct Members<'a>(pub(super) Vec<Member<'a>>);

/// A name and its value.
#[derive(Debug)]
pub(super) struct Member<'a> {
    name: Text<'a>,
    spelling: Spelling,
    pub(super) value: &'a RawValue,
}

impl Member<'_> {
    /// Returns whether the name is the wanted one, apart from its case, `_` and `-`.
    pub(super) fn is(&self, wanted: &str) -> bool {
        self.spelling.letters() == wanted.as_bytes()
    }

    fn is_any(&self, wanted: &[&str]) -> bool {
        wanted.iter().any(|wanted| self.is(wanted))
    }
}

/// The letters of a name in lower case, without `_` and `-`. A name that is longer than every wanted one has none.
#[derive(Debug)]
struct Spelling {
    length: usize,
    letters: [u8; LONGEST_NAME],
}

/// How often a member may occur. Each repeat is compared with the first, which may be long.
const MOST_REPEATS: u8 = 4;
/// No wanted name is longer.
const LONGEST_NAME: usize = 20;

impl Spelling {
    fn of(name: &str) -> Self {
        let mut spelling = Self {
            length: 0,
            letters: [0; LONGEST_NAME],
        };
        for byte in name.bytes().filter(|byte| !matches!(byte, b'_' | b'-')) {
            let Some(place) = spelling.letters.get_mut(spelling.length) else {
                spelling.length = 0;
                break;
            };
            *place = byte.to_ascii_lowercase();
            spelling.length = spelling.length.saturating_add(1);
        }
        spelling
    }

    fn letters(&self) -> &[u8] {
        self.letters.get(..self.length).unwrap_or_default()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::with_capacity(8);
                while let Some((name, value)) = map.next_entry::<Text<'_>, _>()? {
                    let spelling = Spelling::of(&name);
                    members.push(Member {
                        name,
                        spelling,
                        value,
                    });
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

impl<'a> Members<'a> {
    pub(super) fn read(json: &'a [u8]) -> Result<Self, WireError> {
        Ok(serde_json::from_slice(json)?)
    }

    pub(super) fn of(object: &'a RawValue) -> Result<Self, WireError> {
        Ok(serde_json::from_str(object.get())?)
    }

    pub(super) fn has(&self, wanted: &str) -> bool {
        self.0.iter().any(|member| member.is(wanted))
    }

    /// Returns whether every member has one of these names.
    pub(super) fn are_all_of(&self, names: &[&str]) -> bool {
        self.0.iter().all(|member| member.is_any(names))
    }

    /// Returns the value of a member. Each name is in lower case and without separators, and also finds `pay_to` and
    /// `PayTo`. A member that is `null` counts as absent.
    pub(super) fn get(&self, names: &[&str]) -> Result<Option<&'a RawValue>, WireError> {
        Ok(self.find(names)?.map(|(_, value)| value))
    }

    fn find(&self, names: &[&str]) -> Result<Option<(&str, &'a RawValue)>, WireError> {
        let mut found: Option<&Member<'a>> = None;
        let mut repeats = 0_u8;
        for member in &self.0 {
            if !member.is_any(names) || member.value.get() == "null" {
                continue;
            }
            repeats = repeats.saturating_add(1);
            match found {
                None => found = Some(member),
                Some(_) if repeats > MOST_REPEATS => {
                    let name = excerpt(&member.name);
                    return Err(WireError::Ambiguous(format!("`{name}` is repeated")));
                }
                Some(first) if is_same(first.value, member.value) => {}
                Some(first) => {
                    let (first, second) = (excerpt(&first.name), excerpt(&member.name));
                    let message = format!("`{first}` and `{second}` have different values");
                    return Err(WireError::Ambiguous(message));
                }
            }
        }
        Ok(found.map(|member| (&*member.name, member.value)))
    }

    /// Returns a string, or a number as the seller wrote it.
    pub(super) fn text(&self, names: &[&str]) -> Result<Option<Text<'a>>, WireError> {
        let Some((name, value)) = self.find(names)? else {
            return Ok(None);
        };
        let none = || WireError::Unreadable(format!("`{}` is no text", excerpt(name)));
        scalar(value).map(Some).ok_or_else(none)
    }

    pub(super) fn object(&self, name: &str) -> Option<Self> {
        Self::of(self.get(&[name]).ok()??).ok()
    }

    /// Returns a text, and `None` for everything that is none. A wrong description must not spoil an offer.
    pub(super) fn words(&self, names: &[&str]) -> Option<String> {
        Some(self.text(names).ok()??.0.into_owned())
    }
}

/// Returns a string, or the digits of a number.
fn scalar(value: &RawValue) -> Option<Text<'_>> {
    let json = value.get();
    match json.as_bytes().first()? {
        b'"' if json.contains('\\') => serde_json::from_str(json).ok(),
        b'"' => Some(Text(json.trim_matches('"').into())),
        b'-' | b'0'..=b'9' => Some(Text(json.into())),
        _ => None,
    }
}

/// Returns whether two values say the same: `"1"` and `1` do, and so does an address in another case.
pub(super) fn is_same(one: &RawValue, other: &RawValue) -> bool {
    match (scalar(one), scalar(other)) {
        (Some(one), Some(other)) if one.starts_with("0x") => one.eq_ignore_ascii_case(&other),
        (Some(one), Some(other)) => one == other,
        _ => {
            let read = |value: &RawValue| serde_json::from_str::<Value>(value.get()).ok();
            one.get() == other.get() || read(one).is_some_and(|one| Some(one) == read(other))
        }
    }
}
