//! `kubectl kmssecret status`: what is due, stale or failing.

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, Client};
use serde_json::json;

use super::standing::{self, Row};
use super::table::{self, Shown};
use super::{Access, Error, is_missing};
use crate::api::KmsSecret;

/// What is due, stale or failing.
#[derive(Clone, Debug, Args)]
pub struct Status {
    /// Names of KmsSecrets; all of the namespace when left out.
    #[arg(value_name = "NAME", conflicts_with_all = ["all_namespaces", "selector"])]
    pub names: Vec<String>,
    /// Look at all namespaces.
    #[arg(long, short = 'A', conflicts_with = "namespace")]
    pub all_namespaces: bool,
    /// Labels of the KmsSecrets to look at, such as team=shop.
    #[arg(long, short = 'l', value_name = "SELECTOR")]
    pub selector: Option<String>,
    /// How it is printed.
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    pub output: Output,
    /// Show only what somebody should look at.
    #[arg(long)]
    pub problems: bool,
    /// Which cluster, and as whom.
    #[command(flatten)]
    pub access: Access,
}

/// How a report is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A line for each, cut where it is long.
    Table,
    /// A line for each, in full, with the store.
    Wide,
    /// For programs.
    Json,
}

/// How KmsSecrets stand.
#[derive(Clone, Debug)]
pub struct Report {
    /// The worst first.
    pub rows: Vec<Row>,
    /// Those that were named and do not exist.
    pub missing: Vec<String>,
    /// The namespace that was looked at; `None`: all.
    pub namespace: Option<String>,
}

/// Looks at the KmsSecrets that are meant.
///
/// # Errors
/// The API server does not let us.
pub async fn look(flags: &Status, client: Client, now: Timestamp) -> Result<Report, Error> {
    let namespace = (!flags.all_namespaces).then(|| flags.access.namespace(&client));
    let api: Api<KmsSecret> = match &namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let place = namespace.as_deref();
    let mut report = Report {
        rows: Vec::new(),
        missing: Vec::new(),
        namespace: namespace.clone(),
    };
    if flags.names.is_empty() {
        let mut params = ListParams::default();
        params.label_selector.clone_from(&flags.selector);
        let listed = api.list(&params).await;
        let listed = listed.map_err(|err| Error::of(&err, "list", place))?;
        report.rows = listed.iter().map(|object| Row::of(object, now)).collect();
    }
    for name in &flags.names {
        match api.get(name).await {
            Ok(object) => report.rows.push(Row::of(&object, now)),
            Err(err) if is_missing(&err, name) => report.missing.push(name.clone()),
            Err(err) => return Err(Error::of(&err, "get", place)),
        }
    }
    standing::sort(&mut report.rows);
    Ok(report)
}

impl Report {
    /// Whether nobody has to look.
    #[must_use]
    pub fn is_fine(&self) -> bool {
        self.missing.is_empty() && !self.rows.iter().any(|row| row.standing.is_problem())
    }

    /// What there is to say besides: what was not found.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let place = self.namespace.as_deref().map_or_else(
            || "any namespace".to_owned(),
            |name| format!("namespace {name:?}"),
        );
        if self.rows.is_empty() && self.missing.is_empty() {
            return vec![format!("no KmsSecrets found in {place}")];
        }
        let missing = self.missing.iter();
        missing
            .map(|name| format!("there is no KmsSecret {name:?} in {place}"))
            .collect()
    }

    /// The report as it is printed.
    #[must_use]
    pub fn print(&self, flags: &Status, now: Timestamp) -> String {
        let is_shown = |row: &&Row| !flags.problems || row.standing.is_problem();
        let rows: Vec<&Row> = self.rows.iter().filter(is_shown).collect();
        if flags.output == Output::Json {
            return format!("{:#}\n", json!({ "items": rows }));
        }
        let shown = Shown {
            namespaces: self.namespace.is_none(),
            wide: flags.output == Output::Wide,
        };
        let mut text = table::render(&rows, shown, now);
        if !self.rows.is_empty() {
            text.push_str(&table::summary(&self.rows));
        }
        text
    }
}
