//! The connections of the origin.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{Behaviour, Content, OriginState, Request, Resource, document};

/// The quota of [`Behaviour::OnceAnHour`].
const HOUR: Duration = Duration::from_secs(3600);

/// What one request is answered with.
struct Answer {
    status: u16,
    headers: Vec<String>,
    body: Vec<u8>,
}

/// Serves until dropped, which closes all connections.
pub(super) async fn accept(listener: TcpListener, state: Arc<Mutex<OriginState>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((socket, _)) = accepted {
                    connections.spawn(connection(socket, Arc::clone(&state)));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(socket: TcpStream, state: Arc<Mutex<OriginState>>) {
    let mut socket = BufReader::new(socket);
    // A client may disconnect in the middle of a response.
    while let Ok(true) = exchange(&mut socket, &state).await {}
}

/// Serves one request; returns whether the connection can be reused.
async fn exchange(socket: &mut BufReader<TcpStream>, state: &Mutex<OriginState>) -> io::Result<bool> {
    let Some(request) = read_request(socket).await? else { return Ok(false) };
    let (behaviour, answer, number) = {
        let mut state = state.lock().expect("no thread panics while holding it");
        let (behaviour, answer) = match state.resources.get(&request.path) {
            Some(resource) => (resource.behaviour.clone(), honest_answer(resource, &request)),
            None => (Behaviour::Status(404, Vec::new()), text_answer(404, Vec::new())),
        };
        let behaviour = within_quota(behaviour, &request.path, &state.requests);
        state.requests.push(request);
        (behaviour, answer, state.requests.len() - 1)
    };
    let answered = |status| {
        state.lock().expect("no thread panics while holding it").requests[number].answered = Some(status);
    };
    match behaviour {
        Behaviour::Honest | Behaviour::OnceAnHour => {
            answered(answer.status);
            send_whole(socket, &answer).await?;
            Ok(true)
        }
        Behaviour::Late(wait) => {
            sleep(wait).await;
            answered(answer.status);
            send_whole(socket, &answer).await?;
            Ok(true)
        }
        Behaviour::SilentHead => hold_until_closed(socket).await,
        Behaviour::SilentBody => {
            answered(200);
            send_half(socket, &answer).await?;
            hold_until_closed(socket).await
        }
        Behaviour::Drip(bytes, pause) => {
            answered(200);
            socket.write_all(&head(&answer)).await?;
            for piece in answer.body.chunks(bytes.max(1)) {
                socket.write_all(piece).await?;
                socket.flush().await?;
                sleep(pause).await;
            }
            Ok(false)
        }
        Behaviour::CutOff => {
            answered(200);
            send_half(socket, &answer).await?;
            socket.shutdown().await?;
            Ok(false)
        }
        Behaviour::Reset => {
            socket.get_ref().set_zero_linger()?;
            Ok(false)
        }
        Behaviour::Status(status, headers) => {
            answered(status);
            send_whole(socket, &text_answer(status, headers)).await?;
            Ok(true)
        }
        Behaviour::Redirect(status, to) => {
            answered(status);
            send_whole(socket, &text_answer(status, vec![format!("Location: {to}")])).await?;
            Ok(true)
        }
    }
}

/// What [`Behaviour::OnceAnHour`] means for one more request; any other stays what it is.
fn within_quota(behaviour: Behaviour, path: &str, earlier: &[Request]) -> Behaviour {
    let was_served = |request: &Request| {
        request.path == path && request.at.elapsed() < HOUR && request.answered != Some(429)
    };
    match behaviour {
        Behaviour::OnceAnHour if earlier.iter().any(was_served) => {
            Behaviour::Status(429, vec!["Retry-After: 86400".to_owned()])
        }
        Behaviour::OnceAnHour => Behaviour::Honest,
        other => other,
    }
}

/// `None` if the client has closed the connection.
async fn read_request(socket: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if socket.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut lines = lines.into_iter();
    let first = lines.next().unwrap_or_default();
    let mut words = first.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let headers = lines
        .filter_map(|line| line.split_once(':').map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned())))
        .collect();
    let request = Request {
        at: Instant::now(),
        method: method.to_owned(),
        path: path.to_owned(),
        headers,
        answered: None,
    };
    Ok(Some(request))
}

/// The document, or 304 if the client has it. `If-None-Match` takes precedence (RFC 9110, section 13.2.2).
fn honest_answer(resource: &Resource, request: &Request) -> Answer {
    let etag = format!("\"v{}\"", resource.version);
    let modified = format!("Sat, 31 Jan 2026 {} GMT", document::clock(resource.version));
    let same = match (request.header("if-none-match"), request.header("if-modified-since")) {
        (Some(theirs), _) => theirs.split(',').any(|tag| tag.trim().trim_start_matches("W/") == etag),
        (None, Some(theirs)) => theirs == modified,
        (None, None) => false,
    };
    let mut headers = vec![format!("ETag: {etag}"), format!("Last-Modified: {modified}")];
    headers.extend(resource.headers.iter().cloned());
    if same {
        return Answer { status: 304, headers, body: Vec::new() };
    }
    let (media_type, body) = match &resource.content {
        Content::Feed { name, format, shape, entries } => {
            let newest = shape.newest(entries);
            (format.media_type(), document::write(*format, name, newest).into_bytes())
        }
        Content::File { bytes, media_type } => (*media_type, bytes.to_vec()),
    };
    headers.push(format!("Content-Type: {media_type}"));
    Answer { status: 200, headers, body }
}

fn text_answer(status: u16, mut headers: Vec<String>) -> Answer {
    headers.push("Content-Type: text/plain".to_owned());
    Answer { status, headers, body: format!("{status}\n").into_bytes() }
}

fn head(answer: &Answer) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {} Whatever\r\n", answer.status);
    for header in &answer.headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    if answer.status != 304 {
        head.push_str(&format!("Content-Length: {}\r\n", answer.body.len()));
    }
    head.push_str("\r\n");
    head.into_bytes()
}

async fn send_whole(socket: &mut BufReader<TcpStream>, answer: &Answer) -> io::Result<()> {
    let mut bytes = head(answer);
    bytes.extend_from_slice(&answer.body);
    socket.write_all(&bytes).await?;
    socket.flush().await
}

async fn send_half(socket: &mut BufReader<TcpStream>, answer: &Answer) -> io::Result<()> {
    let mut bytes = head(answer);
    bytes.extend_from_slice(&answer.body[..answer.body.len() / 2]);
    socket.write_all(&bytes).await?;
    socket.flush().await
}

/// Holds the connection open until the client gives up.
async fn hold_until_closed(socket: &mut BufReader<TcpStream>) -> io::Result<bool> {
    loop {
        let bytes = socket.fill_buf().await?.len();
        if bytes == 0 {
            return Ok(false);
        }
        socket.consume(bytes);
    }
}
