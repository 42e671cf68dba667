//! Services, endpoints and nodes for tests, written as people write them.

use minik::node::network::{Node, Service, Slice, View};
use serde_json::{Value, json};

/// A view of these API objects, as YAML documents.
pub fn view(yaml: &str) -> View {
    let mut view = View::default();
    let documents: Vec<Value> = serde_yaml::from_multiple(yaml).expect("YAML");
    for object in documents.into_iter().filter(|object| !object.is_null()) {
        match object["kind"].as_str().expect("a kind") {
            "Service" => {
                view.put_service(Service::from_api(&serde_json::from_value(object).expect("a Service")));
            }
            "EndpointSlice" => {
                let slice = Slice::from_api(&serde_json::from_value(object).expect("an EndpointSlice"));
                view.put_slice(slice.expect("a slice of a Service"));
            }
            "Node" => {
                view.put_node(Node::from_api(&serde_json::from_value(object).expect("a Node")));
            }
            other => panic!("a {other} is nothing to the network"),
        }
    }
    view
}

/// An endpoint: `(address, node, state)`, where the state is one of ready, starting, ending (terminating, serving)
/// and ended (terminating, no more serving).
pub type At<'a> = (&'a str, &'a str, &'a str);

/// A slice of `service` in namespace default with one port.
pub fn slice(service: &str, port: Value, endpoints: &[At<'_>]) -> Slice {
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|(address, node, state)| {
            let (ready, serving, terminating) = match *state {
                "ready" => (true, true, false),
                "starting" => (false, false, false),
                "ending" => (false, true, true),
                "ended" => (false, false, true),
                other => panic!("{other} is no state"),
            };
            json!({
                "addresses": [address],
                "nodeName": node,
                "conditions": { "ready": ready, "serving": serving, "terminating": terminating },
            })
        })
        .collect();
    let object = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{service}-x"),
            "namespace": "default",
            "labels": { "kubernetes.io/service-name": service },
        },
        "addressType": "IPv4",
        "ports": [port],
        "endpoints": endpoints,
    });
    Slice::from_api(&serde_json::from_value(object).expect("an EndpointSlice")).expect("of a Service")
}

/// A Service in namespace default; `spec` as in a manifest.
pub fn service(name: &str, spec: Value, ingress: &[&str]) -> Service {
    let ingress: Vec<Value> = ingress.iter().map(|ip| json!({ "ip": ip })).collect();
    let object = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name, "namespace": "default" },
        "spec": spec,
        "status": { "loadBalancer": { "ingress": ingress } },
    });
    Service::from_api(&serde_json::from_value(object).expect("a Service"))
}
