//! New items that a visit holds back because guids flap: the visit after it reads the document, though it is the same.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use actix_rt::time::sleep;
use daemon::Clock;
use fetch::schedule::IntervalBounds;
use http::Response;
use news::Seq;
use reqwest::{Body, Request};

use super::{MONDAY_MS, Reply, Servers, SimulatedDaemon, directory, id_of, simulate, source};

/// Sources by the validators that their servers know.
const IDS: [&str; 4] = ["etag", "modified", "both", "none"];
/// Items of the documents before the last one, and of that.
const FEW: usize = 100;
const ALL: usize = 150;

/// Each feed has other guids at its second and third visit, and 50 more items at the third. From then on it is the same.
#[derive(Default)]
struct ChangingServers {
    /// Documents served, by source.
    served: Mutex<HashMap<String, usize>>,
}

impl Servers for ChangingServers {
    fn respond(&self, _: i64, request: &Request) -> Reply {
        let id = id_of(request.url());
        let mut served = self.served.lock().unwrap();
        let served = served.entry(id.to_owned()).or_default();
        let version = (*served).min(2);
        let validators =
            [("etag", "if-none-match", "etag"), ("modified", "if-modified-since", "last-modified")];
        let values = [format!("\"{version}\""), format!("Sun, 01 Mar 2026 0{version}:00:00 GMT")];
        let mut response = Response::builder();
        let mut is_known = *served > 2;
        for ((kind, sent, header), value) in validators.into_iter().zip(values) {
            if id == kind || id == "both" {
                is_known &= request.headers().get(sent).is_some_and(|sent| *sent == *value);
                response = response.header(header, value);
            }
        }
        if is_known && id != "none" {
            return reply(response.status(304), String::new());
        }
        *served += 1;
        reply(response.status(200), document(version))
    }
}

fn reply(response: http::response::Builder, body: String) -> Reply {
    Reply::After(Duration::from_millis(80), response.body(Body::from(body)).unwrap())
}

fn document(version: usize) -> String {
    let mut text = "<rss version='2.0'><channel><title>t</title>".to_owned();
    for n in (0..if version == 2 { ALL } else { FEW }).rev() {
        let guid = format!("guid-{version}-{n}");
        write!(text, "<item><guid>{guid}</guid><link>http://news.example/{n}</link>").unwrap();
        write!(text, "<title>Article {n}</title></item>").unwrap();
    }
    text + "</channel></rss>"
}

/// How many events of each title the log has, by source.
type Titles = BTreeMap<String, BTreeMap<String, usize>>;

fn titles(log: &store::LogReader) -> Titles {
    let mut titles = Titles::new();
    let mut after = Seq(0);
    loop {
        let page = log.page(after, 1000, 1 << 20).unwrap();
        let Some(last) = page.records.last() else { return titles };
        after = last.seq;
        for event in page.records {
            let json: serde_json::Value = serde_json::from_str(&event.json).unwrap();
            let [source, title] = ["source", "title"].map(|name| json[name].as_str().unwrap().to_owned());
            *titles.entry(source).or_default().entry(title).or_default() += 1;
        }
    }
}

#[test]
fn items_that_were_held_come_though_the_document_does_not_change_again() {
    let servers = Arc::new(ChangingServers::default());
    let (titles, held) = simulate(async {
        let clock = Clock::from_tokio(MONDAY_MS);
        let directory = directory();
        let bounds = IntervalBounds::default();
        let simulated = SimulatedDaemon::start(directory.path(), &clock, servers.clone(), bounds).await;
        let url = |id: &str| format!("http://{id}.example/{id}");
        simulated.apply(IDS.into_iter().map(|id| source(id, &url(id))).collect()).await;
        // Each has been visited three times.
        while servers.served.lock().unwrap().values().filter(|served| **served > 2).count() < IDS.len() {
            sleep(Duration::from_secs(60)).await;
        }
        let held = titles(&simulated.reader);
        sleep(Duration::from_secs(20 * 3600)).await;
        let titles = titles(&simulated.reader);
        simulated.stop().await;
        (titles, held)
    });
    for id in IDS {
        let sent = titles[id].values().sum::<usize>();
        println!("{id}: {} items, at first {}", titles[id].len(), held[id].len());
        assert_eq!((titles[id].len(), sent), (ALL, ALL), "{id}");
    }
    assert!(held.values().any(|titles| titles.len() < ALL), "control: some were held");
}
