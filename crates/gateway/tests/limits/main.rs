//! What a client may cost the gateway: heads, connections, descriptors and bodies have bounds, each with an answer that
//! says so and a way back; and the protocols of the listener, in the clear and under TLS.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]

mod bodies;
mod connections;
mod descriptors;
mod heads;
mod pace;
mod protocols;
#[path = "../scene/mod.rs"]
mod scene;
mod tls;

use magicapi_testkit::Gateway;
use magicapi_testkit::wire::{Answer, Wire, request};
use serde_json::{Value, json};

/// Asks for a page over a connection that stays open.
async fn ask(wire: &mut Wire, path: &str) -> Option<Answer> {
    wire.send(&request("GET", path, &[], b"")).await;
    wire.answer().await
}

/// A configuration with limits.
fn limits(limits: &Value) -> Value {
    json!({ "server": { "limits": limits } })
}

/// A connection that was served once, so that the gateway has surely accepted it.
async fn served(gateway: &Gateway) -> Wire {
    let mut wire = Wire::connect(gateway.socket()).await;
    let answer = ask(&mut wire, "/health").await.expect("an answer");
    assert_eq!(answer.head.status, 200);
    wire
}
