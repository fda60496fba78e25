//! An upstream that tells what it received, and misbehaves on request.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// One request as an upstream saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: Method,
    pub version: Version,
    pub target: String,
    pub headers: HeaderMap,
}

/// An upstream; dropped, it is gone.
pub struct Upstream {
    pub address: SocketAddr,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

struct State {
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
    open_connections: AtomicUsize,
    open_streams: AtomicUsize,
    most_at_once: AtomicUsize,
    /// Frames of `/steps` and answers to `/held` that may go out.
    steps: tokio::sync::Semaphore,
}

impl Default for State {
    fn default() -> Self {
        Self {
            seen: Mutex::default(),
            connections: AtomicUsize::default(),
            open_connections: AtomicUsize::default(),
            open_streams: AtomicUsize::default(),
            most_at_once: AtomicUsize::default(),
            steps: tokio::sync::Semaphore::new(0),
        }
    }
}

/// How an upstream speaks.
#[derive(Clone, Default)]
pub struct Manner {
    /// HTTP/2 in clear, or, over TLS, to who agrees to it; so many streams at one time.
    pub http2: Option<u32>,
    /// TLS.
    pub tls: Option<tokio_rustls::TlsAcceptor>,
}

impl Upstream {
    pub async fn start() -> Self {
        Self::with(Manner::default()).await
    }

    /// One that speaks HTTP/2 in clear, and takes so many streams at one time on a connection.
    pub async fn http2(streams: u32) -> Self {
        Self::with(Manner { http2: Some(streams), tls: None }).await
    }

