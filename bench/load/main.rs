//! Callers for the benchmark: HTTP/1.1 connections that are kept, requests at a steady rate, or one after the other without
//! a rate and as streams; every answer compared with what the mock itself says.
//!
//! `load --to HOST:PORT --truth HOST:PORT --connections N --seconds S --body BYTES [--noise] [--rate PER_SECOND | --stream]`
//! prints `completed events wrong seconds`. Bodies are one sentence over and over, with `--noise` random letters, each
//! request others, which do not compress.

mod body;
mod http;

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use body::Requests;
use http::{Connection, Failure};

/// What one run does.
struct Plan {
    to: SocketAddr,
    connections: u32,
    until: Instant,
    /// Between two requests of one connection; none where each follows the answer to the one before.
    pause: Option<Duration>,
    requests: Requests,
    truth: Vec<u8>,
}

/// What it saw.
#[derive(Default)]
struct Seen {
    completed: u64,
    events: u64,
    wrong: u64,
}

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, run())
}

async fn run() -> Result<(), Failure> {
    let stream = std::env::args().any(|argument| argument == "--stream");
    let (to, truth): (SocketAddr, SocketAddr) = (argument("--to")?.parse()?, argument("--truth")?.parse()?);
    let connections: u32 = argument("--connections")?.parse()?;
    let seconds: f64 = argument("--seconds")?.parse()?;
    let noise = std::env::args().any(|argument| argument == "--noise");
    let requests = Requests::new(argument("--body")?.parse()?, stream, noise);
    let rate: Option<f64> = argument("--rate").ok().map(|rate| rate.parse()).transpose()?;
    let pause = rate.map(|rate| Duration::from_secs_f64(f64::from(connections) / rate));
    let truth = unnumbered(&Connection::open(truth).await?.ask(&requests.get(0)).await?);
    let begun = Instant::now();
    let until = begun + Duration::from_secs_f64(seconds);
    let plan = Rc::new(Plan { to, connections, until, pause, requests, truth });
    let callers: Vec<_> =
        (0..connections).map(|number| tokio::task::spawn_local(caller(plan.clone(), number))).collect();
    let mut all = Seen::default();
    for caller in callers {
        let seen = caller.await??;
        all.completed += seen.completed;
        all.events += seen.events;
        all.wrong += seen.wrong;
    }
    println!("{} {} {} {:.2}", all.completed, all.events, all.wrong, begun.elapsed().as_secs_f64());
    Ok(())
}

/// One connection: asks until the time is over, and lets the last answer end.
async fn caller(plan: Rc<Plan>, number: u32) -> Result<Seen, Failure> {
    let mut connection = Connection::open(plan.to).await?;
    let mut seen = Seen::default();
    let mut events = 0;
    for at in 0..plan.truth.len() {
        events += u64::from(plan.truth[at..].starts_with(b"data:"));
    }
    // Spread over the pause, so that requests do not come in volleys.
    let offset = plan.pause.map(|pause| pause * number / plan.connections);
    let mut next = Instant::now() + offset.unwrap_or_default();
    while Instant::now() < plan.until {
        if let Some(pause) = plan.pause {
            tokio::time::sleep_until(next.into()).await;
            next += pause;
        }
        let place = u64::from(number) + seen.completed * u64::from(plan.connections);
        let answer = connection.ask(&plan.requests.get(place)).await?;
        seen.completed += 1;
        seen.events += events;
        seen.wrong += u64::from(unnumbered(&answer) != plan.truth);
    }
    Ok(seen)
}

/// The mock numbers its streams; apart from that all are the same.
fn unnumbered(answer: &[u8]) -> Vec<u8> {
    const MARK: &[u8] = b"chatcmpl-mock-";
    let mut plain = Vec::with_capacity(answer.len());
    let mut rest = answer;
    while let Some((first, tail)) = rest.split_first() {
        plain.push(*first);
        rest = tail;
        if *first == b'-' && plain.ends_with(MARK) {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            rest = &rest[digits..];
        }
    }
    plain
}

fn argument(name: &str) -> Result<String, Failure> {
    let value = std::env::args().skip_while(|argument| argument != name).nth(1);
    value.ok_or_else(|| format!("{name} is missing").into())
}
