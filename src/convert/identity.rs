//! By whose identity the stores of both peers read, as ours says it: one way, never a chain of attempts.

use super::node::Node;
use super::report::Report;
use super::{Id, Options};
use crate::api::auth::{
    AccessKeyAuth, AccessKeySecretRef, AssumeRole, Auth, ClusterAccessKeyAuth,
    ClusterAccessKeySecretRef, ClusterAssumeRole, ClusterAuth, ClusterServiceAccountAuth,
    EcsRamRoleAuth, OperatorAuth, ServiceAccountAuth, SessionSettings,
};

#[derive(Clone, Debug)]
enum Way {
    AccessKey(AccessKeySecretRef),
    ServiceAccount(ServiceAccountAuth),
    Operator,
    EcsRamRole,
}

/// Who reads.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    way: Way,
    /// Namespace of what the way names, for a store of the cluster.
    namespace: String,
    /// Roles that are assumed after it, with the names of their sessions.
    hops: Vec<(String, Option<String>)>,
}

impl Identity {
    pub(super) fn auth(&self) -> Auth {
        let (mut access_key, mut service_account) = (None, None);
        match self.way.clone() {
            Way::AccessKey(secret_ref) => access_key = Some(AccessKeyAuth { secret_ref }),
            Way::ServiceAccount(account) => service_account = Some(account),
            Way::Operator | Way::EcsRamRole => {}
        }
        Auth {
            access_key,
            service_account,
        }
    }

    pub(super) fn cluster_auth(&self) -> ClusterAuth {
        let namespace = self.namespace.clone();
        let mut auth = ClusterAuth {
            access_key: None,
            service_account: None,
            operator: None,
            ecs_ram_role: None,
        };
        match self.way.clone() {
            Way::AccessKey(secret) => {
                let secret_ref = ClusterAccessKeySecretRef { namespace, secret };
                auth.access_key = Some(ClusterAccessKeyAuth { secret_ref });
            }
            Way::ServiceAccount(account) => {
                auth.service_account = Some(ClusterServiceAccountAuth {
                    namespace,
                    session_name: None,
                    account,
                });
            }
            Way::Operator => auth.operator = Some(OperatorAuth {}),
            Way::EcsRamRole => auth.ecs_ram_role = Some(EcsRamRoleAuth { role_name: None }),
        }
        auth
    }

    pub(super) fn assume_role(&self) -> Option<Vec<AssumeRole>> {
        let hops = self.hops.iter().map(|(role_arn, _)| AssumeRole {
            role_arn: role_arn.clone(),
            external_id: None,
            session: SessionSettings::default(),
        });
        (!self.hops.is_empty()).then(|| hops.collect())
    }

    pub(super) fn cluster_assume_role(&self) -> Option<Vec<ClusterAssumeRole>> {
        let names = self.hops.iter().map(|(_, session)| session.clone());
        let roles = self.assume_role()?.into_iter().zip(names);
        let hops = roles.map(|(role, session_name)| ClusterAssumeRole { session_name, role });
        Some(hops.collect())
    }
}

/// A key of a Secret.
struct KeyRef {
    namespace: Option<String>,
    name: String,
    key: String,
}

fn key_ref(node: &Node<'_>) -> Option<KeyRef> {
    node.is_there().then(|| KeyRef {
        namespace: node.at("namespace").text(),
        name: node.at("name").text().unwrap_or_default(),
        key: node.at("key").text().unwrap_or_default(),
    })
}

/// The namespace of what a store names: its own, or for a store of the cluster the one that is given.
fn home(
    id: &Id,
    is_cluster: bool,
    given: Option<&String>,
    field: &str,
    report: &mut Report,
) -> String {
    match (is_cluster, given) {
        (true, None) => report.refuse(
            field,
            "a store of the cluster says in which namespace it is",
        ),
        (true, Some(given)) => return given.clone(),
        (false, Some(given)) if Some(given) != id.namespace.as_ref() => {
            report.refuse(field, format!("a KmsStore names what is in its own namespace only, and this is in {given:?}: put a copy there, or make a ClusterKmsStore"));
        }
        (false, _) => {}
    }
    id.namespace.clone().unwrap_or_default()
}

