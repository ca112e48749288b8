//! The table of what is looked for: name, class, pattern, check.
//!
//! All patterns become one automaton. Among those that match at the same place the first in the table wins, so the longer
//! and more special ones stand first. Prefixes and lengths are those that vendors document or that secret scanners agree
//! on; a pattern is a candidate, the check decides.
//!
//! What repeats without limit stands at a pattern's end: a pattern that could go on for ever before it matches would be
//! followed to the end of the text behind each match of another.

/// What sort of thing was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// A key, token or password; looked for always.
    Secret,
    /// Personal data; looked for when asked.
    Pii,
    /// A pattern of the user's own.
    Custom,
    /// What stands at a configured path.
    Path,
}

impl Class {
    /// The class's word, in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Pii => "pii",
            Self::Custom => "custom",
            Self::Path => "path",
        }
    }
}

/// What a finding is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Name {
    Builtin(&'static str, Class),
    /// Its place among the custom patterns.
    Custom(usize),
}

impl Name {
    pub(super) const fn builtin(name: &'static str, class: Class) -> Self {
        Self::Builtin(name, class)
    }

    pub(super) const fn class(self) -> Class {
        match self {
            Self::Builtin(_, class) => class,
            Self::Custom(_) => Class::Custom,
        }
    }
}

/// What decides whether a match is a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// Every match is.
    Any,
    /// Enough different characters, of more than one kind.
    Token,
    /// Like `Token`, with a long part that has digits: the prefix alone says little.
    Key,
    Pem,
    Jwt,
    /// Azure's client secrets, whose mark stands after three characters.
    AzureSecret,
    /// `name = value`; the value is the finding.
    Assignment,
    Password,
    Bearer,
    Basic,
    UrlPassword,
    Email,
    Iban,
    Ipv6,
    Nino,
    Dni,
    FiscalCode,
    Corsica,
}

/// One row of the table.
pub(super) struct Pattern {
    pub(super) name: &'static str,
    pub(super) regex: &'static str,
    pub(super) check: Check,
}

const fn row(name: &'static str, regex: &'static str, check: Check) -> Pattern {
    Pattern { name, regex, check }
}

