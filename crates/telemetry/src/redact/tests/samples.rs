//! Made-up secrets in the forms that their vendors document: one at least for each row of the table.
//!
//! They are put together here, so that no scanner takes this file for a leak.

/// A secret, and the words around it without which it would be none.
pub(super) struct Sample {
    pub(super) name: &'static str,
    pub(super) before: &'static str,
    pub(super) secret: String,
    pub(super) after: &'static str,
}

impl Sample {
    pub(super) fn text(&self) -> String {
        self.with(&self.secret)
    }

    /// Its text with something else in the secret's place.
    pub(super) fn with(&self, secret: &str) -> String {
        [self.before, secret, self.after].concat()
    }

    /// Its text as it should come out.
    pub(super) fn masked(&self) -> String {
        self.with(&format!("[REDACTED:{}]", self.name))
    }
}

fn cycle(characters: &str, length: usize) -> String {
    characters.chars().cycle().take(length).collect()
}

pub(super) fn body(length: usize) -> String {
    cycle("aB3dE5fG7hJ9kL2mN4pQ6rS8tU1vW0xYzC", length)
}

pub(super) fn hex(length: usize) -> String {
    cycle("0f1e2d3c4b5a69788796a5b4c3d2e1f0", length)
}

fn digits(length: usize) -> String {
    cycle("1234567890", length)
}

/// Capitals and the digits of base32.
fn upper(length: usize) -> String {
    cycle("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", length)
}

/// What bech32 is written with.
fn bech32(length: usize) -> String {
    cycle("QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L", length)
}

pub(super) fn jwt() -> String {
    format!("{}.{}.{}", "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9", "eyJzdWIiOiIxMjM0NTY3ODkwIn0", body(43))
}

fn pem(kind: &str, block: &str) -> String {
    let lines = format!("{}\n{}\n{}", body(64), body(64), body(20));
    format!("-----BEGIN {kind}PRIVATE KEY{block}-----\n{lines}==\n-----END {kind}PRIVATE KEY{block}-----")
}

fn short_pem(head: &str) -> String {
    format!("-----BEGIN EC PRIVATE KEY-----\n{head}{}\n-----END EC PRIVATE KEY-----", body(48))
}

/// Each row of the table has one here, which the tests cut at every offset.
pub(super) fn samples() -> Vec<Sample> {
    [code(), models(), services()].into_iter().flatten().map(alone).chain(in_context()).collect()
}