    pub async fn with(manner: Manner) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), manner)
    }

    /// One that accepts on this socket.
    pub fn on(listener: TcpListener, manner: Manner) -> Self {
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let task = tokio::spawn(accept(listener, state.clone(), manner));
        Self { address, state, task }
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// Connections made so far.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Connections that are open.
    pub fn open_connections(&self) -> usize {
        self.state.open_connections.load(Ordering::SeqCst)
    }

    /// The most requests that were under way at one time on one connection.
    pub fn most_at_once(&self) -> usize {
        self.state.most_at_once.load(Ordering::SeqCst)
    }

    /// Lets the next frame of `/steps` or the next answer to `/held` go out.
    pub fn step(&self) {
        self.state.steps.add_permits(1);
    }

    /// Endless streams that somebody still reads.
    pub fn open_streams(&self) -> usize {
        self.state.open_streams.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>, manner: Manner) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((socket, _)) = listener.accept().await else { return };
        state.connections.fetch_add(1, Ordering::SeqCst);
        let (state, manner) = (state.clone(), manner.clone());
        connections.spawn(async move {
            state.open_connections.fetch_add(1, Ordering::SeqCst);
            match manner.tls {
                None => serve(socket, manner.http2, &state).await,
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(socket).await {
                        let agreed = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                        serve(stream, manner.http2.filter(|_| agreed), &state).await;
                    }
                }
            }
            state.open_connections.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

async fn serve<S>(io: S, http2: Option<u32>, state: &Arc<State>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let under_way = Arc::new(AtomicUsize::new(0));
    let service = service_fn(|request| {
        let (state, under_way) = (state.clone(), under_way.clone());
        async move {
            let now = under_way.fetch_add(1, Ordering::SeqCst) + 1;
            state.most_at_once.fetch_max(now, Ordering::SeqCst);
            let answer = answer(&state, request).await;
            under_way.fetch_sub(1, Ordering::SeqCst);
            Ok::<_, Infallible>(answer)
        }
    });
    let _ = match http2 {
        None => hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(io), service).await,
        Some(streams) => {
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .max_concurrent_streams(streams)
                .serve_connection(TokioIo::new(io), service)
                .await
        }
    };
}

/// `/echo…`: what arrived, as JSON. `/status/N`: that status. `/slow/MS`: after so many milliseconds. `/bytes/N`: so many bytes.
/// `/trailers`: a body and trailers. `/events`: an endless stream, a frame every 20 ms. `/feed`: the same as server-sent events. `/steps`: the same, a frame at each step. `/held`: an answer at the next step. `/limits`: its own idea of limits. Anything else: as `/echo`.
async fn answer(state: &Arc<State>, request: Request<Incoming>) -> Answer {
    let seen = Seen {
        method: request.method().clone(),
        version: request.version(),
        target: request.uri().to_string(),
        headers: request.headers().clone(),
    };
    state.seen.lock().unwrap().push(seen.clone());
    let path = request.uri().path().to_owned();
    let number = path.rsplit('/').next().and_then(|text| text.parse::<u64>().ok());
    match (path.split('/').nth(1), number) {
        (Some("status"), Some(status)) => {
            let mut response = Response::new(full(r#"{"message":"from the upstream","errors":{"to":["no"]}}"#.into()));
            *response.status_mut() = StatusCode::from_u16(status as u16).unwrap();
            response
        }
        (Some("slow"), Some(millis)) => {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            Response::new(full("late".into()))
        }
        (Some("bytes"), Some(count)) => bytes_answer(count),
        (Some("trailers"), _) => {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", "42".parse().unwrap());
            trailers.insert("x-request-id", "theirs".parse().unwrap());
            let frames = [Frame::data(Bytes::from("body")), Frame::trailers(trailers)].map(Ok);
            Response::new(BodyExt::boxed_unsync(StreamBody::new(futures_util::stream::iter(frames))))
        }
        (Some("events"), _) => Response::new(events(state, false)),
        (Some("feed"), _) => {
            Response::builder().header("content-type", "text/event-stream").body(events(state, false)).unwrap()
        }
        (Some("steps"), _) => Response::new(events(state, true)),
        (Some("held"), _) => {
            state.steps.acquire().await.expect("it is never closed").forget();
            Response::new(full("late".into()))
        }
        (Some("limits"), _) => Response::builder()
            .header("x-ratelimit-limit", "7")
            .header("x-ratelimit-remaining", "7")
            .header("ratelimit", "theirs")
            .header("connection", "x-internal")
            .header("x-internal", "secret")
            .body(full("{}".into()))
            .unwrap(),
        _ => echo(seen, request.into_body()).await,
    }
}

async fn echo(seen: Seen, mut body: Incoming) -> Answer {
    let mut length = 0;
    let mut trailers = serde_json::Map::new();
    while let Some(Ok(frame)) = body.frame().await {
        length += frame.data_ref().map_or(0, Bytes::len);
        for (name, value) in frame.trailers_ref().into_iter().flatten() {
            trailers.insert(name.to_string(), value.to_str().unwrap().into());
        }
    }
    let headers: Vec<_> =
        seen.headers.iter().map(|(name, value)| json!([name.as_str(), value.to_str().unwrap()])).collect();
    let reported = json!({ "method": seen.method.as_str(), "target": seen.target, "headers": headers, "body_length": length, "trailers": trailers });
    Response::builder().header("content-type", "application/json").body(full(reported.to_string().into())).unwrap()
}

fn bytes_answer(count: u64) -> Answer {
    let chunk = Bytes::from(vec![b'x'; 64 * 1024]);
    let (sender, mut receiver) = mpsc::channel::<Bytes>(4);
    tokio::spawn(async move {
        let mut left = count as usize;
        while left > 0 {
            let piece = chunk.slice(..left.min(chunk.len()));
            left -= piece.len();
            if sender.send(piece).await.is_err() {
                return;
            }
        }
    });
    let frames = futures_util::stream::poll_fn(move |cx| {
        receiver.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    });
    Response::builder().header("content-length", count).body(BodyExt::boxed_unsync(StreamBody::new(frames))).unwrap()
}

fn events(state: &Arc<State>, in_steps: bool) -> UnsyncBoxBody<Bytes, Infallible> {
    struct Open(Arc<State>);
    impl Drop for Open {
        fn drop(&mut self) {
            self.0.open_streams.fetch_sub(1, Ordering::SeqCst);
        }
    }
    state.open_streams.fetch_add(1, Ordering::SeqCst);
    let open = Open(state.clone());
    let frames = futures_util::stream::unfold((open, 0), move |(open, count)| async move {
        if in_steps {
            open.0.steps.acquire().await.expect("it is never closed").forget();
        } else if count > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let frame = Frame::data(Bytes::from(format!("id: {count}\ndata: tick\n\n")));
        Some((Ok(frame), (open, count + 1)))
    });
    BodyExt::boxed_unsync(StreamBody::new(frames))
}

fn full(text: Bytes) -> UnsyncBoxBody<Bytes, Infallible> {
    Full::new(text).boxed_unsync()
}
