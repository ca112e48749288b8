//! The third example of the original guide, as `docs/telemetry-plugins.md` shows it.

use magicapi_plugin::*;
use serde::Deserialize;
use sqlx::{AssertSqlSafe, Pool, Postgres, postgres::PgPoolOptions};
use std::error::Error;
use std::sync::OnceLock;
use std::time::Duration;
use tracing::{debug, error};

pub struct PostgresExporter {
    connection_string: Secret,
    table_name: String,
    pool: OnceLock<Pool<Postgres>>,
}

#[async_trait]
impl RecordExporter for PostgresExporter {
    fn name(&self) -> &str {
        "postgres"
    }

    async fn init(&self, _config: &TelemetryConfig) -> Result<(), ExportError> {
        let pool = PgPoolOptions::new()
            .max_connections(5)
            .acquire_timeout(Duration::from_secs(5))
            .connect(self.connection_string.expose())
            .await
            .map_err(|e| ExportError::from(e.to_string()))?;

        // Ensure table exists
        sqlx::query(AssertSqlSafe(format!("
            CREATE TABLE IF NOT EXISTS {} (
                id SERIAL PRIMARY KEY,
                timestamp TIMESTAMPTZ NOT NULL,
                log_data JSONB NOT NULL,
                -- Important fields extracted for easy querying
                ttfb INTEGER,  -- Time to First Byte in milliseconds
                latency INTEGER
            )
        ", self.table_name)))
            .execute(&pool)
            .await
            .map_err(|e| ExportError::from(e.to_string()))?;

        self.pool.get_or_init(|| pool);
        Ok(())
    }

    async fn export(&self, metrics: &RequestMetrics) -> Result<(), Box<dyn Error + Send + Sync>> {
        let pool = self.pool.get().ok_or("not connected yet")?;

        // Convert metrics to OpenTelemetry format
        let document = metrics.to_otel_log();

        debug!("Sending metrics to PostgreSQL table: {}", self.table_name);

        // Extract TTFB and latency for direct querying
        let ttfb = document["attributes"]["metadata"]["ttfb"].as_i64().map(|ms| ms as i32);
        let latency = document["attributes"]["metadata"]["latency"].as_u64().unwrap_or(0) as i32;

        // Insert into database
        let result = sqlx::query(AssertSqlSafe(format!(
            "INSERT INTO {} (timestamp, log_data, ttfb, latency) VALUES ($1::timestamptz, $2::jsonb, $3, $4)",
            self.table_name
        )))
        .bind(document["timestamp"].as_str())
        .bind(document.to_string())
        .bind(ttfb)
        .bind(latency)
        .execute(pool)
        .await;

        if let Err(e) = result {
            error!("Failed to insert metrics into PostgreSQL: {}", e);
            return Err(e.into());
        }

        Ok(())
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct PostgresSettings {
    /// Connection string of the database; required.
    #[schemars(extend("env" = "POSTGRES_URL"))]
    url: Secret,
    /// Table that records go to.
    #[schemars(extend("env" = "POSTGRES_TABLE"))]
    table: String,
}

impl Default for PostgresSettings {
    fn default() -> Self {
        Self { url: Secret::default(), table: "ai_gateway_logs".to_string() }
    }
}

pub struct PostgresPlugin;

impl TelemetryPlugin for PostgresPlugin {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn settings(&self) -> SettingsSpec {
        SettingsSpec::of::<PostgresSettings>()
    }

    fn create_exporter(
        &self,
        settings: Settings,
        _: Host,
    ) -> Result<Box<dyn TelemetryExporter>, ConfigError> {
        let PostgresSettings { url: connection_string, table: table_name } = settings.read()?;
        if connection_string.is_empty() {
            return Err(ConfigError::new("url", "POSTGRES_URL must be set"));
        }
        // It becomes part of the SQL.
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if table_name.is_empty() || !table_name.chars().all(plain) {
            return Err(ConfigError::new("table", "expected lower-case letters, digits and _"));
        }

        Ok(Box::new(EachRecord(PostgresExporter { connection_string, table_name, pool: OnceLock::new() })))
    }
}

magicapi_plugin::register!(PostgresPlugin);
