//! The Rust client of `crates/gateway/STREAM.md`: from the first `use` on, the same bytes. `listen [ADDRESS]` prints
//! events as they arrive and keeps its cursor in the file `cursor`.
#![allow(clippy::print_stdout, reason = "it prints events")]
#![allow(clippy::disallowed_methods, reason = "it has one stream and nothing else to do")]

use std::{env, error::Error, fs, time::Duration};

use news::Event;
use wire::{Coverage, Endpoint, Subscription, SubscriptionEvent, SubscriptionTiming};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:8700".to_owned());
    let gateway = Endpoint::Url(address.parse()?);
    let cursor = fs::read_to_string("cursor").ok().and_then(|id| id.trim().parse().ok());
    let timing = SubscriptionTiming { silence: Duration::from_secs(30), ..SubscriptionTiming::default() };
    let path = "/news/stream?kinds=item,update,heartbeat";
    let mut stream = Subscription::new(gateway, path, cursor, Coverage::Filtered, timing);
    loop {
        match stream.next().await {
            SubscriptionEvent::Connected(hello) => println!("{} {:?}", hello.resume.as_str(), hello.missed),
            SubscriptionEvent::Event(event) => {
                let event: Event = serde_json::from_slice(&event.json)?;
                println!("{} {}", event.id, event.item.title);
            }
            SubscriptionEvent::Gap(gap) => println!("missed {}", gap.missed),
            SubscriptionEvent::Lost { reason, wait } => println!("{reason}, reconnecting in {wait:?}"),
            SubscriptionEvent::Notice(..) | SubscriptionEvent::Heartbeat(_) => {}
        }
        if let Some(cursor) = stream.cursor() {
            fs::write("cursor", cursor.to_string())?;
        }
    }
}
