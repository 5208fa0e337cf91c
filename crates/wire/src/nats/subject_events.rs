//! The messages of one subject after a number, as the leader of the stream has them: a copy may not have the last ones yet.
//!
//! They are read from the newest range of numbers down, so that those that are left out, if there are too many, are the oldest.

use async_nats::jetstream::{
    message::StreamMessage,
    stream::{LastRawMessageErrorKind, RawMessageError, Stream},
};

/// Messages of one subject that are read at most, about: the newest ones.
pub(super) const SUBJECT_MESSAGES_MAX: usize = 4096;
/// Numbers in the first range.
const RANGE_MIN: u64 = 1024;
/// The next range is twice as large if this one has fewer messages of the subject.
const RANGE_MESSAGES_MIN: usize = 256;
/// A range with more messages is read again in parts.
const RANGE_MESSAGES_MAX: usize = 1024;

/// What was read of a subject.
#[derive(Debug)]
pub(super) struct SubjectMessages<T> {
    /// In order.
    pub(super) messages: Vec<T>,
    /// The first message that was left unread, because there were too many.
    pub(super) unread_from: Option<u64>,
}

/// Reads the messages of `subject` with numbers after `after` up to `up_to`; `take` keeps of each what is needed.
pub(super) async fn read_subject<T>(
    stream: &Stream<()>,
    subject: &str,
    after: u64,
    up_to: u64,
    take: impl Fn(StreamMessage) -> T,
) -> Result<SubjectMessages<T>, RawMessageError> {
    let (mut after, mut is_first_known) = (after, false);
    let (mut ranges, mut count) = (Vec::new(), 0);
    let (mut high, mut width) = (up_to, RANGE_MIN);
    while high > after && count < SUBJECT_MESSAGES_MAX {
        let low = high.saturating_sub(width).max(after);
        let Some(messages) = read_range(stream, subject, low, high, &take).await? else {
            width = (width / 4).max(RANGE_MIN);
            continue;
        };
        if messages.len() < RANGE_MESSAGES_MIN {
            width = width.saturating_mul(2);
        }
        count += messages.len();
        ranges.push(messages);
        high = low;
        if high > after && !is_first_known {
            // Most often, all there is was in the first range.
            let first = next_of(stream, subject, after.saturating_add(1)).await?;
            after = first.map_or(high, |message| message.sequence - 1).min(high);
            is_first_known = true;
        }
    }
    let unread_from = (high > after).then_some(after + 1);
    Ok(SubjectMessages { messages: ranges.into_iter().rev().flatten().collect(), unread_from })
}

/// `None` if the range has too many messages, and more than it needs numbers.
async fn read_range<T>(
    stream: &Stream<()>,
    subject: &str,
    after: u64,
    up_to: u64,
    take: impl Fn(StreamMessage) -> T,
) -> Result<Option<Vec<T>>, RawMessageError> {
    let (mut messages, mut last) = (Vec::new(), after);
    while last < up_to {
        let next = next_of(stream, subject, last.saturating_add(1)).await?;
        let Some(message) = next.filter(|message| message.sequence <= up_to) else { break };
        if messages.len() == RANGE_MESSAGES_MAX && up_to - after > RANGE_MIN {
            return Ok(None);
        }
        last = message.sequence;
        messages.push(take(message));
    }
    Ok(Some(messages))
}

async fn next_of(
    stream: &Stream<()>,
    subject: &str,
    from: u64,
) -> Result<Option<StreamMessage>, RawMessageError> {
    match stream.raw_message_builder().sequence(from).next_by_subject(subject).send().await {
        Ok(message) => Ok(Some(message)),
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(error),
    }
}
