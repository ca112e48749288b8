//! What may stand behind the `?`: one table from which parameters are read, explained and corrected.

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use magicapi_kernel::LogQuery;
use utoipa::openapi::path::{Parameter as ApiParameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{Object, ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{KnownFormat, Required, SchemaFormat};

use crate::error::ApiError;

/// The largest page.
const MAX_LIMIT: u64 = 500;

/// What a time is. In a query string a bare `+` is a space, which is how an offset gets lost.
const TIME: &str =
    "a time in Unix milliseconds or RFC 3339 (`2026-03-05T16:00:00Z`; the `+` of an offset is written `%2B`)";

/// The query string as axum gives it.
pub(crate) type Params = Result<Query<Vec<(String, String)>>, QueryRejection>;

/// What the parameters are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A page of a list.
    List,
    /// Following, which has no pages and no end.
    Follow,
}

/// One parameter: where its value goes, by what it is.
struct Parameter {
    name: &'static str,
    doc: &'static str,
    /// Makes sense for a page alone.
    of_page: bool,
    value: Value,
}

enum Value {
    Text(fn(&mut LogQuery) -> &mut Option<String>),
    Flag(fn(&mut LogQuery) -> &mut Option<bool>),
    Time(fn(&mut LogQuery) -> &mut Option<i64>),
    /// A whole number in these bounds.
    Whole(u64, u64, fn(&mut LogQuery, u64)),
}

const fn filter(name: &'static str, doc: &'static str, value: Value) -> Parameter {
    Parameter { name, doc, of_page: false, value }
}

const fn of_page(name: &'static str, doc: &'static str, value: Value) -> Parameter {
    Parameter { name, doc, of_page: true, value }
}

/// Every parameter: the fields of [`LogQuery`].
const PARAMETERS: [Parameter; 20] = [
    filter("provider", "The provider asked last.", Value::Text(|query| &mut query.provider)),
    filter(
        "model",
        "The model, as sent upstream or as the caller named it.",
        Value::Text(|query| &mut query.model),
    ),
    filter("outcome", "`completed`, `client_closed`, …", Value::Text(|query| &mut query.outcome)),
    filter("status", "`success` or `error`.", Value::Text(|query| &mut query.status)),
    filter(
        "status_code",
        "What the caller got.",
        Value::Whole(0, 999, |query, code| query.status_code = u16::try_from(code).ok()),
    ),
    filter("error_type", "From the closed list of errors.", Value::Text(|query| &mut query.error_type)),
    filter("key_name", "The virtual key's name.", Value::Text(|query| &mut query.key_name)),
    filter("project_id", "The project.", Value::Text(|query| &mut query.project_id)),
    filter("org_id", "The caller's organisation.", Value::Text(|query| &mut query.org_id)),
    filter("user_id", "The caller's user.", Value::Text(|query| &mut query.user_id)),
    filter("thread_id", "The caller's thread.", Value::Text(|query| &mut query.thread_id)),
    filter("operation", "`chat`, `embeddings`, …", Value::Text(|query| &mut query.operation)),
    filter("streamed", "Streams only, or none.", Value::Flag(|query| &mut query.streamed)),
    filter("since", "Not before this: Unix milliseconds or RFC 3339.", Value::Time(|query| &mut query.since)),
    of_page("until", "Before this: Unix milliseconds or RFC 3339.", Value::Time(|query| &mut query.until)),
    filter(
        "min_latency_ms",
        "At least this slow.",
        Value::Whole(0, u64::MAX, |query, least| query.min_latency_ms = Some(least)),
    ),
    filter(
        "text",
        "A text anywhere in the document (names, request, response, stream events), ASCII letters in either case; when \
         following, in what the row shows. There is no index for it: documents are read, newest first, until the page \
         is full or the time is up (`truncated`).",
        Value::Text(|query| &mut query.text),
    ),
    of_page("cursor", "`next_cursor` of the page before.", Value::Text(|query| &mut query.cursor)),
    of_page(
        "limit",
        "Rows on a page: 50 unless told.",
        Value::Whole(1, MAX_LIMIT, |query, limit| query.limit = usize::try_from(limit).ok()),
    ),
    of_page(
        "budget_ms",
        "What the page may take, in milliseconds: 2000 unless told.",
        Value::Whole(1, 30_000, |query, budget| query.budget_ms = Some(budget)),
    ),
];

impl Purpose {
    /// Reads the parameters. What is unknown, doubled, empty or unreadable is refused by name: a filter that is not
    /// understood must not become a list of everything.
    pub(crate) fn read(self, params: Params) -> Result<LogQuery, ApiError> {
        let Query(pairs) =
            params.map_err(|error| ApiError::bad_request("invalid_parameter", error.body_text()))?;
        let mut query = LogQuery::default();
        let mut seen = Vec::with_capacity(pairs.len());
        for (name, value) in &pairs {
            let parameter = self.find(name)?;
            if seen.contains(&parameter.name) {
                let text = format!("`{name}` stands there twice; give it once");
                return Err(ApiError::bad_request("invalid_parameter", text));
            }
            seen.push(parameter.name);
            parameter.value.read(value, &mut query).map_err(|expected| {
                let text = format!("`{name}` is {expected}, not `{}`", shortened(value));
                ApiError::bad_request("invalid_parameter", text)
            })?;
        }
        Ok(query)
    }

    fn find(self, name: &str) -> Result<&'static Parameter, ApiError> {
        if let Some(parameter) = self.parameters().find(|parameter| parameter.name == name) {
            return Ok(parameter);
        }
        let text = if PARAMETERS.iter().any(|parameter| parameter.name == name) {
            format!("`{name}` is for lists; following has no pages and no end")
        } else {
            let nearest = self
                .parameters()
                .map(|parameter| parameter.name)
                .max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)));
            format!(
                "there is no parameter `{}`; the nearest is `{}`",
                shortened(name),
                nearest.unwrap_or("provider")
            )
        };
        Err(ApiError::bad_request("unknown_parameter", text))
    }

    fn parameters(self) -> impl Iterator<Item = &'static Parameter> {
        const ALL: &[Parameter] = &PARAMETERS;
        ALL.iter().filter(move |parameter| self == Self::List || !parameter.of_page)
    }
}

