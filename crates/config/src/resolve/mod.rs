//! From what the user wrote to what the program needs: flags and environment laid over the file, defaults filled in,
//! values checked. One module per part of the file; each reports what it finds and goes on with a default.

mod auth;
mod exporters;
mod ignored;
mod listen;
mod meaningless;
mod pipeline;
mod providers;
mod reach;
mod redaction;
mod serving;
mod settings;
mod telemetry;
mod upstream;

pub(crate) use self::settings::without_variable;
pub(crate) use self::telemetry::{decode, pairs};
use std::path::Path;
use std::time::Duration;

use magicapi_plugin::ContentLevel;

use crate::catalogue::Catalogue;
use crate::context::{Context, FileTree};
use crate::load::Sources;
use crate::raw;
use crate::types::{Config, Pipeline};

/// The pipeline of an exporter that is given none of its keys.
pub(crate) fn default_pipeline(max_age: Option<Duration>) -> Pipeline {
    let (sources, catalogue) = (Sources::default(), Catalogue::default());
    let mut cx = Context::new(&sources, &catalogue, FileTree::empty(Path::new("")));
    pipeline::pipeline(&mut cx, "", &raw::Pipeline::default(), ContentLevel::Full, max_age)
}

/// The whole configuration. What could not be read is a default and a problem in `cx`.
pub(crate) fn config(cx: &mut Context<'_>, file: raw::File) -> Config {
    let data_dir = serving::data_dir(cx, file.data_dir);
    let auth = auth::auth(cx, file.auth);
    let config = Config {
        server: serving::server(cx, file.server),
        admin: serving::admin(cx, file.admin),
        store: serving::store(cx, &file.store, &data_dir),
        data_dir,
        ledger: serving::ledger(&file.ledger, auth.mode),
        upstream: upstream::upstream(cx, file.upstream),
        timeouts: upstream::timeouts(cx, &file.timeouts),
        providers: providers::providers(cx, file.providers, &auth),
        auth,
        prices: crate::types::Prices { file: file.prices.file },
        telemetry: telemetry::telemetry(cx, file.telemetry),
        log: serving::log(cx),
    };
    ignored::variables(cx, &config);
    config
}
