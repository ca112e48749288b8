//! Tests over real sockets, one file per group of script fields.

mod accidents;
mod answers;
mod endpoints;
mod http2;
mod leaving;
mod wire;