/// A value of so many bytes or more: between quotes, or a word.
macro_rules! value {
    ($least:literal) => {
        concat!(r#"(?:[\\"'`]{1,8}\S{"#, $least, r#"}|[^\s"'\\,;<>(){}\[\]&|`]{"#, $least, "})")
    };
}

/// What stands between a name and its value, and the value; behind `<name>` it is the element's text.
macro_rules! after_name {
    ($least:literal) => {
        concat!(
            r#"(?:[\\"'*`]{0,8}[ \t]{0,32}[:=]{1,2}>?\*{0,2}[ \t]{0,32}"#,
            r#"(?:[\\"'`]{0,8}(?i:token|(?:api[_-]?)?key)[ \t]{1,8})?"#,
            value!($least),
            r"|>[^\s<>]{",
            $least,
            "})"
        )
    };
}

/// `--name `, `--some-name=`.
macro_rules! flag {
    ($name:literal) => {
        concat!("--(?i:(?:[a-z]{1,16}-){0,3}(?:", $name, r"))[ \t=]{1,4}")
    };
}

/// Secrets.
pub(super) const SECRETS: &[Pattern] = &[
    row("private_key", r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----", Check::Pem),
    row("private_key", r"AGE-SECRET-KEY-1[0-9A-Z]{58}", Check::Any),
    row("jwt", r"eyJ[A-Za-z0-9_-]{10}", Check::Jwt),
    // Model providers.
    row("anthropic_key", r"sk-ant-[A-Za-z0-9_-]{20,}", Check::Token),
    row("openai_key", r"sk-(?:proj|svcacct|admin|None)-[A-Za-z0-9_-]{20,}", Check::Token),
    row("openrouter_key", r"sk-or-[A-Za-z0-9_-]{20,}", Check::Token),
    row("langfuse_key", r"sk-lf-[A-Za-z0-9_-]{20,}", Check::Token),
    row("openai_key", r"\bsk-[A-Za-z0-9_-]{20,}", Check::Key),
    row("google_key", r"AIza[A-Za-z0-9_-]{35}", Check::Token),
    row("google_oauth", r"ya29\.[A-Za-z0-9_.-]{20,}", Check::Token),
    row("google_oauth", r"GOCSPX-[A-Za-z0-9_-]{20,}", Check::Token),
    row("groq_key", r"\bgsk_[A-Za-z0-9]{20,}", Check::Token),
    row("xai_key", r"\bxai-[A-Za-z0-9]{20,}", Check::Key),
    row("huggingface_token", r"\b(?:hf|api_org)_[A-Za-z0-9]{30,}", Check::Token),
    row("perplexity_key", r"pplx-[A-Za-z0-9]{20,}", Check::Token),
    row("replicate_token", r"\br8_[A-Za-z0-9]{30,}", Check::Token),
    row("fireworks_key", r"\bfw_[A-Za-z0-9]{20,}", Check::Key),
    row("cerebras_key", r"\bcsk-[A-Za-z0-9]{20,}", Check::Key),
    row("together_key", r"\btgp_v1_[A-Za-z0-9_-]{20,}", Check::Token),
    row("nvidia_key", r"\bnvapi-[A-Za-z0-9_-]{20,}", Check::Token),
    row("langsmith_key", r"\blsv2_[ps][tk]_[A-Za-z0-9_]{20,}", Check::Token),
    row("pinecone_key", r"\bpcsk_[A-Za-z0-9_]{20,}", Check::Token),
    row("gateway_key", r"\bmgk_[A-Za-z0-9_-]{20,}", Check::Token),
    // Code and packages.
    row("github_token", r"gh[pousr]_[A-Za-z0-9]{36,}", Check::Token),
    row("github_token", r"github_pat_[A-Za-z0-9_]{22,}", Check::Token),
    row(
        "gitlab_token",
        r"\bgl(?:agent|soat|ffct|cbt|imt|oas|pat|ptt|rtr|dt|rt|ft|wt)-[A-Za-z0-9_.-]{20,}",
        Check::Token,
    ),
    row("npm_token", r"\bnpm_[A-Za-z0-9]{36,}", Check::Token),
    row("pypi_token", r"\bpypi-[A-Za-z0-9_-]{40,}", Check::Token),
    // Clouds and services.
    row("aws_access_key", r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b", Check::Any),
    row("aws_bedrock_key", r"\bABSK[A-Za-z0-9+/]{80,}={0,2}", Check::Token),
    row("aws_bedrock_key", r"bedrock-api-key-[A-Za-z0-9+/]{20,}={0,2}", Check::Token),
    row("azure_secret", r"[0-9]Q~[A-Za-z0-9_~.-]{31,34}", Check::AzureSecret),
    row("slack_token", r"xox[abeoprs](?:\.xox[bp])?-[A-Za-z0-9-]{10,}", Check::Token),
    row("slack_token", r"(?:xapp-[0-9]|xwfp)-[A-Za-z0-9-]{10,}", Check::Token),
    row(
        "slack_webhook",
        r"hooks\.slack\.com\\?/(?:services|workflows|triggers)\\?/(?:[A-Za-z0-9+]|\\?/){20,}",
        Check::Any,
    ),
    row(
        "discord_webhook",
        r"discord(?:app)?\.com\\?/api\\?/(?:v[0-9]{1,2}\\?/)?webhooks\\?/[0-9]{1,24}\\?/[A-Za-z0-9_-]{20,}",
        Check::Any,
    ),
    row("discord_token", r"\b[MNO][A-Za-z0-9_-]{23,27}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,}", Check::Token),
    row("telegram_token", r"\b[0-9]{8,10}:AA[A-Za-z0-9_-]{33}", Check::Token),
    row("stripe_key", r"\b[sr]k_(?:org_)?(?:live|test|prod)_[A-Za-z0-9]{10,}", Check::Token),
    row("stripe_key", r"\bwhsec_[A-Za-z0-9+/]{20,}={0,2}", Check::Token),
    row("elevenlabs_key", r"\bsk_[a-f0-9]{48}", Check::Token),
    row("sendgrid_key", r"\bSG\.[A-Za-z0-9_-]{16,64}\.[A-Za-z0-9_-]{16,}", Check::Token),
    row("twilio_key", r"\bSK[a-f0-9]{32}\b", Check::Token),
    row("digitalocean_token", r"\bdo[opr]_v1_[a-f0-9]{64}", Check::Token),
    row("shopify_token", r"\bshp(?:at|ca|pa|ss)_[A-Fa-f0-9]{32}", Check::Token),
    row("vault_token", r"\bhv[bsr]\.[A-Za-z0-9_-]{20,}", Check::Token),
    row("databricks_token", r"\bdapi[a-f0-9]{32}", Check::Token),
    row("linear_key", r"\blin_api_[A-Za-z0-9]{32,}", Check::Token),
    row("notion_token", r"\bntn_[A-Za-z0-9]{40,}", Check::Token),
    row("new_relic_key", r"\bNRAK-[A-Z0-9]{27}", Check::Token),
    row("postman_key", r"\bPMAK-[a-f0-9]{24}-[a-f0-9]{34}", Check::Token),
    row(
        "doppler_token",
        r"\bdp\.(?:ct|pt|sa(?:id)?|scim|audit|st(?:\.[a-z0-9_-]{2,35})?)\.[A-Za-z0-9]{40,}",
        Check::Token,
    ),
    row("grafana_token", r"\bgl(?:sa|c)_[A-Za-z0-9_+/]{32,}={0,2}", Check::Token),
    row("sentry_token", r"\bsntry[su]_[A-Za-z0-9_+/=]{40,}", Check::Token),
    // In context: the words before them say what they are.
    row(
        "url_password",
        r#":\\?/\\?/[^\s:/?\#"'\\<>]{0,256}:[^\s/@"'\\<>][^\s/"'\\<>]{2}"#,
        Check::UrlPassword,
    ),
    row("bearer_token", r"(?i:\bbearer)[ \t]{1,8}[A-Za-z0-9._~+/-]{16,}=*", Check::Bearer),
    row("basic_credential", r"(?i:\bbasic)[ \t]{1,8}[A-Za-z0-9+/]{8,}={0,2}", Check::Basic),
    row(
        "password",
        concat!(
            r#"(?:(?i:pass(?:word|wd|phrase)|pwd)[A-Za-z0-9_]{0,64}|_PASS|(?i:["']pass)"#,
            r"|(?i:auth|db|email|ftp|login|mail|pg|mysql|proxy|redis|root|smtp|ssh|user)(?i:_?pass))",
            after_name!("6")
        ),
        Check::Password,
    ),
    row("password", concat!(flag!(r"pass(?:word|wd|phrase)?|pwd"), value!("6")), Check::Password),
    row(
        "credential",
        concat!(
            r"(?i:(?:secret|api[ _-]?key|(?:access|account|private|auth|subscription)[ _-]?key)[A-Za-z0-9_-]{0,64}",
            r"|token|authorization|credentials?)",
            after_name!("12")
        ),
        Check::Assignment,
    ),
    row(
        "credential",
        concat!(flag!(r"(?:api|access|account|private|auth|secret)-?key|secret|token"), value!("12")),
        Check::Assignment,
    ),
];

// Personal data.

pub(super) const EMAIL: Pattern =
    row("email", r"[A-Za-z0-9._%+'\x80-\xbf-]@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]+)+", Check::Email);
pub(super) const IBAN: Pattern = row("iban", r"\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11,30}", Check::Iban);
/// Global unicast (2000::/3), full or shortened.
pub(super) const IPV6: Pattern = row("ip", r"\b[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:.]{2,45}", Check::Ipv6);
/// National ids with letters; those of digits alone are found as numbers.
pub(super) const NATIONAL: &[Pattern] = &[
    row("national_id", r"\b[A-Z]{2} ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D]\b", Check::Nino),
    row("national_id", r"\b(?:[0-9]{8}|[XYZ]-?[0-9]{7})[ -]?[A-Z]\b", Check::Dni),
    row("national_id", r"\b[A-Z]{6}[0-9]{2}[A-EHLMPRST][0-9]{2}[A-Z][0-9]{3}[A-Z]\b", Check::FiscalCode),
    row("national_id", r"\b[12] ?[0-9]{2} ?[0-9]{2} ?2[AB] ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}\b", Check::Corsica),
];
