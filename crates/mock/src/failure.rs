//! Error answers in the OpenAI shape, `{"error":{message,type,param,code}}`: those a script asks for
//! by status alone, and those the mock gives of its own accord to a request it cannot serve.

use bytes::Bytes;
use serde_json::json;

/// An error answer on its way.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: u16,
    message: String,
    kind: &'static str,
    code: Option<&'static str>,
    param: Option<String>,
}

impl Failure {
    /// The error that goes with a status.
    pub(crate) fn of_status(status: u16) -> Self {
        let (kind, code) = match status {
            401 => ("invalid_request_error", Some("invalid_api_key")),
            404 => ("invalid_request_error", Some("model_not_found")),
            429 => ("requests", Some("rate_limit_exceeded")),
            503 => ("server_error", Some("overloaded")),
            400..=499 => ("invalid_request_error", None),
            _ => ("server_error", None),
        };
        Self { status, message: format!("Mock error {status}"), kind, code, param: None }
    }

    /// The request is not what the endpoint takes.
    pub(crate) fn bad_request(message: String, param: Option<&str>) -> Self {
        Self { message, param: param.map(str::to_owned), ..Self::of_status(400) }
    }

    /// The `x-mock` header could not be read.
    pub(crate) fn bad_script(message: String) -> Self {
        Self { message, kind: "mock_script_error", ..Self::of_status(400) }
    }

    /// No such path.
    pub(crate) fn no_such_path(method: &str, path: &str) -> Self {
        Self { message: format!("Invalid URL ({method} {path})"), code: None, ..Self::of_status(404) }
    }

    /// The path exists, the method does not.
    pub(crate) fn wrong_method(method: &str, path: &str) -> Self {
        let message = format!("Not allowed to {method} on {path}");
        Self { message, code: Some("method_not_supported"), ..Self::of_status(405) }
    }

    /// No such model.
    pub(crate) fn no_such_model(id: &str) -> Self {
        Self { message: format!("The model '{id}' does not exist"), ..Self::of_status(404) }
    }

    /// The mock itself failed.
    pub(crate) fn internal(message: String) -> Self {
        Self { message, ..Self::of_status(500) }
    }

    /// The error object.
    pub(crate) fn body(&self) -> Bytes {
        let error = json!({"error": {
            "message": self.message, "type": self.kind, "param": self.param, "code": self.code,
        }});
        Bytes::from(error.to_string())
    }
}

/// The event of an error in mid-stream, when the script names none.
pub(crate) const STREAM_ERROR: &str = r#"{"error":{"message":"The mock provider failed in mid-stream","type":"server_error","param":null,"code":null}}"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shape() {
        let body: serde_json::Value = serde_json::from_slice(&Failure::of_status(429).body()).unwrap();
        assert_eq!(body["error"]["code"], "rate_limit_exceeded");
        assert!(body["error"]["param"].is_null());
    }
}
