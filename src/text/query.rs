//! The query of the caller's URL, struck from all texts of strangers while its request runs.
//!
//! A query often holds a key. Sellers repeat it in their terms, reasons and redirects. [`guarding`] runs the work of a
//! request, and [`struck`] removes the query of that request from a text. [`excerpt`](super::excerpt) calls it, so each
//! text that bursar shows or stores went through it. A URL without a query costs nothing.

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use secrecy::zeroize::Zeroizing;
use serde_json::{Map, Value};
use url::Url;

tokio::task_local! {
    static OWN: Arc<OwnQuery>;
}

/// The shortest value that is struck wherever it occurs, in bytes. A shorter one is an ordinary word, such as `en`, and is
/// struck together with its name only.
const SHORTEST: usize = 6;
/// The text in place of a query.
const STRUCK: &str = "[query]";
/// The number of encodings, one inside the other, that are looked through.
const DEPTH: usize = 3;

/// The query of the caller's URL, in the forms in which others repeat it.
/// It can hold keys, so it has no `Debug`.
pub(crate) struct OwnQuery {
    /// The caller's own path. It stays in the caller's errors and in the ledger.
    path: String,
    query: String,
    needles: Vec<Needle>,
    outer: Option<Arc<Self>>,
}

struct Needle {
    /// Decoded and in lower case.
    bytes: Zeroizing<Vec<u8>>,
    /// Whether a letter or a digit next to it makes it another word.
    is_word: bool,
}

/// Runs the work of a request. Until it ends, the query of its URL is struck from texts.
pub(crate) async fn guarding<T>(url: &Url, work: impl Future<Output = T> + Unpin) -> T {
    let query = url.query().unwrap_or_default();
    if OWN.try_with(|own| own.query == query).unwrap_or_default() {
        return work.await;
    }
    match OwnQuery::of(url) {
        Some(own) => OWN.scope(Arc::new(own), work).await,
        None => work.await,
    }
}

/// As [`guarding`], for a secret that the seller knows, such as an API key.
pub(crate) async fn guarding_secret<T>(secret: &str, work: impl Future<Output = T> + Unpin) -> T {
    let mut own = OwnQuery::inside("");
    own.add_value(secret);
    OWN.scope(Arc::new(own), work).await
}

/// Returns a text without the query of a URL: neither the whole query nor a value of at least six bytes, in plain or encoded.
///
/// bursar does this to all texts of a seller while your request runs. Call it for other texts of the same server.
///
/// ```
/// let url = "https://tools.example/mcp?key=k-4f09a2".parse()?;
/// assert_eq!(bursar::text::without_query("no such key: K-4F09A2", &url), "no such key: [query]");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn without_query<'t>(text: &'t str, url: &Url) -> Cow<'t, str> {
    let struck = OwnQuery::of(url).and_then(|own| own.strike(text));
    struck.map_or(Cow::Borrowed(text), Cow::Owned)
}

/// Runs work that belongs to a request whose query was kept with [`current`].
pub(crate) async fn guarding_again<T>(
    own: Option<Arc<OwnQuery>>,
    work: impl Future<Output = T> + Unpin,
) -> T {
    match own {
        Some(own) => OWN.scope(own, work).await,
        None => work.await,
    }
}

/// As [`guarding_again`], for work that does not wait.
pub(crate) fn guarded<T>(own: Option<Arc<OwnQuery>>, work: impl FnOnce() -> T) -> T {
    match own {
        Some(own) => OWN.sync_scope(own, work),
        None => work(),
    }
}

/// The query that is struck at present.
pub(crate) fn current() -> Option<Arc<OwnQuery>> {
    OWN.try_with(Arc::clone).ok()
}

/// Returns the text without the query of the running request, in plain and in encoded form.
pub(crate) fn struck(text: &str) -> Cow<'_, str> {
    match OWN.try_with(|own| own.strike(text)) {
        Ok(Some(struck)) => struck.into(),
        _ => text.into(),
    }
}

/// As [`struck`], for a path. The caller's own path stays as it is; that of a redirect is the seller's.
pub(crate) fn struck_path(path: &str) -> Cow<'_, str> {
    match OWN.try_with(|own| own.path == path) {
        Ok(false) => struck(path),
        _ => path.into(),
    }
}

