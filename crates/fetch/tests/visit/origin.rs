//! A server on loopback that sends exactly the given bytes at the given times.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::sleep,
};

/// One thing that the server does with a connection after it has read a request.
#[derive(Clone)]
pub(crate) enum Step {
    /// Sends bytes.
    Say(Vec<u8>),
    /// Sends bytes repeatedly until the client closes.
    Repeat(Vec<u8>),
    /// Sends bytes one by one, with a pause after each.
    Drip(Vec<u8>, Duration),
    /// Does nothing for this time.
    Wait(Duration),
    /// Does nothing until the client closes.
    Hang,
    /// Ends the connection with RST instead of FIN.
    Reset,
}

/// The whole of one answer.
pub(crate) type Script = Vec<Step>;

pub(crate) fn say(bytes: impl AsRef<[u8]>) -> Step {
    Step::Say(bytes.as_ref().to_vec())
}

/// A complete answer: status line, the headers given, `Content-Length`, body.
pub(crate) fn answer(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Script {
    let body = body.as_ref();
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    vec![say(head), say(body)]
}

/// A redirect.
pub(crate) fn redirect(status: u16, location: &str) -> Script {
    answer(&format!("{status} Elsewhere"), &format!("Location: {location}\r\n"), "")
}

/// The server, until it is dropped.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    accepts: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Origin {
    /// Serves on 127.0.0.1; `script` gets the requested path with its query.
    pub(crate) async fn start(script: impl Fn(&str) -> Script + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0", script).await
    }

    /// Serves the same answer at every path.
    pub(crate) async fn always(script: Script) -> Self {
        Self::start(move |_| script.clone()).await
    }

    /// A listener that must not be reached. It counts connections and sends nothing.
    pub(crate) async fn canary(address: &str) -> Self {
        Self::start_at(address, |_| vec![Step::Hang]).await
    }

    /// Serves the same answer at every path of that address and port.
    pub(crate) async fn start_on(ip: &str, port: u16, script: Script) -> Self {
        Self::start_at(&format!("{ip}:{port}"), move |_| script.clone()).await
    }

    async fn start_at(address: &str, script: impl Fn(&str) -> Script + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, accepts) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let (seen, counted, script) = (Arc::clone(&requests), Arc::clone(&accepts), Arc::new(script));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                let (seen, script) = (Arc::clone(&seen), Arc::clone(&script));
                tokio::spawn(async move { serve(stream, &seen, &*script).await });
            }
        });
        Self { address, requests, accepts, task }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The heads of all requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// Connections so far.
    pub(crate) fn accepts(&self) -> usize {
        self.accepts.load(Ordering::SeqCst)
    }
}

async fn serve(
    mut stream: TcpStream,
    seen: &Mutex<Vec<String>>,
    script: &(dyn Fn(&str) -> Script + Send + Sync),
) {
    let Some(head) = head(&mut stream).await else { return };
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    seen.lock().unwrap().push(head);
    for step in script(&path) {
        // The client may close at any time.
        if play(&mut stream, step).await.is_none() {
            return;
        }
    }
    if stream.shutdown().await.is_ok() {
        // Reads until the client closes too, since closing with unread bytes would reset the connection.
        drain(&mut stream).await;
    }
}

async fn play(stream: &mut TcpStream, step: Step) -> Option<()> {
    match step {
        Step::Say(bytes) => stream.write_all(&bytes).await.ok(),
        Step::Repeat(bytes) => loop {
            stream.write_all(&bytes).await.ok()?;
        },
        Step::Drip(bytes, pause) => {
            for byte in bytes {
                stream.write_all(&[byte]).await.ok()?;
                sleep(pause).await;
            }
            Some(())
        }
        Step::Wait(pause) => {
            sleep(pause).await;
            Some(())
        }
        Step::Hang => {
            drain(stream).await;
            None
        }
        Step::Reset => {
            // The bytes sent so far must arrive first.
            sleep(Duration::from_millis(50)).await;
            stream.set_zero_linger().unwrap();
            None
        }
    }
}

async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

async fn drain(stream: &mut TcpStream) {
    let mut buffer = [0; 1024];
    while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
}
