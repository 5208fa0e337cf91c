//! A client as the front end of the replaced system was: any byte is a sign of life, and 15 s without one is a stall.

use std::time::Duration;

use serde_json::json;
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    gateway::{ClientStream, GatewayClient},
    report::{CheckResult, millis},
};

pub(super) const NAME: &str = "front-end-never-stalls";
/// After this much silence it takes the stream for stalled.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// A heartbeat may be that late before it counts as missing.
const HEARTBEAT_GRACE: Duration = Duration::from_secs(2);

/// Listens until it is ended.
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
            && let Err(error) = stream.hello().await
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

    /// Hangs up; the heartbeat is known where the configuration is that of this gateway.
    pub(super) async fn end(self, heartbeat: Option<Duration>) -> CheckResult {
        self.stop.cancel();
        let heard = self.task.await.expect("listening does not panic");
        let figures = json!({
            "listened_s": heard.lasted.as_secs(),
            "blocks": heard.blocks,
            "heartbeats": heard.heartbeats,
            "longest_silence_ms": millis(heard.longest),
            "stalled_after_ms": millis(SILENCE_MAX),
        });
        if let Some(stall) = heard.stall {
            return CheckResult::failed(NAME, stall, figures);
        }
        let late = heartbeat.filter(|beat| heard.longest > *beat + HEARTBEAT_GRACE);
        if let Some(beat) = late {
            let reason = format!("{:?} of silence, with gateway.heartbeat {beat:?}", heard.longest);
            return CheckResult::failed(NAME, reason, figures);
        }
        if heard.blocks == 0 {
            let reason = "nothing came: listen longer than gateway.heartbeat, by --for";
            return CheckResult::skipped(NAME, reason.to_owned());
        }
        CheckResult::passed(NAME, figures)
    }
}

async fn listen(mut stream: ClientStream, stop: CancellationToken) -> ListenResult {
    let began = Instant::now();
    let mut last = began;
    let mut heard = ListenResult::default();
    loop {
        let message = tokio::select! {
            () = stop.cancelled() => break,
            message = stream.next(SILENCE_MAX) => message,
        };
        heard.longest = heard.longest.max(last.elapsed());
        last = Instant::now();
        match message {
            Ok(message) => {
                heard.blocks += 1;
                heard.heartbeats += usize::from(message.event.is_none());
            }
            Err(error) => {
                heard.stall = Some(error);
                break;
            }
        }
    }
    heard.longest = heard.longest.max(last.elapsed());
    heard.lasted = began.elapsed();
    heard
}
