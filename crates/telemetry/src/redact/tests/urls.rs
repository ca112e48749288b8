//! Secrets in URLs: the password, and what stands before it.

use magicapi_plugin::Secret;

use super::{body, redacted, redactor, with_pii};

#[test]
fn a_token_may_be_the_user_of_a_url() {
    let own = "07q7Zt4Lw9Xk2Vb8Nm5Rc1Hd6Js3Gf0Py";
    let (github, openai) = (format!("ghp_{}", body(36)), format!("sk-proj-{}", body(40)));
    let redactor = redactor(|settings| settings.own = vec![Secret::new(own)]);
    for (user, name) in
        [(github.as_str(), "github_token"), (&openai, "openai_key"), (own, "configured_secret")]
    {
        for (password, shown) in [
            ("x-oauth-basic", "[REDACTED:url_password]"),
            ("secret1", "[REDACTED:url_password]"),
            ("xxx", "xxx"),
            ("${TOKEN}", "${TOKEN}"),
        ] {
            let text = redacted(&redactor, &format!("https://{user}:{password}@github.com/o/r.git")).0;
            assert_eq!(text, format!("https://[REDACTED:{name}]:{shown}@github.com/o/r.git"));
        }
    }
    // Found twice at the same place, it is one finding, called by its form.
    let (text, outcome) = redacted(&redactor, &format!("https://jane:{github}@github.com/o/r.git"));
    assert_eq!(text, "https://jane:[REDACTED:github_token]@github.com/o/r.git");
    assert_eq!(outcome.found[0].count, 1);
}

#[test]
fn a_password_of_a_url_ends_at_the_last_at_sign() {
    let redactor = with_pii();
    let mask = "[REDACTED:url_password]";
    for (before, password, after) in [
        ("postgresql://postgres:", "P@ssw0rd123", "@localhost:5432/db"),
        ("postgres://u:", "Pa@ssw0rd", "@db"),
        ("postgres://app:", "a@b@c@", "@db.example.com/x"),
        ("smtp://jane.doe@corp.com:", "s3cr3tpw", "@smtp.corp.com"),
        ("smtp://jane.doe@corp.com:", "s3cr3tpw", "@smtp.corp.com:25, see jane"),
        (r#"{\"dsn\": \"postgres:\/\/app:"#, "s3cr3tpw", r#"@db\/x\"}"#),
        ("http://jane:", "8080", "@db"),
    ] {
        let shown = redacted(&redactor, &format!("{before}{password}{after}")).0;
        assert_eq!(shown, format!("{before}{mask}{after}"));
    }
    for innocent in [
        "http://user@host.example:8080/a@b.c",
        "git+ssh://git@github.com:npm-cli.git@v1.0",
        "http://localhost:8080?to=jane@",
    ] {
        assert_eq!(redacted(&redactor, innocent).0, innocent);
    }
    let shown = redacted(&redactor, "http://localhost:8080?to=jane@example.com").0;
    assert_eq!(shown, "http://localhost:8080?to=[REDACTED:email]", "a port is none");
    let shown = redacted(&redactor, "postgres://u:xxx@db.example.com/x jane@example.com").0;
    assert_eq!(
        shown, "postgres://u:xxx@db.example.com/x [REDACTED:email]",
        "what follows a placeholder is a host"
    );
}

#[test]
fn a_webhook_may_have_escaped_slashes() {
    let redactor = redactor(|_| {});
    let (slack, discord) = (body(24), body(68));
    for (url, shown) in [
        (
            format!(r"https:\/\/hooks.slack.com\/services\/T0000000\/B0000000\/{slack}"),
            r"https:\/\/[REDACTED:slack_webhook]",
        ),
        (
            format!(r"https:\/\/discord.com\/api\/webhooks\/1234567890123456789\/{discord}"),
            r"https:\/\/[REDACTED:discord_webhook]",
        ),
    ] {
        assert_eq!(
            redacted(&redactor, &format!(r#"{{\"url\":\"{url}\"}}"#)).0,
            format!(r#"{{\"url\":\"{shown}\"}}"#)
        );
    }
}
