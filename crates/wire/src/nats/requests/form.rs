//! The messages of a request: what each of them is stands in one header, as JSON; bytes of a body are its payload.

use async_nats::{Client, HeaderMap, Message, StatusCode};
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::http::RequestMethod;

/// The header.
const HEAD: &str = "Newswire-Request";
/// Bytes of a body in one message, at most; less if the server accepts only smaller messages.
pub(super) const PART_BYTES_MAX: usize = 512 * 1024;
/// Largest body of a request: what a WebSub hub may push has at most 1 MiB.
pub(super) const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Parts of an answer that are on their way at the same time, at most.
pub(super) const WINDOW_PARTS: u32 = 4;

/// The first message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RequestHead {
    pub(super) method: RequestMethod,
    pub(super) path: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) headers: Vec<(String, String)>,
    /// Bytes of the whole body; the payload is its beginning.
    pub(super) body_bytes: usize,
    /// How long the whole answer may take, in milliseconds.
    pub(super) deadline_ms: u64,
    /// Largest body of the answer.
    pub(super) bytes_max: usize,
}

/// A further message of the side that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum AskerHead {
    /// The next bytes of the body of the request.
    Body,
    /// So many parts of the answer have arrived.
    Taken(u32),
}

/// A message of the side that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum AnswerHead {
    /// The request is in progress.
    Accepted,
    /// The part of the answer with this number, from 0 on.
    Part(u32),
    /// The answer is complete.
    End { parts: u32, bytes: usize },
    /// The daemon's answer has this status; the payload is the detail of the problem.
    Refused(u16),
    /// There is no answer; the payload says why.
    Failed(RequestFailure),
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RequestFailure {
    /// Too many requests are in progress.
    Busy,
    /// The daemon has not answered in time.
    Late,
    /// The daemon cannot be reached, or ended before its answer did.
    Unreachable,
    /// The answer is larger than the request allows.
    TooLarge,
    /// The request cannot be understood, or is not one that is passed on.
    Invalid,
}

/// Bytes of a body in one message to the server that is connected. The other half is for the headers.
pub(super) fn part_bytes(client: &Client) -> usize {
    part_bytes_of(client.try_server_info().map(|server| server.max_payload).unwrap_or_default())
}

fn part_bytes_of(payload_bytes_max: usize) -> usize {
    // A server that accepts nothing is not known yet.
    if payload_bytes_max == 0 { PART_BYTES_MAX } else { (payload_bytes_max / 2).clamp(1, PART_BYTES_MAX) }
}

pub(super) fn headers(head: &impl Serialize) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(HEAD, serde_json::to_string(head).expect("our own types have a JSON form").as_str());
    headers
}

/// What a message is; `None` if it is none of these.
pub(super) fn head_of<T: DeserializeOwned>(message: &Message) -> Option<T> {
    serde_json::from_str(message.headers.as_ref()?.get(HEAD)?.as_str()).ok()
}

/// Whether the server says that a message of ours has reached no one.
pub(super) fn is_undelivered(message: &Message) -> bool {
    message.status == Some(StatusCode::NO_RESPONDERS)
}

/// Takes at most so many bytes from the front.
pub(super) fn take_part(body: &mut Bytes, bytes: usize) -> Bytes {
    body.split_to(bytes.min(body.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heads_are_json_on_one_line_whatever_a_hub_sends() {
        let head = RequestHead {
            method: RequestMethod::Post,
            path: "/websub/pushes/x".to_owned(),
            headers: vec![("x-hub-signature".to_owned(), "sha1=\r\n\u{e9}\"".to_owned())],
            body_bytes: 3,
            deadline_ms: 4000,
            bytes_max: 4096,
        };
        let headers = headers(&head);
        let text = headers.get(HEAD).unwrap().as_str();
        assert!(!text.contains(['\r', '\n']), "{text}");
        assert_eq!(serde_json::from_str::<RequestHead>(text).unwrap(), head);
        let json = |head: AnswerHead| serde_json::to_string(&head).unwrap();
        assert_eq!(json(AnswerHead::End { parts: 2, bytes: 7 }), r#"{"end":{"parts":2,"bytes":7}}"#);
        assert_eq!(json(AnswerHead::Failed(RequestFailure::Busy)), r#"{"failed":"busy"}"#);
    }

    #[test]
    fn a_part_and_its_head_fit_into_what_the_server_accepts() {
        assert_eq!(part_bytes_of(1024 * 1024), PART_BYTES_MAX);
        assert_eq!(part_bytes_of(64 * 1024 * 1024), PART_BYTES_MAX);
        assert_eq!(part_bytes_of(4096), 2048);
        let largest = AnswerHead::End { parts: u32::MAX, bytes: usize::MAX };
        assert!(HEAD.len() + serde_json::to_string(&largest).unwrap().len() + 32 < 2048);
    }
}
