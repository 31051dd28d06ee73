//! A KmsSecret that is being made of parts, in whatever order a manifest names them.

use std::collections::{BTreeMap, BTreeSet};

use super::gjson;
use super::gotemplate::Part;
use super::report::Report;
use crate::api::KmsSecret;
use crate::api::kms_secret::{
    DataItem, Decode, Extract, KmsSecretSpec, NamedSource, Refresh, Source, StoreRef, Target,
};

/// What a key is taken from.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// The whole value.
    Whole,
    /// What the fields of these names lead to.
    Names(Vec<String>),
    /// What a JMESPath finds.
    Path(String),
}

#[derive(Debug)]
struct Key {
    name: String,
    source: usize,
    place: Place,
    decode: Option<Decode>,
}

/// A KmsSecret in the making.
#[derive(Debug, Default)]
pub(super) struct Draft {
    sources: Vec<Source>,
    keys: Vec<Key>,
    extracts: Vec<(usize, Extract)>,
    templates: Vec<(String, String, Vec<Part>)>,
    /// Whether the keys themselves are there too, besides what templates make of them.
    keeps_keys: bool,
    pub(super) target: Target,
    pub(super) refresh: Option<Refresh>,
}

impl Draft {
    /// The place of a source, which is made if there is none like it.
    pub(super) fn source(&mut self, source: Source, field: &str, report: &mut Report) -> usize {
        if !is_secret_name(&source.secret_name) {
            let name = &source.secret_name;
            report.refuse(
                field,
                format!("{name:?} is neither the name of a secret in KMS nor its ARN"),
            );
        }
        let known = self.sources.iter().position(|known| *known == source);
        known.unwrap_or_else(|| {
            self.sources.push(source);
            self.sources.len() - 1
        })
    }

    pub(super) fn key(
        &mut self,
        name: String,
        source: usize,
        place: Place,
        decode: Option<Decode>,
        field: &str,
        report: &mut Report,
    ) {
        check_key(&name, field, report);
        if self.keys.iter().any(|key| key.name == name) {
            let text = format!(
                "the key {name:?} is made twice, and the last one wins: leave the others out"
            );
            report.refuse(field, text);
        }
        self.keys.push(Key {
            name,
            source,
            place,
            decode,
        });
    }

    pub(super) fn extract(&mut self, source: usize, extract: Extract) {
        self.extracts.push((source, extract));
    }

    /// A key that is made of others.
    pub(super) fn template(
        &mut self,
        key: String,
        parts: Vec<Part>,
        field: &str,
        report: &mut Report,
    ) {
        check_key(&key, field, report);
        self.templates.push((key, field.to_owned(), parts));
    }

    /// Keeps the keys that templates take, beside what they make.
    pub(super) fn keep_keys(&mut self) {
        self.keeps_keys = true;
    }

    /// The secrets of KMS that are read.
    pub(super) fn secret_names(&self) -> impl Iterator<Item = &str> {
        self.sources
            .iter()
            .map(|source| source.secret_name.as_str())
    }

    /// Whether there is one source, without a version or a stage.
    pub(super) fn is_plain(&self) -> bool {
        matches!(&self.sources[..], [only] if only.version_id.is_none() && only.version_stage.is_none())
    }

    /// The KmsSecret.
    pub(super) fn finish(self, name: &str, store_ref: StoreRef, report: &mut Report) -> KmsSecret {
        if self.sources.is_empty() {
            report.refuse("spec", "it names no secret of KMS");
        }
        let makers = self.extracts.len() + usize::from(!self.keys.is_empty());
        if makers > 1 && !self.extracts.is_empty() {
            report.note(
                "spec",
                "where two make the same key, the last one won; a KmsSecret that makes a key twice fails, and says which",
            );
        }
        let names = source_names(&self.sources);
        let told = |source: usize| (names.len() > 1).then(|| names[source].clone());
        let replaces = !self.templates.is_empty() && !self.keeps_keys;
        let mut data = Vec::new();
        for key in self.keys.iter().filter(|_| !replaces) {
            if self.templates.iter().any(|(made, ..)| *made == key.name) {
                continue;
            }
            data.push(DataItem {
                key: key.name.clone(),
                source: told(key.source),
                path: match &key.place {
                    Place::Whole => None,
                    Place::Names(names) => Some(gjson::jmespath(names)),
                    Place::Path(path) => Some(path.clone()),
                },
                decode: key.decode,
                ..DataItem::default()
            });
        }
        for (key, field, parts) in &self.templates {
            let text = parts.iter().map(|part| match part {
                Part::Text(text) => Ok(text.clone()),
                Part::Key(name, filter) => {
                    let value = self.expression(name, &names)?;
                    Ok(format!("{{{{ {value}{filter} }}}}"))
                }
            });
            match text.collect::<Result<String, String>>() {
                Ok(template) => data.push(DataItem {
                    key: key.clone(),
                    template: Some(template),
                    ..DataItem::default()
                }),
                Err(why) => report.refuse(field, why),
            }
        }
        let extracts = self.extracts.into_iter().filter(|_| !replaces);
        let extract = extracts.map(|(source, extract)| Extract {
            source: told(source),
            ..extract
        });
        let extract = extract.collect();
        let (mut source, mut sources) = (None, Vec::new());
        if names.len() > 1 {
            let pairs = names.iter().cloned().zip(self.sources);
            let pairs = pairs.map(|(name, source)| NamedSource {
                name,
                source,
                optional: None,
            });
            sources = pairs.collect();
        } else {
            source = self.sources.into_iter().next();
        }
        let target = (self.target != Target::default()).then(|| self.target.into());
        let mut spec = KmsSecretSpec::new(store_ref);
        (spec.source, spec.sources) = (source, sources);
        (spec.data, spec.extract) = (data, extract);
        (spec.target, spec.refresh) = (target, self.refresh);
        KmsSecret::new(name, spec)
    }

