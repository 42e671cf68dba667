//! The rows of all groups, in the order clients prefer them.

use super::descriptor::Resource;
use super::{apps, batch, core, others};
use crate::api::meta::{Gvk, Gvr};
use crate::api::validate::NameRule;

const GET_UPDATE: &[&str] = &["get", "patch", "update"];
const CREATE: &[&str] = &["create"];
const GET: &[&str] = &["get"];
const UPDATE: &[&str] = &["update"];
const STREAM: &[&str] = &["create", "get"];
const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];

/// Every built-in row.
pub(super) fn rows() -> Vec<Resource> {
    [
        core_rows,
        apiregistration,
        apps_rows,
        events,
        authentication,
        authorization,
        autoscaling,
        batch_rows,
        certificates,
        networking,
        policy,
        rbac,
        storage,
        admissionregistration,
        apiextensions,
        scheduling,
        coordination,
        node,
        discovery,
        flowcontrol,
        resource,
    ]
    .iter()
    .flat_map(|rows| rows())
    .collect()
}

fn core_rows() -> Vec<Resource> {
    let gv = ("", "v1");
    vec![
        Resource::namespaced(gv, "Binding", "bindings").review(),
        Resource::cluster(gv, "ComponentStatus", "componentstatuses").short(&["cs"]).verbs(&["get", "list"]),
        Resource::namespaced(gv, "ConfigMap", "configmaps").with(&core::ConfigMap).short(&["cm"]),
        Resource::namespaced(gv, "Endpoints", "endpoints").with(&core::Endpoints).short(&["ep"]),
        Resource::namespaced(gv, "Event", "events").with(&core::Event).short(&["ev"]),
        Resource::namespaced(gv, "LimitRange", "limitranges").with(&core::LimitRange).short(&["limits"]),
        Resource::cluster(gv, "Namespace", "namespaces")
            .with(&core::Namespace)
            .short(&["ns"])
            .verbs(&["create", "delete", "get", "list", "patch", "update", "watch"])
            .names(NameRule::Label)
            .status()
            .sub("finalize", Gvk::of("", "v1", "Namespace"), UPDATE),
        Resource::cluster(gv, "Node", "nodes").with(&core::Node).short(&["no"]).status().sub(
            "proxy",
            Gvk::of("", "v1", "NodeProxyOptions"),
            PROXY,
        ),
        Resource::namespaced(gv, "PersistentVolumeClaim", "persistentvolumeclaims")
            .with(&core::Claim)
            .short(&["pvc"])
            .status(),
        Resource::cluster(gv, "PersistentVolume", "persistentvolumes")
            .with(&core::PersistentVolume)
            .short(&["pv"])
            .status(),
        Resource::namespaced(gv, "Pod", "pods")
            .with(&core::Pod)
            .short(&["po"])
            .all()
            .counted()
            .status()
            .sub("attach", Gvk::of("", "v1", "PodAttachOptions"), STREAM)
            .sub("binding", Gvk::of("", "v1", "Binding"), CREATE)
            .sub("ephemeralcontainers", Gvk::of("", "v1", "Pod"), GET_UPDATE)
            .sub("eviction", Gvk::of("policy", "v1", "Eviction"), CREATE)
            .sub("exec", Gvk::of("", "v1", "PodExecOptions"), STREAM)
            .sub("log", Gvk::of("", "v1", "Pod"), GET)
            .sub("portforward", Gvk::of("", "v1", "PodPortForwardOptions"), STREAM)
            .sub("proxy", Gvk::of("", "v1", "PodProxyOptions"), PROXY)
            .sub("resize", Gvk::of("", "v1", "Pod"), GET_UPDATE),
        Resource::namespaced(gv, "PodTemplate", "podtemplates").with(&core::PodTemplate).counted(),
        Resource::namespaced(gv, "ReplicationController", "replicationcontrollers")
            .with(&apps::ReplicationController)
            .short(&["rc"])
            .all()
            .counted()
            .status()
            .scale(),
        Resource::namespaced(gv, "ResourceQuota", "resourcequotas").short(&["quota"]).status(),
        Resource::namespaced(gv, "Secret", "secrets").with(&core::Secret),
        Resource::namespaced(gv, "ServiceAccount", "serviceaccounts").short(&["sa"]).sub(
            "token",
            Gvk::of("authentication.k8s.io", "v1", "TokenRequest"),
            CREATE,
        ),
        Resource::namespaced(gv, "Service", "services")
            .with(&core::Service)
            .short(&["svc"])
            .all()
            .names(NameRule::Label1035)
            .status()
            .sub("proxy", Gvk::of("", "v1", "ServiceProxyOptions"), PROXY),
    ]
}

