//! Who stands behind a Service: Endpoints, and EndpointSlices, which took their place.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::resources::Strategy;
use crate::resources::fill::Fill;
use crate::validate::{
    Check, FieldError, Path, check_at, destination, dns1123_label, dns1123_subdomain, ip_address,
    label_value, labels_errors, port_number, qualified_name,
};

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const FAMILIES: &[&str] = &["FQDN", "IPv4", "IPv6"];
const MOST_ENDPOINTS: usize = 1000;
const MOST_ADDRESSES: usize = 100;
const MOST_PORTS: usize = 20_000;

pub struct Endpoints;

impl Strategy for Endpoints {
    fn default(&self, endpoints: &mut Value) {
        endpoints.each("subsets", |subset| subset.each("ports", |port| port.fill_text("protocol", "TCP")));
    }

    /// Rule: `ValidateEndpoints`.
    fn validate(&self, new: &Value, _old: Option<&Value>) -> Vec<FieldError> {
        check_at(new, &Path::default(), |endpoints| {
            endpoints.each("subsets", |subset| {
                if subset.list("addresses").is_empty() && subset.list("notReadyAddresses").is_empty() {
                    let error =
                        FieldError::required(&subset.path, "must specify `addresses` or `notReadyAddresses`");
                    subset.push(error);
                }
                for list in ["addresses", "notReadyAddresses"] {
                    subset.each(list, address);
                }
                let several = subset.list("ports").len() > 1;
                subset.each("ports", |port| {
                    if several {
                        port.need("name", "");
                    }
                    port.named("name", dns1123_label);
                    let number = port.int("port").unwrap_or(0);
                    for why in port_number(number) {
                        port.push(FieldError::invalid(port.at("port"), number, why));
                    }
                    port.need_one_of("protocol", PROTOCOLS, "");
                    port.named("appProtocol", qualified_name);
                });
            });
        })
    }
}

fn address(address: &mut Check<'_, '_>) {
    let ip = address.text("ip");
    let wrong = ip_address(ip);
    let wrong = if wrong.is_empty() { destination(ip) } else { wrong };
    for why in wrong {
        address.push(FieldError::invalid(address.at("ip"), ip, why));
    }
    address.named("hostname", dns1123_label);
    address.named("nodeName", dns1123_subdomain);
}

pub struct EndpointSlice;

impl Strategy for EndpointSlice {
    /// Rule: `SetDefaults_EndpointPort`.
    fn default(&self, slice: &mut Value) {
        slice.each("ports", |port| {
            port.fill("name", "");
            port.fill_text("protocol", "TCP");
        });
    }

    fn desired_state_changed(&self, new: &Value, old: &Value) -> bool {
        ["endpoints", "ports", "addressType"].iter().any(|member| new.get(*member) != old.get(*member))
            || new.pointer("/metadata/labels") != old.pointer("/metadata/labels")
    }

    /// Rule: `ValidateEndpointSlice`.
    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        check_at(new, &Path::default(), |slice| {
            slice.need_one_of("addressType", FAMILIES, "");
            if old.is_some() && !slice.text("addressType").is_empty() {
                slice.immutable("addressType", old.unwrap_or(&Value::Null));
            }
            if slice.list("endpoints").len() > MOST_ENDPOINTS {
                let count = slice.list("endpoints").len();
                slice.push(FieldError::too_many("endpoints", count, MOST_ENDPOINTS));
            }
            let family = slice.text("addressType");
            slice.each("endpoints", |endpoint| self::endpoint(endpoint, family));
            ports(slice);
        })
    }
}

