//! An OpenTelemetry collector that keeps what it gets.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use prost::Message;

use super::support::fake_vllm::{ANY_PORT, listen};

/// A span, as far as tests look.
#[derive(Debug, Clone)]
pub struct Seen {
    pub name: String,
    pub trace: Vec<u8>,
    pub id: Vec<u8>,
    pub parent: Vec<u8>,
    pub nanoseconds: std::ops::Range<u64>,
    pub attributes: HashMap<String, Value>,
    /// The service's.
    pub resource: HashMap<String, Value>,
    pub failed: bool,
}

impl Seen {
    pub fn text(&self, name: &str) -> &str {
        match self.attributes.get(name) {
            Some(Value::StringValue(text)) => text,
            other => panic!("{name} of {} is {other:?}", self.name),
        }
    }

    pub fn number(&self, name: &str) -> i64 {
        match self.attributes.get(name) {
            Some(Value::IntValue(number)) => *number,
            other => panic!("{name} of {} is {other:?}", self.name),
        }
    }
}

/// A listening collector.
pub struct Collector {
    pub url: String,
    spans: Arc<Mutex<Vec<Seen>>>,
}

impl Collector {
    pub async fn start() -> Self {
        let listener = listen(ANY_PORT);
        let url = format!("http://{}", listener.local_addr().unwrap());
        let spans: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let kept = Arc::clone(&spans);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let kept = Arc::clone(&kept);
                tokio::spawn(async move {
                    let service = service_fn(move |request| take(request, Arc::clone(&kept)));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { url, spans }
    }

    /// What came so far.
    pub fn spans(&self) -> Vec<Seen> {
        self.spans.lock().unwrap().clone()
    }
}

async fn take(request: Request<Incoming>, kept: Arc<Mutex<Vec<Seen>>>) -> Result<Response<Full<Bytes>>, Infallible> {
    assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/v1/traces"));
    assert_eq!(request.headers()["content-type"], "application/x-protobuf");
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let batch = ExportTraceServiceRequest::decode(body).unwrap();
    for of_resource in batch.resource_spans {
        let resource = map(of_resource.resource.map(|resource| resource.attributes).unwrap_or_default());
        for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            kept.lock().unwrap().push(Seen {
                name: span.name,
                trace: span.trace_id,
                id: span.span_id,
                parent: span.parent_span_id,
                nanoseconds: span.start_time_unix_nano..span.end_time_unix_nano,
                attributes: map(span.attributes),
                resource: resource.clone(),
                failed: span.status.is_some_and(|status| status.code == 2),
            });
        }
    }
    Ok(Response::new(Full::default()))
}

fn map(attributes: Vec<KeyValue>) -> HashMap<String, Value> {
    let known = |KeyValue { key, value, .. }| Some((key, value.and_then(|AnyValue { value }| value)?));
    attributes.into_iter().filter_map(known).collect()
}
