//! Nothing that is not public is reached, by any spelling, redirect, name or proxy.

use std::{
    io,
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use fetch::{FailureClass, Lookup, Policy, Resolver, Visitor};

use crate::{class, failure, full, origin::*, policy, visit, visit_with};

/// Spellings of 127.0.0.2, which the test's policy does not allow, and of other addresses of this machine.
const SPELLINGS: [&str; 18] = [
    "127.0.0.2",
    "127.0.0.2.",
    "2130706434",
    "0x7f000002",
    "0x7f.2",
    "127.2",
    "0177.0.0.2",
    "017700000002",
    "127。0。0。2",
    "１２７.0.0.2",
    "[::ffff:127.0.0.2]",
    "[::ffff:7f00:2]",
    "[::127.0.0.2]",
    "[64:ff9b::127.0.0.2]",
    "[2002:7f00:2::]",
    "0",
    "[::]",
    "[::1]",
];

#[tokio::test]
async fn no_spelling_of_a_private_address_is_dialled_as_feed_or_as_redirect() {
    let canary = Origin::canary("127.0.0.2:0").await;
    let port = canary.address.port();
    let second = Origin::canary(&format!("[::1]:{port}")).await;
    let relay = Origin::start(move |path| redirect(302, &format!("http://{}:{port}/", &path[1..]))).await;
    for host in SPELLINGS {
        let direct = visit(&format!("http://{host}:{port}/")).await;
        assert_eq!(class(&direct), FailureClass::BlockedAddress, "{host}");
        let relayed = visit(&relay.url(&format!("/{host}"))).await;
        assert_eq!((relayed.code, relayed.hops.len()), (Some(302), 1), "{host}");
        assert_eq!(class(&relayed), FailureClass::BlockedAddress, "{host}");
    }
    assert_eq!((canary.accepts(), second.accepts()), (0, 0));
}

#[tokio::test]
async fn localhost_is_refused_by_default_and_dialled_when_everything_is_allowed() {
    let origin = Origin::always(answer("200 OK", "", "<rss/>")).await;
    let url = origin.url("/").replace("127.0.0.1", "localhost");
    let strict = visit_with(&Visitor::try_new(Policy::default()).unwrap(), &url, None, None).await;
    assert_eq!((class(&strict), origin.accepts()), (FailureClass::BlockedAddress, 0));
    let open = Policy { allow_private: true, ..policy() };
    full(visit_with(&Visitor::try_new(open).unwrap(), &url, None, None).await);
}

#[tokio::test]
async fn a_port_that_is_none_of_the_webs_is_not_dialled() {
    let visit = visit("http://8.8.8.8:25/").await;
    assert_eq!(class(&visit), FailureClass::BlockedAddress);
    assert!(failure(&visit).message.starts_with("port 25 is none of the web's"));
}

/// Answers in turn from a list; the last one for ever.
pub(crate) struct Scripted {
    answers: Mutex<Vec<Result<Vec<IpAddr>, &'static str>>>,
    asked: AtomicUsize,
}

impl Resolver for Scripted {
    fn lookup(&self, name: &str) -> Lookup {
        assert_eq!(name, "feeds.example");
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock().unwrap();
        let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
        Box::pin(async move { answer.map_err(io::Error::other) })
    }
}

struct Silent;

impl Resolver for Silent {
    fn lookup(&self, _: &str) -> Lookup {
        Box::pin(std::future::pending())
    }
}

fn ips(ips: &[&str]) -> Result<Vec<IpAddr>, &'static str> {
    Ok(ips.iter().map(|ip| ip.parse().unwrap()).collect())
}

pub(crate) fn scripted(answers: Vec<Result<Vec<IpAddr>, &'static str>>) -> (Visitor, Arc<Scripted>) {
    let resolver = Arc::new(Scripted { answers: Mutex::new(answers), asked: AtomicUsize::new(0) });
    (Visitor::with_resolver(policy(), Arc::clone(&resolver) as Arc<dyn Resolver>).unwrap(), resolver)
}

