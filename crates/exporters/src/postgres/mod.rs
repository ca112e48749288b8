//! Puts records into a table of PostgreSQL (12 and newer).
//!
//! **When to use it**: to ask questions about requests in SQL, beside your own data. Bodies are `jsonb`.
//!
//! **Guarantee**: exactly once. A batch is one transaction, and a record's id is unique in the table, so a record that
//! is sent again, also after an answer that was lost, is there once. Records that the server will never take are
//! rejected one by one; the rest of their batch is delivered.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use magicapi_plugin::{
    ConfigError, Delivery, ExportError, Health, Host, ItemOutcome, RequestMetrics, Settings, SettingsSpec,
    TelemetryConfig, TelemetryExporter, TelemetryPlugin, async_trait,
};
use sqlx::{Connection, PgConnection};
use tokio::time::timeout;
use tracing::warn;

use self::client::Fault;
use self::config::Target;
pub use self::config::{Partitions, PostgresSettings};
use crate::health::LastHealth;

mod client;
mod config;
mod encode;
mod table;
#[cfg(test)]
mod tests;

/// How long a connection that stood idle may take to say that it is there: what lies between may have dropped it in
/// silence.
const PING: Duration = Duration::from_secs(3);

/// The plug-in `postgres`.
pub struct PostgresPlugin;

magicapi_plugin::register!(PostgresPlugin);

impl TelemetryPlugin for PostgresPlugin {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn settings(&self) -> SettingsSpec {
        SettingsSpec::of::<PostgresSettings>().without_http()
    }

    fn create_exporter(
        &self,
        settings: Settings,
        _: Host,
    ) -> Result<Box<dyn TelemetryExporter>, ConfigError> {
        let target = settings.read::<PostgresSettings>()?.validate()?;
        Ok(Box::new(PostgresExporter { target, known: Mutex::default(), health: LastHealth::default() }))
    }
}

struct PostgresExporter {
    target: Target,
    known: Mutex<Known>,
    health: LastHealth,
}

/// What is known of the server.
#[derive(Default)]
struct Known {
    /// Connections that nobody uses now: at most as many as exports were under way at once.
    idle: Vec<PgConnection>,
    /// Once the table is as it must be: whether it is split.
    is_split: Option<bool>,
    /// Days that have their part.
    days: BTreeSet<Date>,
    /// Why parts that are too old are still there.
    not_dropped: Option<String>,
}

impl PostgresExporter {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that works. Whoever takes it gives it back only when it is in no transaction.
    async fn connection(&self) -> Result<PgConnection, Fault> {
        loop {
            let idle = self.known().idle.pop();
            let Some(mut idle) = idle else { return client::connect(&self.target).await };
            match timeout(PING, idle.ping()).await {
                Ok(Ok(())) => return Ok(idle),
                Ok(Err(_)) => {}
                // The others went the same way, and to ask each would take as long.
                Err(_) => self.known().idle.clear(),
            }
        }
    }

    /// Inserts, and leaves no transaction open when a record or the table is at fault.
    async fn insert(
        &self,
        connection: &mut PgConnection,
        is_split: bool,
        batch: &[Arc<RequestMetrics>],
    ) -> Result<(), Fault> {
        if !batch.iter().all(|record| encode::fits(record)) {
            return Err(Fault::Record("larger than 256 MiB, which is the most that jsonb holds".into()));
        }
        let done = client::insert(connection, &self.target.table, is_split, batch).await;
        if let Err(Fault::Record(_) | Fault::Unprepared(_)) = done {
            client::run(connection, "ROLLBACK".into()).await?;
        }
        done
    }

    /// Sees to it that the table is there and takes records; whether it is split.
    async fn prepare(&self, connection: &mut PgConnection) -> Result<bool, Fault> {
        let Target { table, by_day, .. } = &self.target;
        if let Some(is_split) = self.known().is_split {
            return Ok(is_split);
        }
        let kind = client::ask(connection, table.kind()).await?;
        let is_split = match kind.first().map(String::as_str) {
            None => {
                client::run(connection, table.create(*by_day)).await?;
                *by_day
            }
            Some("p") => true,
            Some("r") if !by_day => false,
            Some("r") => {
                let what = "the table is not split; name another, or set partitions: none";
                return Err(Fault::Refused(what.into()));
            }
            Some(_) => return Err(Fault::Refused("what bears the table's name is no table".into())),
        };
        match self.insert(connection, is_split, &[]).await {
            Err(Fault::Unprepared(_)) => {
                client::run(connection, table.take_over(is_split)).await?;
                self.insert(connection, is_split, &[]).await?;
            }
            tried => tried?,
        }
        self.known().is_split = Some(is_split);
        Ok(is_split)
    }

