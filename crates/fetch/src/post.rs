//! Sends a form to a WebSub hub, with the guard, deadlines and client of a visit.
//!
//! A hub may redirect with 307 or 308 (W3C WebSub, section 5.1), which repeats the form; never from https to http, because
//! the form may have a secret. The body of the response is not read. Every request is admitted and booked like one of a
//! visit, at the host that it goes to.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use news::{FeedUrl, Timestamp};
use reqwest::{Method, Request};
use url::form_urlencoded;

use crate::{
    Failure, FailureClass, HeldHop, HopGate, RequestOptions, Visitor,
    connection::ConnectionProfile,
    guard::{AddressGuard, AddressScope},
    headers,
    hop_gate::admit,
    limits::TimeLimits,
    phase::VisitPhaseCell,
    userinfo::without_credentials,
};

const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");

/// What came of a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormAnswer {
    /// The answer.
    Answered {
        /// Its status.
        code: u16,
        /// Its `Retry-After`, if it is an error.
        retry_after: Option<Duration>,
    },
    /// The form was not sent, because its host, or that of a redirect, may not be asked yet.
    Held(HeldHop),
}

impl Visitor {
    /// Sends a form that a feed has named the address of. Of `options`, only the proxy counts: the rest is for the feed.
    /// It ends within `timeout_total` of the policy and the time that it waits for admission.
    ///
    /// # Errors
    /// [`Failure`] if there was no response from an allowed address.
    pub async fn post_form(
        &self,
        url: &FeedUrl,
        form: &[(&str, &str)],
        options: Option<&RequestOptions>,
        gate: Option<&dyn HopGate>,
        now: Timestamp,
    ) -> Result<FormAnswer, Failure> {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let own_proxy = options.and_then(|options| options.profile.proxy.clone());
        let client = self.client(&ConnectionProfile { proxy: own_proxy, authorities_pem: None })?;
        let proxy = self.proxy(options);
        let mut guard = AddressGuard::new(AddressScope::Named, proxy.is_some());
        let mut limits = TimeLimits::new(&self.policy, None, None);
        let mut at = url.clone();
        for _ in 0..=self.policy.hops_max {
            if let Err((_, held)) = admit(gate, &at, &mut limits).await {
                return Ok(FormAnswer::Held(held));
            }
            let mut request = Request::new(Method::POST, without_credentials(at.secret()));
            request.headers_mut().insert(CONTENT_TYPE, FORM);
            *request.body_mut() = Some(body.clone().into());
            let (connect, phase) = (limits.connect(), VisitPhaseCell::default());
            let addresses = self.addresses(request.url(), proxy, &mut guard, connect).await?;
            let head = self.exchange(&client, request, addresses, connect, &limits, &phase).await;
            let response = head.map_err(|error| error.failure)?.response;
            let (status, head) = (response.status(), response.headers());
            let is_error = status.is_client_error() || status.is_server_error();
            let retry_after = headers::retry_after(head, now).filter(|_| is_error);
            let code = status.as_u16();
            if let Some(gate) = gate {
                gate.answered(&at, code, retry_after);
            }
            if !matches!(code, 307 | 308) {
                return Ok(FormAnswer::Answered { code, retry_after });
            }
            at = next_hub(&at, head)?;
        }
        let message = format!("more than {} redirects", self.policy.hops_max);
        Err(Failure::new(FailureClass::Redirect, message))
    }
}

