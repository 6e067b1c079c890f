//! A request to the model, of either API.

use serde_json::Value;

/// A request to an [`OpenAi`](crate::OpenAi) seller: of `/chat/completions` or of `/responses`.
///
/// ```
/// use bursar_testing::{ChatReply, ChatRequest};
///
/// fn reply(request: &ChatRequest) -> ChatReply {
///     match request.tool_result() {
///         Some(result) => ChatReply::text(format!("The tool says {result}.")),
///         None if request.tools().contains(&"weather") => {
///             ChatReply::tool_call("weather", serde_json::json!({ "city": request.prompt() }))
///         }
///         None => ChatReply::text("There is no weather."),
///     }
/// }
/// ```
#[derive(Clone, Debug)]
pub struct ChatRequest {
    json: Value,
    model: String,
    messages: Vec<ChatMessage>,
    max_tokens: Option<u64>,
    tools: Vec<String>,
}

/// The API of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Api {
    Chat,
    Responses,
}

/// A message of a [`ChatRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChatMessage {
    /// The role, such as `user` or `tool`.
    pub role: String,
    /// The text, without images and other parts. Of a tool's message, this is its result.
    pub text: String,
}

/// A refusal of a request: the message, and the name of the parameter.
pub(super) type Invalid = (String, Option<&'static str>);

impl ChatRequest {
    pub(super) fn read(body: &[u8], api: Api) -> Result<Self, Invalid> {
        let json: Value = serde_json::from_slice(body)
            .map_err(|error| (format!("the body is not valid JSON: {error}"), None))?;
        let Some(model) = json.get("model").and_then(Value::as_str) else {
            return Err((
                "you must provide a model parameter".to_owned(),
                Some("model"),
            ));
        };
        let (list, messages, limits) = match api {
            Api::Chat => (
                "messages",
                chat_messages(&json),
                ["max_completion_tokens", "max_tokens"],
            ),
            Api::Responses => ("input", input_messages(&json), ["max_output_tokens"; 2]),
        };
        if messages.is_empty() {
            let message = format!("`{list}` is missing or empty, or has another type");
            return Err((message, Some(list)));
        }
        let tools = json.get("tools").and_then(Value::as_array);
        let tools = tools.into_iter().flatten().filter_map(tool_name);
        let mut limits = limits.into_iter();
        Ok(Self {
            model: model.to_owned(),
            messages,
            max_tokens: limits.find_map(|name| json.get(name)?.as_u64()),
            tools: tools.map(ToOwned::to_owned).collect(),
            json,
        })
    }

    /// Returns the name of the model.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Returns the messages, oldest first.
    #[must_use]
    pub fn messages(&self) -> &[ChatMessage] {
        &self.messages
    }

    /// Returns the text of the user's last message, or an empty text.
    #[must_use]
    pub fn prompt(&self) -> &str {
        let mut newest = self.messages.iter().rev();
        newest
            .find(|message| message.role == "user")
            .map_or("", |message| &message.text)
    }

    /// Returns the result of a tool, if the last message is one.
    #[must_use]
    pub fn tool_result(&self) -> Option<&str> {
        let last = self.messages.last()?;
        (last.role == "tool").then_some(last.text.as_str())
    }

    /// Returns the most tokens that the answer may have: `max_completion_tokens`, `max_tokens` or `max_output_tokens`.
    #[must_use]
    pub const fn max_tokens(&self) -> Option<u64> {
        self.max_tokens
    }

    /// Returns whether the client wants a stream.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        self.json.get("stream").and_then(Value::as_bool) == Some(true)
    }

    /// Returns the names of the functions that the model may call.
    #[must_use]
    pub fn tools(&self) -> Vec<&str> {
        self.tools.iter().map(String::as_str).collect()
    }

    /// Returns the whole request.
    #[must_use]
    pub const fn json(&self) -> &Value {
        &self.json
    }

    /// Returns the name of the function that the client makes the model call, and otherwise of the function that the prompt
    /// names.
    pub(super) fn wanted_tool(&self) -> Option<&str> {
        let choice = self.json.get("tool_choice");
        let forced = choice.and_then(|choice| {
            choice
                .pointer("/function/name")
                .or_else(|| choice.get("name"))
                .and_then(Value::as_str)
        });
        let mut tools = self.tools.iter().map(String::as_str);
        match (forced, choice.and_then(Value::as_str)) {
            (Some(name), _) => tools.find(|tool| *tool == name),
            (None, Some("none")) => None,
            (None, Some("required")) => tools.next(),
            _ if self.tool_result().is_some() => None,
            _ => tools.find(|tool| self.prompt().contains(tool)),
        }
    }

    /// Returns the schema of a function's parameters.
    pub(super) fn parameters(&self, tool: &str) -> Option<&Value> {
        let tools = self.json.get("tools")?.as_array()?;
        let tool = tools.iter().find(|found| tool_name(found) == Some(tool))?;
        tool.pointer("/function/parameters")
            .or_else(|| tool.get("parameters"))
    }

    /// Returns the schema that the answer must follow.
    pub(super) fn answer_schema(&self) -> Option<&Value> {
        self.json
            .pointer("/response_format/json_schema/schema")
            .or_else(|| self.json.pointer("/text/format/schema"))
    }

    /// Returns the length of the messages in tokens. A token is a word.
    pub(super) fn tokens(&self) -> usize {
        let words = self.messages.iter().map(|message| words(&message.text));
        words.fold(0, usize::saturating_add)
    }
}

pub(super) fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

fn tool_name(tool: &Value) -> Option<&str> {
    tool.pointer("/function/name")
        .or_else(|| tool.get("name"))?
        .as_str()
}

fn chat_messages(json: &Value) -> Vec<ChatMessage> {
    let messages = json.get("messages").and_then(Value::as_array);
    let messages = messages.into_iter().flatten();
    messages.filter_map(message).collect()
}

fn input_messages(json: &Value) -> Vec<ChatMessage> {
    let of = |role: &str, text: &str| ChatMessage {
        role: role.to_owned(),
        text: text.to_owned(),
    };
    let input = match json.get("input") {
        Some(Value::String(input)) => vec![of("user", input)],
        Some(Value::Array(items)) => items
            .iter()
            .filter_map(|item| match item.get("type").and_then(Value::as_str) {
                Some("function_call_output") => Some(of("tool", &text(item.get("output")?))),
                Some("message") | None => message(item),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    };
    let instructions = json.get("instructions").and_then(Value::as_str);
    let system = instructions.filter(|_| !input.is_empty());
    system
        .map(|text| of("system", text))
        .into_iter()
        .chain(input)
        .collect()
}

fn message(json: &Value) -> Option<ChatMessage> {
    Some(ChatMessage {
        role: json.get("role")?.as_str()?.to_owned(),
        text: json.get("content").map(text).unwrap_or_default(),
    })
}

/// Returns a content as text: itself, or its parts of text.
fn text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts
            .iter()
            .filter_map(|part| part.get("text")?.as_str())
            .collect(),
        _ => String::new(),
    }
}
