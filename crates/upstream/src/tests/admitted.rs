//! The data plane's face asks for admission.

use super::stub::admitted;
use super::{OK, Server, answer_all, client, post, text};
use crate::ClientOptions;

#[tokio::test]
async fn an_admitted_request_is_sent() {
    let server = Server::start(|io, _| answer_all(io, OK)).await;
    let admitted = admitted(&server.url("")).expect("a base URL");
    let response = client(ClientOptions::default()).send(&admitted, post(&server.url("/x"), "{}")).await;
    assert_eq!(text(response.expect("answer")).await.expect("body"), "ok");
}
