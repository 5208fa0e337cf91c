//! The connections of the origin.

use std::{
    io,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{Behaviour, Origin, Place, Request, What, World, document};

/// What one request is answered with.
struct Answer {
    status: u16,
    headers: Vec<String>,
    body: Vec<u8>,
}

/// Serves until it is dropped; then every connection ends too.
pub(super) async fn accept(listener: TcpListener, world: Arc<Mutex<World>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((socket, _)) = accepted {
                    connections.spawn(connection(socket, Arc::clone(&world)));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(socket: TcpStream, world: Arc<Mutex<World>>) {
    let mut socket = BufReader::new(socket);
    // A client that goes away in the middle of an answer is its own affair.
    while let Ok(true) = exchange(&mut socket, &world).await {}
}

/// One request and its answer; whether the connection can carry another.
async fn exchange(socket: &mut BufReader<TcpStream>, world: &Mutex<World>) -> io::Result<bool> {
    let Some(request) = read_request(socket).await? else { return Ok(false) };
    let (behaviour, answer, number) = {
        let mut world = world.lock().expect("nobody panics while holding it");
        let (behaviour, answer) = match world.places.get(&request.path) {
            Some(place) => (place.behaviour.clone(), honest(place, &request)),
            None => (Behaviour::Status(404, Vec::new()), short(404, Vec::new())),
        };
        world.requests.push(request);
        (behaviour, answer, world.requests.len() - 1)
    };
    let answered = |status| {
        world.lock().expect("nobody panics while holding it").requests[number].answered = Some(status);
    };
    match behaviour {
        Behaviour::Honest => {
            answered(answer.status);
            whole(socket, &answer).await?;
            Ok(true)
        }
        Behaviour::Late(wait) => {
            sleep(wait).await;
            answered(answer.status);
            whole(socket, &answer).await?;
            Ok(true)
        }
        Behaviour::SilentHead => gone(socket).await,
        Behaviour::SilentBody => {
            answered(200);
            half(socket, &answer).await?;
            gone(socket).await
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
            half(socket, &answer).await?;
            socket.shutdown().await?;
            Ok(false)
        }
        Behaviour::Reset => {
            socket.get_ref().set_zero_linger()?;
            Ok(false)
        }
        Behaviour::Status(status, headers) => {
            answered(status);
            whole(socket, &short(status, headers)).await?;
            Ok(true)
        }
        Behaviour::Redirect(status, to) => {
            answered(status);
            whole(socket, &short(status, vec![format!("Location: {to}")])).await?;
            Ok(true)
        }
    }
}

/// Nothing when the client has closed the connection instead.
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

/// What an honest server answers: the document, or 304 when the client has it. `If-None-Match` wins (RFC 9110, 13.2.2).
fn honest(place: &Place, request: &Request) -> Answer {
    let etag = format!("\"v{}\"", place.version);
    let modified = format!("Sat, 31 Jan 2026 {} GMT", document::clock(place.version));
    let same = match (request.header("if-none-match"), request.header("if-modified-since")) {
        (Some(theirs), _) => theirs.split(',').any(|tag| tag.trim().trim_start_matches("W/") == etag),
        (None, Some(theirs)) => theirs == modified,
        (None, None) => false,
    };
    let mut headers = vec![format!("ETag: {etag}"), format!("Last-Modified: {modified}")];
    headers.extend(place.headers.iter().cloned());
    if same {
        return Answer { status: 304, headers, body: Vec::new() };
    }
    let (media_type, body) = match &place.what {
        What::Feed { name, format, entries } => {
            let newest = &entries[entries.len().saturating_sub(Origin::WINDOW)..];
            (format.media_type(), document::write(*format, name, newest).into_bytes())
        }
        What::File { bytes, media_type } => (*media_type, bytes.to_vec()),
    };
    headers.push(format!("Content-Type: {media_type}"));
    Answer { status: 200, headers, body }
}

fn short(status: u16, mut headers: Vec<String>) -> Answer {
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

async fn whole(socket: &mut BufReader<TcpStream>, answer: &Answer) -> io::Result<()> {
    let mut bytes = head(answer);
    bytes.extend_from_slice(&answer.body);
    socket.write_all(&bytes).await?;
    socket.flush().await
}

async fn half(socket: &mut BufReader<TcpStream>, answer: &Answer) -> io::Result<()> {
    let mut bytes = head(answer);
    bytes.extend_from_slice(&answer.body[..answer.body.len() / 2]);
    socket.write_all(&bytes).await?;
    socket.flush().await
}

/// Holds the connection open until the client gives up.
async fn gone(socket: &mut BufReader<TcpStream>) -> io::Result<bool> {
    loop {
        let bytes = socket.fill_buf().await?.len();
        if bytes == 0 {
            return Ok(false);
        }
        socket.consume(bytes);
    }
}
