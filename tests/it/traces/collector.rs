//! A collector of traces that decodes with the published protobufs.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::{HeaderMap, Request as HttpRequest, Response as HttpResponse};
use http_body_util::{BodyExt, Empty};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::support::eventually;

/// What a collector has received.
#[derive(Clone, Default)]
pub struct Received {
    pub messages: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    pub headers: Arc<Mutex<HeaderMap>>,
}

#[tonic::async_trait]
impl TraceService for Received {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        *self.headers.lock().unwrap() = request.metadata().clone().into_headers();
        self.messages.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Received {
    /// Over gRPC.
    pub async fn grpc() -> (Self, SocketAddr) {
        let (received, listener) = (Self::default(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = listener.local_addr().unwrap();
        let service = TraceServiceServer::new(received.clone());
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener)));
        (received, address)
    }

    /// Protobuf over HTTP.
    pub async fn http() -> (Self, SocketAddr) {
        let (received, listener) = (Self::default(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = listener.local_addr().unwrap();
        let kept = received.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let kept = kept.clone();
                let service = service_fn(move |request: HttpRequest<hyper::body::Incoming>| {
                    let kept = kept.clone();
                    async move {
                        let (head, body) = request.into_parts();
                        assert_eq!((head.uri.path(), head.method.as_str()), ("/v1/traces", "POST"));
                        let body = body.collect().await.unwrap().to_bytes();
                        *kept.headers.lock().unwrap() = head.headers;
                        kept.messages.lock().unwrap().push(ExportTraceServiceRequest::decode(body).unwrap());
                        Ok::<_, Infallible>(HttpResponse::new(Empty::<bytes::Bytes>::new()))
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service),
                );
            }
        });
        (received, address)
    }

    pub fn spans(&self) -> Vec<Span> {
        let messages = self.messages.lock().unwrap();
        let scopes = messages.iter().flat_map(|message| &message.resource_spans).flat_map(|one| &one.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    /// The spans of the request with this path: its own first, then its children in the order of their names.
    pub async fn trace_of(&self, path: &str) -> Vec<Span> {
        eventually(&format!("the trace of {path}"), async || {
            let spans = self.spans();
            let own = spans.iter().find(|span| text(&span.attributes, "url.path") == Some(path))?.clone();
            let mut children: Vec<_> = spans.into_iter().filter(|span| span.parent_span_id == own.span_id).collect();
            children.sort_by(|a, b| (&a.name, a.start_time_unix_nano).cmp(&(&b.name, b.start_time_unix_nano)));
            Some([vec![own], children].concat())
        })
        .await
    }

    /// A text of what the spans come from.
    pub fn resource(&self, key: &str) -> Option<String> {
        let messages = self.messages.lock().unwrap();
        let resource = messages.first()?.resource_spans.first()?.resource.clone()?;
        text(&resource.attributes, key).map(str::to_owned)
    }
}

pub fn text<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    match value(attributes, key)? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

pub fn number(attributes: &[KeyValue], key: &str) -> Option<i64> {
    match value(attributes, key)? {
        Value::IntValue(number) => Some(*number),
        _ => None,
    }
}

fn value<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()?.value.as_ref()
}

/// An id as `traceparent` has it.
pub fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
