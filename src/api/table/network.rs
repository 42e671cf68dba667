//! Columns of Services, endpoints and other network kinds.

use serde_json::Value;

use super::view::{self, items, number, or, text};
use super::{Column, Printer};

/// How many addresses or ports a cell lists before it says how many more there are.
const SHOWN: usize = 3;

pub const SERVICES: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::text(
            "Type",
            "How the Service is reached: ClusterIP, NodePort, LoadBalancer or ExternalName.",
        ),
        Column::text("Cluster-IP", "Address of the Service inside the cluster."),
        Column::text("External-IP", "Addresses of the Service outside the cluster."),
        Column::text("Port(s)", "Ports of the Service, with their node ports."),
        Column::AGE,
        Column::text("Selector", "Labels of the Pods the Service leads to.").wide(),
    ],
    cells: |service, now| {
        let cluster_ip = items(service, "/spec/clusterIPs").first().and_then(Value::as_str);
        let cluster_ip = cluster_ip.unwrap_or(text(service, "/spec/clusterIP"));
        vec![
            view::name(service),
            text(service, "/spec/type").into(),
            or(cluster_ip, view::NONE).into(),
            external_ip(service).into(),
            ports(service).into(),
            view::age(service, now),
            view::labels(service, "/spec/selector").into(),
        ]
    },
};

fn external_ip(service: &Value) -> String {
    let own = view::join_texts(items(service, "/spec/externalIPs"), ",");
    match text(service, "/spec/type") {
        "ExternalName" => text(service, "/spec/externalName").to_owned(),
        "LoadBalancer" => {
            let ingress = load_balancer(service);
            let both = [ingress.as_str(), own.as_str()].into_iter().filter(|part| !part.is_empty());
            or(&both.collect::<Vec<_>>().join(","), "<pending>").to_owned()
        }
        "ClusterIP" | "NodePort" => or(&own, view::NONE).to_owned(),
        _ => view::UNKNOWN.to_owned(),
    }
}

/// Addresses or names in `status.loadBalancer`, sorted.
fn load_balancer(object: &Value) -> String {
    let ingress = items(object, "/status/loadBalancer/ingress");
    let mut names: Vec<&str> = ingress.iter().map(|i| or(text(i, "/ip"), text(i, "/hostname"))).collect();
    names.retain(|name| !name.is_empty());
    names.sort_unstable();
    names.dedup();
    names.join(",")
}

fn ports(service: &Value) -> String {
    let ports: Vec<String> = items(service, "/spec/ports")
        .iter()
        .map(|port| match (number(port, "/port"), number(port, "/nodePort"), text(port, "/protocol")) {
            (port, 0, protocol) => format!("{port}/{protocol}"),
            (port, node_port, protocol) => format!("{port}:{node_port}/{protocol}"),
        })
        .collect();
    or(&ports.join(","), view::NONE).to_owned()
}

/// The first few of a list, and how many were left out.
fn first_few(all: &[String], more: &str, empty: &str) -> String {
    if all.is_empty() {
        return empty.to_owned();
    }
    let shown = all[..all.len().min(SHOWN)].join(",");
    match all.len().saturating_sub(SHOWN) {
        0 => shown,
        rest => format!("{shown}{more}{rest} more..."),
    }
}

pub const ENDPOINTS: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::text("Endpoints", "Addresses and ports the Service leads to."),
        Column::AGE,
    ],
    cells: |endpoints, now| {
        let mut all = Vec::new();
        for subset in items(endpoints, "/subsets") {
            let addresses = items(subset, "/addresses").iter().map(|address| text(address, "/ip"));
            let ports = items(subset, "/ports");
            if ports.is_empty() {
                all.extend(addresses.clone().map(str::to_owned));
            }
            for port in ports {
                all.extend(addresses.clone().map(|ip| host_port(ip, number(port, "/port"))));
            }
        }
        vec![view::name(endpoints), first_few(&all, " + ", view::NONE).into(), view::age(endpoints, now)]
    },
};

fn host_port(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

pub const ENDPOINT_SLICES: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::text("AddressType", "Family of the addresses: IPv4, IPv6 or FQDN."),
        Column::text("Ports", "Ports that every endpoint of the slice has."),
        Column::text("Endpoints", "Addresses of the endpoints."),
        Column::AGE,
    ],
    cells: |slice, now| {
        let ports: Vec<String> = items(slice, "/ports")
            .iter()
            .map(|port| match port.pointer("/port").and_then(Value::as_i64) {
                Some(number) => number.to_string(),
                None => or(text(port, "/name"), "*").to_owned(),
            })
            .collect();
        let endpoints = items(slice, "/endpoints").iter().flat_map(|endpoint| items(endpoint, "/addresses"));
        let addresses: Vec<String> = endpoints.filter_map(Value::as_str).map(str::to_owned).collect();
        vec![
            view::name(slice),
            text(slice, "/addressType").into(),
            first_few(&ports, " + ", view::UNSET).into(),
            first_few(&addresses, " + ", view::UNSET).into(),
            view::age(slice, now),
        ]
    },
};

