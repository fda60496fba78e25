//! A connection of hyper's client without a task: whoever waits for what it brings drives it. An answer that comes wakes one task then,
//! and not two.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::runtime::Handle;

/// A connection, which ends when it is closed.
type Connection = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What drives one connection. Clones drive the same.
#[derive(Clone)]
pub(crate) struct Driver(Arc<Mutex<Driven>>);

struct Driven {
    /// `None`: a task drives it, or it has ended.
    connection: Option<Connection>,
    /// That of the worker which has made it.
    runtime: Handle,
    /// Somebody is woken when something comes.
    is_watched: bool,
}

impl Driver {
    /// Drives a connection. To be called by the worker that has made it.
    pub(crate) fn new(connection: impl Future<Output = ()> + Send + 'static) -> Self {
        let connection: Option<Connection> = Some(Box::pin(connection));
        Self(Arc::new(Mutex::new(Driven { connection, runtime: Handle::current(), is_watched: false })))
    }

    /// Gives the connection a task, which drives it to its end.
    pub(crate) fn detach(&self) {
        self.lock().detach();
    }

    /// Sees what has come, and wakes nobody for what comes later. Returns whether a task drives the connection, or it has ended.
    pub(crate) fn rest(&self) -> bool {
        let mut driven = self.lock();
        driven.is_watched = false;
        driven.drive(&mut Context::from_waker(Waker::noop()));
        driven.connection.is_none()
    }

    /// The same, unless nobody would be woken anyway.
    pub(crate) fn unwatch(&self) {
        let is_watched = self.lock().is_watched;
        if is_watched {
            self.rest();
        }
    }

    /// Drives the connection until it has brought what `poll` waits for.
    pub(crate) fn poll<T>(&self, cx: &mut Context<'_>, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        let mut driven = self.lock();
        if driven.connection.is_none() {
            drop(driven);
            return poll(cx);
        }
        // What the connection brings, it brings here: nobody need be woken for that.
        let mut nobody = Context::from_waker(Waker::noop());
        let mut polled = poll(&mut nobody);
        if polled.is_pending() && std::mem::take(&mut driven.is_watched) {
            // Most often all has come now, and the connection needs nobody to wake.
            driven.drive(&mut nobody);
            polled = poll(&mut nobody);
        }
        if polled.is_ready() {
            return polled;
        }
        driven.is_watched = true;
        driven.drive(cx);
        poll(&mut nobody)
    }

    fn lock(&self) -> MutexGuard<'_, Driven> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Driven {
    fn drive(&mut self, cx: &mut Context<'_>) {
        // Taken out, so that one that panics is not polled again.
        if let Some(mut connection) = self.connection.take()
            && connection.as_mut().poll(cx).is_pending()
        {
            self.connection = Some(connection);
        }
    }

    fn detach(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.runtime.spawn(connection);
        }
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        // It is closed in good order, which may take a moment.
        self.detach();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;

    use bytes::Bytes;
    use http::Request;
    use http_body::Body as _;
    use http_body_util::{BodyExt, Empty};
    use hyper::client::conn::http1;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    /// A connection to a service, and the service's end of it.
    async fn connection() -> (http1::SendRequest<Empty<Bytes>>, Driver, DuplexStream) {
        let (io, service) = tokio::io::duplex(1 << 16);
        let (sender, connection) = http1::handshake(TokioIo::new(io)).await.unwrap();
        (sender, Driver::new(async move { drop(connection.await) }), service)
    }

    async fn ask(
        sender: &mut http1::SendRequest<Empty<Bytes>>,
        driver: &Driver,
    ) -> http::Response<hyper::body::Incoming> {
        let mut answer = pin!(sender.send_request(Request::new(Empty::new())));
        poll_fn(|cx| driver.poll(cx, |cx| answer.as_mut().poll(cx))).await.unwrap()
    }

    async fn answer(service: &mut DuplexStream, bytes: &[u8]) {
        let mut request = [0; 1024];
        assert!(service.read(&mut request).await.unwrap() > 0);
        service.write_all(bytes).await.unwrap();
    }

    #[tokio::test]
    async fn whoever_waits_drives_and_is_let_go_of_afterwards() {
        let (mut sender, driver, mut service) = connection().await;
        for _ in 0..3 {
            let served = async { answer(&mut service, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await };
            let (answer, ()) = tokio::join!(ask(&mut sender, &driver), served);
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "ok");
            driver.unwatch();
            assert!(sender.is_ready() && !driver.lock().is_watched);
        }
        drop(service);
        assert!(driver.rest() && sender.is_closed(), "the service's end is noticed without a task");
    }

    #[tokio::test]
    async fn a_body_that_comes_later_comes_to_whoever_waits_for_it() {
        let (mut sender, driver, mut service) = connection().await;
        let head = answer(&mut service, b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n");
        let (answered, ()) = tokio::join!(ask(&mut sender, &driver), head);
        let mut body = answered.into_body();
        let received = async {
            let mut received = Vec::new();
            while let Some(frame) = poll_fn(|cx| driver.poll(cx, |cx| Pin::new(&mut body).poll_frame(cx))).await {
                received.extend_from_slice(&frame.unwrap().into_data().unwrap());
            }
            received
        };
        let sent = async {
            for piece in [b"ab", b"cd", b"ef"] {
                tokio::task::yield_now().await;
                service.write_all(piece).await.unwrap();
            }
        };
        let (received, ()) = tokio::join!(received, sent);
        assert_eq!(received, b"abcdef");
    }

    #[tokio::test]
    async fn a_connection_that_nobody_drives_any_more_is_closed_in_good_order() {
        let (sender, driver, mut service) = connection().await;
        drop((sender, driver));
        assert_eq!(service.read(&mut [0; 16]).await.unwrap(), 0);
    }
}
