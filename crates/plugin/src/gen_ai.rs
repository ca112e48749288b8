//! The gateway's words in those of the OpenTelemetry semantic conventions for generative AI.

use crate::Facts;

/// Names of providers that are others there; the rest are the same, or have none there.
const PROVIDERS: [(&str, &str); 8] = [
    ("azure", "azure.ai.openai"),
    ("bedrock", "aws.bedrock"),
    ("gemini", "gcp.gemini"),
    ("mistral", "mistral_ai"),
    ("moonshot", "moonshot_ai"),
    ("vertex", "gcp.vertex_ai"),
    ("watsonx", "ibm.watsonx.ai"),
    ("xai", "x_ai"),
];

/// `gen_ai.provider.name` of a provider.
pub fn gen_ai_provider(name: &str) -> &str {
    PROVIDERS.iter().find(|(ours, _)| *ours == name).map_or(name, |(_, theirs)| theirs)
}

impl Facts {
    /// `gen_ai.operation.name`; `None` for what is no call of a model, as far as the conventions know.
    pub fn gen_ai_operation(&self) -> Option<&'static str> {
        match self.operation {
            "chat" | "responses" => Some("chat"),
            "completions" => Some("text_completion"),
            "embeddings" => Some("embeddings"),
            "images" | "speech" => Some("generate_content"),
            _ => None,
        }
    }
}
