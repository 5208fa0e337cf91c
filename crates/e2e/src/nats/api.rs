//! Requests to JetStream, spoken by hand: what a test finds out about a stream, and what an operator may do to it by mistake.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

/// How long a server may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// A server to ask.
#[derive(Clone, Debug)]
pub struct NatsApi {
    address: SocketAddr,
}

impl NatsApi {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    /// Sends a request on a subject and returns the answer.
    ///
    /// # Errors
    /// If there is none in time, or the answer names an error.
    pub async fn request(&self, subject: &str, body: &str) -> anyhow::Result<Value> {
        let answer = tokio::time::timeout(ANSWER_MAX, self.exchange(subject, body)).await;
        let answer = answer.with_context(|| format!("{subject}: no answer within {ANSWER_MAX:?}"))??;
        anyhow::ensure!(answer.get("error").is_none(), "{subject}: {answer}");
        Ok(answer)
    }

    async fn exchange(&self, subject: &str, body: &str) -> anyhow::Result<Value> {
        let stream = TcpStream::connect(self.address).await?;
        let mut stream = BufReader::new(stream);
        let inbox = format!("_INBOX.e2e.{}", fastrand::u64(..));
        let text = format!(
            "CONNECT {{\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true}}\r\nSUB {inbox} 1\r\nPUB \
             {subject} {inbox} {}\r\n{body}\r\n",
            body.len()
        );
        stream.write_all(text.as_bytes()).await?;
        let mut line = String::new();
        loop {
            line.clear();
            anyhow::ensure!(stream.read_line(&mut line).await? > 0, "the server has closed the connection");
            let mut words = line.split_whitespace();
            match words.next() {
                Some("PING") => stream.write_all(b"PONG\r\n").await?,
                Some("MSG") => {
                    let bytes: usize = words.next_back().context("the size of a message")?.parse()?;
                    anyhow::ensure!(bytes <= ANSWER_BYTES_MAX, "an answer of {bytes} bytes");
                    let mut payload = vec![0; bytes];
                    stream.read_exact(&mut payload).await?;
                    return Ok(serde_json::from_slice(&payload)?);
                }
                // With headers and no body: no one answers on this subject.
                Some("HMSG") => anyhow::bail!("{subject}: no responders"),
                Some("-ERR") => anyhow::bail!("{subject}: {}", line.trim()),
                _ => {}
            }
        }
    }

    /// What JetStream says of a stream: its `config`, `state` and `cluster`.
    ///
    /// # Errors
    /// If there is no answer, or no such stream.
    pub async fn stream(&self, name: &str) -> anyhow::Result<Value> {
        self.request(&format!("$JS.API.STREAM.INFO.{name}"), "").await
    }

    /// Removes all messages of a stream.
    ///
    /// # Errors
    /// As [`NatsApi::request`].
    pub async fn purge(&self, name: &str) -> anyhow::Result<()> {
        self.request(&format!("$JS.API.STREAM.PURGE.{name}"), "").await.map(|_| ())
    }

    /// Removes a stream.
    ///
    /// # Errors
    /// As [`NatsApi::request`].
    pub async fn delete(&self, name: &str) -> anyhow::Result<()> {
        self.request(&format!("$JS.API.STREAM.DELETE.{name}"), "").await.map(|_| ())
    }
}
