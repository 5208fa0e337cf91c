//! A client with the rule of the replaced front end: 15 s without a byte is a stall.

use std::time::Duration;

use serde_json::json;
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    gateway::{ClientStream, GatewayClient},
    report::{CheckResult, millis},
};

pub(super) const NAME: &str = "front-end-never-stalls";
/// After this much silence the stream counts as stalled.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// A heartbeat may be this late before it counts as missing.
const HEARTBEAT_GRACE: Duration = Duration::from_secs(2);

/// Listens in the background.
pub(super) struct BrowserClient {
    stop: CancellationToken,
    task: JoinHandle<ListenResult>,
}

#[derive(Debug, Default)]
struct ListenResult {
    blocks: usize,
    heartbeats: usize,
    longest: Duration,
    lasted: Duration,
    stall: Option<String>,
}

impl BrowserClient {
    pub(super) async fn start(gateway: &GatewayClient) -> Self {
        let stop = CancellationToken::new();
        let mut opened = gateway.stream("/news/stream?snapshot=50", None).await;
        if let Ok(stream) = &mut opened
            && let Err(error) = stream.first_event().await
        {
            opened = Err(error);
        }
        let task = match opened {
            Ok(stream) => tokio::spawn(listen(stream, stop.clone())),
            Err(error) => {
                tokio::spawn(async { ListenResult { stall: Some(error), ..ListenResult::default() } })
            }
        };
        Self { stop, task }
    }

    /// Closes the stream; `heartbeat` is known if the configuration is that of this gateway.
    pub(super) async fn end(self, heartbeat: Option<Duration>) -> CheckResult {
        self.stop.cancel();
        let result = self.task.await.expect("listening does not panic");
        let figures = json!({
            "listened_s": result.lasted.as_secs(),
            "blocks": result.blocks,
            "heartbeats": result.heartbeats,
            "longest_silence_ms": millis(result.longest),
            "stalled_after_ms": millis(SILENCE_MAX),
        });
        if let Some(stall) = result.stall {
            return CheckResult::failed(NAME, stall, figures);
        }
        let late = heartbeat.filter(|beat| result.longest > *beat + HEARTBEAT_GRACE);
        if let Some(beat) = late {
            let reason = format!("{:?} of silence, although gateway.heartbeat is {beat:?}", result.longest);
            return CheckResult::failed(NAME, reason, figures);
        }
        if result.blocks == 0 {
            let reason = "nothing was received: listen longer than gateway.heartbeat with --for";
            return CheckResult::skipped(NAME, reason.to_owned());
        }
        CheckResult::passed(NAME, figures)
    }
}

async fn listen(mut stream: ClientStream, stop: CancellationToken) -> ListenResult {
    let began = Instant::now();
    let mut last = began;
    let mut result = ListenResult::default();
    loop {
        let message = tokio::select! {
            () = stop.cancelled() => break,
            message = stream.next(SILENCE_MAX) => message,
        };
        result.longest = result.longest.max(last.elapsed());
        last = Instant::now();
        match message {
            Ok(message) => {
                result.blocks += 1;
                result.heartbeats += usize::from(message.event.is_none());
            }
            Err(error) => {
                result.stall = Some(error);
                break;
            }
        }
    }
    result.longest = result.longest.max(last.elapsed());
    result.lasted = began.elapsed();
    result
}
