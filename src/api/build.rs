//! Gathers what is to be said of Kubernetes' types, for `kubectl explain` and OpenAPI.

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use k8s_openapi_described::api::{
    admissionregistration::v1 as admission, apps::v1 as apps, authentication::v1 as authentication,
    authorization::v1 as authorization, autoscaling::v1 as autoscaling, autoscaling::v2 as autoscaling_v2,
    batch::v1 as batch, certificates::v1 as certificates, coordination::v1 as coordination, core::v1 as core,
    discovery::v1 as discovery, events::v1 as events, flowcontrol::v1 as flowcontrol,
    networking::v1 as networking, node::v1 as node, policy::v1 as policy, rbac::v1 as rbac,
    resource::v1 as resource, scheduling::v1 as scheduling, storage::v1 as storage,
};
use k8s_openapi_described::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
use k8s_openapi_described::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_openapi_described::kube_aggregator::pkg::apis::apiregistration::v1 as apiregistration;
use k8s_openapi_described::schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    write_descriptions(&out.join("descriptions.json.gz"))
}

/// Asks for the definitions of these types, and of all that they contain.
macro_rules! definitions {
    ($($of:ty),* $(,)?) => {{
        let mut generator = SchemaSettings::openapi3().into_generator();
        $( generator.subschema_for::<$of>(); )*
        generator.take_definitions(false)
    }};
}

fn all() -> Map<String, Value> {
    definitions![
        admission::MutatingAdmissionPolicy,
        admission::MutatingAdmissionPolicyBinding,
        admission::MutatingWebhookConfiguration,
        admission::ValidatingAdmissionPolicy,
        admission::ValidatingAdmissionPolicyBinding,
        admission::ValidatingWebhookConfiguration,
        apiextensions::CustomResourceDefinition,
        apiregistration::APIService,
        apps::ControllerRevision,
        apps::DaemonSet,
        apps::Deployment,
        apps::ReplicaSet,
        apps::StatefulSet,
        authentication::SelfSubjectReview,
        authentication::TokenRequest,
        authentication::TokenReview,
        authorization::LocalSubjectAccessReview,
        authorization::SelfSubjectAccessReview,
        authorization::SelfSubjectRulesReview,
        authorization::SubjectAccessReview,
        autoscaling::HorizontalPodAutoscaler,
        autoscaling::Scale,
        autoscaling_v2::HorizontalPodAutoscaler,
        batch::CronJob,
        batch::Job,
        certificates::CertificateSigningRequest,
        coordination::Lease,
        core::Binding,
        core::ComponentStatus,
        core::ConfigMap,
        core::Endpoints,
        core::Event,
        core::LimitRange,
        core::Namespace,
        core::Node,
        core::PersistentVolume,
        core::PersistentVolumeClaim,
        core::Pod,
        core::PodTemplate,
        core::ReplicationController,
        core::ResourceQuota,
        core::Secret,
        core::Service,
        core::ServiceAccount,
        discovery::EndpointSlice,
        events::Event,
        flowcontrol::FlowSchema,
        flowcontrol::PriorityLevelConfiguration,
        meta::DeleteOptions,
        meta::ListMeta,
        meta::ObjectMeta,
        meta::Status,
        networking::IPAddress,
        networking::Ingress,
        networking::IngressClass,
        networking::NetworkPolicy,
        networking::ServiceCIDR,
        node::RuntimeClass,
        policy::Eviction,
        policy::PodDisruptionBudget,
        rbac::ClusterRole,
        rbac::ClusterRoleBinding,
        rbac::Role,
        rbac::RoleBinding,
        resource::DeviceClass,
        resource::ResourceClaim,
        resource::ResourceClaimTemplate,
        resource::ResourceSlice,
        scheduling::PriorityClass,
        storage::CSIDriver,
        storage::CSINode,
        storage::CSIStorageCapacity,
        storage::StorageClass,
        storage::VolumeAttachment,
        storage::VolumeAttributesClass,
    ]
}

/// Writes a packed JSON object to `path`: under the name of each type, what it is and what its fields are. The sentences are those
/// that the crate `k8s-openapi` carries.
fn write_descriptions(path: &Path) -> Result<(), Box<dyn Error>> {
    let said =
        |value: &Value| value.get("description").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut types = Map::new();
    for (name, definition) in all() {
        let fields = definition.get("properties").and_then(Value::as_object).into_iter().flatten();
        let fields: Map<String, Value> =
            fields.map(|(name, field)| (name.clone(), said(field).into())).collect();
        types.insert(name, json!([said(&definition), fields]));
    }
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(Value::Object(types).to_string().as_bytes())?;
    std::fs::write(path, packed.finish()?)?;
    Ok(())
}
