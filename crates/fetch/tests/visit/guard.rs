//! No address that is not public is reached, by any spelling, redirect, name or proxy.

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

#[tokio::test]
async fn localhost_is_refused_by_default_and_visited_if_everything_is_allowed() {
    let origin = Origin::always(answer("200 OK", "", "<rss/>")).await;
    let url = origin.url("/").replace("127.0.0.1", "localhost");
    let strict = visit_with(&Visitor::try_new(Policy::default()).unwrap(), &url, None, None).await;
    assert_eq!((class(&strict), origin.accepts()), (FailureClass::BlockedAddress, 0));
    let open = Policy { allow_private: true, ..policy() };
    full(visit_with(&Visitor::try_new(open).unwrap(), &url, None, None).await);
}

/// Answers from a list in order; repeats the last one.
pub(crate) struct Scripted {
    answers: Mutex<Vec<Result<Vec<IpAddr>, &'static str>>>,
    pub(crate) lookups: AtomicUsize,
}

impl Resolver for Scripted {
    fn lookup(&self, name: &str) -> Lookup {
        assert!(["feeds.example", "proxy.example"].contains(&name), "{name}");
        self.lookups.fetch_add(1, Ordering::SeqCst);
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

pub(crate) fn ips(ips: &[&str]) -> Result<Vec<IpAddr>, &'static str> {
    Ok(ips.iter().map(|ip| ip.parse().unwrap()).collect())
}

pub(crate) fn scripted(answers: Vec<Result<Vec<IpAddr>, &'static str>>) -> (Visitor, Arc<Scripted>) {
    scripted_with(policy(), answers)
}

pub(crate) fn scripted_with(
    policy: Policy,
    answers: Vec<Result<Vec<IpAddr>, &'static str>>,
) -> (Visitor, Arc<Scripted>) {
    let resolver = Arc::new(Scripted { answers: Mutex::new(answers), lookups: AtomicUsize::new(0) });
    (Visitor::with_resolver(policy, Arc::clone(&resolver) as Arc<dyn Resolver>).unwrap(), resolver)
}

#[tokio::test(start_paused = true)]
async fn a_resolver_that_never_answers_ends_at_the_deadline() {
    let visitor = Visitor::with_resolver(Policy::default(), Arc::new(Silent)).unwrap();
    let visit = visit_with(&visitor, "http://feeds.example/", None, None).await;
    assert_eq!(
        failure(&visit).to_string(),
        "timeout: looking up feeds.example took longer than 10s (fetch.timeout_connect)"
    );
    assert_eq!(visit.timings.total, Policy::default().timeout_connect);
}

const CHILD: &str = "guard::a_visit_connects_directly_to_its_host";

#[tokio::test]
async fn a_visit_connects_directly_to_its_host() {
    let origin = Origin::always(answer("200 OK", "", "<rss/>")).await;
    assert_eq!(full(visit(&origin.url("/")).await).url.as_str(), origin.url("/"));
}

/// Runs one test in its own process, with another environment, and returns its output.
pub(crate) async fn child_with(name: &'static str, environment: Vec<(&'static str, String)>) -> String {
    let test = std::env::current_exe().unwrap();
    let mut child = std::process::Command::new(test);
    child.args(["--exact", name, "--nocapture"]).envs(environment);
    let output = tokio::task::spawn_blocking(move || child.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}\n{complaint}");
    said
}

#[tokio::test]
async fn a_machine_without_certificate_authorities_still_visits_plain_http() {
    let names = ["SSL_CERT_FILE", "SSL_CERT_DIR"];
    child_with(CHILD, names.map(|name| (name, "/nonexistent".to_owned())).to_vec()).await;
}