impl Value {
    /// Puts a value where it belongs; the error is what was expected.
    fn read(&self, text: &str, query: &mut LogQuery) -> Result<(), String> {
        match self {
            Self::Text(_) if text.is_empty() => Err("a text that is not empty".to_owned()),
            Self::Text(place) => {
                *place(query) = Some(text.to_owned());
                Ok(())
            }
            Self::Flag(place) => {
                let flag = text.parse().map_err(|_| "`true` or `false`".to_owned())?;
                *place(query) = Some(flag);
                Ok(())
            }
            Self::Time(place) => {
                *place(query) = Some(LogQuery::time(text).ok_or(TIME)?);
                Ok(())
            }
            Self::Whole(least, most, set) => {
                let number = text.parse().ok().filter(|number| (least..=most).contains(&number));
                let expected = if *most == u64::MAX {
                    format!("a whole number from {least}")
                } else {
                    format!("a whole number from {least} to {most}")
                };
                set(query, number.ok_or(expected)?);
                Ok(())
            }
        }
    }

    fn schema(&self) -> Object {
        let integer = |format| {
            ObjectBuilder::new().schema_type(Type::Integer).format(Some(SchemaFormat::KnownFormat(format)))
        };
        match self {
            Self::Text(_) => ObjectBuilder::new().schema_type(Type::String).build(),
            Self::Flag(_) => ObjectBuilder::new().schema_type(Type::Boolean).build(),
            Self::Time(_) => {
                ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::Integer, Type::String])).build()
            }
            Self::Whole(least, u64::MAX, _) => integer(KnownFormat::Int64).minimum(Some(*least)).build(),
            Self::Whole(least, most, _) => {
                integer(KnownFormat::Int64).minimum(Some(*least)).maximum(Some(*most)).build()
            }
        }
    }
}

/// The parameters, for the OpenAPI document.
pub(crate) fn openapi_parameters(purpose: Purpose) -> Vec<ApiParameter> {
    let describe = |parameter: &Parameter| {
        ParameterBuilder::new()
            .name(parameter.name)
            .parameter_in(ParameterIn::Query)
            .description(Some(parameter.doc))
            .required(Required::False)
            .schema(Some(parameter.value.schema()))
            .build()
    };
    purpose.parameters().map(describe).collect()
}

/// What a caller sent, as much of it as belongs into a message.
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}