fn access_key(
    id: &Id,
    is_cluster: bool,
    pair: (&Node<'_>, &Node<'_>),
    report: &mut Report,
) -> Option<(Way, String)> {
    let (Some(key_id), Some(secret)) = (key_ref(pair.0), key_ref(pair.1)) else {
        report.refuse(&pair.0.path, "an AccessKey is an id and a secret");
        return None;
    };
    if key_id.name != secret.name || key_id.namespace != secret.namespace {
        report.refuse(
            &pair.1.path,
            "id and secret of an AccessKey are in one Secret here: put both into one",
        );
        return None;
    }
    let namespace = home(
        id,
        is_cluster,
        key_id.namespace.as_ref(),
        &pair.0.path,
        report,
    );
    report.ask(format!(
        "kubectl label secret {}{} alikms.dev/credentials=true",
        key_id.name,
        super::flag(&namespace)
    ));
    let unless = |key: String, default: &str| (key != default).then_some(key);
    let secret_ref = AccessKeySecretRef {
        name: key_id.name,
        access_key_id_key: unless(key_id.key, "accessKeyId"),
        access_key_secret_key: unless(secret.key, "accessKeySecret"),
        security_token_key: None,
    };
    Some((Way::AccessKey(secret_ref), namespace))
}

/// The controller's own ServiceAccount, by a token in a file: another one takes its place.
fn controllers_own(
    id: &Id,
    is_cluster: bool,
    (role, provider): (&str, &str),
    options: &Options,
    report: &mut Report,
) -> Option<(Way, String)> {
    if let (Some(name), false) = (&options.service_account, is_cluster) {
        let namespace = id.namespace.clone().unwrap_or_default();
        report.ask(format!(
            "kubectl annotate serviceaccount {name}{} alikms.dev/role-arn={role}",
            super::flag(&namespace)
        ));
        report.ask(format!(
            "let the trust policy of {role} name system:serviceaccount:{}:{name} in place of that controller's ServiceAccount",
            if namespace.is_empty() { "<namespace>" } else { &namespace }
        ));
        return Some((service_account(name, Some(role), provider), namespace));
    }
    if is_cluster {
        report.ask(format!("run the operator with the role {role} of the provider {provider} (docs/auth/operator.md), and let the role's trust policy name the operator's ServiceAccount"));
        return Some((Way::Operator, String::new()));
    }
    report.refuse("spec", "it reads by the controller's own ServiceAccount, which no KmsStore does: say --service-account with the name of one of its namespace, or make a ClusterKmsStore with auth.operator");
    None
}

fn service_account(name: &str, role: Option<&str>, provider: &str) -> Way {
    Way::ServiceAccount(ServiceAccountAuth {
        name: name.to_owned(),
        role_arn: role.map(ToOwned::to_owned),
        oidc_provider_arn: provider.to_owned(),
        session: SessionSettings::default(),
    })
}

/// Of `spec.provider.alibaba.auth`.
pub(super) fn of_eso(
    id: &Id,
    is_cluster: bool,
    spec: &Node<'_>,
    options: &Options,
    report: &mut Report,
) -> Option<Identity> {
    let provider = spec.at("provider").at("alibaba");
    if !provider.is_there() {
        spec.is_given();
        report.refuse("spec.provider", "it is not of Alibaba Cloud");
        return None;
    }
    let (rrsa, pair) = (
        provider.at("auth").at("rrsa"),
        provider.at("auth").at("secretRef"),
    );
    let (way, namespace) = if rrsa.is_there() {
        if pair.is_given() {
            report.note(&pair.path, "it was never used, since rrsa goes before it");
        }
        for unused in ["oidcTokenFilePath", "sessionName"] {
            if rrsa.at(unused).is_given() {
                report.note(
                    &rrsa.at(unused).path,
                    "tokens are asked of the API server, and sessions are named after the store",
                );
            }
        }
        let role = rrsa.at("roleArn").text().unwrap_or_default();
        let provider = rrsa.at("oidcProviderArn").text().unwrap_or_default();
        controllers_own(id, is_cluster, (&role, &provider), options, report)?
    } else {
        let (key_id, secret) = (
            pair.at("accessKeyIDSecretRef"),
            pair.at("accessKeySecretSecretRef"),
        );
        access_key(id, is_cluster, (&key_id, &secret), report)?
    };
    Some(Identity {
        way,
        namespace,
        hops: Vec::new(),
    })
}

