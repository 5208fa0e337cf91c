//! The question on `<name>.seen`: has anyone seen more of the stream than it has now?
//!
//! A server that was put back to an older copy does not know what it has lost. Those that have read or published it do, and
//! answer before its numbers are used a second time.

use std::time::Duration;

use async_nats::StatusCode;
use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout_at};

use super::{connection::NatsConnection, notices::NewestSeen};

/// How long answers are waited for.
const ANSWERS_WAIT: Duration = Duration::from_secs(1);
/// Answers that are read; all further ones are left.
const ANSWERS_MAX: usize = 1024;
/// How long after a failure the question is listened for again.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// What all others have seen; empty at once if none listens.
pub async fn newest_seen(connection: &NatsConnection) -> Vec<NewestSeen> {
    let client = connection.client();
    let (deadline, inbox) = (Instant::now() + ANSWERS_WAIT, client.new_inbox());
    let mut seen = Vec::new();
    let asked = async {
        let mut answers = client.subscribe(inbox.clone()).await.ok()?;
        client.publish_with_reply(connection.names().seen(), inbox, "".into()).await.ok()?;
        while let Some(answer) = answers.next().await {
            if answer.status == Some(StatusCode::NO_RESPONDERS) {
                break;
            }
            seen.extend(serde_json::from_slice::<NewestSeen>(&answer.payload));
            if seen.len() >= ANSWERS_MAX {
                break;
            }
        }
        Some(())
    };
    // Without an answer in time, what has come counts.
    timeout_at(deadline, asked).await.ok();
    seen
}

/// Answers the question with what `newest` returns, for as long as it is polled.
pub async fn answer_seen(connection: &NatsConnection, newest: impl Fn() -> Option<NewestSeen>) {
    let client = connection.client();
    loop {
        if let Ok(mut questions) = client.subscribe(connection.names().seen()).await {
            while let Some(question) = questions.next().await {
                if let (Some(inbox), Some(newest)) = (question.reply, newest()) {
                    let json = serde_json::to_vec(&newest).expect("it has a JSON form");
                    // One that is lost is not asked for again; others answer, too.
                    client.publish(inbox, json.into()).await.ok();
                }
            }
        }
        tokio::time::sleep(LISTEN_AGAIN).await;
    }
}