/// Strikes the query from all texts and names in JSON, except in the members `kept` of the outermost object. Returns
/// whether it changed.
pub(crate) fn strike_json(value: &mut Value, kept: &[&str]) -> bool {
    match value {
        Value::String(text) => match struck(text) {
            Cow::Owned(other) => {
                *text = other;
                true
            }
            Cow::Borrowed(_) => false,
        },
        Value::Array(values) => {
            let strike = |changed, value| strike_json(value, &[]) | changed;
            values.iter_mut().fold(false, strike)
        }
        Value::Object(members) => {
            let mut changed = false;
            let all = std::mem::take(members).into_iter();
            *members = all
                .map(|(name, mut value)| {
                    changed |= !kept.contains(&name.as_str()) && strike_json(&mut value, &[]);
                    let struck = struck(&name).into_owned();
                    changed |= struck != name;
                    (struck, value)
                })
                .collect::<Map<_, _>>();
            changed
        }
        _ => false,
    }
}

impl OwnQuery {
    fn of(url: &Url) -> Option<Self> {
        let query = url.query().filter(|query| !query.is_empty())?;
        let mut own = Self::inside(url.path());
        query.clone_into(&mut own.query);
        own.add(folded(&format!("?{query}")), true);
        for pair in query.split(['&', ';']) {
            let (name, value) = pair.split_once('=').unwrap_or(("", pair));
            if !name.is_empty() && !value.is_empty() {
                own.add(folded(pair), true);
            }
            own.add_value(value);
        }
        Some(own)
    }

    /// Strikes nothing yet, but all that is struck already.
    fn inside(path: &str) -> Self {
        let outer = current();
        Self {
            path: outer.as_ref().map_or(path, |outer| &outer.path).to_owned(),
            query: String::new(),
            needles: Vec::new(),
            outer,
        }
    }

    /// Adds a value and its encodings, unless it is short.
    fn add_value(&mut self, value: &str) {
        let plain: Vec<u8> = decoded(value).iter().map(|unit| unit.byte).collect();
        if plain.len() < SHORTEST {
            return;
        }
        self.add(folded(value), false);
        self.add_encoded(&plain);
        if plain != value.as_bytes() {
            self.add_encoded(value.as_bytes());
        }
    }

    /// Adds a value in hexadecimal and in base64, as a part of a longer text too.
    fn add_encoded(&mut self, value: &[u8]) {
        let hex = value.iter().map(|byte| format!("{byte:02x}"));
        self.add(hex.collect::<String>().into_bytes(), false);
        for shift in 0..3 {
            for alphabet in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
                self.add(in_base64(value, shift, alphabet), false);
            }
        }
    }

    fn add(&mut self, bytes: Vec<u8>, is_word: bool) {
        let bytes = Zeroizing::new(bytes);
        self.needles.push(Needle { bytes, is_word });
    }

    /// Returns the text without the query, if it has a part of it.
    fn strike(&self, text: &str) -> Option<String> {
        let mut units = decoded(text);
        units.iter_mut().for_each(Unit::fold);
        let bytes: Vec<u8> = units.iter().map(|unit| unit.byte).collect();
        let mut covered = vec![false; bytes.len()];
        let mut own = Some(self);
        while let Some(query) = own {
            for needle in &query.needles {
                needle.cover(&bytes, &mut covered);
            }
            own = query.outer.as_deref();
        }
        let (mut out, mut end, mut inside) = (String::new(), 0, false);
        for (unit, covered) in units.iter().zip(&covered) {
            if *covered && !inside {
                out.push_str(text.get(end..unit.start).unwrap_or_default());
                out.push_str(STRUCK);
            }
            inside = *covered;
            if inside {
                end = unit.end;
            }
        }
        (end > 0).then(|| out + text.get(end..).unwrap_or_default())
    }
}

impl Needle {
    fn cover(&self, text: &[u8], covered: &mut [bool]) {
        let Some((first, rest)) = self.bytes.split_first() else {
            return;
        };
        let is_of_word = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        for (start, _) in text.iter().enumerate().filter(|(_, byte)| *byte == first) {
            let end = start.saturating_add(self.bytes.len());
            let found = text.get(start.saturating_add(1)..end) == Some(rest);
            let before = start.checked_sub(1).and_then(|place| text.get(place));
            let is_part = self.is_word
                && ((first.is_ascii_alphanumeric() && is_of_word(before))
                    || (is_of_word(self.bytes.last()) && is_of_word(text.get(end))));
            if found
                && !is_part
                && let Some(place) = covered.get_mut(start..end)
            {
                place.fill(true);
            }
        }
    }
}

