//! Attributes of spans and events: those of the semantic conventions for generative AI, then the gateway's own.

use magicapi_plugin::{Facts, Outcome, Parameters, RequestMetrics, gen_ai_provider};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};

/// An attribute.
pub(super) fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// An attribute that is a text.
pub(super) fn text(key: &str, value: String) -> KeyValue {
    attribute(key, Value::StringValue(value))
}

/// JSON as a structured value.
pub(super) fn structured(json: serde_json::Value) -> AnyValue {
    let value = match json {
        serde_json::Value::Null => None,
        serde_json::Value::Bool(value) => Some(Value::BoolValue(value)),
        serde_json::Value::Number(number) => Some(match number.as_i64() {
            Some(whole) => Value::IntValue(whole),
            None => Value::DoubleValue(number.as_f64().unwrap_or_default()),
        }),
        serde_json::Value::String(text) => Some(Value::StringValue(text)),
        serde_json::Value::Array(list) => {
            Some(Value::ArrayValue(ArrayValue { values: list.into_iter().map(structured).collect() }))
        }
        serde_json::Value::Object(map) => {
            let pair = |(key, value)| KeyValue { key, value: Some(structured(value)), ..KeyValue::default() };
            Some(Value::KvlistValue(KeyValueList { values: map.into_iter().map(pair).collect() }))
        }
    };
    AnyValue { value }
}

/// Attributes under construction: what is unknown is left out, texts are bounded.
pub(super) struct Attributes {
    pub(super) list: Vec<KeyValue>,
    /// Of one text, in bytes.
    most: usize,
}

impl Attributes {
    pub(super) fn new(most: usize) -> Self {
        Self { list: Vec::with_capacity(40), most }
    }