fn apiregistration() -> Vec<Resource> {
    vec![
        Resource::cluster(("apiregistration.k8s.io", "v1"), "APIService", "apiservices")
            .category(&["api-extensions"])
            .status(),
    ]
}

fn apps_rows() -> Vec<Resource> {
    let gv = ("apps", "v1");
    vec![
        Resource::namespaced(gv, "ControllerRevision", "controllerrevisions").with(&apps::ControllerRevision),
        Resource::namespaced(gv, "DaemonSet", "daemonsets")
            .with(&apps::DaemonSet)
            .short(&["ds"])
            .all()
            .counted()
            .status(),
        Resource::namespaced(gv, "Deployment", "deployments")
            .with(&apps::Deployment)
            .short(&["deploy"])
            .all()
            .counted()
            .status()
            .scale(),
        Resource::namespaced(gv, "ReplicaSet", "replicasets")
            .with(&apps::ReplicaSet)
            .short(&["rs"])
            .all()
            .counted()
            .status()
            .scale(),
        Resource::namespaced(gv, "StatefulSet", "statefulsets")
            .with(&apps::StatefulSet)
            .short(&["sts"])
            .all()
            .counted()
            .status()
            .scale(),
    ]
}

fn events() -> Vec<Resource> {
    vec![
        Resource::namespaced(("events.k8s.io", "v1"), "Event", "events")
            .with(&others::Event)
            .short(&["ev"])
            .stored_as(Gvr::of("", "v1", "events")),
    ]
}

fn authentication() -> Vec<Resource> {
    let gv = ("authentication.k8s.io", "v1");
    vec![
        Resource::cluster(gv, "SelfSubjectReview", "selfsubjectreviews").review(),
        Resource::cluster(gv, "TokenReview", "tokenreviews").review(),
    ]
}

fn authorization() -> Vec<Resource> {
    let gv = ("authorization.k8s.io", "v1");
    vec![
        Resource::namespaced(gv, "LocalSubjectAccessReview", "localsubjectaccessreviews").review(),
        Resource::cluster(gv, "SelfSubjectAccessReview", "selfsubjectaccessreviews").review(),
        Resource::cluster(gv, "SelfSubjectRulesReview", "selfsubjectrulesreviews").review(),
        Resource::cluster(gv, "SubjectAccessReview", "subjectaccessreviews").review(),
    ]
}

fn autoscaling() -> Vec<Resource> {
    let row = |version| {
        Resource::namespaced(("autoscaling", version), "HorizontalPodAutoscaler", "horizontalpodautoscalers")
            .short(&["hpa"])
            .all()
            .status()
    };
    vec![
        row("v2").with(&others::AutoscalerV2),
        row("v1").with(&others::AutoscalerV1).stored_as(Gvr::of(
            "autoscaling",
            "v2",
            "horizontalpodautoscalers",
        )),
    ]
}

fn batch_rows() -> Vec<Resource> {
    let gv = ("batch", "v1");
    vec![
        Resource::namespaced(gv, "CronJob", "cronjobs")
            .with(&batch::CronJob)
            .short(&["cj"])
            .all()
            .counted()
            .status(),
        Resource::namespaced(gv, "Job", "jobs").with(&batch::Job).all().counted().status(),
    ]
}

fn certificates() -> Vec<Resource> {
    let gv = ("certificates.k8s.io", "v1");
    let kind = Gvk::of("certificates.k8s.io", "v1", "CertificateSigningRequest");
    vec![
        Resource::cluster(gv, "CertificateSigningRequest", "certificatesigningrequests")
            .with(&others::SigningRequest)
            .short(&["csr"])
            .status()
            .sub("approval", kind, GET_UPDATE),
    ]
}

fn networking() -> Vec<Resource> {
    let gv = ("networking.k8s.io", "v1");
    vec![
        Resource::cluster(gv, "IngressClass", "ingressclasses").counted(),
        Resource::namespaced(gv, "Ingress", "ingresses")
            .with(&others::Ingress)
            .short(&["ing"])
            .counted()
            .status(),
        Resource::cluster(gv, "IPAddress", "ipaddresses").short(&["ip"]),
        Resource::namespaced(gv, "NetworkPolicy", "networkpolicies")
            .with(&others::NetworkPolicy)
            .short(&["netpol"])
            .counted(),
        Resource::cluster(gv, "ServiceCIDR", "servicecidrs").status(),
    ]
}