/// A byte of a decoded text, and the place in the text where it is written.
#[derive(Clone, Copy)]
struct Unit {
    byte: u8,
    start: usize,
    end: usize,
}

impl Unit {
    /// Makes it the same in upper and lower case, and as a plus sign and a space.
    fn fold(&mut self) {
        self.byte = match self.byte.to_ascii_lowercase() {
            b'+' => b' ',
            byte => byte,
        };
    }
}

fn folded(text: &str) -> Vec<u8> {
    let fold = |mut unit: Unit| {
        unit.fold();
        unit.byte
    };
    decoded(text).into_iter().map(fold).collect()
}

/// Returns the part of the base64 of `bytes` that does not depend on the bytes around them, `shift` bytes after the
/// beginning of a group of three.
fn in_base64(bytes: &[u8], shift: usize, alphabet: &impl Engine) -> Vec<u8> {
    let mut shifted = vec![0; shift];
    shifted.extend_from_slice(bytes);
    let whole = shifted.len().saturating_mul(8) / 6;
    let text = alphabet.encode(shifted);
    let first = shift.saturating_mul(8).div_ceil(6);
    folded(text.get(first..whole).unwrap_or_default())
}

/// Decodes escapes of URLs, of JSON and of HTML, also one inside the other.
fn decoded(text: &str) -> Vec<Unit> {
    let unit = |(place, byte): (usize, u8)| Unit {
        byte,
        start: place,
        end: place.saturating_add(1),
    };
    let mut units: Vec<Unit> = text.bytes().enumerate().map(unit).collect();
    for _ in 0..DEPTH {
        let escapes = |unit: &Unit| matches!(unit.byte, b'%' | b'\\' | b'&');
        if !units.iter().any(escapes) {
            break;
        }
        let length = units.len();
        units = decoded_once(&units);
        if units.len() == length {
            break;
        }
    }
    units
}

fn decoded_once(units: &[Unit]) -> Vec<Unit> {
    /// The longest escape, `&#x10ffff;` or a pair of `\ud83d`.
    const LONGEST: usize = 12;
    let mut out = Vec::with_capacity(units.len());
    let mut rest = units;
    while let Some((first, after)) = rest.split_first() {
        let ahead = rest.get(..LONGEST).unwrap_or(rest);
        let ahead: Vec<u8> = ahead.iter().map(|unit| unit.byte).collect();
        let Some((character, length)) = escape(&ahead) else {
            out.push(*first);
            rest = after;
            continue;
        };
        let (escape, after) = rest.split_at(length.min(rest.len()));
        let end = escape.last().map_or(first.end, |last| last.end);
        let unit = |byte| Unit {
            byte,
            start: first.start,
            end,
        };
        match character {
            Escaped::Byte(byte) => out.push(unit(byte)),
            Escaped::Char(character) => {
                out.extend(character.encode_utf8(&mut [0; 4]).bytes().map(unit));
            }
        }
        rest = after;
    }
    out
}

enum Escaped {
    Byte(u8),
    Char(char),
}

