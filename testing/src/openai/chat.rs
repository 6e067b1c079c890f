//! Answers of `/chat/completions`.

use serde_json::{Value, json};

use super::reply::ChatReply;
use super::request::ChatRequest;
use crate::handler::Answer;

/// The parts of an answer that are not of the reply.
pub(super) struct Stamp {
    pub(super) number: u64,
    /// Seconds since 1970.
    pub(super) created: u64,
}

impl ChatReply {
    fn usage(&self, request: &ChatRequest) -> Value {
        let (prompt, completion) = (request.tokens(), self.tokens());
        json!({
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt.saturating_add(completion),
            "prompt_tokens_details": { "cached_tokens": 0, "audio_tokens": 0 },
            "completion_tokens_details": {
                "reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
            },
        })
    }

    fn finish_reason(&self) -> &'static str {
        match (self.cut, self.calls.is_empty()) {
            (true, _) => "length",
            (false, false) => "tool_calls",
            (false, true) => "stop",
        }
    }
}

fn choices(request: &ChatRequest) -> u64 {
    let number = request.json().get("n").and_then(Value::as_u64);
    number.unwrap_or(1).clamp(1, 16)
}

fn id_of_call(stamp: &Stamp, index: usize) -> String {
    format!("call_{}_{index}", stamp.number)
}

/// Returns the answer in one piece.
pub(super) fn completion(request: &ChatRequest, reply: &ChatReply, stamp: &Stamp) -> Answer {
    let calls = reply.calls.iter().enumerate();
    let calls: Vec<_> = calls
        .map(|(index, (name, arguments))| {
            json!({
                "id": id_of_call(stamp, index),
                "type": "function",
                "function": { "name": name, "arguments": arguments.to_string() },
            })
        })
        .collect();
    let mut message =
        json!({ "role": "assistant", "content": null, "refusal": null, "annotations": [] });
    if let Some(message) = message.as_object_mut() {
        if !reply.pieces.is_empty() || calls.is_empty() {
            message.insert("content".to_owned(), reply.content().into());
        }
        if !calls.is_empty() {
            message.insert("tool_calls".to_owned(), calls.into());
        }
    }
    let choice = |index| {
        json!({
            "index": index, "message": message, "logprobs": null, "finish_reason": reply.finish_reason(),
        })
    };
    Answer::json(json!({
        "id": format!("chatcmpl-{}", stamp.number),
        "object": "chat.completion",
        "created": stamp.created,
        "model": request.model(),
        "choices": (0..choices(request)).map(choice).collect::<Vec<_>>(),
        "usage": reply.usage(request),
        "service_tier": "default",
        "system_fingerprint": "fp_bursar",
    }))
}

/// Returns the answer as a stream, which ends in `[DONE]`.
pub(super) fn stream(request: &ChatRequest, reply: &ChatReply, stamp: &Stamp) -> Answer {
    let with_usage = request.json().pointer("/stream_options/include_usage");
    let with_usage = with_usage.and_then(Value::as_bool) == Some(true);
    let chunk = |choices: Vec<Value>| {
        let mut chunk = json!({
            "id": format!("chatcmpl-{}", stamp.number),
            "object": "chat.completion.chunk",
            "created": stamp.created,
            "model": request.model(),
            "service_tier": "default",
            "system_fingerprint": "fp_bursar",
            "choices": choices,
        });
        if with_usage && let Some(chunk) = chunk.as_object_mut() {
            chunk.insert("usage".to_owned(), Value::Null);
        }
        chunk
    };
    let every_choice = |delta: Value, finish_reason: Value| {
        let choice = |index| json!({ "index": index, "delta": delta, "logprobs": null, "finish_reason": finish_reason });
        chunk((0..choices(request)).map(choice).collect())
    };
    let delta = |delta| every_choice(delta, Value::Null);

    let first = if reply.calls.is_empty() {
        json!("")
    } else {
        Value::Null
    };
    let mut chunks = vec![delta(
        json!({ "role": "assistant", "content": first, "refusal": null }),
    )];
    chunks.extend(
        reply
            .pieces
            .iter()
            .map(|piece| delta(json!({ "content": piece }))),
    );
    for (index, (name, arguments)) in reply.calls.iter().enumerate() {
        let call = |call: Value| delta(json!({ "tool_calls": [call] }));
        chunks.push(call(json!({
            "index": index,
            "id": id_of_call(stamp, index),
            "type": "function",
            "function": { "name": name, "arguments": "" },
        })));
        // Models send the arguments piece by piece, and the pieces are not JSON.
        let arguments = arguments.to_string();
        chunks.extend(
            arguments
                .split_inclusive([',', ':'])
                .map(|piece| call(json!({ "index": index, "function": { "arguments": piece } }))),
        );
    }
    chunks.push(every_choice(json!({}), reply.finish_reason().into()));
    if with_usage {
        let mut last = chunk(Vec::new());
        if let Some(last) = last.as_object_mut() {
            last.insert("usage".to_owned(), reply.usage(request));
        }
        chunks.push(last);
    }
    let done = ["[DONE]".to_owned()];
    Answer::events(chunks.iter().map(Value::to_string).chain(done))
}
