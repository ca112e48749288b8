//! What of an address is secret: its user, its password, the values of its query. It is shown without them
//! (`effective`), and they are known to those who must keep them out of what they write (`secrets`).

use crate::resolve::decode;

/// What stands for a secret.
pub(crate) const MASK: &str = "***";

/// `scheme://user_info@host/path?query#fragment`.
struct Address<'t> {
    scheme: &'t str,
    user_info: Option<&'t str>,
    host: &'t str,
    path: &'t str,
    query: Option<&'t str>,
    fragment: Option<&'t str>,
}

impl<'t> Address<'t> {
    /// `None` for what is no address. One with mistakes is taken apart all the same: this is no place to refuse it.
    fn parse(text: &'t str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let (odd, rest) = odd_user_info(scheme, rest).map_or((None, rest), |(user, rest)| (Some(user), rest));
        let (rest, fragment) = cut(rest, '#');
        let (rest, query) = cut(rest, '?');
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (user_info, host) =
            authority.rsplit_once('@').map_or((odd, authority), |(user, host)| (Some(user), host));
        Some(Self { scheme, user_info, host, path, query, fragment })
    }

    /// The items of its query, `name=value` or a value alone.
    fn items(&self) -> impl Iterator<Item = (Option<&'t str>, &'t str)> + use<'t> {
        let items = self.query.into_iter().flat_map(|query| query.split('&'));
        items.map(|item| item.split_once('=').map_or((None, item), |(name, value)| (Some(name), value)))
    }
}

/// A password that holds `#` or `?` as they are, which drivers of databases take; what stands behind it.
fn odd_user_info<'t>(scheme: &str, rest: &'t str) -> Option<(&'t str, &'t str)> {
    let authority = rest.get(..rest.find('/').unwrap_or(rest.len()))?;
    let (user_info, _) = authority.rsplit_once('@')?;
    let (user, password) = user_info.split_once(':')?;
    let before = password.get(..password.find(['#', '?'])?)?;
    // A port stands behind the colon, or the colon in what is no user; the `@` stands in the query.
    let is_port = scheme.starts_with("http") && before.bytes().all(|byte| byte.is_ascii_digit());
    (!is_port && !user.contains(['[', '?', '#'])).then_some((user_info, rest.get(user_info.len() + 1..)?))
}

fn cut(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at).map_or((text, None), |(before, behind)| (before, Some(behind)))
}

/// The text; an address without user, password and the values of its query.
pub(crate) fn masked(text: &str) -> String {
    let Some(address) = Address::parse(text) else { return text.into() };
    let Address { scheme, user_info, host, path, query, fragment } = &address;
    let user = user_info.map(|_| format!("{MASK}@")).unwrap_or_default();
    let item = |(name, _): (Option<&str>, &str)| {
        name.map_or_else(|| MASK.to_owned(), |name| format!("{name}={MASK}"))
    };
    let query = query.map(|_| format!("?{}", address.items().map(item).collect::<Vec<_>>().join("&")));
    let fragment = fragment.map(|_| format!("#{MASK}"));
    format!("{scheme}://{user}{host}{path}{}{}", query.unwrap_or_default(), fragment.unwrap_or_default())
}

/// Parameters of libpq whose values are names: a gateway's may stand in any text.
const NO_SECRETS: [&str; 6] =
    ["application_name", "options", "host", "dbname", "user", "target_session_attrs"];

/// User and password in an address and the values of its query, as they stand there and decoded. A user may be a key, with or
/// without a password; whoever looks for these leaves out what may be a word.
pub(crate) fn secrets(text: &str) -> Vec<String> {
    let Some(address) = Address::parse(text) else { return Vec::new() };
    let user_info = address.user_info.into_iter().flat_map(|user| user.splitn(2, ':'));
    let is_secret = |name: &str| !name.starts_with("ssl") && !NO_SECRETS.contains(&name);
    let items = address.items().filter(|(name, _)| name.is_none_or(is_secret));
    let texts = user_info.chain(items.map(|(_, value)| value)).filter(|text| !text.is_empty());
    let with_decoded = texts.flat_map(|text| {
        let decoded = decode(text).filter(|decoded| decoded != text);
        std::iter::once(text.to_owned()).chain(decoded)
    });
    with_decoded.collect()
}

#[cfg(test)]
mod tests {
    use super::{masked, secrets};

    #[test]
    fn what_of_an_address_is_secret_is_masked_and_known() {
        for (text, shown, known) in [
            ("https://host:9200/path", "https://host:9200/path", vec![]),
            ("https://user:pass@host", "https://***@host", vec!["user", "pass"]),
            ("https://token@host/", "https://***@host/", vec!["token"]),
            ("https://token:@host/", "https://***@host/", vec!["token"]),
            (
                "postgres://h/db?sslmode=require&application_name=gateway-1&password=pw",
                "postgres://h/db?sslmode=***&application_name=***&password=***",
                vec!["pw"],
            ),
            (
                "https://u:p%40s@host:1/a?key=v%2F1&flag#part",
                "https://***@host:1/a?key=***&***#***",
                vec!["u", "p%40s", "p@s", "v%2F1", "v/1", "flag"],
            ),
            ("https://host?a=b?c#d?e=f", "https://host?a=***#***", vec!["b?c"]),
            (
                "postgres://app:hunter#2?x@db/x?a=b",
                "postgres://***@db/x?a=***",
                vec!["app", "hunter#2?x", "b"],
            ),
            ("postgres://app:2024#hunter@db", "postgres://***@db", vec!["app", "2024#hunter"]),
            ("redis://:#s3cret@h", "redis://***@h", vec!["#s3cret"]),
            ("http://[::1]:9200?key=abc@def", "http://[::1]:9200?key=***", vec!["abc@def"]),
            ("https://host:9200?to=a@b", "https://host:9200?to=***", vec!["a@b"]),
            ("https://u:a@b@host", "https://***@host", vec!["u", "a@b"]),
            ("no address", "no address", vec![]),
        ] {
            assert_eq!(
                (masked(text).as_str(), secrets(text)),
                (shown, known.iter().map(ToString::to_string).collect())
            );
        }
    }
}
