//! Tables as `kubectl get` asks for them (`meta.k8s.io/v1` Table): which columns a kind has and what stands in them.
//!
//! Columns, their order and their texts follow the printers of the Kubernetes API server. A kind without a printer
//! of its own shows name and age.

mod access;
mod cluster;
mod duration;
mod network;
mod pod;
mod policy;
mod storage;
mod view;
mod workloads;

pub use duration::human_duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::resources::Resource;

/// One column's definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    /// OpenAPI type of the cells: `string`, `integer`, `boolean`, `date`.
    pub kind: &'static str,
    /// `name` for the column that identifies the object, else empty.
    pub format: &'static str,
    pub description: &'static str,
    /// 0: always shown; greater: only by `-o wide`.
    pub priority: u8,
}

impl Column {
    const fn text(name: &'static str, description: &'static str) -> Self {
        Self { name, kind: "string", format: "", description, priority: 0 }
    }

    const fn number(name: &'static str, description: &'static str) -> Self {
        Self { name, kind: "integer", format: "", description, priority: 0 }
    }

    fn to_value(self) -> Value {
        json!({
            "name": self.name,
            "type": self.kind,
            "format": self.format,
            "description": self.description,
            "priority": self.priority,
        })
    }

    const fn wide(self) -> Self {
        Self { priority: 1, ..self }
    }

    const NAME: Self = Self {
        name: "Name",
        kind: "string",
        format: "name",
        description: "Name of the object, unique within its namespace (or the cluster) for its kind.",
        priority: 0,
    };
    const AGE: Self = Self::text("Age", "Time since the object was created.");
    const CREATED: Self = Self {
        name: "Created At",
        kind: "date",
        format: "",
        description: "Time at which the object was created.",
        priority: 0,
    };
}

/// How one kind is shown.
#[derive(Clone, Copy, Debug)]
pub struct Printer {
    pub columns: &'static [Column],
    /// One object's cells, one for each column.
    pub cells: fn(&Value, Timestamp) -> Vec<Value>,
}

/// What a row carries beside its cells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

impl IncludeObject {
    /// The query parameter `includeObject`; empty means `Metadata`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "None" => Some(Self::None),
            "" | "Metadata" => Some(Self::Metadata),
            "Object" => Some(Self::Object),
            _ => None,
        }
    }
}

/// The printer of a built-in resource; kinds that have none of their own show name and age.
pub fn printer(group: &str, resource: &str) -> &'static Printer {
    PRINTERS
        .iter()
        .find(|(g, r, _)| *g == group && *r == resource)
        .map_or(&DEFAULT, |(_, _, printer)| *printer)
}

/// One object's row.
pub fn row(resource: &Resource, object: &Value, include: IncludeObject, now: Timestamp) -> Value {
    let mut row = Map::new();
    row.insert("cells".into(), Value::Array(resource.cells(object, now)));
    match include {
        IncludeObject::None => {}
        IncludeObject::Metadata => {
            row.insert("object".into(), partial_metadata(object));
        }
        IncludeObject::Object => {
            row.insert("object".into(), object.clone());
        }
    }
    Value::Object(row)
}

/// The table's columns as its head has them.
pub fn heads(resource: &Resource) -> Value {
    resource.columns().iter().map(|column| column.to_value()).collect()
}

/// A whole table. `list_meta`: the list's metadata; null for a single object. A watch sends one table of one row per
/// event, the heads in the first only: pass `None` afterwards.
pub fn assemble(heads: Option<Value>, list_meta: Value, rows: Vec<Value>) -> Value {
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": if list_meta.is_null() { json!({}) } else { list_meta },
        "columnDefinitions": heads.unwrap_or_else(|| json!([])),
        "rows": rows,
    })
}

/// The table of these objects.
pub fn render(
    resource: &Resource,
    objects: &[Value],
    list_meta: Value,
    include: IncludeObject,
    now: Timestamp,
) -> Value {
    let rows = objects.iter().map(|object| row(resource, object, include, now)).collect();
    assemble(Some(heads(resource)), list_meta, rows)
}

/// The object reduced to its metadata (`meta.k8s.io/v1` PartialObjectMetadata).
pub fn partial_metadata(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object.get("metadata").cloned().unwrap_or_else(|| json!({})),
    })
}

const DEFAULT: Printer =
    Printer { columns: &[Column::NAME, Column::AGE], cells: |o, now| vec![view::name(o), view::age(o, now)] };

const CREATED_AT: Printer = Printer {
    columns: &[Column::NAME, Column::CREATED],
    cells: |o, _| vec![view::name(o), view::created(o)],
};

