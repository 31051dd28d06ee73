//! Whether a pod template uses a Secret. Pure.

use k8s_openapi::api::core::v1::{Container, PodTemplateSpec, Volume};

/// Whether pods of this template hold anything of the Secret: as a variable of a container or an init container, in a
/// volume, or to pull their images. A template has no ephemeral containers: Kubernetes does not admit them.
#[must_use]
pub fn uses(template: &PodTemplateSpec, secret: &str) -> bool {
    let Some(pod) = &template.spec else {
        return false;
    };
    let init = pod.init_containers.iter().flatten();
    let mut containers = pod.containers.iter().chain(init);
    let mut pulls = pod.image_pull_secrets.iter().flatten();
    containers.any(|container| has_variable(container, secret))
        || pod.volumes.iter().flatten().any(|v| mounts(v, secret))
        || pulls.any(|pull| pull.name == secret)
}

fn has_variable(container: &Container, secret: &str) -> bool {
    let one = container.env.iter().flatten().filter_map(|variable| {
        let from = variable.value_from.as_ref()?.secret_key_ref.as_ref()?;
        Some(&from.name)
    });
    let all = container.env_from.iter().flatten();
    let all = all.filter_map(|from| Some(&from.secret_ref.as_ref()?.name));
    one.chain(all).any(|name| name == secret)
}

fn mounts(volume: &Volume, secret: &str) -> bool {
    let whole = volume
        .secret
        .as_ref()
        .and_then(|volume| volume.secret_name.as_ref());
    let projected = volume.projected.iter();
    let projected = projected
        .flat_map(|projected| projected.sources.iter().flatten())
        .filter_map(|source| Some(&source.secret.as_ref()?.name));
    // What a driver logs in to its storage with.
    let drivers = [
        volume.azure_file.as_ref().map(|v| &v.secret_name),
        volume
            .cephfs
            .as_ref()
            .and_then(|v| Some(&v.secret_ref.as_ref()?.name)),
        volume
            .cinder
            .as_ref()
            .and_then(|v| Some(&v.secret_ref.as_ref()?.name)),
        volume
            .csi
            .as_ref()
            .and_then(|v| Some(&v.node_publish_secret_ref.as_ref()?.name)),
        volume
            .flex_volume
            .as_ref()
            .and_then(|v| Some(&v.secret_ref.as_ref()?.name)),
        volume
            .iscsi
            .as_ref()
            .and_then(|v| Some(&v.secret_ref.as_ref()?.name)),
        volume
            .rbd
            .as_ref()
            .and_then(|v| Some(&v.secret_ref.as_ref()?.name)),
        volume.scale_io.as_ref().map(|v| &v.secret_ref.name),
        volume
            .storageos
            .as_ref()
            .and_then(|v| Some(&v.secret_ref.as_ref()?.name)),
    ];
    let drivers = drivers.into_iter().flatten();
    let mut names = whole.into_iter().chain(projected).chain(drivers);
    names.any(|name| name == secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn template(pod: Value) -> PodTemplateSpec {
        let mut pod = pod;
        if pod.get("containers").is_none() {
            pod["containers"] = json!([{"name": "app"}]);
        }
        serde_json::from_value(json!({"spec": pod})).unwrap()
    }

    #[test]
    fn a_template_uses_a_secret_wherever_it_names_it() {
        let app = |more: Value| {
            let mut container = json!({"name": "app"});
            container
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            container
        };
        let variable = json!({"env": [{"name": "A", "value": "db"}, {"name": "P", "valueFrom": {"secretKeyRef": {"name": "db", "key": "p"}}}]});
        let all =
            json!({"envFrom": [{"configMapRef": {"name": "x"}}, {"secretRef": {"name": "db"}}]});
        let volume = |volume: Value| {
            let mut volume = volume;
            volume["name"] = "v".into();
            json!({"volumes": [{"name": "tmp", "emptyDir": {}}, volume]})
        };
        let project = json!({"projected": {"sources": [{"configMap": {"name": "x"}}, {"secret": {"name": "db"}}]}});
        for pod in [
            json!({"containers": [{"name": "first"}, app(variable.clone())]}),
            json!({"containers": [app(all.clone())]}),
            json!({"containers": [{"name": "app"}], "initContainers": [app(variable)]}),
            json!({"containers": [{"name": "app"}], "initContainers": [app(all)]}),
            json!({"imagePullSecrets": [{"name": "other"}, {"name": "db"}]}),
            volume(json!({"secret": {"secretName": "db"}})),
            volume(project),
            volume(json!({"csi": {"driver": "d", "nodePublishSecretRef": {"name": "db"}}})),
            volume(json!({"azureFile": {"shareName": "s", "secretName": "db"}})),
            volume(json!({"cephfs": {"monitors": [], "secretRef": {"name": "db"}}})),
            volume(json!({"cinder": {"volumeID": "v", "secretRef": {"name": "db"}}})),
            volume(json!({"flexVolume": {"driver": "d", "secretRef": {"name": "db"}}})),
            volume(
                json!({"iscsi": {"iqn": "i", "lun": 0, "targetPortal": "t", "secretRef": {"name": "db"}}}),
            ),
            volume(json!({"rbd": {"image": "i", "monitors": [], "secretRef": {"name": "db"}}})),
            volume(
                json!({"scaleIO": {"gateway": "g", "system": "s", "secretRef": {"name": "db"}}}),
            ),
            volume(json!({"storageos": {"secretRef": {"name": "db"}}})),
        ] {
            assert!(uses(&template(pod.clone()), "db"), "{pod}");
            assert!(!uses(&template(pod.clone()), "d"), "{pod}");
        }
    }

    #[test]
    fn what_only_looks_like_the_name_of_a_secret_is_no_use_of_it() {
        for pod in [
            json!({"serviceAccountName": "db"}),
            json!({"containers": [{"name": "db", "image": "db", "env": [{"name": "db", "value": "db"}]}]}),
            json!({"containers": [{"name": "app", "envFrom": [{"configMapRef": {"name": "db"}}]}]}),
            json!({"containers": [{"name": "app", "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "db", "key": "p"}}}]}]}),
            json!({"volumes": [{"name": "db", "configMap": {"name": "db"}}, {"name": "c", "persistentVolumeClaim": {"claimName": "db"}}]}),
        ] {
            assert!(!uses(&template(pod.clone()), "db"), "{pod}");
        }
        assert!(!uses(&PodTemplateSpec::default(), "db"));
    }
}