fn alone((name, secret): (&'static str, String)) -> Sample {
    Sample { name, before: "", secret, after: "" }
}

fn in_context() -> impl Iterator<Item = Sample> {
    [
        ("password", "password=", "hunter2!x".to_owned(), ""),
        ("credential", "client_secret: ", body(16), ""),
        ("password", "--db-password ", "hunter2!x".to_owned(), ""),
        ("credential", "--api-key ", body(16), ""),
        ("bearer_token", "Authorization: Bearer ", body(20), ""),
        ("basic_credential", "Authorization: Basic ", "dXNlcjpodW50ZXIyeA==".to_owned(), ""),
        ("url_password", "postgres://app@x postgres://app:", "s3cr3tpw".to_owned(), "@db.example"),
        ("url_password", "postgresql://postgres:", "P@ssw0rd123".to_owned(), "@localhost:5432/db"),
        ("url_password", "smtp://jane.doe@corp.com:", "s3cr3tpw".to_owned(), "@smtp.corp.com"),
        ("private_key", "-", short_pem("").replace('\n', "\n-"), "\n+"),
        ("private_key", "> ", short_pem("Proc-Type: 4,ENCRYPTED\n\n").replace('\n', "\n> "), ""),
        ("github_token", "https://", format!("ghp_{}", body(36)), ":xxx@github.com/o/r.git"),
    ]
    .into_iter()
    .map(|(name, before, secret, after)| Sample { name, before, secret, after })
}

fn code() -> Vec<(&'static str, String)> {
    vec![
        ("private_key", pem("RSA ", "")),
        ("private_key", pem("", "")),
        ("private_key", pem("OPENSSH ", "")),
        ("private_key", format!("AGE-SECRET-KEY-1{}", bech32(58))),
        ("jwt", jwt()),
        ("github_token", format!("ghp_{}", body(36))),
        ("github_token", format!("gho_{}", body(36))),
        ("github_token", format!("github_pat_{}_{}", body(22), body(59))),
        ("gitlab_token", format!("glpat-{}", body(20))),
        ("npm_token", format!("npm_{}", body(36))),
        ("pypi_token", format!("pypi-AgEIcHlwaS5vcmc{}", body(70))),
    ]
}

fn models() -> Vec<(&'static str, String)> {
    vec![
        ("anthropic_key", format!("sk-ant-api03-{}AA", body(93))),
        ("openai_key", format!("sk-proj-{}", body(74))),
        ("openai_key", format!("sk-svcacct-{}", body(74))),
        ("openai_key", format!("sk-{}", body(48))),
        ("openai_key", format!("sk-{}", hex(32))),
        ("openrouter_key", format!("sk-or-v1-{}", hex(64))),
        ("langfuse_key", format!("sk-lf-{}", body(36))),
        ("google_key", format!("AIza{}", body(35))),
        ("google_oauth", format!("ya29.{}", body(60))),
        ("google_oauth", format!("GOCSPX-{}", body(28))),
        ("groq_key", format!("gsk_{}", body(52))),
        ("xai_key", format!("xai-{}", body(80))),
        ("huggingface_token", format!("hf_{}", body(34))),
        ("perplexity_key", format!("pplx-{}", body(48))),
        ("replicate_token", format!("r8_{}", body(37))),
        ("fireworks_key", format!("fw_{}", body(24))),
        ("cerebras_key", format!("csk-{}", body(48).to_lowercase())),
        ("together_key", format!("tgp_v1_{}", body(43))),
        ("nvidia_key", format!("nvapi-{}", body(64))),
        ("langsmith_key", format!("lsv2_pt_{}_{}", hex(32), hex(10))),
        ("pinecone_key", format!("pcsk_{}_{}", body(6), body(63))),
        ("gateway_key", format!("mgk_{}", body(43))),
        ("elevenlabs_key", format!("sk_{}", hex(48))),
        ("aws_bedrock_key", format!("ABSKQmVkcm9ja0FQSUtleS{}=", body(109))),
        // A real one goes on for a kilobyte.
        ("aws_bedrock_key", format!("bedrock-api-key-YmVkcm9jay5hbWF6b25hd3MuY29t{}", body(40))),
    ]
}

fn services() -> Vec<(&'static str, String)> {
    vec![
        ("aws_access_key", format!("AKIA{}", upper(16))),
        ("aws_access_key", format!("ASIA{}", &upper(24)[8..])),
        ("azure_secret", format!("{}8Q~{}", body(3), body(34))),
        ("slack_token", format!("xoxb-{0}-{0}-{1}", digits(12), body(24))),
        ("slack_token", format!("xapp-1-A{}-{}-{}", upper(10), digits(13), hex(64))),
        ("slack_webhook", format!("hooks.slack.com/services/T0000000/B0000000/{}", body(24))),
        ("discord_webhook", format!("discord.com/api/webhooks/{}/{}", digits(19), body(68))),
        ("discord_token", format!("M{}.G{}.{}", body(23), body(5), body(38))),
        ("telegram_token", format!("{}:AA{}", digits(9), body(33))),
        ("stripe_key", format!("sk_live_{}", body(24))),
        ("stripe_key", format!("rk_live_{}", body(24))),
        ("stripe_key", format!("whsec_{}", body(32))),
        ("sendgrid_key", format!("SG.{}.{}", body(22), body(43))),
        ("twilio_key", format!("SK{}", hex(32))),
        ("digitalocean_token", format!("dop_v1_{}", hex(64))),
        ("shopify_token", format!("shpat_{}", hex(32))),
        ("vault_token", format!("hvs.{}", body(91))),
        ("databricks_token", format!("dapi{}", hex(32))),
        ("linear_key", format!("lin_api_{}", body(40))),
        ("notion_token", format!("ntn_{}{}", digits(11), body(35))),
        ("new_relic_key", format!("NRAK-{}", upper(27))),
        ("postman_key", format!("PMAK-{}-{}", hex(24), hex(34))),
        ("doppler_token", format!("dp.pt.{}", body(43))),
        ("grafana_token", format!("glsa_{}_{}", body(32), hex(8))),
        ("sentry_token", format!("sntryu_{}", hex(64))),
    ]
}

/// Further forms of the same vendors.
pub(super) fn other_forms() -> Vec<Sample> {
    let mut forms = vec![
        ("private_key", pem("ENCRYPTED ", "")),
        ("private_key", pem("PGP ", " BLOCK")),
        ("anthropic_key", format!("sk-ant-admin01-{}AA", body(93))),
        ("anthropic_key", format!("sk-ant-oat01-{}AA", body(93))),
        ("openai_key", format!("sk-admin-{}", body(74))),
        ("huggingface_token", format!("api_org_{}", body(34))),
        ("langsmith_key", format!("lsv2_sk_{}_{}", hex(32), hex(10))),
        ("pypi_token", format!("pypi-AgENdGVzdC5weXBpLm9yZw{}", body(70))),
        ("aws_bedrock_key", format!("bedrock-api-key-YmVkcm9jay5hbWF6b25hd3MuY29t{}==", body(1200))),
        ("slack_token", format!("xoxp-{0}-{0}-{0}-{1}", digits(12), hex(32))),
        ("slack_token", format!("xoxe.xoxp-1-{}", body(163))),
        ("slack_token", format!("xoxe-1-{}", body(146))),
        ("slack_token", format!("xwfp-{}", body(60))),
        ("slack_webhook", format!("hooks.slack.com/workflows/T0000000/A0000000/{}/{}", digits(18), body(24))),
        ("slack_webhook", format!("hooks.slack.com/triggers/T0000000/{}/{}", digits(13), hex(32))),
        ("discord_webhook", format!("discordapp.com/api/webhooks/{}/{}", digits(18), body(68))),
        ("discord_webhook", format!("discord.com/api/v10/webhooks/{}/{}", digits(19), body(68))),
        ("stripe_key", format!("whsec_{}/{}+==", body(20), body(20))),
        ("vault_token", format!("hvs.{}", body(24))),
        ("grafana_token", format!("glc_eyJvIjoiMTIzNDU2Iiwibi{}==", body(80))),
        ("sentry_token", format!("sntrys_eyJpYXQiO{}LCJyZWdpb25fdXJs{}==_{}", body(20), body(40), body(43))),
    ];
    let mut each = |name, before: &str, kinds: &[&str], secret: String| {
        forms.extend(kinds.iter().map(|kind| (name, format!("{before}{kind}{secret}"))));
    };
    each("github_token", "gh", &["u", "s", "r"], format!("_{}", body(36)));
    each("stripe_key", "", &["sk", "rk", "sk_org"], format!("_test_{}", body(99)));
    each("aws_access_key", "A", &["BIA", "CCA"], upper(16));
    each("digitalocean_token", "do", &["o", "r"], format!("_v1_{}", hex(64)));
    each("shopify_token", "shp", &["ca", "pa", "ss"], format!("_{}", hex(32)));
    each("vault_token", "hv", &["b", "r"], format!(".{}", body(138)));
    let gitlab = ["oas", "dt", "rt", "rtr", "ptt", "ft", "imt", "agent", "wt", "soat", "ffct"];
    each("gitlab_token", "gl", &gitlab, format!("-{}", body(20)));
    each("gitlab_token", "gl", &["pat", "rt"], format!("-{}.01.{}", body(27), body(9).to_lowercase()));
    each("gitlab_token", "gl", &["cbt"], format!("-64_{}", body(20)));
    each(
        "doppler_token",
        "dp.",
        &["ct", "st", "st.prd_eu-1", "sa", "said", "scim", "audit"],
        format!(".{}", body(43)),
    );
    forms.into_iter().map(alone).collect()
}
