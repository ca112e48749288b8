use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, Version};
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::client_for_tests::{chat, connect};
use crate::{MockOptions, MockServer, MockTls};

async fn client<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> SendRequest<Bytes> {
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client.ready().await.unwrap()
}

fn request(script: &serde_json::Value) -> Request<()> {
    Request::post("http://mock/v1/chat/completions")
        .version(Version::HTTP_2)
        .header("x-mock", script.to_string())
        .body(())
        .unwrap()
}

/// Sends a chat request and reads the answer to its end.
async fn ask(client: &mut SendRequest<Bytes>, script: serde_json::Value) -> Result<String, h2::Error> {
    let (response, mut body) = client.send_request(request(&script), false)?;
    body.send_data(Bytes::from(chat(true).to_string()), true)?;
    let mut incoming = response.await?.into_body();
    let mut text = Vec::new();
    while let Some(data) = incoming.data().await {
        let data = data?;
        let _ = incoming.flow_control().release_capacity(data.len());
        text.extend_from_slice(&data);
    }
    Ok(String::from_utf8(text).unwrap())
}

async fn server(limit: Option<u32>, tls: Option<MockTls>) -> MockServer {
    let options = MockOptions { http2_max_streams: limit, tls, record: true, ..MockOptions::default() };
    MockServer::start(options).await.unwrap()
}

#[tokio::test]
async fn streams_over_prior_knowledge() {
    let server = server(Some(3), None).await;
    let mut client = client(connect(server.addr()).await).await;
    let script = json!({"chunks": 20, "chunk_bytes": 100_000});
    let (one, two) = {
        let mut other = client.clone();
        tokio::join!(ask(&mut client, script.clone()), async move { ask(&mut other, script).await })
    };
    assert!(one.unwrap().ends_with("data: [DONE]\n\n") && two.unwrap().len() > 2_000_000);
    assert_eq!(client.current_max_send_streams(), 3);
    let stats = server.stats();
    assert_eq!((stats.completed, stats.max_streams_per_connection, stats.open_connections), (2, 2, 1));
    assert_eq!(server.received()[0].http_version, "HTTP/2.0");
}

#[tokio::test]
async fn a_reset_stream_is_an_abort_in_every_phase() {
    let server = server(None, None).await;
    let client = client(connect(server.addr()).await).await;
    for script in [json!({"delay_headers_ms": 5000}), json!({"ttft_ms": 5000}), json!({"gap_ms": 5000})] {
        let mut client = client.clone().ready().await.unwrap();
        let asked = tokio::time::timeout(Duration::from_millis(50), ask(&mut client, script));
        assert!(asked.await.is_err());
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    let stats = server.stats();
    assert_eq!((stats.aborted, stats.open_streams, stats.open_connections), (3, 0, 1));
}

#[tokio::test]
async fn a_cut_takes_the_connection() {
    let server = server(None, None).await;
    let mut client = client(connect(server.addr()).await).await;
    assert!(ask(&mut client, json!({"cut_after": 2})).await.is_err());
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!((server.stats().open_connections, server.stats().aborted), (0, 0));
}

#[tokio::test]
async fn tls_with_alpn() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let cert_pem = made.cert.pem().into_bytes();
    let tls = MockTls { cert_pem: cert_pem.clone(), key_pem: made.signing_key.serialize_pem().into_bytes() };
    let server = server(None, Some(tls)).await;
    assert!(server.base_url().starts_with("https://"));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(&cert_pem).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("localhost").unwrap();
    let stream = connector.connect(name, connect(server.addr()).await).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut client = client(stream).await;
    assert!(ask(&mut client, json!({"text": "a"})).await.unwrap().contains("[DONE]"));
}