    fn text(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            let end = value.floor_char_boundary(self.most);
            self.list.push(text(key, value.get(..end).unwrap_or_default().to_owned()));
        }
    }

    fn count(&mut self, key: &str, value: Option<u64>) {
        self.list
            .extend(value.and_then(|n| i64::try_from(n).ok()).map(|n| attribute(key, Value::IntValue(n))));
    }

    fn number(&mut self, key: &str, value: Option<f64>) {
        self.list.extend(value.map(|n| attribute(key, Value::DoubleValue(n))));
    }

    fn texts<'a>(&mut self, key: &str, values: impl IntoIterator<Item = &'a str>) {
        let value = |text: &str| AnyValue { value: Some(Value::StringValue(text.into())) };
        let values: Vec<_> = values.into_iter().map(value).collect();
        if !values.is_empty() {
            self.list.push(attribute(key, Value::ArrayValue(ArrayValue { values })));
        }
    }

    /// What was called.
    fn call(&mut self, facts: &Facts) {
        self.text("gen_ai.operation.name", Some(facts.gen_ai_operation().unwrap_or(facts.operation)));
        self.text("gen_ai.provider.name", facts.provider.as_deref().map(gen_ai_provider));
        self.text("gen_ai.request.model", model(facts));
        if let Some((host, port)) = &facts.server {
            self.text("server.address", Some(host));
            self.count("server.port", Some(u64::from(*port)));
        }
    }

    /// What was called, and what went wrong.
    pub(super) fn exception(&mut self, facts: &Facts, kind: &str) {
        self.call(facts);
        self.text("exception.type", Some(kind));
        self.text("exception.message", facts.error_message.as_deref());
        self.text("gateway.id", Some(&facts.id.to_string()));
    }

    /// Everything but messages.
    pub(super) fn describe(&mut self, record: &RequestMetrics) {
        let facts = record.facts();
        self.call(facts);
        self.text("gen_ai.conversation.id", facts.thread_id.as_deref());
        if facts.streamed {
            self.list.push(attribute("gen_ai.request.stream", Value::BoolValue(true)));
            let first = facts.ttfb_ms.map(|ms| ms as f64 / 1000.0);
            self.number("gen_ai.response.time_to_first_chunk", first);
        }
        self.texts("gen_ai.response.finish_reasons", facts.finish_reasons.iter().map(String::as_str));
        self.usage(facts);
        if let Some(said) = record.conversation() {
            self.parameters(&said.parameters);
            self.text("gen_ai.response.id", said.response_id.as_deref());
            self.text("gen_ai.response.model", said.response_model.as_deref());
        }
        self.text("error.type", error_type(facts));
        self.text("user.id", facts.user_id.as_deref());
        self.own(facts);
    }

    fn usage(&mut self, facts: &Facts) {
        let usage = &facts.usage;
        self.count("gen_ai.usage.input_tokens", usage.input_total());
        self.count("gen_ai.usage.output_tokens", usage.output_total());
        self.count("gen_ai.usage.cache_read.input_tokens", usage.cache_read);
        let written =
            [usage.cache_write, usage.cache_write_1h].into_iter().flatten().reduce(u64::saturating_add);
        self.count("gen_ai.usage.cache_write.input_tokens", written);
        self.count("gen_ai.usage.reasoning.output_tokens", usage.output_reasoning);
        self.count("gen_ai.usage.audio.input_tokens", usage.input_audio);
        self.count("gen_ai.usage.image.input_tokens", usage.input_image);
        self.count("gen_ai.usage.audio.output_tokens", usage.output_audio);
        self.count("gen_ai.usage.image.output_tokens", usage.output_image);
    }

    fn parameters(&mut self, asked: &Parameters) {
        self.count("gen_ai.request.max_tokens", asked.max_tokens);
        self.number("gen_ai.request.temperature", asked.temperature);
        self.number("gen_ai.request.top_p", asked.top_p);
        self.count("gen_ai.request.top_k", asked.top_k);
        self.number("gen_ai.request.frequency_penalty", asked.frequency_penalty);
        self.number("gen_ai.request.presence_penalty", asked.presence_penalty);
        self.list.extend(asked.seed.map(|seed| attribute("gen_ai.request.seed", Value::IntValue(seed))));
        self.count("gen_ai.request.choice.count", asked.choices.filter(|choices| *choices != 1));
        self.texts("gen_ai.request.stop_sequences", asked.stop.iter().map(String::as_str));
        self.text("gen_ai.output.type", asked.output_type);
        self.text("gen_ai.request.reasoning.level", asked.reasoning_level.as_deref());
        self.text("gen_ai.request.previous_response.id", asked.previous_response_id.as_deref());
    }

    /// What the conventions have no name for; the names are those of the record (`docs/record.md`).
    fn own(&mut self, facts: &Facts) {
        let status = |code: u16| (code != 0).then_some(u64::from(code));
        self.text("http.request.method", Some(&facts.method));
        self.text("url.path", Some(&facts.path));
        self.count("http.response.status_code", status(facts.status_code));
        self.text("gateway.id", Some(&facts.id.to_string()));
        self.text("gateway.outcome", Some(facts.outcome.as_str()));
        self.text("gateway.requested_model", facts.requested_model.as_deref());
        self.number("gateway.cost", facts.cost.map(magicapi_plugin::Money::usd));
        self.count("gateway.attempts", Some(u64::from(facts.attempts)));
        self.count("gateway.provider_status_code", status(facts.provider_status_code));
        self.count("gateway.provider_latency", facts.provider_latency_ms);
        self.text("gateway.provider_error_type", facts.provider_error_type);
        self.text("gateway.provider_request_id", facts.provider_request_id.as_deref());
        self.text("gateway.client_request_id", facts.client_request_id.as_deref());
        self.text("gateway.org_id", facts.org_id.as_deref());
        self.text("gateway.project_id", facts.project_id.as_deref());
        self.text("gateway.project_name", facts.project_name.as_deref());
        self.text("gateway.experiment_id", facts.experiment_id.as_deref());
        self.text("gateway.key_name", facts.key_name.as_deref());
        self.text("gateway.route", facts.route.as_deref());
        self.text("gateway.service_tier", facts.service_tier.as_deref());
        let rate = Some(facts.sample_rate).filter(|rate| *rate < 1.0);
        self.number("gateway.sample_rate", rate);
        self.text(
            "gateway.content_dropped",
            facts.content_dropped.map(magicapi_plugin::ContentDropped::as_str),
        );
    }
}

/// The model that was asked; where none was, the one that was wished for.
pub(super) fn model(facts: &Facts) -> Option<&str> {
    facts.model.as_deref().or(facts.requested_model.as_deref())
}

/// What went wrong, in a closed list of words; `None` when nothing did.
pub(super) fn error_type(facts: &Facts) -> Option<&'static str> {
    let failed = facts.outcome != Outcome::Completed;
    failed.then(|| facts.error_type.unwrap_or_else(|| facts.outcome.as_str()))
}
