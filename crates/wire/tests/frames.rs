//! The frames of the wire, of this version and of the one before, as a subscription of this version reads them. See
//! [the README](frames/README.md).
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "a test may block")]

use std::{fmt::Write as _, fs, path::Path, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use wire::{Coverage, Endpoint, Subscription, SubscriptionEvent, SubscriptionTiming};

/// What a gateway that has seen `cursor` makes of these bytes, up to the end of the connection.
async fn read(frames: &str, cursor: Option<&str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let cursor = cursor.map(|cursor| cursor.parse().unwrap());
    let timing = SubscriptionTiming { silence: Duration::from_secs(30), ..SubscriptionTiming::default() };
    let mut subscription = Subscription::new(Endpoint::Url(url), "/wire", cursor, Coverage::All, timing);
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
        stream.write_all([head, frames].concat().as_bytes()).await.unwrap();
    };
    let listen = async {
        let mut lines = String::new();
        loop {
            let line = match subscription.next().await {
                SubscriptionEvent::Connected(opened) => {
                    let head = opened.head.unwrap();
                    format!(
                        "{} {:?}, head {head}, of {}",
                        opened.resume.as_str(),
                        opened.missed,
                        opened.server
                    )
                }
                SubscriptionEvent::Event(event) => format!("{} {}", event.kind.as_str(), event.id),
                SubscriptionEvent::Gap(gap) => format!("gap {}", gap.missed),
                SubscriptionEvent::Notice(name, data) => format!("{name}, {} bytes", data.len()),
                SubscriptionEvent::Heartbeat(data) => format!("heartbeat {}", String::from_utf8_lossy(&data)),
                SubscriptionEvent::Lost { reason, .. } => {
                    writeln!(lines, "{reason}").unwrap();
                    return lines;
                }
            };
            let cursor = subscription.cursor().map(ToString::to_string).unwrap_or_default();
            let older_copy = subscription.newest_unknown_to_server().map_or("", |_| ", an older copy");
            writeln!(lines, "{line}; cursor {cursor}{older_copy}").unwrap();
        }
    };
    tokio::join!(listen, serve).0
}

#[tokio::test]
async fn what_either_version_sends_is_read() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/frames"));
    for version in ["before", "current"] {
        let mut names: Vec<_> =
            fs::read_dir(folder.join(version)).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.retain(|path| path.extension().is_some_and(|extension| extension == "sse"));
        assert!(names.len() >= 4, "{version}: {names:?}");
        for path in names {
            let frames = fs::read_to_string(&path).unwrap();
            let cursor = frames.split("\"requested\":\"").nth(1).map(|rest| rest.split('"').next().unwrap());
            let lines = read(&frames, cursor).await;
            let expected = path.with_extension("read");
            if std::env::var_os("NEWSWIRE_BLESS").is_some() {
                fs::write(&expected, &lines).unwrap();
            }
            assert_eq!(lines, fs::read_to_string(&expected).unwrap_or_default(), "{}", path.display());
        }
    }
}
