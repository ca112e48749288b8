//! `demo`: the gateway, a mock provider, a store and a little traffic, in one process, without key or network.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use magicapi_config::{Catalogue, Environment, Flags, Listen, ListenSource, Sources};
use magicapi_mock::{MockOptions, MockServer};
use magicapi_store::Store;
use serde_json::json;
use tokio::sync::watch;

use crate::commands::fail;
use crate::serve;

/// What [`traffic`] sends.
const REQUESTS: usize = 4;
/// How long `--once` waits for its last request to be shown.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs the demo until it is interrupted.
pub(crate) fn run(once: bool, sources: Sources, catalogue: Catalogue) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start threads: {error}")),
    };
    match runtime.block_on(demo(once, sources, catalogue)) {
        Ok(code) => code,
        Err(problem) => fail(&problem),
    }
}

async fn demo(once: bool, sources: Sources, catalogue: Catalogue) -> Result<ExitCode, String> {
    let mock =
        MockServer::start(MockOptions::default()).await.map_err(|error| format!("mock provider: {error}"))?;
    let own_dir = tempfile::tempdir().map_err(|error| format!("no temporary directory: {error}"))?;
    let sources = demo_sources(sources, &mock, own_dir.path());
    let mut loaded = magicapi_config::load(&sources, &catalogue).map_err(|problems| problems.to_string())?;
    // No load balancer has to notice that it ends.
    loaded.config.server.drain.delay = Duration::ZERO;
    let data_dir = loaded.config.data_dir.clone();
    let gateway = serve::start(sources, catalogue, loaded)?;
    let address = gateway.address.clone();
    say(&format!(
        "MagicAPI Gateway demo\n  gateway        {address}/v1\n  admin plane    {}\n  mock provider  {}\n  data           {}\n",
        gateway.admin_address,
        mock.base_url(),
        data_dir.display(),
    ));
    gateway.announce();
    say(&format!(
        "\nTry it:\n  curl {address}/v1/chat/completions -H 'content-type: application/json' \\\n    -d '{{\"model\":\"gpt-4o-mini\",\"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'\n  \
         magicapi-ai-gateway logs --data-dir {} tail\n\nRequests (Ctrl-C ends the demo):\n",
        data_dir.display()
    ));
    let (shown, mut seen) = watch::channel(0);
    let followed = gateway.store.as_deref().map(|store| follow(store, shown));
    let shared = gateway.shared.clone();
    let traffic = tokio::spawn(async move {
        let sent = traffic(&address).await;
        if once {
            // The last records are on their way to the store. Without one, nobody follows and there is no wait.
            let all = seen.wait_for(|shown| *shown >= REQUESTS);
            let _gone = tokio::time::timeout(PATIENCE, all).await;
            shared.enter(magicapi_server::Phase::Cutting);
        }
        sent
    });
    let code = gateway.run().await;
    if let Some(followed) = followed {
        followed.abort();
    }
    let sent = traffic.await.unwrap_or_else(|error| Err(error.to_string()));
    mock.stop().await;
    sent.map_err(|problem| format!("demo traffic: {problem}"))?;
    Ok(code)
}

/// The sources as they are, but for the provider, and free ports where the usual ones are taken.
fn demo_sources(given: Sources, mock: &MockServer, own_dir: &std::path::Path) -> Sources {
    let mut env = given.env.with("OPENAI_API_KEY", "demo").with("OPENAI_BASE_URL", mock.base_url());
    if env.get("DATA_DIR").is_none() {
        env = env.with("DATA_DIR", own_dir.display().to_string());
    }
    if env.get("RUST_LOG").is_none() {
        // The demo prints its requests itself.
        env = env.with("RUST_LOG", "warn");
    }
    let flags = Flags {
        data_dir: given.flags.data_dir,
        listen: free(&env, &["HOST", "PORT"], 3000),
        admin_listen: free(&env, &["ADMIN_LISTEN"], 3001),
    };
    Sources { file: given.file, flags, env }
}

/// A free port when the usual one is taken; `None` leaves the choice to the configuration, as where a variable made it.
fn free(env: &Environment, variables: &[&str], usual: u16) -> Option<Listen> {
    let named = variables.iter().any(|name| env.get(name).is_some());
    let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let taken = TcpListener::bind(address(usual)).is_err();
    (!named && taken).then(|| Listen { addresses: vec![address(0)], source: ListenSource::Named })
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Prints each request once it stands in the store.
fn follow(store: &Store, shown: watch::Sender<usize>) -> tokio::task::JoinHandle<()> {
    let mut rows = store.follow();
    tokio::spawn(async move {
        while let Ok(row) = rows.recv().await {
            say(&format!("  {}\n", crate::logs::line(&row)));
            shown.send_modify(|shown| *shown += 1);
        }
    })
}

/// A buffered chat, a stream, an embedding, and one request that fails.
async fn traffic(address: &str) -> Result<(), String> {
    let chat = |stream: bool| {
        let messages = json!([{ "role": "user", "content": "Hello" }]);
        json!({ "model": "gpt-4o-mini", "messages": messages, "stream": stream })
    };
    post(address, "/v1/chat/completions", &chat(false), None).await?;
    post(address, "/v1/chat/completions", &chat(true), None).await?;
    post(address, "/v1/embeddings", &json!({ "model": "text-embedding-3-small", "input": "Hello" }), None)
        .await?;
    let fails = json!({ "error": { "status": 429, "body": { "error": {
        "message": "Rate limit reached (a demonstration)", "type": "requests", "param": null, "code": "rate_limit_exceeded" } } } });
    post(address, "/v1/chat/completions", &chat(false), Some(fails.to_string())).await
}

async fn post(
    address: &str,
    path: &str,
    body: &serde_json::Value,
    script: Option<String>,
) -> Result<(), String> {
    let authority = address.trim_start_matches("http://").to_owned();
    let stream = tokio::net::TcpStream::connect(&authority).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    let mut request =
        Request::post(path).header("host", authority).header("content-type", "application/json");
    if let Some(script) = script {
        request = request.header("x-mock", script);
    }
    let request =
        request.body(Full::new(Bytes::from(body.to_string()))).map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    response.into_body().collect().await.map_err(|error| error.to_string())?;
    Ok(())
}