    /// What our templates call a key.
    fn expression(&self, name: &str, sources: &[String]) -> Result<String, String> {
        let of = |source: usize| {
            if sources.len() > 1 {
                format!("sources[{:?}].", sources[source])
            } else {
                String::new()
            }
        };
        let fields = |names: &[String]| {
            let fields = names.iter();
            let fields = fields.map(|name| format!("[{}]", serde_json::Value::from(name.as_str())));
            fields.collect::<Vec<_>>().concat()
        };
        if let Some(key) = self.keys.iter().find(|key| key.name == name) {
            return match (&key.place, key.decode) {
                (_, Some(Decode::Base64)) => Err(format!(
                    "the template takes {name:?}, whose bytes are decoded: write data[].template by hand"
                )),
                (Place::Whole, _) => Ok(format!("{}value", of(key.source))),
                (Place::Names(names), _) => Ok(format!("{}json{}", of(key.source), fields(names))),
                (Place::Path(path), _) if is_identifier(path) => Ok(format!(
                    "{}json{}",
                    of(key.source),
                    fields(std::slice::from_ref(path))
                )),
                (Place::Path(path), _) => Err(format!(
                    "the template takes {name:?}, which is at the path {path:?}: write data[].template by hand"
                )),
            };
        }
        match &self.extracts[..] {
            [(source, extract)] if *extract == Extract::default() || is_tidied(extract) => {
                Ok(format!("{}json{}", of(*source), fields(&[name.to_owned()])))
            }
            [] => Err(format!("the template takes {name:?}, which nothing makes")),
            _ => Err(format!(
                "the template takes {name:?}, and which field of which secret that is, only the values tell: write data[].template by hand"
            )),
        }
    }
}

/// The rename that makes keys of all names, which leaves the names alone that a template of Go can take.
pub(super) fn tidy() -> Vec<crate::api::kms_secret::Rename> {
    vec![crate::api::kms_secret::Rename {
        pattern: "[^-._a-zA-Z0-9]".to_owned(),
        replacement: "_".to_owned(),
    }]
}

fn is_tidied(extract: &Extract) -> bool {
    *extract
        == Extract {
            rename: tidy(),
            ..Extract::default()
        }
}

fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn check_key(key: &str, field: &str, report: &mut Report) {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if key.is_empty() || key.len() > 253 || !key.chars().all(is_legal) {
        report.refuse(field, format!("{key:?} cannot be a key of a Secret"));
    }
}

fn is_secret_name(text: &str) -> bool {
    let is_name = |name: &str| {
        (1..=192).contains(&name.len())
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_/+=.@-".contains(c))
    };
    match text.strip_prefix("acs:kms:") {
        None => is_name(text),
        Some(rest) => match rest.splitn(3, ':').collect::<Vec<_>>()[..] {
            [region, account, resource] => {
                let is_region = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
                (2..=63).contains(&region.len())
                    && region.chars().all(is_region)
                    && (1..=32).contains(&account.len())
                    && account.chars().all(|c| c.is_ascii_digit())
                    && resource.strip_prefix("secret/").is_some_and(is_name)
            }
            _ => false,
        },
    }
}

/// A name for each source, of the last part of its secret's.
fn source_names(sources: &[Source]) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let mut numbers = BTreeMap::new();
    let name = |source: &Source| {
        let last = source.secret_name.rsplit('/').next().unwrap_or_default();
        let version = source.version_id.iter().chain(&source.version_stage);
        let words = std::iter::once(last).chain(version.map(String::as_str));
        let text = words.collect::<Vec<_>>().join("-").to_ascii_lowercase();
        let legal = text.replace(|c: char| !c.is_ascii_alphanumeric() && c != '_', "-");
        let cut: String = legal.trim_matches(['-', '_']).chars().take(50).collect();
        let base = cut.trim_matches(['-', '_']);
        let base = if base.is_empty() { "source" } else { base };
        // From where the last one of this name came to: there can be many.
        let number = numbers.entry(base.to_owned()).or_insert(0_usize);
        loop {
            *number += 1;
            let name = match *number {
                1 => base.to_owned(),
                number => format!("{base}-{number}"),
            };
            if taken.insert(name.clone()) {
                return name;
            }
        }
    };
    sources.iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str, version: Option<&str>) -> Source {
        Source {
            secret_name: name.to_owned(),
            version_stage: None,
            version_id: version.map(ToOwned::to_owned),
            fetch_extended_config: None,
        }
    }

    #[test]
    fn sources_get_names_that_are_legal_and_differ() {
        let sources = [
            source("shop/Orders.DB", None),
            source("other/orders-db", None),
            source("shop/Orders.DB", Some("v1")),
            source("_/+", None),
        ];
        assert_eq!(
            source_names(&sources),
            ["orders-db", "orders-db-2", "orders-db-v1", "source"]
        );
    }

    #[test]
    fn names_are_those_that_the_api_server_takes() {
        for (name, is_good) in [
            ("shop/db", true),
            ("acs:kms:cn-hangzhou:1:secret/shop/db", true),
            ("acs:kms:cn-hangzhou:1:key/x", false),
            ("acs:kms:cn-hangzhou:x:secret/y", false),
            ("a b", false),
            ("", false),
            ("é", false),
        ] {
            assert_eq!(is_secret_name(name), is_good, "{name}");
        }
    }
}
