//! Flags and environment: the only reader of both.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use jiff::SignedDuration;

use crate::alibaba::endpoint::{AllowedEndpoint, MetadataEndpoint};
use crate::alibaba::environment::{self, Environment};
use crate::api::parse_duration;
use crate::members::{self, Identity};
use crate::plugin::{Access, Force, Status};

/// Keeps native Kubernetes Secrets equal to secrets in Alibaba Cloud KMS Secrets Manager.
#[derive(Debug, Parser)]
#[command(name = "kms-secret-operator", version, about, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 a clean stop, or all is well; 1 the operator could not start or go on, or something is not well (status), was not done (sync), cannot be read (check) or has no equal (convert), or it could not be found out; 2 a flag is wrong.";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the operator, against KUBECONFIG or from inside a cluster.
    Run(Box<Run>),
    /// What `kubectl kmssecret` does too.
    #[command(flatten)]
    Plugin(Plugin),
    /// Print the CustomResourceDefinitions as YAML.
    Crds,
    /// Make manifests of ack-secret-manager and External Secrets into KmsSecrets and stores.
    Convert(Convert),
}

/// How the program is called as a plugin of kubectl.
const PLUGIN: &str = "kubectl-kmssecret";

/// Shows how KmsSecrets stand, and has them synced.
#[derive(Debug, Parser)]
#[command(name = PLUGIN, bin_name = "kubectl kmssecret", version, after_help = PLUGIN_EXIT_CODES)]
struct Kubectl {
    #[command(subcommand)]
    command: Plugin,
}

const PLUGIN_EXIT_CODES: &str = "Exit codes: 0 all is well; 1 something is not well (status), was not done (sync) or cannot be read (check), or it could not be found out; 2 a flag is wrong.";

/// What is asked of KmsSecrets.
#[derive(Debug, Subcommand)]
pub enum Plugin {
    /// Show which KmsSecrets are due, late or failing, from their status alone.
    Status(Box<Status>),
    /// Read KMS now.
    Sync(Box<Force>),
    /// Ask KMS whether KmsSecrets could be synced, without reading a value.
    Check(Box<Check>),
}

impl Command {
    /// Parses a command line, whose first word is what the program was called: as the plugin, it does nothing else.
    ///
    /// # Errors
    /// What to print in its stead, and the exit code.
    pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let words: Vec<_> = words.into_iter().collect();
        let called = words.first().and_then(|word| Path::new(word).file_name());
        if called.is_some_and(|called| called == PLUGIN) {
            return Kubectl::try_parse_from(words).map(|kubectl| Self::Plugin(kubectl.command));
        }
        Cli::try_parse_from(words).map(|cli| cli.command)
    }
}

/// What to convert.
#[derive(Clone, Debug, Default, Args)]
pub struct Convert {
    /// YAML files, or - for standard input, as of `kubectl get externalsecrets,secretstores -o yaml`.
    #[arg(value_name = "FILE", default_value = "-")]
    pub files: Vec<PathBuf>,
    /// Region of ack-secret-manager's stores, which is a flag of that controller.
    #[arg(long)]
    pub region: Option<String>,
    /// ServiceAccount, in the namespace of each store, that takes the place of the old controller's own.
    #[arg(long, value_name = "NAME")]
    pub service_account: Option<String>,
    /// Namespace of objects that name none.
    #[arg(long, short)]
    pub namespace: Option<String>,
}

/// Which KmsSecrets to check.
#[derive(Clone, Debug, Args)]
pub struct Check {
    /// Names of KmsSecrets; all of the namespace when left out.
    pub names: Vec<String>,
    /// Which cluster, and as whom.
    #[command(flatten)]
    pub access: Access,
    /// Where requests may go.
    #[command(flatten)]
    pub reach: Reach,
}

/// Where requests may go, and as whom.
#[derive(Clone, Debug, Args)]
pub struct Reach {
    /// Let stores name an endpoint outside aliyuncs.com: KMS, and STS where it is another; plain http on loopback only.
    #[arg(
        long,
        value_name = "KMS_ORIGIN[=STS_ORIGIN]",
        env = "KMS_SECRET_OPERATOR_ALLOW_ENDPOINT",
        value_delimiter = ','
    )]
    pub allow_endpoint: Vec<AllowedEndpoint>,
    /// Where the metadata service is that stores with auth.ecsRamRole ask; anything but the real one on loopback only.
    #[arg(
        long,
        value_name = "ORIGIN",
        env = "KMS_SECRET_OPERATOR_METADATA_ENDPOINT",
        default_value = "http://100.100.100.200"
    )]
    pub metadata_endpoint: MetadataEndpoint,
    /// The operator's own identity, which no flag gives: a command line is seen by everybody.
    #[arg(skip)]
    pub environment: Environment,
}