#[tokio::test]
async fn a_name_is_looked_up_once_and_what_was_checked_is_dialled() {
    let origin = Origin::always(answer("200 OK", "", "<rss/>")).await;
    let canary = Origin::canary(&format!("127.0.0.2:{}", origin.address.port())).await;
    let (visitor, resolver) = scripted(vec![ips(&["127.0.0.1"]), ips(&["127.0.0.2"])]);
    let url = origin.url("/").replace("127.0.0.1", "feeds.example");
    let first = visit_with(&visitor, &url, None, None).await;
    assert_eq!(resolver.asked.load(Ordering::SeqCst), 1);
    assert_eq!(first.remote, Some(origin.address));
    assert_eq!(full(first).url.as_str(), url);
    assert!(origin.requests()[0].to_lowercase().contains("host: feeds.example:"));
    // The name changes its mind, and is asked again: every connection is checked anew.
    let second = visit_with(&visitor, &url, None, None).await;
    assert_eq!((class(&second), canary.accepts()), (FailureClass::BlockedAddress, 0));
}

#[tokio::test]
async fn one_private_answer_refuses_the_name() {
    let origin = Origin::always(answer("200 OK", "", "<rss/>")).await;
    let url = origin.url("/").replace("127.0.0.1", "feeds.example");
    let mut thousand = vec!["127.0.0.1"; 1_000];
    thousand.push("10.0.0.1");
    for found in
        [&["127.0.0.1", "127.0.0.2"][..], &["::1", "127.0.0.1"], &["127.0.0.1", "64:ff9b::a00:1"], &thousand]
    {
        let visit = visit_with(&scripted(vec![ips(found)]).0, &url, None, None).await;
        assert_eq!(class(&visit), FailureClass::BlockedAddress);
    }
    assert_eq!(origin.accepts(), 0);
    let thousand = vec!["127.0.0.1"; 1_000];
    full(visit_with(&scripted(vec![ips(&thousand)]).0, &url, None, None).await);
}

#[tokio::test]
async fn a_name_without_an_answer_has_a_class_of_its_own() {
    let url = "http://feeds.example/";
    for (answer, said) in [
        (ips(&[]), "dns: feeds.example has no address"),
        (Err("no such name"), "dns: could not look up feeds.example: no such name"),
    ] {
        let visit = visit_with(&scripted(vec![answer]).0, url, None, None).await;
        assert_eq!(failure(&visit).to_string(), said);
    }
}

#[tokio::test(start_paused = true)]
async fn a_resolver_that_never_answers_is_left_at_the_deadline() {
    let visitor = Visitor::with_resolver(Policy::default(), Arc::new(Silent)).unwrap();
    let visit = visit_with(&visitor, "http://feeds.example/", None, None).await;
    assert_eq!(failure(&visit).to_string(), "timeout: looking up feeds.example took too long");
    assert_eq!(visit.timings.total, Policy::default().timeout_connect);
}

const CHILD: &str = "guard::a_visit_goes_straight_to_its_host";

#[tokio::test]
async fn a_visit_goes_straight_to_its_host() {
    let origin = Origin::always(answer("200 OK", "", "<rss/>")).await;
    assert_eq!(full(visit(&origin.url("/")).await).url.as_str(), origin.url("/"));
}

/// Runs [`CHILD`] in a process of its own, with another environment.
async fn child_with(environment: Vec<(&'static str, String)>) {
    let test = std::env::current_exe().unwrap();
    let mut child = std::process::Command::new(test);
    child.args(["--exact", CHILD]).envs(environment);
    let output = tokio::task::spawn_blocking(move || child.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[tokio::test]
async fn a_proxy_in_the_environment_is_not_used() {
    let canary = Origin::canary("127.0.0.2:0").await;
    let proxy = format!("http://{}", canary.address);
    let names = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"];
    child_with(names.map(|name| (name, proxy.clone())).to_vec()).await;
    assert_eq!(canary.accepts(), 0);
}

#[tokio::test]
async fn a_machine_without_certificate_authorities_still_visits_plain_http() {
    let names = ["SSL_CERT_FILE", "SSL_CERT_DIR"];
    child_with(names.map(|name| (name, "/nonexistent".to_owned())).to_vec()).await;
}
