//! Which values among settings may be shown: read from the schema, wherever in it a value stands.

use serde_json::Value;

use crate::SettingsSpec;

/// How a single value among settings is treated where settings are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Sight {
    /// It may be shown.
    Open,
    /// It is in a mapping without keys of its own, headers for example: it may be a secret.
    Doubtful,
    /// It is a [`crate::Secret`].
    Secret,
}

impl SettingsSpec {
    /// The setting `name` with each single value replaced by what `of` makes of it.
    pub fn map_values(&self, name: &str, value: &Value, of: &mut dyn FnMut(&Value, Sight) -> Value) -> Value {
        let schema = self.schema().get("properties").and_then(|properties| properties.get(name));
        let sight = if schema.is_some() { Sight::Open } else { Sight::Doubtful };
        walk(value, &schema.into_iter().collect::<Vec<_>>(), sight, of)
    }
}

/// `schemas` are those that may hold for the value; where one calls it a secret, it is one.
fn walk(
    value: &Value,
    schemas: &[&Value],
    around: Sight,
    of: &mut dyn FnMut(&Value, Sight) -> Value,
) -> Value {
    let mut shapes = Vec::new();
    for schema in schemas {
        alternatives(schema, &mut shapes);
    }
    let sight = shapes.iter().map(|shape| sight(shape)).fold(around, Sight::max);
    match value {
        Value::Object(members) => members
            .iter()
            .map(|(key, member)| {
                let named = shapes.iter().filter_map(|shape| shape.get("properties")?.get(key));
                let named: Vec<&Value> = named.collect();
                let (below, sight) = if named.is_empty() {
                    let rest = shapes.iter().filter_map(|shape| shape.get("additionalProperties"));
                    (rest.collect(), sight.max(Sight::Doubtful))
                } else {
                    (named, sight)
                };
                (key.clone(), walk(member, &below, sight, of))
            })
            .collect(),
        Value::Array(items) => {
            let of_all = shapes.iter().filter_map(|shape| shape.get("items"));
            let of_each = shapes.iter().filter_map(|shape| shape.get("prefixItems")?.as_array()).flatten();
            let below: Vec<&Value> = of_all.chain(of_each).collect();
            items.iter().map(|item| walk(item, &below, sight, of)).collect()
        }
        single => of(single, sight),
    }
}

/// A schema and all that it offers to choose from: `Option<T>` and enumerations are choices.
fn alternatives<'a>(schema: &'a Value, found: &mut Vec<&'a Value>) {
    found.push(schema);
    for choice in ["anyOf", "oneOf", "allOf"] {
        for one in schema.get(choice).and_then(Value::as_array).into_iter().flatten() {
            alternatives(one, found);
        }
    }
}

fn sight(shape: &Value) -> Sight {
    if shape.get("format").and_then(Value::as_str) == Some("secret") {
        Sight::Secret
    } else if shape.get("$ref").is_some() {
        // A type that holds itself; what it says stands elsewhere.
        Sight::Doubtful
    } else {
        Sight::Open
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use magicapi_model::Secret;
    use schemars::JsonSchema;
    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::Sight;
    use crate::SettingsSpec;

    #[derive(Deserialize, JsonSchema)]
    #[allow(dead_code, reason = "read through its schema alone")]
    struct Route {
        to: String,
        token: Option<Secret>,
    }

    #[derive(Deserialize, JsonSchema)]
    #[serde(untagged)]
    #[allow(dead_code, reason = "read through its schema alone")]
    enum OneOrMany {
        One(Secret),
        Many(Vec<Secret>),
    }

    #[derive(Default, Deserialize, JsonSchema)]
    #[serde(default)]
    #[allow(dead_code, reason = "read through its schema alone")]
    struct Deep {
        plain: String,
        token: Option<Secret>,
        tokens: Vec<Secret>,
        maybe: Option<Vec<Secret>>,
        pairs: Vec<(String, Secret)>,
        routes: Vec<Route>,
        one: Option<OneOrMany>,
        keys: BTreeMap<String, Secret>,
        headers: BTreeMap<String, String>,
        limit: Option<u32>,
    }

    /// What is shown of a setting: `?` stands for what is in doubt, `*` for a secret.
    fn shown(name: &str, value: &Value) -> String {
        let mut mark = |value: &Value, sight| match sight {
            Sight::Open => value.clone(),
            Sight::Doubtful => "?".into(),
            Sight::Secret => "*".into(),
        };
        SettingsSpec::of::<Deep>().map_values(name, value, &mut mark).to_string()
    }

    #[test]
    fn a_secret_is_known_wherever_it_stands() {
        for (name, value, expected) in [
            ("plain", json!("a"), r#""a""#),
            ("limit", json!(7), "7"),
            ("token", json!("a"), r#""*""#),
            ("tokens", json!(["a", "b"]), r#"["*","*"]"#),
            ("maybe", json!(["a"]), r#"["*"]"#),
            ("pairs", json!([["a", "b"]]), r#"[["*","*"]]"#),
            ("routes", json!([{"to": "a", "token": "b"}]), r#"[{"to":"a","token":"*"}]"#),
            ("one", json!("a"), r#""*""#),
            ("one", json!(["a"]), r#"["*"]"#),
            ("keys", json!({"k": "a"}), r#"{"k":"*"}"#),
            ("headers", json!({"x": "a", "n": {"y": 1}}), r#"{"x":"?","n":{"y":"?"}}"#),
            ("unknown", json!("a"), r#""?""#),
        ] {
            assert_eq!(shown(name, &value), expected, "{name}");
        }
    }
}
