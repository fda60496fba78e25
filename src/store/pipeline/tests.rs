//! The pipeline over a connection in memory, whose other end the tests play.

use std::io;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf, duplex};

use super::in_flight::MAX_UNSENT;
use super::*;

const DEADLINE: Duration = Duration::from_millis(50);

/// A connection and the server's end of it.
fn connect() -> (Pipeline, DuplexStream) {
    let (client, server) = duplex(MAX_UNSENT);
    (Pipeline::start(client), server)
}

async fn send(pipeline: &Pipeline, number: usize, deadline: Duration) -> Answer {
    let sent = pipeline.send(&echo(number), false, Some(Instant::now() + deadline)).await;
    sent.expect("there is room")
}

fn echo(number: usize) -> redis::Cmd {
    redis::cmd("ECHO").arg(number).take()
}

/// What the server reads next; all of these must be there.
async fn expect(server: &mut DuplexStream, numbers: impl IntoIterator<Item = usize>) {
    let expected: Vec<u8> = numbers.into_iter().flat_map(|number| echo(number).get_packed_command()).collect();
    let mut read = vec![0; expected.len()];
    server.read_exact(&mut read).await.unwrap();
    assert_eq!(read.escape_ascii().to_string(), expected.escape_ascii().to_string());
}

async fn reply(server: &mut DuplexStream, number: usize) {
    let text = number.to_string();
    server.write_all(format!("${}\r\n{text}\r\n", text.len()).as_bytes()).await.unwrap();
}

/// An answer that comes after its deadline.
async fn in_the_end(late: Answer) -> RedisResult<Value> {
    tokio::time::timeout(DEADLINE, late).await.expect("it comes")
}

fn text(number: usize) -> Value {
    Value::BulkString(number.to_string().into())
}

