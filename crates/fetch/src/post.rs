//! Sends a form to a WebSub hub, with the guard, deadlines and client of a visit.
//!
//! A hub may redirect with 307 or 308 (W3C WebSub, section 5.1), which repeats the form; never from https to http, because
//! the form may have a secret. The body of the response is not read.

use http::{HeaderValue, header::CONTENT_TYPE};
use news::FeedUrl;
use reqwest::{Method, Request};
use url::form_urlencoded;

use crate::{
    Failure, FailureClass, Visitor, exchange,
    guard::{AddressGuard, AddressScope},
    headers,
    limits::TimeLimits,
    userinfo::without_credentials,
};

const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");

impl Visitor {
    /// Sends a form and returns the status of the response. It ends within `timeout_total` of the policy.
    ///
    /// # Errors
    /// [`Failure`] if there was no response from an allowed address.
    pub async fn post_form(&self, url: &FeedUrl, form: &[(&str, &str)]) -> Result<u16, Failure> {
        let limits = TimeLimits::new(&self.policy, None, None);
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let client = self.clients.default_client();
        // A feed names its hub.
        let mut guard = AddressGuard::new(AddressScope::Named, false);
        let mut at = url.clone();
        for _ in 0..=self.policy.hops_max {
            let mut request = Request::new(Method::POST, without_credentials(at.secret()));
            request.headers_mut().insert(CONTENT_TYPE, FORM);
            *request.body_mut() = Some(body.clone().into());
            let (Some(host), Some(port)) = (at.secret().host(), at.secret().port_or_known_default()) else {
                return Err(Failure::new(FailureClass::BadUrl, "the address has no host"));
            };
            let connect = limits.connect();
            let addresses = guard.addresses(&*self.resolver, &self.policy, host, port, connect).await?;
            let head = exchange::send(client, request, addresses, connect, &limits).await;
            let response = head.map_err(|error| error.failure)?.response;
            let code = response.status().as_u16();
            if !matches!(code, 307 | 308) {
                return Ok(code);
            }
            let to = headers::location(response.headers()).and_then(|to| at.secret().join(&to).ok());
            let to = to.and_then(|to| FeedUrl::try_new(to.as_str()).ok());
            let downgrades = |to: &FeedUrl| at.secret().scheme() == "https" && to.secret().scheme() == "http";
            at = to.filter(|to| !downgrades(to)).ok_or_else(|| {
                Failure::new(
                    FailureClass::Redirect,
                    "redirected to an address that must not receive the form",
                )
            })?;
        }
        let message = format!("more than {} redirects", self.policy.hops_max);
        Err(Failure::new(FailureClass::Redirect, message))
    }
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

    fn visitor(allow_private: bool) -> Visitor {
        Visitor::try_new(Policy { allow_private, ..Policy::default() }).unwrap()
    }

    #[tokio::test]
    async fn a_form_is_sent_again_where_the_hub_points() {
        let heads =
            ["307 Temporary Redirect\r\nlocation: /other", "202 Accepted"].map(str::to_owned).to_vec();
        let (url, task) = serve(heads).await;
        let code = visitor(true).post_form(&url, &[("a", "b c&"), ("d", "")]).await.unwrap();
        let received = task.await.unwrap();
        assert_eq!(code, 202);
        assert!(
            received[0].starts_with("POST /hub ") && received[1].starts_with("POST /other "),
            "{received:?}"
        );
        assert!(received[1].contains("content-type: application/x-www-form-urlencoded"), "{received:?}");
    }

    #[tokio::test]
    async fn a_hub_at_a_private_address_is_refused_also_when_a_public_looking_one_points_there() {
        let url = FeedUrl::try_new("http://127.0.0.1:9/hub").unwrap();
        let refused = visitor(false).post_form(&url, &[]).await.unwrap_err();
        assert_eq!(refused.class, FailureClass::BlockedAddress);
        // All of IPv6 is allowed, and so may be a hub.
        let heads = vec!["308 Permanent Redirect\r\nlocation: http://10.0.0.1/".to_owned()];
        let (url, task) = serve_at("[::1]:0", heads).await;
        let allow = ["::/0", "10.0.0.0/8", "127.0.0.0/8"].map(|network| network.parse().unwrap()).to_vec();
        let visitor = Visitor::try_new(Policy { allow, ..Policy::default() }).unwrap();
        let refused = visitor.post_form(&url, &[("a", "b c&"), ("d", "")]).await.unwrap_err();
        task.await.unwrap();
        let message = "10.0.0.1 is private, not public; fetch.allow counts only for a source whose own address lies in it";
        assert_eq!(refused, Failure::new(FailureClass::BlockedAddress, message));
        let url = FeedUrl::try_new("http://127.0.0.1:9/hub").unwrap();
        let refused = visitor.post_form(&url, &[]).await.unwrap_err();
        assert_eq!(refused.class, FailureClass::BlockedAddress, "a hub in fetch.allow is refused, too");
    }
}