/// Reads an escape at the beginning of the text. Returns it with its length.
fn escape(text: &[u8]) -> Option<(Escaped, usize)> {
    let number = |digits: Option<&[u8]>, radix| {
        let digits = std::str::from_utf8(digits?).ok()?;
        let all = digits.chars().all(|digit| digit.is_digit(radix));
        u32::from_str_radix(digits, radix).ok().filter(|_| all)
    };
    let byte = |digits| number(digits, 16).and_then(|number| u8::try_from(number).ok());
    match text {
        [b'%', rest @ ..] => Some((Escaped::Byte(byte(rest.get(..2))?), 3)),
        [b'\\', b'x', rest @ ..] => Some((Escaped::Byte(byte(rest.get(..2))?), 4)),
        [b'\\', b'u', rest @ ..] => {
            let unit = |digits| number(digits, 16).and_then(|unit| u16::try_from(unit).ok());
            let first = unit(rest.get(..4))?;
            let second = rest.get(4..6).filter(|marker| *marker == b"\\u");
            let second = second.and_then(|_| unit(rest.get(6..10)));
            let units = [first, second.unwrap_or_default()];
            let character = char::decode_utf16(units).next()?.ok()?;
            Some((
                Escaped::Char(character),
                if character.len_utf16() == 2 { 12 } else { 6 },
            ))
        }
        [b'\\', plain @ (b'"' | b'\'' | b'/' | b'\\'), ..] => Some((Escaped::Byte(*plain), 2)),
        [b'&', rest @ ..] => {
            let end = rest.iter().position(|byte| *byte == b';')?;
            let character = match rest.get(..end)? {
                b"amp" => '&',
                b"lt" => '<',
                b"gt" => '>',
                b"quot" => '"',
                b"apos" => '\'',
                [b'#', b'x' | b'X', digits @ ..] => char::from_u32(number(Some(digits), 16)?)?,
                [b'#', digits @ ..] => char::from_u32(number(Some(digits), 10)?)?,
                _ => return None,
            };
            Some((Escaped::Char(character), end.saturating_add(2)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str =
        "https://a.example/report?token=QUERY%2FSecret%3D9&lang=en&id=4711&q=two%20words";

    /// Strikes by the query of a URL.
    fn told(url: &str, text: &str) -> String {
        let own = OwnQuery::of(&url.parse().unwrap());
        own.and_then(|own| own.strike(text))
            .unwrap_or_else(|| text.to_owned())
    }

    #[test]
    fn a_query_is_struck_in_every_encoding() {
        let value = "QUERY/Secret=9";
        let hex: String = value.bytes().map(|byte| format!("{byte:02X}")).collect();
        let every: String = value.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let unicode: String = value
            .bytes()
            .map(|byte| format!("\\u00{byte:02x}"))
            .collect();
        let html: String = value.bytes().map(|byte| format!("&#{byte};")).collect();
        for written in [
            value,
            "query/SECRET=9",
            "QUERY%2FSecret%3D9",
            "QUERY%2fSecret%3d9",
            "QUERY%252FSecret%253D9",
            "QUERY\\/Secret\\u003d9",
            &hex,
            &every,
            &unicode,
            &html,
        ] {
            for (before, after) in [("", ""), ("no access for ", "."), ("x", "y"), ("é", "é")] {
                let text = format!("{before}{written}{after}");
                assert_eq!(
                    told(URL, &text),
                    format!("{before}[query]{after}"),
                    "{text}"
                );
            }
        }
        for before in ["", "a", "ab", "abc"] {
            let text = STANDARD_NO_PAD.encode(format!("{before}{value}&x=1"));
            let shown = told(URL, &text);
            assert!(shown.contains("[query]"), "{text}: {shown}");
        }
    }

    #[test]
    fn a_whole_query_is_struck_with_its_short_values() {
        for text in [
            "https://a.example/report?token=QUERY%2FSecret%3D9&lang=en&id=4711&q=two%20words",
            "/report?token=QUERY%2FSecret%3D9&amp;lang=en&amp;id=4711&amp;q=two+words",
        ] {
            let shown = told(URL, text);
            assert!(shown.ends_with("/report[query]"), "{shown}");
        }
        assert_eq!(told(URL, "id=4711, LANG=en"), "[query], [query]");
        assert_eq!(
            told(URL, "the word en, 4711 times"),
            "the word en, 4711 times"
        );
        assert_eq!(
            told(URL, "grid=4711 and id=47110"),
            "grid=4711 and id=47110"
        );
        assert_eq!(told("https://a.example/?v2", "is v2"), "is v2");
        assert_eq!(
            told("https://a.example/?SECRET-KEY", "no SECRET-KEY!"),
            "no [query]!"
        );
        assert_eq!(told("https://a.example/?", "nothing"), "nothing");
    }

    #[tokio::test]
    async fn a_query_is_struck_while_its_request_runs_and_its_own_path_stays() {
        let url: Url = "https://a.example/abcdef?name=abcdef".parse().unwrap();
        assert_eq!(struck("abcdef"), "abcdef");
        let work = Box::pin(async {
            assert_eq!(super::super::excerpt("abcdef"), "[query]");
            assert_eq!(struck_path("/abcdef"), "/abcdef");
            assert_eq!(struck_path("/x/abcdef"), "/x/[query]");
            let inner = "https://b.example/?name=ghijkl".parse().unwrap();
            let both = Box::pin(async { struck("abcdef ghijkl").into_owned() });
            guarding(&inner, both).await
        });
        assert_eq!(guarding(&url, work).await, "[query] [query]");
        assert_eq!(struck("abcdef"), "abcdef");
    }
}