/// Group, resource, printer.
const PRINTERS: &[(&str, &str, &Printer)] = &[
    ("", "configmaps", &cluster::CONFIG_MAPS),
    ("", "endpoints", &network::ENDPOINTS),
    ("", "events", &cluster::EVENTS),
    ("", "limitranges", &CREATED_AT),
    ("", "namespaces", &cluster::NAMESPACES),
    ("", "nodes", &cluster::NODES),
    ("", "persistentvolumeclaims", &storage::CLAIMS),
    ("", "persistentvolumes", &storage::VOLUMES),
    ("", "pods", &pod::PODS),
    ("", "podtemplates", &workloads::POD_TEMPLATES),
    ("", "replicationcontrollers", &workloads::REPLICA_SETS),
    ("", "resourcequotas", &policy::QUOTAS),
    ("", "secrets", &cluster::SECRETS),
    ("", "serviceaccounts", &cluster::SERVICE_ACCOUNTS),
    ("", "services", &network::SERVICES),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", &access::WEBHOOKS),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies", &access::POLICIES),
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings", &access::POLICY_BINDINGS),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations", &access::WEBHOOKS),
    ("apiextensions.k8s.io", "customresourcedefinitions", &CREATED_AT),
    ("apiregistration.k8s.io", "apiservices", &access::API_SERVICES),
    ("apps", "controllerrevisions", &workloads::REVISIONS),
    ("apps", "daemonsets", &workloads::DAEMON_SETS),
    ("apps", "deployments", &workloads::DEPLOYMENTS),
    ("apps", "replicasets", &workloads::REPLICA_SETS),
    ("apps", "statefulsets", &workloads::STATEFUL_SETS),
    ("autoscaling", "horizontalpodautoscalers", &policy::AUTOSCALERS),
    ("batch", "cronjobs", &workloads::CRON_JOBS),
    ("batch", "jobs", &workloads::JOBS),
    ("certificates.k8s.io", "certificatesigningrequests", &access::SIGNING_REQUESTS),
    ("coordination.k8s.io", "leases", &cluster::LEASES),
    ("discovery.k8s.io", "endpointslices", &network::ENDPOINT_SLICES),
    ("events.k8s.io", "events", &cluster::EVENTS),
    ("flowcontrol.apiserver.k8s.io", "flowschemas", &policy::FLOW_SCHEMAS),
    ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations", &policy::PRIORITY_LEVELS),
    ("networking.k8s.io", "ingressclasses", &network::INGRESS_CLASSES),
    ("networking.k8s.io", "ingresses", &network::INGRESSES),
    ("networking.k8s.io", "ipaddresses", &network::IP_ADDRESSES),
    ("networking.k8s.io", "networkpolicies", &network::POLICIES),
    ("networking.k8s.io", "servicecidrs", &network::SERVICE_CIDRS),
    ("node.k8s.io", "runtimeclasses", &cluster::RUNTIME_CLASSES),
    ("policy", "poddisruptionbudgets", &policy::DISRUPTION_BUDGETS),
    ("rbac.authorization.k8s.io", "clusterrolebindings", &access::BINDINGS),
    ("rbac.authorization.k8s.io", "clusterroles", &CREATED_AT),
    ("rbac.authorization.k8s.io", "rolebindings", &access::BINDINGS),
    ("rbac.authorization.k8s.io", "roles", &CREATED_AT),
    ("scheduling.k8s.io", "priorityclasses", &cluster::PRIORITY_CLASSES),
    ("storage.k8s.io", "csidrivers", &storage::CSI_DRIVERS),
    ("storage.k8s.io", "csinodes", &storage::CSI_NODES),
    ("storage.k8s.io", "storageclasses", &storage::CLASSES),
    ("storage.k8s.io", "volumeattachments", &storage::ATTACHMENTS),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printers_are_sorted_and_unique() {
        let names: Vec<_> = PRINTERS.iter().map(|(group, resource, _)| (group, resource)).collect();
        let mut sorted = names.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(names, sorted);
    }

    #[test]
    fn every_printer_fills_its_columns_even_for_an_empty_object() {
        let now = Timestamp::UNIX_EPOCH;
        for (group, resource, printer) in PRINTERS.iter().copied().chain([("", "other", &DEFAULT)]) {
            let cells = (printer.cells)(&json!({"metadata": {"name": "x"}}), now);
            assert_eq!(cells.len(), printer.columns.len(), "{group}/{resource}");
        }
    }

    #[test]
    fn rows_carry_what_was_asked() {
        let widgets = Resource::namespaced(("example.com", "v1"), "Widget", "widgets");
        let object = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a"}, "spec": {"x": 1}});
        let check = |include, expect: Value| {
            let table =
                render(&widgets, std::slice::from_ref(&object), Value::Null, include, Timestamp::UNIX_EPOCH);
            assert_eq!(table["rows"][0].get("object").cloned().unwrap_or(Value::Null), expect);
            assert_eq!(table["rows"][0]["cells"], json!(["a", "<unknown>"]));
            assert_eq!(table["columnDefinitions"][0]["format"], "name");
        };
        check(IncludeObject::None, Value::Null);
        check(IncludeObject::Object, object.clone());
        check(
            IncludeObject::Metadata,
            json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"name": "a"}}),
        );
    }
}
