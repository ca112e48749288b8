//! The least that a relay in hyper can do: takes a request, sends it on over kept connections, hands the answer back.
//! It reads, edits, checks and records nothing. `relay LISTEN UPSTREAM`, both as `host:port`.

use std::net::SocketAddr;

use hyper::body::Incoming;
use hyper::header::HOST;
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let (Some(listen), Some(upstream)) = (arguments.next(), arguments.next()) else {
        return Err("usage: relay LISTEN UPSTREAM".into());
    };
    let (listen, upstream) = (listen.parse()?, upstream.parse()?);
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(listen, upstream))
}

async fn serve(listen: SocketAddr, upstream: Authority) -> Result<(), Failure> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Incoming> = Client::builder(TokioExecutor::new()).build(connector);
    let listener = TcpListener::bind(listen).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (client, upstream) = (client.clone(), upstream.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| relay(client.clone(), upstream.clone(), request));
            // A client that leaves is no error here.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn relay(
    client: Client<HttpConnector, Incoming>,
    upstream: Authority,
    mut request: Request<Incoming>,
) -> Result<Response<Incoming>, Failure> {
    let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    *request.uri_mut() =
        Uri::builder().scheme(Scheme::HTTP).authority(upstream).path_and_query(path).build()?;
    request.headers_mut().remove(HOST);
    Ok(client.request(request).await?)
}
