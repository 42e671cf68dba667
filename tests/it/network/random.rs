//! Random Services: whatever they are, the plan and both backends say the same of every packet.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use minik::node::network::{
    Endpoint, Kind, Node, Port, Protocol, Service, ServiceKey, Slice, SlicePort, View,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::rules::{Tracers, packet, tracer};

const SETS: u64 = 10_000;
/// A slow machine tries fewer sets, but never none.
const BOUND: Duration = Duration::from_secs(20);

fn ip(last: [u8; 4]) -> Ipv4Addr {
    Ipv4Addr::from(last)
}

fn service(dice: &mut StdRng, number: u8) -> Service {
    let kinds = [Kind::ClusterIp, Kind::NodePort, Kind::LoadBalancer];
    let kind = kinds[dice.random_range(0..3)].clone();
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let ports = (0..dice.random_range(1..3u16)).map(|at| Port {
        name: format!("p{at}"),
        protocol: protocols[dice.random_range(0..3)],
        port: 80 + at,
        node_port: (kind != Kind::ClusterIp).then(|| 30_000 + u16::from(number) * 10 + at),
        app_protocol: None,
    });
    let ports: Vec<Port> = ports.collect();
    let ranges = ["198.51.100.0/24", "172.18.0.0/16", "198.51.100.7/32"];
    let some = |dice: &mut StdRng, chance: f64| dice.random_bool(chance);
    Service {
        key: ServiceKey::new("shop", format!("s{number}")),
        cluster_ip: Some(ip([10, 43, 1, number])),
        headless: false,
        affinity: some(dice, 0.2).then_some(600),
        internal_local: some(dice, 0.3),
        external_local: kind != Kind::ClusterIp && some(dice, 0.4),
        health_check_node_port: None,
        external_ips: if some(dice, 0.3) { vec![ip([192, 0, 2, number])] } else { Vec::new() },
        ingress_ips: if kind == Kind::LoadBalancer { vec![ip([172, 18, 128, number])] } else { Vec::new() },
        source_ranges: (0..dice.random_range(0..3))
            .map(|_| ranges[dice.random_range(0..3)].parse().expect("a range"))
            .collect(),
        publish_not_ready: false,
        announced_by: None,
        gateway: None,
        other_proxy: some(dice, 0.05),
        unproxied: some(dice, 0.05),
        ports,
        kind,
    }
}

fn slice(dice: &mut StdRng, service: &Service) -> Slice {
    let hinted = dice.random_bool(0.2);
    let endpoints = (0..dice.random_range(0..4u8)).map(|at| {
        let (ready, ending) = (dice.random_bool(0.6), dice.random_bool(0.5));
        let here = dice.random_bool(0.5);
        Endpoint {
            address: ip([10, 42, u8::from(here), at + 1]),
            ready,
            serving: ready || dice.random_bool(0.5),
            terminating: !ready && ending,
            node: Some(if here { "here" } else { "there" }.into()),
            hostname: None,
            for_nodes: if hinted { vec![if here { "here" } else { "there" }.into()] } else { Vec::new() },
            for_zones: if dice.random_bool(0.8) { vec!["a".into()] } else { Vec::new() },
        }
    });
    let endpoints = endpoints.collect();
    let ports = service.ports.iter().filter(|_| dice.random_bool(0.9)).map(|port| SlicePort {
        name: port.name.clone(),
        protocol: port.protocol,
        port: 8080,
    });
    let ports = ports.collect();
    Slice { name: "x".into(), service: service.key.clone(), ports, endpoints }
}

#[test]
fn backends_and_plan_agree_on_random_services() {
    let start = Instant::now();
    let mut tried = 0;
    for seed in 0..SETS {
        let mut dice = StdRng::seed_from_u64(seed);
        let mut view = View::default();
        let zone = dice.random_bool(0.5).then(|| "a".to_owned());
        view.put_node(Node { name: "here".into(), internal_ip: None, pod_cidr: None, zone });
        let mut targets = vec!["10.42.1.1:8080/tcp".to_owned(), "10.43.1.1:99/tcp".to_owned()];
        for number in 1..=dice.random_range(1..4u8) {
            let service = service(&mut dice, number);
            for port in &service.ports {
                let protocol = port.protocol.lower();
                let addresses =
                    service.cluster_ip.iter().chain(&service.external_ips).chain(&service.ingress_ips);
                targets.extend(addresses.map(|ip| format!("{ip}:{}/{protocol}", port.port)));
                let node_ports = port.node_port.into_iter();
                targets.extend(node_ports.flat_map(|port| {
                    ["172.18.0.3", "127.0.0.1", "172.18.128.9"].map(|ip| format!("{ip}:{port}/{protocol}"))
                }));
            }
            let mut slice = slice(&mut dice, &service);
            slice.name = format!("s{number}-x");
            view.put_slice(slice);
            view.put_service(service);
        }
        let mut tracers = tracer(&view);
        agree(&tracers, &targets, &view, seed);
        // Rules that follow what changes are those that would have been written at once.
        for _ in 0..2 {
            change(&mut dice, &mut view);
            tracers.follow(&view);
            agree(&tracers, &targets, &view, seed);
        }
        tried += 1;
        if start.elapsed() > BOUND {
            break;
        }
    }
    eprintln!("{tried} sets of Services agree");
    assert!(tried > 50, "only {tried} sets could be tried");
}

/// One Service comes, goes or becomes another one, or has other endpoints.
fn change(dice: &mut StdRng, view: &mut View) {
    let number = dice.random_range(1..4);
    let service = service(dice, number);
    let mut slice = slice(dice, &service);
    slice.name = format!("{}-x", service.key.name);
    match dice.random_range(0..4) {
        0 => view.remove_service(&service.key),
        1 => view.put_service(service),
        2 => view.remove_slice("shop", &slice.name),
        _ => view.put_slice(slice),
    };
}

fn agree(tracers: &Tracers, targets: &[String], view: &View, seed: u64) {
    for target in targets {
        for source in ["10.42.1.77", "10.42.1.1", "172.18.0.3", "203.0.113.5", "198.51.100.7", "172.18.0.1"] {
            let line = format!("{source} -> {target}");
            let [iptables, nftables, plan] = tracers.all(&packet(&line)).map(|(_, fates)| rounded(fates));
            assert_eq!(iptables, nftables, "seed {seed}: {line}: iptables, nftables; {view:#?}");
            assert_eq!(nftables, plan, "seed {seed}: {line}: nftables, plan; {view:#?}");
        }
    }
}

fn rounded(fates: std::collections::BTreeMap<String, f64>) -> Vec<(String, u32)> {
    fates.into_iter().map(|(fate, chance)| (fate, (chance * 1e6).round() as u32)).collect()
}
