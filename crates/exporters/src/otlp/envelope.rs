//! What stands around spans, log records and metrics in a request. The three services' messages have the same shape and
//! the same numbers, and a message within another is written as bytes are; so one form serves all, and each item is
//! encoded once, however often a batch is divided.

use bytes::Bytes;
use magicapi_plugin::TelemetryConfig;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

use super::attributes::text;

#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<OfResource>,
}

#[derive(Clone, PartialEq, Message)]
struct OfResource {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<OfScope>,
}

#[derive(Clone, PartialEq, Message)]
struct OfScope {
    #[prost(message, optional, tag = "1")]
    scope: Option<InstrumentationScope>,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    items: Vec<Bytes>,
}

/// One request with these items, each with the names of the gateway that it comes from; those that follow each other
/// share them.
pub(super) fn request<'a>(items: impl Iterator<Item = (&'a Bytes, &'a TelemetryConfig)>) -> Vec<u8> {
    let mut request = Request::default();
    let mut last: Option<&TelemetryConfig> = None;
    for (item, names) in items {
        if last != Some(names) {
            let scope = InstrumentationScope {
                name: "magicapi-ai-gateway".into(),
                version: names.service_version.clone(),
                ..InstrumentationScope::default()
            };
            let scopes = vec![OfScope { scope: Some(scope), items: Vec::new() }];
            request.resources.push(OfResource { resource: Some(resource(names)), scopes });
            last = Some(names);
        }
        let scope = request.resources.last_mut().and_then(|resource| resource.scopes.last_mut());
        if let Some(scope) = scope {
            scope.items.push(item.clone());
        }
    }
    request.encode_to_vec()
}

/// The gateway's names; an attribute that the user gave overrides none of them.
fn resource(names: &TelemetryConfig) -> Resource {
    let own = [
        ("service.name", Some(&names.service_name)),
        ("service.version", Some(&names.service_version)),
        ("deployment.environment.name", names.deployment_environment.as_ref()),
        ("service.instance.id", names.service_instance_id.as_ref()),
    ];
    let mut attributes: Vec<_> =
        own.iter().filter_map(|(key, value)| Some(text(key, (*value)?.clone()))).collect();
    let further = names.resource_attributes.iter().filter(|(key, _)| own.iter().all(|(own, _)| own != key));
    attributes.extend(further.map(|(key, value)| text(key, value.clone())));
    Resource { attributes, ..Resource::default() }
}
