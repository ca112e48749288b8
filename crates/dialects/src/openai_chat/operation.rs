//! What a path asks for (wire-formats section 8): decides how a request and its answer are read and recorded.

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// `/chat/completions`
    Chat,
    /// `/completions` (legacy)
    Completions,
    /// `/embeddings`
    Embeddings,
    /// `/models`
    Models,
    /// `/models/{id}`; an id may hold slashes
    Model,
    /// `/responses`
    Responses,
    /// `/responses/…`: stored responses and what is done with them
    ResponseById,
    /// `/images/…`
    Images,
    /// `/audio/speech`
    Speech,
    /// `/audio/transcriptions`, `/audio/translations`
    Transcription,
    /// `/moderations`
    Moderations,
    /// `/rerank` (Cohere, Together, Jina, Voyage, vLLM)
    Rerank,
    /// `/files…`, `/uploads…`
    Files,
    /// `/batches…`
    Batches,
    /// `/realtime…`
    Realtime,
    /// Anything else
    Other,
}

impl Operation {
    /// The operation of a path below `/v1`, with or without a slash at either end: `/chat/completions`.
    pub fn of(path_below_v1: &str) -> Self {
        let path = path_below_v1.trim_matches('/');
        let (head, rest) = path.split_once('/').unwrap_or((path, ""));
        match (head, rest) {
            ("chat", "completions") => Self::Chat,
            ("completions", "") => Self::Completions,
            ("embeddings", "") => Self::Embeddings,
            ("models", "") => Self::Models,
            ("models", _) => Self::Model,
            ("responses", "") => Self::Responses,
            ("responses", _) => Self::ResponseById,
            ("images", "generations" | "edits" | "variations") => Self::Images,
            ("audio", "speech") => Self::Speech,
            ("audio", "transcriptions" | "translations") => Self::Transcription,
            ("moderations", "") => Self::Moderations,
            ("rerank", "") => Self::Rerank,
            ("files" | "uploads", _) => Self::Files,
            ("batches", _) => Self::Batches,
            ("realtime", _) => Self::Realtime,
            _ => Self::Other,
        }
    }

    /// The word in records and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Models => "models",
            Self::Model => "model",
            Self::Responses => "responses",
            Self::ResponseById => "response_by_id",
            Self::Images => "images",
            Self::Speech => "speech",
            Self::Transcription => "transcription",
            Self::Moderations => "moderations",
            Self::Rerank => "rerank",
            Self::Files => "files",
            Self::Batches => "batches",
            Self::Realtime => "realtime",
            Self::Other => "other",
        }
    }

    /// Whether its JSON body names a `model`. Transcriptions and image edits are multipart and name it in a part.
    pub const fn names_model(self) -> bool {
        matches!(
            self,
            Self::Chat
                | Self::Completions
                | Self::Embeddings
                | Self::Responses
                | Self::Images
                | Self::Speech
                | Self::Moderations
                | Self::Rerank
        )
    }

    /// Whether `stream_options.include_usage` exists here: without it these two stream no usage.
    pub const fn takes_stream_options(self) -> bool {
        matches!(self, Self::Chat | Self::Completions)
    }

    /// Whether its streams end with `data: [DONE]`. The others are whole with their terminal event.
    pub const fn ends_with_done(self) -> bool {
        matches!(self, Self::Chat | Self::Completions)
    }
}

#[cfg(test)]
mod tests {
    use super::Operation;

    #[test]
    fn paths_are_named() {
        for (path, operation) in [
            ("/chat/completions", Operation::Chat),
            ("chat/completions/", Operation::Chat),
            ("/chat/completions/chatcmpl-1", Operation::Other),
            ("/completions", Operation::Completions),
            ("/embeddings", Operation::Embeddings),
            ("/models", Operation::Models),
            ("/models/meta-llama/Llama-3", Operation::Model),
            ("/responses", Operation::Responses),
            ("/responses/resp_1/cancel", Operation::ResponseById),
            ("/images/generations", Operation::Images),
            ("/audio/speech", Operation::Speech),
            ("/audio/translations", Operation::Transcription),
            ("/files/f/content", Operation::Files),
            ("/batches", Operation::Batches),
            ("/realtime/calls", Operation::Realtime),
            ("/rerank", Operation::Rerank),
            ("/moderations", Operation::Moderations),
            ("/assistants", Operation::Other),
            ("", Operation::Other),
        ] {
            assert_eq!(Operation::of(path), operation, "{path}");
        }
        assert!(Operation::Chat.names_model() && !Operation::Transcription.names_model());
    }
}
