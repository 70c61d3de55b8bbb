//! Manifests: TOML.

use std::path::Path;

use shardmill::manifest::Manifest;

const PATH: &str = "/folder/shardmill.toml";
/// Keys whose values are secrets.
const SECRET_KEYS: [&str; 3] = ["secret", "webhook_secret", "secret_access_key"];

/// A refusal is one line that names the file, and the line in it or the key; a manifest means the
/// same each time it is read, has each name once, and neither shows a secret.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let secrets = secrets(text);
    let hides = |shown: &str| {
        for secret in &secrets {
            assert!(!shown.contains(secret), "{shown:?} shows a secret");
        }
    };
    let manifest = match Manifest::parse(text, Path::new(PATH)) {
        Ok(manifest) => manifest,
        Err(error) => {
            let told = error.to_string();
            hides(&told);
            hides(&format!("{error:?}"));
            let told = told.strip_prefix(PATH).expect("the file's name first");
            let rest = told.strip_prefix(':').expect("a colon behind it");
            assert!(!told.contains('\n'), "{told:?} has several lines");
            assert!(told.len() <= 4 * text.len() + 4_096, "{} bytes", told.len());
            if let Some((line, _)) = rest.split_once(':')
                && let Ok(line) = line.parse::<usize>()
            {
                let lines = text.bytes().filter(|byte| *byte == b'\n').count() + 1;
                assert!((1..=lines).contains(&line), "line {line} of {lines}");
            } else {
                let key = rest.contains(" = ") || rest.contains(" is missing");
                assert!(key, "{told:?} names neither a line nor a key");
            }
            return;
        }
    };
    hides(&format!("{manifest:?}"));
    let again = Manifest::parse(text, Path::new(PATH)).expect("the same text");
    assert_eq!(again, manifest);
    once(
        manifest
            .streams
            .iter()
            .map(|s| (&s.scope, s.name.to_string())),
    );
    once(
        manifest
            .functions
            .iter()
            .map(|f| (&f.scope, f.name.clone())),
    );
    once(manifest.mappings.iter().map(|m| (&m.scope, m.name.clone())));
    once(manifest.queues.iter().map(|q| (&q.scope, q.name.clone())));
    once(manifest.tenants.iter().map(|t| t.account));
    assert!(manifest.streams.iter().all(|s| s.shards > 0));
    for file in manifest.files() {
        assert!(
            file.is_absolute(),
            "{} depends on where one is",
            file.display()
        );
    }
}

fn once<T: Ord>(names: impl Iterator<Item = T>) {
    let mut names: Vec<T> = names.collect();
    names.sort();
    assert!(
        names.windows(2).all(|two| two[0] != two[1]),
        "a name stands twice"
    );
}

/// Secrets that are found nowhere else in the text.
fn secrets(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if let Ok(table) = text.parse::<toml::Table>() {
        gather(&toml::Value::Table(table), &mut found);
    }
    found.retain(|secret| secret.len() >= 8 && text.matches(secret.as_str()).count() == 1);
    found
}

fn gather(value: &toml::Value, found: &mut Vec<String>) {
    match value {
        toml::Value::Table(table) => {
            for (name, value) in table {
                match value {
                    toml::Value::String(text) if SECRET_KEYS.contains(&name.as_str()) => {
                        found.push(text.clone());
                    }
                    toml::Value::Table(variables) if name == "environment" => {
                        let texts = variables.values().filter_map(|value| value.as_str());
                        found.extend(texts.map(str::to_owned));
                    }
                    other => gather(other, found),
                }
            }
        }
        toml::Value::Array(items) => items.iter().for_each(|item| gather(item, found)),
        _ => {}
    }
}
