//! The reply of the model.

use serde_json::{Map, Value, json};

use super::request::{ChatRequest, words};

/// The reply of the model of an [`OpenAi`](crate::OpenAi) seller.
///
/// A stream sends a text word by word. [`pieces`](Self::pieces) sets another division. A reply longer than the `max_tokens` of
/// the request is cut off. A token is a word, or a piece.
///
/// ```
/// use bursar_testing::ChatReply;
/// use serde_json::json;
///
/// let text = ChatReply::text("Hello there.");
/// let stream = ChatReply::pieces(["Hel", "lo"]);
/// let calls = ChatReply::tool_call("weather", json!({ "city": "Oslo" }))
///     .and_tool_call("weather", json!({ "city": "Rome" }));
/// // The client is not charged for a reply that is an error.
/// let busy = ChatReply::error(429, "rate_limit_error", "Too many requests.");
/// ```
#[derive(Clone, Debug)]
#[must_use = "a reply does nothing until the model returns it"]
pub struct ChatReply {
    pub(super) pieces: Vec<String>,
    pub(super) calls: Vec<(String, Value)>,
    pub(super) error: Option<(u16, String, String)>,
    pub(super) cut: bool,
}

impl ChatReply {
    /// Returns a text.
    pub fn text(text: impl AsRef<str>) -> Self {
        Self::pieces(text.as_ref().split_inclusive(' '))
    }

    /// Returns a text that a stream sends in these pieces.
    pub fn pieces<T: Into<String>>(pieces: impl IntoIterator<Item = T>) -> Self {
        Self {
            pieces: pieces.into_iter().map(Into::into).collect(),
            calls: Vec::new(),
            error: None,
            cut: false,
        }
    }

    /// Returns the call of a function with these arguments.
    pub fn tool_call(name: impl Into<String>, arguments: Value) -> Self {
        Self::pieces([] as [String; 0]).and_tool_call(name, arguments)
    }

    /// Adds the call of a function.
    pub fn and_tool_call(mut self, name: impl Into<String>, arguments: Value) -> Self {
        self.calls.push((name.into(), arguments));
        self
    }

    /// Returns an error in OpenAI's form, with this status, type and message. The paywall does not settle it if the status is
    /// 400 or above.
    pub fn error(status: u16, kind: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            error: Some((status, kind.into(), message.into())),
            ..Self::pieces([] as [String; 0])
        }
    }

    /// Returns the reply of the model that the caller has not replaced.
    pub(super) fn default_to(request: &ChatRequest) -> Self {
        if let Some(tool) = request.wanted_tool() {
            let schema = request.parameters(tool).unwrap_or(&Value::Null);
            return Self::tool_call(tool, value_of(schema, request.prompt()));
        }
        if let Some(result) = request.tool_result() {
            return Self::text(format!("The tool returned: {result}"));
        }
        if let Some(schema) = request.answer_schema() {
            return Self::text(value_of(schema, request.prompt()).to_string());
        }
        Self::text(format!("You said: {}", request.prompt()))
    }

    /// Cuts the text off after this many tokens.
    pub(super) fn cut_to(mut self, tokens: Option<u64>) -> Self {
        let most = tokens.map_or(usize::MAX, |most| {
            usize::try_from(most).unwrap_or(usize::MAX)
        });
        self.cut = self.pieces.len() > most;
        self.pieces.truncate(most);
        self
    }

    pub(super) fn content(&self) -> String {
        self.pieces.concat()
    }

    /// Returns the length in tokens.
    pub(super) fn tokens(&self) -> usize {
        let calls = self.calls.iter();
        let calls = calls
            .map(|(name, arguments)| words(name).saturating_add(words(&arguments.to_string())));
        calls.fold(self.pieces.len(), usize::saturating_add)
    }
}

/// Returns a value that fits the schema, made of the prompt.
fn value_of(schema: &Value, prompt: &str) -> Value {
    if let Some(value) = schema.get("const") {
        return value.clone();
    }
    if let Some(first) = schema.pointer("/enum/0") {
        return first.clone();
    }
    if let Some(first) = schema.pointer("/anyOf/0") {
        return value_of(first, prompt);
    }
    let kind = match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.first().and_then(Value::as_str),
        kind => kind.and_then(Value::as_str),
    };
    let numbers = prompt.split(|char: char| !char.is_ascii_digit());
    let number = numbers
        .filter_map(|digits| digits.parse::<u32>().ok())
        .next();
    match kind {
        Some("string") => prompt.into(),
        Some("integer" | "number") => number.unwrap_or(1).into(),
        Some("boolean") => true.into(),
        Some("array") => json!([]),
        Some("null") => Value::Null,
        _ => {
            let members = schema.get("properties").and_then(Value::as_object);
            let members = members.into_iter().flatten();
            members
                .map(|(name, schema)| (name.clone(), value_of(schema, prompt)))
                .collect::<Map<_, _>>()
                .into()
        }
    }
}