/// See [`Run::gone_after`].
const GONE_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// How to run the operator.
#[derive(Clone, Debug, Args)]
pub struct Run {
    /// Where requests may go.
    #[command(flatten)]
    pub reach: Reach,
    /// Look at this namespace only (repeatable); needs Roles instead of a ClusterRole.
    #[arg(long, env = "KMS_SECRET_OPERATOR_NAMESPACE", value_delimiter = ',')]
    pub namespace: Vec<String>,
    /// Where /healthz, /readyz and /metrics are served.
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "KMS_SECRET_OPERATOR_ADMIN_LISTEN",
        default_value = "0.0.0.0:8080"
    )]
    pub admin_listen: SocketAddr,
    /// The shortest spec.refresh.interval that a KmsSecret may ask for.
    #[arg(long, value_name = "DURATION", env = "KMS_SECRET_OPERATOR_MIN_REFRESH_INTERVAL", default_value = "1m", value_parser = duration)]
    pub min_refresh_interval: SignedDuration,
    /// Let KmsSecrets write Secrets of this type too (repeatable).
    #[arg(
        long,
        value_name = "TYPE",
        env = "KMS_SECRET_OPERATOR_ALLOW_SECRET_TYPE",
        value_delimiter = ','
    )]
    pub allow_secret_type: Vec<String>,
    /// Refuse labels and annotations of this domain and those below it on Secrets (repeatable); in place of the default list of controllers that copy or unseal Secrets.
    #[arg(
        long,
        value_name = "DOMAIN",
        env = "KMS_SECRET_OPERATOR_DENY_TARGET_METADATA",
        value_delimiter = ',',
        default_values = ["reflector.v1.k8s.emberstack.com", "replicator.v1.mittwald.de", "sealedsecrets.bitnami.com"]
    )]
    pub deny_target_metadata: Vec<String>,
    /// How long a secret must be missing in KMS before a Secret is deleted for it: no flag makes it less.
    #[arg(skip = GONE_AFTER)]
    pub gone_after: SignedDuration,
    /// Whether KMS may tell of changes, and who may say so for it.
    #[command(flatten)]
    pub events: Events,
    /// Who this replica is among others.
    #[command(flatten)]
    pub replica: Replica,
    /// Show each KmsSecret in the metrics by itself: four series for each.
    #[arg(long, env = "KMS_SECRET_OPERATOR_OBJECT_METRICS")]
    pub object_metrics: bool,
    /// How logs are written.
    #[arg(long, env = "KMS_SECRET_OPERATOR_LOG_FORMAT", default_value = "json")]
    pub log_format: LogFormat,
    /// How much is logged.
    #[arg(long, env = "KMS_SECRET_OPERATOR_LOG_LEVEL", default_value = "info")]
    pub log_level: tracing::level_filters::LevelFilter,
}

/// Whether KMS may tell of changes, and who may say so for it.
#[derive(Clone, Debug, Default, Args)]
#[command(group = ArgGroup::new("event_auth").args(["event_token_file", "event_client_ca"]).multiple(true))]
pub struct Events {
    /// Receive what the cloud tells of secrets in KMS here, at the path /events; off when left out.
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "KMS_SECRET_OPERATOR_EVENT_LISTEN",
        requires = "event_auth"
    )]
    pub event_listen: Option<SocketAddr>,
    /// File with the tokens, one a line, of which a sender must show one; read again as it changes.
    #[arg(
        long,
        value_name = "FILE",
        env = "KMS_SECRET_OPERATOR_EVENT_TOKEN_FILE",
        requires = "event_listen"
    )]
    pub event_token_file: Option<PathBuf>,
    /// File with the certificate, as PEM, that notices are received under; read again as it changes.
    #[arg(long, value_name = "FILE", env = "KMS_SECRET_OPERATOR_EVENT_TLS_CERT", requires_all = ["event_listen", "event_tls_key"])]
    pub event_tls_cert: Option<PathBuf>,
    /// File with the key of that certificate, as PEM.
    #[arg(
        long,
        value_name = "FILE",
        env = "KMS_SECRET_OPERATOR_EVENT_TLS_KEY",
        requires = "event_tls_cert"
    )]
    pub event_tls_key: Option<PathBuf>,
    /// File with the authorities, as PEM, of which a sender must show a certificate.
    #[arg(
        long,
        value_name = "FILE",
        env = "KMS_SECRET_OPERATOR_EVENT_CLIENT_CA",
        requires = "event_tls_cert"
    )]
    pub event_client_ca: Option<PathBuf>,
}