pub const INGRESSES: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::text("Class", "Which controller serves the Ingress."),
        Column::text("Hosts", "Host names the Ingress answers for."),
        Column::text("Address", "Where the Ingress is reached."),
        Column::text("Ports", "Ports the Ingress opens."),
        Column::AGE,
    ],
    cells: |ingress, now| {
        let hosts: Vec<String> = items(ingress, "/spec/rules")
            .iter()
            .map(|rule| text(rule, "/host").to_owned())
            .filter(|host| !host.is_empty())
            .collect();
        let ports = if items(ingress, "/spec/tls").is_empty() { "80" } else { "80, 443" };
        vec![
            view::name(ingress),
            or(text(ingress, "/spec/ingressClassName"), view::NONE).into(),
            first_few(&hosts, " + ", "*").into(),
            load_balancer(ingress).into(),
            ports.into(),
            view::age(ingress, now),
        ]
    },
};

pub const INGRESS_CLASSES: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::text("Controller", "Controller that serves Ingresses of this class."),
        Column::text("Parameters", "Object with further settings."),
        Column::AGE,
    ],
    cells: |class, now| {
        let kind = text(class, "/spec/parameters/kind");
        let parameters =
            match (kind, text(class, "/spec/parameters/apiGroup"), text(class, "/spec/parameters/name")) {
                ("", ..) => view::NONE.to_owned(),
                (kind, "", name) => format!("{kind}/{name}"),
                (kind, group, name) => format!("{kind}.{group}/{name}"),
            };
        vec![
            view::name(class),
            text(class, "/spec/controller").into(),
            parameters.into(),
            view::age(class, now),
        ]
    },
};

pub const POLICIES: Printer = Printer {
    columns: &[Column::NAME, Column::text("Pod-Selector", "Pods the policy applies to."), Column::AGE],
    cells: |policy, now| {
        vec![view::name(policy), view::selector(policy, "/spec/podSelector").into(), view::age(policy, now)]
    },
};

pub const SERVICE_CIDRS: Printer = Printer {
    columns: &[Column::NAME, Column::text("CIDRs", "Ranges Service addresses are taken from."), Column::AGE],
    cells: |cidr, now| {
        vec![view::name(cidr), view::join_texts(items(cidr, "/spec/cidrs"), ",").into(), view::age(cidr, now)]
    },
};

pub const IP_ADDRESSES: Printer = Printer {
    columns: &[Column::NAME, Column::text("ParentRef", "Object that uses the address."), Column::AGE],
    cells: |address, now| {
        let part = |name: &str| text(address, &format!("/spec/parentRef/{name}")).to_owned();
        let parts = [part("group"), part("resource"), part("namespace"), part("name")];
        let parent = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
        vec![view::name(address), parent.into(), view::age(address, now)]
    },
};

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;

    fn check(printer: &Printer, object: Value, column: &str, expect: &str) {
        let at = printer.columns.iter().position(|c| c.name == column).expect("such a column");
        assert_eq!((printer.cells)(&object, Timestamp::UNIX_EPOCH)[at], expect);
    }

    #[test]
    fn services_show_where_they_are_reached() {
        let service = |kind: &str, ingress: Value| {
            json!({"spec": {"type": kind, "clusterIP": "None", "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]},
                "status": {"loadBalancer": {"ingress": ingress}}})
        };
        check(&SERVICES, service("LoadBalancer", json!([])), "External-IP", "<pending>");
        check(
            &SERVICES,
            service("LoadBalancer", json!([{"ip": "10.0.0.2"}, {"ip": "10.0.0.1"}])),
            "External-IP",
            "10.0.0.1,10.0.0.2",
        );
        check(&SERVICES, service("ClusterIP", json!(null)), "External-IP", "<none>");
        check(&SERVICES, service("ClusterIP", json!(null)), "Cluster-IP", "None");
        check(&SERVICES, service("NodePort", json!(null)), "Port(s)", "80:30080/TCP,53/UDP");
    }

    #[test]
    fn long_lists_are_cut_and_counted() {
        let slice = json!({"endpoints": [{"addresses": ["a"]}, {"addresses": ["b"]}, {"addresses": ["c"]}, {"addresses": ["d"]}], "ports": []});
        check(&ENDPOINT_SLICES, slice.clone(), "Endpoints", "a,b,c + 1 more...");
        check(&ENDPOINT_SLICES, slice, "Ports", "<unset>");
        let endpoints = json!({"subsets": [{"addresses": [{"ip": "1.1.1.1"}, {"ip": "fd00::1"}], "ports": [{"port": 80}]}]});
        check(&ENDPOINTS, endpoints, "Endpoints", "1.1.1.1:80,[fd00::1]:80");
        check(&ENDPOINTS, json!({}), "Endpoints", "<none>");
    }
}