fn endpoint(endpoint: &mut Check<'_, '_>, family: &str) {
    let count = endpoint.list("addresses").len();
    if count == 0 {
        endpoint.required("addresses", "must contain at least 1 address");
    } else if count > MOST_ADDRESSES {
        endpoint.push(FieldError::too_many(endpoint.at("addresses"), count, MOST_ADDRESSES));
    }
    endpoint.each("addresses", |address| {
        let text = address.value.as_str().unwrap_or_default();
        let wrong = match family {
            "IPv4" if text.parse::<std::net::Ipv4Addr>().is_err() => {
                vec!["must be a valid IPv4 address".into()]
            }
            "IPv6" if text.parse::<std::net::Ipv6Addr>().is_err() => {
                vec!["must be a valid IPv6 address".into()]
            }
            "IPv4" | "IPv6" => destination(text),
            "FQDN" => dns1123_subdomain(text),
            _ => Vec::new(),
        };
        address.follow_here(wrong);
    });
    endpoint.named("nodeName", dns1123_subdomain);
    endpoint.named("hostname", dns1123_label);
    let topology =
        labels_errors(Some(endpoint.get("deprecatedTopology")), &endpoint.at("deprecatedTopology"));
    endpoint.extend(topology);
    endpoint.within("hints", |hints| {
        let mut zones = BTreeSet::new();
        hints.each("forZones", |zone| {
            let name = zone.need("name", "");
            if !name.is_empty() && !zones.insert(name) {
                zone.duplicate("name");
            }
            zone.follow("name", label_value(name));
        });
    });
}

fn ports(slice: &mut Check<'_, '_>) {
    let count = slice.list("ports").len();
    if count > MOST_PORTS {
        slice.push(FieldError::too_many("ports", count, MOST_PORTS));
    }
    let mut names = BTreeSet::new();
    slice.each("ports", |port| {
        let name = port.text("name");
        port.named("name", dns1123_label);
        if !names.insert(name) {
            port.duplicate("name");
        }
        port.need_one_of("protocol", PROTOCOLS, "");
        port.named("appProtocol", qualified_name);
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resources::strategy::testing::check;

    #[test]
    fn slices() {
        let slice = |endpoint: Value| json!({"addressType": "IPv4", "endpoints": [endpoint]});
        check(&EndpointSlice, slice(json!({"addresses": ["10.0.0.1"]})), &[]);
        check(&EndpointSlice, json!({}), &["addressType: Required value"]);
        check(
            &EndpointSlice,
            json!({"addressType": "X"}),
            &["addressType: Unsupported value: \"X\": supported values: \"FQDN\", \"IPv4\", \"IPv6\""],
        );
        check(
            &EndpointSlice,
            slice(json!({"addresses": []})),
            &["endpoints[0].addresses: Required value: must contain at least 1 address"],
        );
        check(
            &EndpointSlice,
            slice(json!({"addresses": ["x"]})),
            &["endpoints[0].addresses[0]: Invalid value: \"x\": must be a valid IPv4 address"],
        );
        check(
            &EndpointSlice,
            slice(json!({"addresses": ["127.0.0.1"]})),
            &[
                "endpoints[0].addresses[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
            ],
        );
        check(
            &EndpointSlice,
            json!({"addressType": "IPv4", "ports": [{"name": "a", "port": 1}, {"name": "a", "port": 2}]}),
            &["ports[1].name: Duplicate value: \"a\""],
        );
    }

    #[test]
    fn endpoints() {
        let subset = |subset: Value| json!({"subsets": [subset]});
        check(&Endpoints, subset(json!({"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]})), &[]);
        check(
            &Endpoints,
            subset(json!({})),
            &["subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"],
        );
        check(
            &Endpoints,
            subset(json!({"addresses": [{"ip": "x"}]})),
            &[
                "subsets[0].addresses[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ],
        );
        check(
            &Endpoints,
            subset(
                json!({"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 0}, {"name": "b", "port": 1}]}),
            ),
            &[
                "subsets[0].ports[0].name: Required value",
                "subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            ],
        );
    }

    #[test]
    fn endpoints_lead_to_no_machine_of_the_followers_own() {
        let slice = json!({"addressType": "IPv4", "endpoints": [{"addresses": ["127.0.0.1"]}, {"addresses": ["10.0.0.1"]}]});
        let told: Vec<_> = EndpointSlice.validate(&slice, None).iter().map(ToString::to_string).collect();
        let expect = "endpoints[0].addresses[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)";
        assert_eq!(told, [expect]);
        let endpoints = json!({"subsets": [{"addresses": [{"ip": "169.254.169.254"}]}]});
        assert_eq!(Endpoints.validate(&endpoints, None).len(), 1);
    }
}