/// Who this replica is among others.
#[derive(Clone, Debug, Default, Args)]
pub struct Replica {
    /// Where the Leases are by which replicas share the work; left out, in the namespace of the operator's pod, or else of the current context.
    #[arg(
        long,
        value_name = "NAMESPACE",
        env = "KMS_SECRET_OPERATOR_LEASE_NAMESPACE"
    )]
    pub lease_namespace: Option<String>,
    /// The name of this replica and of its Lease, which no other has; left out, that of its pod, or a new one at each start.
    #[arg(long, value_name = "NAME", env = "KMS_SECRET_OPERATOR_REPLICA_NAME", value_parser = object_name)]
    pub replica_name: Option<String>,
    /// The pod that it runs in, which only its environment tells.
    #[arg(skip)]
    pub pod: Pod,
}

/// What the environment tells of the pod that the operator runs in.
#[derive(Clone, Debug, Default)]
pub struct Pod {
    /// `POD_NAME`.
    pub name: Option<String>,
    /// `POD_UID`.
    pub uid: Option<String>,
    /// `POD_NAMESPACE`.
    pub namespace: Option<String>,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A JSON object a line.
    Json,
    /// For people.
    Text,
}

fn duration(text: &str) -> Result<SignedDuration, String> {
    parse_duration(text).ok_or_else(|| format!("{text:?} is not a duration, as 1m or 90s"))
}

