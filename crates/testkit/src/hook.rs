//! A receiver of webhooks that answers as it is told at the moment, and keeps what it took.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::asked::Asked;

/// Records that were answered with a 2xx.
type Taken = Arc<Mutex<Vec<Value>>>;

/// The receiver.
pub struct Hook {
    /// Where it listens.
    pub address: SocketAddr,
    status: Arc<AtomicU16>,
    taken: Taken,
    serving: JoinHandle<()>,
}

impl Hook {
    /// Answers every batch with this status; 0 stands for a connection that ends without an answer.
    pub async fn start(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (status, taken) = (Arc::new(AtomicU16::new(status)), Taken::default());
        let (its_status, its_taken) = (status.clone(), taken.clone());
        let serving = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, its_status.clone(), its_taken.clone()));
            }
        });
        Self { address, status, taken, serving }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Answers so from now on.
    pub fn answer(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// The `attributes` of every record that it took, in order.
    pub fn taken(&self) -> Vec<Value> {
        self.taken.lock().expect("records").clone()
    }

    /// Their ids.
    pub fn ids(&self) -> Vec<String> {
        self.taken().iter().map(|one| one["id"].as_str().expect("an id").to_owned()).collect()
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// One request per connection.
async fn serve(mut socket: TcpStream, status: Arc<AtomicU16>, taken: Taken) -> Option<()> {
    let asked = Asked::read(&mut socket, &mut Vec::new()).await?;
    let status = status.load(Ordering::SeqCst);
    if status == 0 {
        return None;
    }
    if (200..300).contains(&status) {
        let mut batch = asked.json();
        let attributes = batch.as_array_mut()?.iter_mut().map(|record| record["attributes"].take());
        taken.lock().expect("records").extend(attributes);
    }
    let answer = format!("HTTP/1.1 {status} As Told\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    socket.write_all(answer.as_bytes()).await.ok()
}