#[tokio::test(start_paused = true)]
async fn answers_come_in_order_whatever_pieces_they_come_in() {
    let replies = "$1\r\n0\r\n$-1\r\n:2\r\n*2\r\n$1\r\na\r\n:3\r\n-ERR no\r\n$1\r\n5\r\n";
    for step in 1..=replies.len() {
        let (pipeline, mut server) = connect();
        let answers = join_all((0..6).map(async |number| send(&pipeline, number, DEADLINE).await.in_time().await));
        let serve = async {
            expect(&mut server, 0..6).await;
            for piece in replies.as_bytes().chunks(step) {
                server.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let (answers, ()) = tokio::join!(answers, serve);
        let mut answers = answers.into_iter().map(Option::unwrap);
        let mut next = || answers.next().unwrap();
        assert_eq!([next().unwrap(), next().unwrap(), next().unwrap()], [text(0), Value::Nil, Value::Int(2)]);
        assert_eq!(next().unwrap(), Value::Array(vec![Value::BulkString(b"a".into()), Value::Int(3)]));
        assert_eq!(next().unwrap_err().code(), Some("ERR"), "in pieces of {step}");
        assert_eq!(next().unwrap(), text(5));
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_is_that_of_its_request_and_of_no_other() {
    let (pipeline, mut server) = connect();
    let mut late = send(&pipeline, 0, DEADLINE).await;
    let started = Instant::now();
    assert_eq!(late.in_time().await, None);
    assert!(started.elapsed() < 2 * DEADLINE, "{:?}", started.elapsed());
    let ignored = send(&pipeline, 1, DEADLINE).await;
    drop(ignored);
    let mut next = send(&pipeline, 2, DEADLINE).await;
    let serve = async {
        expect(&mut server, 0..3).await;
        for number in 0..3 {
            reply(&mut server, number).await;
        }
    };
    let (answer, ()) = tokio::join!(next.in_time(), serve);
    assert_eq!(answer, Some(Ok(text(2))));
    assert_eq!(in_the_end(late).await, Ok(text(0)));
    // Their slots serve others.
    let mut again = send(&pipeline, 3, DEADLINE).await;
    let (answer, ()) = tokio::join!(again.in_time(), reply(&mut server, 3));
    assert_eq!(answer, Some(Ok(text(3))));
}

#[tokio::test(start_paused = true)]
async fn each_request_has_its_own_deadline() {
    let (pipeline, _server) = connect();
    let started = Instant::now();
    let passed = join_all([4, 1, 3, 2].map(async |factor| {
        let mut answer = send(&pipeline, 0, factor * DEADLINE).await;
        assert_eq!(answer.in_time().await, None);
        started.elapsed().div_duration_f64(DEADLINE).round()
    }));
    assert_eq!(passed.await, [4.0, 1.0, 3.0, 2.0]);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_fails_all_requests_at_once() {
    let (pipeline, mut server) = connect();
    let mut late = send(&pipeline, 0, DEADLINE).await;
    assert_eq!(late.in_time().await, None);
    let broken = Instant::now();
    let waiting = join_all((1..4).map(async |number| send(&pipeline, number, DEADLINE).await.in_time().await));
    let breaks = async {
        expect(&mut server, 0..4).await;
        // Half an answer is none.
        server.write_all(b"$1\r\n").await.unwrap();
        drop(server);
    };
    let (failed, ()) = tokio::join!(waiting, breaks);
    let next = send(&pipeline, 5, DEADLINE).await.in_time().await;
    for answer in failed.into_iter().chain([Some(in_the_end(late).await), next]) {
        assert!(answer.is_some_and(|answer| answer.is_err_and(|error| error.is_connection_dropped())));
    }
    assert_eq!(broken.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_reply_breaks_the_connection() {
    let (pipeline, mut server) = connect();
    let mut answers = [send(&pipeline, 0, DEADLINE).await, send(&pipeline, 1, DEADLINE).await];
    server.write_all(b"HTTP/1.1 400 Bad Request\r\n").await.unwrap();
    for answer in &mut answers {
        let error = answer.in_time().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), redis::ErrorKind::Parse);
    }
}

#[tokio::test(start_paused = true)]
async fn the_requests_of_one_turn_leave_in_one_write() {
    let (client, mut server) = duplex(MAX_UNSENT);
    let writes = Arc::<Mutex<Vec<usize>>>::default();
    let pipeline = Pipeline::start(CountedWrites { stream: client, writes: writes.clone() });
    for round in 0..3 {
        let tasks = (0..10).map(|number| {
            let pipeline = pipeline.clone();
            tokio::spawn(async move { send(&pipeline, number, DEADLINE).await.in_time().await })
        });
        let tasks: Vec<_> = tasks.collect();
        expect(&mut server, 0..10).await;
        let length = (0..10).map(|number| echo(number).get_packed_command().len()).sum::<usize>();
        assert_eq!(*writes.lock().unwrap(), vec![length; round + 1]);
        for (number, task) in tasks.into_iter().enumerate() {
            reply(&mut server, number).await;
            assert_eq!(task.await.unwrap(), Some(Ok(text(number))));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn asking_leaves_with_its_request_and_has_an_answer_of_its_own() {
    let (pipeline, mut server) = connect();
    let ends = Some(Instant::now() + DEADLINE);
    let mut answer = pipeline.send(&echo(7), true, ends).await.unwrap();
    server.write_all(b"+OK\r\n$1\r\n7\r\n").await.unwrap();
    assert_eq!(answer.in_time().await, Some(Ok(text(7))));
    let mut asking = [0; 16];
    server.read_exact(&mut asking).await.unwrap();
    assert_eq!(&asking, b"*1\r\n$6\r\nASKING\r\n");
    expect(&mut server, [7]).await;
}

#[tokio::test(start_paused = true)]
async fn requests_beyond_the_bound_wait_for_room_until_their_deadline() {
    let (client, mut server) = duplex(1);
    let pipeline = Pipeline::start(client);
    let large = redis::cmd("ECHO").arg(vec![b'x'; MAX_UNSENT]).take();
    let long = Some(Instant::now() + 10 * DEADLINE);
    // One on its way to the server, which reads nothing, and one behind it.
    let mut sent = Vec::new();
    for _ in 0..2 {
        sent.push(pipeline.send(&large, false, long).await.unwrap());
        tokio::task::yield_now().await;
    }
    let short = Instant::now() + DEADLINE;
    assert!(pipeline.send(&echo(0), false, Some(short)).await.is_none());
    assert!(Instant::now() >= short);
    let small = echo(1);
    let mut waits = Box::pin(pipeline.send(&small, false, long));
    assert!(waits.as_mut().now_or_never().is_none());
    let reads = tokio::spawn(async move { tokio::io::copy(&mut server, &mut tokio::io::sink()).await });
    assert!(waits.await.is_some());
    reads.abort();
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_closed_with_its_last_user() {
    let (pipeline, mut server) = connect();
    let late = send(&pipeline, 0, DEADLINE).await;
    drop(pipeline);
    expect(&mut server, [0]).await;
    reply(&mut server, 0).await;
    assert_eq!(in_the_end(late).await, Ok(text(0)));
    let end = tokio::time::timeout(DEADLINE, server.read(&mut [0])).await;
    assert_eq!(end.expect("it is closed").unwrap(), 0);
}

/// A connection whose writes are recorded.
struct CountedWrites {
    stream: DuplexStream,
    writes: Arc<Mutex<Vec<usize>>>,
}

impl AsyncRead for CountedWrites {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for CountedWrites {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.writes.lock().unwrap().push(bytes.len());
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
