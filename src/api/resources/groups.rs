//! The rows of all groups, in the order clients prefer them.

use std::time::Duration;

use super::descriptor::{Cached, Measure, Resource};
use super::subresource::{Handler, Part, Review, Stream};
use super::{apps, batch, core, custom, others};
use crate::meta::Gvk;
use crate::table;
use crate::validate::NameRule;

const GET_UPDATE: &[&str] = &["get", "patch", "update"];
const CREATE: &[&str] = &["create"];
const GET: &[&str] = &["get"];
const UPDATE: &[&str] = &["update"];
const STREAM: &[&str] = &["create", "get"];
/// How long events are kept, as upstream does.
const EVENT_TTL: Duration = Duration::from_secs(3600);
const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];

/// Every built-in row.
pub(super) fn rows() -> Vec<Resource> {
    [
        core_rows,
        core_workload_rows,
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
        metrics,
    ]
    .iter()
    .flat_map(|rows| rows())
    .collect()
}

fn core_events() -> Resource {
    Resource::namespaced(("", "v1"), "Event", "events")
        .ttl(EVENT_TTL)
        .created_by_update()
        .printer(&table::cluster::EVENTS)
        .with(&core::Event)
        .short(&["ev"])
}

fn core_rows() -> Vec<Resource> {
    let gv = ("", "v1");
    vec![
        Resource::namespaced(gv, "Binding", "bindings").review(Review::Binding),
        Resource::cluster(gv, "ComponentStatus", "componentstatuses")
            .printer(&table::cluster::COMPONENTS)
            .short(&["cs"])
            .deprecated("v1 ComponentStatus is deprecated in v1.19+")
            .measured(Measure::Components),
        Resource::namespaced(gv, "ConfigMap", "configmaps")
            .printer(&table::cluster::CONFIG_MAPS)
            .with(&core::ConfigMap)
            .short(&["cm"]),
        Resource::namespaced(gv, "Endpoints", "endpoints")
            .created_by_update()
            .printer(&table::network::ENDPOINTS)
            .with(&core::Endpoints)
            .short(&["ep"])
            .deprecated("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
        core_events(),
        Resource::namespaced(gv, "LimitRange", "limitranges")
            .cached(Cached::All)
            .created_by_update()
            .printer(&table::CREATED_AT)
            .with(&others::LimitRange)
            .short(&["limits"]),
        Resource::cluster(gv, "Namespace", "namespaces")
            .cached(Cached::All)
            .printer(&table::cluster::NAMESPACES)
            .with(&core::Namespace)
            .short(&["ns"])
            .verbs(&["create", "delete", "get", "list", "patch", "update", "watch"])
            .names(NameRule::Label)
            .status()
            .part(Part::Finalize, UPDATE),
        Resource::cluster(gv, "Node", "nodes")
            .printer(&table::cluster::NODES)
            .with(&core::Node)
            .short(&["no"])
            .status()
            .sub(Handler::Stream(Stream::NodeProxy), Gvk::of("", "v1", "NodeProxyOptions"), PROXY),
        Resource::namespaced(gv, "PersistentVolumeClaim", "persistentvolumeclaims")
            .shown_when_gone()
            .printer(&table::storage::CLAIMS)
            .with(&core::Claim)
            .short(&["pvc"])
            .status(),
        Resource::cluster(gv, "PersistentVolume", "persistentvolumes")
            .cached(Cached::All)
            .shown_when_gone()
            .printer(&table::storage::VOLUMES)
            .with(&core::PersistentVolume)
            .short(&["pv"])
            .status(),
        Resource::namespaced(gv, "ResourceQuota", "resourcequotas")
            .with(&others::ResourceQuota)
            .cached(Cached::All)
            .shown_when_gone()
            .created_by_update()
            .printer(&table::policy::QUOTAS)
            .short(&["quota"])
            .status(),
        Resource::namespaced(gv, "Secret", "secrets")
            .cached(Cached::Below("kube-system/bootstrap-token-"))
            .printer(&table::cluster::SECRETS)
            .with(&core::Secret),
        Resource::namespaced(gv, "Service", "services")
            .cached(Cached::All)
            .shown_when_gone()
            .created_by_update()
            .printer(&table::network::SERVICES)
            .with(&core::Service)
            .short(&["svc"])
            .all()
            .names(NameRule::Label1035)
            .status()
            .sub(Handler::Stream(Stream::ServiceProxy), Gvk::of("", "v1", "ServiceProxyOptions"), PROXY),
    ]
}

/// Pods, what is made of them and who they are, in the core group.
fn core_workload_rows() -> Vec<Resource> {
    let gv = ("", "v1");
    vec![
        Resource::namespaced(gv, "Pod", "pods")
            .cached(Cached::All)
            .shown_when_gone()
            .printer(&table::pod::PODS)
            .with(&core::Pod)
            .short(&["po"])
            .all()
            .counted()
            .status()
            .sub(Handler::Stream(Stream::Attach), Gvk::of("", "v1", "PodAttachOptions"), STREAM)
            .sub(Handler::Binding, Gvk::of("", "v1", "Binding"), CREATE)
            .part(Part::EphemeralContainers, GET_UPDATE)
            .sub(Handler::Eviction, Gvk::of("policy", "v1", "Eviction"), CREATE)
            .sub(Handler::Stream(Stream::Exec), Gvk::of("", "v1", "PodExecOptions"), STREAM)
            .sub(Handler::Stream(Stream::Log), Gvk::of("", "v1", "Pod"), GET)
            .sub(Handler::Stream(Stream::PortForward), Gvk::of("", "v1", "PodPortForwardOptions"), STREAM)
            .sub(Handler::Stream(Stream::PodProxy), Gvk::of("", "v1", "PodProxyOptions"), PROXY)
            .part(Part::Resize, GET_UPDATE),
        Resource::namespaced(gv, "PodTemplate", "podtemplates")
            .shown_when_gone()
            .printer(&table::workloads::POD_TEMPLATES)
            .with(&core::PodTemplate)
            .counted(),
        Resource::namespaced(gv, "ReplicationController", "replicationcontrollers")
            .printer(&table::workloads::REPLICA_SETS)
            .with(&apps::ReplicationController)
            .short(&["rc"])
            .all()
            .counted()
            .status()
            .scale(),
        Resource::namespaced(gv, "ServiceAccount", "serviceaccounts")
            .cached(Cached::All)
            .shown_when_gone()
            .printer(&table::cluster::SERVICE_ACCOUNTS)
            .short(&["sa"])
            .sub(Handler::Token, Gvk::of("authentication.k8s.io", "v1", "TokenRequest"), CREATE),
    ]
}

fn apiregistration() -> Vec<Resource> {
    vec![
        Resource::cluster(("apiregistration.k8s.io", "v1"), "APIService", "apiservices")
            .conditional_update()
            .status_keeps_metadata()
            .with(&others::ApiService)
            .names(NameRule::PathSegment)
            .cached(Cached::All)
            .printer(&table::access::API_SERVICES)
            .category(&["api-extensions"])
            .status(),
    ]
}

fn apps_rows() -> Vec<Resource> {
    let gv = ("apps", "v1");
    vec![
        Resource::namespaced(gv, "ControllerRevision", "controllerrevisions")
            .with(&apps::ControllerRevision)
            .printer(&table::workloads::REVISIONS),
        Resource::namespaced(gv, "DaemonSet", "daemonsets")
            .printer(&table::workloads::DAEMON_SETS)
            .with(&apps::DaemonSet)
            .short(&["ds"])
            .all()
            .counted()
            .status(),
        Resource::namespaced(gv, "Deployment", "deployments")
            .printer(&table::workloads::DEPLOYMENTS)
            .with(&apps::Deployment)
            .short(&["deploy"])
            .all()
            .counted()
            .status()
            .scale(),
        Resource::namespaced(gv, "ReplicaSet", "replicasets")
            .printer(&table::workloads::REPLICA_SETS)
            .with(&apps::ReplicaSet)
            .short(&["rs"])
            .all()
            .counted()
            .status()
            .scale(),
        Resource::namespaced(gv, "StatefulSet", "statefulsets")
            .printer(&table::workloads::STATEFUL_SETS)
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
            .created_by_update()
            .printer(&table::cluster::EVENTS)
            .stored_as(core_events()),
    ]
}

fn authentication() -> Vec<Resource> {
    let gv = ("authentication.k8s.io", "v1");
    vec![
        Resource::cluster(gv, "SelfSubjectReview", "selfsubjectreviews").review(Review::SelfSubject),
        Resource::cluster(gv, "TokenReview", "tokenreviews").review(Review::Token),
    ]
}

fn authorization() -> Vec<Resource> {
    let gv = ("authorization.k8s.io", "v1");
    vec![
        Resource::namespaced(gv, "LocalSubjectAccessReview", "localsubjectaccessreviews")
            .review(Review::LocalSubjectAccess),
        Resource::cluster(gv, "SelfSubjectAccessReview", "selfsubjectaccessreviews")
            .review(Review::SelfSubjectAccess),
        Resource::cluster(gv, "SelfSubjectRulesReview", "selfsubjectrulesreviews")
            .review(Review::SelfSubjectRules),
        Resource::cluster(gv, "SubjectAccessReview", "subjectaccessreviews").review(Review::SubjectAccess),
    ]
}

fn autoscaling() -> Vec<Resource> {
    let row = |version| {
        Resource::namespaced(("autoscaling", version), "HorizontalPodAutoscaler", "horizontalpodautoscalers")
            .printer(&table::policy::AUTOSCALERS)
            .short(&["hpa"])
            .all()
            .status()
    };
    let v2 = || row("v2").with(&others::AutoscalerV2);
    vec![v2(), row("v1").with(&others::AutoscalerV1).stored_as(v2())]
}

fn batch_rows() -> Vec<Resource> {
    let gv = ("batch", "v1");
    vec![
        Resource::namespaced(gv, "CronJob", "cronjobs")
            .printer(&table::workloads::CRON_JOBS)
            .with(&batch::CronJob)
            .short(&["cj"])
            .all()
            .counted()
            .status(),
        Resource::namespaced(gv, "Job", "jobs")
            .printer(&table::workloads::JOBS)
            .with(&batch::Job)
            .all()
            .counted()
            .status(),
    ]
}

fn certificates() -> Vec<Resource> {
    let gv = ("certificates.k8s.io", "v1");
    vec![
        Resource::cluster(gv, "CertificateSigningRequest", "certificatesigningrequests")
            .printer(&table::access::SIGNING_REQUESTS)
            .with(&others::SigningRequest)
            .short(&["csr"])
            .status()
            .part(Part::Approval, GET_UPDATE),
    ]
}

fn networking() -> Vec<Resource> {
    let gv = ("networking.k8s.io", "v1");
    vec![
        Resource::cluster(gv, "IngressClass", "ingressclasses")
            .cached(Cached::All)
            .with(&others::IngressClass)
            .printer(&table::network::INGRESS_CLASSES)
            .counted(),
        Resource::namespaced(gv, "Ingress", "ingresses")
            .cached(Cached::All)
            .printer(&table::network::INGRESSES)
            .with(&others::Ingress)
            .short(&["ing"])
            .counted()
            .status(),
        Resource::cluster(gv, "IPAddress", "ipaddresses")
            .with(&others::IpAddress)
            .printer(&table::network::IP_ADDRESSES)
            .short(&["ip"]),
        Resource::namespaced(gv, "NetworkPolicy", "networkpolicies")
            .printer(&table::network::POLICIES)
            .with(&others::NetworkPolicy)
            .short(&["netpol"])
            .counted(),
        Resource::cluster(gv, "ServiceCIDR", "servicecidrs")
            .with(&others::ServiceCidr)
            .printer(&table::network::SERVICE_CIDRS)
            .status(),
    ]
}

/// What `kubectl top` and autoscalers ask for.
fn metrics() -> Vec<Resource> {
    let gv = ("metrics.k8s.io", "v1beta1");
    vec![
        Resource::cluster(gv, "NodeMetrics", "nodes").measured(Measure::Nodes),
        Resource::namespaced(gv, "PodMetrics", "pods").measured(Measure::Pods),
    ]
}

fn policy() -> Vec<Resource> {
    vec![
        Resource::namespaced(("policy", "v1"), "PodDisruptionBudget", "poddisruptionbudgets")
            .conditional_update()
            .printer(&table::policy::DISRUPTION_BUDGETS)
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
            .cached(Cached::All)
            .created_by_update()
            .printer(&table::access::BINDINGS)
            .with(&others::Binding)
            .names(NameRule::PathSegment),
        Resource::cluster(gv, "ClusterRole", "clusterroles")
            .cached(Cached::All)
            .created_by_update()
            .printer(&table::CREATED_AT)
            .with(&others::Role)
            .names(NameRule::PathSegment),
        Resource::namespaced(gv, "RoleBinding", "rolebindings")
            .cached(Cached::All)
            .created_by_update()
            .printer(&table::access::BINDINGS)
            .with(&others::Binding)
            .names(NameRule::PathSegment),
        Resource::namespaced(gv, "Role", "roles")
            .cached(Cached::All)
            .created_by_update()
            .printer(&table::CREATED_AT)
            .with(&others::Role)
            .names(NameRule::PathSegment),
    ]
}

fn storage() -> Vec<Resource> {
    let gv = ("storage.k8s.io", "v1");
    vec![
        Resource::cluster(gv, "CSIDriver", "csidrivers")
            .conditional_update()
            .with(&others::CsiDriver)
            .printer(&table::storage::CSI_DRIVERS),
        Resource::cluster(gv, "CSINode", "csinodes")
            .conditional_update()
            .with(&others::CsiNode)
            .printer(&table::storage::CSI_NODES),
        Resource::namespaced(gv, "CSIStorageCapacity", "csistoragecapacities")
            .conditional_update()
            .with(&others::CsiStorageCapacity),
        Resource::cluster(gv, "StorageClass", "storageclasses")
            .cached(Cached::All)
            .printer(&table::storage::CLASSES)
            .with(&others::StorageClass)
            .short(&["sc"]),
        Resource::cluster(gv, "VolumeAttachment", "volumeattachments")
            .conditional_update()
            .status_keeps_metadata()
            .with(&others::VolumeAttachment)
            .printer(&table::storage::ATTACHMENTS)
            .status(),
        Resource::cluster(gv, "VolumeAttributesClass", "volumeattributesclasses")
            .with(&others::VolumeAttributesClass)
            .short(&["vac"]),
    ]
}

fn admissionregistration() -> Vec<Resource> {
    let gv = ("admissionregistration.k8s.io", "v1");
    let row = |kind, plural| {
        Resource::cluster(gv, kind, plural)
            .conditional_update()
            .category(&["api-extensions"])
            .counted()
            .cached(Cached::All)
    };
    vec![
        row("MutatingAdmissionPolicy", "mutatingadmissionpolicies")
            .with(&others::AdmissionPolicy { mutating: true }),
        row("MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings")
            .with(&others::PolicyBinding { mutating: true }),
        row("MutatingWebhookConfiguration", "mutatingwebhookconfigurations")
            .printer(&table::access::WEBHOOKS)
            .with(&others::Webhooks { mutating: true }),
        row("ValidatingAdmissionPolicy", "validatingadmissionpolicies")
            .printer(&table::access::POLICIES)
            .with(&others::AdmissionPolicy { mutating: false })
            .status(),
        row("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings")
            .printer(&table::access::POLICY_BINDINGS)
            .with(&others::PolicyBinding { mutating: false }),
        row("ValidatingWebhookConfiguration", "validatingwebhookconfigurations")
            .printer(&table::access::WEBHOOKS)
            .with(&others::Webhooks { mutating: false }),
    ]
}

fn apiextensions() -> Vec<Resource> {
    let gv = ("apiextensions.k8s.io", "v1");
    vec![
        Resource::cluster(gv, "CustomResourceDefinition", "customresourcedefinitions")
            .conditional_update()
            .status_keeps_metadata()
            .with(&custom::Definition)
            .cached(Cached::All)
            .printer(&table::CREATED_AT)
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
            .cached(Cached::All)
            .printer(&table::cluster::PRIORITY_CLASSES)
            .with(&others::PriorityClass)
            .short(&["pc"])
            .counted(),
    ]
}

fn coordination() -> Vec<Resource> {
    vec![
        Resource::namespaced(("coordination.k8s.io", "v1"), "Lease", "leases")
            .conditional_update()
            .with(&others::Lease)
            .created_by_update()
            .printer(&table::cluster::LEASES),
    ]
}

fn node() -> Vec<Resource> {
    vec![
        Resource::cluster(("node.k8s.io", "v1"), "RuntimeClass", "runtimeclasses")
            .conditional_update()
            .with(&others::RuntimeClass)
            .cached(Cached::All)
            .printer(&table::cluster::RUNTIME_CLASSES),
    ]
}

fn discovery() -> Vec<Resource> {
    vec![
        Resource::namespaced(("discovery.k8s.io", "v1"), "EndpointSlice", "endpointslices")
            .printer(&table::network::ENDPOINT_SLICES)
            .with(&core::EndpointSlice)
            .counted(),
    ]
}

fn flowcontrol() -> Vec<Resource> {
    let gv = ("flowcontrol.apiserver.k8s.io", "v1");
    vec![
        Resource::cluster(gv, "FlowSchema", "flowschemas")
            .conditional_update()
            .cached(Cached::All)
            .status_keeps_metadata()
            .with(&others::FlowSchema)
            .printer(&table::policy::FLOW_SCHEMAS)
            .counted()
            .status(),
        Resource::cluster(gv, "PriorityLevelConfiguration", "prioritylevelconfigurations")
            .conditional_update()
            .cached(Cached::All)
            .status_keeps_metadata()
            .with(&others::PriorityLevel)
            .printer(&table::policy::PRIORITY_LEVELS)
            .counted()
            .status(),
    ]
}

fn resource() -> Vec<Resource> {
    let gv = ("resource.k8s.io", "v1");
    vec![
        Resource::cluster(gv, "DeviceClass", "deviceclasses").counted(),
        Resource::namespaced(gv, "ResourceClaim", "resourceclaims").status_keeps_metadata().status(),
        Resource::namespaced(gv, "ResourceClaimTemplate", "resourceclaimtemplates"),
        Resource::cluster(gv, "ResourceSlice", "resourceslices").counted(),
    ]
}
