//! Answers of `/responses`.

use serde_json::{Value, json};

use super::chat::Stamp;
use super::reply::ChatReply;
use super::request::ChatRequest;
use crate::handler::Answer;

/// One item of the output: the item, and the pieces in which a stream sends its text or its arguments.
struct Item {
    id: String,
    done: Value,
    started: Value,
    pieces: Vec<String>,
    is_call: bool,
}

fn items(reply: &ChatReply, stamp: &Stamp) -> Vec<Item> {
    let mut items = Vec::new();
    if !reply.pieces.is_empty() || reply.calls.is_empty() {
        let id = format!("msg_{}", stamp.number);
        let message = |status: &str, content: Vec<Value>| {
            json!({
                "type": "message", "id": id, "status": status, "role": "assistant", "content": content,
            })
        };
        items.push(Item {
            done: message("completed", vec![part(&reply.content())]),
            started: message("in_progress", Vec::new()),
            pieces: reply.pieces.clone(),
            is_call: false,
            id,
        });
    }
    for (index, (name, arguments)) in reply.calls.iter().enumerate() {
        let id = format!("fc_{}_{index}", stamp.number);
        let arguments = arguments.to_string();
        let call = |status: &str, arguments: &str| {
            json!({
                "type": "function_call",
                "id": id,
                "call_id": format!("call_{}_{index}", stamp.number),
                "status": status,
                "name": name,
                "arguments": arguments,
            })
        };
        items.push(Item {
            done: call("completed", &arguments),
            started: call("in_progress", ""),
            pieces: arguments
                .split_inclusive([',', ':'])
                .map(ToOwned::to_owned)
                .collect(),
            is_call: true,
            id,
        });
    }
    items
}

fn part(text: &str) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })
}

fn response(
    request: &ChatRequest,
    reply: &ChatReply,
    stamp: &Stamp,
    output: Option<Vec<Value>>,
) -> Value {
    let (input, tokens) = (request.tokens(), reply.tokens());
    let usage = json!({
        "input_tokens": input,
        "input_tokens_details": { "cached_tokens": 0 },
        "output_tokens": tokens,
        "output_tokens_details": { "reasoning_tokens": 0 },
        "total_tokens": input.saturating_add(tokens),
    });
    let asked = |name: &str, default: Value| match request.json().get(name) {
        None | Some(Value::Null) => default,
        Some(value) => value.clone(),
    };
    let is_done = output.is_some();
    let status = match (is_done, reply.cut) {
        (false, _) => "in_progress",
        (true, true) => "incomplete",
        (true, false) => "completed",
    };
    json!({
        "id": format!("resp_{}", stamp.number),
        "object": "response",
        "created_at": stamp.created,
        "completed_at": is_done.then_some(stamp.created),
        "status": status,
        "background": false,
        "error": null,
        "incomplete_details": (is_done && reply.cut).then(|| json!({ "reason": "max_output_tokens" })),
        "instructions": asked("instructions", Value::Null),
        "max_output_tokens": asked("max_output_tokens", Value::Null),
        "metadata": asked("metadata", json!({})),
        "model": request.model(),
        "output": output.unwrap_or_default(),
        "parallel_tool_calls": asked("parallel_tool_calls", true.into()),
        "previous_response_id": asked("previous_response_id", Value::Null),
        "reasoning": { "effort": null, "summary": null },
        "service_tier": "default",
        "store": asked("store", true.into()),
        "temperature": asked("temperature", 1.into()),
        "text": asked("text", json!({ "format": { "type": "text" } })),
        "tool_choice": asked("tool_choice", "auto".into()),
        "tools": asked("tools", json!([])),
        "top_p": asked("top_p", 1.into()),
        "truncation": "disabled",
        "usage": is_done.then_some(usage),
    })
}

fn complete(request: &ChatRequest, reply: &ChatReply, stamp: &Stamp) -> Value {
    let output = items(reply, stamp).into_iter().map(|item| item.done);
    response(request, reply, stamp, Some(output.collect()))
}

/// Returns the answer in one piece.
pub(super) fn whole(request: &ChatRequest, reply: &ChatReply, stamp: &Stamp) -> Answer {
    Answer::json(complete(request, reply, stamp))
}

/// Returns the answer as a stream of named events.
pub(super) fn stream(request: &ChatRequest, reply: &ChatReply, stamp: &Stamp) -> Answer {
    let begun = response(request, reply, stamp, None);
    let mut events = vec![
        json!({ "type": "response.created", "response": begun }),
        json!({ "type": "response.in_progress", "response": begun }),
    ];
    for (index, item) in items(reply, stamp).into_iter().enumerate() {
        let Item { id, pieces, .. } = item;
        events.push(json!({
            "type": "response.output_item.added", "output_index": index, "item": item.started,
        }));
        let text = pieces.concat();
        if item.is_call {
            events.extend(pieces.iter().map(|delta| {
                json!({
                    "type": "response.function_call_arguments.delta",
                    "item_id": id, "output_index": index, "delta": delta,
                })
            }));
            events.push(json!({
                "type": "response.function_call_arguments.done",
                "item_id": id, "output_index": index, "arguments": text, "name": item.done.get("name"),
            }));
        } else {
            events.push(json!({
                "type": "response.content_part.added",
                "item_id": id, "output_index": index, "content_index": 0, "part": part(""),
            }));
            events.extend(pieces.iter().map(|delta| {
                json!({
                    "type": "response.output_text.delta",
                    "item_id": id, "output_index": index, "content_index": 0, "delta": delta, "logprobs": [],
                })
            }));
            events.push(json!({
                "type": "response.output_text.done",
                "item_id": id, "output_index": index, "content_index": 0, "text": text, "logprobs": [],
            }));
            events.push(json!({
                "type": "response.content_part.done",
                "item_id": id, "output_index": index, "content_index": 0, "part": part(&text),
            }));
        }
        events.push(json!({
            "type": "response.output_item.done", "output_index": index, "item": item.done,
        }));
    }
    let end = if reply.cut {
        "response.incomplete"
    } else {
        "response.completed"
    };
    events.push(json!({ "type": end, "response": complete(request, reply, stamp) }));
    let events = events.into_iter().enumerate().map(|(number, mut event)| {
        if let Some(event) = event.as_object_mut() {
            event.insert("sequence_number".to_owned(), number.into());
        }
        let name = event
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_default();
        format!("event: {name}\ndata: {event}\n\n")
    });
    Answer::chunks(events).header("content-type", "text/event-stream")
}
