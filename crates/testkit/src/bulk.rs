//! A scripted Elasticsearch: takes `_bulk` requests and keeps what was created; can be cut off, in front of a real one
//! as well.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::asked::Asked;
use crate::reserved::Reserved;

/// Documents by id.
type Documents = Arc<Mutex<BTreeMap<String, Value>>>;

/// A cluster that takes everything.
pub struct Bulk {
    /// Where it listens.
    pub address: SocketAddr,
    documents: Documents,
    serving: JoinHandle<()>,
}

impl Bulk {
    /// Listens on this address; port 0 is any free one.
    pub async fn start(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("a free address");
        let address = listener.local_addr().expect("an address");
        let documents = Documents::default();
        let kept = documents.clone();
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(serve(socket, kept.clone()));
            }
        });
        Self { address, documents, serving }
    }

    /// The documents that it has.
    pub fn documents(&self) -> BTreeMap<String, Value> {
        self.documents.lock().expect("documents").clone()
    }
}

impl Drop for Bulk {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(mut socket: TcpStream, documents: Documents) -> Option<()> {
    let mut received = Vec::new();
    loop {
        let asked = Asked::read(&mut socket, &mut received).await?;
        let answer = answer(&asked, &documents);
        socket.write_all(answer.as_bytes()).await.ok()?;
    }
}

fn answer(asked: &Asked, documents: &Documents) -> String {
    let (status, answer) = match asked.path.as_str() {
        path if path.contains("/_bulk") => ("200 OK", create(&asked.body, documents)),
        path if path.contains("/_cluster/health") => ("200 OK", r#"{"status":"green"}"#.to_owned()),
        _ if asked.method == "PUT" => ("200 OK", r#"{"acknowledged":true}"#.to_owned()),
        _ => ("404 Not Found", "{}".to_owned()),
    };
    let length = answer.len();
    format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{answer}")
}

/// Pairs of lines: `create` with an id, and the document. One that is there already is a conflict.
fn create(body: &[u8], documents: &Documents) -> String {
    let mut documents = documents.lock().expect("documents");
    let lines: Vec<&str> = std::str::from_utf8(body).expect("text").lines().collect();
    let mut items = Vec::new();
    for pair in lines.chunks(2) {
        let action: Value = serde_json::from_str(pair[0]).expect("an action");
        let id = action["create"]["_id"].as_str().expect("an id").to_owned();
        let status = if documents.contains_key(&id) { 409 } else { 201 };
        documents.entry(id).or_insert_with(|| serde_json::from_str(pair[1]).expect("a document"));
        items.push(format!("{{\"create\":{{\"status\":{status}}}}}"));
    }
    format!("{{\"errors\":false,\"items\":[{}]}}", items.join(","))
}

/// A way to a server that can be cut: connections break at once, new ones are refused.
pub struct Way {
    /// Where it begins.
    pub address: SocketAddr,
    open: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl Way {
    /// Opens a way to that address.
    pub fn to(target: SocketAddr) -> Self {
        let place = Reserved::new();
        let (address, mut listener) = (place.address, place.listen());
        let (open, mut state) = watch::channel(true);
        let serving = tokio::spawn(async move {
            loop {
                // Dropped when it is cut, and every connection with it.
                let mut connections = JoinSet::new();
                tokio::select! {
                    () = forward(&listener, target, &mut connections) => {}
                    _ = state.wait_for(|open| !open) => {}
                }
                drop((listener, connections));
                if state.wait_for(|open| *open).await.is_err() {
                    return;
                }
                listener = place.listen();
            }
        });
        Self { address, open, serving }
    }

    /// Cuts or opens it.
    pub fn set(&self, open: bool) {
        self.open.send_replace(open);
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn forward(listener: &TcpListener, target: SocketAddr, connections: &mut JoinSet<()>) {
    while let Ok((mut near, _)) = listener.accept().await {
        connections.spawn(async move {
            if let Ok(mut far) = TcpStream::connect(target).await {
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            }
        });
    }
}