/// A name that Kubernetes takes for a Lease.
fn object_name(text: &str) -> Result<String, String> {
    let is_inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let is_label = |label: &str| {
        label.bytes().all(is_inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    let is_name = text.len() <= 253
        && text
            .split('.')
            .all(|label| !label.is_empty() && is_label(label));
    is_name.then(|| text.to_owned()).ok_or_else(|| {
        format!("{text:?} is not the name of an object: lower-case letters, digits, '-' and '.'")
    })
}

/// The types of Secret that are always written.
const TARGET_TYPES: [&str; 6] = [
    "Opaque",
    "kubernetes.io/tls",
    "kubernetes.io/dockerconfigjson",
    "kubernetes.io/dockercfg",
    "kubernetes.io/basic-auth",
    "kubernetes.io/ssh-auth",
];

impl Reach {
    /// Takes the operator's own identity from the environment of this process.
    ///
    /// # Errors
    /// A sentence, if it names an STS that is not allowed.
    pub fn read_environment(&mut self) -> Result<(), String> {
        self.environment = environment::read(variable, &self.allow_endpoint)?;
        Ok(())
    }
}

impl Replica {
    /// Takes from the environment of this process in which pod it runs.
    pub fn read_environment(&mut self) {
        let given = |name| variable(name).filter(|value| !value.is_empty());
        self.pod = Pod {
            name: given("POD_NAME"),
            uid: given("POD_UID"),
            namespace: given("POD_NAMESPACE"),
        };
    }

    /// Who this process is: `process` is like nobody else's, and `namespace` the one of its context.
    #[must_use]
    pub fn identity(&self, process: &str, namespace: &str, group: String) -> Identity {
        let pod = &self.pod;
        let short = process.get(..8).unwrap_or(process);
        let own_name = || format!("kms-secret-operator-{short}");
        let name = self.replica_name.clone().or_else(|| pod.name.clone());
        let name = name.unwrap_or_else(own_name);
        let named = self.lease_namespace.as_ref().or(pod.namespace.as_ref());
        let namespace = named.map_or(namespace, String::as_str);
        // An owner in another namespace does not exist to Kubernetes, which would delete the Lease.
        let is_there = pod.namespace.as_deref() == Some(namespace);
        let owner = pod.name.clone().zip(pod.uid.clone()).filter(|_| is_there);
        Identity {
            holder: format!("{name}_{process}"),
            name,
            namespace: namespace.to_owned(),
            group,
            pod: owner.map(|(name, uid)| members::Pod { name, uid }),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one reader of the environment"
)]
fn variable(name: &'static str) -> Option<String> {
    std::env::var(name).ok()
}

impl Run {
    /// Every type of Secret that may be written. Tokens of Kubernetes are not among them, whatever the flags say.
    #[must_use]
    pub fn target_types(&self) -> Vec<String> {
        let tokens = [
            "kubernetes.io/service-account-token",
            "bootstrap.kubernetes.io/token",
        ];
        let more = self
            .allow_secret_type
            .iter()
            .filter(|name| !tokens.contains(&name.as_str()));
        TARGET_TYPES
            .map(ToOwned::to_owned)
            .into_iter()
            .chain(more.cloned())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(flags: &[&str]) -> Run {
        let words = ["kms-secret-operator", "run"].iter().chain(flags);
        match Cli::try_parse_from(words).unwrap().command {
            Command::Run(run) => *run,
            _ => unreachable!(),
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
        Kubectl::command().debug_assert();
    }

    #[test]
    fn the_name_that_it_is_called_by_decides() {
        let parse = |words: &[&str]| Command::parse(words.iter().map(OsString::from));
        let plugin = "/usr/local/bin/kubectl-kmssecret";
        for words in [[plugin, "status"], ["kms-secret-operator", "status"]] {
            let parsed = parse(&words).unwrap();
            assert!(matches!(parsed, Command::Plugin(Plugin::Status(_))));
        }
        assert!(parse(&[plugin, "run"]).is_err());
        assert!(matches!(parse(&["anything", "run"]), Ok(Command::Run(_))));
    }

    #[test]
    fn contradictions_are_refused() {
        for (words, is_good) in [
            ("status", true),
            (
                "status a b -n shop -o wide --problems --context c --as u",
                true,
            ),
            ("status -A -l team=shop -o json", true),
            ("status a -A", false),
            ("status a -l team=shop", false),
            ("status -A -n shop", false),
            ("sync a b --wait --timeout 90s", true),
            ("sync --all", true),
            ("sync -l team=shop", true),
            ("sync", false),
            ("sync a --all", false),
            ("sync a --timeout 90s", false),
            ("sync a --wait --timeout 0s", false),
        ] {
            let words = ["kubectl-kmssecret"].into_iter().chain(words.split(' '));
            let parsed = Command::parse(words.map(OsString::from));
            assert_eq!(parsed.is_ok(), is_good, "{parsed:?}");
        }
    }

    #[test]
    fn token_types_are_never_allowed() {
        let types = run(&[
            "--allow-secret-type",
            "example.com/x",
            "--allow-secret-type",
            "kubernetes.io/service-account-token",
        ])
        .target_types();
        assert!(types.iter().any(|name| name == "example.com/x"));
        assert!(
            !types
                .iter()
                .any(|name| name == "kubernetes.io/service-account-token")
        );
    }

    #[test]
    fn a_replica_is_its_pod_or_has_a_name_of_its_own() {
        let pod = Pod {
            name: Some("pod-1".into()),
            uid: Some("u".into()),
            namespace: Some("kms".into()),
        };
        let of = |flags: &[&str], pod: &Pod| {
            let mut replica = run(flags).replica;
            replica.pod = pod.clone();
            let is = replica.identity("0123456789ab", "default", "cluster".into());
            (is.namespace, is.name, is.holder, is.pod.map(|pod| pod.uid))
        };
        let is = |namespace: &str, name: &str, owner: Option<&str>| {
            let holder = format!("{name}_0123456789ab");
            (namespace.into(), name.into(), holder, owner.map(Into::into))
        };
        assert_eq!(of(&[], &pod), is("kms", "pod-1", Some("u")));
        let by_hand = is("default", "kms-secret-operator-01234567", None);
        assert_eq!(of(&[], &Pod::default()), by_hand);
        let elsewhere = of(&["--lease-namespace", "x", "--replica-name", "r"], &pod);
        assert_eq!(elsewhere, is("x", "r", None));
        for wrong in ["", "A", "a/b", "-a", "a..b"] {
            assert!(object_name(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn nobody_can_let_everybody_send_events() {
        let (listen, token) = (
            ["--event-listen", "0.0.0.0:8443"],
            ["--event-token-file", "t"],
        );
        let tls = ["--event-tls-cert", "c", "--event-tls-key", "k"];
        let ca = ["--event-client-ca", "ca"];
        let parse = |parts: &[&[&str]]| {
            let words = ["kms-secret-operator", "run"];
            Cli::try_parse_from(words.into_iter().chain(parts.concat())).is_ok()
        };
        for parts in [
            &[&listen[..], &token][..],
            &[&listen, &token, &tls],
            &[&listen, &tls, &ca],
            &[&listen, &token, &tls, &ca],
        ] {
            assert!(parse(parts), "{parts:?}");
        }
        for parts in [
            &[&listen[..]][..],
            &[&token],
            &[&listen, &tls],
            &[&listen, &ca],
            &[&listen, &token, &tls[..2]],
            &[&listen, &token, &tls[2..]],
        ] {
            assert!(!parse(parts), "{parts:?}");
        }
    }

    #[test]
    fn every_flag_has_an_environment_variable() {
        use clap::CommandFactory as _;
        let command = Cli::command();
        let run = command.find_subcommand("run").unwrap();
        for flag in run
            .get_arguments()
            .filter(|flag| !["help", "version"].contains(&flag.get_id().as_str()))
        {
            assert!(flag.get_env().is_some(), "{}", flag.get_id());
        }
    }
}
