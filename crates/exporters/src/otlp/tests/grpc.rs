//! Frames and statuses of gRPC.

use super::*;

fn grpc_answer(code: &str, details: Option<&str>, in_trailers: bool, body: &[u8]) -> Response<Bytes> {
    let mut status = HeaderMap::new();
    status.insert("grpc-status", code.parse().expect("a code"));
    if let Some(details) = details {
        status.insert("grpc-status-details-bin", details.parse().expect("details"));
    }
    let mut answer = Response::new(crate::otlp::grpc::frame(body, false));
    if in_trailers {
        answer.extensions_mut().insert(Trailers(status));
    } else {
        *answer.headers_mut() = status;
    }
    answer
}

/// `google.rpc.Status` with a `RetryInfo` of 3.5 seconds, in base64, made by hand.
fn retry_info() -> String {
    use base64::Engine;
    let delay = [0x08, 3, 0x10, 0x80, 0xca, 0xb5, 0xee, 0x01];
    let info: Vec<u8> = [&[0x0a, 8][..], &delay].concat();
    let kind = b"type.googleapis.com/google.rpc.RetryInfo";
    let any = [
        &[0x0a, u8::try_from(kind.len()).unwrap()][..],
        kind,
        &[0x12, u8::try_from(info.len()).unwrap()],
        &info,
    ]
    .concat();
    let status = [&[0x08, 8, 0x1a, u8::try_from(any.len()).unwrap()][..], &any].concat();
    base64::engine::general_purpose::STANDARD_NO_PAD.encode(status)
}

#[tokio::test]
async fn grpc_frames_and_statuses() {
    let settings = json!({ "signals": ["traces"], "protocol": "grpc", "endpoint": "http://collector:4317" });
    let after = Some(Duration::from_millis(3500));
    let rejected = |code: u8| {
        Delivery::Items(vec![ItemOutcome::Rejected { reason: format!("traces: gRPC status {code}") }])
    };
    for (code, details, expected) in [
        ("0", None, Some(Delivery::Delivered)),
        ("1", None, Some(Delivery::Unknown)),
        ("3", None, Some(rejected(3))),
        ("4", None, Some(Delivery::Unknown)),
        ("11", None, Some(Delivery::Retry { after: None })),
        ("8", None, Some(Delivery::Retry { after: None })),
        ("8", Some(retry_info()), Some(Delivery::Retry { after })),
        ("13", None, Some(rejected(13))),
        ("14", Some(retry_info()), Some(Delivery::Retry { after })),
        ("14", Some("!".into()), Some(Delivery::Retry { after: None })),
        ("7", None, None),
        ("12", None, None),
        ("16", None, None),
        ("x", None, Some(Delivery::Unknown)),
    ] {
        for in_trailers in [true, false] {
            let script = Arc::new(Script::default());
            script.then(Ok(grpc_answer(code, details.as_deref(), in_trailers, b"")));
            let answer = exporter(&script, settings.clone()).export(&[record(|_| {})]).await;
            match &expected {
                Some(expected) => assert_eq!(answer, *expected, "{code}"),
                None => assert!(matches!(answer, Delivery::Refused { .. }), "{code}: {answer:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_rate_limit_of_grpc_is_no_size_limit() {
    let settings = json!({ "signals": ["traces"], "protocol": "grpc", "endpoint": "http://collector:4317" });
    let again = Delivery::Retry { after: None };
    for (code, message, expected) in [
        ("8", "grpc: received message larger than max (5000000 vs. 4194304)", Delivery::TooLarge),
        ("8", "gRPC%20message%20exceeds%20maximum%20size%204194304: 5000000", Delivery::TooLarge),
        ("8", "request entity too large", Delivery::TooLarge),
        ("8", "quota of project exhausted", again.clone()),
        ("8", "tenant exceeds ingestion rate", again.clone()),
        ("8", "tenant exceeds ingestion rate of 1000 bytes per second", again.clone()),
        ("8", "message larger than what is left of the quota", again.clone()),
        ("8", "tenant exceeds its limit", again.clone()),
        ("8", "tenant exceeds 1048576 bytes per second", again.clone()),
        (
            "11",
            "Error, decoded message length too large: found 5000000 bytes, the limit is: 4194304 bytes",
            Delivery::TooLarge,
        ),
        ("11", "out of range", again),
    ] {
        let script = Arc::new(Script::default());
        let mut answer = grpc_answer(code, None, false, b"");
        answer.headers_mut().insert("grpc-message", message.parse().unwrap());
        script.then(Ok(answer));
        assert_eq!(
            exporter(&script, settings.clone()).export(&[record(|_| {})]).await,
            expected,
            "{message}"
        );
    }
}

#[tokio::test]
async fn a_request_of_grpc_is_a_frame_over_http2() {
    let script = Arc::new(Script::default());
    script.then(Ok(grpc_answer("0", None, true, &partial(1, "too old"))));
    let packed = json!({ "signals": ["traces"], "protocol": "grpc", "compression": "gzip", "request_timeout_ms": 1500 });
    let Delivery::Items(_) = exporter(&script, packed).export(&[record(|_| {})]).await else {
        panic!("rejected")
    };
    let [request] = script.seen().try_into().expect("one request");
    assert_eq!(request.version(), Version::HTTP_2);
    assert_eq!(
        request.uri().to_string(),
        "http://localhost:4317/opentelemetry.proto.collector.trace.v1.TraceService/Export"
    );
    let headers = request.headers();
    assert_eq!(
        (&headers["content-type"], &headers["te"]),
        (&"application/grpc".parse().unwrap(), &"trailers".parse().unwrap())
    );
    assert_eq!(
        (&headers["grpc-encoding"], &headers["grpc-timeout"]),
        (&"gzip".parse().unwrap(), &"1500m".parse().unwrap())
    );
    let (head, message) = request.body().split_at(5);
    assert_eq!(
        (head[0], u32::from_be_bytes(head[1..].try_into().unwrap())),
        (1, u32::try_from(message.len()).unwrap())
    );
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(message).read_to_end(&mut plain).expect("gzip");
    assert_eq!(ExportTraceServiceRequest::decode(&plain[..]).expect("a request").resource_spans.len(), 1);
}

/// What is not gRPC answers without a status of it.
#[tokio::test]
async fn grpc_to_something_else() {
    for (status, expected) in [
        (200, Some(Delivery::Unknown)),
        (503, Some(Delivery::Retry { after: None })),
        (413, Some(Delivery::TooLarge)),
        (401, None),
        (404, None),
    ] {
        let script = Arc::new(Script::default());
        script.answer(status, "<html>");
        let answer =
            exporter(&script, json!({ "signals": ["traces"], "protocol": "grpc" })).export(&batch(1)).await;
        match expected {
            Some(expected) => assert_eq!(answer, expected, "{status}"),
            None => assert!(matches!(answer, Delivery::Refused { .. }), "{status}: {answer:?}"),
        }
    }
}
