//! What a search may cost, counted in the bytes that it reads: no text makes it read more than so many times its length.

use super::{body, redacted, redactor, with_pii};
use crate::redact::matcher::Finding;
use crate::redact::patterns::Name;
use crate::redact::{CustomPattern, Redactor};

/// How much of this text is read, and what is found.
fn search(redactor: &Redactor, text: &str) -> (usize, Vec<Finding>) {
    let (mut cache, mut found) = (redactor.matcher.cache(), Vec::new());
    let read = redactor.matcher.search(text.as_bytes(), &mut cache, &mut found);
    (read, found)
}

fn is_unread(finding: &Finding) -> bool {
    matches!(finding.name, Name::Builtin("unread", _))
}

/// Beginnings of patterns, each with what would go on without end: none is followed behind the matches in it.
#[test]
fn no_pattern_is_followed_far_beyond_a_match() {
    let key = format!("ghp_{}", body(36));
    let redactor = with_pii();
    for (before, after) in [
        ("pwd", "_"),
        ("password", "_"),
        ("secret", "_-"),
        ("x.AKIAIOSFODNN7EXAMPL7.", "."),
        ("SG.ab", "-"),
        ("://", "~"),
        ("://u:", "~"),
        ("pwd='a1!bcd ", ""),
        ("a@b", "-"),
        ("a@b.c", "."),
        ("discord.com/api/webhooks/1", "~"),
        ("bearer ", " "),
        ("token\"", "\"'"),
        ("2001:", ":"),
        ("sk-", "-"),
        ("--a-", "-a"),
        ("--pass ", " "),
        ("password>", ""),
        ("password:**", "* "),
        ("://a@b", "@"),
    ] {
        let unit = format!("{before}{key}{after}");
        for size in [16 << 10, 128 << 10] {
            let text = unit.repeat(size / unit.len());
            let (read, found) = search(&redactor, &text);
            assert!(read <= 8 * text.len(), "{unit}: {read} bytes read of {}", text.len());
            assert!(!found.iter().any(is_unread), "{unit}");
        }
    }
}

/// A value with spaces is read to its quote, which may stand beyond other values.
#[test]
fn quotes_of_several_sorts_spend_no_budget() {
    let text = "pwd=\"a1!bcd x pwd='a1!bcd x pwd=\\\"a1!bcd x pwd=\\'a1!bcd x ".repeat(1000);
    let (read, found) = search(&with_pii(), &text);
    assert!(read <= 12 * text.len() && !found.iter().any(is_unread), "{read} of {}", text.len());
}

/// As long as the user of a URL goes on, what follows may be its password.
#[test]
fn the_user_of_a_url_may_be_long() {
    let redactor = with_pii();
    let unit = format!("://{}", format!("~xoxb-{}", body(10)).repeat(16));
    let text = unit.repeat((64 << 10) / unit.len());
    let (read, found) = search(&redactor, &text);
    assert!(read <= 8 * text.len() && !found.iter().any(is_unread), "{read} of {}", text.len());
    for length in [1, 65, 200] {
        let user = "u".repeat(length);
        let shown = redacted(&redactor, &format!("postgres://{user}:s3cr3t@db.example/x")).0;
        assert_eq!(shown, format!("postgres://{user}:[REDACTED:url_password]@db.example/x"));
    }
}