    /// Makes the parts for these records and for tomorrow; when there are new ones, drops those that are too old.
    async fn split(&self, connection: &mut PgConnection, batch: &[Arc<RequestMetrics>]) -> Result<(), Fault> {
        let day = |at| Timestamp::try_from(at).map(|at| TimeZone::UTC.to_datetime(at).date());
        let times = batch.iter().map(|record| record.facts().timestamp);
        let today = day(SystemTime::now()).unwrap_or_default();
        let mut days: BTreeSet<Date> = times.filter_map(|at| day(at).ok()).collect();
        days.extend([today, today.tomorrow().unwrap_or(today)]);
        days.retain(|day| !self.known().days.contains(day));
        if days.is_empty() {
            return Ok(());
        }
        let table = &self.target.table;
        let parts = client::ask(connection, table.parts()).await?;
        for day in days {
            if !parts.contains(&table.part(day)) {
                client::run(connection, table.add_part(day)).await?;
            }
            self.known().days.insert(day);
        }
        self.drop_old(connection, today, &parts).await
    }

    /// Drops the parts that are older than `keep_days`. One that cannot be dropped stands in the way of no record: that
    /// is said, and tried again with the next new part. An error is one of the connection.
    async fn drop_old(
        &self,
        connection: &mut PgConnection,
        today: Date,
        parts: &[String],
    ) -> Result<(), Fault> {
        let keep = self.target.keep_days.map(|days| Span::new().days(days));
        let before = keep.and_then(|keep| today.checked_sub(keep).ok()).unwrap_or(Date::MIN);
        let mut not_dropped = None;
        for drop in parts.iter().filter_map(|part| self.target.table.drop_part(part, before)) {
            let Err(fault) = client::run(connection, drop).await else { continue };
            client::run(connection, "ROLLBACK".into()).await?;
            let what = self.hide(fault.text());
            not_dropped.get_or_insert(format!("a part older than keep_days could not be dropped: {what}"));
            // Whoever reads one reads the others too, and each would be waited for.
            if let Fault::Retry(_) = fault {
                break;
            }
        }
        if let Some(what) = &not_dropped {
            warn!("postgres: {what}");
        }
        self.known().not_dropped = not_dropped;
        Ok(())
    }

    /// Delivers all records or none; with none, sees to it that records could be.
    async fn deliver(&self, batch: &[Arc<RequestMetrics>]) -> Result<(), Fault> {
        let mut connection = self.connection().await?;
        let is_split = self.prepare(&mut connection).await?;
        if self.target.by_day {
            self.split(&mut connection, batch).await?;
        }
        let done = self.insert(&mut connection, is_split, batch).await;
        if let Ok(()) | Err(Fault::Record(_)) = done {
            self.known().idle.push(connection);
        }
        done
    }

    /// A text of the driver or the server, without the password.
    fn hide(&self, text: &str) -> String {
        let password = self.target.password.expose();
        if password.is_empty() { text.into() } else { text.replace(password, "***") }
    }
}

#[async_trait]
impl TelemetryExporter for PostgresExporter {
    fn name(&self) -> &'static str {
        "postgres"
    }

    async fn init(&self, _: &TelemetryConfig) -> Result<(), ExportError> {
        let done = self.deliver(&[]).await.map_err(|fault| self.hide(fault.text()));
        self.health.set(done.as_ref().map_or_else(|what| Health::Down(what.clone()), |()| Health::Ok));
        done.map_err(ExportError::from)
    }

    async fn export(&self, batch: &[Arc<RequestMetrics>]) -> Delivery {
        let fault = match self.deliver(batch).await {
            Ok(()) => {
                self.health.set(Health::Ok);
                return Delivery::Delivered;
            }
            Err(fault) => fault,
        };
        let reason = self.hide(fault.text());
        match fault {
            // Nobody says which record it was: halves tell.
            Fault::Record(_) if batch.len() > 1 => return Delivery::TooLarge,
            Fault::Record(_) => {
                self.health.set(Health::Degraded(format!("rejects records: {reason}")));
                return Delivery::Items(vec![ItemOutcome::Rejected { reason }]);
            }
            _ => self.health.set(Health::Down(reason.clone())),
        }
        match fault {
            Fault::Retry(_) => return Delivery::Retry { after: None },
            Fault::Unanswered(_) => return Delivery::Unknown,
            _ => {}
        }
        // Somebody may change the table.
        let mut known = self.known();
        known.is_split = None;
        known.days.clear();
        Delivery::Refused { reason }
    }

    async fn health(&self) -> Health {
        match (self.health.get(), &self.known().not_dropped) {
            (Health::Ok, Some(what)) => Health::Degraded(what.clone()),
            (health, _) => health,
        }
    }

    async fn shutdown(&self) -> Result<(), ExportError> {
        let idle = std::mem::take(&mut self.known().idle);
        for connection in idle {
            connection.close().await.map_err(|e| ExportError::new(e.to_string()))?;
        }
        Ok(())
    }
}
