//! Who does what a command asks for: the gateway that runs on the data directory, or this process, which then has the
//! directory alone.

use std::path::Path;

use magicapi_store::{DataDirLock, LockError};

use crate::admin_client::{AdminClient, ClientError};

/// See the module.
pub(super) enum Way {
    /// A gateway that runs.
    Gateway(AdminClient),
    /// Nobody else has the directory, and nobody gets it meanwhile. `None`: there is no directory.
    Alone(Option<DataDirLock>),
}

impl Way {
    /// Asks whether a gateway runs, else takes the directory.
    pub(super) async fn find(data_dir: &Path) -> Result<Self, String> {
        let unreachable = match gateway(data_dir).await? {
            Ok(client) => return Ok(Self::Gateway(client)),
            Err(unreachable) => unreachable,
        };
        if !data_dir.is_dir() {
            // Nothing is there, and a question is no reason to make it.
            return Ok(Self::Alone(None));
        }
        match DataDirLock::acquire(data_dir) {
            Ok(lock) => Ok(Self::Alone(Some(lock))),
            Err(LockError::Held { dir, pid }) => {
                let who = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
                let why =
                    unreachable.unwrap_or_else(|| "it has not noted an admin API in gateway.json".to_owned());
                Err(format!(
                    "{} is in use by {who}, which cannot be asked: {why}; stop it, or ask again",
                    dir.display()
                ))
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The gateway that runs on this directory; else why it cannot be reached, when there should be one.
pub(super) async fn gateway(data_dir: &Path) -> Result<Result<AdminClient, Option<String>>, String> {
    let Some(client) = AdminClient::find(data_dir).map_err(|error| error.to_string())? else {
        return Ok(Err(None));
    };
    match client.get("/api/v1/exporters").await {
        Ok(_) => Ok(Ok(client)),
        // Who crashed left a note, but no gateway.
        Err(ClientError::Unreachable(why)) => Ok(Err(Some(why))),
        Err(error) => Err(error.to_string()),
    }
}

/// Reads an answer of the gateway.
pub(super) fn read<'a, T: serde::Deserialize<'a>>(answer: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(answer).map_err(|error| {
        format!(
            "the gateway's answer cannot be read ({error}); does it run another version than this command?"
        )
    })
}