/// Two at a time: what begins, does not end, ends, or is none in the end.
#[test]
fn no_mixture_is_read_more_often_than_the_budget_says() {
    let redactor = with_pii();
    let key = format!("ghp_{}_", body(36));
    let pieces = [
        "password=",
        "pwd",
        "pwd=\"a1!bcd ",
        "secret='aB3dE5fG7hJ9 ",
        "eyJhbGciOiJIUzI1NiIs",
        "secret",
        "api_key=a1",
        "sk-a",
        "a@b.",
        "@b-",
        "+1 2",
        "1 ",
        "1.2.",
        "eyJhbGciOiJI",
        ".a.",
        "://a:$@b",
        "://",
        ":",
        "AA11",
        "2001:",
        "bearer ",
        "basic abcdefgh",
        "xoxb-",
        "AAAAAA00",
        "x",
        "\"",
        "-----BEGIN PRIVATE KEY-----",
        "-----END",
        " ",
        "\u{e9}",
        "x.AKIAIOSFODNN7EXAMPL7.",
        "SG.",
        "--pass ",
        "<password>a1!b",
        "\"\"\"",
        ":\\/\\/a@b:c",
        "A: -----BEGIN PRIVATE KEY-----\n",
        &key,
    ];
    for one in pieces {
        for other in pieces {
            let text = format!("{one}{other}").repeat((8 << 10) / (one.len() + other.len()));
            let (read, _) = search(&redactor, &text);
            // One more search there and back, and one more check, after the budget was spent.
            assert!(read <= 19 * text.len() + (8 << 10), "{one}{other}: {read} of {}", text.len());
        }
    }
}

/// A user's own pattern may go on to the end of the text; then the budget ends it, and nothing behind that is let through.
#[test]
fn past_the_budget_the_rest_is_masked_unread() {
    let endless = || CustomPattern { name: "endless".into(), regex: "foo[a-zA-Z0-9_]*!".into() };
    let redactor = redactor(|settings| settings.patterns = vec![endless()]);
    let unit = format!("fooghp_{}_", body(36));
    let mut spent_at = Vec::new();
    for size in [32 << 10, 256 << 10] {
        let text = format!("{}the end is near", unit.repeat(size / unit.len()));
        let (read, found) = search(&redactor, &text);
        assert!(read <= 19 * text.len() + (8 << 10), "{read} of {}", text.len());
        let last = found.last().expect("a finding");
        assert!(is_unread(last) && last.end == text.len(), "{last:?}");
        spent_at.push(found.len());
        let (shown, outcome) = redacted(&redactor, &text);
        assert!(shown.ends_with("_foo[REDACTED:github_token]_foo[REDACTED:unread]"), "{shown}");
        assert!(outcome.found.iter().any(|found| found.name == "unread" && found.count == 1));
    }
    // So many readings of the text, whatever its length.
    assert!(spent_at[1] <= 2 * spent_at[0], "{spent_at:?}");
}

/// Many beginnings and no end. Those that spend the budget lose what stands behind, the others are read a few times.
#[test]
fn text_made_to_cost_time_loses_content_not_time() {
    let redactor = with_pii();
    for (unit, is_lost) in [
        ("password=", true),
        ("api_key=a1", true),
        ("2001:", true),
        ("sk-a", false),
        ("a@b.", false),
        ("+1 2", false),
        ("1 ", false),
        ("1.2.", false),
        ("eyJhbGciOiJI.a.", false),
        ("://a:$@b", false),
        ("AA11", false),
        ("bearer ", false),
        ("-----BEGIN PRIVATE KEY-----", false),
        ("-----BEGIN PRIVATE KEY-----\nA: ", false),
        ("AAAAAA00", false),
        ("xoxb-", false),
        ("a", false),
        ("\u{e9}@", false),
        ("\u{e9}@a.b.c.d", false),
        ("--pass ", false),
        ("<password>a1!bcd", false),
        ("password=\"\"\"a1!bcd ", false),
    ] {
        let text = unit.repeat((256 << 10) / unit.len());
        let (read, found) = search(&redactor, &text);
        let times = if is_lost { 19 } else { 6 };
        assert!(read <= times * text.len() + (8 << 10), "{unit}: {read} of {}", text.len());
        let last = found.last().filter(|last| is_unread(last));
        assert_eq!(last.map(|last| last.end), is_lost.then_some(text.len()), "{unit}");
        let shown = redacted(&redactor, &format!("{text} the end")).0;
        assert_eq!(shown.ends_with("the end"), !is_lost, "{unit}");
    }
}
