//! The `mock` command: the mock server as a process.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::rules::ScriptFile;
use crate::server::{MockOptions, MockServer};
use crate::tls::MockTls;

/// Arguments of the `mock` command.
#[derive(Debug, Clone, Args)]
pub struct MockArgs {
    /// Address to listen on; port 0 takes any free port
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8099")]
    pub listen: SocketAddr,
    /// JSON file with one script, or with `rules` and a `default`
    #[arg(long, value_name = "FILE")]
    pub script: Option<PathBuf>,
    /// Certificate chain (PEM); turns TLS on
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Most concurrent streams on one HTTP/2 connection
    #[arg(long, value_name = "N")]
    pub http2_max_streams: Option<u32>,
    /// Keep received requests for `GET /mock/received`
    #[arg(long)]
    pub record: bool,
}

/// Runs the mock until ctrl-c, or until the future is dropped.
#[expect(clippy::print_stdout, reason = "the address line is the command's output")]
pub async fn run(args: MockArgs) -> io::Result<()> {
    let script = match &args.script {
        Some(path) => {
            ScriptFile::from_json(&read(path)?).map_err(|err| named(path, &io::Error::other(err)))?
        }
        None => ScriptFile::default(),
    };
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(cert), Some(key)) => Some(MockTls { cert_pem: read(cert)?, key_pem: read(key)? }),
        _ => None,
    };
    let options = MockOptions {
        listen: args.listen,
        script,
        tls,
        http2_max_streams: args.http2_max_streams,
        record: args.record,
    };
    let mut server = MockServer::start(options).await?;
    println!("mock provider listening on {}", server.base_url());
    tokio::select! {
        result = tokio::signal::ctrl_c() => result?,
        () = server.closed() => {}
    }
    server.stop().await;
    Ok(())
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    std::fs::read(path).map_err(|err| named(path, &err))
}

fn named(path: &Path, err: &io::Error) -> io::Error {
    io::Error::new(err.kind(), format!("{}: {err}", path.display()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        mock: MockArgs,
    }

    #[test]
    fn arguments() {
        let cli =
            Cli::try_parse_from(["x", "--listen", "127.0.0.1:0", "--http2-max-streams", "5", "--record"]);
        let args = cli.unwrap_or_else(|e| panic!("{e}")).mock;
        assert_eq!((args.listen.port(), args.http2_max_streams, args.record), (0, Some(5), true));
        assert!(Cli::try_parse_from(["x", "--tls-cert", "a.pem"]).is_err());
    }

    #[tokio::test]
    async fn a_bad_script_file_is_named() {
        let args = MockArgs {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            script: Some(PathBuf::from("/nonexistent/script.json")),
            tls_cert: None,
            tls_key: None,
            http2_max_streams: None,
            record: false,
        };
        assert!(run(args).await.unwrap_err().to_string().contains("script.json"));
    }
}