fn policy() -> Vec<Resource> {
    vec![
        Resource::namespaced(("policy", "v1"), "PodDisruptionBudget", "poddisruptionbudgets")
            .with(&others::DisruptionBudget)
            .short(&["pdb"])
            .counted()
            .status(),
    ]
}

fn rbac() -> Vec<Resource> {
    let gv = ("rbac.authorization.k8s.io", "v1");
    vec![
        Resource::cluster(gv, "ClusterRoleBinding", "clusterrolebindings")
            .with(&others::Binding)
            .names(NameRule::PathSegment),
        Resource::cluster(gv, "ClusterRole", "clusterroles").with(&others::Role).names(NameRule::PathSegment),
        Resource::namespaced(gv, "RoleBinding", "rolebindings")
            .with(&others::Binding)
            .names(NameRule::PathSegment),
        Resource::namespaced(gv, "Role", "roles").with(&others::Role).names(NameRule::PathSegment),
    ]
}

fn storage() -> Vec<Resource> {
    let gv = ("storage.k8s.io", "v1");
    vec![
        Resource::cluster(gv, "CSIDriver", "csidrivers"),
        Resource::cluster(gv, "CSINode", "csinodes"),
        Resource::namespaced(gv, "CSIStorageCapacity", "csistoragecapacities"),
        Resource::cluster(gv, "StorageClass", "storageclasses").with(&others::StorageClass).short(&["sc"]),
        Resource::cluster(gv, "VolumeAttachment", "volumeattachments").status(),
        Resource::cluster(gv, "VolumeAttributesClass", "volumeattributesclasses").short(&["vac"]),
    ]
}

fn admissionregistration() -> Vec<Resource> {
    let gv = ("admissionregistration.k8s.io", "v1");
    let row = |kind, plural| Resource::cluster(gv, kind, plural).category(&["api-extensions"]).counted();
    vec![
        row("MutatingAdmissionPolicy", "mutatingadmissionpolicies"),
        row("MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings"),
        row("MutatingWebhookConfiguration", "mutatingwebhookconfigurations").with(&others::Webhooks),
        row("ValidatingAdmissionPolicy", "validatingadmissionpolicies").status(),
        row("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings"),
        row("ValidatingWebhookConfiguration", "validatingwebhookconfigurations").with(&others::Webhooks),
    ]
}

fn apiextensions() -> Vec<Resource> {
    let gv = ("apiextensions.k8s.io", "v1");
    vec![
        Resource::cluster(gv, "CustomResourceDefinition", "customresourcedefinitions")
            .short(&["crd", "crds"])
            .category(&["api-extensions"])
            .counted()
            .status(),
    ]
}

fn scheduling() -> Vec<Resource> {
    let gv = ("scheduling.k8s.io", "v1");
    vec![
        Resource::cluster(gv, "PriorityClass", "priorityclasses")
            .with(&others::PriorityClass)
            .short(&["pc"])
            .counted(),
    ]
}

fn coordination() -> Vec<Resource> {
    vec![Resource::namespaced(("coordination.k8s.io", "v1"), "Lease", "leases")]
}

fn node() -> Vec<Resource> {
    vec![Resource::cluster(("node.k8s.io", "v1"), "RuntimeClass", "runtimeclasses")]
}

fn discovery() -> Vec<Resource> {
    vec![
        Resource::namespaced(("discovery.k8s.io", "v1"), "EndpointSlice", "endpointslices")
            .with(&core::EndpointSlice)
            .counted(),
    ]
}

fn flowcontrol() -> Vec<Resource> {
    let gv = ("flowcontrol.apiserver.k8s.io", "v1");
    vec![
        Resource::cluster(gv, "FlowSchema", "flowschemas").counted().status(),
        Resource::cluster(gv, "PriorityLevelConfiguration", "prioritylevelconfigurations").counted().status(),
    ]
}

fn resource() -> Vec<Resource> {
    let gv = ("resource.k8s.io", "v1");
    vec![
        Resource::cluster(gv, "DeviceClass", "deviceclasses").counted(),
        Resource::namespaced(gv, "ResourceClaim", "resourceclaims").status(),
        Resource::namespaced(gv, "ResourceClaimTemplate", "resourceclaimtemplates"),
        Resource::cluster(gv, "ResourceSlice", "resourceslices").counted(),
    ]
}