fn check_audiences(audiences: &Node<'_>, report: &mut Report) {
    let mut texts = audiences.texts().into_iter();
    if texts.any(|audience| audience != "sts.aliyuncs.com") {
        report.refuse(&audiences.path, "tokens are for sts.aliyuncs.com only");
    }
}

/// Of `spec.KMS.KMSAuth`.
pub(super) fn of_ack(
    id: &Id,
    is_cluster: bool,
    spec: &Node<'_>,
    options: &Options,
    report: &mut Report,
) -> Option<Identity> {
    let kms = spec.at("KMS");
    for (node, why) in [
        (spec.at("OOS"), "parameters of OOS are not read"),
        (
            kms.at("dedicatedKMSAuth"),
            "client keys of dedicated KMS have no equal: read the instance by RAM, with an AccessKey or a ServiceAccount, at <instance>.cryptoservice.kms.aliyuncs.com",
        ),
    ] {
        if node.is_given() {
            report.refuse(&node.path, why);
        }
    }
    if report.is_refused() {
        spec.is_given();
        return None;
    }
    let auth = kms.at("KMSAuth");
    let text = |name: &str| auth.at(name).text();
    let (role, session) = (text("ramRoleARN"), text("ramRoleSessionName"));
    let provider = text("oidcProviderARN");
    for unused in ["oidcTokenFilePath", "roleSessionExpiration"] {
        if auth.at(unused).is_given() {
            report.note(
                &auth.at(unused).path,
                "tokens are asked of the API server, and sessions last an hour (durationSeconds)",
            );
        }
    }
    let mut hops = Vec::new();
    let account = auth.at("serviceAccountRef");
    let (key_id, secret) = (auth.at("accessKey"), auth.at("accessKeySecret"));
    let has_pair = key_id.is_there() || secret.is_there();
    let has_token = account.is_there() || (provider.is_some() && role.is_some());
    if has_pair && has_token {
        report.refuse(&key_id.path, "it tried the role first and then the AccessKey; a store has one identity: take one of them out");
        auth.is_given();
        return None;
    }
    let (way, namespace) = if account.is_there() {
        let name = account.at("name").text().unwrap_or_default();
        let given = account.at("namespace").text();
        let namespace = home(id, is_cluster, given.as_ref(), &account.path, report);
        check_audiences(&account.at("audiences"), report);
        if role.is_some() || session.is_some() {
            report.note(
                &auth.at("ramRoleARN").path,
                "it was never used: the ServiceAccount's annotation names the role",
            );
        }
        let provider = provider.unwrap_or_else(|| {
            report.refuse(&auth.at("oidcProviderARN").path, "it was made up of the account and the cluster: write it, as acs:ram::<account>:oidc-provider/ack-rrsa-<cluster>");
            String::new()
        });
        report.note(
            &account.path,
            "its annotation ack.alibabacloud.com/role-arn, which it has already, is its consent",
        );
        (service_account(&name, None, &provider), namespace)
    } else if let (Some(role), Some(provider)) = (&role, &provider) {
        controllers_own(id, is_cluster, (role, provider), options, report)?
    } else if has_pair {
        match (&role, session) {
            (Some(role), Some(session)) => hops.push((role.clone(), Some(session))),
            (Some(_), None) => report.note(
                &auth.at("ramRoleARN").path,
                "it was never used, since ramRoleSessionName is missing",
            ),
            (None, _) => {}
        }
        access_key(id, is_cluster, (&key_id, &secret), report)?
    } else if is_cluster {
        (Way::EcsRamRole, String::new())
    } else {
        report.refuse("spec", "it reads by the role of the node, which no KmsStore does: make a ClusterKmsStore with auth.ecsRamRole, or better give a ServiceAccount a role");
        return None;
    };
    let (remote, session) = (text("remoteRamRoleARN"), text("remoteRamRoleSessionName"));
    match (remote, session) {
        (Some(role), Some(session)) => hops.push((role, Some(session))),
        (Some(_), None) => report.note(
            &auth.at("remoteRamRoleARN").path,
            "it was never used, since remoteRamRoleSessionName is missing",
        ),
        (None, _) => {}
    }
    if !is_cluster && hops.iter().any(|(_, session)| session.is_some()) {
        report.lose(&auth.path, "sessions of a KmsStore are named <namespace>.<store>, since the audit log tells tenants apart by them");
    }
    Some(Identity {
        way,
        namespace,
        hops,
    })
}