/// Where a hub redirects to, if that may receive the form.
fn next_hub(at: &FeedUrl, head: &HeaderMap) -> Result<FeedUrl, Failure> {
    let to = headers::location(head).and_then(|to| at.secret().join(&to).ok());
    let to = to.and_then(|to| FeedUrl::try_new(to.as_str()).ok());
    let downgrades = |to: &FeedUrl| at.secret().scheme() == "https" && to.secret().scheme() == "http";
    to.filter(|to| !downgrades(to)).ok_or_else(|| {
        Failure::new(FailureClass::Redirect, "redirected to an address that must not receive the form")
    })
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;
    use crate::Policy;

    /// Answers each connection with the next of these heads; returns the requests.
    async fn serve(heads: Vec<String>) -> (FeedUrl, tokio::task::JoinHandle<Vec<String>>) {
        serve_at("127.0.0.1:0", heads).await
    }

    async fn serve_at(address: &str, heads: Vec<String>) -> (FeedUrl, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind(address).await.unwrap();
        let url = FeedUrl::try_new(&format!("http://{}/hub", listener.local_addr().unwrap())).unwrap();
        let task = tokio::spawn(async move {
            let mut received = Vec::new();
            for head in heads {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = String::new();
                while !request.contains("a=b+c%26&d=") {
                    let mut piece = [0; 1024];
                    let read = stream.read(&mut piece).await.unwrap();
                    request.push_str(&String::from_utf8_lossy(&piece[..read]));
                }
                received.push(request);
                stream
                    .write_all(format!("HTTP/1.1 {head}\r\ncontent-length: 0\r\n\r\n").as_bytes())
                    .await
                    .unwrap();
            }
            received
        });
        (url, task)
    }

    const FIELDS: &[(&str, &str)] = &[("a", "b c&"), ("d", "")];

    fn now() -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000)
    }

    fn answered(code: u16) -> FormAnswer {
        FormAnswer::Answered { code, retry_after: None }
    }

    fn visitor(allow_private: bool) -> Visitor {
        Visitor::try_new(Policy { allow_private, ..Policy::default() }).unwrap()
    }

    #[tokio::test]
    async fn a_form_is_sent_again_where_the_hub_points() {
        let heads =
            ["307 Temporary Redirect\r\nlocation: /other", "202 Accepted"].map(str::to_owned).to_vec();
        let (url, task) = serve(heads).await;
        let answer = visitor(true).post_form(&url, FIELDS, None, None, now()).await.unwrap();
        let received = task.await.unwrap();
        assert_eq!(answer, answered(202));
        assert!(
            received[0].starts_with("POST /hub ") && received[1].starts_with("POST /other "),
            "{received:?}"
        );
        assert!(received[1].contains("content-type: application/x-www-form-urlencoded"), "{received:?}");
    }

    #[tokio::test]
    async fn a_hub_at_a_private_address_is_refused_also_when_a_public_looking_one_points_there() {
        let url = FeedUrl::try_new("http://127.0.0.1:9/hub").unwrap();
        let refused = visitor(false).post_form(&url, &[], None, None, now()).await.unwrap_err();
        assert_eq!(refused.class, FailureClass::BlockedAddress);
        // All of IPv6 is allowed, and so may be a hub.
        let heads = vec!["308 Permanent Redirect\r\nlocation: http://10.0.0.1/".to_owned()];
        let (url, task) = serve_at("[::1]:0", heads).await;
        let allow = ["::/0", "10.0.0.0/8", "127.0.0.0/8"].map(|network| network.parse().unwrap()).to_vec();
        let visitor = Visitor::try_new(Policy { allow, ..Policy::default() }).unwrap();
        let refused = visitor.post_form(&url, FIELDS, None, None, now()).await.unwrap_err();
        task.await.unwrap();
        let message = "10.0.0.1 is private, not public; fetch.allow counts only for a source whose own address lies in it";
        assert_eq!(refused, Failure::new(FailureClass::BlockedAddress, message));
        let url = FeedUrl::try_new("http://127.0.0.1:9/hub").unwrap();
        let refused = visitor.post_form(&url, &[], None, None, now()).await.unwrap_err();
        assert_eq!(refused.class, FailureClass::BlockedAddress, "a hub in fetch.allow is refused, too");
    }

    /// Lets the first requests in, as many as it is told, and records everything.
    #[derive(Debug)]
    struct Gate {
        lets_in: usize,
        log: std::cell::RefCell<Vec<String>>,
    }

    impl HopGate for Gate {
        fn enter<'a>(&'a self, url: &'a FeedUrl) -> crate::HopEntry<'a> {
            Box::pin(async move {
                let mut log = self.log.borrow_mut();
                let before = log.iter().filter(|line| line.starts_with("enter")).count();
                log.push(format!("enter {}", url.secret().path()));
                let held = HeldHop { why: "it is closed".to_owned(), wait: None };
                if before < self.lets_in { Ok(()) } else { Err(held) }
            })
        }

        fn answered(&self, url: &FeedUrl, code: u16, retry_after: Option<Duration>) {
            self.log.borrow_mut().push(format!("{} {code} {retry_after:?}", url.secret().path()));
        }
    }

    #[tokio::test]
    async fn each_request_to_a_hub_is_admitted_and_booked_where_it_goes() {
        let moved = "307 Temporary Redirect\r\nlocation: /other".to_owned();
        let busy = "429 Too Many Requests\r\nretry-after: 90".to_owned();
        for (lets_in, heads) in [(2, vec![moved.clone(), busy]), (1, vec![moved]), (0, vec![])] {
            let (url, task) = serve(heads).await;
            let gate = Gate { lets_in, log: std::cell::RefCell::default() };
            let answer = visitor(true).post_form(&url, FIELDS, None, Some(&gate), now()).await.unwrap();
            assert_eq!(task.await.unwrap().len(), lets_in);
            let expected = ["enter /hub", "/hub 307 None", "enter /other", "/other 429 Some(90s)"];
            let log = gate.log.into_inner();
            assert_eq!(log, expected[..(2 * lets_in + 1).min(4)], "{lets_in}");
            if lets_in == 2 {
                let retry_after = Some(Duration::from_secs(90));
                assert_eq!(answer, FormAnswer::Answered { code: 429, retry_after });
            } else {
                let held = HeldHop { why: "it is closed".to_owned(), wait: None };
                assert_eq!(answer, FormAnswer::Held(held));
            }
        }
    }
}
