//! The plane over real loopback sockets, with a request log made by hand.

mod access;
mod follow;
mod log;
mod pages;
mod place;
mod spool;
