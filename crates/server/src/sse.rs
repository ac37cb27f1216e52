//! Server-sent events: a ticket's updates through one API's [`Chunks`] to the client.
//!
//! The response's body owns the ticket. A client that goes away drops it, and so ends the request.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use edgethink_reason::Event;
use serde::Serialize;

use crate::error::ApiError;
use crate::worker::handle::{Outcome, Ticket, Update};

/// A comment so often, while nothing else is sent: proxies close silent connections.
const PING: Duration = Duration::from_secs(30);

/// One event of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The event's name, where the API has names.
    name: Option<String>,
    data: String,
}

impl Frame {
    /// An object without a name.
    pub(crate) fn data(object: &impl Serialize) -> Self {
        Self {
            name: None,
            data: json(object),
        }
    }

    /// An object under a name.
    pub(crate) fn named(name: impl Into<String>, object: &impl Serialize) -> Self {
        Self {
            name: Some(name.into()),
            data: json(object),
        }
    }

    /// A text.
    pub(crate) fn text(text: &str) -> Self {
        Self {
            name: None,
            data: text.to_owned(),
        }
    }
}

/// Wire types have text keys and finite numbers only, so they always can be written.
fn json(object: &impl Serialize) -> String {
    serde_json::to_string(object).unwrap_or_else(|_| "{}".to_owned())
}

/// How an API writes what happens. Each of the three appends to `out`.
pub(crate) trait Chunks: Send + 'static {
    /// Something happened.
    fn event(&mut self, event: Event, out: &mut Vec<Frame>);
    /// The answer is complete: what the API sends at the end.
    fn done(&mut self, outcome: &Outcome, out: &mut Vec<Frame>);
    /// It failed behind the reply's head.
    fn failed(&mut self, error: &ApiError, out: &mut Vec<Frame>);
}

/// The response that sends a ticket's updates as they come.
pub(crate) fn respond(ticket: Ticket, chunks: impl Chunks) -> Response {
    let state = (ticket, chunks, VecDeque::new());
    let frames = futures_util::stream::unfold(state, |(mut ticket, mut chunks, mut ready)| async {
        while ready.is_empty() {
            if ticket.is_over() {
                return None;
            }
            ready = advance(ticket.next().await, &mut chunks).into();
        }
        let Frame { name, data } = ready.pop_front()?;
        let event = match name {
            Some(name) => SseEvent::default().event(name),
            None => SseEvent::default(),
        };
        let event = Ok::<_, Infallible>(event.data(data));
        Some((event, (ticket, chunks, ready)))
    });
    Sse::new(frames)
        .keep_alive(KeepAlive::new().interval(PING))
        .into_response()
}

fn advance(update: Update, chunks: &mut impl Chunks) -> Vec<Frame> {
    let mut out = Vec::new();
    match update {
        Update::Event(event) => chunks.event(event, &mut out),
        Update::Done(outcome) => chunks.done(&outcome, &mut out),
        Update::Failed(error) => chunks.failed(&error, &mut out),
        Update::Queued | Update::Started => {}
    }
    out
}
