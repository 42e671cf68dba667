//! Validation of addresses: those that traffic will be sent to, and those of load balancers.

use std::net::IpAddr;

use serde_json::Value;

use super::{FieldError, check, dns1123_subdomain, ip_address};

/// Why traffic may not be sent to an address that somebody writes into an object (upstream's `ValidateNonSpecialIP`): such
/// an address means the machine itself of whoever follows it. `None`: it may.
pub fn special_address(address: IpAddr) -> Option<&'static str> {
    let address = address.to_canonical();
    let (link_local, multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] & 0xff0f == 0xff02),
    };
    match address {
        _ if address.is_unspecified() => Some("may not be unspecified (0.0.0.0 or ::)"),
        _ if address.is_loopback() => Some("may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        _ if link_local => Some("may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        _ if multicast => Some("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
        _ => None,
    }
}

/// What a load balancer is said to be reached by. Rule: `ValidateLoadBalancerStatus`.
pub fn load_balancer(object: &Value) -> Vec<FieldError> {
    check(object, "status", |status| {
        status.within("loadBalancer", |balancer| {
            balancer.each("ingress", |ingress| {
                ingress.named("ip", ip_address);
                let host = ingress.text("hostname");
                if !host.is_empty() {
                    ingress.follow("hostname", dns1123_subdomain(host));
                    if ip_address(host).is_empty() {
                        ingress.invalid("hostname", "must be a DNS name, not an IP address");
                    }
                }
            });
        });
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_itself_is_no_destination() {
        let check = |text: &str, expect: Option<&str>| {
            let why = special_address(text.parse().unwrap());
            assert_eq!(why.is_some(), expect.is_some(), "{text}: {why:?}");
            assert!(why.unwrap_or_default().contains(expect.unwrap_or_default()), "{text}: {why:?}");
        };
        check("10.0.0.1", None);
        check("fd00::1", None);
        check("127.1.2.3", Some("loopback"));
        check("::1", Some("loopback"));
        check("::ffff:127.0.0.1", Some("loopback"));
        check("169.254.169.254", Some("link-local"));
        check("fe80::1", Some("link-local"));
        check("224.0.0.5", Some("link-local"));
        check("0.0.0.0", Some("unspecified"));
    }
}
