//! What has to be done so that an existing Secret passes from its old controller to ours (docs/migration.md).

use super::report::Report;
use super::{Id, Object, Peer, flag};

/// Asks for the steps of one Secret, in their order.
pub(super) fn steps(object: &Object, id: &Id, secret: &str, report: &mut Report) {
    let Id { namespace, name } = id;
    let space = flag(namespace.as_deref().unwrap_or_default());
    let text = |pointer: &str| {
        object
            .value
            .pointer(pointer)
            .and_then(|value| value.as_str())
    };
    let policy = text("/spec/target/creationPolicy")
        .or(text("/spec/externalSecretSpec/target/creationPolicy"));
    if object.peer() == Some(Peer::Eso) && policy.is_none_or(|policy| policy == "Owner") {
        report.ask(format!(
            r#"once the old controller is stopped: kubectl patch secret {secret}{space} --type json -p '[{{"op":"test","path":"/metadata/ownerReferences/0/name","value":"{name}"}},{{"op":"remove","path":"/metadata/ownerReferences/0"}}]'"#
        ));
    }
    report.ask(format!(
        "kubectl annotate secret {secret}{space} alikms.dev/allow={name}"
    ));
    let group = object.group.split('/').next().unwrap_or_default();
    report.ask(format!(
        r#"once the KmsSecret is Ready: kubectl patch externalsecrets.{group} {name}{space} --type merge -p '{{"metadata":{{"finalizers":null}}}}' && kubectl delete externalsecrets.{group} {name}{space} --cascade=orphan"#
    ));
}
